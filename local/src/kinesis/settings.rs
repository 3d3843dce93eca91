//! What of the service's behaviour can be set: limits, lifetimes and the time that states last.

use std::time::Duration;

/// The engine's settings. The defaults are the service's, except that states pass at once and no shard throttles.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The account that ARNs and messages name. Default: `000000000000`.
    pub account_id: String,
    /// The region that ARNs name. Default: `us-east-1`.
    pub region: String,
    /// How long CREATING, UPDATING and DELETING last. Default: no time at all.
    pub transition: Duration,
    /// The retention of a new stream. Default: 24 hours; a stream's own is changed by its operations, in hours.
    pub retention: Duration,
    /// What a shard takes per second. Default: `None`, everything.
    pub write_limits: Option<WriteLimits>,
    /// How many open shards the account may have. Default: 1,000.
    pub shard_limit: u32,
    /// How many consumers a stream may have. Default: 20.
    pub consumers_per_stream: usize,
    /// How long a shard iterator lives. Default: 5 minutes.
    pub iterator_lifetime: Duration,
    /// How long a paging token lives. Default: 5 minutes.
    pub token_lifetime: Duration,
    /// How long one subscription lasts. Default: 5 minutes.
    pub subscription_length: Duration,
    /// For how long a successful subscription refuses another of the same consumer and shard; later ones take
    /// over. Default: 5 seconds.
    pub subscription_hold: Duration,
    /// How often a quiet subscription sends an event without records. Default: 5 seconds.
    pub heartbeat: Duration,
    /// The most that one event of a subscription carries: records and bytes (at least one record is sent).
    /// Default: 10,000 and 2 MiB.
    pub event_limits: super::ReadLimits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            account_id: "000000000000".to_owned(),
            region: "us-east-1".to_owned(),
            transition: Duration::ZERO,
            retention: Duration::from_hours(24),
            write_limits: None,
            shard_limit: 1_000,
            consumers_per_stream: 20,
            iterator_lifetime: Duration::from_mins(5),
            token_lifetime: Duration::from_mins(5),
            subscription_length: Duration::from_mins(5),
            subscription_hold: Duration::from_secs(5),
            heartbeat: Duration::from_secs(5),
            event_limits: super::ReadLimits { records: 10_000, bytes: 2 << 20 },
        }
    }
}

impl Settings {
    /// Checks what the engine relies on.
    ///
    /// # Errors
    /// The setting, its value and what it must be.
    pub fn validate(&self) -> Result<(), String> {
        if self.account_id.len() != 12 || !self.account_id.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("account_id is {:?}: it must be 12 digits", self.account_id));
        }
        if self.region.is_empty() || self.region.contains([':', '/']) {
            return Err(format!(
                "region is {:?}: it must be a region's name, such as us-east-1",
                self.region
            ));
        }
        if self.heartbeat.is_zero() {
            return Err(
                "heartbeat is 0: it must be longer, or a quiet subscription would never rest".to_owned()
            );
        }
        if self.event_limits.records == 0 || self.event_limits.bytes == 0 {
            return Err("event_limits are 0: they must be at least 1".to_owned());
        }
        if let Some(limits) = self.write_limits
            && (limits.bytes_per_second == 0 || limits.records_per_second == 0)
        {
            return Err("write_limits are 0: set them to None to switch them off".to_owned());
        }
        Ok(())
    }
}

/// What one shard takes in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteLimits {
    /// Payload and partition key bytes; the service's limit is 1 MiB.
    pub bytes_per_second: u64,
    /// Records; the service's limit is 1,000.
    pub records_per_second: u64,
}

impl WriteLimits {
    /// The limits of the real service.
    pub const AWS: Self = Self { bytes_per_second: 1 << 20, records_per_second: 1_000 };
}

/// A duration in whole milliseconds, as the clock counts.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
