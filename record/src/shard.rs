//! Shards, the map that predicts them, and lanes: slices of a shard's hash range.

use std::collections::HashMap;
use std::num::NonZeroU16;

use bytestring::ByteString;

use crate::key::{HashKey, PartitionKey};

/// A shard's name, such as `shardId-000000000003`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(ByteString);

impl ShardId {
    /// Takes a shard's name as the service gives it.
    pub fn new(id: impl Into<ByteString>) -> Self {
        Self(id.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for ShardId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Display for ShardId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for ShardId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

/// A range of hash keys, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashRange {
    /// The lowest hash key in the range.
    pub start: HashKey,
    /// The highest hash key in the range.
    pub end: HashKey,
}

impl HashRange {
    /// The whole hash space.
    pub const ALL: HashRange = HashRange { start: HashKey::MIN, end: HashKey::MAX };

    /// A range with both ends included.
    pub fn new(start: u128, end: u128) -> Self {
        Self { start: HashKey(start), end: HashKey(end) }
    }

    /// Whether the hash key lies in the range.
    pub fn contains(&self, hash: HashKey) -> bool {
        self.start <= hash && hash <= self.end
    }

    /// Whether the two ranges share a hash key.
    pub fn overlaps(&self, other: &HashRange) -> bool {
        self.start <= other.end && other.start <= self.end
    }
}

/// One shard: its name and its range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// The shard's name.
    pub id: ShardId,
    /// The hash keys that it takes.
    pub range: HashRange,
}

/// How many lanes each shard of a stream has. All writers of a stream must agree on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LaneCount(NonZeroU16);

impl LaneCount {
    /// One lane per shard.
    pub const ONE: LaneCount = LaneCount(NonZeroU16::MIN);
    /// The most lanes per shard.
    pub const MAX: u16 = 256;

    /// A count from 1 to [`LaneCount::MAX`], else `None`.
    pub fn new(count: u16) -> Option<Self> {
        NonZeroU16::new(count).filter(|n| n.get() <= Self::MAX).map(Self)
    }

    /// The count.
    pub fn get(self) -> u16 {
        self.0.get()
    }

    /// Which lane of a shard with this range the hash key lies in.
    pub fn lane_of(self, range: &HashRange, hash: HashKey) -> u16 {
        if self == Self::ONE {
            return 0;
        }
        let width = self.width(range);
        ((hash.0 - range.start.0) / width).min(u128::from(self.get() - 1)) as u16
    }

    /// The slice of the shard's range that is this lane's.
    pub fn slice(self, range: &HashRange, lane: u16) -> HashRange {
        let width = self.width(range);
        let start = range.start.0 + width * u128::from(lane);
        let end = if lane + 1 == self.get() { range.end.0 } else { (start + width - 1).min(range.end.0) };
        HashRange::new(start, end)
    }

    fn width(self, range: &HashRange) -> u128 {
        // A range narrower than the number of lanes uses its first lanes only.
        ((range.end.0 - range.start.0) / u128::from(self.get())).max(1)
    }
}

/// A lane of a shard. Its label is the Kinesis partition key of our aggregates, so Lambda, which
/// splits a shard's work by partition key, can process lanes side by side.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// The shard that the writer predicted.
    pub shard: ShardId,
    /// The lane's number within the shard.
    pub number: u16,
}

impl Lane {
    const PREFIX: &'static str = "hw/";

    /// The text that stands as the Kinesis partition key, such as `hw/shardId-000000000003/0`.
    pub fn label(&self) -> String {
        format!("{}{}/{}", Self::PREFIX, self.shard, self.number)
    }

    /// The label as a partition key, which it always can be.
    pub fn key(&self) -> PartitionKey {
        PartitionKey::label(self.label())
    }

    /// Reads a label; `None` if the text is not one.
    pub fn parse(label: &str) -> Option<Self> {
        let (shard, number) = label.strip_prefix(Self::PREFIX)?.rsplit_once('/')?;
        let shard = (!shard.is_empty()).then(|| ShardId::from(shard))?;
        Some(Self { shard, number: number.parse().ok()? })
    }

    /// The shard named by a label, without building a lane.
    pub fn shard_of(label: &str) -> Option<&str> {
        label.strip_prefix(Self::PREFIX)?.rsplit_once('/').map(|(shard, _)| shard)
    }
}

/// Why a list of shards is not a map of a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Some hash keys belong to no open shard.
    #[error(
        "the open shards leave a gap at hash key {at}; list the shards again, the stream may be resharding"
    )]
    Gap {
        /// The lowest hash key that no shard takes.
        at: HashKey,
    },
    /// Some hash keys belong to two open shards.
    #[error(
        "the open shards {first} and {second} overlap; list the shards again, the stream may be resharding"
    )]
    Overlap {
        /// A shard.
        first: ShardId,
        /// The next one, which begins too early.
        second: ShardId,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        "shard-map-incomplete"
    }

    /// A stream that reshards is whole again in a moment.
    pub fn is_retryable(&self) -> bool {
        true
    }
}

/// The open shards of a stream in hash order, and the ranges of all shards ever seen.
///
/// Closed shards are remembered because `ListShards` with `AT_LATEST` forgets them, while an answer
/// that was under way may still name one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardMap {
    open: Vec<Shard>,
    known: HashMap<ShardId, HashRange>,
}

impl ShardMap {
    /// Checks that the shards cover the hash space once.
    pub fn new(mut open: Vec<Shard>) -> Result<Self, Error> {
        open.sort_by_key(|shard| shard.range.start);
        let mut next = Some(0u128);
        for (i, shard) in open.iter().enumerate() {
            match next {
                Some(at) if shard.range.start.0 > at => return Err(Error::Gap { at: HashKey(at) }),
                Some(at) if shard.range.start.0 == at => {}
                _ => {
                    let first = open[i.saturating_sub(1)].id.clone();
                    return Err(Error::Overlap { first, second: shard.id.clone() });
                }
            }
            next = shard.range.end.0.checked_add(1);
        }
        if let Some(at) = next {
            return Err(Error::Gap { at: HashKey(at) });
        }
        let known = open.iter().map(|shard| (shard.id.clone(), shard.range)).collect();
        Ok(Self { open, known })
    }

    /// Takes over the ranges that an older map remembers.
    pub fn remember(mut self, older: &ShardMap) -> Self {
        for (id, range) in &older.known {
            self.known.entry(id.clone()).or_insert(*range);
        }
        self
    }

    /// Remembers a closed shard's range.
    pub fn remember_shard(&mut self, shard: Shard) {
        self.known.insert(shard.id, shard.range);
    }

    /// The open shards in hash order.
    pub fn open(&self) -> &[Shard] {
        &self.open
    }

    /// The place in [`ShardMap::open`] of the shard that takes this hash key.
    pub fn predict(&self, hash: HashKey) -> usize {
        // The first shard starts at 0 (checked in `new`), so the subtraction holds.
        self.open.partition_point(|shard| shard.range.start <= hash) - 1
    }

    /// The range of a shard, open or closed, if it was ever seen.
    pub fn range_of(&self, id: &ShardId) -> Option<HashRange> {
        self.known.get(id).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shard(id: &str, start: u128, end: u128) -> Shard {
        Shard { id: id.into(), range: HashRange::new(start, end) }
    }

    #[test]
    fn gaps_and_overlaps_are_refused() {
        assert_eq!(ShardMap::new(vec![]).unwrap_err(), Error::Gap { at: HashKey(0) });
        assert_eq!(ShardMap::new(vec![shard("a", 1, u128::MAX)]).unwrap_err(), Error::Gap { at: HashKey(0) });
        assert_eq!(ShardMap::new(vec![shard("a", 0, 9)]).unwrap_err(), Error::Gap { at: HashKey(10) });
        let over = ShardMap::new(vec![shard("a", 0, 9), shard("b", 9, u128::MAX)]).unwrap_err();
        assert_eq!(over, Error::Overlap { first: "a".into(), second: "b".into() });
        let twice = ShardMap::new(vec![shard("a", 0, u128::MAX), shard("b", 5, 6)]).unwrap_err();
        assert!(matches!(twice, Error::Overlap { .. }));
    }

    #[test]
    fn closed_shards_are_remembered() {
        let before = ShardMap::new(vec![shard("a", 0, u128::MAX)]).unwrap();
        let after =
            ShardMap::new(vec![shard("b", 0, 9), shard("c", 10, u128::MAX)]).unwrap().remember(&before);
        assert_eq!(after.range_of(&"a".into()), Some(HashRange::ALL));
        assert_eq!(after.open().len(), 2);
    }

    #[test]
    fn labels_round_trip() {
        let lane = Lane { shard: "shardId-000000000003".into(), number: 7 };
        assert_eq!(lane.label(), "hw/shardId-000000000003/7");
        assert_eq!(Lane::parse(&lane.label()), Some(lane));
        for foreign in ["a", "hw/", "hw/x", "hw//1", "hw/s/x", "customer/1"] {
            assert_eq!(Lane::parse(foreign), None, "{foreign}");
        }
    }

    proptest! {
        #[test]
        fn every_hash_key_lies_in_the_predicted_shard(
            cuts in proptest::collection::btree_set(1u128.., 0..20),
            hashes in proptest::collection::vec(any::<u128>(), 1..50),
        ) {
            let mut starts: Vec<u128> = vec![0];
            starts.extend(&cuts);
            let shards = starts.iter().enumerate().map(|(i, start)| {
                shard(&format!("s{i}"), *start, starts.get(i + 1).map_or(u128::MAX, |next| next - 1))
            }).collect();
            let map = ShardMap::new(shards).unwrap();
            for hash in hashes.into_iter().map(HashKey).chain([HashKey::MIN, HashKey::MAX]) {
                prop_assert!(map.open()[map.predict(hash)].range.contains(hash));
            }
        }

        #[test]
        fn every_hash_key_lies_in_its_lane(a: u128, b: u128, at: u128, lanes in 1u16..=256) {
            let range = HashRange::new(a.min(b), a.max(b));
            let width = range.end.0 - range.start.0;
            let hash = HashKey(if width == u128::MAX { at } else { range.start.0 + at % (width + 1) });
            let lanes = LaneCount::new(lanes).unwrap();
            let lane = lanes.lane_of(&range, hash);
            prop_assert!(lane < lanes.get());
            prop_assert!(lanes.slice(&range, lane).contains(hash));
        }

        #[test]
        fn narrow_ranges_have_lanes_too(width in 0u128..300, offset in 0u128..300, lanes in 1u16..=256) {
            let range = HashRange::new(1000, 1000 + width);
            let hash = HashKey(1000 + offset.min(width));
            let lanes = LaneCount::new(lanes).unwrap();
            prop_assert!(lanes.slice(&range, lanes.lane_of(&range, hash)).contains(hash));
        }
    }
}
