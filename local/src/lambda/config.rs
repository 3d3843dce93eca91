//! [`Config`]: how a mapping reads a stream and treats failures, with Lambda's bounds.

use std::time::Duration;

use super::destination::Destination;
use super::error::ConfigError;
use super::event::MAX_EVENT_BYTES;
use super::filter::FilterCriteria;
use super::lane::Rules;

/// Where a mapping starts in the shards that exist when it starts. Shards that appear later, by a split or a merge,
/// are read from their beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartingPosition {
    /// At the oldest record kept.
    TrimHorizon,
    /// After the newest record; closed shards are skipped.
    Latest,
    /// At the first record that arrived at this time or later, in milliseconds since the Unix epoch.
    AtTimestamp(i64),
}

/// An event source mapping from one stream to one function.
#[derive(Debug, Clone)]
pub struct Config {
    /// The stream's name.
    pub stream: String,
    /// The most Kinesis records in one event, 1 to 10,000. Default 100.
    pub batch_size: usize,
    /// How long to gather a batch, up to 300 s. Default zero: records are handed over as soon as they are there.
    pub batching_window: Duration,
    /// How many batches of one shard may be in flight, 1 to 10, divided by partition key. Default 1.
    pub parallelization_factor: usize,
    /// Where to start. Default [`StartingPosition::TrimHorizon`].
    pub starting_position: StartingPosition,
    /// Whether the function's response names the records that failed (`ReportBatchItemFailures`). Default false:
    /// any response means success.
    pub report_batch_item_failures: bool,
    /// How often a failed batch is retried, up to 10,000; `None` (the default) without limit.
    pub max_retries: Option<u32>,
    /// How old a record may be when it is handed over, 60 s to 7 days; `None` (the default) as old as it gets.
    pub max_record_age: Option<Duration>,
    /// Whether a failed batch is split, so that a bad record fails alone. Default false.
    pub bisect_on_error: bool,
    /// Which records are handed over; the others are finished as they are read. Default: every one.
    pub filters: FilterCriteria,
    /// Lambda's tumbling windows are not emulated: any value but zero, which is the default, is refused.
    pub tumbling_window: Duration,
    /// Where records go that are given up, after [`Config::max_retries`] or [`Config::max_record_age`]. With `None`
    /// (the default) they are dropped, with a warning and a count, as Lambda does.
    pub on_failure: Option<Destination>,
    /// The pause before the first retry; it doubles with every further failure, and half of it is random. Above
    /// zero, at most `retry_backoff_max`. Default 100 ms. (Lambda does not publish its own.)
    pub retry_backoff: Duration,
    /// The longest pause before a retry, at most an hour. Default 30 s.
    pub retry_backoff_max: Duration,
    /// The largest event, in bytes, 1 KiB to Lambda's 6 MiB, which is the default.
    pub max_event_bytes: usize,
    /// How much of one shard is read ahead of the function, in bytes of payloads and keys, 1 MiB to 1 GiB. Default
    /// 16 MiB. The memory is the engine's own; it is only kept alive.
    pub read_ahead_bytes: usize,
    /// How long the mapping waits, when it shuts down, for invocations in flight, at most 900 s. Default 30 s.
    pub shutdown_grace: Duration,
    /// `invokeIdentityArn` of the events.
    pub role_arn: String,
}

impl Config {
    /// A mapping with Lambda's defaults.
    pub fn new(stream: impl Into<String>) -> Self {
        Self {
            stream: stream.into(),
            batch_size: 100,
            batching_window: Duration::ZERO,
            parallelization_factor: 1,
            starting_position: StartingPosition::TrimHorizon,
            report_batch_item_failures: false,
            max_retries: None,
            max_record_age: None,
            bisect_on_error: false,
            filters: FilterCriteria::default(),
            tumbling_window: Duration::ZERO,
            on_failure: None,
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(30),
            max_event_bytes: MAX_EVENT_BYTES,
            read_ahead_bytes: 16 << 20,
            shutdown_grace: Duration::from_secs(30),
            role_arn: "arn:aws:iam::000000000000:role/lambda-role".to_owned(),
        }
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// [`ConfigError`] names the first field out of bounds, its value and the bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        const ZERO: Duration = Duration::ZERO;
        if self.stream.is_empty() {
            return Err(ConfigError::new("stream", "empty", "name the stream to read"));
        }
        ConfigError::check("batch_size", self.batch_size, 1..=10_000)?;
        ConfigError::check_duration(
            "batching_window",
            self.batching_window,
            ZERO..=Duration::from_secs(300),
        )?;
        ConfigError::check("parallelization_factor", self.parallelization_factor, 1..=10)?;
        if self.tumbling_window != ZERO {
            return Err(ConfigError::new(
                "tumbling_window",
                format!("{:?}", self.tumbling_window),
                "tumbling windows are not emulated; leave it zero and keep the window's state in the function, or try \
                 this function on AWS",
            ));
        }
        if let Some(retries) = self.max_retries {
            ConfigError::check("max_retries", retries, 0..=10_000)?;
        }
        if let Some(age) = self.max_record_age {
            let bounds = Duration::from_secs(60)..=Duration::from_secs(604_800);
            ConfigError::check_duration("max_record_age", age, bounds)?;
        }
        let longest = Duration::from_secs(3600);
        ConfigError::check_duration(
            "retry_backoff_max",
            self.retry_backoff_max,
            Duration::from_millis(1)..=longest,
        )?;
        let bounds = Duration::from_millis(1)..=self.retry_backoff_max;
        ConfigError::check_duration("retry_backoff", self.retry_backoff, bounds)?;
        ConfigError::check("max_event_bytes", self.max_event_bytes, 1024..=MAX_EVENT_BYTES)?;
        ConfigError::check("read_ahead_bytes", self.read_ahead_bytes, 1 << 20..=1 << 30)?;
        ConfigError::check_duration("shutdown_grace", self.shutdown_grace, ZERO..=Duration::from_secs(900))
    }

    pub(super) fn rules(&self) -> Rules {
        Rules {
            batch_size: self.batch_size,
            window: self.batching_window,
            max_event_bytes: self.max_event_bytes,
            max_retries: self.max_retries,
            max_age_ms: self.max_record_age.map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX)),
            bisect: self.bisect_on_error,
            backoff_first: self.retry_backoff,
            backoff_max: self.retry_backoff_max,
        }
    }
}
