//! Reads a time range of a stream again, beside the consumers that run.
//!
//! A [`Replay`] has no leases, checkpoints or fan-out: it polls, with the rest of what each shard gives to
//! pollers, and takes nothing away from consumers with fan-out. Its place is a [`Token`], which it tells as
//! it goes on; a replay that is begun with a token goes on there. Delivery is at least once, in order for
//! each shard, parents before their children; repeats are not dropped.
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::{Duration, SystemTime};
//!
//! use headworks_consumer::replay::Replay;
//! use headworks_consumer::streams::Kinesis;
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example(client: aws_sdk_kinesis::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let hour = Duration::from_secs(3_600);
//! let from = SystemTime::now() - 2 * hour;
//! let done = Replay::new(Arc::new(Kinesis::new(client, "orders")), "orders", from, from + hour)
//!     .run(
//!         |batch| async move {
//!             println!("{} records of {}", batch.len(), batch.shard());
//!             Ok(())
//!         },
//!         |token| println!("{token}"),
//!         CancellationToken::new(),
//!     )
//!     .await?;
//! println!("{} records; finished: {}", done.records(), done.is_done());
//! # Ok(())
//! # }
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use headworks_record::ShardId;
use headworks_record::ownership::Foreign;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::admin::resolve_page;
use crate::backoff::Backoff;
use crate::config::Undecodable;
use crate::delivered::Batch;
use crate::delivery::HandlerError;
use crate::position::{Position, SequenceNumber};
use crate::reader::{self, Reader};
use crate::streams::{self, ReadFrom, ShardFilter, ShardInfo, Streams};
use crate::sync::lock;

const PAGE: usize = 10_000;
const ITERATOR_RETRIES: u32 = 5;

/// How far a replay came: kept as one line of JSON, by its `Display` and `FromStr`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    version: u32,
    stream: String,
    from_ms: u64,
    to_ms: u64,
    records: u64,
    shards: BTreeMap<String, Place>,
    done: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    Done,
    At { sequence: String, sub: i64 },
}

impl Token {
    /// Records that were handed over, in all runs of this replay.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Shards that were read to the end of the range.
    pub fn shards_done(&self) -> usize {
        self.shards.values().filter(|place| **place == Place::Done).count()
    }

    /// Whether the whole range was read.
    pub fn is_done(&self) -> bool {
        self.done
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Plain data always has a JSON form.
        f.write_str(&serde_json::to_string(self).map_err(|_| std::fmt::Error)?)
    }
}

impl std::str::FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |reason: String| Error::BadToken { reason };
        let token: Self = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
        if token.version != VERSION {
            return Err(bad(format!("its version is {}, not {VERSION}", token.version)));
        }
        for place in token.shards.values() {
            if let Place::At { sequence, .. } = place
                && SequenceNumber::new(sequence.clone()).is_none()
            {
                return Err(bad(format!("{sequence:?} is no sequence number")));
            }
        }
        Ok(token)
    }
}

const VERSION: u32 = 1;

/// Why a replay stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The end lies in front of the beginning.
    #[error("the range ends at {to_ms} ms, in front of its beginning at {from_ms} ms; swap them")]
    BadRange {
        /// The beginning, in milliseconds since the Unix epoch.
        from_ms: u64,
        /// The end.
        to_ms: u64,
    },
    /// The token is none, or another replay's.
    #[error("the replay token cannot be used: {reason}; begin the replay without it")]
    BadToken {
        /// What is wrong with it.
        reason: String,
    },
    /// The stream could not be read.
    #[error("cannot read the stream: {0}")]
    Stream(#[from] streams::Error),
    /// A Kinesis record cannot be taken apart.
    #[error(transparent)]
    Record(#[from] reader::Error),
    /// The handler failed.
    #[error("the handler failed on a batch of {shard} that ends at {sequence_number}: {source}")]
    Handler {
        /// The shard.
        shard: ShardId,
        /// The last record of the batch.
        sequence_number: SequenceNumber,
        /// The handler's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::BadRange { .. } => "replay-range-invalid",
            Error::BadToken { .. } => "replay-token-invalid",
            Error::Stream(source) => source.code(),
            Error::Record(source) => source.code(),
            Error::Handler { .. } => "handler-failed",
        }
    }

    /// Whether going on from the last token may help without anything being changed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::BadRange { .. } | Error::BadToken { .. } => false,
            Error::Stream(source) => source.is_retryable(),
            Error::Record(source) => source.is_retryable(),
            Error::Handler { .. } => true,
        }
    }
}

/// A time range of a stream, to be read again.
#[derive(Debug, Clone)]
#[must_use = "a replay reads nothing until it is run"]
pub struct Replay {
    streams: Arc<dyn Streams>,
    token: Token,
    shards_at_once: usize,
    max_batch_records: usize,
    undecodable: Undecodable,
    foreign: Foreign,
}

impl Replay {
    /// Records that arrived from `from` on and before `to`, at the latest now.
    pub fn new(
        streams: Arc<dyn Streams>,
        stream: impl Into<String>,
        from: SystemTime,
        to: SystemTime,
    ) -> Self {
        let token = Token {
            version: VERSION,
            stream: stream.into(),
            from_ms: millis(from),
            to_ms: millis(to.min(SystemTime::now())),
            records: 0,
            shards: BTreeMap::new(),
            done: false,
        };
        Self::resume(streams, token)
    }

    /// Goes on where the token says.
    pub fn resume(streams: Arc<dyn Streams>, token: Token) -> Self {
        Self {
            streams,
            token,
            shards_at_once: 16,
            max_batch_records: 1_000,
            undecodable: Undecodable::Stop,
            foreign: Foreign::default(),
        }
    }

    /// How many shards are read at the same time. Default 16.
    pub fn shards_at_once(mut self, shards: usize) -> Self {
        self.shards_at_once = shards.max(1);
        self
    }

    /// The most records of one batch. Default 1,000.
    pub fn max_batch_records(mut self, records: usize) -> Self {
        self.max_batch_records = records.max(1);
        self
    }

    /// What happens with a Kinesis record that cannot be taken apart: the replay stops, or goes on with the
    /// whole of it. There are no dead letters here.
    pub fn undecodable(mut self, undecodable: Undecodable) -> Self {
        self.undecodable = match undecodable {
            Undecodable::DeliverRaw => Undecodable::DeliverRaw,
            _ => Undecodable::Stop,
        };
        self
    }

    /// What happens with aggregates of other writers that have a member outside the shard.
    pub fn foreign(mut self, foreign: Foreign) -> Self {
        self.foreign = foreign;
        self
    }

    /// Reads the range. `handle` gets one batch after another, of several shards at the same time; `progress`
    /// is called with the present token after each one. Returns the last token: whether all was read, or
    /// `shutdown` came before that, is [`Token::is_done`].
    pub async fn run<H, Fut>(
        self,
        handle: H,
        progress: impl Fn(&Token) + Send + Sync,
        shutdown: CancellationToken,
    ) -> Result<Token, Error>
    where
        H: Fn(Batch) -> Fut + Send + Sync,
        Fut: Future<Output = Result<(), HandlerError>> + Send,
    {
        if self.token.from_ms > self.token.to_ms {
            return Err(Error::BadRange { from_ms: self.token.from_ms, to_ms: self.token.to_ms });
        }
        let listed = crate::admin::patiently(|| self.streams.shards(ShardFilter::All)).await?;
        let run = Run { replay: &self, token: Mutex::new(self.token.clone()), handle, progress, shutdown };
        let mut waiting: BTreeMap<ShardId, ShardInfo> = listed
            .into_iter()
            .filter(|shard| self.token.shards.get(shard.id.as_str()) != Some(&Place::Done))
            .map(|shard| (shard.id.clone(), shard))
            .collect();
        let (mut reading, mut open) = (FuturesUnordered::new(), BTreeSet::new());
        loop {
            while reading.len() < self.shards_at_once {
                let ready = |shard: &&ShardInfo| {
                    let parents = &shard.parents;
                    parents.iter().all(|parent| !waiting.contains_key(parent) && !open.contains(parent))
                };
                let Some(next) = waiting.values().find(ready).map(|shard| shard.id.clone()) else { break };
                if let Some(shard) = waiting.remove(&next) {
                    open.insert(next);
                    reading.push(run.shard(shard));
                }
            }
            match reading.next().await {
                Some(Ok(shard)) => open.remove(&shard),
                Some(Err(error)) => return Err(error),
                None => break,
            };
            if run.shutdown.is_cancelled() {
                waiting.clear();
            }
        }
        let mut token = lock(&run.token).clone();
        token.done = !run.shutdown.is_cancelled();
        (run.progress)(&token);
        Ok(token)
    }
}

struct Run<'a, H, P> {
    replay: &'a Replay,
    token: Mutex<Token>,
    handle: H,
    progress: P,
    shutdown: CancellationToken,
}

impl<H, P, Fut> Run<'_, H, P>
where
    H: Fn(Batch) -> Fut + Send + Sync,
    Fut: Future<Output = Result<(), HandlerError>> + Send,
    P: Fn(&Token) + Send + Sync,
{
    async fn shard(&self, shard: ShardInfo) -> Result<ShardId, Error> {
        match self.read(&shard).await {
            Ok(true) => self.reached(&shard.id, Place::Done, 0),
            Ok(false) => {}
            // It expired meanwhile: there is nothing left of it to read.
            Err(Error::Stream(error @ streams::Error::NotFound { .. })) => {
                tracing::warn!(shard = %shard.id, %error, "the shard has expired");
                self.reached(&shard.id, Place::Done, 0);
            }
            Err(error) => return Err(error),
        }
        Ok(shard.id)
    }

    /// Tells whether the shard was read to the end of the range.
    async fn read(&self, shard: &ShardInfo) -> Result<bool, Error> {
        let replay = self.replay;
        let (to_ms, mut place) = {
            let token = lock(&self.token);
            let place = token.shards.get(shard.id.as_str()).and_then(|place| match place {
                Place::At { sequence, sub } => {
                    SequenceNumber::new(sequence.clone()).map(|sequence| Position::new(sequence, *sub))
                }
                Place::Done => None,
            });
            (token.to_ms, place)
        };
        let stream = replay.token.stream.clone();
        let (foreign, undecodable) = (replay.foreign, replay.undecodable);
        let mut reader =
            Reader::new(stream.into(), shard.id.clone(), shard.range, foreign, undecodable, place.clone());
        let (mut iterator, mut expired) = (None, 0);
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
        loop {
            if self.shutdown.is_cancelled() {
                return Ok(false);
            }
            let from = match &place {
                Some(position) => ReadFrom::At(position.sequence.clone()),
                None => ReadFrom::AtTimestamp(UNIX_EPOCH + Duration::from_millis(replay.token.from_ms)),
            };
            let page = match resolve_page(replay.streams.as_ref(), &shard.id, &from, iterator, PAGE).await {
                Err(streams::Error::ExpiredIterator { .. }) if expired < ITERATOR_RETRIES => {
                    expired += 1;
                    iterator = None;
                    tokio::time::sleep(backoff.next_delay()).await;
                    continue;
                }
                page => page?,
            };
            expired = 0;
            let mut event = page.event;
            let before = event.records.len();
            event.records.retain(|record| record.arrival_ms < to_ms);
            let passed = event.records.len() < before;
            let mut read = reader.read(&event, SystemTime::now());
            let mut rest = std::mem::take(&mut read.records);
            while !rest.is_empty() {
                let later = rest.split_off(rest.len().min(replay.max_batch_records));
                let Some(end) = rest.last().map(|last| last.position()) else { break };
                let batch = Batch::new(shard.id.clone(), rest, end.clone(), event.millis_behind);
                let records = batch.len() as u64;
                if let Err(error) = (self.handle)(batch).await {
                    return Err(Error::Handler {
                        shard: shard.id.clone(),
                        sequence_number: end.sequence,
                        source: error.into_source(),
                    });
                }
                self.reached(&shard.id, at(&end), records);
                place = Some(end);
                rest = later;
                if self.shutdown.is_cancelled() && !rest.is_empty() {
                    return Ok(false);
                }
            }
            if let Some(error) = read.stopped {
                return Err(error.into());
            }
            if let Some(end) = read.end {
                place = Some(end);
            }
            iterator = page.next;
            if passed || iterator.is_none() || event.millis_behind == 0 {
                return Ok(true);
            }
        }
    }

    fn reached(&self, shard: &ShardId, place: Place, records: u64) {
        let token = {
            let mut token = lock(&self.token);
            token.shards.insert(shard.to_string(), place);
            token.records += records;
            token.clone()
        };
        (self.progress)(&token);
    }
}

fn at(position: &Position) -> Place {
    Place::At { sequence: position.sequence.to_string(), sub: position.sub }
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_as_text() {
        let token = Token {
            version: VERSION,
            stream: "orders".to_owned(),
            from_ms: 1,
            to_ms: 2,
            records: 3,
            shards: BTreeMap::from([
                ("a".to_owned(), Place::Done),
                ("b".to_owned(), Place::At { sequence: "49".to_owned(), sub: 2 }),
            ]),
            done: false,
        };
        let text = token.to_string();
        assert_eq!(text.parse::<Token>().unwrap(), token);
        for bad in
            ["", "{}", &text.replace("\"version\":1", "\"version\":2"), &text.replace("\"49\"", "\"x\"")]
        {
            assert_eq!(bad.parse::<Token>().unwrap_err().code(), "replay-token-invalid", "{bad}");
        }
    }
}
