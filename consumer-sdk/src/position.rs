//! Places in a shard: sequence numbers, positions within aggregates, and what a lease remembers.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytestring::ByteString;

/// A Kinesis sequence number: a decimal number of up to 56 digits, compared as a number.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SequenceNumber(ByteString);

impl SequenceNumber {
    /// Takes the text that the service gave; `None` unless it is a decimal number.
    pub fn new(text: impl Into<ByteString>) -> Option<Self> {
        let text = text.into();
        (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then_some(Self(text))
    }

    /// The decimal text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The layout of the service's numbers, from the top: the version (2) at bit 184, the second of the shard's
/// creation (36 bits), 4 bits of its index, the record's index (64), 8 bits of zero, the second of arrival (36),
/// the shard's index (32), and 4 more. The KCL's `SequenceNumberValidator` reads version and
/// shard's index from these places; that the seconds stand where they do has been so since 2013.
const VERSION: u64 = 2;
const SECONDS: u64 = (1 << 36) - 1;

impl SequenceNumber {
    /// When the record with this number arrived, or, if it is no record's, when it was given; to the second.
    /// `None` where the number is not of the service's form.
    pub(crate) fn arrived(&self) -> Option<SystemTime> {
        let mut limbs = [0_u64; 3];
        for digit in self.0.bytes() {
            let mut carry = u128::from(digit - b'0');
            for limb in limbs.iter_mut().rev() {
                let wide = u128::from(*limb) * 10 + carry;
                (*limb, carry) = (wide as u64, wide >> 64);
            }
            if carry > 0 {
                return None;
            }
        }
        let [high, middle, low] = limbs;
        let created = (high >> 20) & SECONDS;
        let arrived = ((middle & 0xff) << 28) | (low >> 36);
        // A shard's own first number was given when the shard was made.
        let well_formed =
            high >> 56 == VERSION && (middle >> 8) & 0xff == 0 && (1..=arrived).contains(&created);
        well_formed.then(|| UNIX_EPOCH + Duration::from_secs(arrived))
    }
}

impl std::fmt::Debug for SequenceNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (self.0.trim_start_matches('0'), other.0.trim_start_matches('0'));
        // The last term keeps the order consistent with equality, which compares the texts.
        a.len().cmp(&b.len()).then_with(|| a.cmp(b)).then_with(|| self.0.len().cmp(&other.0.len()))
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A place in a shard: everything up to and including member `sub` of the Kinesis record `sequence`.
///
/// It is the KCL's extended sequence number. A Kinesis record that is no aggregate has the one member 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The Kinesis record's sequence number.
    pub sequence: SequenceNumber,
    /// The member's place in the aggregate, from 0; see [`Position::before`] and [`Position::past`].
    pub sub: i64,
}

impl Position {
    /// Member `sub` of a Kinesis record.
    pub fn new(sequence: SequenceNumber, sub: i64) -> Self {
        Self { sequence, sub }
    }

    /// Just before a Kinesis record: a reader that starts here delivers its first member.
    ///
    /// The KCL compares sub-sequence numbers as signed numbers, so it reads this the same way.
    pub fn before(sequence: SequenceNumber) -> Self {
        Self { sequence, sub: -1 }
    }

    /// Past everything at this sequence number, however many members are there.
    pub fn past(sequence: SequenceNumber) -> Self {
        Self { sequence, sub: i64::MAX }
    }
}

/// What a lease remembers of its shard, in the KCL's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checkpoint {
    /// Nothing read yet: begins at the oldest record.
    TrimHorizon,
    /// Nothing read yet: begins after the newest record.
    Latest,
    /// Nothing read yet: begins at the timestamp in the consumer's configuration.
    AtTimestamp,
    /// Everything up to and including this position is done.
    At(Position),
    /// The shard was read to its end.
    ShardEnd,
}

impl Checkpoint {
    /// The value of the lease attribute `checkpoint`.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Checkpoint::TrimHorizon => "TRIM_HORIZON".into(),
            Checkpoint::Latest => "LATEST".into(),
            Checkpoint::AtTimestamp => "AT_TIMESTAMP".into(),
            Checkpoint::At(position) => position.sequence.as_str().into(),
            Checkpoint::ShardEnd => "SHARD_END".into(),
        }
    }

    /// The value of the lease attribute `checkpointSubSequenceNumber`.
    pub fn sub(&self) -> i64 {
        match self {
            Checkpoint::At(position) => position.sub,
            _ => 0,
        }
    }

    /// Reads the two attributes; `None` if the text is neither a sentinel nor a number.
    pub fn parse(text: &str, sub: i64) -> Option<Self> {
        Some(match text {
            "TRIM_HORIZON" => Checkpoint::TrimHorizon,
            "LATEST" => Checkpoint::Latest,
            "AT_TIMESTAMP" => Checkpoint::AtTimestamp,
            "SHARD_END" => Checkpoint::ShardEnd,
            digits => Checkpoint::At(Position::new(SequenceNumber::new(digits)?, sub)),
        })
    }

    /// Whether the shard was read to its end.
    pub fn is_end(&self) -> bool {
        *self == Checkpoint::ShardEnd
    }
}

/// Where an application that has no leases yet begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// At the oldest record that the stream still has.
    #[default]
    TrimHorizon,
    /// After the newest record.
    Latest,
    /// At the first record that arrived at this time or later.
    AtTimestamp(SystemTime),
}

impl Start {
    /// The checkpoint of a new lease.
    pub fn checkpoint(&self) -> Checkpoint {
        match self {
            Start::TrimHorizon => Checkpoint::TrimHorizon,
            Start::Latest => Checkpoint::Latest,
            Start::AtTimestamp(_) => Checkpoint::AtTimestamp,
        }
    }
}

/// Where an application that has no leases yet begins in one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SequenceStart {
    /// At the record with this sequence number.
    At(SequenceNumber),
    /// After the record with this sequence number.
    After(SequenceNumber),
}

impl SequenceStart {
    /// The checkpoint of the shard's lease: a place in the stream from the beginning.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint::At(match self {
            SequenceStart::At(sequence) => Position::before(sequence.clone()),
            SequenceStart::After(sequence) => Position::past(sequence.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seq(text: &str) -> SequenceNumber {
        SequenceNumber::new(text.to_owned()).unwrap()
    }

    proptest! {
        #[test]
        fn sequence_numbers_compare_as_numbers(a: u128, b: u128, a_sub: i64, b_sub: i64) {
            let position = |n: u128, sub| Position::new(seq(&n.to_string()), sub);
            prop_assert_eq!(position(a, a_sub).cmp(&position(b, b_sub)), (a, a_sub).cmp(&(b, b_sub)));
        }

        #[test]
        fn checkpoints_round_trip(n: u128, sub: i64) {
            let at = Checkpoint::At(Position::new(seq(&n.to_string()), sub));
            for checkpoint in [
                at, Checkpoint::TrimHorizon, Checkpoint::Latest, Checkpoint::AtTimestamp, Checkpoint::ShardEnd,
            ] {
                prop_assert_eq!(Checkpoint::parse(&checkpoint.text(), checkpoint.sub()), Some(checkpoint));
            }
        }
    }

    #[test]
    fn the_services_numbers_tell_when_they_were_given() {
        // Both are examples of the service's API reference, from 2014 and 2015.
        for (number, at) in [
            ("49543463076548007577105092703039560359975228518395012686", 1_411_431_219),
            ("49546986683135544286507457936321625675700192471156785154", 1_421_279_386),
        ] {
            let arrived = seq(number).arrived().unwrap();
            assert_eq!(arrived.duration_since(UNIX_EPOCH).unwrap().as_secs(), at);
        }
        for other in ["1", "49", &"9".repeat(56), &"9".repeat(80)] {
            assert_eq!(seq(other).arrived(), None, "{other}");
        }
    }

    #[test]
    fn before_and_past_enclose_every_member() {
        for sub in [0, 1, i64::MAX - 1] {
            assert!(Position::before(seq("5")) < Position::new(seq("5"), sub));
            assert!(Position::new(seq("5"), sub) < Position::past(seq("5")));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in ["", "x", "-1", "1.0", "trim_horizon"] {
            assert_eq!(Checkpoint::parse(bad, 0), None, "{bad}");
        }
    }
}
