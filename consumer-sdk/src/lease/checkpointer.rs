//! Writes checkpoints of one shard behind the handler's back, so that DynamoDB is not asked for every
//! batch, and ends the lease at the end.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use headworks_record::ShardId;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::model::Holding;
use super::store::{Error, LeaseStore};
use crate::backoff::Backoff;
use crate::handle::ShardGauge;
use crate::position::{Checkpoint, Position};

/// How a worker ends with a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Last {
    /// Writes what is done and gives the lease up.
    Release,
    /// Writes this place instead, which may lie behind, and gives the lease up.
    Move { to: Checkpoint },
    /// The shard was read to its end; its children have their leases.
    ShardEnd { children: Vec<ShardId> },
}

/// A write that needs the lease's counter: made in turn with the checkpoints. It returns the holding for the
/// next write, and what it checkpointed, or nothing if it wrote nothing.
pub(crate) type Job = Box<dyn FnOnce(Holding) -> BoxFuture<'static, Option<Advance>> + Send>;

/// Keeps the lease's counter moving where nothing else is written, for workers that judge by it.
pub(crate) struct Renewal {
    pub(crate) every: Duration,
    /// Whether this worker may still deliver; a lease is not kept for one that may not.
    pub(crate) admitted: Box<dyn Fn() -> bool + Send + Sync>,
}

impl std::fmt::Debug for Renewal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewal").field("every", &self.every).finish_non_exhaustive()
    }
}

/// What a [`Job`] wrote.
#[derive(Debug)]
pub(crate) struct Advance {
    pub(crate) holding: Holding,
    pub(crate) checkpointed: Option<Position>,
}

/// Jobs that wait for their turn; whoever hands one in waits for its end.
const QUEUED_JOBS: usize = 16;

#[derive(Debug, Clone, Default)]
struct Wanted {
    position: Option<Position>,
    // A place that must be written before anything else happens.
    at_once: bool,
    last: Option<Last>,
}

/// Tells the checkpointer how far the shard is done. Clones are for those who finish records elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    wanted: Arc<watch::Sender<Wanted>>,
    written: watch::Receiver<Option<Position>>,
    jobs: mpsc::Sender<Job>,
}

impl Progress {
    /// Everything up to here is done. Earlier positions than the last are ignored.
    pub(crate) fn done(&self, position: Position) {
        self.wanted.send_if_modified(|wanted| {
            let later = wanted.position.as_ref().is_none_or(|before| *before < position);
            if later {
                wanted.position = Some(position);
                wanted.at_once = false;
            }
            later
        });
    }

    /// Everything up to here is done; waits until that is written. `false` if the checkpointer has stopped.
    pub(crate) async fn write(&self, position: Position) -> bool {
        self.wanted.send_modify(|wanted| {
            wanted.position = Some(position.clone()).max(wanted.position.take());
            wanted.at_once = true;
        });
        let mut written = self.written.clone();
        written.wait_for(|written| written.as_ref() >= Some(&position)).await.is_ok()
    }

    /// Hands in a job; `false` if the checkpointer has stopped.
    pub(crate) async fn perform(&self, job: Job) -> bool {
        self.jobs.send(job).await.is_ok()
    }
}

/// The write-behind of one shard's checkpoints.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    progress: Progress,
    task: JoinHandle<Result<(), Error>>,
}

impl Checkpointer {
    /// `lost` is cancelled when a write shows that the lease is another worker's.
    pub(crate) fn start(
        store: Arc<dyn LeaseStore>,
        holding: Holding,
        interval: Duration,
        call_timeout: Duration,
        renewal: Option<Renewal>,
        lost: CancellationToken,
        gauge: ShardGauge,
    ) -> Self {
        let (wanted, receiver) = watch::channel(Wanted::default());
        let (written_to, written) = watch::channel(None);
        let (jobs, waiting) = mpsc::channel(QUEUED_JOBS);
        let renewed = watch::channel(Instant::now()).0;
        let overdue = overdue(renewed.subscribe(), renewal.as_ref().map(|renewal| renewal.every * 2));
        let shard = holding.shard.clone();
        let writer = Writer { store, holding, call_timeout, renewal, renewed, gauge, written: written_to };
        let task = tokio::spawn(async move {
            let result = tokio::select! {
                biased;
                result = writer.run(receiver, waiting, interval) => result,
                () = overdue => {
                    tracing::warn!(%shard, "delivery stops: the lease could not be renewed");
                    Err(Error::Conflict { shard })
                }
            };
            if result.is_err() {
                lost.cancel();
            }
            result
        });
        Self { progress: Progress { wanted: Arc::new(wanted), written, jobs }, task }
    }

    /// For those who finish records.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Writes this position and waits until it is written; `false` if the checkpointer has stopped.
    pub(crate) async fn write_now(&mut self, position: Position) -> bool {
        self.progress.write(position).await
    }

    /// Writes what is left and ends the lease.
    pub(crate) async fn finish(self, last: Last) -> Result<(), Error> {
        self.progress.wanted.send_modify(|wanted| wanted.last = Some(last));
        let task = AbortOnDrop(self.task);
        joined(task).await
    }

    /// Stops without writing anything more; tells why it had stopped already, if it had.
    pub(crate) async fn abandon(self) -> Result<(), Error> {
        if !self.task.is_finished() {
            self.task.abort();
            return Ok(());
        }
        joined(AbortOnDrop(self.task)).await
    }
}

/// A caller that gives up waiting does not leave a writer behind.
struct AbortOnDrop(JoinHandle<Result<(), Error>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Completes when nothing was written for so long, counted from when the last write was sent.
async fn overdue(mut renewed: watch::Receiver<Instant>, limit: Option<Duration>) {
    let Some(limit) = limit else { return std::future::pending().await };
    loop {
        let due = *renewed.borrow_and_update() + limit;
        tokio::select! {
            biased;
            changed = renewed.changed() => if changed.is_err() { return std::future::pending().await },
            () = sleep_until(due) => return,
        }
    }
}

async fn joined(mut task: AbortOnDrop) -> Result<(), Error> {
    // The writer neither panics nor is aborted by anyone else.
    (&mut task.0).await.unwrap_or(Ok(()))
}

#[derive(Debug)]
struct Writer {
    store: Arc<dyn LeaseStore>,
    holding: Holding,
    call_timeout: Duration,
    renewal: Option<Renewal>,
    // When the last write that succeeded was sent.
    renewed: watch::Sender<Instant>,
    gauge: ShardGauge,
    written: watch::Sender<Option<Position>>,
}

impl Writer {
    async fn run(
        mut self,
        mut wanted: watch::Receiver<Wanted>,
        mut jobs: mpsc::Receiver<Job>,
        interval: Duration,
    ) -> Result<(), Error> {
        let mut due = Instant::now();
        loop {
            let now = wanted.borrow_and_update().clone();
            let mut unwritten = now.position.filter(|p| self.written.borrow().as_ref() < Some(p));
            if (now.at_once || now.last.is_some() || Instant::now() >= due)
                && let Some(position) = unwritten.take()
            {
                self.write(&Checkpoint::At(position.clone()), &[]).await?;
                self.reached(position);
                due = Instant::now() + interval;
            }
            match now.last {
                None => {}
                Some(Last::Release) => return self.release().await,
                Some(Last::Move { to }) => {
                    self.write(&to, &[]).await?;
                    return self.release().await;
                }
                Some(Last::ShardEnd { children }) => {
                    self.write(&Checkpoint::ShardEnd, &children).await?;
                    // What has ended needs no owner; whoever looks sees at once that it is nobody's.
                    return self.release().await;
                }
            }
            let renewal = self.renewal.as_ref().map(|renewal| *self.renewed.borrow() + renewal.every);
            tokio::select! {
                biased;
                // The sender being gone means that nobody waits for another write.
                changed = wanted.changed() => if changed.is_err() { return Ok(()) },
                Some(job) = jobs.recv() => {
                    let sent = Instant::now();
                    if let Some(advance) = job(self.holding.clone()).await {
                        self.holding = advance.holding;
                        self.renewed.send_replace(sent);
                        if let Some(position) = advance.checkpointed {
                            self.reached(position);
                        }
                    }
                }
                () = sleep_until(due), if unwritten.is_some() => {}
                () = at(renewal) => self.renew().await?,
            }
        }
    }

    fn reached(&self, position: Position) {
        self.gauge.checkpointed(position.clone());
        self.written.send_replace(Some(position));
    }

    async fn write(&mut self, checkpoint: &Checkpoint, children: &[ShardId]) -> Result<(), Error> {
        let mut backoff = retries();
        loop {
            let sent = Instant::now();
            let call = self.store.checkpoint(&self.holding, checkpoint, children);
            match timeout(self.call_timeout, call).await {
                Ok(Ok(holding)) => {
                    self.holding = holding;
                    self.renewed.send_replace(sent);
                    return Ok(());
                }
                Ok(Err(error)) if !error.is_retryable() => return Err(error),
                Ok(Err(error)) => tracing::warn!(%error, "a checkpoint will be tried again"),
                Err(_) => tracing::warn!(shard = %self.holding.shard, "a checkpoint got no answer"),
            }
            sleep(backoff.next_delay()).await;
        }
    }

    /// One attempt; what is wrong may pass before the lease is overdue.
    async fn renew(&mut self) -> Result<(), Error> {
        let Some(renewal) = &self.renewal else { return Ok(()) };
        if !(renewal.admitted)() {
            return Err(Error::Conflict { shard: self.holding.shard.clone() });
        }
        let (sent, limit) = (Instant::now(), renewal.every.min(self.call_timeout));
        match timeout(limit, self.store.renew(&self.holding)).await {
            Ok(Ok(holding)) => {
                self.holding = holding;
                self.renewed.send_replace(sent);
                return Ok(());
            }
            Ok(Err(error)) if !error.is_retryable() => return Err(error),
            Ok(Err(error)) => tracing::warn!(%error, "a renewal will be tried again"),
            Err(_) => tracing::warn!(shard = %self.holding.shard, "a renewal got no answer"),
        }
        sleep(retries().next_delay()).await;
        Ok(())
    }

    async fn release(&self) -> Result<(), Error> {
        let mut backoff = retries();
        loop {
            match timeout(self.call_timeout, self.store.release(&self.holding)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if !error.is_retryable() => return Err(error),
                Ok(Err(error)) => tracing::warn!(%error, "a release will be tried again"),
                Err(_) => tracing::warn!(shard = %self.holding.shard, "a release got no answer"),
            }
            sleep(backoff.next_delay()).await;
        }
    }
}

/// Completes at this time, or never.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn retries() -> Backoff {
    Backoff::new(Duration::from_millis(100), Duration::from_secs(2))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A progress that nobody writes, and what was reached.
    pub(crate) fn progress() -> (Progress, impl Fn() -> Option<Position>) {
        let (wanted, receiver) = watch::channel(Wanted::default());
        let (_, written) = watch::channel(None);
        let (jobs, _) = mpsc::channel(1);
        let progress = Progress { wanted: Arc::new(wanted), written, jobs };
        (progress, move || receiver.borrow().position.clone())
    }
}
