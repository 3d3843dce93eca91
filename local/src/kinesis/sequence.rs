//! Sequence numbers shaped like the service's: 186 bits, 56 decimal digits, strictly increasing in a shard.
//!
//! From the top: the version (2) at bit 184, the shard's creation second (36 bits), the low nibble of the shard's
//! index, the record's index in the shard (64 bits), a zero byte, the arrival second (36 bits), the shard's
//! index (32 bits) and the version again. The KCL reads the version and the shard's index out of exactly these
//! places (`SequenceNumberValidator`), so a number of another shape would be refused by it.

use std::fmt;
use std::str::FromStr;

const VERSION: u64 = 2;
const SECONDS_MASK: u64 = (1 << 36) - 1;
/// The largest power of ten in a `u64`: digits are printed in chunks of 19.
const CHUNK: u64 = 10_000_000_000_000_000_000;

/// `00` to `99`.
const PAIRS: [u8; 200] = {
    let mut pairs = [0; 200];
    let mut at = 0;
    while at < 100 {
        pairs[2 * at] = b'0' + (at / 10) as u8;
        pairs[2 * at + 1] = b'0' + (at % 10) as u8;
        at += 1;
    }
    pairs
};

/// A sequence number. Ordered as the decimal number that it prints.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber([u64; 3]);

/// A text that is not a sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a sequence number: expected the 56 decimal digits that a put or a read has returned")]
pub struct ParseError;

impl SequenceNumber {
    /// Composes a number from its parts; see the module for the layout.
    #[must_use]
    pub(crate) fn compose(shard_index: u32, shard_created_s: u64, index: u64, arrival_s: u64) -> Self {
        let created = shard_created_s & SECONDS_MASK;
        let arrival = arrival_s & SECONDS_MASK;
        let shard = u64::from(shard_index);
        Self([
            (VERSION << 56) | (created << 20) | ((shard & 0xf) << 16) | (index >> 48),
            (index << 16) | (arrival >> 28),
            (arrival << 36) | (shard << 4) | VERSION,
        ])
    }

    /// The index of the shard that gave this number, as in its name.
    #[must_use]
    pub fn shard_index(self) -> u32 {
        ((self.0[2] >> 4) & 0xffff_ffff) as u32
    }

    /// The second at which that shard was created.
    #[must_use]
    pub(crate) fn shard_created_s(self) -> u64 {
        (self.0[0] >> 20) & SECONDS_MASK
    }

    /// The record's index in its shard: 0 is the shard's own starting number, records count from 1.
    #[must_use]
    pub(crate) fn index(self) -> u64 {
        ((self.0[0] & 0xffff) << 48) | (self.0[1] >> 16)
    }

    /// The second at which the record arrived.
    #[must_use]
    pub fn arrival_s(self) -> u64 {
        ((self.0[1] & 0xff) << 28) | (self.0[2] >> 36)
    }

    fn is_well_formed(self) -> bool {
        self.0[0] >> 56 == VERSION && self.0[2] & 0xf == VERSION && (self.0[1] >> 8) & 0xff == 0
    }

    /// Divides in place by [`CHUNK`] and returns the remainder.
    fn div_chunk(limbs: &mut [u64; 3]) -> u64 {
        let mut rest: u64 = 0;
        for limb in limbs {
            let wide = (u128::from(rest) << 64) | u128::from(*limb);
            // rest < CHUNK, so the quotient fits.
            *limb = (wide / u128::from(CHUNK)) as u64;
            rest = (wide % u128::from(CHUNK)) as u64;
        }
        rest
    }
}

/// The decimal digits of a number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digits([u8; 56]);

impl Digits {
    pub(crate) fn as_bytes(&self) -> &[u8; 56] {
        &self.0
    }

    pub(crate) fn as_str(&self) -> &str {
        // Nothing but digits.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl SequenceNumber {
    /// Its digits, of which there are always 56: the version at the top sees to that. A put answers with as many numbers
    /// as it has records, so they are written without the machinery of formatting.
    pub(crate) fn digits(self) -> Digits {
        let mut limbs = self.0;
        let low = Self::div_chunk(&mut limbs);
        let middle = Self::div_chunk(&mut limbs);
        let mut digits = [b'0'; 56];
        for (range, mut chunk) in [(0..18, limbs[2]), (18..37, middle), (37..56, low)] {
            // Two at a time: a division for each digit is what a put's answer would mostly cost.
            for pair in digits[range].rchunks_mut(2) {
                let two = &PAIRS[2 * (chunk % 100) as usize..][..2];
                chunk /= 100;
                pair.copy_from_slice(&two[2 - pair.len()..]);
            }
        }
        Digits(digits)
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.digits().as_str())
    }
}

impl fmt::Debug for SequenceNumber {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl serde::Serialize for SequenceNumber {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.digits().as_str())
    }
}

impl<'de> serde::Deserialize<'de> for SequenceNumber {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for SequenceNumber {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.len() != 56 {
            return Err(ParseError);
        }
        let mut limbs = [0u64; 3];
        for byte in text.bytes() {
            if !byte.is_ascii_digit() {
                return Err(ParseError);
            }
            let mut carry = u128::from(byte - b'0');
            for limb in limbs.iter_mut().rev() {
                let wide = u128::from(*limb) * 10 + carry;
                *limb = wide as u64;
                carry = wide >> 64;
            }
        }
        let number = Self(limbs);
        if number.is_well_formed() { Ok(number) } else { Err(ParseError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_56_digits_and_parses_them_back() {
        for (shard, created, index, arrival) in [
            (0, 1_400_000_000, 0, 1_400_000_000),
            (7, 1_763_600_000, 1, 1_763_600_001),
            (u32::MAX, 1_763_600_000, u64::MAX, 1_999_999_999),
        ] {
            let number = SequenceNumber::compose(shard, created, index, arrival);
            let text = number.to_string();
            assert_eq!(text.len(), 56, "{text}");
            assert!(text.starts_with("49"), "{text}");
            let back: SequenceNumber = text.parse().unwrap();
            assert_eq!(back, number);
            assert_eq!(
                (back.shard_index(), back.shard_created_s(), back.index(), back.arrival_s()),
                (shard, created, index, arrival)
            );
        }
    }

    #[test]
    fn orders_by_index_first_and_by_shard_creation_before_that() {
        let parent = SequenceNumber::compose(9, 100, u64::MAX, 5_000);
        let child = SequenceNumber::compose(10, 101, 0, 101);
        assert!(parent < child);
        assert!(parent.to_string() < child.to_string());
        assert!(SequenceNumber::compose(1, 100, 4, 900) < SequenceNumber::compose(1, 100, 5, 100));
    }

    #[test]
    fn reads_a_number_of_the_real_service() {
        // From the service's own examples.
        let number: SequenceNumber =
            "49590338271490256608559692538361571095921575989136588898".parse().unwrap();
        assert_eq!((number.shard_index(), number.shard_created_s()), (6, 1_542_776_258));
        assert_eq!((number.index(), number.arrival_s()), (0x6764_8a17, 0x5_c181_eea0 >> 4));
        assert_eq!(number.to_string(), "49590338271490256608559692538361571095921575989136588898");
    }

    #[test]
    fn refuses_what_is_no_number() {
        for text in ["", "1", "abc", &"9".repeat(56), &"0".repeat(56), &"4".repeat(57)] {
            assert_eq!(text.parse::<SequenceNumber>(), Err(ParseError), "{text}");
        }
    }
}
