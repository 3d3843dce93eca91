//! The writer as its users hold it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use headworks_record::aggregate::{self, Prepared};
use headworks_record::{Creation, HashKey, key};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, oneshot};
use tokio::time::Instant;

use crate::config::Config;
use crate::content::{Contents, Unit};
use crate::hot::HotKey;
use crate::item::Item;
use crate::outcome::{Failure, Outcome, Put};
use crate::outcomes::Outcomes;
use crate::parcel::{Encoded, Parcel};
use crate::stats::{self, Counters, Stats};

/// A batch on its way to the service task.
#[derive(Debug)]
pub(crate) struct Batch {
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
    Put(Batch),
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

/// Beside the data there are at most a key, headers and an envelope, all of them bounded.
const MOST_BESIDE_DATA: usize = 16 * 1024;

fn check_size(config: &Config, put: &Put) -> Result<(), Failure> {
    let limit = config.max_record_bytes;
    if put.record.data.len() + MOST_BESIDE_DATA <= limit {
        return Ok(());
    }
    let label = headworks_record::key::MAX_KEY_CHARS;
    fits(aggregate::Builder::new().len_with(&put.record, put.origin.as_deref()) + label, limit)
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
        let bytes = self.check(weight_of(&puts))?;
        let permit = Arc::clone(&self.budget).try_acquire_many_owned(bytes).map_err(|error| match error {
            TryAcquireError::Closed => Refused::Stopped,
            TryAcquireError::NoPermits => Refused::Full {
                limit: self.config.max_buffered_bytes,
                retry_after: Duration::from_millis(100),
            },
        })?;
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

    async fn hand_over(
        &self,
        unpacked: Unpacked<'_>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Ticket, Refused> {
        let (answer, outcomes) = oneshot::channel();
        let Unpacked { contents, items, unfit, .. } = unpacked;
        let records = contents.len();
        let message = Message::Put(Batch { contents, items, unfit, answer, permit });
        self.queue.send(message).await.map_err(|_closed| Refused::Stopped)?;
        stats::add(&self.counters.records, records as u64);
        Ok(Ticket { outcomes, records })
    }
}

/// Makes items of what is handed over, and prepares its records. Done by whoever hands it over: the records are in its
/// cache, and their memory came from there.
struct Unpacked<'c> {
    config: &'c Config,
    deadline: Instant,
    contents: Contents,
    items: Vec<Item>,
    unfit: Vec<(u32, Failure)>,
}

impl<'c> Unpacked<'c> {
    fn new(config: &'c Config, records: usize) -> Self {
        let deadline = Instant::now() + config.deadline();
        let contents = Contents::Records(Prepared::default());
        Self { config, deadline, contents, items: Vec::with_capacity(records), unfit: Vec::new() }
    }

    fn records(config: &'c Config, puts: Vec<Put>) -> Self {
        if puts.iter().any(|put| put.origin.is_some()) {
            return Self::parcels(config, puts.into_iter().map(Parcel::Record).collect());
        }
        let mut unpacked = Self::new(config, puts.len());
        // Eight keys at a time take little longer than one.
        let keyed = puts.iter().map(|put| &put.record).filter(|record| record.explicit_hash_key.is_none());
        let mut hashes = key::hashes_of(keyed.map(|record| record.key.as_str())).into_iter();
        let bytes = puts.iter().map(|put| put.record.user_bytes()).sum();
        let mut prepared = Prepared::with_capacity(puts.len(), bytes);
        for put in puts {
            let hash = put.record.explicit_hash_key.or_else(|| hashes.next());
            unpacked.add_record(&put, hash.unwrap_or_else(|| put.record.hash_key()));
            prepared.push(&put.record);
        }
        unpacked.contents = Contents::Records(prepared);
        unpacked
    }

    fn parcels(config: &'c Config, parcels: Vec<Parcel>) -> Self {
        let mut unpacked = Self::new(config, parcels.iter().map(Parcel::records).sum());
        let mut units = Vec::with_capacity(unpacked.items.capacity());
        let mut prepared = Prepared::default();
        for parcel in parcels {
            match parcel {
                Parcel::Record(put) => {
                    unpacked.add_record(&put, put.record.hash_key());
                    units.push(Unit::Record(prepared.len() as u32, put.origin));
                    prepared.push(&put.record);
                }
                Parcel::Members(encoded) => {
                    for (place, bytes) in encoded.members() {
                        unpacked.add_member(&encoded, place, bytes);
                        let (aggregate, origin) = (Arc::clone(&encoded.aggregate), encoded.origin.clone());
                        units.push(Unit::Member(aggregate, place, origin));
                    }
                }
            }
        }
        unpacked.contents = Contents::Units(prepared, units);
        unpacked
    }

    fn add_record(&mut self, put: &Put, hash: HashKey) {
        let record = &put.record;
        let bytes = record.user_bytes();
        // Names and lengths of fields, of a creation context and of each header.
        let encoded = bytes + 64 + 8 * record.headers.len();
        let sampled = record.headers.creation().is_some_and(Creation::is_sampled);
        self.add(check_size(self.config, put), hash, put.deadline, sampled, (bytes, encoded));
    }

    fn add_member(&mut self, encoded: &Encoded, place: u32, bytes: usize) {
        let Some(member) = encoded.aggregate.member(place as usize) else { return };
        let limit = self.config.max_record_bytes;
        let alone = || aggregate::Builder::new().len_with_member(&member, encoded.origin.as_deref());
        let fits = match bytes + MOST_BESIDE_DATA {
            most if most <= limit => Ok(()),
            _ => fits(alone() + headworks_record::key::MAX_KEY_CHARS, limit),
        };
        // Checked when the parcel was made.
        let hash = member.hash_key().unwrap_or_else(|_| key::hash_of(member.key()));
        let sampled = member.known_creation().is_some_and(Creation::is_sampled);
        self.add(fits, hash, encoded.deadline, sampled, (member.user_bytes(), bytes + 8));
    }

    fn add(
        &mut self,
        fits: Result<(), Failure>,
        hash: HashKey,
        deadline: Option<Instant>,
        sampled: bool,
        (user_bytes, encoded_bytes): (usize, usize),
    ) {
        let place = self.items.len() as u32;
        if let Err(failure) = fits {
            self.unfit.push((place, failure));
        }
        self.items.push(Item {
            hash,
            deadline: deadline.unwrap_or(self.deadline),
            last: None,
            batch: 0,
            place,
            attempts: 0,
            user_bytes: user_bytes as u32,
            encoded_bytes: encoded_bytes as u32,
            maybe_stored: false,
            sampled,
        });
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
    Outcomes::all_failed(records, Failure::OutcomeUnknown { attempts: 0, last })
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
