//! Several streams behind the boundary to one: shards are named by their lease keys.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use headworks_record::ShardId;

use super::{
    ConsumerId, Error, Event, Page, ReadFrom, Registered, ShardFilter, ShardInfo, StreamIdentifier,
    StreamShard, Streams, Subscription,
};

/// Streams that are listed at the same time.
const LISTED_AT_ONCE: usize = 4;

/// The streams of one application. Shards are known by their lease keys, `account:name:epoch:shard`.
#[derive(Debug, Clone)]
pub struct Several {
    streams: Arc<[(StreamIdentifier, Arc<dyn Streams>)]>,
}

impl Several {
    /// These streams.
    pub fn new(streams: impl IntoIterator<Item = (StreamIdentifier, Arc<dyn Streams>)>) -> Self {
        Self { streams: streams.into_iter().collect() }
    }

    fn of(
        &self,
        operation: &'static str,
        key: &ShardId,
    ) -> Result<(&StreamIdentifier, &Arc<dyn Streams>, ShardId), Error> {
        let StreamShard { stream, shard } = StreamShard::of(key);
        let found = self.streams.iter().find(|(known, _)| Some(known) == stream.as_ref());
        let (stream, streams) = found.ok_or_else(|| Error::NotFound {
            operation,
            message: format!("{key} is of none of the streams that are read here"),
        })?;
        Ok((stream, streams, shard))
    }
}

#[async_trait]
impl Streams for Several {
    async fn arn(&self) -> Result<String, Error> {
        let message = "several streams have no ARN together".to_owned();
        Err(Error::Refused { operation: "DescribeStreamSummary", message })
    }

    fn has(&self, key: &ShardId) -> bool {
        self.of("ListShards", key).is_ok()
    }

    async fn retention(&self, key: &ShardId) -> Result<Option<Duration>, Error> {
        let (stream, streams, shard) = self.of("DescribeStreamSummary", key)?;
        streams.retention(&shard).await.map_err(|error| named(stream, error))
    }

    async fn shards(&self, filter: ShardFilter) -> Result<Vec<ShardInfo>, Error> {
        let mut shards = Vec::new();
        for some in self.streams.chunks(LISTED_AT_ONCE) {
            let mut listings = Vec::with_capacity(some.len());
            for (stream, streams) in some {
                listings.push(list(stream, streams.as_ref(), filter));
            }
            shards.extend(try_join_all(listings).await?.into_iter().flatten());
        }
        Ok(shards)
    }

    async fn consumer(&self, stream_arn: &str, _: &ConsumerId) -> Result<Option<Registered>, Error> {
        let message = format!("each stream has its own consumers, also {stream_arn}");
        Err(Error::Refused { operation: "DescribeStreamConsumer", message })
    }

    async fn register(&self, stream_arn: &str, _: &str) -> Result<Registered, Error> {
        let message = format!("each stream has its own consumers, also {stream_arn}");
        Err(Error::Refused { operation: "RegisterStreamConsumer", message })
    }

    async fn subscribe(
        &self,
        consumer_arn: &str,
        key: &ShardId,
        from: &ReadFrom,
    ) -> Result<Subscription, Error> {
        let (stream, streams, shard) = self.of("SubscribeToShard", key)?;
        let events = streams.subscribe(consumer_arn, &shard, from).await;
        let events = events.map_err(|error| named(stream, error))?;
        let stream = stream.clone();
        Ok(events.map(move |event| event.map(|event| ended(&stream, event))).boxed())
    }

    async fn iterator(&self, key: &ShardId, from: &ReadFrom) -> Result<String, Error> {
        let (stream, streams, shard) = self.of("GetShardIterator", key)?;
        let iterator = streams.iterator(&shard, from).await.map_err(|error| named(stream, error))?;
        Ok(format!("{key} {iterator}"))
    }

    async fn records(&self, iterator: &str, most: usize) -> Result<Page, Error> {
        const OPERATION: &str = "GetRecords";
        let (key, iterator) = iterator.split_once(' ').ok_or_else(|| Error::Refused {
            operation: OPERATION,
            message: "the iterator was not made by this reader".to_owned(),
        })?;
        let (stream, streams, _) = self.of(OPERATION, &key.into())?;
        let page = streams.records(iterator, most).await.map_err(|error| named(stream, error))?;
        let next = page.next.map(|next| format!("{key} {next}"));
        Ok(Page { event: ended(stream, page.event), next })
    }
}

async fn list(
    stream: &StreamIdentifier,
    streams: &dyn Streams,
    filter: ShardFilter,
) -> Result<Vec<ShardInfo>, Error> {
    let shards = streams.shards(filter).await.map_err(|error| named(stream, error))?;
    Ok(shards.into_iter().map(|shard| keyed(stream, shard)).collect())
}

/// The shard by its lease key, and its parents likewise.
fn keyed(stream: &StreamIdentifier, shard: ShardInfo) -> ShardInfo {
    let parents = shard.parents.iter().map(|parent| stream.key(parent)).collect();
    ShardInfo { id: stream.key(&shard.id), parents, ..shard }
}

fn ended(stream: &StreamIdentifier, event: Event) -> Event {
    let end = event.end.map(|children| children.into_iter().map(|child| keyed(stream, child)).collect());
    Event { end, ..event }
}

/// The error, with the stream that it is about.
fn named(stream: &StreamIdentifier, mut error: Error) -> Error {
    match &mut error {
        Error::InUse { message, .. }
        | Error::NotFound { message, .. }
        | Error::Throttled { message, .. }
        | Error::Unavailable { message, .. }
        | Error::Refused { message, .. } => message.push_str(&format!(" (stream {})", stream.name())),
        Error::ExpiredIterator { .. } => {}
    }
    error
}
