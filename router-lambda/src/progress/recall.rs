//! Asking the store before a batch is routed, and telling it afterwards.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, timeout_at};

use super::track::{self, Known};
use super::{Error, LIFETIME, STORE_LIMIT};
use crate::event::Event;
use crate::handler::Router;
use crate::plan::{Plan, Settled};
use crate::spans::Graves;
use crate::table::RouteTable;
use crate::times::Times;

impl Router {
    /// What destinations have of a batch that comes again.
    pub(crate) async fn recall(&self, event: &Event, table: &RouteTable, times: Times) -> Known {
        let Some(store) = &self.progress else { return Known::default() };
        let oldest = event.records.iter().map(|record| record.arrival_ms).min().unwrap_or(0);
        let age =
            times.started.duration_since(UNIX_EPOCH + Duration::from_millis(oldest)).unwrap_or_default();
        if age < self.read_after {
            return Known::default();
        }
        let (shard, lanes) = (shard_name(event), track::lanes(event));
        match timeout_at(times.recall, store.read(&shard, &lanes)).await {
            Ok(Ok(entries)) => Known::new(entries, table, seconds(times.started)),
            Ok(Err(error)) => {
                tracing::warn!(%shard, code = error.code(), "destinations may get records again: {error}");
                Known::default()
            }
            Err(_elapsed) => {
                tracing::warn!(%shard, "destinations may get records again: the progress was not read in time");
                Known::default()
            }
        }
    }

    /// Writes down what each destination has, if the batch comes again; else forgets it.
    pub(crate) async fn remember(
        &self,
        plan: &Plan<'_>,
        known: &Known,
        settled: &[Settled],
        graves: &Graves,
        failed: Option<usize>,
        times: Times,
    ) {
        let Some(store) = &self.progress else { return };
        let event = plan.event();
        let shard = shard_name(event);
        let (entries, spent) = match failed {
            None => (Vec::new(), known.spent(event)),
            Some(failed) => {
                let done = plan.done(settled, |slot| graves.0.contains_key(&slot));
                let expires = seconds(times.started) + LIFETIME.as_secs();
                let entries = known.advance(event, plan.table(), &done, failed, expires);
                let spent = known.beside(&entries);
                (entries, spent)
            }
        };
        let write = async {
            if !entries.is_empty() {
                store.write(&shard, entries).await?;
            }
            if !spent.is_empty() {
                store.forget(&shard, spent).await?;
            }
            Ok(())
        };
        let written = timeout_at(times.progress.min(Instant::now() + STORE_LIMIT), write).await;
        let problem: Option<Error> = match written {
            Ok(Ok(())) => return,
            Ok(Err(error)) => Some(error),
            Err(_elapsed) => None,
        };
        let reason =
            problem.map_or_else(|| "the progress was not written in time".to_owned(), |e| e.to_string());
        tracing::warn!(%shard, "destinations may get records again: {reason}");
    }
}

fn shard_name(event: &Event) -> String {
    let shard = event.records.first().map_or("", |record| record.shard.as_str());
    format!("{}/{shard}", event.stream)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
