//! What one shard gives to all who read it without fan-out: five reads and 2 MB a second.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, Weak};
use std::time::Duration;

use headworks_record::ShardId;
use tokio::time::{Instant, sleep_until};

use crate::sync::lock;

/// Five reads a second.
const READ_EVERY: Duration = Duration::from_millis(200);
const BYTES_PER_SECOND: u64 = 2_000_000;
/// What the largest answer, of 10 MiB, costs: nobody waits for longer than this for another one's read.
const LONGEST: Duration = Duration::from_millis(5_300);

/// Region, stream and shard.
type Key = (String, String, ShardId);

static SHARED: LazyLock<Mutex<HashMap<Key, Weak<ShardReads>>>> = LazyLock::new(Mutex::default);

/// The reads of one shard by all consumers of this process.
#[derive(Debug, Default)]
pub(super) struct ShardReads {
    next: Mutex<Option<Instant>>,
}

impl ShardReads {
    /// The one that all readers of this shard share.
    pub(super) fn of(region: &str, stream: &str, shard: &ShardId) -> Arc<Self> {
        let mut shared = lock(&SHARED);
        if shared.len() > 1_000 {
            shared.retain(|_, reads| reads.strong_count() > 0);
        }
        let entry = shared.entry((region.to_owned(), stream.to_owned(), shard.clone())).or_default();
        entry.upgrade().unwrap_or_else(|| {
            let reads = Arc::new(Self::default());
            *entry = Arc::downgrade(&reads);
            reads
        })
    }

    /// Waits for this read's turn.
    pub(super) async fn turn(&self) {
        let at = {
            let mut next = lock(&self.next);
            let now = Instant::now();
            let at = next.map_or(now, |next| next.clamp(now, now + LONGEST));
            *next = Some(at + READ_EVERY);
            at
        };
        sleep_until(at).await;
    }

    /// A read brought so much: the next one waits until the shard may give more.
    pub(super) fn brought(&self, bytes: usize) {
        let pause = Duration::from_millis((bytes as u64).saturating_mul(1_000) / BYTES_PER_SECOND);
        let mut next = lock(&self.next);
        *next = (*next).max(Some(Instant::now() + pause.min(LONGEST)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn reads_of_all_who_share_a_shard_keep_to_its_limits() {
        let began = Instant::now();
        let readers = (0..3).map(|_| {
            tokio::spawn(async {
                let reads = ShardReads::of("limits-test", "orders", &"s".into());
                for _ in 0..5 {
                    reads.turn().await;
                }
                reads
            })
        });
        let reads: Vec<_> = futures_util::future::join_all(readers).await;
        assert_eq!(began.elapsed().as_millis().div_ceil(10), 280, "15 reads, the first at once");
        let reads = reads.into_iter().next().unwrap().unwrap();
        reads.brought(10 << 20);
        let before = Instant::now();
        reads.turn().await;
        assert!(before.elapsed() > Duration::from_secs(5), "{:?}", before.elapsed());
    }
}
