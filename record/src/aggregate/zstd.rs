//! Compressed aggregates: one outer record whose data is a zstd frame of an inner aggregate.
//!
//! For streams that only Headworks reads. The outer record's tag `hw-z` marks it; its explicit hash key lies in
//! the predicted shard. [`decode`](super::decode) gives the inner aggregate, so members, range checks and
//! origins are the inner one's. It unpacks once: an inner aggregate that is itself compressed is damage.
//! A stock reader sees the one outer record.

use bytes::Bytes;
use zstd::zstd_safe::{self, CONTENTSIZE_ERROR, CONTENTSIZE_UNKNOWN};

use super::decode::{Aggregate, Error};
use super::encode::Builder;
use crate::headers::Headers;
use crate::key::{HashKey, PartitionKey};
use crate::record::Record;

/// The tag that marks an outer record, and its value.
pub(super) const TAG: &str = "hw-z";
const VALUE: &str = "zstd";

/// The most bytes that a frame may hold: what a Kinesis record may have, and a little beside.
pub const MAX_INFLATED_BYTES: usize = 12 << 20;
/// The most bytes that each byte of a frame may stand for. Real payloads stay far below; a frame that is made
/// to fill a reader's memory does not.
pub const MAX_RATIO: usize = 500;
/// The levels that [`compress`] takes.
pub const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;

/// Puts an aggregate into a frame; `None` if that would not make it smaller, or by more than readers allow.
///
/// `key` and `hash_key` are those of the outer record: the lane's label, and a hash key in its shard.
pub fn compress(inner: &[u8], key: &PartitionKey, hash_key: HashKey, level: i32) -> Option<Bytes> {
    if inner.len() > MAX_INFLATED_BYTES {
        return None;
    }
    let level = level.clamp(*LEVELS.start(), *LEVELS.end());
    let frame = zstd::bulk::compress(inner, level).ok()?;
    if inner.len() > frame.len().saturating_mul(MAX_RATIO) {
        return None;
    }
    let mut headers = Headers::new();
    headers.push_wire(TAG.into(), VALUE.into());
    let outer = Record { key: key.clone(), explicit_hash_key: Some(hash_key), headers, data: frame.into() };
    let mut builder = Builder::compressed();
    builder.push(&outer);
    (builder.len() < inner.len()).then(|| builder.finish())
}

/// What became of a frame.
pub(super) enum Inflated {
    Aggregate(Bytes),
    Damaged,
}

/// The inner aggregate's blob, if the outer one holds a frame.
pub(super) fn inflate(outer: &Aggregate) -> Result<Inflated, Error> {
    let member = match outer.member(0) {
        Some(member) if outer.len() == 1 && member.header(TAG) == Some(VALUE) => member,
        _ => return Ok(Inflated::Damaged),
    };
    let frame = member.data();
    // The writer always says how much there is. What a frame says is checked before anything is allocated for
    // it, and one that holds more fails.
    let inflated = match zstd_safe::get_frame_content_size(frame) {
        Ok(Some(bytes)) if bytes != CONTENTSIZE_UNKNOWN && bytes != CONTENTSIZE_ERROR => bytes,
        _ => return Ok(Inflated::Damaged),
    };
    let limit = MAX_INFLATED_BYTES.min(frame.len().saturating_mul(MAX_RATIO)) as u64;
    if inflated > limit {
        return Err(Error::Inflates { compressed: frame.len(), inflated, limit });
    }
    match zstd::bulk::decompress(frame, inflated as usize) {
        Ok(blob) if blob.len() as u64 == inflated => Ok(Inflated::Aggregate(blob.into())),
        _ => Ok(Inflated::Damaged),
    }
}
