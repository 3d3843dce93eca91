//! For consumers: values that were encrypted, as they were.

use std::collections::HashMap;
use std::ops::Range;

use super::json::{self, Step, Visitor};
use super::keys::Keys;
use super::seal::{Envelope, KEY_BYTES, SEAL_PREFIX};

/// Why a payload cannot be revealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RevealError {
    /// It is no JSON.
    #[error("the payload is not JSON from byte {at} on; it was not protected by a gateway")]
    NotJson {
        /// Where it ceases to be.
        at: usize,
    },
    /// There is no data key for a value.
    #[error(
        "the key {key_id:?}, which encrypted {pointer:?}, is not known here or does not fit; add it to the keys"
    )]
    KeyUnknown {
        /// The key's id.
        key_id: String,
        /// The pointer of the rule that encrypted it.
        pointer: String,
    },
    /// A value was changed since it was encrypted.
    #[error(
        "the value that {key_id:?} encrypted at {pointer:?} was changed, or was cut off; do not trust the payload"
    )]
    Changed {
        /// The key's id.
        key_id: String,
        /// The pointer of the rule that encrypted it.
        pointer: String,
    },
}

impl RevealError {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            RevealError::NotJson { .. } => "payload-not-json",
            RevealError::KeyUnknown { .. } => "protection-key-unknown",
            RevealError::Changed { .. } => "protected-field-changed",
        }
    }

    /// Whether the same payload may be revealed later with the same keys: never.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// Where data keys come from: [`Keys`] for local ones, a map from key id and wrapped key for those that a key
/// service unwrapped before.
pub trait DataKeys {
    /// The data key of a value.
    fn data_key(&self, key_id: &str, wrapped: &[u8]) -> Option<[u8; KEY_BYTES]>;
}

impl DataKeys for Keys {
    fn data_key(&self, key_id: &str, wrapped: &[u8]) -> Option<[u8; KEY_BYTES]> {
        self.unwrap_data_key(key_id, wrapped)
    }
}

impl<S: std::hash::BuildHasher> DataKeys for HashMap<(String, Vec<u8>), [u8; KEY_BYTES], S> {
    fn data_key(&self, key_id: &str, wrapped: &[u8]) -> Option<[u8; KEY_BYTES]> {
        self.get(&(key_id.to_owned(), wrapped.to_vec())).copied()
    }
}

#[derive(Default)]
struct Sealed(Vec<(Range<usize>, Envelope)>);

struct Over<'s, 't>(&'s mut Sealed, &'t [u8]);

impl<'t> Visitor<'t> for Over<'_, 't> {
    fn value(&mut self, _: &[Step<'t>], value: Range<usize>) {
        let text = &self.1[value.clone()];
        if text.strip_prefix(b"\"").is_some_and(|text| text.starts_with(SEAL_PREFIX.as_bytes()))
            && let Some(envelope) = json::unquote(text).and_then(|text| Envelope::parse(&text))
        {
            self.0.0.push((value, envelope));
        }
    }
}

fn sealed(payload: &[u8]) -> Result<Vec<(Range<usize>, Envelope)>, RevealError> {
    let mut sealed = Sealed::default();
    json::scan(payload, &mut Over(&mut sealed, payload))
        .map_err(|json::NotJson(at)| RevealError::NotJson { at })?;
    Ok(sealed.0)
}

/// The encrypted values of a payload, in their order: what a key service is to be asked for.
pub fn envelopes(payload: &[u8]) -> Result<Vec<Envelope>, RevealError> {
    Ok(sealed(payload)?.into_iter().map(|(_, envelope)| envelope).collect())
}

/// The payload with every encrypted value as it was before, byte for byte; what was dropped or hashed stays so.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use headworks_record::protected::{self, Keys};
/// # let folder = tempfile::tempdir()?;
/// # let file = folder.path().join("keys.toml");
/// # std::fs::write(&file, "")?;
///
/// let keys = Keys::load(&file)?;
/// let payload = protected::reveal(br#"{"total": 12.50}"#, &keys)?;
/// assert_eq!(payload, br#"{"total": 12.50}"#);
/// # Ok(()) }
/// ```
pub fn reveal(payload: &[u8], keys: &impl DataKeys) -> Result<Vec<u8>, RevealError> {
    let mut parts = Vec::new();
    for (range, envelope) in sealed(payload)? {
        let (key_id, pointer) = (envelope.key_id().to_owned(), envelope.pointer().to_owned());
        let Some(key) = keys.data_key(&key_id, envelope.wrapped_key()) else {
            return Err(RevealError::KeyUnknown { key_id, pointer });
        };
        let Some(value) = envelope.open(&key) else { return Err(RevealError::Changed { key_id, pointer }) };
        parts.push((range, value));
    }
    Ok(json::splice(payload, parts))
}
