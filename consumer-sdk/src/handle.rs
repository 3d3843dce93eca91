//! A consumer seen from outside: counters and states, readable at any time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytestring::ByteString;
use headworks_record::ShardId;
use tokio::sync::{mpsc, oneshot, watch};

use crate::admin::{Target, is_hot};
use crate::config::Config;
use crate::dedup::Dropped;
use crate::error::Error;
use crate::metrics;
use crate::pace::Pace;
use crate::position::{Checkpoint, Position};
use crate::reader::Counts;
use crate::streams::{Event, StreamShard};
use crate::sync::lock;

/// What a consumer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Built, or preparing tables and registration.
    Starting,
    /// Reading, or waiting for leases.
    Running,
    /// Finishing what is in hand.
    Draining,
    /// Over.
    Stopped,
}

/// One shard that this worker reads.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardStatus {
    /// The stream's name.
    pub stream: ByteString,
    /// The shard, by its lease key as in [`Lease::shard`](crate::lease::Lease::shard).
    pub shard: ShardId,
    /// Records delivered here since this worker took the shard.
    pub delivered: u64,
    /// How far the shard was behind its newest record, in milliseconds, when the last event was done;
    /// `None` before the first.
    pub millis_behind: Option<u64>,
    /// The last checkpoint written here.
    pub checkpoint: Option<Position>,
    /// Whether the shard is read by polling.
    pub polled: bool,
    /// Records between the last event that was done and the newest record, estimated from the rate at which
    /// records arrived lately; [`admin::lag`](crate::admin::lag()) reads the stream to count them. `None` before
    /// the first event.
    pub records_behind: Option<u64>,
    /// Bytes a second that arrived, by the records that were read lately.
    pub bytes_per_second: u64,
    /// Whether it takes more than 80 % of what a shard may, or more than twice the mean of this worker's shards
    /// (and at least 100 KB/s).
    pub hot: bool,
    /// Whether nothing was finished for [`Config::stuck_after`](crate::Config::stuck_after) although records are
    /// in hand or behind, or nothing was heard of the shard at all.
    pub stuck: bool,
}

/// A consumer at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// What it is doing.
    pub phase: Phase,
    /// Records whose handler finished, or that were handed out by the stream of records.
    pub delivered: u64,
    /// Records left out because they were done before.
    pub duplicates_skipped: u64,
    /// Records left out because their shard had brought their identity within
    /// [`Config::dedup_window`](crate::Config::dedup_window) before.
    pub repeats_dropped: u64,
    /// Identities forgotten before the window was over, because there were more than
    /// [`Config::dedup_max_identities`](crate::Config::dedup_max_identities): their repeats are delivered.
    pub identities_forgotten: u64,
    /// Aggregates skipped whole because a member lay outside the shard: their writer puts them again.
    pub misplaced_skipped: u64,
    /// Kinesis records delivered raw because they could not be taken apart.
    pub damaged: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Attempts of handlers that failed.
    pub handler_failures: u64,
    /// Dead letters written.
    pub dead_letters: u64,
    /// Shards that expired before they were read to their end: their rest is lost.
    pub shards_expired: u64,
    /// Checkpoints that the trim horizon had passed when this worker began to read their shard: what had not
    /// been read of the time between is lost. A shard to which nothing was written for longer than the
    /// stream's retention counts as well: Kinesis does not tell whether there was anything.
    pub checkpoints_trimmed: u64,
    /// Leases taken over from another worker that did not release them.
    pub take_overs: u64,
    /// Leases of this worker that are being read.
    pub shards: Vec<ShardStatus>,
    /// Leases that nobody, as far as this worker has seen, reads although they could be.
    pub leases_unowned: u64,
    /// Leases of all workers that could be read when this worker last looked.
    pub leases_active: u64,
}

impl Status {
    /// How many leases this worker holds.
    pub fn leases_held(&self) -> usize {
        self.shards.len()
    }

    /// Whether every shard of this worker is at its newest record, and no lease waits for an owner.
    pub fn is_caught_up(&self) -> bool {
        self.phase == Phase::Running
            && self.leases_active > 0
            && self.leases_unowned == 0
            && self.shards.iter().all(|shard| shard.millis_behind == Some(0))
    }
}

/// The consumer stopped before it was in the state that was waited for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the consumer stopped before it was in the state that was waited for")]
pub struct Stopped {
    /// The last state.
    pub status: Box<Status>,
}

/// Reads a consumer's state. Clones are cheap, and outlive the consumer.
#[derive(Debug, Clone)]
pub struct Handle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Arc<Config>,
    phase: AtomicU8,
    delivered: AtomicU64,
    duplicates: AtomicU64,
    repeats: AtomicU64,
    forgotten: AtomicU64,
    misplaced: AtomicU64,
    damaged: AtomicU64,
    checkpoints: AtomicU64,
    handler_failures: AtomicU64,
    dead_letters: AtomicU64,
    shards_expired: AtomicU64,
    checkpoints_trimmed: AtomicU64,
    take_overs: AtomicU64,
    leases_unowned: AtomicU64,
    leases_active: AtomicU64,
    shards: Mutex<BTreeMap<ShardId, (ShardStatus, Pace)>>,
    seeks: Mutex<BTreeMap<ShardId, mpsc::Sender<Seek>>>,
    changes: watch::Sender<u64>,
}

impl Handle {
    pub(crate) fn new(config: Arc<Config>) -> Self {
        let counter = AtomicU64::default;
        Self {
            inner: Arc::new(Inner {
                config,
                phase: AtomicU8::new(0),
                delivered: counter(),
                duplicates: counter(),
                repeats: counter(),
                forgotten: counter(),
                misplaced: counter(),
                damaged: counter(),
                checkpoints: counter(),
                handler_failures: counter(),
                dead_letters: counter(),
                shards_expired: counter(),
                take_overs: counter(),
                checkpoints_trimmed: counter(),
                leases_unowned: counter(),
                leases_active: counter(),
                shards: Mutex::default(),
                seeks: Mutex::default(),
                changes: watch::channel(0).0,
            }),
        }
    }

    /// The state now.
    pub fn status(&self) -> Status {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let inner = &self.inner;
        Status {
            phase: match inner.phase.load(Ordering::Acquire) {
                0 => Phase::Starting,
                1 => Phase::Running,
                2 => Phase::Draining,
                _ => Phase::Stopped,
            },
            delivered: read(&inner.delivered),
            duplicates_skipped: read(&inner.duplicates),
            repeats_dropped: read(&inner.repeats),
            identities_forgotten: read(&inner.forgotten),
            misplaced_skipped: read(&inner.misplaced),
            damaged: read(&inner.damaged),
            checkpoints: read(&inner.checkpoints),
            handler_failures: read(&inner.handler_failures),
            dead_letters: read(&inner.dead_letters),
            shards_expired: read(&inner.shards_expired),
            checkpoints_trimmed: read(&inner.checkpoints_trimmed),
            take_overs: read(&inner.take_overs),
            shards: self.shards(),
            leases_unowned: read(&inner.leases_unowned),
            leases_active: read(&inner.leases_active),
        }
    }

    fn shards(&self) -> Vec<ShardStatus> {
        let after = self.inner.config.stuck_after;
        let told = |(status, pace): &(ShardStatus, Pace)| ShardStatus {
            millis_behind: pace.millis_behind(),
            records_behind: pace.records_behind(),
            bytes_per_second: pace.bytes_per_second(),
            stuck: pace.is_stuck(after),
            ..status.clone()
        };
        let mut shards: Vec<ShardStatus> = lock(&self.inner.shards).values().map(told).collect();
        let rates: Vec<f64> = shards.iter().map(|shard| shard.bytes_per_second as f64).collect();
        for shard in &mut shards {
            shard.hot = is_hot(shard.bytes_per_second as f64, &rates);
        }
        shards
    }

    /// Everything that [`Handle::status`] tells, as a page in Prometheus' text format: names are those of
    /// OpenTelemetry's translation, labels are the application, the stream, the worker and, where it is about
    /// one, the shard.
    pub fn metrics(&self) -> String {
        metrics::text(&self.inner.config, &self.status())
    }

    /// Tells the log, and those who wait, of shards that have become stuck or move again.
    pub(crate) fn tell_stuck(&self) {
        let after = self.inner.config.stuck_after;
        let mut changed = false;
        for (shard, (_, pace)) in lock(&self.inner.shards).iter_mut() {
            let stuck = pace.is_stuck(after);
            if stuck == pace.told {
                continue;
            }
            (pace.told, changed) = (stuck, true);
            match stuck {
                true => tracing::error!(%shard, ?after,
                    "STUCK: nothing was finished although there are records, or nothing was heard of the shard; \
                     see whether its handler ends, and the warnings before this one"),
                false => tracing::info!(%shard, "the shard moves again"),
            }
        }
        if changed {
            self.changed();
        }
    }

    /// A lease was taken over from a worker that had not released it.
    pub(crate) fn took_over(&self) {
        self.inner.take_overs.fetch_add(1, Ordering::Relaxed);
        self.changed();
    }

    /// Waits until the state is as wanted and returns it; an error if the consumer stops before.
    pub async fn wait_until(&self, mut wanted: impl FnMut(&Status) -> bool) -> Result<Status, Stopped> {
        let mut changes = self.inner.changes.subscribe();
        loop {
            changes.mark_unchanged();
            let status = self.status();
            if wanted(&status) {
                return Ok(status);
            }
            // The sender lives as long as `self`.
            if status.phase == Phase::Stopped || changes.changed().await.is_err() {
                return Err(Stopped { status: Box::new(status) });
            }
        }
    }

    /// Moves every shard that this worker reads to another place, while it runs: each shard finishes the batch
    /// in hand, is checkpointed at its new place, and read from there, by this worker or another one. Returns
    /// the new checkpoints. Shards that other workers read, and those that were read to their end, stay where
    /// they are; [`admin::plan_reset`](crate::admin::plan_reset) moves those as well. Where effects are
    /// [committed exactly once](crate::effects), records that had theirs do not have them again.
    pub async fn seek(&self, target: Target) -> Result<Vec<(ShardId, Checkpoint)>, Error> {
        let seeks = lock(&self.inner.seeks).clone();
        let mut moved = Vec::with_capacity(seeks.len());
        let mut waiting = Vec::with_capacity(seeks.len());
        for (shard, seek) in seeks {
            let (answer, answered) = oneshot::channel();
            // A shard that has just ended or gone to another worker is no longer this one's to move.
            if seek.send(Seek { target: target.clone(), answer }).await.is_ok() {
                waiting.push((shard, answered));
            }
        }
        for (shard, answered) in waiting {
            if let Ok(checkpoint) = answered.await {
                moved.push((shard, checkpoint?));
            }
        }
        Ok(moved)
    }

    pub(crate) fn enter(&self, phase: Phase) {
        let code = match phase {
            Phase::Starting => 0,
            Phase::Running => 1,
            Phase::Draining => 2,
            Phase::Stopped => 3,
        };
        self.inner.phase.store(code, Ordering::Release);
        self.changed();
    }

    pub(crate) fn leases(&self, active: usize, unowned: usize) {
        self.inner.leases_active.store(active as u64, Ordering::Relaxed);
        self.inner.leases_unowned.store(unowned as u64, Ordering::Relaxed);
        self.changed();
    }

    pub(crate) fn shard(&self, shard: &ShardId) -> ShardGauge {
        let stream = match StreamShard::of(shard).stream {
            Some(stream) => stream.name().clone(),
            None => self.inner.config.stream_name().into(),
        };
        let status = ShardStatus {
            stream,
            shard: shard.clone(),
            delivered: 0,
            millis_behind: None,
            checkpoint: None,
            polled: false,
            records_behind: None,
            bytes_per_second: 0,
            hot: false,
            stuck: false,
        };
        lock(&self.inner.shards).insert(shard.clone(), (status, Pace::new()));
        self.changed();
        ShardGauge { handle: self.clone(), shard: shard.clone() }
    }

    pub(crate) fn forget(&self, shard: &ShardId) {
        lock(&self.inner.shards).remove(shard);
        lock(&self.inner.seeks).remove(shard);
        self.changed();
    }

    fn changed(&self) {
        self.inner.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }
}

/// A wish to read a shard from elsewhere.
#[derive(Debug)]
pub(crate) struct Seek {
    pub(crate) target: Target,
    pub(crate) answer: oneshot::Sender<Result<Checkpoint, Error>>,
}

/// What one shard reports.
#[derive(Debug, Clone)]
pub(crate) struct ShardGauge {
    handle: Handle,
    shard: ShardId,
}

impl ShardGauge {
    pub(crate) fn delivered(&self, records: usize) {
        self.handle.inner.delivered.fetch_add(records as u64, Ordering::Relaxed);
        self.update(|status, pace| {
            status.delivered += records as u64;
            pace.moved();
        });
    }

    /// An event that holds so many records is in hand.
    pub(crate) fn received(&self, event: &Event, records: usize) {
        self.update(|_, pace| pace.received(event, records));
    }

    /// The event in hand is done; the shard was so far behind.
    pub(crate) fn behind(&self, millis: u64) {
        self.update(|_, pace| pace.done(millis));
    }

    pub(crate) fn checkpointed(&self, position: Position) {
        self.handle.inner.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.update(|status, _| status.checkpoint = Some(position));
    }

    pub(crate) fn count(&self, counts: &Counts) {
        if *counts != Counts::default() {
            let inner = &self.handle.inner;
            inner.duplicates.fetch_add(counts.duplicates, Ordering::Relaxed);
            inner.misplaced.fetch_add(counts.misplaced, Ordering::Relaxed);
            inner.damaged.fetch_add(counts.damaged, Ordering::Relaxed);
            self.handle.changed();
        }
    }

    pub(crate) fn dropped(&self, dropped: &Dropped) {
        if *dropped != Dropped::default() {
            let inner = &self.handle.inner;
            inner.repeats.fetch_add(dropped.repeats, Ordering::Relaxed);
            inner.forgotten.fetch_add(dropped.forgotten, Ordering::Relaxed);
            self.handle.changed();
        }
    }

    pub(crate) fn handler_failed(&self) {
        self.handle.inner.handler_failures.fetch_add(1, Ordering::Relaxed);
        self.handle.changed();
    }

    /// Where wishes to read this shard from elsewhere arrive.
    pub(crate) fn seeks(&self) -> mpsc::Receiver<Seek> {
        let (seeks, wishes) = mpsc::channel(1);
        lock(&self.handle.inner.seeks).insert(self.shard.clone(), seeks);
        wishes
    }

    pub(crate) fn polled(&self) {
        self.update(|status, _| status.polled = true);
    }

    /// Records that had their effects before.
    pub(crate) fn repeated(&self, records: u64) {
        self.handle.inner.repeats.fetch_add(records, Ordering::Relaxed);
        self.handle.changed();
    }

    pub(crate) fn dead_lettered(&self, letters: u64) {
        self.handle.inner.dead_letters.fetch_add(letters, Ordering::Relaxed);
        self.handle.changed();
    }

    /// The last checkpoint written here.
    pub(crate) fn checkpoint(&self) -> Option<Position> {
        lock(&self.handle.inner.shards).get(&self.shard).and_then(|(status, _)| status.checkpoint.clone())
    }

    pub(crate) fn expired(&self) {
        self.handle.inner.shards_expired.fetch_add(1, Ordering::Relaxed);
        self.handle.changed();
    }

    pub(crate) fn trimmed(&self) {
        self.handle.inner.checkpoints_trimmed.fetch_add(1, Ordering::Relaxed);
        self.handle.changed();
    }

    fn update(&self, change: impl FnOnce(&mut ShardStatus, &mut Pace)) {
        if let Some((status, pace)) = lock(&self.handle.inner.shards).get_mut(&self.shard) {
            change(status, pace);
        }
        self.handle.changed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_state_or_with_the_consumer() {
        let handle = Handle::new(Arc::new(Config::new("app", "orders")));
        let gauge = handle.shard(&"s".into());
        let waiting = tokio::spawn({
            let handle = handle.clone();
            async move { handle.wait_until(|status| status.delivered >= 3).await }
        });
        gauge.delivered(2);
        gauge.delivered(1);
        let status = waiting.await.unwrap().unwrap();
        assert_eq!((status.delivered, status.leases_held()), (3, 1));
        handle.enter(Phase::Stopped);
        let stopped = handle.wait_until(|status| status.delivered > 3).await.unwrap_err();
        assert_eq!(stopped.status.delivered, 3);
    }
}
