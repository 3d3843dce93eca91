//! Opaque texts that carry state between calls: shard iterators and paging tokens.
//!
//! They are sealed with a checksum, so that a truncated or invented one is refused, not misread. They are not
//! secret: this Kinesis has one account.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Packs `value` into a token that only [`open`] with the same `kind` reads.
pub(crate) fn seal<T: Serialize>(kind: u8, value: &T) -> String {
    // A struct of numbers and strings always encodes.
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(kind);
    let sum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&sum.to_be_bytes());
    STANDARD.encode(bytes)
}

/// Unpacks a token.
pub(crate) fn open<T: DeserializeOwned>(kind: u8, token: &str) -> Option<T> {
    let bytes = STANDARD.decode(token).ok()?;
    let (body, sum) = bytes.split_last_chunk::<4>()?;
    let (last, json) = body.split_last()?;
    if *last != kind || crc32fast::hash(body) != u32::from_be_bytes(*sum) {
        return None;
    }
    serde_json::from_slice(json).ok()
}
