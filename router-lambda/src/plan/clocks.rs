//! One moment, and until when puts are tried.

use std::time::Duration;

use tokio::time::Instant;

/// A record that may spill is tried for at least this long in every batch.
const LEAST_TRY: Duration = Duration::from_secs(1);

/// One moment on two clocks, and when puts end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    pub(crate) now: Instant,
    /// In milliseconds since the Unix epoch.
    pub(crate) now_ms: u64,
    pub(crate) deadline: Instant,
}

impl Clocks {
    /// Until when a put is tried whose failure means the dead letters from `spills_at` on.
    pub(super) fn patience(&self, spills_at: Option<u64>) -> Instant {
        let Some(at) = spills_at else { return self.deadline };
        let left = Duration::from_millis(at.saturating_sub(self.now_ms));
        self.deadline.min(self.now + left.max(LEAST_TRY))
    }
}
