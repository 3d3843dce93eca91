//! A Kinesis record as it is put, stored and read.

use bytes::Bytes;
use bytestring::ByteString;

use super::sequence::SequenceNumber;

/// A record to put.
#[derive(Debug, Clone)]
pub struct PutEntry {
    /// 1 to 256 characters; its MD5 chooses the shard where no explicit hash key is given.
    pub partition_key: ByteString,
    /// Chooses the shard instead of the partition key.
    pub explicit_hash_key: Option<u128>,
    /// The payload.
    pub data: Bytes,
}

impl PutEntry {
    /// An entry whose partition key chooses the shard.
    pub fn new(partition_key: impl Into<ByteString>, data: impl Into<Bytes>) -> Self {
        Self { partition_key: partition_key.into(), explicit_hash_key: None, data: data.into() }
    }

    /// Chooses the shard by `hash` instead of the partition key.
    #[must_use]
    pub fn with_hash_key(mut self, hash: u128) -> Self {
        self.explicit_hash_key = Some(hash);
        self
    }

    /// The hash key that chooses the shard.
    #[must_use]
    pub fn hash(&self) -> u128 {
        self.explicit_hash_key.unwrap_or_else(|| super::hash::hash_of(&self.partition_key))
    }

    /// What counts against the record, request and shard limits: payload and partition key, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.data.len() + self.partition_key.len()
    }
}

/// Where a put went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Put {
    /// The number of the shard, as in its name.
    pub shard_index: u32,
    /// The record's sequence number.
    pub sequence: SequenceNumber,
}

impl Put {
    /// The name of the shard, `shardId-` and twelve digits.
    #[must_use]
    pub fn shard_id(&self) -> String {
        shard_id(self.shard_index)
    }
}

/// A stored record. Cloning it copies no bytes.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its number, strictly increasing in the shard.
    pub sequence: SequenceNumber,
    /// The partition key that it was put with.
    pub partition_key: ByteString,
    /// The payload.
    pub data: Bytes,
    /// When it was stored, in milliseconds since the Unix epoch; never decreasing in a shard.
    pub arrival_ms: i64,
}

impl Record {
    /// Payload and partition key, in bytes: what counts against the limits of a read.
    #[must_use]
    pub fn size(&self) -> usize {
        self.data.len() + self.partition_key.len()
    }
}

/// The name of the shard with this number.
#[must_use]
pub fn shard_id(index: u32) -> String {
    format!("shardId-{index:012}")
}

/// The name of a shard without an allocation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShardName([u8; 20]);

impl ShardName {
    pub(crate) fn new(index: u32) -> Self {
        let mut name = *b"shardId-000000000000";
        let mut rest = index;
        for digit in name.iter_mut().rev() {
            if rest == 0 {
                break;
            }
            *digit += (rest % 10) as u8;
            rest /= 10;
        }
        Self(name)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }
}

/// The number in a shard's name, in the service's form or with fewer digits.
#[must_use]
pub fn parse_shard_id(id: &str) -> Option<u32> {
    let digits = id.strip_prefix("shardId-")?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_alike() {
        for index in [0, 7, 1_234_567_890, u32::MAX] {
            assert_eq!(ShardName::new(index).as_bytes(), shard_id(index).as_bytes());
            assert_eq!(parse_shard_id(&shard_id(index)), Some(index));
        }
    }
}
