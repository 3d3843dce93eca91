//! What it costs in DynamoDB to hold leases while nothing happens: requests and capacity units per second of
//! a fleet of two workers, the heartbeats included.
//!
//! Whole consumers run in paused time around a lease store that counts its calls. Units follow from the sizes
//! of the items by DynamoDB's rules: a read unit is 4 KiB read consistently or 8 KiB that may be old, a write
//! unit 1 KiB, each call rounded up. One JSON object a line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a benchmark that cannot go on panics

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use headworks_consumer::lease::{Beat, Error, Holding, Lease, LeaseStore};
use headworks_consumer::{Checkpoint, Consumer};
use headworks_record::ShardId;
use support::{FakeStore, FakeStreams, Journal, Running};

/// For how long is counted, in virtual time.
const SPAN: Duration = Duration::from_secs(600);
/// Bytes of names and values of a heartbeat item, as the table writes it.
const BEAT_BYTES: u64 = 140;

#[derive(Debug, Default)]
struct Counts {
    reads: AtomicU64,
    writes: AtomicU64,
    /// In halves.
    read_units: AtomicU64,
}

#[derive(Debug)]
struct Counting {
    store: FakeStore,
    counts: Arc<Counts>,
}

impl Counting {
    fn read(&self, bytes: u64, consistent: bool) {
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        let halves = bytes.div_ceil(4096).max(1) * if consistent { 2 } else { 1 };
        self.counts.read_units.fetch_add(halves, Ordering::Relaxed);
    }

    fn write(&self) {
        self.counts.writes.fetch_add(1, Ordering::Relaxed);
    }
}

/// Bytes of names and values of a lease item.
fn size(lease: &Lease) -> u64 {
    let ids = |ids: &[ShardId]| ids.iter().map(|id| id.as_str().len() as u64).sum::<u64>();
    let names = "leaseKeyleaseOwnerleaseCounterownerSwitchesSinceCheckpointcheckpointcheckpointSubSequenceNumber\
                 startingHashKeyendingHashKey";
    // A shard's id has 20 characters, a sequence number 56, a hash key up to 39, a number some bytes.
    let values = 20 + 56 + 2 * 39 + 4 * 6 + lease.owner.as_ref().map_or(0, String::len) as u64;
    names.len() as u64 + values + ids(&lease.parents) + ids(&lease.children)
}

#[async_trait]
impl LeaseStore for Counting {
    async fn prepare(&self) -> Result<(), Error> {
        self.store.prepare().await
    }

    async fn leases(&self) -> Result<Vec<Lease>, Error> {
        let leases = self.store.leases().await?;
        // A scan answers up to a mebibyte a call.
        let mut left: u64 = leases.iter().map(size).sum();
        while left > 1 << 20 {
            self.read(1 << 20, true);
            left -= 1 << 20;
        }
        self.read(left, true);
        Ok(leases)
    }

    async fn lease(&self, shard: &ShardId) -> Result<Option<Lease>, Error> {
        self.read(1, true);
        self.store.lease(shard).await
    }

    async fn create(&self, lease: &Lease) -> Result<bool, Error> {
        self.write();
        self.store.create(lease).await
    }

    async fn claim(&self, seen: &Lease, worker: &str) -> Result<Lease, Error> {
        self.write();
        self.store.claim(seen, worker).await
    }

    async fn checkpoint(
        &self,
        holding: &Holding,
        checkpoint: &Checkpoint,
        children: &[ShardId],
    ) -> Result<Holding, Error> {
        self.write();
        self.store.checkpoint(holding, checkpoint, children).await
    }

    async fn delete(&self, seen: &Lease) -> Result<bool, Error> {
        self.write();
        self.store.delete(seen).await
    }

    async fn release(&self, holding: &Holding) -> Result<(), Error> {
        self.write();
        self.store.release(holding).await
    }

    async fn beat(&self, beat: &Beat, first: bool) -> Result<(), Error> {
        self.write();
        self.store.beat(beat, first).await
    }

    async fn beats(&self) -> Result<Vec<Beat>, Error> {
        let beats = self.store.beats().await?;
        self.read(beats.len() as u64 * BEAT_BYTES, false);
        Ok(beats)
    }

    async fn beat_of(&self, worker: &str) -> Result<Option<Beat>, Error> {
        self.read(1, true);
        self.store.beat_of(worker).await
    }

    async fn retire(&self, beat: &Beat) -> Result<(), Error> {
        self.write();
        self.store.retire(beat).await
    }
}

async fn hold(shards: u128) {
    let (streams, store, counts) =
        (FakeStreams::new(shards), FakeStore::default(), Arc::new(Counts::default()));
    let start = |worker: &str| {
        let counting = Counting { store: store.another(), counts: counts.clone() };
        let built = Consumer::builder("app", "orders")
            .worker_id(worker)
            .streams(Arc::new(streams.clone()))
            .lease_store(Arc::new(counting));
        Running::recording(built.build().unwrap(), &Journal::default())
    };
    let (a, b) = (start("a"), start("b"));
    let share = (shards / 2) as usize;
    for running in [&a, &b] {
        running.until(|status| status.leases_held() == share && status.is_caught_up()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    let all = || {
        [&counts.writes, &counts.reads, &counts.read_units].map(|count| count.load(Ordering::Relaxed) as f64)
    };
    let before = all();
    tokio::time::sleep(SPAN).await;
    let after = all();
    let metrics = [("ddb_writes_per_s", 1.0), ("ddb_reads_per_s", 1.0), ("ddb_read_units_per_s", 0.5)];
    for (i, (metric, scale)) in metrics.into_iter().enumerate() {
        let value = (after[i] - before[i]) * scale / SPAN.as_secs_f64();
        println!(
            r#"{{"part":"consumer","case":"idle_{shards}","metric":"{metric}","value":{value:.2},"unit":"1/s","against":null,"against_value":null,"ratio":null}}"#
        );
    }
    a.kill().await;
    b.kill().await;
}

fn main() {
    for shards in [10, 100, 1_000] {
        eprintln!("idle_cost: {shards} shards, two workers, {} virtual seconds", SPAN.as_secs());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(hold(shards));
    }
}
