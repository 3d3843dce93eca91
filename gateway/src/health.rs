//! Whether each stream can be written: the gateway's health follows it.
//!
//! A stream is taken for dead when nothing was stored for a time although there was something to store, and for
//! alive again as soon as something is stored. Where nobody sends any more, because a load balancer looked at
//! just this, the stream's shards are asked for now and then instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use headworks_writer::Stream;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{info, warn};

use crate::shared::{Inbound, Shared};

/// The health service's name for the gRPC service as a whole.
const SERVICE: &str = "headworks.v1.Gateway";
/// How often each stream is looked at, at the most; a tenth of the time that makes it dead, at the least.
const LOOK: Duration = Duration::from_secs(1);
/// How long the stream may take to tell of its shards.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long nobody asks it again. ListShards is called 1,000 times per second and stream at the most.
const BETWEEN_ASKING: Duration = Duration::from_secs(5);

/// Whether a stream can be written, as far as is known.
#[derive(Debug)]
pub(crate) struct Writable(AtomicBool);

impl Default for Writable {
    fn default() -> Self {
        Self(AtomicBool::new(true))
    }
}

impl Writable {
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What was seen of a stream last.
#[derive(Debug)]
struct Seen {
    stored: u64,
    failed: u64,
    /// When something was stored, or there was nothing to store.
    good: Instant,
}

/// What a look at a stream says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Alive,
    /// Something waits, or fails, and nothing is stored; not for long enough to say so.
    Doubtful,
    Dead,
    /// Nothing happens. It is as it was.
    Idle,
}

impl Seen {
    fn new() -> Self {
        Self { stored: 0, failed: 0, good: Instant::now() }
    }

    fn look(&mut self, (stored, failed): (u64, u64), waiting: bool, limit: Duration) -> Look {
        let (stores, fails) = (stored > self.stored, failed > self.failed);
        (self.stored, self.failed) = (stored, failed);
        if stores {
            self.good = Instant::now();
            return Look::Alive;
        }
        if !waiting && !fails {
            self.good = Instant::now();
            return Look::Idle;
        }
        if self.good.elapsed() >= limit { Look::Dead } else { Look::Doubtful }
    }
}

/// Watches one stream and says in the health service how it is, until `stop` is cancelled.
pub(crate) async fn watch(
    shared: Arc<Shared>,
    inbound: Arc<Inbound>,
    stream: Arc<dyn Stream>,
    health: HealthReporter,
    stop: CancellationToken,
) {
    let limit = Duration::from_millis(shared.config.unhealthy_after_ms);
    let mut looks = tokio::time::interval((limit / 10).min(LOOK));
    let mut seen = Seen::new();
    let mut asked = Instant::now();
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = stop.cancelled() => return,
        }
        let stats = inbound.writer.stats();
        let looked = seen.look((stats.stored, stats.failed), inbound.writer.buffered_bytes() > 0, limit);
        let was = inbound.writable.get();
        let is = match looked {
            Look::Alive => true,
            Look::Dead => false,
            Look::Doubtful => was,
            Look::Idle if was => true,
            Look::Idle if asked.elapsed() < BETWEEN_ASKING.min(limit) => false,
            Look::Idle => {
                asked = Instant::now();
                timeout(PATIENCE, stream.list_shards()).await.is_ok_and(|listed| listed.is_ok())
            }
        };
        if is != was {
            inbound.writable.0.store(is, Ordering::Relaxed);
            if is {
                info!(stream = %inbound.name, "the stream can be written again");
            } else {
                warn!(stream = %inbound.name, "nothing was stored on the stream for {limit:?}");
            }
            tell(&shared, &health).await;
        }
    }
}

/// Whether records for the stream are taken in and kept: a spool does so while the stream does not.
pub(crate) fn serves(inbound: &Inbound) -> bool {
    inbound.writable.get() || inbound.spool.is_some()
}

/// Says how each stream is, and the gateway: it serves if it drains not and any stream does.
pub(crate) async fn tell(shared: &Shared, health: &HealthReporter) {
    loop {
        let draining = shared.draining.is_cancelled();
        set(shared, health, draining).await;
        // The last word belongs to the drain, whoever of two at a time was the later.
        if draining == shared.draining.is_cancelled() {
            return;
        }
    }
}

async fn set(shared: &Shared, health: &HealthReporter, draining: bool) {
    let status =
        |serves: bool| if serves && !draining { ServingStatus::Serving } else { ServingStatus::NotServing };
    for inbound in &shared.streams {
        health.set_service_status(&*inbound.name, status(serves(inbound))).await;
    }
    let any = shared.streams.iter().any(|inbound| serves(inbound));
    for name in ["", SERVICE] {
        health.set_service_status(name, status(any)).await;
    }
}

/// Ends the watches of health, which would hold their connections for ever.
pub(crate) async fn close_watches(health: &mut HealthReporter, shared: &Shared) {
    for name in ["", SERVICE].into_iter().chain(shared.streams.iter().map(|stream| &*stream.name)) {
        health.clear_service_status(name).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_stored_counts_and_not_what_is_sent() {
        let (limit, mut seen) = (Duration::from_secs(10), Seen::new());
        let pass = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        pass(100).await;
        assert_eq!(seen.look((0, 0), false, limit), Look::Idle);
        assert_eq!(seen.look((0, 0), true, limit), Look::Doubtful);
        pass(9).await;
        assert_eq!(seen.look((1, 0), true, limit), Look::Alive);
        pass(9).await;
        assert_eq!(seen.look((1, 0), true, limit), Look::Doubtful);
        pass(1).await;
        assert_eq!(seen.look((1, 0), true, limit), Look::Dead);
        // What is refused at once never waits.
        assert_eq!(seen.look((1, 5), false, limit), Look::Dead);
        assert_eq!(seen.look((1, 5), false, limit), Look::Idle);
        assert_eq!(seen.look((2, 9), true, limit), Look::Alive);
    }
}
