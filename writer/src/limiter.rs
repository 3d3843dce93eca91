//! How fast a shard is written to: what it takes by itself, and this writer's part of it.
//!
//! Several writers share a shard without knowing of each other. Each lowers its part by a factor when
//! the service throttles it, and raises it again by steps: whoever has the larger part is throttled more
//! often, so the parts draw level. Pure: time comes in with each call.

use std::time::Duration;

use tokio::time::Instant;

/// What a shard takes per second (Kinesis Data Streams quotas: 1 MB/s, counted in binary, and 1,000 records/s).
const BYTES_PER_SECOND: f64 = (1 << 20) as f64;
const RECORDS_PER_SECOND: f64 = 1000.0;
/// How many seconds' worth may go at once. What is larger than that goes when the bucket is full, on credit.
const BURST_SECONDS: f64 = 0.5;
/// A part is never less than this: about one small Kinesis record per second still tries.
const FLOOR: f64 = 0.01;
const DECREASE: f64 = 0.8;
/// Raised by this per second at first, and faster the longer nothing is throttled: whoever is left alone
/// has the whole shard again within a quarter of a minute.
const INCREASE_PER_SECOND: f64 = 0.01;
const QUIET_SECONDS: f64 = 2.0;

#[derive(Debug, Clone)]
pub(crate) struct Limiter {
    /// Whether it limits: from the first throttled answer on, unless it is told to begin with.
    on: bool,
    /// This writer's part of the shard, from `FLOOR` to 1.
    part: f64,
    /// Of this writer's buckets; negative after something larger than the bucket.
    bytes: f64,
    records: f64,
    filled: Instant,
    lowered: Instant,
}

impl Limiter {
    pub(crate) fn new(on: bool, now: Instant) -> Self {
        let (bytes, records) = (BYTES_PER_SECOND * BURST_SECONDS, RECORDS_PER_SECOND * BURST_SECONDS);
        Self { on, part: 1.0, bytes, records, filled: now, lowered: now }
    }

    /// Whether the service has throttled this shard and no more than the part may go.
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// When a Kinesis record of this size may go; `None`: now.
    pub(crate) fn waits_until(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        if !self.on {
            return None;
        }
        self.fill(now);
        let need = (bytes as f64).min(self.part * BYTES_PER_SECOND * BURST_SECONDS) - self.bytes;
        let wait = (need / BYTES_PER_SECOND).max((1.0 - self.records) / RECORDS_PER_SECOND) / self.part;
        // Rounded up to the timer's grain, or the wake-up would come a moment too early.
        (wait > 0.0).then(|| now + Duration::from_secs_f64(wait) + Duration::from_millis(1))
    }

    /// Counts a Kinesis record that goes.
    pub(crate) fn take(&mut self, bytes: usize) {
        if self.on {
            self.bytes -= bytes as f64;
            self.records -= 1.0;
        }
    }

    /// Takes a throttled answer to what was sent at `sent`.
    pub(crate) fn throttled(&mut self, sent: Instant, now: Instant) {
        self.fill(now);
        // What was sent before the last decrease says nothing about the part since then.
        if self.on && sent <= self.lowered {
            return;
        }
        self.on = true;
        self.part = (self.part * DECREASE).max(FLOOR);
        self.lowered = now;
        self.bytes = self.bytes.min(0.0);
        self.records = self.records.min(0.0);
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        let quiet = now.saturating_duration_since(self.lowered).as_secs_f64();
        self.part = (self.part + INCREASE_PER_SECOND * (1.0 + quiet / QUIET_SECONDS) * elapsed).min(1.0);
        let fill = |tokens: &mut f64, rate: f64| {
            *tokens = (*tokens + elapsed * self.part * rate).min((self.part * rate * BURST_SECONDS).max(1.0));
        };
        fill(&mut self.bytes, BYTES_PER_SECOND);
        fill(&mut self.records, RECORDS_PER_SECOND);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGGREGATE: usize = 100 * 1024;

    fn run(limiter: &mut Limiter, now: &mut Instant, bytes: usize, seconds: u64) -> usize {
        let end = *now + Duration::from_secs(seconds);
        let mut sent = 0;
        while *now < end {
            match limiter.waits_until(bytes, *now) {
                Some(until) => *now = until,
                None => {
                    limiter.take(bytes);
                    sent += 1;
                }
            }
        }
        sent
    }

    #[tokio::test(start_paused = true)]
    async fn a_shards_own_limits() {
        let mut now = Instant::now();
        let mut limiter = Limiter::new(true, now);
        // 10.24 aggregates a second, half a second's worth at once at the beginning.
        let sent = run(&mut limiter, &mut now, AGGREGATE, 60);
        assert!((600..=621).contains(&sent), "{sent}");
        let sent = run(&mut Limiter::new(true, now), &mut now, 10, 10);
        assert!((9_000..=10_600).contains(&sent), "{sent}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_larger_than_the_burst_goes_and_is_paid_for_afterwards() {
        let now = Instant::now();
        let mut limiter = Limiter::new(true, now);
        assert_eq!(limiter.waits_until(8 << 20, now), None);
        limiter.take(8 << 20);
        let wait = limiter.waits_until(AGGREGATE, now).unwrap() - now;
        assert!((7.5..7.7).contains(&wait.as_secs_f64()), "{wait:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_part_falls_by_a_factor_never_below_the_floor_and_recovers() {
        let mut now = Instant::now();
        let mut limiter = Limiter::new(false, now);
        assert_eq!(limiter.waits_until(1 << 30, now), None, "nothing is limited before it is throttled");
        limiter.throttled(now, now);
        assert!(limiter.is_on() && limiter.part == DECREASE);
        // Answers to what was sent before count once.
        limiter.throttled(now, now);
        assert_eq!(limiter.part, DECREASE);
        for _ in 0..100 {
            now += Duration::from_millis(10);
            limiter.throttled(now, now);
        }
        assert!((FLOOR..FLOOR * 1.2).contains(&limiter.part), "{}", limiter.part);
        limiter.fill(now + Duration::from_secs(20));
        assert_eq!(limiter.part, 1.0);
    }
}
