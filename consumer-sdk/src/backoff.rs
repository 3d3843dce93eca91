//! Delays between attempts: exponential, with full jitter.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// An endless sequence of delays.
#[derive(Debug)]
pub(crate) struct Backoff {
    builder: ExponentialBuilder,
    delays: ExponentialBackoff,
    max: Duration,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        let builder =
            ExponentialBuilder::default().with_min_delay(min).with_max_delay(max).without_max_times();
        Self { builder, delays: builder.build(), max }
    }

    /// The next delay: uniform between nothing and the exponential bound, so that workers that failed
    /// together do not try again together.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let bound = self.delays.next().unwrap_or(self.max);
        crate::random::range(Duration::ZERO..=bound)
    }

    /// Begins again with the shortest delay: something succeeded.
    pub(crate) fn reset(&mut self) {
        self.delays = self.builder.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_below_a_growing_bound() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(1000));
        for i in 0..40u32 {
            let bound = Duration::from_millis(1000.min(10u64 << i.min(20)));
            assert!(backoff.next_delay() <= bound, "attempt {i}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(10));
    }
}
