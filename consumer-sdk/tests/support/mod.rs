//! A stream and a lease table in memory, with the manners of the real ones, for tests in paused time.
// Each test binary uses its part of this, and none exports it.
#![allow(dead_code, unused_imports, unreachable_pub)]

pub mod proxy;
pub mod sockets;
mod store;
mod streams;
pub mod writer;

pub use store::FakeStore;
pub use streams::{FakeStreams, seq};

use std::sync::{Arc, Mutex};
use std::time::Duration;

use headworks_consumer::{Batch, Consumer, Handle, Handler, HandlerError, Status, Stopped, Summary};
use headworks_record::ShardId;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Who handled which record when.
#[derive(Debug, Clone)]
pub struct Seen {
    pub worker: String,
    pub shard: ShardId,
    pub key: String,
    pub data: String,
    pub sub: u64,
    pub at: Instant,
}

/// All that was handled, by all workers.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Mutex<Vec<Seen>>>);

impl Journal {
    pub fn add(&self, worker: &str, batch: &Batch) {
        let mut seen = self.0.lock().unwrap();
        for delivered in batch {
            seen.push(Seen {
                worker: worker.to_owned(),
                shard: delivered.shard.clone(),
                key: delivered.record.key.as_str().to_owned(),
                data: String::from_utf8_lossy(&delivered.record.data).into_owned(),
                sub: delivered.sub_sequence_number,
                at: Instant::now(),
            });
        }
    }

    pub fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }

    pub fn data(&self) -> Vec<String> {
        self.all().into_iter().map(|seen| seen.data).collect()
    }

    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub fn by(&self, worker: &str) -> Vec<Seen> {
        self.all().into_iter().filter(|seen| seen.worker == worker).collect()
    }
}

/// Writes what it gets into the journal.
pub struct Recording {
    pub worker: String,
    pub journal: Journal,
}

impl Handler for Recording {
    async fn handle(&mut self, batch: Batch) -> Result<(), HandlerError> {
        self.journal.add(&self.worker, &batch);
        Ok(())
    }
}

/// A consumer that runs in the background.
pub struct Running {
    pub handle: Handle,
    pub shutdown: CancellationToken,
    pub task: JoinHandle<Result<Summary, headworks_consumer::Error>>,
    pub deliver_for: Duration,
}

impl Running {
    pub fn start<H: Handler>(
        consumer: Consumer,
        factory: impl Fn(&ShardId) -> H + Send + Sync + 'static,
    ) -> Self {
        let (handle, shutdown) = (consumer.handle(), CancellationToken::new());
        let deliver_for = consumer.config().deliver_for();
        let task = tokio::spawn(consumer.run(factory, shutdown.clone()));
        Self { handle, shutdown, task, deliver_for }
    }

    pub fn recording(consumer: Consumer, journal: &Journal) -> Self {
        let (worker, journal) = (consumer.config().worker_id.clone(), journal.clone());
        Self::start(consumer, move |_| Recording { worker: worker.clone(), journal: journal.clone() })
    }

    /// Waits for a state. The deadline is generous: in paused time it passes at once.
    pub async fn until(&self, wanted: impl FnMut(&Status) -> bool) -> Result<Status, Stopped> {
        let waiting = self.handle.wait_until(wanted);
        let status = tokio::time::timeout(Duration::from_secs(300), waiting).await;
        status.unwrap_or_else(|_| panic!("never came true; the consumer is at {:?}", self.handle.status()))
    }

    pub async fn stop(self) -> Summary {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap()
    }

    /// As `kill -9`: nothing is finished, written or released.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Waits until the condition holds; in paused time this costs nothing.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
