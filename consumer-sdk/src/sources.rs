//! The streams of a consumer: one, or several behind one boundary.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headworks_record::ShardId;
use tokio::time::{Instant, sleep};

use crate::backoff::Backoff;
use crate::config::{Config, ConfigError, name_of};
use crate::error::Error;
use crate::fanout::registration::{ConsumerArns, limited};
use crate::lease::{self, Lease};
use crate::position::SequenceStart;
use crate::streams::{Kinesis, Several, ShardInfo, StreamIdentifier, StreamShard, Streams};

/// A stream as it is named in the configuration, and where it is read from.
type Source = (String, Arc<dyn Streams>);

/// Where a consumer's streams are read from.
#[derive(Debug)]
pub(crate) struct Sources(Vec<Source>);

impl Sources {
    /// The configured streams.
    ///
    /// - `only`: the source of one stream that is not Kinesis.
    /// - `given`: sources of some of several streams, by their names.
    pub(crate) fn new(
        config: &Config,
        only: Option<Arc<dyn Streams>>,
        mut given: BTreeMap<String, Arc<dyn Streams>>,
        kinesis: Option<aws_sdk_kinesis::Client>,
    ) -> Result<Self, ConfigError> {
        let from_kinesis = |stream: &str| -> Result<Arc<dyn Streams>, ConfigError> {
            let missing = ConfigError::MissingClient { client: "Kinesis", method: "kinesis" };
            let client = kinesis.clone().ok_or(missing)?;
            // Kinesis knows names and ARNs, not the KCL's identifiers.
            let stream = if stream.starts_with("arn:") { stream } else { name_of(stream) };
            Ok(Arc::new(Kinesis::new(client, stream)))
        };
        let mut sources = Vec::with_capacity(config.streams.len().max(1));
        if config.streams.is_empty() {
            let source = only.map_or_else(|| from_kinesis(&config.stream), Ok)?;
            sources.push((config.stream.clone(), source));
        } else if only.is_some() {
            let reason = "are several, and one source was given; pass each one's with `source`".to_owned();
            return Err(ConfigError::bad("streams", &config.stream_text(), reason));
        }
        for stream in &config.streams {
            let source = given.remove(stream).map_or_else(|| from_kinesis(stream), Ok)?;
            sources.push((stream.clone(), source));
        }
        match given.keys().next() {
            None => Ok(Self(sources)),
            Some(stream) => {
                let reason = "has a source and is none of `streams`; name it there as well".to_owned();
                Err(ConfigError::bad("stream", stream, reason))
            }
        }
    }

    /// The streams behind one boundary, and the consumers registered with them.
    pub(crate) async fn open(
        &self,
        config: &Config,
        give_up: Instant,
    ) -> Result<(Arc<dyn Streams>, ConsumerArns), Error> {
        let mut arns = ConsumerArns::default();
        if config.streams.is_empty()
            && let [(name, streams)] = &self.0[..]
        {
            arns.find(None, name, streams.as_ref(), config).await?;
            return Ok((streams.clone(), arns));
        }
        let mut several = Vec::with_capacity(self.0.len());
        // One after the other: an account takes few of these calls per second.
        for (name, streams) in &self.0 {
            let stream = match name.parse::<StreamIdentifier>() {
                Ok(given) => given,
                Err(_) => identifier(name, streams.as_ref(), config, give_up).await?,
            };
            arns.find(Some(stream.clone()), name, streams.as_ref(), config).await?;
            several.push((stream, streams.clone()));
        }
        Ok((Arc::new(Several::new(several)), arns))
    }
}

async fn identifier(
    name: &str,
    streams: &dyn Streams,
    config: &Config,
    give_up: Instant,
) -> Result<StreamIdentifier, Error> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        match limited(config, "DescribeStreamSummary", streams.identifier()).await {
            Err(error) if error.is_retryable() && Instant::now() < give_up => {
                tracing::debug!(stream = name, %error, "the stream cannot be read yet");
            }
            found => return found.map_err(|source| Error::Stream { stream: name.to_owned(), source }),
        }
        sleep(backoff.next_delay()).await;
    }
}

/// Leases of one stream and of several do not mix: what is read under one key would be read again, or taken for
/// expired, under the other.
pub(crate) fn check_layout(config: &Config, leases: &[Lease]) -> Result<(), lease::Error> {
    let several = !config.streams.is_empty();
    let other = leases.iter().find(|lease| StreamShard::of(&lease.shard).stream.is_some() != several);
    let Some(Lease { shard, .. }) = other else { return Ok(()) };
    let reason = match several {
        true => format!(
            "it has the lease {shard} of an application of one stream; name that stream with `stream`, or choose another application"
        ),
        false => format!(
            "it has the lease {shard} of an application of several streams; name them with `streams`, or choose another application"
        ),
    };
    Err(lease::Error::InvalidTable { table: config.lease_table.clone(), reason })
}

/// The shards that the configuration names to begin elsewhere, by their lease keys. At the first start each of
/// them has to be listed; later one may well have expired.
pub(crate) fn named_starts(
    config: &Config,
    shards: &[ShardInfo],
    first_start: bool,
) -> Result<BTreeMap<ShardId, SequenceStart>, ConfigError> {
    let mut named = BTreeMap::new();
    for (name, start) in &config.start_at {
        let is_meant = |key: &ShardId| match StreamShard::of(key) {
            StreamShard { stream: None, shard } => shard == *name,
            StreamShard { stream: Some(stream), shard } => {
                name.as_str().split_once('/') == Some((stream.name(), shard.as_str()))
            }
        };
        match shards.iter().find(|shard| is_meant(&shard.id)) {
            Some(shard) => {
                named.insert(shard.id.clone(), start.clone());
            }
            None if first_start => {
                let reason = "is not listed by the stream; see `aws kinesis list-shards`".to_owned();
                return Err(ConfigError::bad("shard to start at", name.as_str(), reason));
            }
            None => {}
        }
    }
    Ok(named)
}
