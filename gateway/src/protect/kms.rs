//! Data keys from AWS KMS.
//!
//! The gateway needs `kms:GenerateDataKey`, who reveals `kms:Decrypt`; both name the key's id as encryption context
//! ([`KMS_CONTEXT`]), so that a policy may tell keys apart.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aws_sdk_kms::Client;
use aws_sdk_kms::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use headworks_record::protected::{
    KEY_BYTES, KMS_CONTEXT, Keys, RevealError, SealError, ServiceKey, envelopes, reveal,
};

/// How many unwrapped data keys are kept. One serves a gateway for five minutes.
const KEPT: usize = 1024;
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
        "KMS gave no data key for {id:?} ({name:?}): {reason}; check the key's state, its policy, the permissions kms:GenerateDataKey and kms:Decrypt, and the way to KMS"
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
    /// The payload cannot be revealed.
    #[error(transparent)]
    Reveal(#[from] RevealError),
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Service { .. } => "protection-key-unavailable",
            Error::Seal(error) => error.code(),
            Error::Reveal(error) => error.code(),
        }
    }

    /// Whether asking again may help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Service { retryable, .. } => *retryable,
            Error::Seal(error) => error.is_retryable(),
            Error::Reveal(error) => error.is_retryable(),
        }
    }
}

type DataKeys = HashMap<(String, Vec<u8>), [u8; KEY_BYTES]>;

/// AWS KMS, asked for data keys and to unwrap them.
pub struct Kms {
    client: Client,
    unwrapped: Mutex<DataKeys>,
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
        Self { client, unwrapped: Mutex::default() }
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

    /// As [`reveal`](super::reveal), with keys of KMS among the keys. Data keys that KMS unwrapped are kept.
    pub async fn reveal(&self, payload: &[u8], keys: &Keys) -> Result<Vec<u8>, Error> {
        let names: HashMap<String, String> =
            keys.services().map(|key| (key.id().to_owned(), key.name().to_owned())).collect();
        let mut unwrapped = DataKeys::new();
        for envelope in envelopes(payload)? {
            let at = (envelope.key_id().to_owned(), envelope.wrapped_key().to_vec());
            if unwrapped.contains_key(&at) {
                continue;
            }
            let local = keys.unwrap_data_key(envelope.key_id(), envelope.wrapped_key());
            let data_key = match (local.or_else(|| self.kept(&at)), names.get(envelope.key_id())) {
                (Some(data_key), _) => Some(data_key),
                (None, Some(name)) => Some(self.unwrap(&at, name).await?),
                // Told as unknown below.
                (None, None) => None,
            };
            unwrapped.extend(data_key.map(|data_key| (at, data_key)));
        }
        Ok(reveal(payload, &unwrapped)?)
    }

    fn kept(&self, at: &(String, Vec<u8>)) -> Option<[u8; KEY_BYTES]> {
        self.unwrapped.lock().unwrap_or_else(PoisonError::into_inner).get(at).copied()
    }

    async fn unwrap(&self, at: &(String, Vec<u8>), name: &str) -> Result<[u8; KEY_BYTES], Error> {
        let (id, wrapped) = at;
        let asked = self
            .client
            .decrypt()
            .key_id(name)
            .ciphertext_blob(Blob::new(wrapped.clone()))
            .encryption_context(KMS_CONTEXT, id);
        let given = asked.send().await.map_err(|error| refused(id, name, &error))?;
        let data_key = plain(id, name, given.plaintext.as_ref())?;
        let mut unwrapped = self.unwrapped.lock().unwrap_or_else(PoisonError::into_inner);
        if unwrapped.len() >= KEPT {
            unwrapped.clear();
        }
        unwrapped.insert(at.clone(), data_key);
        Ok(data_key)
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
