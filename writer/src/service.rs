//! The task that owns a writer's lanes.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::{BoxFuture, FutureExt as _, OptionFuture};
use headworks_record::{ShardMap, shard};
use headworks_telemetry::{KeyValue, Outcome as Traced, RecordTracer, Step, names};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::answers::Answers;
use crate::batches::Batches;
use crate::call::{self, Answered};
use crate::config::{Config, ConfigError};
use crate::handle::{Handle, HotKeys, Message, Taken};
use crate::hot::HotKey;
use crate::item::Item;
use crate::outcome::Failure;
use crate::outcomes::Outcomes;
use crate::schedule::{Flight, Schedule, Trouble};
use crate::stats::{self, Counters};
use crate::stream::{CallError, Capacity, Fault, ListedShard, Stored, Stream};

/// How many messages are taken before lanes are looked at: enough to fill aggregates under load.
const MESSAGES_AT_ONCE: usize = 256;

/// Why a writer did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting is out of bounds.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The stream cannot be looked at.
    #[error(
        "the stream {stream:?} cannot be read: {source}; check that it exists, the endpoint, and the permission kinesis:ListShards"
    )]
    Stream {
        /// The stream's name.
        stream: String,
        /// What the service said.
        source: CallError,
    },
    /// The stream's shards make no map.
    #[error("the stream {stream:?} is not ready: {source}")]
    ShardMap {
        /// The stream's name.
        stream: String,
        /// What is wrong with the map.
        source: shard::Error,
    },
}

impl StartError {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            StartError::Config(error) => error.code(),
            StartError::Stream { .. } => "stream-unreadable",
            StartError::ShardMap { source, .. } => source.code(),
        }
    }

    /// Whether a later start may succeed with the same settings.
    pub fn is_retryable(&self) -> bool {
        match self {
            StartError::Config(error) => error.is_retryable(),
            StartError::Stream { source, .. } => source.fault.is_retryable(),
            StartError::ShardMap { source, .. } => source.is_retryable(),
        }
    }
}

/// What was left when a writer stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Records that were answered with a failure because the drain deadline passed.
    pub unanswered: usize,
}

/// The service half of a writer; see the crate's documentation.
#[derive(Debug)]
pub struct Writer {
    stream: Arc<dyn Stream>,
    config: Arc<Config>,
    counters: Arc<Counters>,
    tracer: RecordTracer,
    queue: mpsc::Receiver<Message>,
    schedule: Schedule,
    batches: Batches,
    drains: Vec<oneshot::Sender<()>>,
    calls: JoinSet<Answered>,
    flights: HashMap<Id, Vec<Flight>>,
    /// Before this no further call starts while one is in flight.
    next_call: Option<Instant>,
    hot_keys: HotKeys,
    rng: SmallRng,
}

impl std::fmt::Debug for dyn Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Stream").field(&self.name()).finish()
    }
}

/// Borrows no more of the writer than answering takes.
macro_rules! answers {
    ($writer:expr) => {
        Answers::new(&mut $writer.batches, &$writer.counters, &$writer.tracer, $writer.stream.name())
    };
}

type Listing = BoxFuture<'static, Result<ShardMap, CallError>>;

impl Writer {
    /// Looks at the stream and makes a writer for it: the service, to be run, and its handle.
    pub async fn start(
        config: Config,
        stream: impl Stream,
        tracer: RecordTracer,
    ) -> Result<(Writer, Handle), StartError> {
        Self::start_shared(config, Arc::new(stream), tracer).await
    }

    /// As [`Writer::start`], for a stream that is shared.
    pub async fn start_shared(
        config: Config,
        stream: Arc<dyn Stream>,
        tracer: RecordTracer,
    ) -> Result<(Writer, Handle), StartError> {
        config.validate()?;
        let name = || stream.name().to_owned();
        let unreadable = |source| StartError::Stream { stream: name(), source };
        let capacity = async {
            match config.capacity {
                Some(capacity) => capacity,
                // Nothing but the bill depends on it.
                None => stream.capacity().await.unwrap_or_else(|error| {
                    let stream = stream.name();
                    warn!(stream, "its capacity mode is not known, taken as provisioned: {error}; grant kinesis:DescribeStreamSummary, or set capacity");
                    Capacity::Provisioned
                }),
            }
        };
        let (listed, lanes, capacity) = tokio::join!(stream.list_shards(), stream.lanes(), capacity);
        let map = map_of(listed.map_err(unreadable)?)
            .map_err(|source| StartError::ShardMap { stream: name(), source })?;
        let lanes = lanes.map_err(unreadable)?;
        let config = Arc::new(config);
        let counters = Arc::new(Counters::default());
        let (sender, queue) = mpsc::channel(MESSAGES_AT_ONCE);
        let hot_keys = HotKeys::default();
        let handle = Handle {
            hot_keys: Arc::clone(&hot_keys),
            queue: sender,
            budget: Arc::new(Semaphore::new(config.max_buffered_bytes)),
            config: Arc::clone(&config),
            counters: Arc::clone(&counters),
        };
        let schedule = Schedule::new(Arc::clone(&config), map, lanes, capacity, Instant::now());
        let writer = Writer {
            stream,
            config,
            counters,
            tracer,
            queue,
            schedule,
            batches: Batches::default(),
            drains: Vec::new(),
            calls: JoinSet::new(),
            flights: HashMap::new(),
            next_call: None,
            hot_keys,
            rng: SmallRng::from_rng(&mut rand::rng()),
        };
        Ok((writer, handle))
    }

    /// Runs until `shutdown` is cancelled or every handle is dropped, then drains to the deadline.
    pub async fn run(mut self, shutdown: CancellationToken) -> Report {
        let mut messages = Vec::with_capacity(MESSAGES_AT_ONCE);
        let mut listing: Option<Listing> = None;
        let mut give_up: Option<Instant> = None;
        let mut listing_failures = 0;
        loop {
            let now = Instant::now();
            self.dispatch(now);
            if self.schedule.needs_map() && listing.is_none() {
                listing = Some(self.list(listing_failures));
            }
            if self.batches.open == 0 {
                for done in self.drains.drain(..) {
                    let _ = done.send(());
                }
                if give_up.is_some() && self.queue.is_closed() && self.queue.is_empty() {
                    break;
                }
            }
            let look_again = self.paced_until(now).or_else(|| self.schedule.next_wake());
            let wake = [look_again, give_up].into_iter().flatten().min();
            tokio::select! {
                taken = self.queue.recv_many(&mut messages, MESSAGES_AT_ONCE), if !(self.queue.is_closed() && self.queue.is_empty()) => {
                    if taken == 0 && give_up.is_none() {
                        give_up = Some(now + Duration::from_millis(self.config.drain_ms));
                    }
                    messages.drain(..).for_each(|message| self.take(message));
                }
                Some(joined) = self.calls.join_next_with_id(), if !self.calls.is_empty() => self.answered(joined),
                Some(listed) = OptionFuture::from(listing.as_mut()), if listing.is_some() => {
                    listing = None;
                    listing_failures = if listed.is_ok() { 0 } else { listing_failures + 1 };
                    self.listed(listed);
                    // A map that does not know the answering shard yet is as good as none.
                    listing_failures += u32::from(self.schedule.needs_map());
                }
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {
                    if give_up.is_some_and(|at| at <= Instant::now()) {
                        break;
                    }
                }
                () = shutdown.cancelled(), if give_up.is_none() => {
                    self.queue.close();
                    give_up = Some(now + Duration::from_millis(self.config.drain_ms));
                }
            }
        }
        self.stop()
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Drain(done) => self.drains.push(done),
            Message::Put(taken) => self.accept(taken),
        }
    }

    fn accept(&mut self, taken: Taken) {
        let Taken { contents, items, unfit, answer, permit } = taken;
        if items.is_empty() {
            let _ = answer.send(Outcomes::open(0));
            return;
        }
        let number = self.batches.open(contents, answer, permit);
        let mut unfit = unfit.into_iter().peekable();
        for mut item in items {
            item.batch = number;
            match unfit.next_if(|(place, _)| *place == item.place) {
                None => self.schedule.push(item),
                Some((_, failure)) => answers!(self).failed(&item, failure),
            }
        }
    }

    fn in_a_hurry(&self) -> bool {
        !self.drains.is_empty() || self.queue.is_closed()
    }

    /// Until when lanes gather for the next call. A call costs as much as many records do, and MD5s of eight aggregates
    /// little more than one; so while a call is in flight, lanes that come to their turn go together.
    fn paced_until(&self, now: Instant) -> Option<Instant> {
        self.next_call.filter(|next| *next > now && !self.calls.is_empty() && !self.in_a_hurry())
    }

    /// Starts as many calls as may be in flight.
    fn dispatch(&mut self, now: Instant) {
        if self.paced_until(now).is_some() {
            return;
        }
        let hurry = self.in_a_hurry();
        loop {
            let room = self.calls.len() < self.config.concurrency;
            let flights = self.schedule.collect(now, room, hurry, &mut answers!(self));
            if flights.is_empty() {
                return;
            }
            let attempt = Duration::from_millis(self.config.attempt_timeout_ms);
            let (entries, patience) = call::prepare(&flights, attempt, now);
            stats::add(&self.counters.calls, 1);
            stats::add(&self.counters.entries, entries.len() as u64);
            stats::add(&self.counters.entry_bytes, entries.iter().map(|e| e.bytes() as u64).sum());
            // A task of its own: signing and sending a call may use another core.
            let task = self.calls.spawn(call::run(Arc::clone(&self.stream), entries, patience));
            self.flights.insert(task.id(), flights);
            self.next_call = Some(now + self.config.pace());
        }
    }

    fn answered(&mut self, joined: Result<(Id, Answered), tokio::task::JoinError>) {
        let (id, answered) = match joined {
            Ok((id, answered)) => (id, Some(answered)),
            Err(error) => (error.id(), None),
        };
        let Some(flights) = self.flights.remove(&id) else { return };
        let now = Instant::now();
        let results = match answered {
            Some(Answered { results, started, ended }) => {
                self.trace(&flights, &results, started, ended);
                results
            }
            None => {
                call::all(flights.len(), Fault::Ambiguous, "call-panicked", "the call panicked".to_owned())
            }
        };
        self.warn(&flights, &results);
        let mut answers = answers!(self);
        for (flight, result) in flights.into_iter().zip(results) {
            self.schedule.settle(flight, result, now, &mut self.rng, &mut answers);
        }
        drop(answers);
        self.name_hot_keys();
    }

    /// Says once of each hot key which it is, and keeps the list for whoever asks.
    fn name_hot_keys(&self) {
        let mut known = self.hot_keys.lock().unwrap_or_else(PoisonError::into_inner);
        let now: Vec<Arc<HotKey>> = self.schedule.hot_keys().cloned().collect();
        if now.len() == known.len() && now.iter().zip(&*known).all(|(a, b)| Arc::ptr_eq(a, b)) {
            return;
        }
        for hot in now.iter().filter(|hot| known.iter().all(|old| !Arc::ptr_eq(old, hot))) {
            warn!(stream = self.stream.name(), key = &*hot.key, lane = &*hot.lane, "{hot}");
            stats::add(&self.counters.hot_keys, 1);
        }
        *known = now;
    }

    fn list(&self, failures: u32) -> Listing {
        let stream = Arc::clone(&self.stream);
        let pause = if failures == 0 { Duration::ZERO } else { self.config.pause_ceiling(failures) };
        async move {
            tokio::time::sleep(pause).await;
            map_of(stream.list_shards().await?).map_err(|error| CallError {
                fault: Fault::Unavailable,
                code: error.code().to_owned(),
                message: error.to_string(),
            })
        }
        .boxed()
    }

    fn listed(&mut self, listed: Result<ShardMap, CallError>) {
        let stream = self.stream.name().to_owned();
        match listed {
            Ok(map) => {
                let shards = map.open().len();
                if self.schedule.refresh(map, Instant::now()) {
                    stats::add(&self.counters.map_changes, 1);
                    info!(%stream, shards, "the stream was resharded");
                }
                self.counters.misplaced.store(self.schedule.misplaced(), Ordering::Relaxed);
            }
            Err(error) => {
                self.schedule.unlisted(error.fault);
                warn!(%stream, "the shards cannot be listed: {error}");
            }
        }
    }

    /// Says once per call what was not stored.
    fn warn(&self, flights: &[Flight], results: &[Result<Stored, Trouble>]) {
        let failed = || {
            flights.iter().zip(results).filter_map(|(flight, result)| Some((flight, result.as_ref().err()?)))
        };
        let Some((first, trouble)) = failed().next() else { return };
        let aggregates = failed().count();
        stats::add(&self.counters.entry_failures, aggregates as u64);
        let throttled = failed().filter(|(_, trouble)| throttles(trouble.fault)).count();
        stats::add(&self.counters.throttled, throttled as u64);
        let records: usize = failed().map(|(flight, _)| flight.sealed.items.len()).sum();
        let lane = &*first.sealed.entry.partition_key;
        warn!(stream = self.stream.name(), aggregates, records, lane, fault = ?trouble.fault, "not stored: {}", trouble.message);
    }

    fn trace(
        &self,
        flights: &[Flight],
        results: &[Result<Stored, Trouble>],
        started: SystemTime,
        ended: SystemTime,
    ) {
        let items = || flights.iter().flat_map(|flight| &flight.sealed.items);
        let trouble = results.iter().find_map(|result| result.as_ref().err());
        let outcome = trouble
            .map_or(Traced::Ok, |trouble| Traced::Failed { code: &trouble.code, message: &trouble.message });
        let attributes = || {
            let bytes: usize = flights.iter().map(|flight| flight.sealed.entry.bytes()).sum();
            vec![
                KeyValue::new(names::AGGREGATES, flights.len() as i64),
                KeyValue::new(names::BYTES, bytes as i64),
            ]
        };
        let step = Step::send(self.stream.name(), started, ended);
        let sampled = items().filter(|item| item.sampled);
        let creations = sampled.filter_map(|item| self.batches.content(item)?.creation());
        let records = flights.iter().map(|flight| flight.sealed.items.len()).sum();
        self.tracer.batch(step, creations, records, attributes, outcome);
    }

    /// Answers what is left.
    fn stop(mut self) -> Report {
        self.calls.abort_all();
        let in_flight = std::mem::take(&mut self.flights).into_values().flatten();
        let mut left: Vec<Item> = in_flight
            .flat_map(|flight| flight.sealed.items)
            .map(|mut item| {
                item.maybe_stored = true;
                item
            })
            .collect();
        left.extend(self.schedule.abandon());
        let unanswered = left.len();
        let mut answers = answers!(self);
        for item in left {
            let failure = if item.maybe_stored {
                let last = item.last.as_ref();
                let last =
                    last.map_or("the writer stopped while a put was in flight", |last| last).to_owned();
                Failure::OutcomeUnknown { attempts: item.attempts, last, fault: None }
            } else {
                Failure::Stopped
            };
            answers.failed(&item, failure);
        }
        Report { unanswered }
    }
}

fn throttles(fault: Fault) -> bool {
    matches!(fault, Fault::Throttled | Fault::KeyThrottled)
}

fn map_of(listed: Vec<ListedShard>) -> Result<ShardMap, shard::Error> {
    let (closed, open): (Vec<_>, Vec<_>) = listed.into_iter().partition(|listed| listed.closed);
    let mut map = ShardMap::new(open.into_iter().map(|listed| listed.shard).collect())?;
    closed.into_iter().for_each(|listed| map.remember_shard(listed.shard));
    Ok(map)
}
