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
//!
//! [[keys]]
//! id = "cards-2026"
//! use = "encrypt"
//! kms = "arn:aws:kms:eu-central-1:111122223333:key/…"
//! ```
//!
//! `openssl rand -base64 32` makes a secret. With `kms`, AWS KMS makes and unwraps the data keys, and the secret never
//! leaves it. A key is for hashing or for encrypting, never for both. To rotate one, add
//! another and name that in the rules; keep the old one where values are decrypted.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::seal::{self, DataKey, Failed, KEY_BYTES, Wrapping};

/// How long a data key is used.
const DATA_KEY_LIFE: Duration = Duration::from_secs(300);
/// How many values it encrypts: far fewer than random nonces allow (2^32).
const DATA_KEY_USES: u32 = 1 << 20;
/// How long a key service may be away before its last data key is not used any more.
const MAX_DATA_KEY_LIFE: Duration = Duration::from_secs(3600);
/// How many values that one may encrypt meanwhile; random nonces allow 2^32.
const MAX_DATA_KEY_USES: u32 = 1 << 30;
/// The longest id.
const MAX_ID: usize = 64;
/// The longest name of a key in KMS, as its API has it.
const MAX_NAME: usize = 2048;

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
        "the file of keys {path:?} is not valid at byte {at}; write [[keys]] with id, use = \"hash\" or \"encrypt\", and secret or kms"
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

/// Why a value cannot be protected now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The key service has given no data key, or none for so long that the last one may not be used any more.
    #[error(
        "the key service has given no data key for {id:?} that may be used; check that it can be reached and permits GenerateDataKey, and try again"
    )]
    NoDataKey {
        /// The key's id.
        id: String,
    },
    /// The cryptography failed.
    #[error("a value could not be protected with {id:?}: the system has no randomness, or is defective")]
    Failed {
        /// The key's id.
        id: String,
    },
}

impl SealError {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            SealError::NoDataKey { .. } => "protection-key-unavailable",
            SealError::Failed { .. } => "internal",
        }
    }

    /// Whether the same value may be protected later.
    pub fn is_retryable(&self) -> bool {
        true
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
    secret: Option<String>,
    kms: Option<String>,
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// Keyed hashes.
    Hash,
    /// Encryption.
    Encrypt,
}

#[derive(Clone)]
enum Kind {
    Hash(Arc<hmac::Key>),
    Encrypt(Arc<Encrypting>),
}

/// A key that protects values. Cheap to clone.
#[derive(Clone)]
pub struct Key {
    id: Arc<str>,
    kind: Kind,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("use", &self.usage()).finish_non_exhaustive()
    }
}

impl Key {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it is for.
    pub fn usage(&self) -> Use {
        match self.kind {
            Kind::Hash(_) => Use::Hash,
            Kind::Encrypt(_) => Use::Encrypt,
        }
    }

    /// The text that stands in place of a value, which is hashed or encrypted by what the key is for. It has
    /// nothing that JSON escapes. `pointer` tells where the value was.
    pub fn protect(&self, pointer: &str, value: &[u8]) -> Result<String, SealError> {
        let failed = |_: Failed| SealError::Failed { id: self.id.to_string() };
        match &self.kind {
            Kind::Hash(key) => Ok(seal::hash(key, &self.id, value)),
            Kind::Encrypt(key) => {
                let data_key = key.data_key(&self.id)?;
                data_key.seal(&self.id, pointer, value).map_err(failed)
            }
        }
    }

    fn same_service(&self, other: &Self) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::Encrypt(one), Kind::Encrypt(other)) => match (&one.source, &other.source) {
                (Source::Service(one), Source::Service(other)) => one == other,
                _ => false,
            },
            _ => false,
        }
    }
}

/// A key whose data keys a key service makes. Whoever holds the [`Keys`] asks the service for them.
#[derive(Clone)]
pub struct ServiceKey {
    id: Arc<str>,
    key: Arc<Encrypting>,
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceKey").field("id", &self.id).field("name", &self.name()).finish_non_exhaustive()
    }
}

impl ServiceKey {
    /// Its id among the keys.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The service's name for it: an ARN, a key id or an alias.
    pub fn name(&self) -> &str {
        match &self.key.source {
            Source::Service(name) => name,
            Source::Local(_) => "",
        }
    }

    /// Whether another data key should be asked for: there is none, or it is five minutes old, or has encrypted
    /// 1,048,576 values.
    pub fn is_due(&self) -> bool {
        self.key.current().as_ref().is_none_or(Current::is_due)
    }

    /// Whether values can be encrypted now.
    pub fn is_ready(&self) -> bool {
        self.key.current().as_ref().is_some_and(Current::is_usable)
    }

    /// Puts another data key in use: its plain text, and the form in which the service gives it back.
    pub fn renew(&self, plain: &[u8; KEY_BYTES], wrapped: Vec<u8>) -> Result<(), SealError> {
        let key =
            DataKey::new(plain, wrapped).map_err(|Failed| SealError::Failed { id: self.id.to_string() })?;
        *self.key.current() = Some(Current::new(key));
        Ok(())
    }
}

/// Keys by their ids.
#[derive(Clone, Default)]
pub struct Keys(BTreeMap<Arc<str>, Key>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl Keys {
    /// Reads a file of keys. Blocking.
    pub fn load(path: &Path) -> Result<Self, KeysError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| KeysError::Unreadable { path: path.to_owned(), source })?;
        let file: File = toml::from_str(&text).map_err(|error| KeysError::Malformed {
            path: path.to_owned(),
            at: error.span().map_or(0, |span| span.start),
        })?;
        let mut keys = BTreeMap::new();
        for entry in file.keys {
            let id: Arc<str> = entry.id.as_str().into();
            let bad = |reason| KeysError::Key { id: entry.id.clone(), reason };
            let kind = entry.kind().map_err(bad)?;
            if keys.insert(Arc::clone(&id), Key { id, kind }).is_some() {
                return Err(bad("its id stands twice"));
            }
        }
        Ok(Self(keys))
    }

    /// The key of an id.
    pub fn get(&self, id: &str) -> Option<&Key> {
        self.0.get(id)
    }

    /// Takes over, with its data key, every key of a service that `before` has under the same id and name.
    pub fn adopt(&mut self, before: &Keys) {
        for (id, key) in &mut self.0 {
            if let Some(old) = before.0.get(id).filter(|old| old.same_service(key)) {
                *key = old.clone();
            }
        }
    }

    /// The keys whose data keys a key service makes.
    pub fn services(&self) -> impl Iterator<Item = ServiceKey> + '_ {
        self.0.values().filter_map(|key| match &key.kind {
            Kind::Encrypt(encrypting) if matches!(encrypting.source, Source::Service(_)) => {
                Some(ServiceKey { id: Arc::clone(&key.id), key: Arc::clone(encrypting) })
            }
            _ => None,
        })
    }

    /// The data key that is wrapped under a local key; `None` if there is no such key, or it did not wrap it.
    pub fn unwrap_data_key(&self, key_id: &str, wrapped: &[u8]) -> Option<[u8; KEY_BYTES]> {
        match &self.0.get(key_id)?.kind {
            Kind::Encrypt(key) => match &key.source {
                Source::Local(wrapping) => wrapping.unwrap(key_id, wrapped),
                Source::Service(_) => None,
            },
            Kind::Hash(_) => None,
        }
    }
}

impl Entry {
    fn kind(&self) -> Result<Kind, &'static str> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        if self.id.is_empty() || self.id.len() > MAX_ID || !self.id.bytes().all(allowed) {
            return Err("its id must have 1 to 64 of a-z, A-Z, 0-9, '_', '.' and '-'");
        }
        let secret = match (&self.secret, &self.kms, self.r#use) {
            (Some(secret), None, _) => secret,
            (None, Some(name), Use::Encrypt) if (1..=MAX_NAME).contains(&name.len()) => {
                return Ok(Kind::Encrypt(Arc::new(Encrypting::new(Source::Service(name.as_str().into())))));
            }
            (None, Some(_), Use::Encrypt) => return Err("its name in KMS must have 1 to 2,048 bytes"),
            (None, Some(_), Use::Hash) => {
                return Err("a key of KMS is for encrypting; give a secret to hash with");
            }
            _ => return Err("it must have either a secret or its name in kms"),
        };
        let secret = STANDARD.decode(secret.trim()).map_err(|_| "its secret is not base64")?;
        match self.r#use {
            Use::Hash if secret.len() < KEY_BYTES => Err("a secret for hashing has at least 32 bytes"),
            Use::Hash => Ok(Kind::Hash(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &secret)))),
            Use::Encrypt => {
                let secret = secret.try_into().map_err(|_| "a secret for encrypting has 32 bytes")?;
                let wrapping = Wrapping::new(&secret).map_err(|_| "the cipher does not take it")?;
                Ok(Kind::Encrypt(Arc::new(Encrypting::new(Source::Local(wrapping)))))
            }
        }
    }
}

enum Source {
    /// We wrap data keys ourselves.
    Local(Wrapping),
    /// A key service makes them.
    Service(Box<str>),
}

/// A key that wraps data keys, and the one in use.
struct Encrypting {
    source: Source,
    current: Mutex<Option<Current>>,
}

struct Current {
    key: Arc<DataKey>,
    since: Instant,
    uses: u32,
}

impl Current {
    fn new(key: DataKey) -> Self {
        Self { key: Arc::new(key), since: Instant::now(), uses: 0 }
    }

    fn is_due(&self) -> bool {
        self.uses >= DATA_KEY_USES || self.since.elapsed() >= DATA_KEY_LIFE
    }

    /// A service that cannot be reached for a while holds up nobody.
    fn is_usable(&self) -> bool {
        self.uses < MAX_DATA_KEY_USES && self.since.elapsed() < MAX_DATA_KEY_LIFE
    }
}

impl Encrypting {
    fn new(source: Source) -> Self {
        Self { source, current: Mutex::new(None) }
    }

    fn current(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A data key for one more value.
    fn data_key(&self, key_id: &str) -> Result<Arc<DataKey>, SealError> {
        let mut current = self.current();
        if let Source::Local(wrapping) = &self.source
            && current.as_ref().is_none_or(Current::is_due)
        {
            let fresh = wrapping.generate(key_id);
            *current =
                Some(Current::new(fresh.map_err(|Failed| SealError::Failed { id: key_id.to_owned() })?));
        }
        match &mut *current {
            Some(current) if current.is_usable() => {
                current.uses += 1;
                Ok(Arc::clone(&current.key))
            }
            _ => Err(SealError::NoDataKey { id: key_id.to_owned() }),
        }
    }
}
