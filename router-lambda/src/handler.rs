//! The handler: a batch of Kinesis records in, a partial batch response out.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use headworks_record::aggregate::{Aggregate, Decoded, decode};
use headworks_record::ownership::{Foreign, Verdict, verdict};
use headworks_record::{Creation, Lane};
use headworks_telemetry::{RecordTracer, Sampler};
use tokio::time::{Instant, timeout_at};

use crate::dead_letter::{self, DeadLetters, Reason};
use crate::event::{Event, KinesisRecord};
use crate::outbound::Outbound;
use crate::plan::{Batch, Plan, Slot};
use crate::progress::track::{self, Known};
use crate::progress::{self, DEFAULT_READ_AFTER, LIFETIME, Progress};
use crate::report::{Failed, Report};
use crate::shards::{ListShards, Ranges};
use crate::spans::{self, Call, Graves};
use crate::table::RouteTable;
use crate::trouble::Trouble;

/// How many dead letters are written side by side.
const LETTERS_AT_ONCE: usize = 8;
/// The time that is kept for the end of an invocation: answers, dead letters, the response.
pub const DEFAULT_MARGIN: Duration = Duration::from_secs(2);

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
    table: Arc<RouteTable>,
    outbound: Arc<dyn Outbound>,
    dead_letters: Arc<dyn DeadLetters>,
    shards: Arc<dyn ListShards>,
    ranges: Ranges,
    tracer: RecordTracer,
    sampler: Sampler,
    margin: Duration,
    progress: Option<Arc<dyn Progress>>,
    read_after: Duration,
    cold: AtomicBool,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("streams", &self.table.streams()).finish_non_exhaustive()
    }
}

/// What a Kinesis record turned out to be.
enum Found {
    Whole,
    Members(Aggregate),
    Misplaced,
    Poison(Trouble),
    Blocked(Trouble),
}

/// When the parts of an invocation must end.
#[derive(Clone, Copy)]
struct Times {
    started: SystemTime,
    /// No put is tried after this.
    put: Instant,
    /// The writers have answered.
    answer: Instant,
    /// Dead letters are written.
    letters: Instant,
    /// What each destination has is written down.
    progress: Instant,
}

impl Times {
    fn new(started: SystemTime, deadline: Instant, margin: Duration) -> Self {
        let remaining = deadline.saturating_duration_since(Instant::now());
        let margin = margin.min(remaining / 4);
        Self {
            started,
            put: deadline - margin,
            answer: deadline - margin / 2,
            letters: deadline - margin / 4,
            progress: deadline - margin / 8,
        }
    }
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
            table,
            outbound,
            dead_letters,
            shards,
            ranges: Ranges::default(),
            tracer: RecordTracer::disabled(),
            sampler: Sampler::never(),
            margin: DEFAULT_MARGIN,
            progress: None,
            read_after: DEFAULT_READ_AFTER,
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

    /// The table in force.
    pub fn table(&self) -> &RouteTable {
        &self.table
    }

    /// Handles a batch: when this returns, everything below [`Report::failed`] is stored, dropped by
    /// the table, skipped because its writer puts it again, or in the dead letters.
    pub async fn handle(&self, event: &Event, invocation: &Invocation) -> Result<Report, Error> {
        let started = SystemTime::now();
        let cold = self.cold.swap(false, Ordering::Relaxed);
        if event.records.is_empty() {
            return Ok(Report::default());
        }
        if self.table.streams().contains(&event.stream) {
            return Err(Error::Loop { stream: event.stream.to_string() });
        }
        let times = Times::new(started, invocation.deadline, self.margin);
        let known = self.recall(event, times).await;
        let mut plan = self.plan(event, times, &known).await;
        plan.counts.skipped = plan.skipped.len() as u64;

        // What is known to be poison is put away first: if that fails, what follows must wait, too.
        let mut graves = Graves::default();
        let first: Vec<Slot> = plan.rejected.keys().copied().collect();
        if let Some((slot, error)) = self.bury(&plan, first, times, &mut graves).await {
            plan.block(slot.record, Trouble::retryable(error.code(), &error));
        }

        let mut lowest = plan.blocked.take();
        let mut troubles: HashMap<Slot, Trouble> = HashMap::new();
        let mut late = BTreeSet::new();
        let outcomes = self.put(&mut plan.batches, times).await;
        for (stream_index, slot, outcome) in &outcomes {
            let (stream_index, slot) = (*stream_index, *slot);
            let Err(trouble) = outcome.clone() else {
                plan.counts.stored += 1;
                continue;
            };
            troubles.entry(slot).or_insert_with(|| trouble.clone());
            if trouble.is_poison() {
                plan.reject(slot, trouble, Some(self.table.streams()[stream_index].to_string()));
                late.insert(slot);
            } else {
                plan.counts.failed += 1;
                lower(&mut lowest, slot.record, trouble);
            }
        }
        if let Some((slot, error)) = self.bury(&plan, late, times, &mut graves).await {
            lower(&mut lowest, slot.record, Trouble::retryable(error.code(), &error));
        }

        plan.counts.dead_letters = graves.0.len() as u64;
        let failed = lowest.as_ref().map(|(index, _)| *index);
        self.remember(&plan, &known, &outcomes, &graves, failed, times).await;
        let failed = lowest.map(|(index, trouble)| Failed {
            sequence_number: event.records[index].sequence_number.clone(),
            trouble,
        });
        let report = Report { failed, counts: plan.counts };
        if self.tracer.is_enabled() {
            let call = Call { event, invocation, started, ended: SystemTime::now(), cold };
            spans::emit(&self.tracer, &self.table, &call, &plan, &troubles, &graves, &report);
        }
        log(event, &report);
        Ok(report)
    }

    async fn plan<'a>(&'a self, event: &'a Event, times: Times, known: &'a Known) -> Plan<'a> {
        let mut plan = Plan::new(event, &self.table, &self.tracer, self.sampler, times.put, known);
        for (index, record) in event.records.iter().enumerate() {
            plan.counts.kinesis_records += 1;
            match self.inspect(&event.stream, record, times).await {
                Found::Whole => {
                    plan.counts.damaged +=
                        u64::from(headworks_record::aggregate::looks_aggregated(&record.data));
                    plan.add_whole(index);
                }
                Found::Members(aggregate) => plan.add_members(index, &aggregate),
                Found::Misplaced => plan.counts.misplaced += 1,
                Found::Poison(trouble) => plan.reject(Slot { record: index, member: None }, trouble, None),
                Found::Blocked(trouble) => {
                    plan.block(index, trouble);
                    break;
                }
            }
        }
        plan
    }

    /// What destinations have of a batch that comes again.
    async fn recall(&self, event: &Event, times: Times) -> Known {
        let Some(store) = &self.progress else { return Known::default() };
        let oldest = event.records.iter().map(|record| record.arrival_ms).min().unwrap_or(0);
        let age =
            times.started.duration_since(UNIX_EPOCH + Duration::from_millis(oldest)).unwrap_or_default();
        if age < self.read_after {
            return Known::default();
        }
        let (shard, lanes) = (shard_name(event), track::lanes(event));
        match timeout_at(times.put, store.read(&shard, &lanes)).await {
            Ok(Ok(entries)) => Known::new(entries, &self.table, seconds(times.started)),
            Ok(Err(error)) => {
                tracing::warn!(%shard, code = error.code(), "destinations may get records again: {error}");
                Known::default()
            }
            Err(_elapsed) => {
                tracing::warn!(%shard, "destinations may get records again: the progress was not read in time");
                Known::default()
            }
        }
    }

    /// Writes down what each destination has, if the batch comes again; else forgets it.
    async fn remember(
        &self,
        plan: &Plan<'_>,
        known: &Known,
        outcomes: &[(usize, Slot, Result<(), Trouble>)],
        graves: &Graves,
        failed: Option<usize>,
        times: Times,
    ) {
        let Some(store) = &self.progress else { return };
        let event = plan.event();
        let shard = shard_name(event);
        let (entries, spent) = match failed {
            None => (Vec::new(), known.spent(event)),
            Some(failed) => {
                let done = plan.done(outcomes, |slot| graves.0.contains_key(&slot));
                let expires = seconds(times.started) + LIFETIME.as_secs();
                let entries = known.advance(event, &self.table, &done, failed, expires);
                let spent = known.beside(&entries);
                (entries, spent)
            }
        };
        let write = async {
            if !entries.is_empty() {
                store.write(&shard, entries).await?;
            }
            if !spent.is_empty() {
                store.forget(&shard, spent).await?;
            }
            Ok(())
        };
        let written = timeout_at(times.progress, write).await;
        let problem: Option<progress::Error> = match written {
            Ok(Ok(())) => return,
            Ok(Err(error)) => Some(error),
            Err(_elapsed) => None,
        };
        let reason =
            problem.map_or_else(|| "the progress was not written in time".to_owned(), |e| e.to_string());
        tracing::warn!(%shard, "destinations may get records again: {reason}");
    }

    /// Takes a Kinesis record apart and applies the hash-range rule.
    async fn inspect(&self, stream: &str, record: &KinesisRecord, times: Times) -> Found {
        let aggregate = match decode(&record.data) {
            Ok(Decoded::Aggregate(aggregate)) => aggregate,
            Ok(Decoded::Plain) => return Found::Whole,
            Ok(Decoded::Damaged(damage)) => {
                let (shard, sequence_number) = (&record.shard, &*record.sequence_number);
                tracing::warn!(stream, %shard, sequence_number, %damage, "a damaged aggregate is routed as it is");
                return Found::Whole;
            }
            Err(error) => return Found::Poison(Trouble::poison(error.code(), error)),
        };
        let ours = aggregate.envelope().is_some();
        // Only an aggregate of ours whose label names another shard needs the shard's range.
        if !ours || Lane::shard_of(&record.partition_key) == Some(record.shard.as_str()) {
            return Found::Members(aggregate);
        }
        let range = match timeout_at(times.put, self.ranges.of(&*self.shards, stream, &record.shard)).await {
            Ok(Ok(range)) => range,
            Ok(Err(error)) => return Found::Blocked(Trouble::retryable(error.code(), error)),
            Err(_elapsed) => {
                let message = "the shards of the inbound stream were not listed in time";
                return Found::Blocked(Trouble::retryable("shards-not-listed", message));
            }
        };
        match verdict(&aggregate, &record.partition_key, &record.shard, &range, Foreign::Deliver) {
            Ok(Verdict::Deliver) => Found::Members(aggregate),
            Ok(Verdict::Misplaced { member }) => {
                let (shard, sequence_number) = (&record.shard, &*record.sequence_number);
                tracing::info!(stream, %shard, sequence_number, member, "a misplaced aggregate is skipped: its writer puts it again");
                Found::Misplaced
            }
            Err(error) => Found::Poison(Trouble::poison(error.code(), error)),
        }
    }

    /// Puts every batch, each destination on its own, so that a slow one holds up no other.
    async fn put(&self, batches: &mut [Batch], times: Times) -> Vec<(usize, Slot, Result<(), Trouble>)> {
        let puts = batches.iter_mut().enumerate().filter(|(_, batch)| !batch.puts.is_empty()).map(
            |(index, batch)| {
                let Batch { puts, slots } = std::mem::take(batch);
                async move {
                    let stream = &self.table.streams()[index];
                    let put = self.outbound.put(stream, puts, times.answer);
                    let mut outcomes = timeout_at(times.letters, put).await.unwrap_or_default();
                    let silent = || {
                        Err(Trouble::retryable("deadline-exceeded", "the destination did not answer in time"))
                    };
                    outcomes.resize_with(slots.len(), silent);
                    slots.into_iter().zip(outcomes).map(move |(slot, outcome)| (index, slot, outcome))
                }
            },
        );
        join_all(puts).await.into_iter().flatten().collect()
    }

    /// Writes dead letters; the lowest one that could not be written.
    async fn bury(
        &self,
        plan: &Plan<'_>,
        slots: impl IntoIterator<Item = Slot>,
        times: Times,
        graves: &mut Graves,
    ) -> Option<(Slot, dead_letter::Error)> {
        // Collected first, each with what it owns: closures over borrowed items make futures that are not Send.
        let writes: Vec<_> = slots
            .into_iter()
            .filter_map(|slot| Some((slot, plan.rejected.get(&slot)?.clone())))
            .map(|(slot, reasons)| self.write_letter(plan, slot, reasons, times))
            .collect();
        let mut writes = futures_util::stream::iter(writes).buffer_unordered(LETTERS_AT_ONCE);
        let mut lowest: Option<(Slot, dead_letter::Error)> = None;
        while let Some((slot, creation, reasons, written)) = writes.next().await {
            match written {
                Ok(()) => {
                    if let Some(reason) = reasons.into_iter().next() {
                        graves.0.insert(slot, (creation, reason));
                    }
                }
                Err(error) if lowest.as_ref().is_none_or(|(low, _)| slot < *low) => {
                    lowest = Some((slot, error));
                }
                Err(_) => {}
            }
        }
        lowest
    }

    async fn write_letter(
        &self,
        plan: &Plan<'_>,
        slot: Slot,
        reasons: Vec<Reason>,
        times: Times,
    ) -> (Slot, Creation, Vec<Reason>, Result<(), dead_letter::Error>) {
        let (letter, creation) = plan.letter(slot, &reasons);
        let written = match timeout_at(times.letters, self.dead_letters.write(&letter)).await {
            Ok(written) => written,
            Err(_elapsed) => Err(dead_letter::Error::Deadline { key: letter.key() }),
        };
        (slot, creation, reasons, written)
    }
}

fn shard_name(event: &Event) -> String {
    let shard = event.records.first().map_or("", |record| record.shard.as_str());
    format!("{}/{shard}", event.stream)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
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
