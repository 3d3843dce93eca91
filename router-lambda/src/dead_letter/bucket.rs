//! Dead letters as objects of an S3 bucket.

use async_trait::async_trait;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata as _};

use super::{DeadLetters, Error, Letter};

/// An S3 bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    pub(super) client: aws_sdk_s3::Client,
    pub(super) name: String,
}

impl Bucket {
    /// The bucket of this name.
    pub fn new(client: aws_sdk_s3::Client, name: impl Into<String>) -> Self {
        Self { client, name: name.into() }
    }

    /// The bucket's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

#[async_trait]
impl DeadLetters for Bucket {
    async fn write(&self, letter: &Letter) -> Result<(), Error> {
        self.put(letter, letter.key()).await
    }
}

impl Bucket {
    /// Writes a letter under this key.
    pub(super) async fn put(&self, letter: &Letter, key: String) -> Result<(), Error> {
        let body = serde_json::to_vec(letter)
            .map_err(|error| Error::Encoding { key: key.clone(), reason: error.to_string() })?;
        let request = self
            .client
            .put_object()
            .bucket(&self.name)
            .key(&key)
            .content_type("application/json")
            .body(body.into());
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let reason = match (error.code(), error.message()) {
                    (Some(code), Some(message)) => format!("{code}: {message}"),
                    (Some(code), None) => code.to_owned(),
                    _ => DisplayErrorContext(&error).to_string(),
                };
                Err(Error::Storage { bucket: self.name.clone(), key, reason })
            }
        }
    }

    /// Removes an object; that it is gone already is no error.
    pub(super) async fn remove(&self, key: &str) -> Result<(), Error> {
        let removed = self.client.delete_object().bucket(&self.name).key(key).send().await;
        removed.map(drop).map_err(|error| self.unreadable(key, &error))
    }
}
