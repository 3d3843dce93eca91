//! The write limit of one shard: two token buckets of one second each.

use super::settings::WriteLimits;

/// Counts in thousandths, so that a millisecond's refill is a whole number.
#[derive(Debug)]
pub(crate) struct Limiter {
    bytes: Bucket,
    records: Bucket,
}

#[derive(Debug)]
struct Bucket {
    per_second: i64,
    /// Thousandths of a unit. Negative after a unit larger than the bucket, which is let through when it is full.
    tokens: i64,
    refilled_ms: i64,
}

impl Limiter {
    pub(crate) fn new(limits: WriteLimits, now_ms: i64) -> Self {
        Self {
            bytes: Bucket::new(limits.bytes_per_second, now_ms),
            records: Bucket::new(limits.records_per_second, now_ms),
        }
    }

    /// Takes one record of `bytes`, or nothing.
    pub(crate) fn take(&mut self, bytes: usize, now_ms: i64) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX / 1_000);
        self.bytes.refill(now_ms);
        self.records.refill(now_ms);
        if !self.bytes.has(bytes) || !self.records.has(1) {
            return false;
        }
        self.bytes.tokens -= bytes.saturating_mul(1_000);
        self.records.tokens -= 1_000;
        true
    }
}

impl Bucket {
    fn new(per_second: u64, now_ms: i64) -> Self {
        let per_second = i64::try_from(per_second).unwrap_or(i64::MAX / 1_000).min(i64::MAX / 1_000);
        Self { per_second, tokens: per_second * 1_000, refilled_ms: now_ms }
    }

    fn refill(&mut self, now_ms: i64) {
        let elapsed = now_ms.saturating_sub(self.refilled_ms).max(0);
        self.refilled_ms = self.refilled_ms.max(now_ms);
        // `per_second` thousandths per millisecond.
        let added = self.per_second.saturating_mul(elapsed);
        self.tokens = self.tokens.saturating_add(added).min(self.per_second * 1_000);
    }

    fn has(&self, units: i64) -> bool {
        self.tokens >= units.min(self.per_second).saturating_mul(1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_second_of_each_and_refills() {
        let mut limiter = Limiter::new(WriteLimits { bytes_per_second: 1_000, records_per_second: 10 }, 0);
        assert_eq!((0..20).filter(|_| limiter.take(10, 0)).count(), 10);
        assert!(!limiter.take(10, 99));
        assert!(limiter.take(10, 100));
        assert!(!limiter.take(10, 100));
    }

    #[test]
    fn lets_a_large_record_through_a_full_bucket_and_makes_up_for_it() {
        let mut limiter = Limiter::new(WriteLimits { bytes_per_second: 1_000, records_per_second: 10 }, 0);
        assert!(limiter.take(3_000, 0));
        assert!(!limiter.take(1, 2_000));
        assert!(limiter.take(1, 2_001));
    }
}
