//! The outbound streams: one writer each, started when the first record goes there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use backon::{ExponentialBuilder, Retryable as _};
use headworks_record::aggregate::{self, Aggregate, Origin};
use headworks_telemetry::RecordTracer;
use headworks_writer::{
    Encoded, Failure, Fault, Handle, KinesisStream, Parcel, Put, Refused, StartError, Writer,
};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::capacity;
use crate::trouble::{Kind, Trouble};

/// What is put on a stream.
#[derive(Debug, Clone)]
pub enum Load {
    /// One record.
    Record(Put),
    /// Members of an inbound aggregate, as they are encoded there.
    Members(Members),
}

/// Members of an inbound aggregate that go on unchanged.
#[derive(Debug, Clone)]
pub struct Members {
    /// The aggregate.
    pub aggregate: Arc<Aggregate>,
    /// Their places in it; they ascend.
    pub places: Vec<u32>,
    /// Where the aggregate was found.
    pub origin: Arc<Origin>,
    /// How long they are tried.
    pub deadline: Instant,
}

impl Load {
    /// How many records it holds.
    pub fn len(&self) -> usize {
        match self {
            Load::Record(_) => 1,
            Load::Members(members) => members.places.len(),
        }
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The records one by one, for who has no use for encoded ones.
    pub fn into_puts(self) -> Result<Vec<Put>, aggregate::Error> {
        let Members { aggregate, places, origin, deadline } = match self {
            Load::Record(put) => return Ok(vec![put]),
            Load::Members(members) => members,
        };
        let members = places.iter().filter_map(|place| aggregate.member(*place as usize));
        let put = |record| Put { record, origin: Some(Arc::clone(&origin)), deadline: Some(deadline) };
        members.map(|member| member.to_record().map(put)).collect()
    }

    /// Roughly what holding it takes.
    fn weight(&self) -> usize {
        /// What holding a record costs beside its bytes, roughly, a member's key included.
        const OVERHEAD: usize = 512;
        let bytes = match self {
            Load::Record(put) => put.record.user_bytes(),
            Load::Members(Members { aggregate, places, .. }) => {
                let members = places.iter().filter_map(|place| aggregate.member(*place as usize));
                members.map(|member| member.encoded_len()).sum()
            }
        };
        bytes + self.len() * OVERHEAD
    }

    /// What the writer takes of it; if a member is poison, its members one by one.
    fn into_parcel(self) -> Result<Parcel, Vec<Result<Parcel, Trouble>>> {
        let Members { aggregate, places, origin, deadline } = match self {
            Load::Record(put) => return Ok(Parcel::Record(put)),
            Load::Members(members) => members,
        };
        let parcel =
            |encoded: Encoded| Parcel::Members(encoded.origin(Arc::clone(&origin)).deadline(deadline));
        // Keys of members that are not decoded are checked here, and nowhere before.
        let encoded = if places.len() == aggregate.len() {
            Encoded::whole(Arc::clone(&aggregate))
        } else {
            Encoded::members_at(Arc::clone(&aggregate), places.clone())
        };
        encoded.map(parcel).map_err(|_| {
            let one = |place| {
                let encoded = Encoded::members_at(Arc::clone(&aggregate), vec![place]);
                encoded.map(parcel).map_err(|error| Trouble::poison(error.code(), error))
            };
            places.iter().copied().map(one).collect()
        })
    }
}

/// Puts records on streams.
///
/// Trouble for which a rule's `spill-after` is meant is [`Trouble::unavailable`]; what is [`Trouble::retryable`] is waited
/// for whatever a rule says.
#[async_trait]
pub trait Outbound: Send + Sync + 'static {
    /// Puts the loads in order and says what became of each record, in the same order.
    ///
    /// Each load brings its own deadline; the answer is there by `until`. A record that is not put for a
    /// reason that passes is not overtaken by a later one of its key; but if it is for want of the stream
    /// ([`Trouble::may_spill`]), a later one may be put that has more time.
    async fn put(&self, stream: &str, loads: Vec<Load>, until: Instant) -> Vec<Result<(), Trouble>>;
}

/// How the router's writers group and retry.
///
/// A batch is handed over at once, so lingering would only delay it; memory is that of a small function. The largest
/// record is the least that every stream takes: one that takes more is asked.
pub fn writer_config() -> headworks_writer::Config {
    headworks_writer::Config {
        linger_ms: 0,
        fill_ms: 0,
        max_buffered_bytes: 32 << 20,
        drain_ms: 2_000,
        ..headworks_writer::Config::default()
    }
}

/// [`Outbound`] through `headworks_writer`.
#[derive(Debug)]
pub struct Writers {
    client: aws_sdk_kinesis::Client,
    config: headworks_writer::Config,
    tracer: RecordTracer,
    handles: Mutex<HashMap<String, Arc<OnceCell<Handle>>>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Writers {
    /// Writers that put through this client.
    pub fn new(
        client: aws_sdk_kinesis::Client,
        config: headworks_writer::Config,
        tracer: RecordTracer,
    ) -> Result<Self, headworks_writer::ConfigError> {
        config.validate()?;
        Ok(Self {
            client,
            config,
            tracer,
            handles: Mutex::default(),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        })
    }

    /// Drains and ends every writer.
    pub async fn shutdown(&self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn handle(&self, stream: &str, until: Instant) -> Result<Handle, Trouble> {
        let cell = {
            let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(handles.entry(stream.to_owned()).or_default())
        };
        // Many functions start at once and look at the same streams: the control plane throttles.
        let pauses = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(2))
            .without_max_times()
            .with_jitter();
        let start = || async {
            let config = capacity::fitted(&self.client, stream, &self.config).await?;
            let target = KinesisStream::new(self.client.clone(), stream);
            let (service, handle) = Writer::start(config, target, self.tracer.clone()).await?;
            self.tasks.spawn(service.run(self.shutdown.clone()));
            Ok::<_, StartError>(handle)
        };
        let mut last: Option<Trouble> = None;
        let started = cell.get_or_try_init(|| {
            start.retry(pauses).when(StartError::is_retryable).notify(|error, pause| {
                tracing::warn!(stream, %error, ?pause, "an outbound stream cannot be opened yet");
                // A later attempt that is not answered says nothing of a refused access.
                if last.as_ref().is_none_or(Trouble::may_spill) {
                    last = Some(of_start(error));
                }
            })
        });
        match timeout_at(until, started).await {
            Ok(Ok(handle)) => Ok(handle.clone()),
            Ok(Err(error)) => Err(of_start(&error)),
            Err(_elapsed) => {
                let last = last.unwrap_or_else(|| Trouble::unavailable("stream-unreadable", "no answer"));
                let message = format!("{stream:?} could not be opened in time: {}", last.message);
                Err(Trouble { code: "stream-unreadable".into(), message, ..last })
            }
        }
    }

    /// Forgets a writer that ended, so that the next batch starts a new one.
    fn forget(&self, stream: &str) {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).remove(stream);
    }
}

#[async_trait]
impl Outbound for Writers {
    async fn put(&self, stream: &str, loads: Vec<Load>, until: Instant) -> Vec<Result<(), Trouble>> {
        let total = loads.iter().map(Load::len).sum();
        let handle = match self.handle(stream, until).await {
            Ok(handle) => handle,
            Err(trouble) => return vec![Err(trouble); total],
        };
        let mut tickets = Vec::new();
        let mut refused = None;
        // Places that ascend.
        let mut poison: Vec<(usize, Trouble)> = Vec::new();
        let mut from = 0;
        for chunk in chunks(loads, self.config.max_buffered_bytes / 4) {
            let mut parcels = Vec::with_capacity(chunk.len());
            for load in chunk {
                let records = load.len();
                match load.into_parcel() {
                    Ok(parcel) => parcels.push(parcel),
                    Err(members) => {
                        for (place, member) in (from..).zip(members) {
                            match member {
                                Ok(parcel) => parcels.push(parcel),
                                Err(trouble) => poison.push((place, trouble)),
                            }
                        }
                    }
                }
                from += records;
            }
            // What follows a chunk that was not taken must not overtake it.
            match timeout_at(until, handle.put_parcels(parcels)).await {
                Ok(Ok(ticket)) => tickets.push(ticket),
                Ok(Err(error)) => {
                    if error == Refused::Stopped {
                        self.forget(stream);
                    }
                    refused = Some(of_refusal(&error));
                    break;
                }
                Err(_elapsed) => {
                    refused =
                        Some(Trouble::retryable("writer-full", "the writer had no room until the deadline"));
                    break;
                }
            }
        }
        let mut settled = Vec::with_capacity(total);
        for ticket in tickets {
            match timeout_at(until, ticket.outcomes()).await {
                Ok(outcomes) => {
                    settled.extend(outcomes.iter().map(|outcome| outcome.map(|_| ()).map_err(of_failure)));
                }
                Err(_elapsed) => {
                    refused = Some(Trouble::retryable(
                        "outcome-unknown",
                        "the writer did not answer by the deadline",
                    ));
                    break;
                }
            }
        }
        if settled.iter().any(|outcome| matches!(outcome, Err(t) if t.code == Failure::Stopped.code())) {
            self.forget(stream);
        }
        let rest =
            refused.unwrap_or_else(|| Trouble::retryable("outcome-unknown", "the writer gave no answer"));
        let rest = of_the_rest(rest, &settled);
        settled.resize_with(total - poison.len(), || Err(rest.clone()));
        for (place, trouble) in poison {
            settled.insert(place, Err(trouble));
        }
        settled
    }
}

/// Splits so that each part fits into the writer's budget; what is larger stands alone.
fn chunks(loads: Vec<Load>, budget: usize) -> Vec<Vec<Load>> {
    let mut chunks = Vec::new();
    let mut chunk: Vec<Load> = Vec::new();
    let mut bytes = 0;
    for load in loads {
        let weight = load.weight();
        if bytes + weight > budget && !chunk.is_empty() {
            chunks.push(std::mem::take(&mut chunk));
            bytes = 0;
        }
        bytes += weight;
        chunk.push(load);
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

fn of_failure(failure: &Failure) -> Trouble {
    match failure {
        Failure::TooLarge { .. } => Trouble::poison(failure.code(), failure),
        Failure::Refused { code, .. } => of_service_code(code, failure),
        // What came to no put found no room on its shard.
        Failure::DeadlineExceeded { fault: None, .. } => Trouble::unavailable(failure.code(), failure),
        Failure::DeadlineExceeded { fault: Some(fault), .. }
        | Failure::OutcomeUnknown { fault: Some(fault), .. }
            if is_of_the_stream(*fault) =>
        {
            Trouble::unavailable(failure.code(), failure)
        }
        _ => Trouble::retryable(failure.code(), failure),
    }
}

/// Whether it is pressure or an outage, by which `spill-after` is meant. What is added to the writer's faults is
/// not, until it is named here.
fn is_of_the_stream(fault: Fault) -> bool {
    matches!(fault, Fault::Throttled | Fault::Unavailable | Fault::Ambiguous)
}

/// Only what names the record or its stream is poison. An unknown code may be a permission or a key, which
/// an operator can mend: the shard waits.
fn of_service_code(code: &str, error: &impl std::fmt::Display) -> Trouble {
    match code {
        "ResourceNotFoundException" => Trouble::poison("destination-missing", error),
        "InvalidArgumentException" | "ValidationException" | "SerializationException" => {
            Trouble::poison("stream-refused", error)
        }
        _ => Trouble::retryable("stream-refused", error),
    }
}

/// What the writer had no room or time for waited behind what it took: if all that failed of that for want of the stream,
/// so did the rest.
fn of_the_rest(trouble: Trouble, settled: &[Result<(), Trouble>]) -> Trouble {
    let mut ahead = settled.iter().filter_map(|outcome| outcome.as_ref().err()).peekable();
    match trouble.is_retryable() && ahead.peek().is_some() && ahead.all(Trouble::may_spill) {
        true => Trouble { kind: Kind::Unavailable, ..trouble },
        false => trouble,
    }
}

fn of_refusal(error: &Refused) -> Trouble {
    match error {
        Refused::BatchTooLarge { .. } => Trouble::poison("record-too-large", error),
        _ => Trouble::retryable(error.code(), error),
    }
}

fn of_start(error: &StartError) -> Trouble {
    match error {
        StartError::Stream { source, .. } if source.code == "ResourceNotFoundException" => {
            Trouble::poison("destination-missing", error)
        }
        StartError::Stream { source, .. } if is_of_the_stream(source.fault) => {
            Trouble::unavailable(error.code(), error)
        }
        StartError::ShardMap { .. } => Trouble::unavailable(error.code(), error),
        _ => Trouble::retryable(error.code(), error),
    }
}

#[cfg(test)]
mod tests {
    use headworks_record::Record;

    use super::*;

    #[test]
    fn chunks_keep_order_and_fit() {
        let puts = |sizes: &[usize]| {
            sizes
                .iter()
                .map(|size| Record::builder("k").unwrap().data(vec![0; *size]).build())
                .map(|record| Load::Record(Put::new(record)))
                .collect::<Vec<_>>()
        };
        let sizes = |budget, given: &[usize]| -> Vec<Vec<usize>> {
            let chunks = chunks(puts(given), budget);
            let size = |load: &Load| load.clone().into_puts().unwrap()[0].record.data.len();
            chunks.iter().map(|chunk| chunk.iter().map(size).collect()).collect()
        };
        assert_eq!(sizes(2000, &[]), Vec::<Vec<usize>>::new());
        assert_eq!(
            sizes(2000, &[100, 200, 1000, 9000, 5]),
            [vec![100, 200], vec![1000], vec![9000], vec![5]]
        );
    }

    #[test]
    fn what_finds_no_room_waits_for_what_those_before_it_wait_for() {
        let full = || Trouble::retryable("writer-full", "x");
        let throttled = || Err(Trouble::unavailable("deadline-exceeded", "x"));
        let denied = || Err(Trouble::retryable("deadline-exceeded", "x"));
        assert!(of_the_rest(full(), &[Ok(()), throttled(), throttled()]).may_spill());
        assert!(!of_the_rest(full(), &[throttled(), denied()]).may_spill());
        assert!(!of_the_rest(full(), &[Ok(())]).may_spill(), "others fill it");
        assert!(of_the_rest(Trouble::poison("record-too-large", "x"), &[throttled()]).is_poison());
    }

    #[test]
    fn only_what_a_retry_cannot_mend_is_poison() {
        let refused =
            |code: &str| of_failure(&Failure::Refused { code: code.to_owned(), message: "m".to_owned() });
        assert_eq!(refused("ResourceNotFoundException").code(), "destination-missing");
        assert!(refused("ResourceNotFoundException").is_poison());
        assert!(refused("InvalidArgumentException").is_poison());
        assert!(refused("KMSAccessDeniedException").is_retryable());
        assert!(refused("SomethingNewException").is_retryable());
        assert!(
            !refused("KMSAccessDeniedException").may_spill() && !refused("SomethingNewException").may_spill()
        );
        let faults = [
            (None, true),
            (Some(Fault::Throttled), true),
            (Some(Fault::Unavailable), true),
            (Some(Fault::Ambiguous), true),
            (Some(Fault::Access), false),
            (Some(Fault::KeyThrottled), false),
            (Some(Fault::Permanent), false),
        ];
        for (fault, spills) in faults {
            let late = Failure::DeadlineExceeded { attempts: 1, last: "x".to_owned(), fault };
            let unknown = Failure::OutcomeUnknown { attempts: 1, last: "x".to_owned(), fault };
            for (failure, spills) in [(late, spills), (unknown, spills && fault.is_some())] {
                let trouble = of_failure(&failure);
                assert!(trouble.is_retryable());
                assert_eq!(trouble.may_spill(), spills, "{failure:?}");
            }
        }
        let stopped = of_failure(&Failure::Stopped);
        assert!(stopped.is_retryable() && !stopped.may_spill());
        assert!(of_failure(&Failure::TooLarge { bytes: 2, limit: 1 }).is_poison());
    }
}
