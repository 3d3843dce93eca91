//! What a consumer is told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use headworks_record::ShardId;
use headworks_record::ownership::Foreign;

use crate::position::{SequenceStart, Start};
use crate::streams::{ConsumerId, StreamIdentifier};

/// Streams that one consumer reads at most.
const MAX_STREAMS: usize = 100;

/// What to do with a Kinesis record that cannot be taken apart although it is whole (an index out of
/// range, an envelope newer than this reader).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Undecodable {
    /// Stop the consumer with an error that names the record. Nothing is skipped.
    #[default]
    Stop,
    /// Deliver the whole Kinesis record as one record without headers, and count it. One without a usable
    /// partition key gets its sequence number as the key.
    DeliverRaw,
    /// Write the whole Kinesis record to the dead letters, count it and go on.
    DeadLetter,
}

/// What happens when a handler has failed at every attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnFailure {
    /// Stop the consumer in front of the batch. Nothing is skipped.
    #[default]
    Stop,
    /// Find the records that fail, by halving the batch, write each of them to the dead letters, and go on.
    /// The position moves after a letter is written, never before; where it cannot be written, the shard
    /// waits.
    DeadLetter,
}

/// When a handler's progress is written to the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Checkpointing {
    /// Behind the handler's back, at most [`Config::checkpoint_interval`] late.
    #[default]
    Periodic,
    /// After each batch, before the next one is handed over.
    PerBatch,
    /// When the handler says so, through [`Checkpoints`](crate::Checkpoints). The end of a shard is written
    /// when [`Handler::close`](crate::Handler::close) returns.
    Manual,
}

/// How a stream's shards are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Reading {
    /// By enhanced fan-out; where that is not possible (no permission for it, or the stream has as many
    /// consumers as it may have), by polling, which is told by a warning and in
    /// [`ShardStatus::polled`](crate::ShardStatus::polled).
    #[default]
    FanOutOrPolling,
    /// By enhanced fan-out only.
    FanOut,
    /// By polling. Each shard gives five reads and 2 MB a second to all who poll it; the consumers of one
    /// process keep to that together. A start at [`Start::Latest`] becomes durable with the first record
    /// instead of at once.
    Polling,
}

/// How often a handler that failed is asked again before the consumer stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandlerRetry {
    /// Attempts in all, the first included. Default 5, at least 1.
    pub attempts: u32,
    /// Bound of the first delay; it doubles with each attempt, and the delay is drawn below it.
    /// Default 100 ms.
    pub min_delay: Duration,
    /// Highest bound of a delay. Default 10 s.
    pub max_delay: Duration,
}

impl Default for HandlerRetry {
    fn default() -> Self {
        Self { attempts: 5, min_delay: Duration::from_millis(100), max_delay: Duration::from_secs(10) }
    }
}

/// The configuration of a [`Consumer`](crate::Consumer), checked by [`Config::validate`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The application: all workers of one application share its leases. It is the name of the lease table,
    /// so use one name per stream, or per group of streams. 3 to 247 characters of a-z, A-Z, 0-9, `_`, `.` and `-`.
    pub application: String,
    /// The stream's name or ARN; empty where `streams` names several.
    pub stream: String,
    /// Several streams instead of one, 1 to 100 of them, whose shards are shared out together: each by name, by
    /// ARN, or, where another epoch than the second of its creation is wanted, by the KCL's stream identifier
    /// `account:name:epoch`. The names have to differ. Leases are then in the KCL's multi-stream layout, with
    /// `account:name:epoch:shard` for their keys. Default: none.
    pub streams: Vec<String>,
    /// This process' id among the workers of the application; unique while it runs. A worker that comes
    /// back under its id takes its leases up again at once. Default: random.
    pub worker_id: String,
    /// The fan-out consumer. Default: registered under the application's name.
    pub consumer: ConsumerId,
    /// How shards are read. Default: by fan-out where that is possible.
    pub reading: Reading,
    /// How long a reader that polls waits when it is at the newest record. Default 1 s, at least 200 ms.
    pub poll_interval: Duration,
    /// The lease table. Default: the application's name.
    pub lease_table: String,
    /// The heartbeat table. Default: the application's name and `-workers`.
    pub worker_table: String,
    /// Where an application without leases begins. Default: at the oldest record.
    pub start: Start,
    /// Shards in which such an application begins at or after a sequence number instead. Of several streams, a
    /// shard is named as `stream/shard`. Shards that a named one came from are not read, and those that come
    /// from it are read when it has ended. A shard that the stream does not list is an error while there are no
    /// leases yet; where there are, nothing here matters. Default: none.
    pub start_at: BTreeMap<ShardId, SequenceStart>,
    /// After how long without a sign of life a worker's leases are taken over. Default 2 s, at least 1 s.
    ///
    /// From the last heartbeat to the first delivery elsewhere passes at most this time, one
    /// `heartbeat_interval` until the heartbeat was seen, and a few round trips: less than 3 s by default,
    /// to which a busy shard adds the reading back of `dedup_window`.
    pub take_over_after: Duration,
    /// The same for an owner without a heartbeat item, such as a KCL worker. Default 20 s.
    pub foreign_take_over_after: Duration,
    /// For a fleet in which workers of the KCL run at the same time: how often the counter of each lease is
    /// raised, which is how the KCL tells that a lease is being read; its workers' leases are told alive by
    /// their counters in any case. At most a third of the KCL's `failoverTimeMillis` (10 s by default), so
    /// 3 s; 100 ms to 100 s. A shard whose lease could not be written to for twice this time is no longer
    /// delivered. It costs a write per lease each time. Default: `None`, leases are not renewed one by one.
    pub renew_leases_every: Option<Duration>,
    /// How often this worker gives a sign of life and looks at those of the others. Default 500 ms; at
    /// most a quarter of `take_over_after`.
    pub heartbeat_interval: Duration,
    /// How often the leases are read when nothing calls for it: workers tell each other of changes through
    /// their heartbeats. While that tells nothing new, the interval grows to five times this. Leases of owners
    /// without a heartbeat, such as KCL workers, are read at least four times in `foreign_take_over_after`, all
    /// leases likewise where `renew_leases_every` is set. Default 60 s.
    pub lease_scan_interval: Duration,
    /// How often the stream's shards are compared with the leases. Default 60 s.
    pub shard_sync_interval: Duration,
    /// How long a checkpoint may wait to be written, so that DynamoDB is not asked for every batch. Zero
    /// writes after each batch. Default 1 s.
    pub checkpoint_interval: Duration,
    /// How long a batch in hand may take at shutdown. Default 30 s.
    pub drain_timeout: Duration,
    /// After how long without progress a shard that has something to do counts as stuck, which
    /// [`ShardStatus::stuck`](crate::ShardStatus::stuck), the metrics and the log tell. Longer than a batch may
    /// rightly take. Default 60 s, at least 1 s.
    pub stuck_after: Duration,
    /// How long tables, stream and consumer may take to become usable. Default 60 s.
    pub startup_timeout: Duration,
    /// How long one call of AWS may take. Default 10 s.
    pub call_timeout: Duration,
    /// The most records of one batch. Default 1,000.
    pub max_batch_records: usize,
    /// Bytes read ahead per shard. Default 8 MiB, at least 64 KiB. One event may be larger; then it is
    /// alone.
    pub read_ahead_bytes: usize,
    /// Records of one shard that [`Consumer::stream`](crate::Consumer::stream) hands out before it waits
    /// for acknowledgements. Default 10,000.
    pub max_unacknowledged: usize,
    /// After how long a subscription is renewed; the service ends it after five minutes. Default 285 s.
    pub resubscribe_after: Duration,
    /// After how long without an event a subscription is taken for dead. An idle one brings an event about
    /// every five seconds. Default 30 s.
    pub inactivity_timeout: Duration,
    /// For how long a record's identity (trace id and span id of its creation context) is remembered, in
    /// order to drop repeats, by arrival at the stream and from its latest occurrence on. Zero turns it
    /// off. Default 60 s, at most 15 min.
    ///
    /// A worker that begins to read a shard first reads back what arrived within this time, unless it read
    /// the shard's parents itself; see the [crate's documentation](crate).
    pub dedup_window: Duration,
    /// The most identities remembered per shard. Each takes 70 to 140 bytes, and memory is taken as it is
    /// needed; the window of a shard that ended is kept for as long again for its children. Where the bound
    /// is reached, the oldest are forgotten before their time, which
    /// [`Status::identities_forgotten`](crate::Status::identities_forgotten) counts; their repeats are
    /// delivered. Default 1,000,000.
    pub dedup_max_identities: usize,
    /// How often a handler that fails is tried again.
    pub handler_retry: HandlerRetry,
    /// What happens when it has failed at every attempt. Dead letters need
    /// [`Builder::dead_letters`](crate::Builder::dead_letters). Default: the consumer stops.
    pub on_failure: OnFailure,
    /// When a handler's progress is written. Default: periodically.
    pub checkpointing: Checkpointing,
    /// How many handlers work on one shard at the same time, each on its own partition keys: the order of
    /// records with one key is kept. The shard is checkpointed up to the first record that is not done, and
    /// at most [`Config::max_unacknowledged`] records lie behind it. Default 1, at most 256; more than 1
    /// needs periodic checkpoints.
    pub parallelism: usize,
    /// What happens with aggregates of other writers that have a member outside the shard.
    pub foreign: Foreign,
    /// What happens with a Kinesis record that cannot be taken apart.
    pub undecodable: Undecodable,
}

impl Config {
    /// The defaults, for an application and several streams; see [`Config::streams`].
    pub fn of_streams(
        application: impl Into<String>,
        streams: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let streams = streams.into_iter().map(Into::into).collect();
        Self { streams, ..Self::new(application, "") }
    }

    /// The defaults, for an application and a stream.
    pub fn new(application: impl Into<String>, stream: impl Into<String>) -> Self {
        let application = application.into();
        Self {
            stream: stream.into(),
            streams: Vec::new(),
            worker_id: format!("worker-{}", crate::random::name()),
            consumer: ConsumerId::Name(application.clone()),
            reading: Reading::default(),
            poll_interval: Duration::from_secs(1),
            lease_table: application.clone(),
            worker_table: format!("{application}-workers"),
            application,
            start: Start::default(),
            start_at: BTreeMap::new(),
            take_over_after: Duration::from_secs(2),
            foreign_take_over_after: Duration::from_secs(20),
            renew_leases_every: None,
            heartbeat_interval: Duration::from_millis(500),
            lease_scan_interval: Duration::from_secs(60),
            shard_sync_interval: Duration::from_secs(60),
            checkpoint_interval: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(30),
            stuck_after: Duration::from_secs(60),
            startup_timeout: Duration::from_secs(60),
            call_timeout: Duration::from_secs(10),
            max_batch_records: 1_000,
            read_ahead_bytes: 8 << 20,
            max_unacknowledged: 10_000,
            resubscribe_after: Duration::from_secs(285),
            inactivity_timeout: Duration::from_secs(30),
            dedup_window: Duration::from_secs(60),
            dedup_max_identities: 1_000_000,
            handler_retry: HandlerRetry::default(),
            on_failure: OnFailure::default(),
            checkpointing: Checkpointing::default(),
            parallelism: 1,
            foreign: Foreign::default(),
            undecodable: Undecodable::default(),
        }
    }

    /// How long after its last heartbeat this worker still delivers: two thirds of the take-over time, so
    /// that it has stopped before another begins.
    pub fn deliver_for(&self) -> Duration {
        self.take_over_after * 2 / 3
    }

    /// The stream's name, also where an ARN was given; empty where there are several.
    pub fn stream_name(&self) -> &str {
        name_of(&self.stream)
    }

    /// The stream, or all of them, for a message.
    pub(crate) fn stream_text(&self) -> String {
        match &self.streams[..] {
            [] => self.stream.clone(),
            streams => streams.join(", "),
        }
    }

    fn validate_streams(&self) -> Result<(), ConfigError> {
        if self.streams.is_empty() {
            return match self.stream.starts_with("arn:") {
                true => arn("stream", &self.stream, ":stream/"),
                false => name("stream", &self.stream, 1, 128),
            };
        }
        if !self.stream.is_empty() {
            let reason =
                "is given beside `streams`; name all streams there and leave this one empty".to_owned();
            return Err(ConfigError::bad("stream", &self.stream, reason));
        }
        count("number of streams", self.streams.len(), 1, MAX_STREAMS)?;
        let mut names = BTreeSet::new();
        for stream in &self.streams {
            let text = name_of(stream);
            match stream.starts_with("arn:") {
                true => arn("stream", stream, ":stream/")?,
                false => name("stream", text, 1, 128)?,
            }
            if !names.insert(text) {
                let reason = "is among the streams twice; their names have to differ".to_owned();
                return Err(ConfigError::bad("stream", text, reason));
            }
        }
        if let ConsumerId::Arn(text) = &self.consumer {
            let reason = "is of one stream, and several are read; give the consumer's name".to_owned();
            return Err(ConfigError::bad("consumer", text, reason));
        }
        Ok(())
    }

    fn validate_start_at(&self) -> Result<(), ConfigError> {
        for shard in self.start_at.keys() {
            let text = shard.as_str();
            let named = text.split_once('/').map(|(stream, _)| stream);
            let reason = match (self.streams.is_empty(), named) {
                (true, None) => continue,
                (false, Some(stream)) if self.streams.iter().any(|known| name_of(known) == stream) => {
                    continue;
                }
                (true, Some(_)) => "names a stream, and there is one only; give the shard's name alone",
                (false, _) => "does not say of which of the streams it is; write stream/shard",
            };
            return Err(ConfigError::bad("shard to start at", text, reason.to_owned()));
        }
        Ok(())
    }

    /// Checks every value against its bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        name("application", &self.application, 3, 247)?;
        name("lease table", &self.lease_table, 3, 255)?;
        name("worker table", &self.worker_table, 3, 255)?;
        if self.lease_table == self.worker_table {
            let reason = "is also the lease table; heartbeats need a table of their own".to_owned();
            return Err(ConfigError::bad("worker table", &self.worker_table, reason));
        }
        self.validate_streams()?;
        self.validate_start_at()?;
        match &self.consumer {
            ConsumerId::Name(text) => name("consumer name", text, 1, 128)?,
            ConsumerId::Arn(text) => arn("consumer", text, "/consumer/")?,
        }
        if self.worker_id.is_empty()
            || self.worker_id.len() > 256
            || self.worker_id.contains(char::is_control)
        {
            let reason = "needs 1 to 256 bytes without control characters".to_owned();
            return Err(ConfigError::bad("worker id", &self.worker_id, reason));
        }
        let ms = Duration::from_millis;
        let most = Duration::from_secs(3600);
        span("take_over_after", self.take_over_after, ms(1000), Duration::from_secs(300))?;
        span("foreign_take_over_after", self.foreign_take_over_after, self.take_over_after, most)?;
        if let Some(every) = self.renew_leases_every {
            span("renew_leases_every", every, ms(100), Duration::from_secs(100))?;
        }
        // Several attempts must fit before delivery stops.
        span("heartbeat_interval", self.heartbeat_interval, ms(50), self.take_over_after / 4)?;
        span("lease_scan_interval", self.lease_scan_interval, self.heartbeat_interval, most)?;
        span("shard_sync_interval", self.shard_sync_interval, ms(1000), most)?;
        span("checkpoint_interval", self.checkpoint_interval, Duration::ZERO, most)?;
        span("drain_timeout", self.drain_timeout, ms(100), most)?;
        span("stuck_after", self.stuck_after, ms(1000), most)?;
        span("startup_timeout", self.startup_timeout, ms(100), most)?;
        span("call_timeout", self.call_timeout, ms(100), Duration::from_secs(300))?;
        span("poll_interval", self.poll_interval, ms(200), Duration::from_secs(60))?;
        // Sooner, the service refuses the new subscription; later, it has ended the old one.
        span("resubscribe_after", self.resubscribe_after, Duration::from_secs(6), Duration::from_secs(299))?;
        span("inactivity_timeout", self.inactivity_timeout, ms(500), most)?;
        span("dedup_window", self.dedup_window, Duration::ZERO, Duration::from_secs(900))?;
        count("dedup_max_identities", self.dedup_max_identities, 1, 100_000_000)?;
        span("handler_retry.max_delay", self.handler_retry.max_delay, self.handler_retry.min_delay, most)?;
        count("handler_retry.attempts", self.handler_retry.attempts as usize, 1, 1_000_000)?;
        count("parallelism", self.parallelism, 1, 256)?;
        if self.parallelism > 1 && self.checkpointing != Checkpointing::Periodic {
            let reason = "needs periodic checkpoints: positions of handlers that work side by side are not \
                          in order; set `checkpointing` to `Periodic` or `parallelism` to 1";
            let given = self.parallelism.to_string();
            return Err(ConfigError::bad("parallelism", &given, reason.to_owned()));
        }
        count("max_batch_records", self.max_batch_records, 1, 1_000_000)?;
        count("read_ahead_bytes", self.read_ahead_bytes, 64 << 10, 1 << 30)?;
        count("max_unacknowledged", self.max_unacknowledged, 1, 10_000_000)
    }
}

/// Why a consumer was not built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value is out of its bounds.
    #[error("the {field} {value:?} {reason}")]
    BadValue {
        /// Which value.
        field: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it and what is accepted.
        reason: String,
    },
    /// Dead letters are asked for and have no place to go.
    #[error(
        "{setting} is to write dead letters and there is no place for them; pass one to the builder's `dead_letters` method"
    )]
    NoDeadLetters {
        /// The setting.
        setting: &'static str,
    },
    /// A client is missing.
    #[error("no {client} client was given; pass one to the builder's `{method}` method")]
    MissingClient {
        /// Which client.
        client: &'static str,
        /// The builder's method.
        method: &'static str,
    },
}

impl ConfigError {
    pub(crate) fn bad(field: &'static str, value: &str, reason: String) -> Self {
        Self::BadValue { field, value: value.chars().take(300).collect(), reason }
    }

    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        "consumer-config-invalid"
    }

    /// Whether the same configuration may be accepted later: never.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// A stream's name, where it, its ARN or its identifier is given.
pub(crate) fn name_of(stream: &str) -> &str {
    if !stream.starts_with("arn:") && stream.parse::<StreamIdentifier>().is_ok() {
        return stream.split(':').nth(1).unwrap_or(stream);
    }
    stream.rsplit('/').next().unwrap_or(stream)
}

pub(crate) fn name(field: &'static str, text: &str, least: usize, most: usize) -> Result<(), ConfigError> {
    let legal = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if legal && (least..=most).contains(&text.len()) {
        return Ok(());
    }
    let reason = format!("needs {least} to {most} characters of a-z, A-Z, 0-9, '_', '.' and '-'");
    Err(ConfigError::bad(field, text, reason))
}

fn arn(field: &'static str, text: &str, part: &str) -> Result<(), ConfigError> {
    if text.starts_with("arn:") && text.contains(":kinesis:") && text.contains(part) {
        return Ok(());
    }
    let reason = format!("is not a Kinesis ARN with {part:?} in it");
    Err(ConfigError::bad(field, text, reason))
}

pub(crate) fn span(
    field: &'static str,
    given: Duration,
    least: Duration,
    most: Duration,
) -> Result<(), ConfigError> {
    if (least..=most).contains(&given) {
        return Ok(());
    }
    Err(ConfigError::bad(field, &format!("{given:?}"), format!("must be from {least:?} to {most:?}")))
}

pub(crate) fn count(field: &'static str, given: usize, least: usize, most: usize) -> Result<(), ConfigError> {
    if (least..=most).contains(&given) {
        return Ok(());
    }
    Err(ConfigError::bad(field, &given.to_string(), format!("must be from {least} to {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        Config::new("app", "orders").validate().unwrap();
        let arn = "arn:aws:kinesis:eu-central-1:000000000000:stream/orders";
        let config = Config::new("app", arn);
        config.validate().unwrap();
        assert_eq!(config.stream_name(), "orders");
        assert!(config.deliver_for() < config.take_over_after);
    }

    #[test]
    fn several_streams_are_told_apart_by_name() {
        let arn = "arn:aws:kinesis:eu-central-1:000000000000:stream/clicks";
        let streams = ["orders", arn, "123456789012:payments:12345"];
        let mut config = Config::of_streams("app", streams);
        config.start_at.insert("clicks/s-1".into(), SequenceStart::At(sequence()));
        config.validate().unwrap();
        let refused = |change: fn(&mut Config)| {
            let mut config = Config::of_streams("app", ["orders", "clicks"]);
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert!(refused(|c| c.streams.push("1:orders:2".into())).contains("twice"));
        assert!(refused(|c| c.streams.push(String::new())).contains("1 to 128"));
        assert!(refused(|c| c.streams.push("a:b".into())).contains("\"a:b\""));
        assert!(refused(|c| c.streams = vec!["s".into(); 101]).contains("from 1 to 100"));
        assert!(refused(|c| c.stream = "third".into()).contains("beside `streams`"));
        assert!(
            refused(|c| c.consumer = ConsumerId::Arn("arn:aws:kinesis:x:consumer/y".into())).contains("name")
        );
        let unnamed = |c: &mut Config| {
            c.start_at.insert("s-1".into(), SequenceStart::After(sequence()));
        };
        assert!(refused(unnamed).contains("stream/shard"));
        let mut one = Config::new("app", "orders");
        one.start_at.insert("orders/s-1".into(), SequenceStart::At(sequence()));
        assert!(one.validate().unwrap_err().to_string().contains("alone"));
    }

    fn sequence() -> crate::position::SequenceNumber {
        crate::position::SequenceNumber::new("49").unwrap()
    }

    #[test]
    fn bad_values_are_named_with_their_bounds() {
        let refused = |change: fn(&mut Config)| {
            let mut config = Config::new("app", "orders");
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert!(refused(|c| c.application = "a".into()).contains("3 to 247"));
        assert!(refused(|c| c.application = "my app".into()).contains("\"my app\""));
        assert!(refused(|c| c.stream = String::new()).contains("stream"));
        assert!(refused(|c| c.stream = "arn:aws:s3:::x".into()).contains("Kinesis ARN"));
        assert!(refused(|c| c.worker_table = "app".into()).contains("of their own"));
        assert!(refused(|c| c.worker_id = String::new()).contains("worker id"));
        assert!(refused(|c| c.dedup_window = Duration::from_secs(901)).contains("900s"));
        assert!(refused(|c| c.dedup_max_identities = 0).contains("from 1"));
        assert!(refused(|c| c.heartbeat_interval = Duration::from_secs(2)).contains("500ms"));
        assert!(refused(|c| c.renew_leases_every = Some(Duration::ZERO)).contains("100ms"));
        assert!(refused(|c| c.resubscribe_after = Duration::from_secs(300)).contains("299s"));
        let keyed_by_hand = |c: &mut Config| {
            c.parallelism = 4;
            c.checkpointing = Checkpointing::Manual;
        };
        assert!(refused(keyed_by_hand).contains("periodic"));
        assert!(refused(|c| c.parallelism = 257).contains("from 1 to 256"));
        assert!(refused(|c| c.max_batch_records = 0).contains("max_batch_records"));
    }
}
