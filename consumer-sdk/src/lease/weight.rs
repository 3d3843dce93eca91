//! How much each shard brings, as this worker sees it, and what that weighs against an idle lease.

use std::collections::BTreeMap;
use std::time::Duration;

use headworks_record::ShardId;
use tokio::time::Instant;

/// A lease weighs something also while its shard is idle, in bytes/s.
const IDLE: u64 = 1024;
/// How long a change of the rate takes to be believed.
const SMOOTHING: Duration = Duration::from_secs(10);
/// No sooner is measured again.
const EVERY: Duration = Duration::from_secs(1);

/// Smoothed bytes/s of the shards that this worker reads.
#[derive(Debug)]
pub(crate) struct Meter {
    measured: Instant,
    shards: BTreeMap<ShardId, (u64, f64)>,
    rates: BTreeMap<ShardId, u64>,
}

impl Meter {
    pub(crate) fn new(now: Instant) -> Self {
        Self { measured: now, shards: BTreeMap::new(), rates: BTreeMap::new() }
    }

    /// What a shard brought when another worker read it, to begin with.
    pub(crate) fn expect(&mut self, shard: &ShardId, rate: u64) {
        self.shards.insert(shard.clone(), (0, rate as f64));
        self.rates.insert(shard.clone(), rate);
    }

    /// Takes in how many bytes each shard has brought in all since it was taken.
    pub(crate) fn measure<'a>(&mut self, now: Instant, totals: impl Iterator<Item = (&'a ShardId, u64)>) {
        let span = now.saturating_duration_since(self.measured);
        if span < EVERY {
            return;
        }
        self.measured = now;
        let believed = 1.0 - (-span.as_secs_f64() / SMOOTHING.as_secs_f64()).exp();
        let mut shards = BTreeMap::new();
        for (shard, total) in totals {
            let (before, rate) = self.shards.get(shard).copied().unwrap_or((0, 0.0));
            let now = total.saturating_sub(before) as f64 / span.as_secs_f64();
            shards.insert(shard.clone(), (total, rate + (now - rate) * believed));
        }
        self.rates = shards.iter().map(|(shard, (_, rate))| (shard.clone(), *rate as u64)).collect();
        self.shards = shards;
    }

    /// Bytes/s by shard.
    pub(crate) fn rates(&self) -> &BTreeMap<ShardId, u64> {
        &self.rates
    }

    /// Bytes/s of all shards together.
    pub(crate) fn total(&self) -> u64 {
        self.rates.values().sum()
    }
}

/// What an idle lease weighs among leases that bring so many bytes/s together: enough that nobody ends up
/// with all the idle ones, little enough that the busy ones decide.
pub(crate) fn idle(leases: usize, bytes: u64) -> u64 {
    IDLE + bytes / (leases as u64).max(1) / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_believed_after_a_while_and_forgotten_with_its_shard() {
        let start = Instant::now();
        let shard = ShardId::from("s");
        let mut meter = Meter::new(start);
        for second in 1..=60 {
            meter.measure(start + Duration::from_secs(second), [(&shard, second * 1_000)].into_iter());
        }
        assert!((990..=1_000).contains(&meter.total()), "{}", meter.total());
        meter.measure(start + Duration::from_millis(60_500), std::iter::empty());
        assert_eq!(meter.rates().len(), 1, "too soon");
        meter.measure(start + Duration::from_secs(61), std::iter::empty());
        assert_eq!(meter.total(), 0);
    }

    #[test]
    fn what_another_worker_measured_is_believed_until_this_one_knows_better() {
        let start = Instant::now();
        let shard = ShardId::from("s");
        let mut meter = Meter::new(start);
        meter.expect(&shard, 5_000);
        assert_eq!(meter.total(), 5_000);
        for second in 1..=60 {
            meter.measure(start + Duration::from_secs(second), [(&shard, 0)].into_iter());
        }
        assert!(meter.total() < 50, "{}", meter.total());
    }
}
