//! Pauses between attempts to connect.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// The longest pause after a first failure.
const FIRST: Duration = Duration::from_millis(50);

/// Exponential backoff with full jitter: each pause is a random part of a ceiling that doubles, so
/// that many producers do not come back at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    builder: ExponentialBuilder,
    ceilings: ExponentialBackoff,
}

impl Backoff {
    pub(crate) fn new(longest: Duration) -> Self {
        let builder = ExponentialBuilder::new()
            .with_min_delay(FIRST.min(longest))
            .with_max_delay(longest)
            .without_max_times();
        Self { builder, ceilings: builder.build() }
    }

    /// Starts over, after a success.
    pub(crate) fn reset(&mut self) {
        self.ceilings = self.builder.build();
    }

    /// The next pause.
    pub(crate) fn pause(&mut self) -> Duration {
        self.ceilings.next().unwrap_or(FIRST).mul_f64(rand::random())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_stay_below_doubling_ceilings() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        for _ in 0..2 {
            for ceiling in [50, 100, 200, 400, 800, 1000, 1000] {
                assert!(backoff.pause() <= Duration::from_millis(ceiling));
            }
            backoff.reset();
        }
    }

    #[test]
    fn pauses_are_a_random_part() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        let pauses: Vec<Duration> = (0..100).map(|_| backoff.pause()).collect();
        assert!(pauses.iter().any(|pause| *pause < Duration::from_millis(500)));
        assert!(pauses.iter().any(|pause| *pause > Duration::from_millis(500)));
    }
}
