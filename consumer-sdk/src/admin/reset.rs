//! Moves the checkpoints of an application that does not run.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use headworks_record::ShardId;

use super::Error;
use super::target::{Target, resolve};
use crate::lease::{self, Beat, Lease, LeaseStore};
use crate::position::Checkpoint;
use crate::streams::{self, Streams};

/// One checkpoint that a reset moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The lease key, as in [`Lease::shard`].
    pub shard: ShardId,
    /// How far it was read.
    pub before: Checkpoint,
    /// How far it will count as read.
    pub after: Checkpoint,
}

/// A reset that was planned and not carried out yet.
#[derive(Debug, Clone)]
#[must_use = "a reset changes nothing until it is applied"]
pub struct Reset {
    store: Arc<dyn LeaseStore>,
    changes: Vec<Change>,
    watch: Duration,
}

/// Finds out what moving these shards (all of these streams, if none are named) to a target would change. Nothing
/// is written. Shards that expired are left out. Of an application of several streams,
/// [`Several`](crate::streams::Several) takes those that are meant.
pub async fn plan_reset(
    streams: &dyn Streams,
    store: Arc<dyn LeaseStore>,
    target: &Target,
    shards: &[ShardId],
) -> Result<Reset, Error> {
    let wanted: BTreeSet<&ShardId> = shards.iter().collect();
    let mut changes = Vec::new();
    for lease in store.leases().await? {
        if !streams.has(&lease.shard) || (!wanted.is_empty() && !wanted.contains(&lease.shard)) {
            continue;
        }
        let after = match resolve(streams, &lease.shard, target).await {
            Ok(after) => after,
            Err(streams::Error::NotFound { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let listed = match (&after, &lease.checkpoint) {
            // Nothing comes any more in a shard that was read to its end.
            (Checkpoint::Latest, Checkpoint::ShardEnd) => false,
            (after, before) => after != before,
        };
        if listed {
            changes.push(Change { shard: lease.shard, before: lease.checkpoint, after });
        }
    }
    changes.sort_by(|a, b| a.shard.cmp(&b.shard));
    Ok(Reset { store, changes, watch: Duration::from_secs(5) })
}

impl Reset {
    /// What will change, sorted by shard.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// How long workers are watched for signs of life before anything is written. Default 5 s; longer than
    /// the workers' heartbeat interval, and than a KCL worker's renewal (a third of its fail-over time).
    pub fn watch_for(mut self, watch: Duration) -> Self {
        self.watch = watch;
        self
    }

    /// Writes the new checkpoints; returns what was changed.
    ///
    /// It refuses while workers of the application are alive, unless it is forced: then each lease is taken
    /// away from its owner, whose later writes are fenced off, and free for the next claim. A forced reset
    /// also goes on where a checkpoint has moved meanwhile.
    pub async fn apply(self, force: bool) -> Result<Vec<Change>, Error> {
        if !force {
            let workers = self.alive().await?;
            if !workers.is_empty() {
                return Err(Error::WorkersAlive { workers });
            }
        }
        let me = format!("headworks-reset-{}", crate::random::name());
        let mut changed = Vec::with_capacity(self.changes.len());
        for change in &self.changes {
            let Some(lease) = self.store.lease(&change.shard).await? else { continue };
            if lease.checkpoint != change.before && !force {
                return Err(Error::Moved { shard: change.shard.clone() });
            }
            let before = lease.checkpoint.clone();
            self.write(&lease, &change.after, &me).await?;
            changed.push(Change { before, ..change.clone() });
        }
        Ok(changed)
    }

    async fn write(&self, lease: &Lease, after: &Checkpoint, me: &str) -> Result<(), lease::Error> {
        let claimed = self.store.claim(lease, me).await?;
        let conflict = || lease::Error::Conflict { shard: lease.shard.clone() };
        let holding = claimed.holding().ok_or_else(conflict)?;
        let holding = self.store.checkpoint(&holding, after, &[]).await?;
        self.store.release(&holding).await
    }

    /// Workers that give signs of life: heartbeats or, as the KCL's do, leases whose counter moves.
    async fn alive(&self) -> Result<Vec<String>, Error> {
        let (beats, leases) = (self.beats().await?, self.store.leases().await?);
        if beats.is_empty() && leases.iter().all(|lease| lease.owner.is_none()) {
            return Ok(Vec::new());
        }
        tokio::time::sleep(self.watch).await;
        let mut alive = BTreeSet::new();
        for now in self.beats().await? {
            // A worker that came meanwhile is one as well.
            if beats.iter().all(|before| before.worker != now.worker || before.counter != now.counter) {
                alive.insert(now.worker);
            }
        }
        for now in self.store.leases().await? {
            let moved =
                leases.iter().any(|before| before.shard == now.shard && before.counter != now.counter);
            alive.extend(now.owner.filter(|_| moved));
        }
        Ok(alive.into_iter().collect())
    }

    /// The heartbeats; an application of the KCL's has no table of them.
    async fn beats(&self) -> Result<Vec<Beat>, lease::Error> {
        match self.store.beats().await {
            Err(lease::Error::NoTable { .. }) => Ok(Vec::new()),
            beats => beats,
        }
    }

    /// Workers that own leases although nothing was seen to move: of the KCL's, one that renews more slowly than
    /// the watch lasts looks like this, and so does one that was killed.
    pub async fn owners(&self) -> Result<Vec<String>, Error> {
        let beating: BTreeSet<String> = self.beats().await?.into_iter().map(|beat| beat.worker).collect();
        let leases = self.store.leases().await?;
        let owners: BTreeSet<String> = leases
            .into_iter()
            .filter(|lease| self.changes.iter().any(|change| change.shard == lease.shard))
            .filter_map(|lease| lease.owner)
            .filter(|owner| !beating.contains(owner))
            .collect();
        Ok(owners.into_iter().collect())
    }
}
