//! The limits of one shard: for writes two token buckets of one second each, for reads a window.

use super::settings::{ReadRate, WriteLimits};

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

/// The reads of the last second, or of as many seconds as they have used up.
#[derive(Debug, Default)]
pub(crate) struct ReadWindow {
    since_ms: i64,
    calls: u32,
    bytes: u64,
}

impl ReadWindow {
    /// Counts a call, or refuses it. A call is refused until what was read has been paid for: after 10 MiB at
    /// 2 MiB/s for five seconds, after 2 MiB for one, as the reference of `GetRecords` says.
    pub(crate) fn admit(&mut self, rate: ReadRate, now_ms: i64) -> bool {
        let seconds = self.bytes.div_ceil(rate.bytes_per_second).max(1);
        let length_ms = i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX);
        if now_ms.saturating_sub(self.since_ms) >= length_ms {
            *self = Self { since_ms: now_ms, calls: 0, bytes: 0 };
        }
        if self.calls >= rate.calls_per_second || self.bytes >= rate.bytes_per_second {
            return false;
        }
        self.calls += 1;
        true
    }

    /// Counts what a call has given.
    pub(crate) fn charge(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
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
    fn five_calls_are_admitted_in_a_second() {
        let mut window = ReadWindow::default();
        assert_eq!((0..9).filter(|_| window.admit(ReadRate::AWS, 5_000)).count(), 5);
        assert!(!window.admit(ReadRate::AWS, 5_999));
        assert!(window.admit(ReadRate::AWS, 6_000));
    }

    #[test]
    fn bytes_are_paid_for_in_whole_seconds() {
        for (bytes, blocked_ms) in [(10 << 20, 5_000), (2 << 20, 1_000), ((2 << 20) + 1, 2_000)] {
            let mut window = ReadWindow::default();
            assert!(window.admit(ReadRate::AWS, 10_000));
            window.charge(bytes);
            assert!(!window.admit(ReadRate::AWS, 10_000 + blocked_ms - 1), "{bytes}");
            assert!(window.admit(ReadRate::AWS, 10_000 + blocked_ms), "{bytes}");
        }
        let mut window = ReadWindow::default();
        assert!(window.admit(ReadRate::AWS, 10_000));
        window.charge(1 << 20);
        assert!(window.admit(ReadRate::AWS, 10_000), "half of the second's bytes are left");
    }

    #[test]
    fn lets_a_large_record_through_a_full_bucket_and_makes_up_for_it() {
        let mut limiter = Limiter::new(WriteLimits { bytes_per_second: 1_000, records_per_second: 10 }, 0);
        assert!(limiter.take(3_000, 0));
        assert!(!limiter.take(1, 2_000));
        assert!(limiter.take(1, 2_001));
    }
}
