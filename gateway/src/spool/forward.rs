//! From the spool to the stream, in the order of the positions.
//!
//! New records take the same way as those of before a crash, so they cannot overtake them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use headworks_record::Record;
use headworks_writer as writer;
use headworks_writer::{Failure, Outcome, Put, Ticket};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep};
use tracing::error;

use super::handle::weight;
use super::read::{ReadError, Reader};
use super::service::decode;
use super::state::State;

/// A spooled record has no deadline: this is beyond the life of any gateway.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// What is handed to the writer, and settled, at once.
const PIECE_BYTES: usize = 256 << 10;
/// How long a file that cannot be read, or a record that the writer refuses, is left alone.
const PAUSE: Duration = Duration::from_secs(5);

/// Records at consecutive positions.
struct Stretch {
    first: u64,
    time_ms: u64,
    records: Vec<Record>,
}

pub(super) struct Forwarder {
    pub(super) reader: Reader,
    pub(super) writer: writer::Handle,
    pub(super) state: Arc<State>,
}

impl Forwarder {
    /// Runs until the writer has stopped.
    pub(super) async fn run(mut self) {
        let mut durable = self.state.durable.subscribe();
        let mut next = *self.state.settled.borrow() + 1;
        // Bounded by the writer's own budget: each task has records in it.
        let mut settling = JoinSet::new();
        loop {
            if durable.wait_for(|durable| *durable >= next).await.is_err() {
                return;
            }
            let Some(stretch) = self.fetch(next).await else { return };
            for piece in self.pieces(stretch) {
                let (first, count) = (piece.first, piece.records.len());
                next = first + count as u64;
                self.state.begin(first, next, piece.time_ms);
                // A writer that has stopped leaves the rest to the next start.
                let Ok(ticket) = self.writer.put(puts(piece.records)).await else { return };
                let settle = Settle {
                    state: Arc::clone(&self.state),
                    writer: self.writer.clone(),
                    reader: self.reader.another(),
                    first,
                    count,
                };
                settling.spawn(settle.run(ticket));
                while settling.try_join_next().is_some() {}
            }
        }
    }

    /// The records from a position on: from memory, else from the disk, which is asked until it answers.
    async fn fetch(&mut self, position: u64) -> Option<Stretch> {
        if let Some(fresh) = self.state.fresh(position) {
            return Some(Stretch { first: fresh.first, time_ms: fresh.time_ms, records: fresh.records });
        }
        loop {
            let reader = self.reader.another();
            let reader = std::mem::replace(&mut self.reader, reader);
            // Only a runtime that ends loses the task.
            let (reader, read) = spawn_blocking(move || read(reader, position)).await.ok()?;
            self.reader = reader;
            self.state.read_back(read.is_ok());
            match read {
                Ok(stretch) => return Some(stretch),
                Err(reason) => {
                    error!(
                        stream = self.state.stream,
                        "the spool cannot be read back, and stands still: {reason}"
                    );
                }
            }
            sleep(PAUSE).await;
        }
    }

    fn pieces(&self, stretch: Stretch) -> Vec<Stretch> {
        let limit = PIECE_BYTES.min(self.writer.config().max_buffered_bytes / 4);
        let Stretch { first, time_ms, records } = stretch;
        let mut pieces: Vec<Stretch> = Vec::new();
        let mut bytes = usize::MAX;
        for (position, record) in (first..).zip(records) {
            let weight = weight(&record);
            match pieces.last_mut() {
                Some(piece) if bytes + weight <= limit => piece.records.push(record),
                _ => {
                    bytes = 0;
                    pieces.push(Stretch { first: position, time_ms, records: vec![record] });
                }
            }
            bytes += weight;
        }
        pieces
    }
}

fn read(mut reader: Reader, position: u64) -> (Reader, Result<Stretch, String>) {
    let read = reader.read(position).map_err(|error: ReadError| error.to_string()).and_then(|stretch| {
        let records = stretch.records.into_iter().map(decode).collect::<Result<_, _>>()?;
        Ok(Stretch { first: stretch.first, time_ms: stretch.time_ms, records })
    });
    (reader, read)
}

fn puts(records: Vec<Record>) -> Vec<Put> {
    let deadline = Some(Instant::now() + FOR_EVER);
    records.into_iter().map(|record| Put { record, origin: None, deadline }).collect()
}

/// Waits until the stream has a piece.
struct Settle {
    state: Arc<State>,
    writer: writer::Handle,
    reader: Reader,
    first: u64,
    count: usize,
}

impl Settle {
    async fn run(mut self, ticket: Ticket) {
        let mut left: Vec<usize> = (0..self.count).collect();
        let mut ticket = ticket;
        loop {
            let outcomes = ticket.await;
            if outcomes.iter().any(is_stop) {
                return;
            }
            left = left
                .into_iter()
                .zip(&outcomes)
                .filter_map(|(place, outcome)| outcome.is_err().then_some(place))
                .collect();
            if left.is_empty() {
                self.state.settle(self.first);
                return;
            }
            // The writer itself puts again whatever the stream may take one day: what it hands back, a
            // record over its limits, waits for other settings.
            self.state.counters.refused.fetch_add(left.len() as u64, Ordering::Relaxed);
            self.state.refusing.store(true, Ordering::Relaxed);
            if let Some(Err(failure)) = outcomes.iter().find(|outcome| outcome.is_err()) {
                error!(
                    stream = self.state.stream,
                    records = left.len(),
                    "spooled records are refused: {failure}"
                );
            }
            sleep(PAUSE).await;
            match self.again(&left).await {
                Some(again) => ticket = again,
                None => return,
            }
        }
    }

    /// Puts these records of the piece again; no memory holds them any more.
    async fn again(&mut self, places: &[usize]) -> Option<Ticket> {
        loop {
            let reader = self.reader.another();
            let reader = std::mem::replace(&mut self.reader, reader);
            let first = self.first;
            let (_, read) = spawn_blocking(move || read(reader, first)).await.ok()?;
            self.state.read_back(read.is_ok());
            match read {
                Ok(stretch) => {
                    let mut records: Vec<Option<Record>> = stretch.records.into_iter().map(Some).collect();
                    let left = places.iter().filter_map(|place| records.get_mut(*place)?.take()).collect();
                    return self.writer.put(puts(left)).await.ok();
                }
                Err(reason) => {
                    error!(stream = self.state.stream, "the spool cannot be read back: {reason}");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Whether the writer is no more: with no deadline, nothing else leaves an outcome open.
fn is_stop(outcome: &Outcome) -> bool {
    matches!(outcome, Err(Failure::Stopped | Failure::OutcomeUnknown { .. }))
}
