//! Rebuilds a shard's window from the stream.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headworks_record::{HashRange, ShardId};
use tokio::time::sleep;

use super::handover::Handover;
use super::window::Window;
use crate::backoff::Backoff;
use crate::config::{Config, Undecodable};
use crate::fanout::registration::limited;
use crate::fanout::{GET_RECORDS_LIMIT, READ_EVERY};
use crate::lease::Lease;
use crate::position::{Checkpoint, Position};
use crate::reader::Reader;
use crate::streams::{self, Page, ReadFrom, ShardFilter, ShardInfo, StreamShard, Streams};

/// Why a window could not be rebuilt.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) streams::Error);

/// What a shard and those it came from held before a place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct History<'a> {
    pub(crate) streams: &'a dyn Streams,
    pub(crate) config: &'a Config,
    pub(crate) handover: &'a Handover,
    /// The lease as it was claimed: everything up to its checkpoint was dealt with.
    pub(crate) lease: &'a Lease,
    pub(crate) range: HashRange,
    /// The arrival of the first record that this worker reads.
    pub(crate) first_arrival_ms: u64,
}

impl History<'_> {
    /// The window at the checkpoint. Errors that may pass leave nothing behind: it can be tried again.
    pub(crate) async fn window(&self) -> Result<Window, Failure> {
        let mut window = self.empty();
        let until = match &self.lease.checkpoint {
            Checkpoint::At(position) => Some(position),
            // A child: its parents were read.
            Checkpoint::TrimHorizon if !self.lease.parents.is_empty() => None,
            // The application begins here: nothing that it was given can come again.
            _ => return Ok(window),
        };
        let shard = &self.lease.shard;
        let young = !self.lease.parents.is_empty() && (until.is_none() || !self.is_old(shard).await?);
        if young {
            for generation in self.ancestors().await?.iter().rev() {
                window.absorb(generation);
            }
        }
        if until.is_some() {
            self.read_into(&mut window, shard, self.range, until).await?;
        }
        Ok(window)
    }

    /// A window that remembers nothing yet.
    pub(crate) fn empty(&self) -> Window {
        Window::new(self.config.dedup_window, self.config.dedup_max_identities)
    }

    /// Where the window begins that the first record looks back on.
    fn since_ms(&self) -> u64 {
        let span_ms = u64::try_from(self.config.dedup_window.as_millis()).unwrap_or(u64::MAX);
        self.first_arrival_ms.saturating_sub(span_ms)
    }

    fn since(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.since_ms())
    }

    /// The windows of parents, grandparents and so on, as far back as the window goes.
    async fn ancestors(&self) -> Result<Vec<Window>, Failure> {
        let mut windows = Vec::new();
        let mut seen = BTreeSet::new();
        let mut next: Vec<ShardId> = self.lease.parents.clone();
        let mut listed: Option<Vec<ShardInfo>> = None;
        while let Some(shard) = next.pop() {
            if !seen.insert(shard.clone()) {
                continue;
            }
            if let Some(window) = self.handover.get(&shard) {
                // It knows what its own parents brought.
                windows.push(window);
                continue;
            }
            let shards = match &listed {
                Some(shards) => shards,
                None => {
                    let call = self.streams.shards(ShardFilter::All);
                    listed.insert(limited(self.config, "ListShards", call).await.map_err(Failure)?)
                }
            };
            // One that has expired holds nothing that is young enough.
            let Some(info) = shards.iter().find(|info| info.id == shard).cloned() else { continue };
            // Asked first: it is a small read, and large ones make the shard refuse others for a while.
            if !info.parents.is_empty() && !self.is_old(&info.id).await? {
                next.extend(info.parents);
            }
            let mut window = self.empty();
            match self.read_into(&mut window, &info.id, info.range, None).await {
                Err(Failure(streams::Error::NotFound { .. })) => continue,
                read => read?,
            }
            windows.push(window);
        }
        Ok(windows)
    }

    /// Notes what the shard brought since the window begins, up to and including a position, or to its end.
    async fn read_into(
        &self,
        window: &mut Window,
        shard: &ShardId,
        range: HashRange,
        until: Option<&Position>,
    ) -> Result<(), Failure> {
        let stream = self.config.stream_name().to_owned().into();
        // By the same rules as when it was delivered: what was left out then is not remembered.
        let foreign = self.config.foreign;
        let name = StreamShard::of(shard).shard;
        let mut reader = Reader::new(stream, name, range, foreign, Undecodable::DeliverRaw, None);
        let mut iterator = self.iterator(shard, &ReadFrom::AtTimestamp(self.since())).await?;
        loop {
            let page = self.page(&iterator, GET_RECORDS_LIMIT).await?;
            for record in &reader.read(&page.event, UNIX_EPOCH).records {
                if until.is_some_and(|until| record.position() > *until) {
                    return Ok(());
                }
                window.remember(record);
            }
            // Also where nothing could be delivered from the records.
            let last = page.event.records.last();
            let passed = last.is_some_and(|last| until.is_some_and(|u| last.sequence_number >= u.sequence));
            let Some(next) = page.next.filter(|_| !passed && page.event.millis_behind > 0) else {
                return Ok(());
            };
            iterator = next;
            sleep(READ_EVERY).await;
        }
    }

    /// Whether the shard held records before the window begins: then its parents are older still.
    async fn is_old(&self, shard: &ShardId) -> Result<bool, Failure> {
        let mut iterator = match self.iterator(shard, &ReadFrom::TrimHorizon).await {
            Err(Failure(streams::Error::NotFound { .. })) => return Ok(true),
            iterator => iterator?,
        };
        loop {
            let page = self.page(&iterator, 1).await?;
            if let Some(first) = page.event.records.first() {
                return Ok(first.arrival_ms < self.since_ms());
            }
            let Some(next) = page.next.filter(|_| page.event.millis_behind > 0) else { return Ok(false) };
            iterator = next;
            sleep(READ_EVERY).await;
        }
    }

    async fn iterator(&self, shard: &ShardId, from: &ReadFrom) -> Result<String, Failure> {
        limited(self.config, "GetShardIterator", self.streams.iterator(shard, from)).await.map_err(Failure)
    }

    /// One page; what passes is waited for here, because after a large page the service refuses reads of
    /// this shard for some seconds, and beginning again would meet the same for ever.
    async fn page(&self, iterator: &str, most: usize) -> Result<Page, Failure> {
        let mut backoff = Backoff::new(READ_EVERY, Duration::from_secs(2));
        loop {
            match limited(self.config, "GetRecords", self.streams.records(iterator, most)).await {
                Ok(page) => return Ok(page),
                Err(error @ streams::Error::ExpiredIterator { .. }) => return Err(Failure(error)),
                Err(error) if error.is_retryable() => {
                    let shard = &self.lease.shard;
                    tracing::warn!(%shard, %error, "looking back for repeats: a read will be tried again");
                }
                Err(error) => return Err(Failure(error)),
            }
            sleep(backoff.next_delay()).await;
        }
    }
}
