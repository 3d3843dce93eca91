//! The writer's settings.

use std::time::Duration;

use headworks_record::aggregate::zstd;
use serde::{Deserialize, Serialize};

use crate::stream::Capacity;

/// The default aggregate size, in bytes of Kinesis data and partition key together.
///
/// Four 25 KiB PUT units, by which a provisioned stream bills. The writer's benchmark measures sizes from one
/// unit to 1,000 KiB: CPU per record is the same within its noise up to 400 KiB and more above (the cache),
/// bytes put per user byte are the same from one unit on, and units are 99.8 % full from four on with 200-byte
/// records, 99.9 % with 1 KiB ones (at one unit: 99.2 % and 97.8 %). Larger ones would only wait longer to
/// fill. At low rates `linger_ms` seals long before.
pub const DEFAULT_AGGREGATE_BYTES: usize = 4 * 25 * 1024;

/// However long lanes linger, they wait no longer for each other.
const MOST_PACE: Duration = Duration::from_millis(5);

/// How a [`Writer`](crate::Writer) groups, sends and retries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The most bytes of an aggregate, its partition key included. A larger record goes alone.
    /// Default 102,400; 1,024 to 1,048,576.
    pub aggregate_bytes: usize,
    /// The most bytes of one Kinesis record, its partition key included: the stream's own limit.
    /// Default 1,048,576; 1,024 to 10,485,760.
    pub max_record_bytes: usize,
    /// How long a busy lane collects records before it sends. An idle lane sends at once. While a call is in flight,
    /// the next one starts half of this later, or 5 ms, so that lanes share calls.
    /// Default 10 ms; 0 to 10,000.
    pub linger_ms: u64,
    /// How long a lane collects at most that brings half a billed unit in this time: a unit is 25 KiB on a provisioned
    /// stream. It fills the unit if it can, and what exceeds the last full one stays for the next aggregate; large records, of which few
    /// fit into a unit, wait for a second one in this time. At a shard's full rate a unit takes 25 ms. Default 50 ms;
    /// 0 to 10,000.
    pub fill_ms: u64,
    /// The stream's capacity mode: `provisioned` or `on-demand`. Default: the stream is asked when the writer
    /// starts (`kinesis:DescribeStreamSummary`).
    pub capacity: Option<Capacity>,
    /// Compresses aggregates with zstd at this level. Only Headworks reads such a stream; its readers must be
    /// of a release that knows compressed aggregates. Default: not; 1 to 19.
    pub zstd_level: Option<i32>,
    /// How long a record is tried that brings no deadline of its own.
    /// Default 30,000 ms; 1 to 86,400,000.
    pub deadline_ms: u64,
    /// How long one `PutRecords` call may take. Default 6,000 ms; 1 to 300,000.
    pub attempt_timeout_ms: u64,
    /// The most `PutRecords` calls in flight. Default 16; 1 to 256.
    pub concurrency: usize,
    /// The most entries of one call. Default 500, which is the service's limit; 1 to 500.
    pub call_entries: usize,
    /// The most bytes of one call. Default 5,242,880; 1,048,576 to 10,485,760, which is the service's limit.
    pub call_bytes: usize,
    /// The most bytes of records that are taken and not yet answered; more wait, or are refused.
    /// Default 67,108,864; at least `max_record_bytes`.
    pub max_buffered_bytes: usize,
    /// The pause after a first failure, doubled with each that follows; the real pause is a random
    /// part of it. Default 50 ms; 1 to 60,000.
    pub backoff_ms: u64,
    /// The longest such pause. Default 2,000 ms; at least `backoff_ms`, at most 60,000.
    pub max_backoff_ms: u64,
    /// Whether a shard is written to within its limits (1 MiB/s, 1,000 Kinesis records/s) from the start, or
    /// only once the service has throttled it. Either way this writer's part of it is learned. Default false:
    /// learning costs one refused call per shard, and a service that does not limit is not held back.
    pub limit_shards: bool,
    /// How long a stopping writer keeps trying. Default 20,000 ms; 0 to 600,000.
    pub drain_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            aggregate_bytes: DEFAULT_AGGREGATE_BYTES,
            max_record_bytes: 1 << 20,
            linger_ms: 10,
            fill_ms: 50,
            capacity: None,
            zstd_level: None,
            deadline_ms: 30_000,
            attempt_timeout_ms: 6_000,
            concurrency: 16,
            call_entries: 500,
            call_bytes: 5 << 20,
            max_buffered_bytes: 64 << 20,
            backoff_ms: 50,
            max_backoff_ms: 2_000,
            limit_shards: false,
            drain_ms: 20_000,
        }
    }
}

/// A setting that is out of bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the writer setting {name} is {value}; it must be from {min} to {max}")]
pub struct ConfigError {
    /// The setting's name.
    pub name: &'static str,
    /// Its value.
    pub value: u64,
    /// The lowest value allowed.
    pub min: u64,
    /// The highest value allowed.
    pub max: u64,
}

impl ConfigError {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        "config-invalid"
    }

    /// Whether the same settings may be accepted later: never.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

impl Config {
    /// Checks every setting against its bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let check = |name, value: u64, min: u64, max: u64| {
            if (min..=max).contains(&value) { Ok(()) } else { Err(ConfigError { name, value, min, max }) }
        };
        check("aggregate_bytes", self.aggregate_bytes as u64, 1024, 1 << 20)?;
        check("max_record_bytes", self.max_record_bytes as u64, 1024, 10 << 20)?;
        check("linger_ms", self.linger_ms, 0, 10_000)?;
        check("fill_ms", self.fill_ms, 0, 10_000)?;
        if let Some(level) = self.zstd_level {
            let (least, most) = (*zstd::LEVELS.start(), *zstd::LEVELS.end());
            // A negative level is out of bounds as well, and cannot be shown as it is.
            check("zstd_level", u64::try_from(level).unwrap_or(0), least as u64, most as u64)?;
        }
        check("deadline_ms", self.deadline_ms, 1, 86_400_000)?;
        check("attempt_timeout_ms", self.attempt_timeout_ms, 1, 300_000)?;
        check("concurrency", self.concurrency as u64, 1, 256)?;
        check("call_entries", self.call_entries as u64, 1, 500)?;
        check("call_bytes", self.call_bytes as u64, (self.max_record_bytes as u64).max(1 << 20), 10 << 20)?;
        check(
            "max_buffered_bytes",
            self.max_buffered_bytes as u64,
            self.max_record_bytes as u64,
            u64::from(u32::MAX),
        )?;
        check("backoff_ms", self.backoff_ms, 1, 60_000)?;
        check("max_backoff_ms", self.max_backoff_ms, self.backoff_ms, 60_000)?;
        check("drain_ms", self.drain_ms, 0, 600_000)
    }

    pub(crate) fn linger(&self) -> Duration {
        Duration::from_millis(self.linger_ms)
    }

    /// How far apart calls start while others are in flight.
    pub(crate) fn pace(&self) -> Duration {
        (self.linger() / 2).min(MOST_PACE)
    }

    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }

    /// The longest pause after this many failures in a row, from 1.
    pub(crate) fn pause_ceiling(&self, failures: u32) -> Duration {
        use backon::BackoffBuilder as _;
        let mut ceilings = backon::ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(self.backoff_ms))
            .with_max_delay(Duration::from_millis(self.max_backoff_ms))
            .without_max_times()
            .build();
        // Doubling reaches any ceiling within 17 steps (1 ms to 60 s).
        let step = failures.saturating_sub(1).min(17) as usize;
        ceilings.nth(step).unwrap_or(Duration::from_millis(self.max_backoff_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_bounds_are_named() {
        Config::default().validate().unwrap();
        let error = Config { linger_ms: 10_001, ..Config::default() }.validate().unwrap_err();
        assert_eq!(error.to_string(), "the writer setting linger_ms is 10001; it must be from 0 to 10000");
        assert!(Config { linger_ms: 10_000, ..Config::default() }.validate().is_ok());
        assert!(Config { max_buffered_bytes: 1000, ..Config::default() }.validate().is_err());
    }

    #[test]
    fn pauses_double_up_to_the_ceiling() {
        let config = Config::default();
        let ceilings: Vec<u128> = (1..9).map(|n| config.pause_ceiling(n).as_millis()).collect();
        assert_eq!(ceilings, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(config.pause_ceiling(u32::MAX).as_millis(), 2000);
    }
}
