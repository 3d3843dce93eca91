//! From a shard that ended to its children, within one worker.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use headworks_record::ShardId;
use tokio::time::Instant;

use super::window::Window;
use crate::sync::lock;

/// Windows of shards that were read to their end, until their children have long begun.
///
/// They stay true whatever becomes of the lease: what a closed shard holds does not change any more.
#[derive(Debug)]
pub(crate) struct Handover {
    keep: Duration,
    ended: Mutex<HashMap<ShardId, (Instant, Window)>>,
}

impl Handover {
    /// Windows are kept for this long.
    pub(crate) fn new(keep: Duration) -> Self {
        Self { keep, ended: Mutex::default() }
    }

    /// The window at the shard's end.
    pub(crate) fn put(&self, shard: ShardId, window: Window) {
        lock(&self.ended).insert(shard, (Instant::now(), window));
    }

    /// The window of a parent; each child gets one.
    pub(crate) fn get(&self, shard: &ShardId) -> Option<Window> {
        lock(&self.ended).get(shard).map(|(_, window)| window.clone())
    }

    /// Drops those that nobody will ask for any more; one who does reads the stream.
    pub(crate) fn tidy(&self) {
        lock(&self.ended).retain(|_, (since, _)| since.elapsed() < self.keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn windows_are_kept_for_a_while() {
        let handover = Handover::new(Duration::from_secs(60));
        handover.put("s".into(), Window::new(Duration::from_secs(1), 1));
        tokio::time::advance(Duration::from_secs(59)).await;
        handover.tidy();
        assert!(handover.get(&"s".into()).is_some() && handover.get(&"s".into()).is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        handover.tidy();
        assert!(handover.get(&"s".into()).is_none());
    }
}
