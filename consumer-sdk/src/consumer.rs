//! The consumer: built, then run with a handler or as a stream of records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headworks_record::ShardId;
use headworks_telemetry::RecordTracer;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Config, ConfigError, HandlerRetry, OnFailure, Undecodable};
use crate::coordinator::Coordinator;
use crate::dead_letter::DeadLetters;
use crate::dedup::Handover;
use crate::delivery::attempts::{Attempts, Policy};
use crate::delivery::handler::Handling;
use crate::delivery::keyed::Keyed;
use crate::delivery::records::{Handout, QUEUED_PARTS};
use crate::delivery::{Delivery, Handler, Records};
use crate::effects::{Committer, Effects, IDENTITY, Identities, Transacting};
use crate::error::Error;
use crate::fanout::registration::ConsumerArns;
use crate::handle::{Handle, Phase, ShardGauge, Status};
use crate::lease::heartbeat::{Changes, Heartbeat};
use crate::lease::{LeaseStore, Table, answered};
use crate::position::{SequenceStart, Start};
use crate::shard::Context;
use crate::sources::Sources;
use crate::streams::{ConsumerId, Streams};

/// What a consumer did, when it was told to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Counters and states at the end.
    pub status: Status,
    /// Shards whose lease could not be released in time: others take them over after the take-over time,
    /// and records since the last checkpoint come again.
    pub unreleased: Vec<ShardId>,
}

/// Reads one stream, or several, as one worker of an application.
///
/// ```no_run
/// use headworks_consumer::{Batch, Consumer, Handler, HandlerError, Start};
/// use tokio_util::sync::CancellationToken;
///
/// struct Orders;
///
/// impl Handler for Orders {
///     async fn handle(&mut self, batch: Batch) -> Result<(), HandlerError> {
///         for delivered in &batch {
///             let order = std::str::from_utf8(&delivered.record.data)?;
///             println!("{}: {order}", delivered.record.key);
///         }
///         Ok(())
///     }
/// }
///
/// # async fn example(
/// #     kinesis: aws_sdk_kinesis::Client,
/// #     dynamodb: aws_sdk_dynamodb::Client,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// let consumer = Consumer::builder("order-view", "orders")
///     .kinesis(kinesis)
///     .dynamodb(dynamodb)
///     .start(Start::TrimHorizon)
///     .build()?;
/// let shutdown = CancellationToken::new();
/// let summary = consumer.run(|_shard| Orders, shutdown).await?;
/// println!("{} records", summary.status.delivered);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Consumer {
    config: Arc<Config>,
    sources: Sources,
    store: Arc<dyn LeaseStore>,
    letters: Option<Arc<dyn DeadLetters>>,
    dynamodb: Option<aws_sdk_dynamodb::Client>,
    tracer: RecordTracer,
    handle: Handle,
}

impl Consumer {
    /// Begins a consumer of this stream (a name or an ARN) for this application.
    pub fn builder(application: impl Into<String>, stream: impl Into<String>) -> Builder {
        Builder::new(Config::new(application, stream))
    }

    /// Begins a consumer of several streams for this application: their shards are shared out together, and
    /// each record tells where it is from ([`Delivered::stream`](crate::Delivered::stream)). See
    /// [`Config::streams`].
    ///
    /// Factories, states and errors name shards by their lease keys (`account:name:epoch:shard`), which
    /// [`StreamShard::of`](crate::StreamShard::of) takes apart.
    ///
    /// ```no_run
    /// # use headworks_consumer::{Consumer, StreamShard};
    /// # fn example(
    /// #     kinesis: aws_sdk_kinesis::Client,
    /// #     dynamodb: aws_sdk_dynamodb::Client,
    /// # ) -> Result<(), headworks_consumer::ConfigError> {
    /// let consumer = Consumer::builder_of_streams("order-view", ["orders", "payments"])
    ///     .kinesis(kinesis)
    ///     .dynamodb(dynamodb)
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder_of_streams(
        application: impl Into<String>,
        streams: impl IntoIterator<Item = impl Into<String>>,
    ) -> Builder {
        Builder::new(Config::of_streams(application, streams))
    }

    /// Counters and states, readable while the consumer runs and after.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Runs until `shutdown`, which finishes what is in hand, checkpoints and releases the leases.
    ///
    /// `factory` makes one handler for each shard that this worker reads ([`Config::parallelism`] handlers,
    /// where that is more than one), and another one after a panic.
    pub async fn run<H, F>(self, factory: F, shutdown: CancellationToken) -> Result<Summary, Error>
    where
        H: Handler,
        F: Fn(&ShardId) -> H + Send + Sync + 'static,
    {
        let factory = Arc::new(factory);
        let (policy, tracer, config) = (self.policy(), self.tracer.clone(), self.config.clone());
        let attempts = move |shard: &ShardId, gauge: &ShardGauge| {
            let (factory, policy) = (factory.clone(), policy.clone());
            Attempts::new(factory, shard.clone(), policy, tracer.clone(), gauge.clone())
        };
        if config.parallelism == 1 {
            let make = move |shard: &ShardId, gauge: &ShardGauge| {
                Handling::new(attempts(shard, gauge), config.checkpointing)
            };
            return self.run_with(make, shutdown).await;
        }
        let make = move |shard: &ShardId, gauge: &ShardGauge| {
            let lanes = (0..config.parallelism).map(|_| attempts(shard, gauge)).collect();
            Keyed::new(lanes, config.max_unacknowledged)
        };
        self.run_with(make, shutdown).await
    }

    /// Runs like [`Consumer::run`], and commits what records do to DynamoDB tables in one transaction with the
    /// checkpoint, so that each record has its effects exactly once; see [`effects`](crate::effects).
    ///
    /// The tables of the effects and the identity table, which is made if it is missing, have to be in the
    /// account and region of the client given to [`Builder::dynamodb`]. [`Config::parallelism`] and
    /// [`Config::checkpointing`] mean nothing here.
    pub async fn run_exactly_once<E, F>(
        self,
        factory: F,
        identities: Identities,
        shutdown: CancellationToken,
    ) -> Result<Summary, Error>
    where
        E: Effects,
        F: Fn(&ShardId) -> E + Send + Sync + 'static,
    {
        identities.validate()?;
        let Some(client) = self.dynamodb.clone() else {
            return Err(ConfigError::MissingClient { client: "DynamoDB", method: "dynamodb" }.into());
        };
        let leases = Table::new(client.clone(), &self.config.lease_table, &self.config.worker_table);
        let prepared = tokio::select! {
            biased;
            prepared = leases.prepare_identities(&identities.table, IDENTITY) => prepared,
            () = shutdown.cancelled() => Ok(()),
        };
        prepared?;
        let (policy, tracer, factory) = (self.policy(), self.tracer.clone(), Arc::new(factory));
        let committer = Committer { client, leases, identities, call_timeout: self.config.call_timeout };
        let make = move |shard: &ShardId, gauge: &ShardGauge| {
            let (factory, policy) = (factory.clone(), policy.clone());
            Transacting::new(factory, shard.clone(), policy, committer.clone(), tracer.clone(), gauge.clone())
        };
        self.run_with(make, shutdown).await
    }

    fn policy(&self) -> Arc<Policy> {
        Arc::new(Policy {
            application: self.config.application.clone(),
            retry: self.config.handler_retry,
            on_failure: self.config.on_failure,
            letters: self.letters.clone(),
            call_timeout: self.config.call_timeout,
        })
    }

    /// Runs in the background and hands out records to be acknowledged.
    ///
    /// Has to be called within a Tokio runtime. After `shutdown` the records in hand may still be taken and
    /// acknowledged; then the stream ends.
    pub fn stream(self, shutdown: CancellationToken) -> Records {
        let (parts, receiver) = mpsc::channel(QUEUED_PARTS);
        let (max, tracer) = (self.config.max_unacknowledged, self.tracer.clone());
        let make = move |_: &ShardId, gauge: &ShardGauge| {
            Handout::new(parts.clone(), max, tracer.clone(), gauge.clone())
        };
        let handle = self.handle();
        let stop = shutdown.child_token();
        let task = AbortOnDropHandle::new(tokio::spawn(self.run_with(make, stop.clone())));
        Records::new(receiver, task, handle, stop.drop_guard())
    }

    async fn run_with<D, M>(self, make: M, shutdown: CancellationToken) -> Result<Summary, Error>
    where
        D: Delivery,
        M: Fn(&ShardId, &ShardGauge) -> D + Send,
    {
        // Those who wait on the handle learn of the end also where this future is dropped.
        let _stopped = StoppedOnDrop(self.handle.clone());
        let changes = Changes::default();
        let heartbeat = Heartbeat {
            store: self.store.clone(),
            worker: self.config.worker_id.clone(),
            incarnation: crate::random::name(),
            interval: self.config.heartbeat_interval,
            limit: (self.config.deliver_for() / 3).min(self.config.call_timeout),
            changes: changes.clone(),
        };
        let started = tokio::select! {
            biased;
            started = self.prepare(&heartbeat) => started?,
            () = shutdown.cancelled() => {
                self.handle.enter(Phase::Stopped);
                return Ok(Summary { status: self.handle.status(), unreleased: Vec::new() });
            }
        };
        let (streams, consumer_arns, sent) = started;
        let _watching =
            AbortOnDropHandle::new(tokio::spawn(tell_stuck(self.handle.clone(), self.config.stuck_after)));
        let context = Context {
            // Children are claimed within moments; those that are not read the stream.
            handover: Handover::new(self.config.dedup_window),
            config: self.config,
            streams,
            store: self.store,
            letters: self.letters,
            tracer: self.tracer,
            handle: self.handle,
            changes,
            consumer_arns,
        };
        Coordinator::new(Arc::new(context), make, sent).run(heartbeat, shutdown).await
    }

    /// Tables, registration, and the first sign of life.
    async fn prepare(
        &self,
        heartbeat: &Heartbeat,
    ) -> Result<(Arc<dyn Streams>, ConsumerArns, Instant), Error> {
        let give_up = Instant::now() + self.config.startup_timeout;
        let (streams, tables) = tokio::join!(self.sources.open(&self.config, give_up), self.tables(give_up));
        tables?;
        let (streams, arns) = streams?;
        let sent = heartbeat.first(give_up).await?;
        Ok((streams, arns, sent))
    }

    async fn tables(&self, give_up: Instant) -> Result<(), Error> {
        let mut backoff = crate::backoff::Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            // Tables that take longer to be created are waited for by the next attempt.
            match answered(self.config.call_timeout, self.store.prepare()).await {
                Ok(()) => return Ok(()),
                Err(error) if !error.is_retryable() || Instant::now() >= give_up => return Err(error.into()),
                Err(error) => tracing::debug!(%error, "the tables cannot be used yet"),
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }
}

async fn tell_stuck(handle: Handle, after: Duration) {
    loop {
        tokio::time::sleep(after / 4).await;
        handle.tell_stuck();
    }
}

struct StoppedOnDrop(Handle);

impl Drop for StoppedOnDrop {
    fn drop(&mut self) {
        self.0.enter(Phase::Stopped);
    }
}

/// Puts a [`Consumer`] together; made by [`Consumer::builder`].
#[derive(Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct Builder {
    config: Config,
    kinesis: Option<aws_sdk_kinesis::Client>,
    dynamodb: Option<aws_sdk_dynamodb::Client>,
    streams: Option<Arc<dyn Streams>>,
    sources: BTreeMap<String, Arc<dyn Streams>>,
    store: Option<Arc<dyn LeaseStore>>,
    letters: Option<Arc<dyn DeadLetters>>,
    tracer: RecordTracer,
}

impl Builder {
    /// Begins with a whole configuration.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            kinesis: None,
            dynamodb: None,
            streams: None,
            sources: BTreeMap::new(),
            store: None,
            letters: None,
            tracer: RecordTracer::disabled(),
        }
    }

    /// The client for the stream.
    pub fn kinesis(mut self, client: aws_sdk_kinesis::Client) -> Self {
        self.kinesis = Some(client);
        self
    }

    /// The client for leases and heartbeats.
    pub fn dynamodb(mut self, client: aws_sdk_dynamodb::Client) -> Self {
        self.dynamodb = Some(client);
        self
    }

    /// Another source of records than Kinesis through its SDK.
    pub fn streams(mut self, streams: Arc<dyn Streams>) -> Self {
        self.streams = Some(streams);
        self
    }

    /// Another source for one of [several streams](Config::streams), by its name there: Kinesis in another
    /// region or with other credentials, for example.
    pub fn source(mut self, stream: impl Into<String>, streams: Arc<dyn Streams>) -> Self {
        self.sources.insert(stream.into(), streams);
        self
    }

    /// Another place for leases than DynamoDB.
    pub fn lease_store(mut self, store: Arc<dyn LeaseStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// Where dead letters go; needed where [`Config::on_failure`] or [`Config::undecodable`] asks for them.
    pub fn dead_letters(mut self, letters: Arc<dyn DeadLetters>) -> Self {
        self.letters = Some(letters);
        self
    }

    /// Where spans go; none by default.
    pub fn tracer(mut self, tracer: RecordTracer) -> Self {
        self.tracer = tracer;
        self
    }

    /// See [`Config::worker_id`].
    pub fn worker_id(mut self, id: impl Into<String>) -> Self {
        self.config.worker_id = id.into();
        self
    }

    /// See [`Config::start`].
    pub fn start(mut self, start: Start) -> Self {
        self.config.start = start;
        self
    }

    /// Begins at or after a sequence number in this shard; see [`Config::start_at`].
    pub fn start_at(mut self, shard: impl Into<ShardId>, start: SequenceStart) -> Self {
        self.config.start_at.insert(shard.into(), start);
        self
    }

    /// See [`Config::consumer`].
    pub fn consumer_name(mut self, name: impl Into<String>) -> Self {
        self.config.consumer = ConsumerId::Name(name.into());
        self
    }

    /// See [`Config::consumer`].
    pub fn consumer_arn(mut self, arn: impl Into<String>) -> Self {
        self.config.consumer = ConsumerId::Arn(arn.into());
        self
    }

    /// See [`Config::take_over_after`]. The heartbeat follows: six beats in this time.
    pub fn take_over_after(mut self, after: Duration) -> Self {
        self.config.take_over_after = after;
        self.config.heartbeat_interval = after / 6;
        self.config.foreign_take_over_after = self.config.foreign_take_over_after.max(after);
        self
    }

    /// See [`Config::foreign_take_over_after`].
    pub fn foreign_take_over_after(mut self, after: Duration) -> Self {
        self.config.foreign_take_over_after = after;
        self
    }

    /// See [`Config::renew_leases_every`].
    pub fn renew_leases_every(mut self, every: Duration) -> Self {
        self.config.renew_leases_every = Some(every);
        self
    }

    /// See [`Config::checkpoint_interval`].
    pub fn checkpoint_interval(mut self, interval: Duration) -> Self {
        self.config.checkpoint_interval = interval;
        self
    }

    /// See [`Config::dedup_window`].
    pub fn dedup_window(mut self, window: Duration) -> Self {
        self.config.dedup_window = window;
        self
    }

    /// See [`Config::max_batch_records`].
    pub fn max_batch_records(mut self, records: usize) -> Self {
        self.config.max_batch_records = records;
        self
    }

    /// See [`Config::on_failure`].
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.config.on_failure = on_failure;
        self
    }

    /// See [`Config::parallelism`].
    pub fn parallelism(mut self, handlers: usize) -> Self {
        self.config.parallelism = handlers;
        self
    }

    /// See [`Config::handler_retry`].
    pub fn handler_retry(mut self, retry: HandlerRetry) -> Self {
        self.config.handler_retry = retry;
        self
    }

    /// Changes anything else.
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Checks the configuration; nothing is contacted yet.
    pub fn build(self) -> Result<Consumer, ConfigError> {
        self.config.validate()?;
        let setting = match (&self.letters, self.config.on_failure, self.config.undecodable) {
            (None, OnFailure::DeadLetter, _) => Some("`on_failure`"),
            (None, _, Undecodable::DeadLetter) => Some("`undecodable`"),
            _ => None,
        };
        if let Some(setting) = setting {
            return Err(ConfigError::NoDeadLetters { setting });
        }
        let sources = Sources::new(&self.config, self.streams, self.sources, self.kinesis)?;
        let store: Arc<dyn LeaseStore> = match (self.store, self.dynamodb.clone()) {
            (Some(store), _) => store,
            (None, Some(client)) => {
                let (leases, workers) = (&self.config.lease_table, &self.config.worker_table);
                Arc::new(Table::new(client, leases, workers))
            }
            (None, None) => {
                return Err(ConfigError::MissingClient { client: "DynamoDB", method: "dynamodb" });
            }
        };
        let config = Arc::new(self.config);
        Ok(Consumer {
            handle: Handle::new(config.clone()),
            config,
            sources,
            store,
            letters: self.letters,
            dynamodb: self.dynamodb,
            tracer: self.tracer,
        })
    }
}
