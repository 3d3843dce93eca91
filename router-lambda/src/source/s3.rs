//! A table in S3: asked for with the ETag that is known, so that an unchanged one is not sent again.

use async_trait::async_trait;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata as _};

use super::{Error, MAX_TABLE_BYTES, Source, Text};
use crate::table::Format;

/// An object.
#[derive(Debug, Clone)]
pub struct Object {
    client: aws_sdk_s3::Client,
    bucket: String,
    key: String,
}

impl Object {
    /// The object of this key.
    pub fn new(client: aws_sdk_s3::Client, bucket: impl Into<String>, key: impl Into<String>) -> Self {
        Self { client, bucket: bucket.into(), key: key.into() }
    }

    fn unreadable(&self, reason: impl Into<String>) -> Error {
        Error::Unreadable { location: self.location(), reason: reason.into() }
    }
}

#[async_trait]
impl Source for Object {
    async fn fetch(&self, known: Option<&str>) -> Result<Option<Text>, Error> {
        let get = self.client.get_object().bucket(&self.bucket).key(&self.key);
        let answer = match get.set_if_none_match(known.map(str::to_owned)).send().await {
            Ok(answer) => answer,
            // Not modified is no success to the SDK, and its answer has no body.
            Err(error) if error.raw_response().is_some_and(|raw| raw.status().as_u16() == 304) => {
                return Ok(None);
            }
            Err(error) => {
                return Err(self.unreadable(match (error.code(), error.message()) {
                    (Some(code), Some(message)) => format!("{code}: {message}"),
                    (Some(code), None) => code.to_owned(),
                    _ => DisplayErrorContext(&error).to_string(),
                }));
            }
        };
        let version = answer.e_tag().unwrap_or_default().to_owned();
        // A server may not know the condition.
        if known.is_some_and(|known| known == version) && !version.is_empty() {
            return Ok(None);
        }
        if answer.content_length().is_some_and(|bytes| bytes > MAX_TABLE_BYTES as i64) {
            return Err(Error::TooLarge { location: self.location() });
        }
        let body = answer.body.collect().await.map_err(|error| self.unreadable(error.to_string()))?;
        let text = String::from_utf8(body.to_vec()).map_err(|error| self.unreadable(error.to_string()))?;
        let format = Format::of_name(&self.key).unwrap_or_else(|| Format::of_text(&text));
        Ok(Some(Text { version, text, format }))
    }

    fn location(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }
}
