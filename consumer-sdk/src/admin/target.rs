//! Places to go to, and what they are in a shard.

use std::time::{Duration, SystemTime};

use headworks_record::ShardId;

use crate::backoff::Backoff;
use crate::position::{Checkpoint, Position, SequenceNumber};
use crate::streams::{self, Page, ReadFrom, Streams};

/// A place to read from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// The oldest record that the stream still has.
    TrimHorizon,
    /// After the newest record.
    Latest,
    /// The first record that arrived at this time or later.
    Timestamp(SystemTime),
    /// This record of a shard.
    Sequence(SequenceNumber),
    /// After this record of a shard.
    AfterSequence(SequenceNumber),
}

/// How far in front of a time a shard's last record is looked for, before its oldest record is.
const LOOK_BACK: [Duration; 5] = [
    Duration::from_secs(60),
    Duration::from_secs(600),
    Duration::from_secs(3_600),
    Duration::from_secs(6 * 3_600),
    Duration::from_secs(24 * 3_600),
];
const PAGE: usize = 1_000;
/// How often a read that fails for the moment is tried.
const ATTEMPTS: u32 = 8;

/// What a target is in this shard. A timestamp becomes a place in the stream, because a lease has no room
/// for a time.
pub(crate) async fn resolve(
    streams: &dyn Streams,
    shard: &ShardId,
    target: &Target,
) -> Result<Checkpoint, streams::Error> {
    let time = match target {
        Target::TrimHorizon => return Ok(Checkpoint::TrimHorizon),
        Target::Latest => return Ok(Checkpoint::Latest),
        Target::Sequence(sequence) => return Ok(Checkpoint::At(Position::before(sequence.clone()))),
        Target::AfterSequence(sequence) => {
            return Ok(Checkpoint::At(Position::past(sequence.clone())));
        }
        Target::Timestamp(time) => *time,
    };
    let mut pages = Pages::begin(streams, shard, &ReadFrom::AtTimestamp(time)).await?;
    while let Some(page) = pages.next(1).await? {
        if let Some(first) = page.event.records.first() {
            return Ok(Checkpoint::At(Position::before(first.sequence_number.clone())));
        }
        if page.event.end.is_some() {
            return Ok(Checkpoint::ShardEnd);
        }
    }
    // Nothing yet at this time: what comes from now on follows the last record in front of it.
    let starts = LOOK_BACK.iter().filter_map(|back| time.checked_sub(*back)).map(ReadFrom::AtTimestamp);
    for from in starts.chain([ReadFrom::TrimHorizon]) {
        let (mut last, mut pages) = (None, Pages::begin(streams, shard, &from).await?);
        while let Some(page) = pages.next(PAGE).await? {
            if let Some(record) = page.event.records.last() {
                last = Some(record.sequence_number.clone());
            }
        }
        if let Some(last) = last {
            return Ok(Checkpoint::At(Position::past(last)));
        }
    }
    Ok(Checkpoint::TrimHorizon)
}

/// Pages from a place up to the newest record.
pub(super) struct Pages<'a> {
    streams: &'a dyn Streams,
    iterator: Option<String>,
}

impl<'a> Pages<'a> {
    pub(super) async fn begin(
        streams: &'a dyn Streams,
        shard: &ShardId,
        from: &ReadFrom,
    ) -> Result<Self, streams::Error> {
        let iterator = patiently(|| streams.iterator(shard, from)).await?;
        Ok(Self { streams, iterator: Some(iterator) })
    }

    /// The next page; `None` behind the newest record and behind the shard's end.
    pub(super) async fn next(&mut self, most: usize) -> Result<Option<Page>, streams::Error> {
        let Some(iterator) = self.iterator.take() else { return Ok(None) };
        let page = patiently(|| self.streams.records(&iterator, most)).await?;
        self.iterator = page.next.clone().filter(|_| page.event.millis_behind > 0);
        Ok(Some(page))
    }
}

/// One page, by an iterator or from a place.
pub(crate) async fn resolve_page(
    streams: &dyn Streams,
    shard: &ShardId,
    from: &ReadFrom,
    iterator: Option<String>,
    most: usize,
) -> Result<Page, streams::Error> {
    let iterator = match iterator {
        Some(iterator) => iterator,
        None => patiently(|| streams.iterator(shard, from)).await?,
    };
    patiently(|| streams.records(&iterator, most)).await
}

/// Asks again while what is wrong may pass soon.
pub(crate) async fn patiently<T, C>(mut call: impl FnMut() -> C) -> Result<T, streams::Error>
where
    C: Future<Output = Result<T, streams::Error>>,
{
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
    for _ in 1..ATTEMPTS {
        match call().await {
            Err(error)
                if error.is_retryable() && !matches!(error, streams::Error::ExpiredIterator { .. }) =>
            {
                tracing::debug!(%error, "a read will be tried again");
            }
            done => return done,
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
    call().await
}
