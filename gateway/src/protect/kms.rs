//! Data keys from AWS KMS.
//!
//! The gateway needs `kms:GenerateDataKey`, who reveals `kms:Decrypt`; both name the key's id as encryption context
//! ([`KMS_CONTEXT`]), so that a policy may tell keys apart.

use aws_sdk_kms::Client;
use aws_sdk_kms::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use headworks_record::protected::{KEY_BYTES, KMS_CONTEXT, SealError, ServiceKey};

/// What KMS says where asking again may help.
const PASSING: [&str; 6] = [
    "ThrottlingException",
    "LimitExceededException",
    "KMSInternalException",
    "DependencyTimeoutException",
    "KeyUnavailableException",
    "ServiceUnavailable",
];

/// Why KMS gave no data key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// KMS refuses, or cannot be reached.
    #[error(
        "KMS gave no data key for {id:?} ({name:?}): {reason}; check the key's state, its policy, the permission kms:GenerateDataKey, and the way to KMS"
    )]
    Service {
        /// The key's id among the keys.
        id: String,
        /// Its name in KMS.
        name: String,
        /// What was said.
        reason: String,
        /// Whether asking again may help.
        retryable: bool,
    },
    /// The data key cannot be used.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Service { .. } => "protection-key-unavailable",
            Error::Seal(error) => error.code(),
        }
    }

    /// Whether asking again may help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Service { retryable, .. } => *retryable,
            Error::Seal(error) => error.is_retryable(),
        }
    }
}

/// AWS KMS, asked for data keys.
pub struct Kms {
    client: Client,
}

impl std::fmt::Debug for Kms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the keys.
        f.debug_struct("Kms").finish_non_exhaustive()
    }
}

impl Kms {
    /// KMS behind this client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Asks for another data key and puts it in use.
    pub async fn renew(&self, key: &ServiceKey) -> Result<(), Error> {
        let asked = self
            .client
            .generate_data_key()
            .key_id(key.name())
            .key_spec(DataKeySpec::Aes256)
            .encryption_context(KMS_CONTEXT, key.id());
        let given = asked.send().await.map_err(|error| refused(key.id(), key.name(), &error))?;
        let plain = plain(key.id(), key.name(), given.plaintext.as_ref())?;
        let wrapped = given.ciphertext_blob.map(Blob::into_inner).unwrap_or_default();
        Ok(key.renew(&plain, wrapped)?)
    }
}

fn refused<E, R>(id: &str, name: &str, error: &SdkError<E, R>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    let retryable = match error {
        SdkError::ServiceError(_) => error.code().is_none_or(|code| PASSING.contains(&code)),
        SdkError::ConstructionFailure(_) => false,
        _ => true,
    };
    let reason = match (error.code(), error.message()) {
        (Some(code), message) => format!("{code}: {}", message.unwrap_or_default()),
        (None, _) => DisplayErrorContext(error).to_string(),
    };
    Error::Service { id: id.to_owned(), name: name.to_owned(), reason, retryable }
}

fn plain(id: &str, name: &str, given: Option<&Blob>) -> Result<[u8; KEY_BYTES], Error> {
    given.and_then(|blob| blob.as_ref().try_into().ok()).ok_or_else(|| Error::Service {
        id: id.to_owned(),
        name: name.to_owned(),
        reason: format!("its answer has no data key of {KEY_BYTES} bytes"),
        retryable: false,
    })
}
