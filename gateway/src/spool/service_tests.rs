use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use headworks_record::Record;
use headworks_writer::Put;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::handle::{Failure, Handle, Refused};
use super::log::{Log, Settings};
use super::service::{QUEUE, commit, decode};
use super::sim::Sim;
use super::state::State;
use crate::config::SpoolConfig;

const PATIENCE: Duration = Duration::from_secs(30);

struct Running {
    handle: Handle,
    task: JoinHandle<Option<Log>>,
    shutdown: CancellationToken,
}

/// The writing half, on a disk of the test's.
fn start(sim: &Sim) -> Running {
    let config = SpoolConfig { directory: PathBuf::from("/"), ..SpoolConfig::default() };
    let settings = Settings { directory: PathBuf::from("/spool"), segment_bytes: 1 << 20 };
    let (log, found) = Log::open(Arc::new(sim.clone()), settings).unwrap();
    let state = Arc::new(State::new("inbound", config.max_bytes, 1 << 20, log.bytes(), &found));
    let (queue, waiting) = mpsc::channel(QUEUE);
    let pending = Arc::new(Semaphore::new(config.pending_bytes));
    let handle = Handle { queue, pending, pending_bytes: config.pending_bytes, state: Arc::clone(&state) };
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let task = tokio::spawn(async move { commit(log, waiting, &state, &config, stop).await });
    Running { handle, task, shutdown }
}

fn put(data: &str, patience: Duration) -> Vec<Put> {
    let record = Record::builder("k").unwrap().data(data.to_owned()).build();
    vec![Put { deadline: Some(Instant::now() + patience), ..Put::new(record) }]
}

/// What is found after a power loss.
fn kept(sim: &Sim) -> Vec<String> {
    sim.power_loss();
    let settings = Settings { directory: PathBuf::from("/spool"), segment_bytes: 1 << 20 };
    let (log, found) = Log::open(Arc::new(sim.clone()), settings).unwrap();
    let all = super::log_tests::read_all(sim, &log, found.done + 1, found.next);
    let text = |bytes: Vec<u8>| String::from_utf8(decode(bytes.into()).unwrap().data.to_vec()).unwrap();
    all.into_values().map(text).collect()
}

#[tokio::test]
async fn all_who_wait_share_one_fsync() {
    let sim = Sim::new(1);
    sim.slow(Duration::from_millis(100));
    let Running { handle, task, shutdown } = start(&sim);
    let mut waiting = JoinSet::new();
    for n in 0..200 {
        let handle = handle.clone();
        waiting.spawn(async move { handle.append(put(&n.to_string(), PATIENCE)).await.unwrap().await });
    }
    assert!(waiting.join_all().await.into_iter().all(|kept| kept.is_ok()));
    let syncs = handle.state().counters.syncs.cumulative()[super::latency::BOUNDS.len()];
    assert!((1..=10).contains(&syncs), "{syncs} fsyncs for 200 batches");
    shutdown.cancel();
    task.await.unwrap().unwrap();
    assert_eq!(kept(&sim).len(), 200);
    assert_eq!(handle.append(put("late", PATIENCE)).await.unwrap_err(), Refused::Stopped);
}

#[tokio::test]
async fn a_disk_that_fails_acknowledges_nothing_and_may_come_back() {
    let sim = Sim::new(1);
    let running = start(&sim);
    let append = async |data| running.handle.append(put(data, PATIENCE)).await.unwrap().await;
    assert_eq!(append("a").await, Ok(()));
    sim.set(1.0, 0.0, None);
    let failure = append("b").await.unwrap_err();
    assert!(matches!(failure, Failure::Disk { written: true, .. }), "{failure}");
    assert_eq!((failure.code(), failure.outcome_unknown()), ("spool-failed", true));
    let failure = append("c").await.unwrap_err();
    assert_eq!((failure.code(), failure.outcome_unknown()), ("spool-failed", false));
    assert!(running.handle.state().alarm());
    sim.set(0.0, 0.0, None);
    assert_eq!(append("d").await, Ok(()));
    assert!(!running.handle.state().alarm());
    assert_eq!(kept(&sim), ["a", "d"]);
}

/// A deadline that passes during the fsync leaves open what became of the record.
#[tokio::test]
async fn a_slow_disk_is_no_failure() {
    let sim = Sim::new(1);
    sim.slow(Duration::from_millis(300));
    let running = start(&sim);
    let ticket = running.handle.append(put("a", Duration::from_millis(20))).await.unwrap();
    let failure = ticket.await.unwrap_err();
    assert_eq!((failure.code(), failure.outcome_unknown()), ("outcome-unknown", true));
    running.shutdown.cancel();
    running.task.await.unwrap().unwrap();
    assert_eq!(kept(&sim), ["a"]);
}
