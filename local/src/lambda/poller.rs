//! [`Poller`]: reads one shard, keeps its lanes busy and ends with the shard.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::destination::{Destination, Document, Origin};
use super::error::FunctionError;
use super::event::EventFormat;
use super::filter::Source;
use super::function::Function;
use super::lane::{Item, Lane, Rules, Step, backoff};
use super::progress::{Progress, Shard};
use super::response::{Verdict, verdict};
use crate::faults::{Service, Target};
use crate::kinesis::{Engine, Error, Position, ReadLimits, SequenceNumber, ShardReader};

/// What throttled reads are called.
const THROTTLED: &str = "ProvisionedThroughputExceededException";

/// What the pollers of one mapping share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) mapping_id: String,
    pub(super) config: Config,
    pub(super) rules: Rules,
    pub(super) engine: Arc<Engine>,
    pub(super) stream_arn: String,
    pub(super) function: Function,
    pub(super) progress: Arc<Progress>,
}

/// How a poller ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The shard is closed and everything in it is finished.
    ShardEnd,
    /// It was told to stop.
    Stopped,
}

enum Outcome {
    Answered(Result<Bytes, FunctionError>),
    /// The event would be larger than a function can be handed.
    TooLarge,
    Discarded,
    /// Stopped while the destination did not take the records: they stay unfinished.
    Abandoned,
}

pub(super) struct Poller {
    shared: Arc<Shared>,
    reader: ShardReader,
    shard_id: String,
    format: EventFormat,
    next: Position,
    /// The end of the shard has been read.
    ended: bool,
    source: Source,
    /// When the shard may be read again, after a read that failed or waits.
    read_at: Option<Instant>,
    /// The next read waits no more and is not asked about.
    waited: bool,
    read_failures: u32,
    lanes: Vec<Lane>,
    held_bytes: usize,
    running: FuturesUnordered<BoxFuture<'static, (usize, Outcome)>>,
    stop: CancellationToken,
}

impl Poller {
    pub(super) fn new(
        shared: Arc<Shared>,
        reader: ShardReader,
        start: Position,
        stop: CancellationToken,
    ) -> Self {
        let shard_id = reader.shard_id();
        let format = EventFormat::new(
            &shard_id,
            &shared.stream_arn,
            &shared.engine.settings().region,
            &shared.config.role_arn,
        );
        let source = Source::new(
            &reader,
            &shared.stream_arn,
            &shared.engine.settings().region,
            &shared.config.role_arn,
        );
        let lanes = (0..shared.config.parallelization_factor).map(|_| Lane::default()).collect();
        Self {
            shared,
            reader,
            shard_id,
            format,
            next: start,
            ended: false,
            source,
            read_at: None,
            waited: false,
            read_failures: 0,
            lanes,
            held_bytes: 0,
            running: FuturesUnordered::new(),
            stop,
        }
    }

    pub(super) async fn run(mut self) -> Result<End, Error> {
        let mut give_up = None;
        loop {
            let stopping = give_up.is_some();
            let mut wake = give_up;
            if !stopping {
                self.fill()?;
                wake = self.dispatch();
                wake = wake.into_iter().chain(self.read_at).min();
            }
            let idle = self.lanes.iter().all(|lane| lane.oldest().is_none());
            self.publish(idle && self.ended);
            if idle && self.ended {
                return Ok(End::ShardEnd);
            }
            if stopping && self.running.is_empty() {
                return Ok(End::Stopped);
            }
            let hungry = !stopping && !self.ended && self.has_room() && self.read_at.is_none();
            tokio::select! {
                // The stop first: a function that always has an answer ready must not keep it from being seen.
                biased;
                () = self.stop.cancelled(), if !stopping => {
                    give_up = Some(Instant::now() + self.shared.config.shutdown_grace);
                }
                Some((lane, outcome)) = self.running.next(), if !self.running.is_empty() => self.settle(lane, outcome),
                () = sleep_until(wake) => {
                    if stopping {
                        tracing::warn!(
                            shard = self.shard_id,
                            invocations = self.running.len(),
                            "invocations were still running when the mapping had to stop: their records are unfinished"
                        );
                        return Ok(End::Stopped);
                    }
                }
                more = self.reader.wait_for_more(self.next), if hungry => more?,
            }
        }
    }

    fn has_room(&self) -> bool {
        self.held_bytes < self.shared.config.read_ahead_bytes
    }

    /// Reads what is there, up to the read-ahead.
    fn fill(&mut self) -> Result<(), Error> {
        if self.ended || !self.has_room() || !self.may_read() {
            return Ok(());
        }
        let bytes = self.shared.config.read_ahead_bytes - self.held_bytes;
        let batch = self.reader.read(self.next, ReadLimits { records: 10_000, bytes })?;
        if batch.trimmed > 0 {
            Progress::add(
                &self.shared.progress.trimmed,
                usize::try_from(batch.trimmed).unwrap_or(usize::MAX),
            );
            tracing::error!(
                stream = self.shared.config.stream,
                shard = self.shard_id,
                records = batch.trimmed,
                "records passed the stream's retention before the mapping read them: they are lost to the function; \
                 raise the retention or the function's throughput"
            );
        }
        self.next = batch.next;
        self.ended = batch.end.is_some();
        let read_at = Instant::now();
        for record in batch.records {
            if !self.shared.config.filters.admits(&record, &self.source) {
                Progress::add(&self.shared.progress.filtered, 1);
                continue;
            }
            self.held_bytes += record.size();
            let lane = self.lane_of(&record.partition_key);
            let event_len = self.format.record_len(&record);
            self.lanes[lane].push(Item { record, event_len, read_at });
        }
        Ok(())
    }

    /// Whether the shard is read now: faults may have its reads fail or wait. A read that would find nothing is none.
    fn may_read(&mut self) -> bool {
        let now = Instant::now();
        if self.read_at.is_some_and(|at| at > now) {
            return false;
        }
        self.read_at = None;
        let faults = self.shared.engine.faults();
        if std::mem::take(&mut self.waited) || faults.is_idle() || !self.reader.shard.has_more(self.next) {
            return true;
        }
        let target = Target {
            service: Service::Kinesis,
            // Without enhanced fan-out Lambda reads with this operation.
            operation: "GetRecords".to_owned(),
            resource: Some(self.shared.config.stream.clone()),
            shards: vec![self.shard_id.clone()],
            keys: Vec::new(),
        };
        let plan = faults.plan(&target);
        let error = plan.refuse.or(plan.refuse_after).map(|injected| injected.name(THROTTLED).0);
        let lost = (plan.reset || plan.lost).then(|| "the connection was closed".to_owned());
        if let Some(error) = error.or(lost) {
            Progress::add(&self.shared.progress.read_failures, 1);
            tracing::warn!(
                stream = self.shared.config.stream,
                shard = self.shard_id,
                error,
                "a read failed, by a fault; it is tried again"
            );
            self.read_at = Some(now + backoff(self.read_failures, rand::random(), &self.shared.rules));
            self.read_failures = self.read_failures.saturating_add(1);
            return false;
        }
        self.read_failures = 0;
        let delay = plan.delay + plan.delay_after;
        if delay.is_zero() {
            return true;
        }
        self.read_at = Some(now + delay);
        self.waited = true;
        false
    }

    /// All records of a partition key go through one lane. The hash has fixed keys, so that runs are alike.
    fn lane_of(&self, partition_key: &str) -> usize {
        let lanes = self.lanes.len() as u64;
        if lanes == 1 {
            return 0;
        }
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(partition_key);
        usize::try_from(hash % lanes).unwrap_or(0)
    }

    /// Starts what the lanes want; returns when to ask them again.
    fn dispatch(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let now_ms = self.shared.engine.now_ms();
        // With a full read-ahead nothing more arrives that a window could gather.
        let flush = self.ended || !self.has_room();
        let mut wake: Option<Instant> = None;
        for index in 0..self.lanes.len() {
            let step = self.lanes[index].step(now, now_ms, flush, &self.shared.rules);
            let Some(batch) = self.lanes[index].current() else {
                if let Step::Wait(at) = step {
                    wake = Some(wake.map_or(at, |wake| wake.min(at)));
                }
                continue;
            };
            let progress = &self.shared.progress;
            let job: BoxFuture<'static, Outcome> = match step {
                Step::Rest | Step::Wait(_) => continue,
                Step::TooLarge => Box::pin(std::future::ready(Outcome::TooLarge)),
                Step::Invoke => {
                    Progress::add(&progress.invocations, 1);
                    Progress::add(&progress.retries, usize::from(batch.invokes > 1));
                    let event = self.format.write(batch.records());
                    let function = self.shared.function.clone();
                    Box::pin(async move { Outcome::Answered(function.invoke(event).await) })
                }
                Step::Discard(condition) => {
                    let records = batch.items.len();
                    let first = batch.records().next().map(|record| record.sequence.to_string());
                    let Some(destination) = self.shared.config.on_failure.clone() else {
                        tracing::warn!(
                            stream = self.shared.config.stream,
                            shard = self.shard_id,
                            condition = condition.name(),
                            records,
                            first,
                            "records are dropped, as the mapping has no on-failure destination"
                        );
                        self.running.push(Box::pin(std::future::ready((index, Outcome::Discarded))));
                        continue;
                    };
                    tracing::warn!(
                        stream = self.shared.config.stream,
                        shard = self.shard_id,
                        condition = condition.name(),
                        records,
                        first,
                        destination = destination.name(),
                        "records are given up"
                    );
                    let origin = Origin {
                        mapping_id: &self.shared.mapping_id,
                        function_arn: self.shared.function.arn(),
                        function_version: self.shared.function.version(),
                        stream_arn: &self.shared.stream_arn,
                        shard_id: &self.shard_id,
                    };
                    let event = self.format.write(batch.records());
                    let document = Document::new(&origin, batch, condition, &event, now_ms);
                    let (rules, stop) = (self.shared.rules.clone(), self.stop.clone());
                    Box::pin(discard(destination, document, rules, stop))
                }
            };
            self.running.push(Box::pin(async move { (index, job.await) }));
        }
        wake
    }

    fn settle(&mut self, index: usize, outcome: Outcome) {
        let lane = &mut self.lanes[index];
        let progress = &self.shared.progress;
        let failed = match outcome {
            Outcome::Abandoned => return,
            Outcome::Discarded => {
                let done = lane.finish();
                self.held_bytes -= done.bytes;
                Progress::add(&progress.discarded, done.records);
                return;
            }
            Outcome::TooLarge => Some((
                0,
                format!(
                    "the record makes an event larger than {} bytes, the most that a function can be handed",
                    self.shared.rules.max_event_bytes
                ),
            )),
            Outcome::Answered(Err(error)) => Some((0, error.to_string())),
            Outcome::Answered(Ok(_)) if !self.shared.config.report_batch_item_failures => None,
            Outcome::Answered(Ok(response)) => {
                let position = |identifier: &str| {
                    let sequence: SequenceNumber = identifier.parse().ok()?;
                    let items = &lane.current()?.items;
                    items.binary_search_by_key(&sequence, |item| item.record.sequence).ok()
                };
                match verdict(&response, position) {
                    Verdict::Success => None,
                    Verdict::FailedFrom(from) => {
                        Some((from, "the function reported failed records".to_owned()))
                    }
                    Verdict::Invalid(reason) => Some((0, reason)),
                }
            }
        };
        let done = match failed {
            None => lane.finish(),
            Some((from, reason)) => {
                Progress::add(&progress.failures, 1);
                tracing::warn!(
                    stream = self.shared.config.stream,
                    shard = self.shard_id,
                    records = lane.current().map_or(0, |batch| batch.items.len()),
                    from,
                    attempt = lane.current().map_or(0, |batch| batch.invokes),
                    reason,
                    "an event failed"
                );
                lane.fail(from, Instant::now(), rand::random(), &self.shared.rules)
            }
        };
        self.held_bytes -= done.bytes;
        Progress::add(&progress.records, done.records);
    }

    fn publish(&self, finished: bool) {
        // The checkpoint is the lowest unfinished position: a lane that is ahead does not move it.
        let oldest = self.lanes.iter().filter_map(Lane::oldest).min_by_key(|record| record.sequence);
        let shard = Shard {
            reached: oldest.map_or(self.next, |record| Position(record.sequence.index())),
            unfinished: oldest.map(|record| record.sequence),
            oldest_arrival_ms: oldest.map(|record| record.arrival_ms),
            finished,
        };
        self.shared.progress.publish(&self.shard_id, shard);
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Writes to the destination until it takes the document: the position must not move before.
async fn discard(
    destination: Destination,
    document: Result<Document, serde_json::Error>,
    rules: Rules,
    stop: CancellationToken,
) -> Outcome {
    let document = match document {
        Ok(document) => document,
        Err(error) => {
            tracing::error!(%error, "an invocation record cannot be written: the shard waits");
            stop.cancelled().await;
            return Outcome::Abandoned;
        }
    };
    let mut failures = 0_u32;
    loop {
        let error = match destination.put(&document).await {
            Ok(()) => return Outcome::Discarded,
            Err(error) => error,
        };
        let pause: Duration = backoff(failures, rand::random(), &rules);
        failures = failures.saturating_add(1);
        tracing::error!(
            destination = destination.name(),
            key = document.key,
            failures,
            error,
            "the on-failure destination did not take a record: the shard waits and tries again"
        );
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return Outcome::Abandoned,
        }
    }
}
