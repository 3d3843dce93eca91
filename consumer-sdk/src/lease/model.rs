//! One lease.

use bytes::Bytes;
use headworks_record::{HashRange, ShardId};

use crate::position::{Checkpoint, Position};

/// One item of the lease table: a shard, who reads it, and how far it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The lease key: the shard's name, and in an application of several streams the stream's identifier in
    /// front of it; [`StreamShard::of`](crate::StreamShard::of) takes it apart. Parents and children likewise.
    pub shard: ShardId,
    /// The worker that reads the shard, if one does.
    pub owner: Option<String>,
    /// The fencing token: every write by an owner and every change of owner raises it by one and is
    /// conditional on the value that the writer knows.
    pub counter: u64,
    /// How often the owner changed since the last checkpoint.
    pub owner_switches: u64,
    /// How far the shard was read.
    pub checkpoint: Checkpoint,
    /// The shards that this one came from: one after a split, two after a merge.
    pub parents: Vec<ShardId>,
    /// The shards that came from this one, known when it has been read to its end.
    pub children: Vec<ShardId>,
    /// The shard's hash range; older KCLs do not store it.
    pub range: Option<HashRange>,
    /// A checkpoint that was prepared and not yet committed.
    pub pending: Option<PendingCheckpoint>,
    /// What the shard brought when it was last measured, in bytes/s. The KCL's `throughputKBps`.
    pub throughput: Option<u64>,
}

/// A checkpoint that an application announced before it did something outside, in order to find out after a
/// crash how far it came. The KCL's `pendingCheckpoint` attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingCheckpoint {
    /// The place that is to be checkpointed.
    pub position: Position,
    /// What the application wanted to remember with it.
    pub state: Option<Bytes>,
}

impl Lease {
    /// A lease that nobody has held yet.
    pub fn new(shard: ShardId, checkpoint: Checkpoint) -> Self {
        Self {
            shard,
            owner: None,
            counter: 0,
            owner_switches: 0,
            checkpoint,
            parents: Vec::new(),
            children: Vec::new(),
            range: None,
            pending: None,
            throughput: None,
        }
    }

    /// What an owner needs in order to write: `None` while nobody owns the lease.
    pub fn holding(&self) -> Option<Holding> {
        let owner = self.owner.clone()?;
        Some(Holding { shard: self.shard.clone(), owner, counter: self.counter })
    }
}

/// The right to write to a lease: its owner and the counter that the owner knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The lease key, as in [`Lease::shard`].
    pub shard: ShardId,
    /// The owner, as in [`Lease::owner`].
    pub owner: String,
    /// The counter, as in [`Lease::counter`].
    pub counter: u64,
}
