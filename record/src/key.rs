//! Partition keys and hash keys.

use bytestring::ByteString;

use crate::digest;

/// Longest partition key, in Unicode characters (Kinesis API, `PutRecords`).
pub const MAX_KEY_CHARS: usize = 256;

/// Why a key was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The partition key has no characters.
    #[error(
        "the partition key is empty; it needs 1 to {MAX_KEY_CHARS} characters: use a session, user or order id"
    )]
    Empty,
    /// The partition key is too long.
    #[error(
        "the partition key {shown:?}… has {chars} characters, the limit is {MAX_KEY_CHARS}; shorten it or use a hash of it"
    )]
    TooLong {
        /// Its first characters.
        shown: String,
        /// How many it has.
        chars: usize,
    },
    /// The explicit hash key is not a decimal number below 2^128.
    #[error(
        "the explicit hash key {value:?} is not a decimal number from 0 to 2^128 - 1; leave it out to hash the partition key"
    )]
    BadHashKey {
        /// The text that was given.
        value: String,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Empty => "key-empty",
            Error::TooLong { .. } => "key-too-long",
            Error::BadHashKey { .. } => "hash-key-invalid",
        }
    }

    /// Whether the same input may be accepted later: never.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// A partition key: 1 to 256 Unicode characters. Records of one key keep their order.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionKey(ByteString);

impl PartitionKey {
    /// Checks the text's length and takes it as a key.
    pub fn new(text: impl Into<ByteString>) -> Result<Self, Error> {
        let text = text.into();
        Self::check(&text)?;
        Ok(Self(text))
    }

    /// A lane's label: never empty, and as long as a shard's name and a number (128 characters and 5).
    pub(crate) fn label(text: String) -> Self {
        Self(text.into())
    }

    /// Checks whether the text may be a key.
    pub fn check(text: &str) -> Result<(), Error> {
        if text.is_empty() {
            return Err(Error::Empty);
        }
        // A text of at most 256 bytes cannot have more characters: the common case never counts them.
        if text.len() > MAX_KEY_CHARS {
            let chars = text.chars().count();
            if chars > MAX_KEY_CHARS {
                return Err(Error::TooLong { shown: text.chars().take(24).collect(), chars });
            }
        }
        Ok(())
    }

    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key's text, sharing its memory.
    pub fn text(&self) -> &ByteString {
        &self.0
    }

    /// Where Kinesis puts the key: the MD5 of its UTF-8 bytes as a big-endian number.
    pub fn hash_key(&self) -> HashKey {
        hash_of(&self.0)
    }
}

/// Where Kinesis puts a partition key: the MD5 of its UTF-8 bytes as a big-endian number.
pub fn hash_of(partition_key: &str) -> HashKey {
    HashKey(u128::from_be_bytes(digest::digest(partition_key.as_bytes())))
}

/// [`hash_of`] each key, in order. Eight of them take little longer than one: whoever has several keys at hand
/// hashes them together.
pub fn hashes_of<'k>(partition_keys: impl IntoIterator<Item = &'k str>) -> Vec<HashKey> {
    let digests = digest::digests(partition_keys.into_iter().map(str::as_bytes));
    digests.into_iter().map(|digest| HashKey(u128::from_be_bytes(digest))).collect()
}

impl std::fmt::Debug for PartitionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl std::fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A position in the 128-bit hash space of a stream; written in decimal, as Kinesis does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HashKey(pub u128);

impl HashKey {
    /// The lowest hash key.
    pub const MIN: HashKey = HashKey(0);
    /// The highest hash key.
    pub const MAX: HashKey = HashKey(u128::MAX);
}

impl std::fmt::Display for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for HashKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::BadHashKey { value: text.chars().take(48).collect() };
        // `u128::from_str` takes a leading '+', Kinesis does not.
        if !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        text.parse().map(HashKey).map_err(|_| bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_counted_in_characters() {
        assert_eq!(PartitionKey::new("").unwrap_err(), Error::Empty);
        assert!(PartitionKey::new("é".repeat(256)).is_ok());
        let error = PartitionKey::new("é".repeat(257)).unwrap_err();
        assert!(error.to_string().contains("257 characters, the limit is 256"), "{error}");
    }

    #[test]
    fn hash_is_kinesis_md5() {
        // md5("a") = 0cc175b9c0f1b6a831c399e269772661
        let key = PartitionKey::new("a").unwrap();
        assert_eq!(key.hash_key().0, 0x0cc1_75b9_c0f1_b6a8_31c3_99e2_6977_2661);
    }

    #[test]
    fn keys_hashed_together_are_as_hashed_alone() {
        let keys: Vec<String> = (0..300).map(|len| "é".repeat(len % 200)).collect();
        let together = hashes_of(keys.iter().map(String::as_str));
        let alone: Vec<HashKey> = keys.iter().map(|key| hash_of(key)).collect();
        assert_eq!(together, alone);
    }

    #[test]
    fn hash_keys_are_plain_decimals() {
        assert_eq!("0".parse::<HashKey>().unwrap(), HashKey::MIN);
        assert_eq!(u128::MAX.to_string().parse::<HashKey>().unwrap(), HashKey::MAX);
        for bad in ["", "+1", "-1", "0x10", "340282366920938463463374607431768211456"] {
            assert!(bad.parse::<HashKey>().is_err(), "{bad}");
        }
    }
}
