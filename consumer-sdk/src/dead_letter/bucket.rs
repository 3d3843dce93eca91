//! Dead letters in S3.

use async_trait::async_trait;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata as _, SdkError};

use super::{DeadLetter, DeadLetters, Error};

/// Writes each dead letter as one JSON object, named after the application and the record's place.
#[derive(Debug, Clone)]
pub struct BucketDeadLetters {
    client: aws_sdk_s3::Client,
    name: String,
}

impl BucketDeadLetters {
    /// The bucket with this name.
    pub fn new(client: aws_sdk_s3::Client, name: impl Into<String>) -> Self {
        Self { client, name: name.into() }
    }
}

#[async_trait]
impl DeadLetters for BucketDeadLetters {
    async fn write(&self, letter: &DeadLetter) -> Result<(), Error> {
        let body = letter.to_json().to_string().into_bytes();
        let request = self.client.put_object().bucket(&self.name).key(letter.key());
        let put = request.content_type("application/json").body(body.into()).send().await;
        put.map(|_| ()).map_err(|error| {
            let refused = match &error {
                SdkError::ConstructionFailure(_) => true,
                SdkError::ServiceError(_) => matches!(
                    error.code(),
                    Some("NoSuchBucket" | "AccessDenied" | "InvalidAccessKeyId" | "SignatureDoesNotMatch")
                ),
                _ => false,
            };
            let reason = match (error.code(), error.message()) {
                (Some(code), Some(message)) => format!("{code}: {message}"),
                (Some(code), None) => code.to_owned(),
                _ => DisplayErrorContext(&error).to_string(),
            };
            let (target, origin) = (format!("the bucket {:?}", self.name), letter.origin());
            match refused {
                true => Error::Refused { target, origin, reason },
                false => Error::Unavailable { target, origin, reason },
            }
        })
    }
}
