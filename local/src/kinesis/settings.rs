//! What of the service's behaviour can be set: limits, lifetimes and the time that states last.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::setting::duration;

/// The engine's settings. The defaults are the service's, except that states pass at once and that no
/// rates are limited; [`Settings::aws`] limits them as the service does, and [`Settings::set`] takes one as text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The account that ARNs and messages name. Default: `000000000000`.
    pub account_id: String,
    /// The region that ARNs name. Default: `us-east-1`.
    pub region: String,
    /// How long CREATING, UPDATING and DELETING last. Default: no time at all.
    #[serde(with = "duration")]
    pub transition: Duration,
    /// The retention of a new stream. Default: 24 hours; a stream's own is changed by its operations, in hours.
    #[serde(with = "duration")]
    pub retention: Duration,
    /// What a shard takes per second. Default: `None`, everything.
    pub write_limits: Option<WriteLimits>,
    /// What a shard gives to `GetRecords` per second. Default: `None`, everything.
    pub read_limits: Option<ReadRate>,
    /// How far apart calls of `SubscribeToShard` of one consumer to one shard must be. Default: no time at all.
    #[serde(with = "duration")]
    pub subscribe_interval: Duration,
    /// What one consumer is pushed of one shard, in payload and partition key bytes per second. Default: `None`,
    /// as fast as it reads.
    pub fan_out_bytes_per_second: Option<u64>,
    /// How many consumers of a stream may be CREATING at once, at least 1. Default: `None`, any number.
    pub consumers_creating: Option<usize>,
    /// Whether operations that are not on records, and `GetShardIterator`, may be called only as often as the
    /// service lets them. Default: `false`.
    pub call_rates: bool,
    /// What all shards may hold together, in bytes: payloads, partition keys and what each record takes to keep,
    /// before the protocol's own buffers. Over it the oldest records are trimmed, whatever the retention, with a
    /// warning; readers learn of it from [`super::ReadBatch::trimmed`]. Default: `None`, no bound.
    pub max_held_bytes: Option<u64>,
    /// How large calls and their answers may be. Default: as on the service. `None`: as large as one body can be,
    /// 64 MiB, and records up to 10 MiB whatever the stream's maximum is.
    pub request_limits: Option<RequestLimits>,
    /// How many streams of the account may be CREATING at once, at least 1. Default: `None`, any number.
    pub streams_creating: Option<usize>,
    /// How often a stream may be scaled, switched and encrypted within a day. Default: `None`, as often as one likes.
    pub daily_limits: Option<DailyLimits>,
    /// How on-demand streams reshard by themselves. Default: `None`, they stay as they are.
    pub on_demand: Option<super::OnDemandScaling>,
    /// How many on-demand streams the account may have. Default: 50.
    pub on_demand_stream_limit: usize,
    /// How many open shards the account may have, at least 1. Default: 1,000.
    pub shard_limit: u32,
    /// How many consumers a stream may have. Default: 20.
    pub consumers_per_stream: usize,
    /// How long a shard iterator lives. Default: 5 minutes.
    #[serde(with = "duration")]
    pub iterator_lifetime: Duration,
    /// How long a paging token lives. Default: 5 minutes.
    #[serde(with = "duration")]
    pub token_lifetime: Duration,
    /// How long one subscription lasts. Default: 5 minutes.
    #[serde(with = "duration")]
    pub subscription_length: Duration,
    /// For how long a successful subscription refuses another of the same consumer and shard; later ones take
    /// over. Default: 5 seconds.
    #[serde(with = "duration")]
    pub subscription_hold: Duration,
    /// How often a quiet subscription sends an event without records. Default: 5 seconds.
    #[serde(with = "duration")]
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
            read_limits: None,
            subscribe_interval: Duration::ZERO,
            fan_out_bytes_per_second: None,
            consumers_creating: None,
            call_rates: false,
            max_held_bytes: None,
            request_limits: Some(RequestLimits::AWS),
            streams_creating: None,
            daily_limits: None,
            on_demand: None,
            on_demand_stream_limit: 50,
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
    /// The defaults with every rate limited as the service limits it. Sources: the API reference's pages of
    /// `PutRecords`, `GetRecords`, `SubscribeToShard` and `RegisterStreamConsumer`.
    #[must_use]
    pub fn aws() -> Self {
        Self {
            write_limits: Some(WriteLimits::AWS),
            read_limits: Some(ReadRate::AWS),
            // API_SubscribeToShard: one call per second, registered consumer and shard.
            subscribe_interval: Duration::from_secs(1),
            // API_RegisterStreamConsumer: up to 2 MiB per second for every shard subscribed to.
            fan_out_bytes_per_second: Some(2 << 20),
            // API_RegisterStreamConsumer: a sixth that would be CREATING is refused.
            consumers_creating: Some(5),
            // API_CreateStream: no more than five streams in CREATING.
            streams_creating: Some(5),
            daily_limits: Some(DailyLimits::AWS),
            on_demand: Some(super::OnDemandScaling::default()),
            // Each operation's page.
            call_rates: true,
            ..Self::default()
        }
    }

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
        if let Some(limits) = self.read_limits
            && (limits.bytes_per_second == 0 || limits.calls_per_second == 0)
        {
            return Err("read_limits are 0: set them to None to switch them off".to_owned());
        }
        if self.fan_out_bytes_per_second == Some(0) {
            return Err("fan_out_bytes_per_second is 0: set it to None to switch it off".to_owned());
        }
        self.validate_counts()?;
        if let Some(scaling) = &self.on_demand {
            scaling.validate()?;
        }
        if let Some(limits) = self.request_limits {
            limits.validate()?;
        }
        let put_bytes = self.request_limits.map_or(0, |limits| limits.put_bytes as u64);
        let least = MIN_HELD_BYTES.max(2 * put_bytes);
        if let Some(bytes) = self.max_held_bytes
            && bytes < least
        {
            return Err(format!(
                "max_held_bytes is {bytes}: it must be at least {least}, or one request could not be held"
            ));
        }
        Ok(())
    }
}

impl Settings {
    fn validate_counts(&self) -> Result<(), String> {
        if self.consumers_creating == Some(0) {
            return Err("consumers_creating is 0: no consumer could ever be registered; set it to None for any number"
                .to_owned());
        }
        if self.streams_creating == Some(0) {
            return Err(
                "streams_creating is 0: no stream could ever be created; set it to None for any number"
                    .to_owned(),
            );
        }
        if self.shard_limit == 0 {
            return Err("shard_limit is 0: no stream could ever be created; it must be at least 1".to_owned());
        }
        if let Some(limits) = self.daily_limits {
            for (name, value) in [
                ("scalings", limits.scalings),
                ("mode_changes", limits.mode_changes),
                ("encryptions", limits.encryptions),
            ] {
                // Each is remembered for a day, with its stream.
                if !(1..=MAX_DAILY).contains(&value) {
                    return Err(format!(
                        "daily_limits.{name} is {value}: it must be from 1 to {MAX_DAILY}; set daily_limits to None to \
                         switch them off"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// How large a call or its answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequestLimits {
    /// Records in one `PutRecords`, 1 to 100,000; the service's limit is 500.
    pub put_records: usize,
    /// Payload and partition key bytes in one `PutRecords`, 1 KiB to 40 MiB; the service's limit is 10 MiB, and it was
    /// 5 MiB before records of 10 MiB.
    pub put_bytes: usize,
    /// Records that one `GetRecords` gives, 1 to 1,000,000; the service's limit is 10,000.
    pub get_records: usize,
    /// Payload and partition key bytes that one `GetRecords` gives, above its first record, 1 KiB to 1 GiB; the
    /// service's limit is 10 MiB.
    pub get_bytes: usize,
}

impl RequestLimits {
    /// The limits of the real service: API_PutRecords, API_GetRecords.
    pub const AWS: Self =
        Self { put_records: 500, put_bytes: 10 << 20, get_records: 10_000, get_bytes: 10 << 20 };

    fn validate(self) -> Result<(), String> {
        for (name, value, least, most) in [
            ("put_records", self.put_records, 1, 100_000),
            ("put_bytes", self.put_bytes, 1 << 10, 40 << 20),
            ("get_records", self.get_records, 1, 1_000_000),
            ("get_bytes", self.get_bytes, 1 << 10, 1 << 30),
        ] {
            if !(least..=most).contains(&value) {
                return Err(format!(
                    "request_limits.{name} is {value}: it must be from {least} to {most}; set request_limits to None to \
                     switch them off"
                ));
            }
        }
        Ok(())
    }
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self::AWS
    }
}

/// What one shard takes in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
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

impl Default for WriteLimits {
    fn default() -> Self {
        Self::AWS
    }
}

/// What one shard gives to `GetRecords` in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadRate {
    /// Payload and partition key bytes; the service's limit is 2 MiB. A call that gives more is answered, and the
    /// next ones are refused for as many seconds as it has used up: five after 10 MiB.
    pub bytes_per_second: u64,
    /// Calls; the service's limit is 5.
    pub calls_per_second: u32,
}

impl ReadRate {
    /// The limits of the real service: API_GetRecords, and the guide's page of quotas and limits.
    pub const AWS: Self = Self { bytes_per_second: 2 << 20, calls_per_second: 5 };
}

impl Default for ReadRate {
    fn default() -> Self {
        Self::AWS
    }
}

/// How often a stream may be changed within a rolling day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DailyLimits {
    /// Successful calls of `UpdateShardCount` that change the number of shards, 1 to 10,000.
    pub scalings: usize,
    /// Calls of `UpdateStreamMode` that change the mode, 1 to 10,000.
    pub mode_changes: usize,
    /// Calls of `StartStreamEncryption`, and as many of `StopStreamEncryption`, 1 to 10,000.
    pub encryptions: usize,
}

impl DailyLimits {
    /// The limits of the real service: API_UpdateShardCount, the guide's page on capacity modes,
    /// API_StartStreamEncryption.
    pub const AWS: Self = Self { scalings: 10, mode_changes: 2, encryptions: 25 };
}

impl Default for DailyLimits {
    fn default() -> Self {
        Self::AWS
    }
}

/// The most that a daily limit can be set to.
const MAX_DAILY: usize = 10_000;

/// Two of the service's largest requests.
const MIN_HELD_BYTES: u64 = 20 << 20;

/// A duration in whole milliseconds, as the clock counts.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::OnDemandScaling;
    use super::*;

    /// Each change at its bound passes, and the one beyond is refused by name.
    fn both_sides(name: &str, good: impl Fn(&mut Settings), bad: impl Fn(&mut Settings)) {
        let mut settings = Settings::aws();
        good(&mut settings);
        assert_eq!(settings.validate(), Ok(()), "{name}");
        bad(&mut settings);
        let said = settings.validate().unwrap_err();
        assert!(said.starts_with(&format!("{name} ")), "{said:?} begins with {name}");
    }

    fn daily(set: impl Fn(&mut DailyLimits)) -> impl Fn(&mut Settings) {
        move |settings| set(settings.daily_limits.as_mut().unwrap())
    }

    fn scaling(set: impl Fn(&mut OnDemandScaling)) -> impl Fn(&mut Settings) {
        move |settings| set(settings.on_demand.as_mut().unwrap())
    }

    #[test]
    fn counts_have_bounds() {
        both_sides(
            "consumers_creating",
            |s| s.consumers_creating = Some(1),
            |s| s.consumers_creating = Some(0),
        );
        both_sides("streams_creating", |s| s.streams_creating = Some(1), |s| s.streams_creating = Some(0));
        both_sides("shard_limit", |s| s.shard_limit = 1, |s| s.shard_limit = 0);
        both_sides(
            "max_held_bytes",
            |s| s.max_held_bytes = Some(MIN_HELD_BYTES),
            |s| s.max_held_bytes = Some(MIN_HELD_BYTES - 1),
        );
    }

    #[test]
    fn request_limits_have_bounds() {
        let set = |change: fn(&mut RequestLimits, usize), value: usize| {
            move |s: &mut Settings| change(s.request_limits.as_mut().unwrap(), value)
        };
        for (name, change, least, most) in [
            ("put_records", (|r, v| r.put_records = v) as fn(&mut RequestLimits, usize), 1, 100_000),
            ("put_bytes", |r, v| r.put_bytes = v, 1_024, 40 << 20),
            ("get_records", |r, v| r.get_records = v, 1, 1_000_000),
            ("get_bytes", |r, v| r.get_bytes = v, 1_024, 1 << 30),
        ] {
            for (good, bad) in [(least, least - 1), (most, most + 1)] {
                both_sides(&format!("request_limits.{name}"), set(change, good), set(change, bad));
            }
        }
    }

    #[test]
    fn daily_limits_have_bounds() {
        for (good, bad) in [(1, 0), (MAX_DAILY, MAX_DAILY + 1)] {
            both_sides("daily_limits.scalings", daily(|d| d.scalings = good), daily(|d| d.scalings = bad));
            both_sides(
                "daily_limits.mode_changes",
                daily(|d| d.mode_changes = good),
                daily(|d| d.mode_changes = bad),
            );
            both_sides(
                "daily_limits.encryptions",
                daily(|d| d.encryptions = good),
                daily(|d| d.encryptions = bad),
            );
        }
    }

    #[test]
    fn on_demand_scaling_has_bounds() {
        both_sides(
            "on_demand.period",
            scaling(|o| o.period = Duration::from_millis(1)),
            scaling(|o| o.period = Duration::from_micros(999)),
        );
        both_sides(
            "on_demand.split_above",
            scaling(|o| o.split_above = 1.0),
            scaling(|o| o.split_above = 1.01),
        );
        both_sides("on_demand.split_above", scaling(|_| ()), scaling(|o| o.split_above = 0.0));
        both_sides("on_demand.split_above", scaling(|_| ()), scaling(|o| o.split_above = f64::NAN));
        both_sides(
            "on_demand.merge_below",
            scaling(|o| o.merge_below = 0.0),
            scaling(|o| o.merge_below = -0.01),
        );
        both_sides(
            "on_demand.merge_below",
            scaling(|o| o.merge_below = 0.249),
            scaling(|o| o.merge_below = 0.25),
        );
        both_sides("on_demand.min_shards", scaling(|o| o.min_shards = 1), scaling(|o| o.min_shards = 0));
        both_sides("on_demand.min_shards", scaling(|o| o.min_shards = 200), scaling(|o| o.min_shards = 201));
        both_sides(
            "on_demand.max_shards",
            scaling(|o| o.max_shards = 10_000),
            scaling(|o| o.max_shards = 10_001),
        );
    }
}
