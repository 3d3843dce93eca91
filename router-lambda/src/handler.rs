//! The handler: a batch of Kinesis records in, a partial batch response out.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use headworks_record::Lane;
use headworks_record::aggregate::{self, Aggregate, Decoded, decode_all, looks_aggregated};
use headworks_record::ownership::{Foreign, Verdict, verdict};
use headworks_telemetry::{RecordTracer, Sampler};
use tokio::time::{Instant, timeout_at};

use crate::dead_letter::DeadLetters;
use crate::event::{Event, KinesisRecord};
use crate::lookup::{Answers, Cache, Items};
use crate::outbound::Outbound;
use crate::plan::{Batch, Clocks, Plan, Sent, Settled, Slot};
use crate::progress::track::Known;
use crate::progress::{DEFAULT_READ_AFTER, Progress};
use crate::report::{Failed, Pressure, Report};
use crate::shards::{ListShards, Ranges};
use crate::spans::{self, Call, Graves};
use crate::stats::{Stats, Sums};
use crate::table::RouteTable;
use crate::times::Times;
use crate::trouble::Trouble;

/// The time that is kept for the end of an invocation: answers, dead letters, the response.
pub const DEFAULT_MARGIN: Duration = Duration::from_secs(2);

/// Tells the time of day.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Why a whole batch is refused. Lambda hands it over again: nothing is lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The table sends records to where they come from.
    #[error(
        "the route table sends records to {stream:?}, the stream that they come from, so they would go round for ever; remove that destination from the table"
    )]
    Loop {
        /// The inbound stream.
        stream: String,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Loop { .. } => "route-table-loop",
        }
    }

    /// Whether the same batch may be handled later: when the table has been mended.
    pub fn is_retryable(&self) -> bool {
        true
    }
}

/// What Lambda says about one call.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// When the answer must have been given.
    pub deadline: Instant,
    /// The call's id.
    pub request_id: Option<String>,
}

/// Routes batches. Calls may overlap, as they do in a process that several shards share.
pub struct Router {
    table: RwLock<Arc<RouteTable>>,
    outbound: Arc<dyn Outbound>,
    pub(crate) dead_letters: Arc<dyn DeadLetters>,
    shards: Arc<dyn ListShards>,
    ranges: Ranges,
    tracer: RecordTracer,
    sampler: Sampler,
    margin: Duration,
    pub(crate) progress: Option<Arc<dyn Progress>>,
    pub(crate) read_after: Duration,
    items: Option<Arc<dyn Items>>,
    cache: Cache,
    clock: Clock,
    sums: Sums,
    cold: AtomicBool,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("streams", &self.table().streams()).finish_non_exhaustive()
    }
}

/// What a Kinesis record turned out to be.
enum Found {
    Whole,
    Members(Arc<Aggregate>),
    Misplaced,
    Poison(Trouble),
}

impl Router {
    /// Routes by this table. Emits no spans until [`Router::with_tracer`].
    pub fn new(
        table: Arc<RouteTable>,
        outbound: Arc<dyn Outbound>,
        dead_letters: Arc<dyn DeadLetters>,
        shards: Arc<dyn ListShards>,
    ) -> Self {
        Self {
            table: RwLock::new(table),
            outbound,
            dead_letters,
            shards,
            ranges: Ranges::default(),
            tracer: RecordTracer::disabled(),
            sampler: Sampler::never(),
            margin: DEFAULT_MARGIN,
            progress: None,
            read_after: DEFAULT_READ_AFTER,
            items: None,
            cache: Cache::default(),
            clock: Arc::new(SystemTime::now),
            sums: Sums::default(),
            cold: AtomicBool::new(true),
        }
    }

    /// Emits spans; `sampler` decides for records that come without a creation context.
    pub fn with_tracer(mut self, tracer: RecordTracer, sampler: Sampler) -> Self {
        (self.tracer, self.sampler) = (tracer, sampler);
        self
    }

    /// Keeps this much time at an invocation's end, but never more than a quarter of it.
    /// Default [`DEFAULT_MARGIN`].
    pub fn with_margin(mut self, margin: Duration) -> Self {
        self.margin = margin;
        self
    }

    /// Keeps in this store, on a partial failure, what each destination has, and leaves it out when the batch
    /// comes again. Without a store destinations get repeats.
    pub fn with_progress(mut self, store: Arc<dyn Progress>) -> Self {
        self.progress = Some(store);
        self
    }

    /// Asks the store only about batches whose oldest record has been on the stream for as long as this.
    /// Default [`DEFAULT_READ_AFTER`].
    pub fn with_read_after(mut self, age: Duration) -> Self {
        self.read_after = age;
        self
    }

    /// Makes the look-ups of the table's rules in these tables. Without it a table's look-ups are all slow.
    pub fn with_items(mut self, items: Arc<dyn Items>) -> Self {
        self.items = Some(items);
        self
    }

    /// Takes the time of day, by which records age, from this clock. Default: the system's.
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The table in force.
    pub fn table(&self) -> Arc<RouteTable> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another table in force, from the next batch on.
    pub fn replace_table(&self, table: Arc<RouteTable>) {
        self.cache.keep(table.lookups());
        self.sums.table(true);
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
    }

    /// Counts a table that was refused or could not be read.
    pub(crate) fn table_refused(&self) {
        self.sums.table(false);
    }

    /// What the router has done so far.
    pub fn stats(&self) -> Stats {
        self.sums.read()
    }

    /// Handles a batch: when this returns, everything below [`Report::failed`] is stored, dropped by
    /// the table, skipped because its writer puts it again, or in the dead letters.
    pub async fn handle(&self, event: &Event, invocation: &Invocation) -> Result<Report, Error> {
        let started = (self.clock)();
        let cold = self.cold.swap(false, Ordering::Relaxed);
        if event.records.is_empty() {
            return Ok(Report::default());
        }
        // One table for the whole batch, whatever is put in force meanwhile.
        let table = self.table();
        if table.streams().contains(&event.stream) {
            return Err(Error::Loop { stream: event.stream.to_string() });
        }
        let times = Times::new(started, invocation.deadline, self.margin);
        let known = self.recall(event, &table, times).await;
        let (found, blocked) = self.take_apart(event, times).await;
        let clock = Clocks { now: Instant::now(), now_ms: millis(started), deadline: times.put };
        let answers = self.look_up(event, &table, &known, &found, clock, times.before).await;
        let mut plan = Plan::new(event, &table, &self.tracer, self.sampler, clock, &known, &answers);
        fill(&mut plan, &found, blocked);
        drop(found);
        plan.counts.skipped = plan.skipped.len() as u64;

        // What is known to be poison is put away first: if that fails, what follows must wait, too.
        let mut graves = Graves::default();
        let first: Vec<Slot> = plan.rejected.keys().copied().collect();
        if let Some((slot, error)) = self.bury(&plan, first, times.before, &mut graves).await {
            plan.block(slot.record, Trouble::retryable(error.code(), &error));
        }

        let mut lowest = plan.blocked.take();
        let mut settled = self.put(&table, &mut plan.batches, times).await;
        settled.append(&mut plan.refused);
        let mut report = Report::default();
        let mut troubles: HashMap<Slot, Trouble> = HashMap::new();
        let mut late = BTreeSet::new();
        for Settled { stream, slot, outcome } in &settled {
            let (name, slot) = (&table.streams()[*stream], *slot);
            let Err(trouble) = outcome.clone() else {
                plan.counts.stored += 1;
                continue;
            };
            troubles.entry(slot).or_insert_with(|| trouble.clone());
            let spilled = trouble.code == "destination-spilled";
            if spilled || !trouble.is_poison() {
                let arrival = UNIX_EPOCH + Duration::from_millis(event.records[slot.record].arrival_ms);
                let waiting = (self.clock)().duration_since(arrival).unwrap_or_default();
                let pressure: &mut Pressure = report.pressure.entry(name.to_string()).or_default();
                pressure.waiting = pressure.waiting.max(waiting);
                pressure.spilled += u64::from(spilled);
                pressure.failed += u64::from(!spilled);
            }
            if trouble.is_poison() {
                plan.counts.spilled += u64::from(spilled);
                plan.reject(slot, trouble, Some(name.to_string()));
                late.insert(slot);
            } else {
                plan.counts.failed += 1;
                lower(&mut lowest, slot.record, trouble);
            }
        }
        if let Some((slot, error)) = self.bury(&plan, late, times.letters, &mut graves).await {
            lower(&mut lowest, slot.record, Trouble::retryable(error.code(), &error));
        }

        plan.counts.dead_letters = graves.0.len() as u64;
        let failed = lowest.as_ref().map(|(index, _)| *index);
        self.remember(&plan, &known, &settled, &graves, failed, times).await;
        report.failed = lowest.map(|(index, trouble)| Failed {
            sequence_number: event.records[index].sequence_number.clone(),
            trouble,
        });
        report.counts = plan.counts;
        if self.tracer.is_enabled() {
            let call = Call { event, invocation, started, ended: (self.clock)(), cold };
            spans::emit(&self.tracer, &table, &call, &plan, &troubles, &graves, &report);
        }
        self.sums.add(&report);
        log(event, &report);
        Ok(report)
    }

    /// Takes the Kinesis records apart, up to one of which it cannot be said yet what it is.
    async fn take_apart(&self, event: &Event, times: Times) -> (Vec<Found>, Option<Trouble>) {
        let mut all = Vec::with_capacity(event.records.len());
        // Together, because that is where most of the time goes.
        let decoded = decode_all(event.records.iter().map(|record| &record.data));
        for (record, decoded) in event.records.iter().zip(decoded) {
            match self.inspect(&event.stream, record, decoded, times).await {
                Ok(found) => all.push(found),
                Err(trouble) => return (all, Some(trouble)),
            }
        }
        (all, None)
    }

    /// Asks for what the rules look up. Without such rules it costs nothing.
    async fn look_up(
        &self,
        event: &Event,
        table: &RouteTable,
        known: &Known,
        found: &[Found],
        clock: Clocks,
        until: Instant,
    ) -> Answers {
        if table.lookups().is_empty() {
            return Answers::default();
        }
        let none = Answers::default();
        let plan = Plan::new(event, table, &self.tracer, self.sampler, clock, known, &none);
        let mut wanted = vec![BTreeSet::new(); table.lookups().len()];
        for (index, found) in found.iter().enumerate() {
            match found {
                Found::Whole => plan.wanted(index, None, &mut wanted),
                Found::Members(aggregate) => plan.wanted(index, Some(aggregate), &mut wanted),
                Found::Misplaced | Found::Poison(_) => {}
            }
        }
        Answers::gather(self.items.as_deref(), &self.cache, table.lookups(), wanted, until).await
    }

    /// Says what a Kinesis record is and applies the hash-range rule; an error means that it must wait.
    async fn inspect(
        &self,
        stream: &str,
        record: &KinesisRecord,
        decoded: Result<Decoded, aggregate::Error>,
        times: Times,
    ) -> Result<Found, Trouble> {
        let aggregate = match decoded {
            Ok(Decoded::Aggregate(aggregate)) => aggregate,
            Ok(Decoded::Plain) => return Ok(Found::Whole),
            Ok(Decoded::Damaged(damage)) => {
                let (shard, sequence_number) = (&record.shard, &*record.sequence_number);
                tracing::warn!(stream, %shard, sequence_number, %damage, "a damaged aggregate is routed as it is");
                return Ok(Found::Whole);
            }
            Err(error) => return Ok(Found::Poison(Trouble::poison(error.code(), error))),
        };
        let ours = aggregate.envelope().is_some();
        // Only an aggregate of ours whose label names another shard needs the shard's range.
        if !ours || Lane::shard_of(&record.partition_key) == Some(record.shard.as_str()) {
            return Ok(Found::Members(Arc::new(aggregate)));
        }
        let range = match timeout_at(times.before, self.ranges.of(&*self.shards, stream, &record.shard)).await
        {
            Ok(Ok(range)) => range,
            Ok(Err(error)) => return Err(Trouble::retryable(error.code(), error)),
            Err(_elapsed) => {
                let message = "the shards of the inbound stream were not listed in time";
                return Err(Trouble::retryable("shards-not-listed", message));
            }
        };
        Ok(match verdict(&aggregate, &record.partition_key, &record.shard, &range, Foreign::Deliver) {
            Ok(Verdict::Deliver) => Found::Members(Arc::new(aggregate)),
            Ok(Verdict::Misplaced { member }) => {
                let (shard, sequence_number) = (&record.shard, &*record.sequence_number);
                tracing::info!(stream, %shard, sequence_number, member, "a misplaced aggregate is skipped: its writer puts it again");
                Found::Misplaced
            }
            Err(error) => Found::Poison(Trouble::poison(error.code(), error)),
        })
    }

    /// Puts every batch, each destination on its own, so that a slow one holds up no other.
    async fn put(&self, table: &RouteTable, batches: &mut [Batch], times: Times) -> Vec<Settled> {
        let total = batches.iter().map(|batch| batch.sent.len()).sum();
        let puts = batches.iter_mut().enumerate().filter(|(_, batch)| !batch.loads.is_empty()).map(
            |(stream, batch)| {
                let Batch { loads, sent } = std::mem::take(batch);
                async move {
                    let put = self.outbound.put(&table.streams()[stream], loads, times.answer);
                    let outcomes = timeout_at(times.letters, put).await.unwrap_or_default();
                    (stream, sent, outcomes, millis((self.clock)()))
                }
            },
        );
        let mut settled = Vec::with_capacity(total);
        for (stream, sent, mut outcomes, now_ms) in join_all(puts).await {
            let silent =
                || Err(Trouble::unavailable("deadline-exceeded", "the destination did not answer in time"));
            outcomes.resize_with(sent.len(), silent);
            settled.extend(sent.into_iter().zip(outcomes).map(|(Sent { slot, spills_at }, outcome)| {
                let outcome = outcome.map_err(|trouble| spill(trouble, spills_at, now_ms));
                Settled { stream, slot, outcome }
            }));
        }
        settled
    }
}

/// What a destination does not take is for the dead letters once the record is as old as its rule allows.
fn spill(trouble: Trouble, spills_at: Option<u64>, now_ms: u64) -> Trouble {
    if !trouble.may_spill() || spills_at.is_none_or(|at| now_ms < at) {
        return trouble;
    }
    let message = format!(
        "the destination did not take it for as long as the rule's spill-after says; the last trouble: {trouble}"
    );
    Trouble::poison("destination-spilled", message)
}

/// Routes what was found; `blocked` is why nothing was found beyond.
fn fill(plan: &mut Plan<'_>, found: &[Found], blocked: Option<Trouble>) {
    for (index, found) in found.iter().enumerate() {
        if plan.blocked.is_some() {
            return;
        }
        plan.counts.kinesis_records += 1;
        match found {
            Found::Whole => {
                plan.counts.damaged += u64::from(looks_aggregated(&plan.event().records[index].data));
                plan.add_whole(index);
            }
            Found::Members(aggregate) => plan.add_members(index, aggregate),
            Found::Misplaced => plan.counts.misplaced += 1,
            Found::Poison(trouble) => {
                plan.reject(Slot { record: index, member: None }, trouble.clone(), None)
            }
        }
    }
    if let Some(trouble) = blocked {
        plan.block(found.len(), trouble);
    }
}

fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn lower(lowest: &mut Option<(usize, Trouble)>, index: usize, trouble: Trouble) {
    if lowest.as_ref().is_none_or(|(low, _)| index < *low) {
        *lowest = Some((index, trouble));
    }
}

fn log(event: &Event, report: &Report) {
    let (stream, counts) = (&*event.stream, &report.counts);
    let shard = event.records.first().map_or("", |record| record.shard.as_str());
    if let Some(failed) = &report.failed {
        let from = &*failed.sequence_number;
        tracing::warn!(
            stream,
            shard,
            from,
            code = failed.trouble.code(),
            ?counts,
            "part of a batch comes again: {}",
            failed.trouble.message
        );
    } else if counts.dead_letters + counts.damaged > 0 {
        tracing::warn!(stream, shard, ?counts, "a batch is done, with records out of the ordinary");
    } else {
        tracing::debug!(stream, shard, ?counts, "a batch is done");
    }
}
