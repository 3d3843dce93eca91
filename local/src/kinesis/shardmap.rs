//! The shards of a stream: all that are still readable, and the open ones by hash range.

use std::sync::Arc;

use super::hash::uniform;
use super::record::parse_shard_id;
use super::settings::WriteLimits;
use super::shard::{Identity, Shard};

/// The shards of one stream.
#[derive(Debug)]
pub(crate) struct ShardMap {
    /// By index, which is the order of creation.
    all: Vec<Arc<Shard>>,
    /// By range; together they cover the whole hash space.
    open: Vec<Arc<Shard>>,
    next_index: u32,
}

impl ShardMap {
    pub(crate) fn new(count: u32, now_ms: i64, limits: Option<WriteLimits>) -> Self {
        let sequence_s = u64::try_from(now_ms.div_euclid(1_000)).unwrap_or(0);
        let all: Vec<_> = (0..)
            .zip(uniform(count))
            .map(|(index, range)| {
                let identity = Identity {
                    index,
                    range,
                    parent: None,
                    adjacent_parent: None,
                    created_ms: now_ms,
                    sequence_s,
                };
                Arc::new(Shard::new(identity, limits))
            })
            .collect();
        Self { open: all.clone(), all, next_index: count }
    }

    pub(crate) fn restore(shards: Vec<Arc<Shard>>, next_index: u32) -> Self {
        let mut open: Vec<_> = shards.iter().filter(|shard| shard.closed().is_none()).cloned().collect();
        open.sort_by_key(|shard| shard.identity().range.start);
        Self { all: shards, open, next_index }
    }

    pub(crate) fn all(&self) -> &[Arc<Shard>] {
        &self.all
    }

    pub(crate) fn open(&self) -> &[Arc<Shard>] {
        &self.open
    }

    pub(crate) fn next_index(&self) -> u32 {
        self.next_index
    }

    /// The place in [`ShardMap::open`] of the shard that takes `hash`.
    pub(crate) fn place_of(&self, hash: u128) -> usize {
        self.open.partition_point(|shard| shard.identity().range.start <= hash).saturating_sub(1)
    }

    pub(crate) fn find(&self, id: &str) -> Option<&Arc<Shard>> {
        let index = parse_shard_id(id)?;
        self.all.binary_search_by_key(&index, |shard| shard.identity().index).ok().map(|at| &self.all[at])
    }

    /// Takes the number of the next shard.
    pub(crate) fn take_index(&mut self) -> u32 {
        let index = self.next_index;
        self.next_index += 1;
        index
    }

    /// Puts `children`, which cover exactly the ranges of `parents`, in their place.
    pub(crate) fn replace(&mut self, parents: &[u32], children: Vec<Arc<Shard>>) {
        self.open.retain(|shard| !parents.contains(&shard.identity().index));
        self.open.extend(children.iter().cloned());
        self.open.sort_by_key(|shard| shard.identity().range.start);
        self.all.extend(children);
    }

    /// Forgets shards that closed before `horizon_ms`: retention has taken all they held.
    pub(crate) fn expire(&mut self, horizon_ms: i64) {
        self.all.retain(|shard| shard.closed().is_none_or(|closed| closed.at_ms >= horizon_ms));
    }
}
