//! How far an application is behind.

use std::time::Duration;

use headworks_record::ShardId;
use headworks_record::aggregate::{self, Decoded};

use super::Error;
use super::target::Pages;
use crate::lease::{Lease, LeaseStore};
use crate::position::Checkpoint;
use crate::streams::{self, ReadFrom, Streams};

/// Kinesis records that are looked at for each shard.
const SAMPLE: usize = 1_000;
/// Pages without records that are passed on the way to the first one.
const MOST_PAGES: usize = 20;
/// What a shard takes a second.
const SHARD_BYTES_PER_SECOND: f64 = (1 << 20) as f64;

/// How many records wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Estimate {
    /// They were counted.
    Exact(u64),
    /// Estimated: the first 1,000 Kinesis records (fewer, if they come to 10 MiB) were counted, members of
    /// aggregates one by one, and their rate was extended over the time that is left.
    About(u64),
    /// At least as many: there is no rate to extend.
    AtLeast(u64),
}

impl Estimate {
    /// The number, exact or not.
    pub fn records(&self) -> u64 {
        match self {
            Estimate::Exact(records) | Estimate::About(records) | Estimate::AtLeast(records) => *records,
        }
    }
}

/// One shard of an application.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ShardLag {
    /// The lease key, as in [`Lease::shard`].
    pub shard: ShardId,
    /// Who reads it, as the lease says.
    pub owner: Option<String>,
    /// How far it was read.
    pub checkpoint: Checkpoint,
    /// From the first record that is not done to the newest one, in arrivals at the stream; zero if there is
    /// none. `None` where the shard was read to its end, or its place is not known.
    pub behind: Option<Duration>,
    /// Records that are not done.
    pub records: Option<Estimate>,
    /// Bytes a second that arrived, in the part that was looked at; `None` where too little did.
    pub bytes_per_second: Option<f64>,
    /// The shard expired before it was read to its end: what it held is lost.
    pub expired: bool,
}

/// The lag of each lease of these streams, sorted by shard. It reads each shard once or a few times, and changes
/// nothing. Of an application of several streams, [`Several`](crate::streams::Several) takes those that are meant.
pub async fn lag(streams: &dyn Streams, store: &dyn LeaseStore) -> Result<Vec<ShardLag>, Error> {
    let mut leases = store.leases().await?;
    leases.retain(|lease| streams.has(&lease.shard));
    leases.sort_by(|a, b| a.shard.cmp(&b.shard));
    let mut lags = Vec::with_capacity(leases.len());
    for lease in leases {
        lags.push(lag_of(streams, lease).await?);
    }
    Ok(lags)
}

/// The shards that take most: more than 80 % of what a shard may, or more than twice the mean of all (and
/// at least 100 KB/s). Their keys are worth a look; see the stream's resharding, too.
pub fn hot_shards(lags: &[ShardLag]) -> Vec<&ShardLag> {
    let rates: Vec<f64> = lags.iter().filter_map(|lag| lag.bytes_per_second).collect();
    lags.iter().filter(|lag| lag.bytes_per_second.is_some_and(|rate| is_hot(rate, &rates))).collect()
}

/// Whether a shard with this rate, in bytes a second, stands out among those with these rates.
pub(crate) fn is_hot(rate: f64, rates: &[f64]) -> bool {
    let mean = rates.iter().sum::<f64>() / rates.len().max(1) as f64;
    rate > 0.8 * SHARD_BYTES_PER_SECOND || (rates.len() > 1 && rate > 2.0 * mean && rate >= 100_000.0)
}

async fn lag_of(streams: &dyn Streams, lease: Lease) -> Result<ShardLag, Error> {
    let from = match &lease.checkpoint {
        Checkpoint::At(position) => Some(ReadFrom::After(position.sequence.clone())),
        Checkpoint::TrimHorizon => Some(ReadFrom::TrimHorizon),
        Checkpoint::Latest | Checkpoint::AtTimestamp | Checkpoint::ShardEnd => None,
    };
    let mut lag = ShardLag {
        shard: lease.shard,
        owner: lease.owner,
        checkpoint: lease.checkpoint,
        behind: None,
        records: None,
        bytes_per_second: None,
        expired: false,
    };
    let Some(from) = from else { return Ok(lag) };
    match sample(streams, &lag.shard, &from).await {
        Ok(found) => {
            lag.behind = Some(Duration::from_millis(found.span_ms + found.rest_ms));
            lag.records = Some(found.estimate());
            lag.bytes_per_second =
                (found.span_ms > 0).then(|| found.bytes as f64 * 1_000.0 / found.span_ms as f64);
        }
        Err(streams::Error::NotFound { .. }) => lag.expired = true,
        Err(error) => return Err(error.into()),
    }
    Ok(lag)
}

/// What was found behind a checkpoint.
#[derive(Debug, Default)]
struct Sample {
    records: u64,
    bytes: usize,
    span_ms: u64,
    rest_ms: u64,
}

impl Sample {
    fn estimate(&self) -> Estimate {
        match (self.rest_ms, self.span_ms) {
            (0, _) => Estimate::Exact(self.records),
            (_, 0) => Estimate::AtLeast(self.records),
            (rest, span) => Estimate::About(self.records + self.records.saturating_mul(rest) / span),
        }
    }
}

async fn sample(streams: &dyn Streams, shard: &ShardId, from: &ReadFrom) -> Result<Sample, streams::Error> {
    let mut pages = Pages::begin(streams, shard, from).await?;
    for _ in 0..MOST_PAGES {
        let Some(page) = pages.next(SAMPLE).await? else { break };
        let event = page.event;
        let (Some(first), Some(last)) = (event.records.first(), event.records.last()) else { continue };
        let members = |data| match aggregate::decode(data) {
            Ok(Decoded::Aggregate(aggregate)) => aggregate.len() as u64,
            _ => 1,
        };
        return Ok(Sample {
            records: event.records.iter().map(|record| members(&record.data)).sum(),
            bytes: event.bytes(),
            span_ms: last.arrival_ms.saturating_sub(first.arrival_ms),
            rest_ms: event.millis_behind,
        });
    }
    Ok(Sample::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_say_what_they_are() {
        let sample = |records, span_ms, rest_ms| Sample { records, bytes: 0, span_ms, rest_ms }.estimate();
        assert_eq!(sample(7, 100, 0), Estimate::Exact(7));
        assert_eq!(sample(100, 1_000, 9_000), Estimate::About(1_000));
        assert_eq!(sample(5, 0, 400), Estimate::AtLeast(5));
    }

    #[test]
    fn hot_shards_stand_out() {
        let lag = |rate: f64| ShardLag {
            shard: "s".into(),
            owner: None,
            checkpoint: Checkpoint::TrimHorizon,
            behind: None,
            records: None,
            bytes_per_second: Some(rate),
            expired: false,
        };
        let rates = |rates: &[f64]| {
            let lags: Vec<ShardLag> = rates.iter().map(|rate| lag(*rate)).collect();
            hot_shards(&lags).iter().filter_map(|lag| lag.bytes_per_second).collect::<Vec<_>>()
        };
        assert_eq!(rates(&[100_000.0, 110_000.0, 900_000.0]), [900_000.0]);
        assert_eq!(rates(&[10.0, 10.0, 90_000.0]), [] as [f64; 0]);
        assert_eq!(rates(&[50_000.0, 50_000.0, 50_000.0, 400_000.0]), [400_000.0]);
    }
}
