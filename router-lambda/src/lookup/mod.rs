//! Look-ups in DynamoDB tables: cached, bounded, and with a stated policy when a table is slow.
//!
//! The keys of a batch are gathered first, those that the cache knows are left out, and the rest is asked for
//! in few calls. What is not answered in time is *slow*: [`OnSlow`](crate::table::OnSlow) of the look-up says what
//! that means for its records.

mod cache;
mod dynamo;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep, timeout_at};

use crate::table::enrich::Found;
use crate::table::{Enrich, OnSlow};

pub(crate) use cache::Cache;
pub use dynamo::DynamoItems;

/// The most keys of one call (DynamoDB API, BatchGetItem).
pub const KEYS_AT_ONCE: usize = 100;
/// How many calls for one batch are in flight.
const CALLS_AT_ONCE: usize = 4;

/// Why items were not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The table refused or did not answer.
    #[error(
        "the table {table:?} cannot be looked up: {reason}; check that it exists, its hash key, and the permission dynamodb:BatchGetItem"
    )]
    Unavailable {
        /// The table.
        table: String,
        /// What was said.
        reason: String,
    },
    /// It did not answer in time.
    #[error("the table {table:?} did not answer within {after:?}; raise the rule's timeout, or its capacity")]
    Slow {
        /// The table.
        table: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// There is nothing to look up with.
    #[error("the route table looks up the table {table:?}, and this router has no DynamoDB client")]
    NotConfigured {
        /// The table.
        table: String,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Unavailable { .. } => "lookup-unavailable",
            Error::Slow { .. } => "lookup-slow",
            Error::NotConfigured { .. } => "lookup-not-configured",
        }
    }

    /// Whether it may work later: an operator can mend all of it.
    pub fn is_retryable(&self) -> bool {
        true
    }
}

/// Reads items.
#[async_trait]
pub trait Items: Send + Sync + 'static {
    /// The items of these keys, [`KEYS_AT_ONCE`] at most, as headers; a key without an item is left out.
    async fn get(&self, lookup: &Enrich, keys: &[String]) -> Result<HashMap<String, Found>, Error>;
}

/// What a look-up said of one key.
pub(crate) type Answer = Result<Arc<Found>, Arc<Error>>;

/// The answers for one batch, by the look-up's place in the table.
#[derive(Debug, Default)]
pub(crate) struct Answers(Vec<HashMap<String, Answer>>);

impl Answers {
    pub(crate) fn of(&self, lookup: usize, key: &str) -> Option<&Answer> {
        self.0.get(lookup)?.get(key)
    }

    /// Looks up what a batch needs: per look-up its keys. `deadline` is when that must be over.
    pub(crate) async fn gather(
        items: Option<&dyn Items>,
        cache: &Cache,
        lookups: &[Enrich],
        wanted: Vec<BTreeSet<String>>,
        deadline: Instant,
    ) -> Self {
        let asked =
            lookups.iter().zip(wanted).map(|(lookup, keys)| one(items, cache, lookup, keys, deadline));
        Self(futures_util::future::join_all(asked).await)
    }
}

async fn one(
    items: Option<&dyn Items>,
    cache: &Cache,
    lookup: &Enrich,
    keys: BTreeSet<String>,
    deadline: Instant,
) -> HashMap<String, Answer> {
    let (mut answers, missing) = cache.get(lookup, keys);
    if missing.is_empty() {
        return answers;
    }
    let Some(items) = items else {
        let error = Arc::new(Error::NotConfigured { table: lookup.table.clone() });
        answers.extend(missing.into_iter().map(|key| (key, Err(Arc::clone(&error)))));
        return answers;
    };
    let started = Instant::now();
    // The timeout is for those who go on; who chose to wait waits for as long as there is time for it.
    let until = match lookup.on_slow {
        OnSlow::Wait => deadline,
        _ => deadline.min(started + lookup.timeout),
    };
    let calls: Vec<_> = missing
        .chunks(KEYS_AT_ONCE)
        .map(|keys| {
            let keys = keys.to_vec();
            async move {
                let found = timeout_at(until, persist(items, lookup, &keys, until)).await;
                let slow = |_| Err(Error::Slow { table: lookup.table.clone(), after: until - started });
                (keys, found.unwrap_or_else(slow))
            }
        })
        .collect();
    let mut calls = futures_util::stream::iter(calls).buffer_unordered(CALLS_AT_ONCE);
    while let Some((keys, found)) = calls.next().await {
        match found {
            Ok(mut found) => {
                for key in keys {
                    let answer = Arc::new(found.remove(&key).unwrap_or_default());
                    cache.put(lookup, &key, &answer);
                    answers.insert(key, Ok(answer));
                }
            }
            Err(error) => {
                tracing::warn!(code = error.code(), keys = keys.len(), on_slow = ?lookup.on_slow, "{error}");
                let error = Arc::new(error);
                answers.extend(keys.into_iter().map(|key| (key, Err(Arc::clone(&error)))));
            }
        }
    }
    answers
}

/// Asks again while the table refuses, as there is time.
async fn persist(
    items: &dyn Items,
    lookup: &Enrich,
    keys: &[String],
    until: Instant,
) -> Result<HashMap<String, Found>, Error> {
    let mut pauses = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_secs(1))
        .without_max_times()
        .with_jitter()
        .build();
    loop {
        match items.get(lookup, keys).await {
            Ok(found) => return Ok(found),
            Err(error) => {
                let pause = pauses.next().unwrap_or(Duration::from_secs(1));
                // The reason says more than "it was slow".
                if Instant::now() + pause >= until {
                    return Err(error);
                }
                sleep(pause).await;
            }
        }
    }
}
