//! Which of several streams a lease belongs to.

use std::str::FromStr;

use bytestring::ByteString;
use headworks_record::ShardId;

/// A stream among several of one application, in the KCL's words: `account:name:epoch`, where the epoch is the
/// second in which the stream was created, so that a stream that was deleted and made again is another one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamIdentifier {
    text: ByteString,
    name: ByteString,
}

impl StreamIdentifier {
    /// The stream with this ARN that was created in this second since the Unix epoch; `None` where the text is
    /// no ARN of a stream.
    pub fn of_arn(arn: &str, epoch: u64) -> Option<Self> {
        let mut parts = arn.splitn(6, ':').skip(4);
        let (account, name) = (parts.next()?, parts.next()?.strip_prefix("stream/")?);
        format!("{account}:{name}:{epoch}").parse().ok()
    }

    /// The stream's name.
    pub fn name(&self) -> &ByteString {
        &self.name
    }

    /// The text `account:name:epoch`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The lease key of one of its shards.
    pub fn key(&self, shard: &ShardId) -> ShardId {
        ShardId::new(format!("{}:{shard}", self.text))
    }
}

impl std::fmt::Display for StreamIdentifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// A text that is no stream identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no stream identifier; it has the form account:name:epoch, such as 123456789012:orders:1700000000"
)]
pub struct NotAnIdentifier {
    /// What was given.
    pub text: String,
}

impl FromStr for StreamIdentifier {
    type Err = NotAnIdentifier;

    fn from_str(text: &str) -> Result<Self, NotAnIdentifier> {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        match text.split(':').collect::<Vec<_>>()[..] {
            [account, name, epoch] if digits(account) && !name.is_empty() && digits(epoch) => {
                Ok(Self { text: text.into(), name: name.into() })
            }
            _ => Err(NotAnIdentifier { text: text.chars().take(300).collect() }),
        }
    }
}

/// A lease key taken apart. In an application of one stream it is the shard's name; in one of several streams
/// the shard's name stands behind its stream's identifier.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamShard {
    /// The stream; `None` in an application of one stream.
    pub stream: Option<StreamIdentifier>,
    /// The shard's own name.
    pub shard: ShardId,
}

impl StreamShard {
    /// Takes a lease key apart. Everything that is not in the form of several streams is a shard's name.
    pub fn of(key: &ShardId) -> Self {
        if let Some((stream, shard)) = key.as_str().rsplit_once(':')
            && let Ok(stream) = stream.parse()
        {
            return Self { stream: Some(stream), shard: shard.into() };
        }
        Self { stream: None, shard: key.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_composed_and_taken_apart_as_the_kcl_does() {
        let arn = "arn:aws:kinesis:eu-central-1:123456789012:stream/orders";
        let stream = StreamIdentifier::of_arn(arn, 1_700_000_000).unwrap();
        assert_eq!((stream.as_str(), &**stream.name()), ("123456789012:orders:1700000000", "orders"));
        let key = stream.key(&"shardId-000000000007".into());
        assert_eq!(key.as_str(), "123456789012:orders:1700000000:shardId-000000000007");
        let apart = StreamShard::of(&key);
        assert_eq!((apart.stream, apart.shard.as_str()), (Some(stream), "shardId-000000000007"));
        let plain = StreamShard::of(&"shardId-000000000007".into());
        assert_eq!((plain.stream, plain.shard.as_str()), (None, "shardId-000000000007"));
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in ["", "orders", "1:orders", "a:orders:1", "1:orders:x", "1::1", "1:a:1:b", ":a:1"] {
            assert!(bad.parse::<StreamIdentifier>().unwrap_err().to_string().contains("account:name:epoch"));
        }
        assert_eq!(StreamIdentifier::of_arn("arn:aws:s3:::bucket", 1), None);
    }
}
