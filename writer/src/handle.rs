//! The writer as its users hold it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use headworks_record::{aggregate, key};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, oneshot};
use tokio::time::Instant;

use crate::batch::Batch;
use crate::config::Config;
use crate::content::{Contents, Mixed};
use crate::hot::HotKey;
use crate::item::Item;
use crate::outcome::{Failure, Outcome, Put};
use crate::outcomes::Outcomes;
use crate::parcel::Parcel;
use crate::stats::{self, Counters, Stats};

/// A batch on its way to the service task.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) contents: Contents,
    /// One for each, in their order.
    pub(crate) items: Vec<Item>,
    /// What does not fit into a Kinesis record: its place, and why.
    pub(crate) unfit: Vec<(u32, Failure)>,
    pub(crate) answer: oneshot::Sender<Outcomes>,
    pub(crate) permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
pub(crate) enum Message {
    Put(Taken),
    Drain(oneshot::Sender<()>),
}

/// Gives records to a writer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) queue: mpsc::Sender<Message>,
    pub(crate) budget: Arc<Semaphore>,
    pub(crate) config: Arc<Config>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) hot_keys: HotKeys,
}

/// The keys that now bring more than their shards take.
pub(crate) type HotKeys = Arc<Mutex<Vec<Arc<HotKey>>>>;

/// Why a batch was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The records that wait fill the budget.
    #[error(
        "the writer holds {limit} bytes of unanswered records, which is its limit; try again in {retry_after:?}"
    )]
    Full {
        /// `max_buffered_bytes`.
        limit: usize,
        /// When room is likely.
        retry_after: Duration,
    },
    /// The batch alone is larger than the budget.
    #[error(
        "the batch has {bytes} bytes, the writer takes {limit} at a time; split it, or raise max_buffered_bytes"
    )]
    BatchTooLarge {
        /// Its size.
        bytes: usize,
        /// `max_buffered_bytes`.
        limit: usize,
    },
    /// The writer stopped.
    #[error("the writer has stopped; use another one")]
    Stopped,
}

impl Refused {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Refused::Full { .. } => "writer-full",
            Refused::BatchTooLarge { .. } => "batch-too-large",
            Refused::Stopped => "writer-stopped",
        }
    }

    /// Whether the same batch may be taken later, here or elsewhere.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Refused::BatchTooLarge { .. })
    }
}

/// What holding a record costs in the budget beside its bytes.
const HELD: usize = 256;

/// Beside a record's own bytes an aggregate has at most an envelope, an origin and fields' lengths.
const MOST_BESIDE: usize = 4 * 1024;

fn check_size(config: &Config, put: &Put) -> Result<(), Failure> {
    let bytes = aggregate::Builder::new().len_with(&put.record, put.origin.as_deref());
    fits(bytes + key::MAX_KEY_CHARS, config.max_record_bytes)
}

fn weight_of(puts: &[Put]) -> usize {
    puts.iter().map(|put| put.record.user_bytes() + HELD).sum()
}

impl Handle {
    /// Hands over a batch, waiting for room. Records of one key keep the order in which they are given.
    ///
    /// Dropping the ticket does not take the records back.
    pub async fn put(&self, puts: Vec<Put>) -> Result<Ticket, Refused> {
        let permit = self.room_for(weight_of(&puts)).await?;
        self.hand_over(Unpacked::records(&self.config, puts), permit).await
    }

    /// As [`put`](Self::put), for records that were encoded as they came.
    pub async fn put_batch(&self, batch: Batch) -> Result<Ticket, Refused> {
        let permit = self.room_for(batch.user_bytes() + batch.len() * HELD).await?;
        self.hand_over(Unpacked::batch(&self.config, batch), permit).await
    }

    /// As [`try_put`](Self::try_put), for records that were encoded as they came.
    pub async fn try_put_batch(&self, batch: Batch) -> Result<Ticket, Refused> {
        let permit = self.room_now(batch.user_bytes() + batch.len() * HELD)?;
        self.hand_over(Unpacked::batch(&self.config, batch), permit).await
    }

    /// Hands over records and members of encoded aggregates, waiting for room. Records of one key keep the
    /// order in which they are given; there is one outcome for each record and each member, in order.
    ///
    /// Dropping the ticket does not take them back.
    pub async fn put_parcels(&self, parcels: Vec<Parcel>) -> Result<Ticket, Refused> {
        let weight = parcels.iter().map(|parcel| parcel.bytes() + parcel.records() * HELD).sum();
        let permit = self.room_for(weight).await?;
        self.hand_over(Unpacked::parcels(&self.config, parcels), permit).await
    }

    /// Hands over a batch, or says at once that there is no room.
    pub async fn try_put(&self, puts: Vec<Put>) -> Result<Ticket, Refused> {
        let permit = self.room_now(weight_of(&puts))?;
        self.hand_over(Unpacked::records(&self.config, puts), permit).await
    }

    /// Waits until every record that was given before is answered; lanes send without lingering.
    pub async fn drain(&self) {
        let (done, drained) = oneshot::channel();
        // A writer that has stopped has answered everything.
        if self.queue.send(Message::Drain(done)).await.is_ok() {
            let _ = drained.await;
        }
    }

    /// What the writer has done so far.
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }

    /// Keys that now bring more than their shards take, one of each throttled lane at most.
    pub fn hot_keys(&self) -> Vec<Arc<HotKey>> {
        self.hot_keys.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes of records that are taken and not yet answered.
    pub fn buffered_bytes(&self) -> usize {
        self.config.max_buffered_bytes - self.budget.available_permits()
    }

    /// The settings in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether a record fits into a Kinesis record of this stream.
    pub fn check_size(&self, put: &Put) -> Result<(), Failure> {
        check_size(&self.config, put)
    }

    fn check(&self, bytes: usize) -> Result<u32, Refused> {
        let limit = self.config.max_buffered_bytes;
        match u32::try_from(bytes) {
            Ok(bytes) if bytes as usize <= limit => Ok(bytes),
            _ => Err(Refused::BatchTooLarge { bytes, limit }),
        }
    }

    async fn room_for(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refused> {
        let bytes = self.check(bytes)?;
        Arc::clone(&self.budget).acquire_many_owned(bytes).await.map_err(|_closed| Refused::Stopped)
    }

    fn room_now(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refused> {
        let bytes = self.check(bytes)?;
        Arc::clone(&self.budget).try_acquire_many_owned(bytes).map_err(|error| match error {
            TryAcquireError::Closed => Refused::Stopped,
            TryAcquireError::NoPermits => Refused::Full {
                limit: self.config.max_buffered_bytes,
                retry_after: Duration::from_millis(100),
            },
        })
    }

    async fn hand_over(&self, unpacked: Unpacked, permit: OwnedSemaphorePermit) -> Result<Ticket, Refused> {
        let (answer, outcomes) = oneshot::channel();
        let Unpacked { contents, items, unfit } = unpacked;
        let records = contents.len();
        let message = Message::Put(Taken { contents, items, unfit, answer, permit });
        self.queue.send(message).await.map_err(|_closed| Refused::Stopped)?;
        stats::add(&self.counters.records, records as u64);
        Ok(Ticket { outcomes, records })
    }
}

/// What is handed over, as the service takes it. Made by whoever hands it over: the records are in its cache, and their
/// memory came from there.
struct Unpacked {
    contents: Contents,
    items: Vec<Item>,
    unfit: Vec<(u32, Failure)>,
}

impl Unpacked {
    fn records(config: &Config, puts: Vec<Put>) -> Self {
        if puts.iter().any(|put| put.origin.is_some()) {
            return Self::parcels(config, puts.into_iter().map(Parcel::Record).collect());
        }
        Self::batch(config, Batch::of_puts(&puts, Instant::now() + config.deadline()))
    }

    fn batch(config: &Config, batch: Batch) -> Self {
        let (prepared, items) = batch.finish();
        Self::checked(config, Contents::Records(prepared), items)
    }

    fn parcels(config: &Config, parcels: Vec<Parcel>) -> Self {
        let deadline = Instant::now() + config.deadline();
        let puts: Vec<&Put> = parcels.iter().filter_map(Parcel::record).collect();
        let (records, of_records) = Batch::of_puts(puts, deadline).finish();
        let mut of_records = of_records.into_iter();
        let count = parcels.iter().map(Parcel::records).sum();
        let mut items = Vec::with_capacity(count);
        let mut mixed = Mixed::new(records, count);
        for parcel in parcels {
            match parcel {
                Parcel::Record(put) => {
                    let Some(item) = of_records.next() else { continue };
                    items.push(Item { place: items.len() as u32, ..item });
                    mixed.record(put.origin);
                }
                Parcel::Members(encoded) => {
                    let first = items.len() as u32;
                    let places = encoded.items(first, deadline).map(|(item, at)| {
                        items.push(item);
                        at
                    });
                    mixed.members(&encoded, places);
                }
            }
        }
        Self::checked(config, Contents::Mixed(Box::new(mixed)), items)
    }

    /// Finds what does not fit into a Kinesis record.
    fn checked(config: &Config, contents: Contents, items: Vec<Item>) -> Self {
        let limit = config.max_record_bytes;
        let unfit = items.iter().filter_map(|item| {
            // Beside its own bytes there are those of the envelope, an origin and the label, all of them bounded.
            if item.encoded_bytes as usize + MOST_BESIDE <= limit {
                return None;
            }
            let content = contents.get(item.place as usize)?;
            let bytes = content.len_alone() + key::MAX_KEY_CHARS;
            fits(bytes, limit).err().map(|failure| (item.place, failure))
        });
        let unfit = unfit.collect();
        Self { contents, items, unfit }
    }
}

fn fits(bytes: usize, limit: usize) -> Result<(), Failure> {
    if bytes > limit { Err(Failure::TooLarge { bytes, limit }) } else { Ok(()) }
}

/// The outcomes of a batch, in the order in which the records were given.
#[derive(Debug)]
#[must_use = "dropping a ticket leaves the records on their way but forgets what becomes of them"]
pub struct Ticket {
    outcomes: oneshot::Receiver<Outcomes>,
    records: usize,
}

impl Ticket {
    /// The outcomes as the writer keeps them, without a place of its own for each record: for batches of many.
    pub async fn outcomes(self) -> Outcomes {
        let Self { outcomes, records } = self;
        outcomes.await.unwrap_or_else(|_gone| gone(records))
    }
}

/// The service task was dropped: puts may have been in flight.
fn gone(records: usize) -> Outcomes {
    let last = "the writer's task was dropped".to_owned();
    Outcomes::all_failed(records, Failure::OutcomeUnknown { attempts: 0, last, fault: None })
}

impl Future for Ticket {
    type Output = Vec<Outcome>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Vec<Outcome>> {
        let records = self.records;
        Pin::new(&mut self.outcomes)
            .poll(cx)
            .map(|outcomes| outcomes.unwrap_or_else(|_gone| gone(records)).into())
    }
}
