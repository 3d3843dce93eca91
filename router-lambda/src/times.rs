//! How an invocation's time is shared out.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::progress::STORE_LIMIT;

/// When the parts of an invocation must end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) started: SystemTime,
    /// The store has said what destinations have: not to know that costs repeats and nothing else.
    pub(crate) recall: Instant,
    /// What a record needs before it is put is there: ranges of shards, look-ups, letters of what is known to be
    /// poison. A record for which that takes longer waits; those before it still have the time to be put.
    pub(crate) before: Instant,
    /// No put is tried after this.
    pub(crate) put: Instant,
    /// The writers have answered.
    pub(crate) answer: Instant,
    /// Dead letters are written.
    pub(crate) letters: Instant,
    /// What each destination has is written down.
    pub(crate) progress: Instant,
}

impl Times {
    /// Keeps `margin`, but at most a quarter of the time, for what follows the puts.
    pub(crate) fn new(started: SystemTime, deadline: Instant, margin: Duration) -> Self {
        let now = Instant::now();
        let remaining = deadline.saturating_duration_since(now);
        let margin = margin.min(remaining / 4);
        Self {
            started,
            recall: now + STORE_LIMIT.min(remaining / 8),
            before: now + (remaining - margin) / 2,
            put: deadline - margin,
            answer: deadline - margin / 2,
            letters: deadline - margin / 4,
            progress: deadline - margin / 8,
        }
    }
}
