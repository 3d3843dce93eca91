//! Without a gateway: the producer's records go to a writer in this process.

use std::collections::BTreeMap;

use futures_util::future::{BoxFuture, FutureExt as _, OptionFuture};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use headworks_writer::{Failure, Handle, Outcome, Put, Refused, Ticket};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::answer::{self, Answer};
use crate::books::Books;
use crate::error::Error;
use crate::outbox::Entry;
use crate::task::{COMMANDS_AT_ONCE, Command};
use crate::ticket::{Receipt, Stored};

/// The task of a producer without a gateway.
pub(crate) struct Direct {
    writer: Handle,
    books: Books,
    queue: mpsc::Receiver<Command>,
    /// What the writer has, by number of batch.
    pending: BTreeMap<u64, Vec<Entry>>,
    next_batch: u64,
    /// A batch that waits for room. Nothing more is taken meanwhile: so batches keep their order.
    handing: Option<BoxFuture<'static, (u64, Result<Ticket, Refused>)>>,
    open: FuturesUnordered<BoxFuture<'static, (u64, Vec<Outcome>)>>,
    flushes: Vec<(u64, oneshot::Sender<()>)>,
    closes: Vec<oneshot::Sender<()>>,
    give_up: Option<Instant>,
}

impl Direct {
    pub(crate) fn new(writer: Handle, books: Books, queue: mpsc::Receiver<Command>) -> Self {
        Self {
            writer,
            books,
            queue,
            pending: BTreeMap::new(),
            next_batch: 0,
            handing: None,
            open: FuturesUnordered::new(),
            flushes: Vec::new(),
            closes: Vec::new(),
            give_up: None,
        }
    }

    /// Runs until it is closed, or every producer is dropped, and everything is answered.
    pub(crate) async fn run(mut self) {
        let mut commands = Vec::with_capacity(COMMANDS_AT_ONCE);
        loop {
            let first = self.pending.keys().next().copied().unwrap_or(self.next_batch);
            // Letting go of the sender is the signal.
            self.flushes.retain(|(end, _)| first < *end);
            let finished = self.queue.is_closed() && self.queue.is_empty();
            if finished && self.pending.is_empty() {
                break;
            }
            tokio::select! {
                _ = self.queue.recv_many(&mut commands, COMMANDS_AT_ONCE), if !finished && self.handing.is_none() => {
                    let entries: Vec<Entry> = commands.drain(..).filter_map(|command| self.take(command)).collect();
                    self.hand_over(entries);
                    self.flushes.iter_mut().for_each(|(end, _)| *end = (*end).min(self.next_batch));
                }
                Some((number, ticket)) = OptionFuture::from(self.handing.as_mut()) => {
                    self.handing = None;
                    match ticket {
                        Ok(ticket) => self.open.push(async move { (number, ticket.await) }.boxed()),
                        Err(refused) => self.settle(number, |_| Err(of_refused(&refused))),
                    }
                }
                Some((number, outcomes)) = self.open.next(), if !self.open.is_empty() => {
                    let mut outcomes = outcomes.into_iter();
                    self.settle(number, |_| outcomes.next().map_or_else(answer::missing, of_outcome));
                }
                Some(()) = OptionFuture::from(self.give_up.map(sleep_until)) => break,
            }
        }
        self.queue.close();
        while let Ok(command) = self.queue.try_recv() {
            self.take(command).into_iter().for_each(|entry| self.books.abandon(entry));
        }
        for entry in std::mem::take(&mut self.pending).into_values().flatten() {
            self.books.abandon(entry);
        }
        self.flushes.clear();
        for done in self.closes.drain(..) {
            // Nobody may be left to hear it.
            let _ = done.send(());
        }
    }

    fn take(&mut self, command: Command) -> Option<Entry> {
        match command {
            Command::Send(mut entry) => {
                entry.sent = true;
                return Some(entry);
            }
            // Its place is set when the records that were gathered with it are numbered.
            Command::Flush(done) => self.flushes.push((u64::MAX, done)),
            Command::Close { until, done } => {
                self.queue.close();
                self.closes.push(done);
                // Of two that close, the more patient one is listened to.
                self.give_up = self.give_up.max(Some(until));
            }
        }
        None
    }

    fn hand_over(&mut self, entries: Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        let put = |entry: &Entry| Put {
            record: entry.record.clone(),
            origin: None,
            deadline: Some(entry.deadline),
        };
        let puts = entries.iter().map(put).collect();
        let (number, writer) = (self.next_batch, self.writer.clone());
        self.next_batch += 1;
        self.pending.insert(number, entries);
        self.handing = Some(async move { (number, writer.put(puts).await) }.boxed());
    }

    fn settle(&mut self, number: u64, mut answer: impl FnMut(&Entry) -> Answer) {
        for entry in self.pending.remove(&number).into_iter().flatten() {
            let answer = answer(&entry);
            self.books.settle(entry, answer);
        }
    }
}

fn of_outcome(outcome: Outcome) -> Answer {
    match outcome {
        Ok(placed) => Ok(Receipt::Stored(Stored {
            shard_id: placed.shard.as_str().into(),
            sequence_number: (&*placed.sequence_number).into(),
            sub_sequence_number: placed.sub_sequence_number,
            attempts: placed.attempts,
        })),
        Err(failure @ Failure::OutcomeUnknown { .. }) => {
            Err(Error::OutcomeUnknown { message: failure.to_string() })
        }
        Err(failure) => Err(Error::Refused {
            code: failure.code().to_owned(),
            message: failure.to_string(),
            retryable: failure.is_retryable(),
        }),
    }
}

fn of_refused(refused: &Refused) -> Error {
    Error::Refused {
        code: refused.code().to_owned(),
        message: refused.to_string(),
        retryable: refused.is_retryable(),
    }
}
