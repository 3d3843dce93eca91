//! What a worker holds while it reads a shard, and what it has to ask the stream and the table about it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use headworks_record::{HashRange, ShardId};
use headworks_telemetry::RecordTracer;
use tokio::sync::oneshot;

use super::loss::DataLoss;
use super::session::Session;
use crate::backoff::Backoff;
use crate::config::Config;
use crate::dead_letter::DeadLetters;
use crate::dedup::{Failure, Handover, History, Window};
use crate::delivery::Interrupt;
use crate::error::Error;
use crate::fanout::registration::{ConsumerArns, limited};
use crate::handle::{Handle, ShardGauge};
use crate::lease::heartbeat::Changes;
use crate::lease::machine::Leases;
use crate::lease::{Lease, LeaseStore, answered, family};
use crate::position::{Checkpoint, Position, SequenceNumber, Start};
use crate::streams::{self, ReadFrom, ShardFilter, ShardInfo, Streams};

/// What all shards of a consumer share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Arc<Config>,
    pub(crate) streams: Arc<dyn Streams>,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) tracer: RecordTracer,
    pub(crate) handle: Handle,
    pub(crate) changes: Changes,
    pub(crate) consumer_arns: ConsumerArns,
    pub(crate) handover: Handover,
    pub(crate) letters: Option<Arc<dyn DeadLetters>>,
}

impl Context {
    pub(crate) fn stream_error(&self, source: streams::Error) -> Error {
        Error::Stream { stream: self.config.stream_text(), source }
    }

    pub(crate) async fn shards(&self, filter: ShardFilter) -> Result<Vec<ShardInfo>, streams::Error> {
        limited(&self.config, "ListShards", self.streams.shards(filter)).await
    }
}

/// Why the loop over events was left.
pub(super) enum Exit {
    Ended(Vec<ShardInfo>),
    /// To be read from elsewhere; whoever asked waits for the answer.
    Moved(Checkpoint, oneshot::Sender<Result<Checkpoint, Error>>),
    Stopped,
    Lost,
    Failed(Error),
}

impl From<Interrupt> for Exit {
    fn from(interrupt: Interrupt) -> Self {
        match interrupt {
            // Which of the two it is, the session tells.
            Interrupt::Session => Exit::Stopped,
            Interrupt::Failed(error) => Exit::Failed(error),
        }
    }
}

/// A shard whose lease this worker has.
#[derive(Debug)]
pub(crate) struct Held {
    pub(super) context: Arc<Context>,
    pub(super) lease: Lease,
    pub(super) session: Session,
    pub(super) gauge: ShardGauge,
    // With which the shard begins, where this worker reads on from its parents.
    begins: Option<SequenceNumber>,
}

impl Held {
    /// `begins` is the sequence number with which the shard begins, if it follows shards that were read.
    pub(crate) fn new(
        context: Arc<Context>,
        lease: Lease,
        session: Session,
        gauge: ShardGauge,
        begins: Option<SequenceNumber>,
    ) -> Self {
        Self { context, lease, session, gauge, begins }
    }

    pub(super) async fn create_children(&self, children: &[ShardInfo]) -> Result<Vec<ShardId>, Error> {
        let (store, shard) = (&self.context.store, &self.lease.shard);
        let limit = self.context.config.call_timeout;
        let listed;
        let mut all: &[ShardInfo] = children;
        let children = match children {
            [] => {
                listed =
                    self.context.shards(ShardFilter::All).await.map_err(|e| self.context.stream_error(e))?;
                all = &listed;
                listed.iter().filter(|child| child.parents.contains(shard)).cloned().collect()
            }
            children => children.to_vec(),
        };
        // After a split nothing else has to be looked at: a lease that exists already stays as it is.
        let merged = children.iter().any(|child| child.parents.iter().any(|parent| parent != shard));
        let mut leases = Leases::new();
        leases.insert(shard.clone(), self.lease.clone());
        let relisted;
        if merged {
            leases = answered(limit, store.leases())
                .await?
                .into_iter()
                .map(|lease| (lease.shard.clone(), lease))
                .collect();
            relisted =
                self.context.shards(ShardFilter::All).await.map_err(|e| self.context.stream_error(e))?;
            all = &relisted;
        }
        for lease in family::successors(&children, all, &leases) {
            if answered(limit, store.create(&lease)).await? {
                tracing::info!(shard = %lease.shard, parents = ?lease.parents, "a lease was created");
            }
        }
        self.context.changes.add();
        Ok(children.into_iter().map(|child| child.id).collect())
    }

    /// The service does not know the shard or the consumer: an expired shard has ended, with a loss.
    pub(super) async fn gone(&self, error: streams::Error) -> Result<Vec<ShardInfo>, Exit> {
        let mut backoff = retries();
        let shard = &self.lease.shard;
        loop {
            match self.context.shards(ShardFilter::All).await {
                Ok(shards) if shards.iter().any(|listed| listed.id == *shard) => {
                    return Err(Exit::Failed(self.context.stream_error(error)));
                }
                Ok(shards) => {
                    let checkpoint = self.lease.checkpoint.text().into_owned();
                    DataLoss::ShardExpired { shard: shard.clone(), checkpoint }.tell();
                    self.gauge.expired();
                    let children = shards.into_iter().filter(|child| child.parents.contains(shard));
                    return Ok(children.collect());
                }
                Err(error) if !error.is_retryable() => {
                    return Err(Exit::Failed(self.context.stream_error(error)));
                }
                Err(_) => {}
            }
            if self.session.over_within(backoff.next_delay()).await {
                return Err(Exit::Stopped);
            }
        }
    }

    /// The shard's hash range: from the lease, or, where an older KCL wrote it, from the stream.
    pub(super) async fn range(&self) -> Result<HashRange, Exit> {
        if let Some(range) = self.lease.range {
            return Ok(range);
        }
        let mut backoff = retries();
        loop {
            match self.context.shards(ShardFilter::All).await {
                Ok(shards) => {
                    let listed = shards.iter().find(|shard| shard.id == self.lease.shard);
                    // Of a shard that expired nothing can be read: the range does not matter.
                    return Ok(listed.map_or(HashRange::ALL, |shard| shard.range));
                }
                Err(error) if !error.is_retryable() => {
                    return Err(Exit::Failed(self.context.stream_error(error)));
                }
                Err(_) => {}
            }
            if self.session.over_within(backoff.next_delay()).await {
                return Err(Exit::Stopped);
            }
        }
    }

    /// The identities that the shard brought before the checkpoint, rebuilt from the stream.
    ///
    /// Delivery waits for it: going on without it could deliver repeats that nobody would count.
    pub(super) async fn window(&self, range: HashRange, first_arrival_ms: u64) -> Result<Window, Exit> {
        let context = &self.context;
        let history = History {
            streams: context.streams.as_ref(),
            config: &context.config,
            handover: &context.handover,
            lease: &self.lease,
            range,
            first_arrival_ms,
        };
        let mut backoff = retries();
        loop {
            let built = tokio::select! {
                biased;
                built = history.window() => built,
                () = self.session.over() => return Err(Exit::Stopped),
            };
            match built {
                Ok(window) => return Ok(window),
                // Nothing is left to look back on; the subscription finds out what else it means.
                Err(Failure(streams::Error::NotFound { .. })) => return Ok(history.empty()),
                Err(Failure(error)) if error.is_retryable() => {
                    tracing::warn!(shard = %self.lease.shard, %error, "looking back for repeats will be tried again");
                }
                Err(Failure(error)) => return Err(Exit::Failed(context.stream_error(error))),
            }
            if self.session.over_within(backoff.next_delay()).await {
                return Err(Exit::Stopped);
            }
        }
    }

    /// What the stream must still have, or must have had lately, for nothing to be lost.
    pub(super) fn anchor(&self) -> Option<Anchor> {
        match (&self.lease.checkpoint, &self.begins) {
            (Checkpoint::At(position), _) => Some(Anchor {
                sequence: position.sequence.clone(),
                kind: match position.sub {
                    i64::MAX => Kind::Place,
                    -1 => Kind::Before,
                    _ => Kind::Record,
                },
            }),
            (Checkpoint::TrimHorizon, Some(begins)) => {
                Some(Anchor { sequence: begins.clone(), kind: Kind::Place })
            }
            _ => None,
        }
    }

    /// Whether the trim horizon had passed the anchor when this event, the first with something to tell, came.
    pub(super) async fn is_trimmed(
        &self,
        anchor: &Anchor,
        first: Option<&SequenceNumber>,
        ended: bool,
    ) -> bool {
        if first.is_some_and(|first| *first <= anchor.sequence) {
            return false;
        }
        match (&anchor.kind, anchor.sequence.arrived()) {
            // It would have come first.
            (Kind::Record, _) if first.is_some() || ended => true,
            (Kind::Before, None) => first.is_some() || ended,
            (_, None) => false,
            (_, Some(at)) => self.has_outlived_retention(at).await,
        }
    }

    async fn has_outlived_retention(&self, since: SystemTime) -> bool {
        let age = SystemTime::now().duration_since(since).unwrap_or_default() + HORIZON_MARGIN;
        if age < LEAST_RETENTION {
            return false;
        }
        let shard = &self.lease.shard;
        let mut backoff = retries();
        for _ in 0..RETENTION_ATTEMPTS {
            let asked = self.context.streams.retention(shard);
            match limited(&self.context.config, "DescribeStreamSummary", asked).await {
                Ok(Some(retention)) => return age >= retention,
                Ok(None) => return false,
                Err(error) if error.is_retryable() => {}
                Err(_) => break,
            }
            if self.session.over_within(backoff.next_delay()).await {
                return false;
            }
        }
        // Rather a loss too many in the log than one too few.
        true
    }

    /// The stream began behind the checkpoint.
    pub(super) fn trimmed(&self, checkpoint: SequenceNumber, first: Option<SequenceNumber>) {
        DataLoss::CheckpointTrimmed { shard: self.lease.shard.clone(), checkpoint, first }.tell();
        self.gauge.trimmed();
    }

    pub(super) fn starting_point(&self) -> (ReadFrom, Option<Position>) {
        match (&self.lease.checkpoint, &self.context.config.start) {
            // The record itself is read again: members behind the position may be left in it.
            (Checkpoint::At(position), _) => {
                (ReadFrom::At(position.sequence.clone()), Some(position.clone()))
            }
            (Checkpoint::Latest, _) => (ReadFrom::Latest, None),
            (Checkpoint::AtTimestamp, Start::AtTimestamp(time)) => (ReadFrom::AtTimestamp(*time), None),
            (Checkpoint::AtTimestamp, _) => {
                tracing::warn!(shard = %self.lease.shard,
                    "the lease begins at a timestamp that this worker was not told: it begins at the oldest record");
                (ReadFrom::TrimHorizon, None)
            }
            (Checkpoint::TrimHorizon | Checkpoint::ShardEnd, _) => (ReadFrom::TrimHorizon, None),
        }
    }
}

/// Where reading goes on, as far as the stream can tell whether it still has what comes there.
#[derive(Debug)]
pub(super) struct Anchor {
    pub(super) sequence: SequenceNumber,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A record's: the stream brings it again first unless it has expired.
    Record,
    /// In front of what may be a record or not.
    Before,
    /// No record's: only its age tells.
    Place,
}

/// A stream keeps its records for a day at least.
const LEAST_RETENTION: Duration = Duration::from_secs(24 * 3_600);
/// What the clocks may differ by.
const HORIZON_MARGIN: Duration = Duration::from_secs(60);
const RETENTION_ATTEMPTS: u32 = 5;

pub(super) fn retries() -> Backoff {
    Backoff::new(Duration::from_millis(100), Duration::from_secs(2))
}
