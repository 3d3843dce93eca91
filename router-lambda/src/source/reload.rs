//! Looking for another table now and then, and keeping the last good one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::{Error, Source, compile};
use crate::handler::Router;
use crate::table::RouteTable;

/// How long a look at the source may hold up a batch.
const PATIENCE: Duration = Duration::from_secs(2);

/// Loads the first table, and then looks for others.
pub struct Reloader {
    source: Box<dyn Source>,
    every: Duration,
    dead_letters: bool,
    seen: Mutex<Seen>,
}

struct Seen {
    /// The version last looked at, whether it was good or not: a bad one is not refused over and over.
    version: String,
    at: Instant,
}

/// What a look at the source brought.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reload {
    /// It was looked at not long ago, or there is nothing new.
    Unchanged,
    /// Another table is in force.
    Replaced,
    /// What is there now is refused or cannot be read; the table in force stays.
    Refused(Error),
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader").field("location", &self.source.location()).finish_non_exhaustive()
    }
}

impl Reloader {
    /// Loads the first table. `every` is how much time passes at least between two looks at the source, zero means that
    /// there are none; `dead_letters` is whether there is a place for them.
    pub async fn start(
        source: Box<dyn Source>,
        every: Duration,
        dead_letters: bool,
    ) -> Result<(Self, RouteTable), Error> {
        let text = source.fetch(None).await?.ok_or_else(|| Error::Unreadable {
            location: source.location(),
            reason: "it gave no text".to_owned(),
        })?;
        let table = compile(&text, source.location(), dead_letters)?;
        let seen = Mutex::new(Seen { version: text.version, at: Instant::now() });
        Ok((Self { source, every, dead_letters, seen }, table))
    }

    /// Looks at the source if it is time to, and puts a table that is new and good in force. Called between batches; it never fails a
    /// batch, and holds it up for two seconds at most.
    pub async fn check(&self, router: &Router) -> Reload {
        if self.every.is_zero() {
            return Reload::Unchanged;
        }
        // Another batch is looking.
        let Ok(mut seen) = self.seen.try_lock() else { return Reload::Unchanged };
        if seen.at.elapsed() < self.every {
            return Reload::Unchanged;
        }
        seen.at = Instant::now();
        let fetched = timeout(PATIENCE, self.source.fetch(Some(&seen.version))).await;
        let found = match fetched {
            Ok(Ok(None)) => return Reload::Unchanged,
            Ok(Ok(Some(text))) => {
                seen.version.clone_from(&text.version);
                compile(&text, self.source.location(), self.dead_letters)
            }
            Ok(Err(error)) => Err(error),
            Err(_elapsed) => Err(Error::Unreadable {
                location: self.source.location(),
                reason: format!("no answer within {PATIENCE:?}"),
            }),
        };
        match found {
            Ok(table) => {
                tracing::info!(
                    location = self.source.location(),
                    version = seen.version,
                    rules = table.len(),
                    "another route table is in force"
                );
                router.replace_table(Arc::new(table));
                Reload::Replaced
            }
            Err(error) => {
                router.table_refused();
                tracing::error!(
                    location = self.source.location(),
                    version = seen.version,
                    code = error.code(),
                    "the route table in force stays: {error}"
                );
                Reload::Refused(error)
            }
        }
    }
}
