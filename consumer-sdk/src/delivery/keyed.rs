//! Several handlers for one shard, each on its own partition keys.

use std::hash::{DefaultHasher, Hash, Hasher};

use headworks_record::ShardId;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::attempts::Attempts;
use super::handler::{Closing, Handler, Opening};
use super::tracker::{Ticket, Tracker};
use super::{Delivery, Interrupt};
use crate::delivered::{Batch, Delivered};
use crate::error::Error;
use crate::lease::checkpointer::Progress;
use crate::position::Position;
use crate::shard::Session;

/// Parts of batches that wait for one lane; their records are bounded by `max_unacknowledged`.
const QUEUED_PARTS: usize = 2;

enum Task {
    Work(Batch, Vec<Ticket>),
    Close(Closing, oneshot::Sender<()>),
}

/// Gives each record to the lane of its key; the shard is done up to the first record that is not.
pub(crate) struct Keyed<H, F> {
    // Until the first batch: the lanes need the session.
    idle: Vec<Attempts<H, F>>,
    lanes: Vec<mpsc::Sender<Task>>,
    tasks: JoinSet<()>,
    failures: (mpsc::Sender<Error>, mpsc::Receiver<Error>),
    tracker: Option<Tracker>,
    max_unacknowledged: usize,
}

impl<H: Handler, F: Fn(&ShardId) -> H + Send + Sync + 'static> Keyed<H, F> {
    pub(crate) fn new(lanes: Vec<Attempts<H, F>>, max_unacknowledged: usize) -> Self {
        Self {
            idle: lanes,
            lanes: Vec::new(),
            tasks: JoinSet::new(),
            failures: mpsc::channel(1),
            tracker: None,
            max_unacknowledged,
        }
    }

    fn tracker(&mut self, progress: &Progress) -> Tracker {
        self.tracker.get_or_insert_with(|| Tracker::new(progress.clone())).clone()
    }

    fn start(&mut self, session: &Session) {
        for attempts in self.idle.drain(..) {
            let (tasks, queue) = mpsc::channel(QUEUED_PARTS);
            self.lanes.push(tasks);
            self.tasks.spawn(lane(attempts, queue, session.clone(), self.failures.0.clone()));
        }
    }

    fn lane_of(&self, delivered: &Delivered) -> usize {
        let mut hasher = DefaultHasher::new();
        delivered.record.key.as_str().hash(&mut hasher);
        (hasher.finish() % self.lanes.len().max(1) as u64) as usize
    }

    /// Waits for something that the lanes do.
    async fn unless_failed<T>(
        failures: &mut mpsc::Receiver<Error>,
        session: &Session,
        wait: impl Future<Output = T>,
    ) -> Result<T, Interrupt> {
        tokio::select! {
            biased;
            Some(error) = failures.recv() => Err(Interrupt::Failed(error)),
            () = session.over() => Err(Interrupt::Session),
            done = wait => Ok(done),
        }
    }

    async fn close(&mut self, closing: Closing) {
        for lane in &self.lanes {
            let (done, waiting) = oneshot::channel();
            if lane.send(Task::Close(closing, done)).await.is_ok() {
                // A lane that failed does not answer; its error was told.
                let _ = waiting.await;
            }
        }
    }
}

async fn lane<H: Handler, F: Fn(&ShardId) -> H + Send + Sync + 'static>(
    mut attempts: Attempts<H, F>,
    mut queue: mpsc::Receiver<Task>,
    session: Session,
    failures: mpsc::Sender<Error>,
) {
    while let Some(task) = queue.recv().await {
        let done = match task {
            Task::Work(batch, tickets) => {
                let done = attempts.work(batch, &session).await;
                if done.is_ok() {
                    tickets.into_iter().for_each(Ticket::acknowledge);
                }
                done
            }
            Task::Close(closing, answer) => {
                let done = attempts.close(closing, &session).await;
                if done.is_ok() {
                    // Whoever asked may have been told of another lane's failure.
                    let _ = answer.send(());
                }
                done
            }
        };
        match done {
            Ok(()) => {}
            Err(Interrupt::Session) => return,
            Err(Interrupt::Failed(error)) => {
                // Another lane's failure was faster: one is enough to stop.
                let _ = failures.try_send(error);
                return;
            }
        }
    }
}

impl<H: Handler, F: Fn(&ShardId) -> H + Send + Sync + 'static> Delivery for Keyed<H, F> {
    fn open(&mut self, opening: Opening) {
        self.idle.iter_mut().for_each(|attempts| attempts.open(opening.clone()));
    }

    async fn deliver(
        &mut self,
        batch: Batch,
        session: &Session,
        progress: &Progress,
    ) -> Result<(), Interrupt> {
        self.start(session);
        let tracker = self.tracker(progress);
        let most = self.max_unacknowledged;
        // A batch that is larger than the bound is alone.
        let room = tracker.wait_for(|now| now.held == 0 || now.held + batch.len() <= most);
        Self::unless_failed(&mut self.failures.1, session, room).await?;
        if !session.admit() {
            return Err(Interrupt::Session);
        }
        let mut parts: Vec<(Vec<Delivered>, Vec<Ticket>)> = Vec::new();
        parts.resize_with(self.lanes.len(), Default::default);
        for (delivered, ticket) in batch.iter().zip(tracker.add(batch.positions())) {
            let (records, tickets) = &mut parts[self.lane_of(delivered)];
            records.push(delivered.clone());
            tickets.push(ticket);
        }
        for (lane, (records, tickets)) in self.lanes.iter().zip(parts) {
            let Some(end) = records.last().map(Delivered::position) else { continue };
            let part = Batch::new(batch.shard().clone(), records, end, batch.millis_behind());
            let sent = lane.send(Task::Work(part, tickets));
            if Self::unless_failed(&mut self.failures.1, session, sent).await?.is_err() {
                // A lane ends by a failure, which is told, or with the session.
                let error = self.failures.1.try_recv();
                return Err(error.map_or(Interrupt::Session, Interrupt::Failed));
            }
        }
        Ok(())
    }

    async fn failure(&mut self) -> Error {
        match self.failures.1.recv().await {
            Some(error) => error,
            // This end holds a sender as well.
            None => std::future::pending().await,
        }
    }

    fn skip(&mut self, position: Position, progress: &Progress) {
        self.tracker(progress).skip(position);
    }

    async fn settle(&mut self, session: &Session) -> Result<(), Interrupt> {
        if let Some(tracker) = &self.tracker {
            let settled = tracker.wait_for(|counts| counts.open == 0);
            Self::unless_failed(&mut self.failures.1, session, settled).await?;
        }
        self.close(Closing::ShardEnd).await;
        match self.failures.1.try_recv() {
            Ok(error) => Err(Interrupt::Failed(error)),
            Err(_) => Ok(()),
        }
    }

    async fn drain(&mut self, _session: &Session) {
        self.close(Closing::Released).await;
    }
}
