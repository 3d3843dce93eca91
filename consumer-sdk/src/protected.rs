//! Fields that a gateway encrypted, revealed with data keys of AWS KMS.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use aws_sdk_kms::Client;
use aws_sdk_kms::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::decrypt::DecryptError;
use aws_sdk_kms::primitives::Blob;
use headworks_record::protected::{self, KEY_BYTES, KMS_CONTEXT, Keys, RevealError};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::config::{ConfigError, count, span};
use crate::sync::lock;

/// What KMS says where asking again may help.
const PASSING: [&str; 6] = [
    "ThrottlingException",
    "LimitExceededException",
    "KMSInternalException",
    "DependencyTimeoutException",
    "KeyUnavailableException",
    "ServiceUnavailable",
];

/// Why a payload was not revealed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// KMS refuses to unwrap a data key, or cannot be reached.
    #[error(
        "KMS did not unwrap a data key of {id:?} ({name:?}): {reason}; check the key's state, its policy, the permission kms:Decrypt, and the way to KMS"
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
    /// The payload cannot be revealed with these keys.
    #[error(transparent)]
    Reveal(#[from] RevealError),
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Service { .. } => "protection-key-unavailable",
            Error::Reveal(source) => source.code(),
        }
    }

    /// Whether the same payload may be revealed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Service { retryable, .. } => *retryable,
            Error::Reveal(source) => source.is_retryable(),
        }
    }
}

/// A key's id, and a data key as it is wrapped under it.
type Wrapped = (String, Vec<u8>);
type DataKey = [u8; KEY_BYTES];

/// Reveals payloads. One serves all handlers of a process: data keys that KMS unwrapped are kept for a while, so that
/// KMS is asked once for each, not for each record. A gateway uses a data key for five minutes.
///
/// It needs `kms:Decrypt`, with the key's id as the encryption context
/// [`KMS_CONTEXT`]. Values that local keys encrypted are revealed as well.
///
/// ```no_run
/// use headworks_consumer::protected::Revealer;
/// use headworks_consumer::{Batch, Handler, HandlerError};
///
/// struct Cards(std::sync::Arc<Revealer>);
///
/// impl Handler for Cards {
///     async fn handle(&mut self, batch: Batch) -> Result<(), HandlerError> {
///         for delivered in &batch {
///             let payload = self.0.reveal(&delivered.record.data).await?;
///             println!("{} bytes", payload.len());
///         }
///         Ok(())
///     }
/// }
/// ```
pub struct Revealer {
    client: Client,
    keys: Keys,
    names: HashMap<String, String>,
    most: usize,
    keep: Duration,
    call_timeout: Duration,
    kept: Mutex<HashMap<Wrapped, (Instant, DataKey)>>,
    // Handlers that meet the same new data key ask for it once.
    asking: Semaphore,
}

impl std::fmt::Debug for Revealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the keys.
        f.debug_struct("Revealer").field("most", &self.most).field("keep", &self.keep).finish_non_exhaustive()
    }
}

impl Revealer {
    /// With these keys, and KMS behind this client for those that name one of its keys. Keeps 1,024 data keys for
    /// ten minutes each, and waits ten seconds for an answer.
    pub fn new(client: Client, keys: Keys) -> Self {
        let names = keys.services().map(|key| (key.id().to_owned(), key.name().to_owned())).collect();
        Self {
            client,
            keys,
            names,
            most: 1_024,
            keep: Duration::from_secs(600),
            call_timeout: Duration::from_secs(10),
            kept: Mutex::default(),
            asking: Semaphore::new(1),
        }
    }

    /// How many data keys are kept at most, 1 to 1,000,000; the oldest goes first.
    pub fn max_data_keys(mut self, keys: usize) -> Result<Self, ConfigError> {
        count("max_data_keys", keys, 1, 1_000_000)?;
        self.most = keys;
        Ok(self)
    }

    /// For how long a data key is kept, 1 s to a day: for so long values can be revealed after KMS ceased to permit it.
    pub fn keep_for(mut self, time: Duration) -> Result<Self, ConfigError> {
        span("keep_for", time, Duration::from_secs(1), Duration::from_secs(86_400))?;
        self.keep = time;
        Ok(self)
    }

    /// How long one call of KMS may take, 100 ms to 300 s.
    pub fn call_timeout(mut self, time: Duration) -> Result<Self, ConfigError> {
        span("call_timeout", time, Duration::from_millis(100), Duration::from_secs(300))?;
        self.call_timeout = time;
        Ok(self)
    }

    /// The payload with every encrypted value as it was before, byte for byte; what was dropped or hashed stays so.
    pub async fn reveal(&self, payload: &[u8]) -> Result<Vec<u8>, Error> {
        let mut data_keys: HashMap<Wrapped, DataKey> = HashMap::new();
        for envelope in protected::envelopes(payload)? {
            let wrapped = (envelope.key_id().to_owned(), envelope.wrapped_key().to_vec());
            if data_keys.contains_key(&wrapped) {
                continue;
            }
            let local = self.keys.unwrap_data_key(&wrapped.0, &wrapped.1);
            let data_key = match (local, self.names.get(&wrapped.0)) {
                (Some(data_key), _) => data_key,
                (None, Some(name)) => self.unwrapped(&wrapped, name).await?,
                // Told as unknown below.
                (None, None) => continue,
            };
            data_keys.insert(wrapped, data_key);
        }
        Ok(protected::reveal(payload, &data_keys)?)
    }

    async fn unwrapped(&self, wrapped: &Wrapped, name: &str) -> Result<DataKey, Error> {
        if let Some(data_key) = self.kept(wrapped) {
            return Ok(data_key);
        }
        // It is never closed.
        let _turn = self.asking.acquire().await;
        if let Some(data_key) = self.kept(wrapped) {
            return Ok(data_key);
        }
        let (id, blob) = wrapped;
        let failed = |reason: String, retryable| Error::Service {
            id: id.clone(),
            name: name.to_owned(),
            reason,
            retryable,
        };
        let asked = self.client.decrypt().key_id(name).ciphertext_blob(Blob::new(blob.clone()));
        let asked = asked.encryption_context(KMS_CONTEXT, id).send();
        let given = match timeout(self.call_timeout, asked).await {
            Ok(Ok(given)) => given,
            Ok(Err(error)) => return Err(failed(reason(&error), is_passing(&error))),
            Err(_) => return Err(failed(format!("no answer within {:?}", self.call_timeout), true)),
        };
        let plain = given.plaintext.as_ref().and_then(|plain| plain.as_ref().try_into().ok());
        let data_key: DataKey =
            plain.ok_or_else(|| failed(format!("its answer has no data key of {KEY_BYTES} bytes"), false))?;
        self.keep(wrapped, data_key);
        Ok(data_key)
    }

    fn kept(&self, wrapped: &Wrapped) -> Option<DataKey> {
        let kept = lock(&self.kept);
        kept.get(wrapped).filter(|(since, _)| since.elapsed() < self.keep).map(|(_, data_key)| *data_key)
    }

    fn keep(&self, wrapped: &Wrapped, data_key: DataKey) {
        let mut kept = lock(&self.kept);
        kept.retain(|_, (since, _)| since.elapsed() < self.keep);
        while kept.len() >= self.most {
            let oldest = kept.iter().min_by_key(|(_, (since, _))| *since).map(|(wrapped, _)| wrapped.clone());
            let Some(oldest) = oldest else { break };
            kept.remove(&oldest);
        }
        kept.insert(wrapped.clone(), (Instant::now(), data_key));
    }
}

fn is_passing(error: &SdkError<DecryptError>) -> bool {
    match error {
        SdkError::ServiceError(_) => error.code().is_none_or(|code| PASSING.contains(&code)),
        SdkError::ConstructionFailure(_) => false,
        _ => true,
    }
}

fn reason(error: &SdkError<DecryptError>) -> String {
    match (error.code(), error.message()) {
        (Some(code), message) => format!("{code}: {}", message.unwrap_or_default()),
        (None, _) => DisplayErrorContext(error).to_string(),
    }
}
