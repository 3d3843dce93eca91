//! The keys that values are protected with.
//!
//! ```toml
//! [[keys]]
//! id = "email-2026"
//! use = "hash"
//! secret = "<at least 32 bytes in base64>"
//!
//! [[keys]]
//! id = "pii-2026"
//! use = "encrypt"
//! secret = "<32 bytes in base64>"
//! ```
//!
//! `openssl rand -base64 32` makes one. A key is for hashing or for encrypting, never for both. To rotate one, add
//! another and name that in the rules; keep the old one where values are decrypted.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::seal::{DataKey, Failed, KEY_BYTES, Wrapping};

/// How long a data key is used.
const DATA_KEY_LIFE: Duration = Duration::from_secs(300);
/// How many values it encrypts: far fewer than random nonces allow (2^32).
const DATA_KEY_USES: u32 = 1 << 20;
/// The longest id.
const MAX_ID: usize = 64;

/// Why keys cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// The file.
    #[error("the file of keys {path:?} cannot be read: {source}; check protect.keys")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its form. The reason is not repeated in the parser's words, which quote the file.
    #[error(
        "the file of keys {path:?} is not valid at byte {at}; write [[keys]] with id, use = \"hash\" or \"encrypt\", and secret"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where.
        at: usize,
    },
    /// One key.
    #[error("the key {id:?} cannot be used: {reason}")]
    Key {
        /// Its id.
        id: String,
        /// Why.
        reason: &'static str,
    },
}

impl KeysError {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        "protection-keys-invalid"
    }

    /// Whether the same file may be read later: never.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    keys: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    r#use: Use,
    secret: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Use {
    Hash,
    Encrypt,
}

/// A key, by what it is for.
#[derive(Clone)]
pub(super) enum Key {
    Hash(Arc<hmac::Key>),
    Encrypt(Arc<Encrypting>),
}

/// Keys by their ids.
#[derive(Clone, Default)]
pub struct Keys(BTreeMap<String, Key>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl Keys {
    /// Reads a file of keys.
    pub fn load(path: &Path) -> Result<Self, KeysError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| KeysError::Unreadable { path: path.to_owned(), source })?;
        let file: File = toml::from_str(&text).map_err(|error| KeysError::Malformed {
            path: path.to_owned(),
            at: error.span().map_or(0, |span| span.start),
        })?;
        let mut keys = BTreeMap::new();
        for Entry { id, r#use, secret } in file.keys {
            let bad = |reason| KeysError::Key { id: id.clone(), reason };
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
            if id.is_empty() || id.len() > MAX_ID || !id.bytes().all(allowed) {
                return Err(bad("its id must have 1 to 64 of a-z, A-Z, 0-9, '_', '.' and '-'"));
            }
            let secret = STANDARD.decode(secret.trim()).map_err(|_| bad("its secret is not base64"))?;
            let key = match r#use {
                Use::Hash if secret.len() < KEY_BYTES => {
                    return Err(bad("a secret for hashing has at least 32 bytes"));
                }
                Use::Hash => Key::Hash(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &secret))),
                Use::Encrypt => {
                    let secret =
                        secret.try_into().map_err(|_| bad("a secret for encrypting has 32 bytes"))?;
                    let wrapping = Wrapping::new(&secret).map_err(|_| bad("the cipher does not take it"))?;
                    Key::Encrypt(Arc::new(Encrypting { wrapping, current: Mutex::new(None) }))
                }
            };
            if keys.insert(id.clone(), key).is_some() {
                return Err(bad("its id stands twice"));
            }
        }
        Ok(Self(keys))
    }

    pub(super) fn get(&self, id: &str) -> Option<&Key> {
        self.0.get(id)
    }

    /// The data key that is wrapped under a local key; `None` if there is no such key, or it did not wrap it.
    pub fn unwrap_data_key(&self, key_id: &str, wrapped: &[u8]) -> Option<[u8; KEY_BYTES]> {
        match self.0.get(key_id)? {
            Key::Encrypt(key) => key.wrapping.unwrap(key_id, wrapped),
            Key::Hash(_) => None,
        }
    }
}

/// A key that wraps data keys, and the one in use.
pub(super) struct Encrypting {
    wrapping: Wrapping,
    current: Mutex<Option<Current>>,
}

struct Current {
    key: Arc<DataKey>,
    since: Instant,
    uses: u32,
}

impl Encrypting {
    /// A data key for one more value.
    pub(super) fn data_key(&self, key_id: &str) -> Result<Arc<DataKey>, Failed> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(current) = &mut *current
            && current.uses < DATA_KEY_USES
            && current.since.elapsed() < DATA_KEY_LIFE
        {
            current.uses += 1;
            return Ok(Arc::clone(&current.key));
        }
        let key = Arc::new(self.wrapping.generate(key_id)?);
        *current = Some(Current { key: Arc::clone(&key), since: Instant::now(), uses: 1 });
        Ok(key)
    }
}
