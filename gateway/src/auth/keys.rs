//! API keys: made here, kept as hashes in a file.
//!
//! ```toml
//! [[keys]]
//! id = "7f3a9c2e51d804b6"
//! principal = "shop"
//! sha256 = "…64 hexadecimal digits…"
//! expires = 2027-01-01T00:00:00Z # optional
//! ```
//!
//! A key is `hwk_<id>_<secret>`. The id finds the entry, and may be shown; the secret has 256 random bits, so one
//! round of SHA-256 is all the hash it needs: nobody can try them out. Several keys of one principal are
//! valid at once, which is how a key is rotated: add, change the clients over, remove.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Error;
use super::secret::Secret;

/// What every key begins with.
pub const PREFIX: &str = "hwk_";
/// What a caller is told to have shown.
const KIND: &str = "API key";
/// The most entries of a key file.
pub const MAX_KEYS: usize = 100_000;

/// Why a key file is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file cannot be read.
    #[error("the key file {path:?} cannot be read: {source}; check auth.key_file and its permissions")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not of its form.
    #[error("the key file {path:?} is not valid: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and how it is put right.
        reason: String,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {reason}; try again")]
    NoRandomness {
        /// What it said.
        reason: String,
    },
}

impl FileError {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        "key-file-invalid"
    }

    /// Whether the same file may be accepted later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, FileError::NoRandomness { .. })
    }
}

/// An entry of the key file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The part of the key that may be shown: 8 to 32 of a-z and 0-9.
    pub id: String,
    /// Whom it lets in.
    pub principal: String,
    /// The hash of the whole key, in hexadecimal digits.
    pub sha256: String,
    /// When it ceases to be valid. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<toml::value::Datetime>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    keys: Vec<Entry>,
}

/// A key that was just made. Its text is shown once and kept nowhere.
pub struct Generated {
    /// The key, for the client.
    pub key: String,
    /// The entry, for the gateway's file.
    pub entry: Entry,
}

impl std::fmt::Debug for Generated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generated").field("key", &"[redacted]").field("entry", &self.entry).finish()
    }
}

impl Generated {
    /// The entry as it stands in the file.
    pub fn toml(&self) -> String {
        let Entry { id, principal, sha256, expires } = &self.entry;
        let mut text =
            format!("[[keys]]\nid = \"{id}\"\nprincipal = {}\n", toml::Value::from(principal.as_str()));
        let _ = writeln!(text, "sha256 = \"{sha256}\"");
        if let Some(expires) = expires {
            let _ = writeln!(text, "expires = {expires}");
        }
        text
    }
}

/// Makes a key for a principal: 256 bits from the system's source of randomness.
pub fn generate(
    principal: impl Into<String>,
    expires: Option<toml::value::Datetime>,
) -> Result<Generated, FileError> {
    let mut random = [0; 40];
    rand::TryRng::try_fill_bytes(&mut rand::rngs::SysRng, &mut random)
        .map_err(|error| FileError::NoRandomness { reason: error.to_string() })?;
    let (id, secret) = random.split_at(8);
    let id = hex(id);
    let key = format!("{PREFIX}{id}_{}", hex(secret));
    let sha256 = hex(&Sha256::digest(&key));
    Ok(Generated { key, entry: Entry { id, principal: principal.into(), sha256, expires } })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let text = text.as_bytes();
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[derive(Debug)]
struct Known {
    principal: String,
    sha256: [u8; 32],
    expires: Option<SystemTime>,
}

/// The keys of a file.
#[derive(Debug, Default)]
pub(crate) struct Keys(HashMap<String, Known>);

impl Keys {
    pub(crate) fn read(path: &Path) -> Result<Self, FileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| FileError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|reason| FileError::Invalid { path: path.to_owned(), reason })
    }

    fn parse(text: &str) -> Result<Self, String> {
        // The parser's own words would quote the line, which may hold a key that was pasted in.
        let File { keys } = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start].lines().count().max(1));
            format!(
                "line {line}: {}; each [[keys]] has id, principal, sha256 and perhaps expires",
                error.message()
            )
        })?;
        if keys.len() > MAX_KEYS {
            return Err(format!(
                "it has {} keys, the limit is {MAX_KEYS}; remove those that expired",
                keys.len()
            ));
        }
        let mut known = HashMap::with_capacity(keys.len());
        for Entry { id, principal, sha256, expires } in keys {
            let shown: String = id.chars().take(32).collect();
            let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            if !(8..=32).contains(&id.len()) || !id.bytes().all(letters) {
                return Err(format!("the id {shown:?} is not 8 to 32 of a-z and 0-9; take that of the key"));
            }
            if !(1..=256).contains(&principal.len()) {
                return Err(format!("the principal of {id} has {} bytes; give 1 to 256", principal.len()));
            }
            let sha256 = unhex(&sha256).ok_or_else(|| {
                format!("the sha256 of {id} is not 64 hexadecimal digits; hash the whole key")
            })?;
            let expires = expires.map(|at| moment(&at).ok_or_else(|| format!(
                "expires of {id} is {at}, which is no moment; write it with an offset, such as 2027-01-01T00:00:00Z"
            ))).transpose()?;
            if known.insert(id.clone(), Known { principal, sha256, expires }).is_some() {
                return Err(format!("the id {id} stands twice; make another key"));
            }
        }
        Ok(Self(known))
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whom the key lets in, and until when.
    pub(crate) fn check(&self, key: &Secret, now: SystemTime) -> Result<(&str, Option<SystemTime>), Error> {
        let wrong = || Error::Invalid { kind: KIND, reason: "it is not known".to_owned() };
        let id = id_of(key).ok_or_else(wrong)?;
        let hash = Sha256::digest(key.expose());
        let known = self.0.get(id).ok_or_else(wrong)?;
        if !same(&hash, &known.sha256) {
            return Err(wrong());
        }
        match known.expires {
            Some(expires) if expires <= now => Err(Error::Expired { kind: KIND }),
            expires => Ok((&known.principal, expires)),
        }
    }
}

/// The part of a key that may be shown.
pub(crate) fn id_of(key: &Secret) -> Option<&str> {
    let text = std::str::from_utf8(key.expose()).ok()?;
    text.strip_prefix(PREFIX)?.split_once('_').map(|(id, _)| id).filter(|id| id.len() <= 32)
}

/// Compares in a time that tells nothing of where the two differ.
fn same(one: &[u8], other: &[u8; 32]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b))) == 0
}

fn moment(at: &toml::value::Datetime) -> Option<SystemTime> {
    let timestamp: jiff::Timestamp = at.to_string().parse().ok()?;
    let since = Duration::from_millis(timestamp.as_millisecond().try_into().ok()?);
    SystemTime::UNIX_EPOCH.checked_add(since)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(keys: &Keys, key: &str) -> Result<String, &'static str> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        keys.check(&Secret::new(key), now).map(|(principal, _)| principal.to_owned()).map_err(|e| e.code())
    }

    #[test]
    fn a_key_that_was_made_is_known_by_its_hash_alone() {
        let (one, two) = (generate("shop", None).unwrap(), generate("shop", None).unwrap());
        assert_ne!(one.key, two.key);
        let file = format!("{}\n{}", one.toml(), two.toml());
        assert!(!file.contains(&one.key) && !format!("{one:?}").contains(&one.key));
        let keys = Keys::parse(&file).unwrap();
        assert_eq!(keys.len(), 2);
        assert_eq!(check(&keys, &one.key).unwrap(), "shop");
        assert_eq!(check(&keys, &two.key).unwrap(), "shop");
        let other = if one.key.ends_with('0') { "1" } else { "0" };
        let forged = format!("{}{other}", &one.key[..one.key.len() - 1]);
        for wrong in
            [&forged[..], "", "hwk_", "hwk__", &one.key[..20], &format!("{} ", one.key), &one.entry.sha256]
        {
            assert_eq!(check(&keys, wrong), Err("credentials-invalid"), "{wrong}");
        }
        assert_eq!(check(&Keys::default(), &one.key), Err("credentials-invalid"));
    }

    #[test]
    fn a_key_expires() {
        let at = |text: &str| generate("a \"quoted\" name", Some(text.parse().unwrap())).unwrap();
        // The clock of the test stands at 2027-01-15T08:00:00Z.
        let (over, open) = (at("2027-01-15T09:00:00+01:00"), at("2027-01-15T08:00:01Z"));
        let keys = Keys::parse(&format!("{}{}", over.toml(), open.toml())).unwrap();
        assert_eq!(check(&keys, &over.key), Err("credentials-expired"));
        assert_eq!(check(&keys, &open.key).unwrap(), "a \"quoted\" name");
    }

    #[test]
    fn mistakes_of_a_file_are_named_and_no_key_is_quoted() {
        let entry = |id: &str, hash: &str, rest: &str| {
            format!("[[keys]]\nid = \"{id}\"\nprincipal = \"p\"\nsha256 = \"{hash}\"\n{rest}")
        };
        let hash = "a".repeat(64);
        let good = entry("12345678", &hash, "");
        assert!(Keys::parse("").unwrap().0.is_empty());
        assert!(Keys::parse(&good).is_ok());
        let cases = [
            (entry("1234567", &hash, ""), "8 to 32"),
            (entry("UPPER678", &hash, ""), "a-z"),
            (entry("12345678", &hash[1..], ""), "64 hexadecimal"),
            (entry("12345678", &"g".repeat(64), ""), "64 hexadecimal"),
            (entry("12345678", &hash, "expires = 2027-01-01"), "offset"),
            (entry("12345678", &hash, "key = \"hwk_secret\""), "unknown field"),
            (format!("{good}{good}"), "twice"),
            ("[[keys]]\nid = \"hwk_secret".to_owned(), "line 2"),
        ];
        for (text, named) in cases {
            let error = Keys::parse(&text).unwrap_err();
            assert!(error.contains(named) && !error.contains("hwk_secret"), "{error}");
        }
    }
}
