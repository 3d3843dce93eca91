//! Records that can never get through: kept in S3, whole, before their position is given up.

mod bucket;
mod list;
mod redrive;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use bucket::Bucket;
pub use list::{Filter, Page, Stored, list, show};
pub use redrive::{Options, Outcome, Redriven, Summary, Target, redrive};

/// What the keys of dead letters begin with.
pub const PREFIX: &str = "dead-letters/";
/// What the keys of letters begin with whose records were put again.
pub const REDRIVEN_PREFIX: &str = "redriven/";

/// The version of the JSON object that this crate writes.
pub const LETTER_VERSION: u32 = 1;

/// One dead letter: a JSON object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// [`LETTER_VERSION`].
    pub version: u32,
    /// Why it is here: one reason per destination that did not get it, or one for all.
    pub reasons: Vec<Reason>,
    /// Where it was found.
    pub origin: Position,
    /// Its partition key.
    pub partition_key: String,
    /// Its explicit hash key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explicit_hash_key: Option<String>,
    /// Its creation context; where the record had none, the one that the router derives.
    pub traceparent: String,
    /// When it was created, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Names and values in order, before any change by a rule; a name may repeat.
    pub headers: Vec<(String, String)>,
    /// The payload, in base64; of a Kinesis record that cannot be taken apart, all of its bytes.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub data: Bytes,
}

/// Why a record is a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The stable code, as in `docs/errors/`.
    pub code: String,
    /// What happened, for a reader.
    pub message: String,
    /// The stream that did not get it; absent if it could not be routed at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
}

/// A place on the inbound stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The stream.
    pub stream: String,
    /// The shard.
    pub shard: String,
    /// The Kinesis record.
    pub sequence_number: String,
    /// The member of its aggregate; absent for the whole Kinesis record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_sequence_number: Option<u32>,
    /// When it arrived, in milliseconds since the Unix epoch.
    pub arrival_ms: u64,
}

impl Letter {
    /// The object's key. The same record has the same key, so a retry writes the same object again.
    pub fn key(&self) -> String {
        let Position { stream, shard, sequence_number, sub_sequence_number, .. } = &self.origin;
        match sub_sequence_number {
            Some(sub) => format!("{PREFIX}{stream}/{shard}/{sequence_number}-{sub}.json"),
            None => format!("{PREFIX}{stream}/{shard}/{sequence_number}-all.json"),
        }
    }
}

fn to_base64<S: Serializer>(data: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(data))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map(Bytes::from).map_err(serde::de::Error::custom)
}

/// Why a dead letter was not written or read. A record whose letter is not written is reported as failed: the
/// shard waits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is nowhere to write it.
    #[error(
        "a record cannot be routed and no dead-letter bucket is configured, so its shard waits; set HEADWORKS_DEAD_LETTER_BUCKET"
    )]
    NotConfigured,
    /// It could not be put together.
    #[error("the dead letter {key} cannot be written down: {reason}")]
    Encoding {
        /// The object's key.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// The bucket did not take it.
    #[error(
        "the dead letter s3://{bucket}/{key} was not written: {reason}; check the bucket and the permission s3:PutObject"
    )]
    Storage {
        /// The bucket.
        bucket: String,
        /// The object's key.
        key: String,
        /// What S3 said.
        reason: String,
    },
    /// The bucket cannot be read or listed.
    #[error(
        "s3://{bucket}/{key} cannot be read: {reason}; check the bucket and the permissions s3:ListBucket and s3:GetObject"
    )]
    Unreadable {
        /// The bucket.
        bucket: String,
        /// The object's key, or what the keys begin with.
        key: String,
        /// What S3 said.
        reason: String,
    },
    /// There is no such object.
    #[error("there is no dead letter s3://{bucket}/{key}; it may have been redriven")]
    Missing {
        /// The bucket.
        bucket: String,
        /// The object's key.
        key: String,
    },
    /// The object is none of ours.
    #[error(
        "the object {key} is not a dead letter of version {LETTER_VERSION}: {reason}; remove it by hand if it is not needed"
    )]
    NotALetter {
        /// The object's key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It cannot be put back on its way as it is.
    #[error("{reason}")]
    NotRedrivable {
        /// Why.
        reason: String,
    },
    /// Time ran out.
    #[error("the dead letter {key} was not written in the time that the function has")]
    Deadline {
        /// The object's key.
        key: String,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::NotConfigured => "dead-letters-not-configured",
            Error::Encoding { .. } => "dead-letter-encoding",
            Error::Storage { .. } => "dead-letter-not-written",
            Error::Unreadable { .. } => "dead-letter-unreadable",
            Error::Missing { .. } => "dead-letter-missing",
            Error::NotALetter { .. } => "dead-letter-invalid",
            Error::NotRedrivable { .. } => "dead-letter-not-redrivable",
            Error::Deadline { .. } => "dead-letter-deadline",
        }
    }

    /// Whether the same may succeed later: an operator can mend most of it.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Error::Missing { .. } | Error::NotALetter { .. } | Error::NotRedrivable { .. })
    }
}

/// Where dead letters go.
#[async_trait]
pub trait DeadLetters: Send + Sync + 'static {
    /// Writes one; it is durable when this returns `Ok`.
    async fn write(&self, letter: &Letter) -> Result<(), Error>;
}

/// Nowhere: every dead letter is refused, so poison blocks its shard rather than being lost.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDeadLetters;

#[async_trait]
impl DeadLetters for NoDeadLetters {
    async fn write(&self, _letter: &Letter) -> Result<(), Error> {
        Err(Error::NotConfigured)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_json_and_comes_back_whole() {
        let mut letter = Letter {
            version: LETTER_VERSION,
            reasons: vec![Reason {
                code: "c".into(),
                message: "m".into(),
                destination: Some("orders".into()),
            }],
            origin: Position {
                stream: "inbound".into(),
                shard: "shardId-000000000001".into(),
                sequence_number: "495".into(),
                sub_sequence_number: Some(3),
                arrival_ms: 5,
            },
            partition_key: "k".into(),
            explicit_hash_key: None,
            traceparent: "00-".into(),
            created_ms: 4,
            headers: vec![("type".into(), "a".into()), ("type".into(), "b".into())],
            data: Bytes::from_static(b"\xff\x00"),
        };
        let json = serde_json::to_value(&letter).unwrap();
        assert_eq!(json["data"], "/wA=");
        assert_eq!(json["headers"][1], serde_json::json!(["type", "b"]));
        assert_eq!(serde_json::from_value::<Letter>(json).unwrap(), letter);
        assert_eq!(letter.key(), "dead-letters/inbound/shardId-000000000001/495-3.json");
        letter.origin.sub_sequence_number = None;
        assert_eq!(letter.key(), "dead-letters/inbound/shardId-000000000001/495-all.json");
    }
}
