//! The 128-bit hash space: MD5 of partition keys, explicit hash keys and the ranges of shards.

use std::fmt;

use md5::{Digest, Md5};

use super::validate::{HASH_DIGITS, is_number};

/// An inclusive range of hash keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashRange {
    /// The first hash key of the range.
    pub start: u128,
    /// The last hash key of the range.
    pub end: u128,
}

impl HashRange {
    /// The whole space, 0 to 2^128-1.
    pub const ALL: Self = Self { start: 0, end: u128::MAX };

    /// Whether `hash` lies inside.
    #[must_use]
    pub fn contains(self, hash: u128) -> bool {
        self.start <= hash && hash <= self.end
    }

    /// Whether `other` begins right after this range ends.
    #[must_use]
    pub fn is_followed_by(self, other: Self) -> bool {
        self.end.checked_add(1) == Some(other.start)
    }
}

impl fmt::Debug for HashRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}..={}", self.start, self.end)
    }
}

/// The hash key of a partition key: its MD5 as a big-endian number.
#[must_use]
pub fn hash_of(partition_key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(partition_key.as_bytes()).into())
}

/// Reads an explicit hash key: decimal, 0 to 2^128-1, without sign or leading zeros.
#[must_use]
pub fn parse_hash(text: &str) -> Option<u128> {
    if is_number(text, HASH_DIGITS) { text.parse().ok() } else { None }
}

/// The `count` equal ranges that the service gives a new stream; the last takes what is left over.
#[must_use]
pub(crate) fn uniform(count: u32) -> Vec<HashRange> {
    let count = u128::from(count.max(1));
    let size = match count {
        1 => u128::MAX,
        // 2^128 / count, which only a power of two divides.
        _ if count.is_power_of_two() => u128::MAX / count + 1,
        _ => u128::MAX / count,
    };
    (0..count)
        .map(|index| HashRange {
            start: index * size,
            end: if index + 1 == count { u128::MAX } else { (index + 1) * size - 1 },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_ranges_tile_the_space() {
        for count in [1, 2, 3, 4, 7, 100] {
            let ranges = uniform(count);
            assert_eq!(ranges.len(), count as usize);
            assert_eq!(ranges[0].start, 0);
            assert_eq!(ranges.last().unwrap().end, u128::MAX);
            assert!(ranges.windows(2).all(|pair| pair[0].is_followed_by(pair[1])));
        }
        // As DescribeStream shows them for three and for two shards.
        assert_eq!(uniform(3)[1].start, 113_427_455_640_312_821_154_458_202_477_256_070_485);
        assert_eq!(uniform(2)[1].start, 170_141_183_460_469_231_731_687_303_715_884_105_728);
    }

    #[test]
    fn explicit_hash_keys() {
        assert_eq!(parse_hash("0"), Some(0));
        assert_eq!(parse_hash("340282366920938463463374607431768211455"), Some(u128::MAX));
        for bad in ["", "-1", "+1", "01", "0x1", "340282366920938463463374607431768211456"] {
            assert_eq!(parse_hash(bad), None, "{bad}");
        }
    }

    #[test]
    fn md5_is_read_big_endian() {
        assert_eq!(hash_of("a"), 0x0cc1_75b9_c0f1_b6a8_31c3_99e2_6977_2661);
    }
}
