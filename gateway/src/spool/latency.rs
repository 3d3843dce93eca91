//! How long something takes, as a histogram.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The upper bounds of the buckets, in seconds: from a battery-backed cache to a disk that is dying.
pub(crate) const BOUNDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Durations by size.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    /// The last one is for what is over every bound.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
    slowest_micros: AtomicU64,
}

impl Latency {
    pub(crate) fn record(&self, took: Duration) {
        let micros = took.as_micros() as u64;
        self.buckets[BOUNDS.partition_point(|bound| *bound < took.as_secs_f64())].fetch_add(1, Relaxed);
        self.micros.fetch_add(micros, Relaxed);
        self.slowest_micros.fetch_max(micros, Relaxed);
    }

    /// How many were at most as long as each bound; the last is all.
    pub(crate) fn cumulative(&self) -> [u64; BOUNDS.len() + 1] {
        let mut sum = 0;
        std::array::from_fn(|bucket| {
            sum += self.buckets[bucket].load(Relaxed);
            sum
        })
    }

    /// How long all of them took, in microseconds.
    pub(crate) fn micros(&self) -> u64 {
        self.micros.load(Relaxed)
    }

    /// How long the slowest took, in microseconds.
    pub(crate) fn slowest_micros(&self) -> u64 {
        self.slowest_micros.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_up_to_and_with_their_bound() {
        let latency = Latency::default();
        for micros in [0, 100, 101, 5_000_000, 5_000_001] {
            latency.record(Duration::from_micros(micros));
        }
        let counts = latency.cumulative();
        assert_eq!((counts[0], counts[1], counts[13], counts[14]), (2, 3, 4, 5));
        assert_eq!((latency.micros(), latency.slowest_micros()), (10_000_202, 5_000_001));
    }
}
