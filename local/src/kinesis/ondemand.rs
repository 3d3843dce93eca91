//! On-demand streams: they reshard by themselves, under load and when it is gone.
//!
//! The service keeps room for twice the peak that it has seen (the guide's page on capacity modes), so a shard that
//! takes more than half of what it can take is split. How often it looks, and how soon it merges again, is not
//! documented: both are settings. Load is counted by the injected clock, on the way of puts; a stream that nobody
//! puts to is looked at by the sweep.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::engine::Engine;
use super::error::Error;
use super::setting::duration;
use super::settings::{WriteLimits, millis};
use super::shard::Shard;
use super::stream::{Stream, StreamMode, StreamStatus};

/// The most open shards of one stream: UpdateShardCount's own bound.
const MAX_SHARDS: u32 = 10_000;

/// How on-demand streams reshard.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OnDemandScaling {
    /// For how long load is counted before something is done about it, at least 1 ms. Default: 1 minute.
    #[serde(with = "duration")]
    pub period: Duration,
    /// A shard is split above this share of what a shard takes (bytes or records), above 0 up to 1. Default: 0.5.
    pub split_above: f64,
    /// Two neighbours are merged when each has been below this share for [`OnDemandScaling::merge_after`]; less than
    /// half of `split_above`, or the child would be split again. Default: 0.125.
    pub merge_below: f64,
    /// Default: 1 hour.
    #[serde(with = "duration")]
    pub merge_after: Duration,
    /// No stream is merged to fewer open shards, from 1 to `max_shards`. Default: 4, as a new stream has.
    pub min_shards: u32,
    /// No stream is split into more open shards, up to 10,000. Default: 200, for the 200 MiB/s of the service.
    pub max_shards: u32,
}

impl Default for OnDemandScaling {
    fn default() -> Self {
        Self {
            period: Duration::from_mins(1),
            split_above: 0.5,
            merge_below: 0.125,
            merge_after: Duration::from_hours(1),
            min_shards: 4,
            max_shards: 200,
        }
    }
}

impl OnDemandScaling {
    pub(crate) fn validate(&self) -> Result<(), String> {
        if self.period < Duration::from_millis(1) {
            return Err(format!(
                "on_demand.period is {:?}: it must be at least 1 ms, as load is counted over some time, such as a minute",
                self.period
            ));
        }
        if !(self.split_above > 0.0 && self.split_above <= 1.0) {
            return Err(format!(
                "on_demand.split_above is {}: it must be above 0, up to 1",
                self.split_above
            ));
        }
        if !(self.merge_below >= 0.0 && self.merge_below < self.split_above / 2.0) {
            return Err(format!(
                "on_demand.merge_below is {}: it must be less than half of split_above, {}",
                self.merge_below, self.split_above
            ));
        }
        if self.min_shards == 0 || self.min_shards > self.max_shards {
            return Err(format!(
                "on_demand.min_shards is {}: it must be from 1 to max_shards, {}",
                self.min_shards, self.max_shards
            ));
        }
        if self.max_shards > MAX_SHARDS {
            return Err(format!(
                "on_demand.max_shards is {}: it must be up to {MAX_SHARDS}, the most of any stream",
                self.max_shards
            ));
        }
        Ok(())
    }
}

/// What a shard has taken since it was last looked at.
#[derive(Debug, Default)]
pub(crate) struct Load {
    pub(crate) bytes: u64,
    pub(crate) records: u64,
    calm_since_ms: Option<i64>,
}

impl Load {
    /// The share of its limits that a shard has used over `elapsed_ms`; counting begins anew.
    fn take(&mut self, limits: WriteLimits, elapsed_ms: i64) -> f64 {
        let seconds = elapsed_ms.max(1) as f64 / 1_000.0;
        let bytes = self.bytes as f64 / seconds / limits.bytes_per_second as f64;
        let records = self.records as f64 / seconds / limits.records_per_second as f64;
        (self.bytes, self.records) = (0, 0);
        bytes.max(records)
    }

    /// Notes whether the shard is calm, and returns for how long it has been.
    fn calm_for(&mut self, is_calm: bool, since_ms: i64, now_ms: i64) -> Option<i64> {
        if !is_calm {
            self.calm_since_ms = None;
            return None;
        }
        let since_ms = *self.calm_since_ms.get_or_insert(since_ms);
        Some(now_ms.saturating_sub(since_ms))
    }
}

impl Engine {
    /// Looks at an on-demand stream when a period is over, and reshards it as its load demands.
    pub(crate) fn scale(&self, stream: &Stream, now_ms: i64) -> Result<(), Error> {
        let Some(scaling) = self.settings().on_demand else { return Ok(()) };
        let period_ms = millis(scaling.period);
        let Some(since_ms) = stream.begin_period(now_ms, period_ms) else { return Ok(()) };
        let elapsed_ms = now_ms.saturating_sub(since_ms);
        let limits = self.settings().write_limits.unwrap_or(WriteLimits::AWS);

        let mut control = stream.control();
        if control.mode != StreamMode::OnDemand || control.require_active(stream, now_ms).is_err() {
            return Ok(());
        }
        let mut map = stream.map_mut();
        let (mut hot, mut calm) = (Vec::new(), Vec::new());
        for shard in map.open() {
            let (share, calm_ms) = shard.with_load(|load| {
                let share = load.take(limits, elapsed_ms);
                (share, load.calm_for(share < scaling.merge_below, since_ms, now_ms))
            });
            if share > scaling.split_above {
                hot.push(Arc::clone(shard));
            }
            calm.push(calm_ms.is_some_and(|calm_ms| calm_ms >= millis(scaling.merge_after)));
        }
        let before = map.open().len();
        let mut room = (scaling.max_shards as usize).saturating_sub(before);
        for shard in hot {
            let range = shard.identity().range;
            let middle = range.start + (range.end - range.start) / 2 + 1;
            if room == 0 || middle <= range.start || middle > range.end {
                continue;
            }
            self.split(&mut map, &shard, middle, now_ms);
            room -= 1;
        }
        if map.open().len() == before {
            // Never both: what one look has split the next one may find calm.
            let mut spare = before.saturating_sub(scaling.min_shards.max(warm(&control)) as usize);
            let open: Vec<Arc<Shard>> = map.open().to_vec();
            let mut at = 0;
            while spare > 0 && at + 1 < open.len() {
                if calm[at] && calm[at + 1] {
                    self.merge(&mut map, &open[at], &open[at + 1], now_ms);
                    spare -= 1;
                    at += 1;
                }
                at += 1;
            }
        }
        let after = map.open().len();
        if after == before {
            return Ok(());
        }
        tracing::info!(stream = stream.name(), before, after, "an on-demand stream has resharded itself");
        control.enter(StreamStatus::Updating, now_ms, millis(self.settings().transition));
        let mark = self.note(stream, &control, &map);
        drop((map, control));
        self.flush(mark)
    }

    /// Splits an on-demand stream into at least one shard for each MiB/s, at once.
    pub(crate) fn grow_to(&self, name: &str, mibps: u32) -> Result<(), Error> {
        let stream = self.usable(name)?;
        let control = stream.control();
        let mut map = stream.map_mut();
        if map.open().len() < mibps as usize {
            self.reshape(&mut map, &super::hash::uniform(mibps), self.now_ms());
        }
        let mark = self.note(&stream, &control, &map);
        drop((map, control));
        self.flush(mark)
    }
}

fn warm(control: &super::stream::Control) -> u32 {
    control.features.warm_mibps.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_the_larger_share_of_bytes_and_records() {
        let limits = WriteLimits { bytes_per_second: 1_000, records_per_second: 10 };
        let mut load = Load { bytes: 1_000, records: 30, calm_since_ms: None };
        assert!((load.take(limits, 10_000) - 0.3).abs() < 1e-9);
        assert_eq!((load.bytes, load.records), (0, 0));
        load.bytes = 8_000;
        assert!((load.take(limits, 10_000) - 0.8).abs() < 1e-9);
    }

    #[test]
    fn calm_is_counted_from_where_it_began() {
        let mut load = Load::default();
        assert_eq!(load.calm_for(true, 1_000, 2_000), Some(1_000));
        assert_eq!(load.calm_for(true, 2_000, 3_000), Some(2_000));
        assert_eq!(load.calm_for(false, 3_000, 4_000), None);
        assert_eq!(load.calm_for(true, 4_000, 5_000), Some(1_000));
    }

    #[test]
    fn bounds_are_checked() {
        let good = OnDemandScaling::default();
        assert_eq!(good.validate(), Ok(()));
        for bad in [
            OnDemandScaling { period: Duration::ZERO, ..good },
            OnDemandScaling { split_above: 1.1, ..good },
            OnDemandScaling { merge_below: 0.25, ..good },
            OnDemandScaling { min_shards: 0, ..good },
            OnDemandScaling { min_shards: 201, ..good },
        ] {
            assert!(bad.validate().is_err(), "{bad:?}");
        }
    }
}
