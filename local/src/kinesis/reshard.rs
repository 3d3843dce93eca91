//! Splitting and merging shards. A reshard takes effect at once, with no put between the old shards and the new.

use std::sync::Arc;

use super::engine::Engine;
use super::error::Error;
use super::features::{count_in_a_day, over_a_day};
use super::hash::{HashRange, uniform};
use super::reader::ChildShard;
use super::settings::millis;
use super::shard::{Identity, Shard};
use super::shardmap::ShardMap;
use super::stream::{Stream, StreamMode, StreamStatus};

impl Engine {
    /// Splits an open shard: the second child begins at `new_starting_hash`.
    ///
    /// # Errors
    /// `ResourceNotFound`, `ResourceInUse` while the stream is not ACTIVE, `InvalidArgument` for a closed shard or
    /// a hash key at or outside the shard's edges, `LimitExceeded`.
    pub fn split_shard(&self, stream: &str, shard_id: &str, new_starting_hash: u128) -> Result<(), Error> {
        let stream = self.usable(stream)?;
        let now_ms = self.now_ms();
        let shard = stream.shard(shard_id)?;
        let open_shards = self.open_shards();
        let mut control = stream.control();
        control.require_active(&stream, now_ms)?;
        refuse_on_demand(&stream, control.mode)?;
        let range = shard.identity().range;
        // Seen: kinesalite's tests of SplitShard.
        if new_starting_hash <= range.start.saturating_add(1) || new_starting_hash >= range.end {
            return Err(Error::InvalidArgument(format!(
                "NewStartingHashKey {new_starting_hash} used in SplitShard() on shard {shard_id} in stream {} under \
                 account {} is not both greater than one plus the shard's StartingHashKey {} and less than the \
                 shard's EndingHashKey {}.",
                stream.name(),
                stream.account_id(),
                range.start,
                range.end.saturating_sub(1)
            )));
        }
        self.check_shard_limit(open_shards, 1)?;
        let mut map = stream.map_mut();
        require_open(&stream, &shard)?;
        self.split(&mut map, &shard, new_starting_hash, now_ms);
        control.enter(StreamStatus::Updating, now_ms, millis(self.settings().transition));
        let mark = self.note(&stream, &control, &map);
        drop((map, control));
        self.flush(mark)
    }

    /// Merges an open shard with the one whose range follows its own.
    ///
    /// # Errors
    /// As [`Engine::split_shard`], and `InvalidArgument` for shards that are not adjacent. The service wants the lower
    /// one first: kinesalite's tests, which ran against it, refuse the pair the other way round, and clients of it
    /// (atlassian/themis, pull request 32) had to bring theirs into this order.
    pub fn merge_shards(&self, stream: &str, shard_id: &str, adjacent_shard_id: &str) -> Result<(), Error> {
        let stream = self.usable(stream)?;
        let now_ms = self.now_ms();
        let shard = stream.shard(shard_id)?;
        let adjacent = stream.shard(adjacent_shard_id)?;
        let mut control = stream.control();
        control.require_active(&stream, now_ms)?;
        refuse_on_demand(&stream, control.mode)?;
        let (one, other) = (shard.identity().range, adjacent.identity().range);
        // Seen: kinesalite's tests of MergeShards.
        if !one.is_followed_by(other) {
            return Err(Error::InvalidArgument(format!(
                "Shards {shard_id} and {adjacent_shard_id} in stream {} under account {} are not an adjacent pair \
                 of shards eligible for merging",
                stream.name(),
                stream.account_id()
            )));
        }
        let mut map = stream.map_mut();
        require_open(&stream, &shard)?;
        require_open(&stream, &adjacent)?;
        self.merge(&mut map, &shard, &adjacent, now_ms);
        control.enter(StreamStatus::Updating, now_ms, millis(self.settings().transition));
        let mark = self.note(&stream, &control, &map);
        drop((map, control));
        self.flush(mark)
    }

    /// Splits and merges until the stream has `target` shards of equal ranges, and returns how many it had.
    ///
    /// # Errors
    /// `ResourceNotFound`, `ResourceInUse` while the stream is not ACTIVE, `InvalidArgument` for more than twice or
    /// less than half of the open shards, `LimitExceeded`.
    pub fn update_shard_count(&self, stream: &str, target: u32) -> Result<usize, Error> {
        let stream = self.usable(stream)?;
        let now_ms = self.now_ms();
        let open_shards = self.open_shards();
        let mut control = stream.control();
        control.require_active(&stream, now_ms)?;
        refuse_on_demand(&stream, control.mode)?;
        let mut map = stream.map_mut();
        let current = map.open().len();
        let wanted = target as usize;
        // API_UpdateShardCount: up to double, down to half; InvalidArgumentException. Seen: reports of users.
        if wanted > current * 2 || wanted * 2 < current {
            let step = if wanted > current { "up over double" } else { "down below half" };
            return Err(Error::InvalidArgument(format!(
                "UpdateShardCount cannot scale {step} your current open shard count. Current open shard count: \
                 {current} Target shard count: {target}"
            )));
        }
        self.check_shard_limit(open_shards, wanted.saturating_sub(current))?;
        if wanted == current {
            return Ok(current);
        }
        // API_UpdateShardCount: no more than ten times per rolling day and stream.
        let limit = self.settings().daily_limits.map(|limits| limits.scalings);
        if !count_in_a_day(&mut control.features.history.scalings, limit, now_ms) {
            return Err(over_a_day(&stream, "UpdateShardCount", limit));
        }
        self.reshape(&mut map, &uniform(target), now_ms);
        control.enter(StreamStatus::Updating, now_ms, millis(self.settings().transition));
        let mark = self.note(&stream, &control, &map);
        drop((map, control));
        self.flush(mark)?;
        Ok(current)
    }

    /// Cuts at every wanted boundary that is missing, then joins over every one that is not wanted. As in the
    /// service every step has one parent and two children, or two and one; some shards live only for a step.
    pub(crate) fn reshape(&self, map: &mut ShardMap, wanted: &[HashRange], now_ms: i64) {
        for range in wanted {
            if let Some(shard) = map.open().get(map.place_of(range.start)).cloned()
                && shard.identity().range.start != range.start
            {
                self.split(map, &shard, range.start, now_ms);
            }
        }
        let is_wanted = |start: u128| wanted.iter().any(|range| range.start == start);
        while let Some(at) = map.open().iter().position(|shard| !is_wanted(shard.identity().range.start)) {
            // The first range starts at 0, which is always wanted, so there is a shard before this one.
            let (left, right) = (Arc::clone(&map.open()[at - 1]), Arc::clone(&map.open()[at]));
            self.merge(map, &left, &right, now_ms);
        }
    }

    pub(crate) fn split(&self, map: &mut ShardMap, shard: &Arc<Shard>, at: u128, now_ms: i64) {
        let parent = shard.identity();
        let ranges = [
            HashRange { start: parent.range.start, end: at - 1 },
            HashRange { start: at, end: parent.range.end },
        ];
        let children = ranges.map(|range| {
            self.new_shard(Identity {
                index: map.take_index(),
                range,
                parent: Some(parent.index),
                adjacent_parent: None,
                created_ms: now_ms,
                sequence_s: child_sequence_s(now_ms, &[parent]),
            })
        });
        succeed(map, std::slice::from_ref(shard), children.to_vec(), now_ms);
    }

    pub(crate) fn merge(&self, map: &mut ShardMap, shard: &Arc<Shard>, adjacent: &Arc<Shard>, now_ms: i64) {
        let (one, other) = (shard.identity(), adjacent.identity());
        let range = HashRange {
            start: one.range.start.min(other.range.start),
            end: one.range.end.max(other.range.end),
        };
        let child = self.new_shard(Identity {
            index: map.take_index(),
            range,
            parent: Some(one.index),
            adjacent_parent: Some(other.index),
            created_ms: now_ms,
            sequence_s: child_sequence_s(now_ms, &[one, other]),
        });
        succeed(map, &[Arc::clone(shard), Arc::clone(adjacent)], vec![child], now_ms);
    }
}

/// Maps the children before the parents wake their readers with the news.
fn succeed(map: &mut ShardMap, parents: &[Arc<Shard>], children: Vec<Arc<Shard>>, now_ms: i64) {
    let parent_ids: Vec<_> = parents.iter().map(|shard| shard.id()).collect();
    let described: Vec<_> = children
        .iter()
        .map(|child| ChildShard {
            shard_id: child.id(),
            parent_shards: parent_ids.clone(),
            range: child.identity().range,
        })
        .collect();
    let indices: Vec<_> = parents.iter().map(|shard| shard.identity().index).collect();
    map.replace(&indices, children);
    for parent in parents {
        parent.close(described.clone(), now_ms);
    }
}

fn child_sequence_s(now_ms: i64, parents: &[&Identity]) -> u64 {
    let now_s = u64::try_from(now_ms.div_euclid(1_000)).unwrap_or(0);
    parents.iter().map(|parent| parent.sequence_s + 1).fold(now_s, u64::max)
}

/// API_SplitShard, API_MergeShards and API_UpdateShardCount: only for provisioned streams (`ValidationException`). The
/// words are those that clients of the service report.
/// API_SplitShard, API_MergeShards and API_UpdateShardCount: only of provisioned streams; ValidationException. Seen:
/// moto.
fn refuse_on_demand(stream: &Stream, mode: StreamMode) -> Result<(), Error> {
    if mode == StreamMode::Provisioned {
        return Ok(());
    }
    Err(Error::Validation(format!(
        "Request is invalid. Stream {} under account {} is in On-Demand mode.",
        stream.name(),
        stream.account_id()
    )))
}

/// API_SplitShard and API_MergeShards: InvalidArgumentException. Seen: reports of users (kinesalite's issue 109).
fn require_open(stream: &Stream, shard: &Shard) -> Result<(), Error> {
    if shard.closed().is_none() {
        return Ok(());
    }
    Err(Error::InvalidArgument(format!(
        "Shard {} in stream {} under account {} has already been merged or split, and thus is not eligible for \
         merging or splitting.",
        shard.id(),
        stream.name(),
        stream.account_id()
    )))
}
