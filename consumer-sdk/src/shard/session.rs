//! The time between a claim and its end: whether records may be delivered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use headworks_record::ShardId;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::lease::fence::Fence;

/// One holding of one shard's lease. Clones share its state.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    shard: ShardId,
    fence: Fence,
    era: u64,
    stop: CancellationToken,
    lost: CancellationToken,
    bytes: Arc<AtomicU64>,
}

impl Session {
    /// A session that began in this era of the fence.
    pub(crate) fn new(shard: ShardId, fence: Fence, era: u64) -> Self {
        let (stop, lost) = (CancellationToken::new(), CancellationToken::new());
        Self { shard, fence, era, stop, lost, bytes: Arc::default() }
    }

    pub(crate) fn shard(&self) -> &ShardId {
        &self.shard
    }

    /// Whether a record may be delivered at this moment. Once it may not, it never may again: the lease
    /// has to be claimed anew.
    pub(crate) fn admit(&self) -> bool {
        if self.lost.is_cancelled() {
            return false;
        }
        let open = self.fence.era() == Some(self.era);
        if !open {
            tracing::warn!(shard = %self.shard, "delivery stops: the heartbeat could not be renewed");
            self.lost.cancel();
        }
        open
    }

    /// So many bytes more were read.
    pub(crate) fn read(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes read in all.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Asks for a good end: what is in hand is finished, checkpointed and released.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Ends at once: the lease is, or may be, another worker's.
    pub(crate) fn lose(&self) {
        self.lost.cancel();
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stop.is_cancelled() || self.lost.is_cancelled()
    }

    pub(crate) fn lost_token(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Completes when the session is to end in either way.
    pub(crate) async fn over(&self) {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            () = self.lost.cancelled() => {}
        }
    }

    /// Waits; tells whether the session was to end meanwhile.
    pub(crate) async fn over_within(&self, delay: Duration) -> bool {
        tokio::select! {
            biased;
            () = sleep(delay) => false,
            () = self.over() => true,
        }
    }
}
