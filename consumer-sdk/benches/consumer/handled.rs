//! CPU time per record, from the subscription's event to the end of the handler.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use headworks_consumer::{Batch, Consumer, Handler, HandlerError};
use headworks_record::aggregate::{DIGEST_LEN, MAGIC};
use md5::{Digest, Md5};
use tokio::sync::Notify;

use crate::feed::Feed;
use crate::figure;
use crate::support::{FakeStore, Running};

/// Runs of each case; the median counts.
const RUNS: usize = 5;

/// `runs` is what the command line asks for: profilers slow a run down by the hundred.
pub fn measure(quick: bool, wanted: impl Fn(&str) -> bool, runs: Option<usize>) {
    for (case, bytes, records) in [("200B", 200, 400_000), ("1KB", 1024, 150_000)] {
        let cases = [(case.to_owned(), 60), (format!("{case}-no-dedup"), 0)];
        let cases: Vec<_> = cases.into_iter().filter(|(case, _)| wanted(case)).collect();
        if cases.is_empty() {
            continue;
        }
        let (records, runs) = if quick { (2_000, 1) } else { (records, runs.unwrap_or(RUNS)) };
        let feed = Feed::new(records, bytes);
        let floor = median(runs, || floor(&feed) / records as f64);
        eprintln!("consumer: {records} records of {bytes} bytes, floor {floor:.0} ns");
        for (case, window) in cases {
            let value = median(runs, || handled(&feed, records, Duration::from_secs(window)));
            figure(&case, "cpu_ns_per_record", value, "ns", Some(("floor", floor)));
            figure(&case, "records_per_s_per_core", 1e9 / value, "records/s", None);
        }
    }
}

fn median(runs: usize, mut measure: impl FnMut() -> f64) -> f64 {
    let mut values: Vec<f64> = (0..runs).map(|_| measure()).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Nanoseconds of one MD5 of each aggregate.
fn floor(feed: &Feed) -> f64 {
    let before = cpu_ns();
    for blob in feed.blobs() {
        std::hint::black_box(Md5::digest(&blob[MAGIC.len()..blob.len() - DIGEST_LEN]));
    }
    (cpu_ns() - before) as f64
}

/// Looks at every record and counts.
struct Counting {
    seen: Arc<AtomicUsize>,
    all: usize,
    done: Arc<Notify>,
}

impl Handler for Counting {
    async fn handle(&mut self, batch: Batch) -> Result<(), HandlerError> {
        for delivered in &batch {
            std::hint::black_box((&delivered.record.key, &delivered.record.data));
        }
        if self.seen.fetch_add(batch.len(), Ordering::Relaxed) + batch.len() == self.all {
            self.done.notify_one();
        }
        Ok(())
    }
}

fn handled(feed: &Feed, records: usize, window: Duration) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let feed = feed.again();
    runtime.block_on(async {
        let consumer = Consumer::builder("bench", "orders")
            .streams(Arc::new(feed.clone()))
            .lease_store(Arc::new(FakeStore::default()))
            .dedup_window(window)
            .build()
            .unwrap();
        let (seen, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (counted, all_done) = (seen.clone(), done.clone());
        let running = Running::start(consumer, move |_| Counting {
            seen: counted.clone(),
            all: records,
            done: all_done.clone(),
        });
        running.until(|status| status.leases_held() == 1).await.unwrap();
        let before = cpu_ns();
        feed.open();
        done.notified().await;
        let spent = cpu_ns() - before;
        running.stop().await;
        spent as f64 / records as f64
    })
}

/// CPU time of all threads, as the scheduler counts it.
fn cpu_ns() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").expect("the process's threads");
    tasks
        .filter_map(|task| {
            let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum()
}
