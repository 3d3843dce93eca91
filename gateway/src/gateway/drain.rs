//! How a gateway ends.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic_health::server::HealthReporter;
use tracing::{error, info, warn};

use super::LAST_WORDS;
use crate::shared::Shared;
use crate::{health, spool};

/// Takes nothing more, and waits for what is open, up to the deadline.
pub(super) async fn drain(
    shared: &Shared,
    health: &HealthReporter,
    stop_writers: CancellationToken,
    mut writing: JoinSet<usize>,
) -> usize {
    let patience = Duration::from_millis(shared.config.drain_ms);
    info!(?patience, "the gateway drains");
    shared.draining.cancel();
    health::tell(shared, health).await;
    shared.calls.close();
    let settled = async {
        // Lanes send without lingering while they drain.
        join_all(shared.streams.iter().map(|stream| stream.drain())).await;
        shared.calls.wait().await;
    };
    let in_time = timeout(patience, settled).await.is_ok();
    // The writers have no patience of their own: they answer what is left, at once.
    stop_writers.cancel();
    let mut unanswered = 0;
    while let Some(ended) = writing.join_next().await {
        match ended {
            Ok(left) => unanswered += left,
            Err(error) => error!("a writer was lost: {error}"),
        }
    }
    if unanswered > 0 {
        warn!(
            unanswered,
            "records were not stored, or nobody knows, when the drain deadline passed; their senders were told"
        );
    } else if !in_time {
        warn!("every record was answered, but clients have not read all of the answers");
    } else {
        info!("nothing was left");
    }
    // Those answers are carried out while the clients listen.
    let _ = timeout(LAST_WORDS, shared.calls.wait()).await;
    unanswered
}

/// Ends the spools, once the writers have ended, and says what is in them.
pub(super) async fn close_spools(stop: CancellationToken, mut spooling: JoinSet<spool::Left>) -> spool::Left {
    stop.cancel();
    let mut left = spool::Left::default();
    let closed = async {
        while let Some(ended) = spooling.join_next().await {
            match ended {
                Ok(spool::Left { records: 0, .. }) => {}
                Ok(spool) => {
                    left.records += spool.records;
                    left.bytes += spool.bytes;
                }
                Err(error) => error!("a spool was lost: {error}"),
            }
        }
    };
    if timeout(LAST_WORDS, closed).await.is_err() {
        error!("the spool's disk does not answer; what it acknowledged is put after the next start");
    }
    if left.records > 0 {
        warn!(
            records = left.records,
            bytes = left.bytes,
            "acknowledged records are still in the spool; start a gateway with the same directory to put them"
        );
    }
    left
}
