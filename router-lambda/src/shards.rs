//! The hash ranges of inbound shards, listed when an aggregate's label names another shard.

use std::collections::HashMap;

use async_trait::async_trait;
use headworks_record::{HashRange, Shard, ShardId};
use headworks_writer::{CallError, KinesisStream, Stream as _};
use tokio::sync::Mutex;

/// Lists the shards of a stream.
#[async_trait]
pub trait ListShards: Send + Sync + 'static {
    /// Every shard that the service still knows, closed ones included: a router reads those too.
    async fn list(&self, stream: &str) -> Result<Vec<Shard>, CallError>;
}

/// [`ListShards`] by the service.
#[derive(Debug, Clone)]
pub struct KinesisShards {
    client: aws_sdk_kinesis::Client,
}

impl KinesisShards {
    /// Lists through this client.
    pub fn new(client: aws_sdk_kinesis::Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl ListShards for KinesisShards {
    async fn list(&self, stream: &str) -> Result<Vec<Shard>, CallError> {
        let listed = KinesisStream::new(self.client.clone(), stream).list_shards().await?;
        Ok(listed.into_iter().map(|listed| listed.shard).collect())
    }
}

/// Why a shard's range is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    #[error(
        "the shards of stream {stream:?} cannot be listed: {source}; check the permission kinesis:ListShards"
    )]
    List { stream: String, source: CallError },
    #[error("stream {stream:?} lists no shard {shard}, from which the event was read")]
    Unknown { stream: String, shard: ShardId },
}

impl Error {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Error::List { .. } => "shards-not-listed",
            Error::Unknown { .. } => "shard-unknown",
        }
    }
}

/// Ranges of shards, kept for ever: a shard's range never changes.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    known: Mutex<HashMap<(String, ShardId), HashRange>>,
}

impl Ranges {
    /// The range of a shard; lists the stream's shards if it is not known.
    pub(crate) async fn of(
        &self,
        source: &dyn ListShards,
        stream: &str,
        shard: &ShardId,
    ) -> Result<HashRange, Error> {
        // Held while listing: others who miss the same shard wait for the one call.
        let mut known = self.known.lock().await;
        let key = (stream.to_owned(), shard.clone());
        if let Some(range) = known.get(&key) {
            return Ok(*range);
        }
        let listed =
            source.list(stream).await.map_err(|source| Error::List { stream: stream.to_owned(), source })?;
        known.extend(listed.into_iter().map(|shard| ((stream.to_owned(), shard.id), shard.range)));
        known.get(&key).copied().ok_or(Error::Unknown { stream: key.0, shard: key.1 })
    }
}
