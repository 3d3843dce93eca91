//! The fence: closes when this worker could not renew its heartbeat for too long.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::lock;

/// Tells whether this worker may deliver.
///
/// The deadline is counted from the moment before the last successful heartbeat was sent, and is shorter
/// than the take-over time, which others count from the moment after they saw it. So delivery here stops
/// before it begins elsewhere.
///
/// Every time the fence opens after having been closed is a new era: what was begun in an earlier one must
/// be claimed again, because a claim by another worker may be on its way.
#[derive(Debug, Clone)]
pub(crate) struct Fence {
    limit: Duration,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    renewed: Instant,
    era: u64,
}

impl Fence {
    pub(crate) fn new(limit: Duration, renewed: Instant) -> Self {
        Self { limit, state: Arc::new(Mutex::new(State { renewed, era: 0 })) }
    }

    /// A heartbeat that was sent at this moment succeeded.
    pub(crate) fn renew(&self, sent: Instant) {
        let mut state = lock(&self.state);
        if Instant::now() >= state.renewed + self.limit {
            state.era += 1;
        }
        state.renewed = state.renewed.max(sent);
    }

    /// The present era if delivery is allowed, else `None`.
    pub(crate) fn era(&self) -> Option<u64> {
        let state = *lock(&self.state);
        (Instant::now() < state.renewed + self.limit).then_some(state.era)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_closes_at_the_deadline_and_opens_in_a_new_era() {
        let fence = Fence::new(Duration::from_secs(2), Instant::now());
        let sent = Instant::now();
        tokio::time::advance(Duration::from_millis(1500)).await;
        fence.renew(sent + Duration::from_secs(1));
        tokio::time::advance(Duration::from_millis(1499)).await;
        assert_eq!(fence.era(), Some(0));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(fence.era(), None);
        fence.renew(Instant::now());
        assert_eq!(fence.era(), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_counts_from_when_it_was_sent() {
        let fence = Fence::new(Duration::from_secs(2), Instant::now());
        let sent = Instant::now();
        tokio::time::advance(Duration::from_secs(3)).await;
        fence.renew(sent);
        assert_eq!(fence.era(), None, "its answer came after its own deadline");
    }
}
