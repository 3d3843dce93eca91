//! Kinesis through the AWS SDK.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::StalledStreamProtectionConfig;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::types::{
    self, ConsumerStatus, HashKeyRange, ShardFilterType, ShardIteratorType, StartingPosition,
    StreamDescriptionSummary, StreamStatus, SubscribeToShardEventStream,
};
use aws_smithy_types::DateTime;
use bytes::Bytes;
use futures_util::StreamExt;
use headworks_record::{HashKey, HashRange, ShardId};

use super::limits::ShardReads;
use super::{
    ConsumerId, Error, Event, Page, RawRecord, ReadFrom, Registered, Registration, ShardFilter, ShardInfo,
    StreamIdentifier, Streams, Subscription,
};
use crate::position::SequenceNumber;

const GET_RECORDS_LIMIT: i32 = 10_000;
const DESCRIBE: &str = "DescribeStreamSummary";

/// One stream of Kinesis, by name or ARN.
#[derive(Debug, Clone)]
pub struct Kinesis {
    client: Client,
    stream: String,
}

impl Kinesis {
    /// The stream with this name or ARN.
    pub fn new(client: Client, stream: impl Into<String>) -> Self {
        Self { client, stream: stream.into() }
    }

    fn name(&self) -> Option<String> {
        (!self.stream.starts_with("arn:")).then(|| self.stream.clone())
    }

    fn given_arn(&self) -> Option<String> {
        self.stream.starts_with("arn:").then(|| self.stream.clone())
    }

    async fn summary(&self) -> Result<StreamDescriptionSummary, Error> {
        let request = self.client.describe_stream_summary();
        let output = request
            .set_stream_name(self.name())
            .set_stream_arn(self.given_arn())
            .send()
            .await
            .map_err(|error| classify(DESCRIBE, &error))?;
        output.stream_description_summary.ok_or_else(|| Error::Unavailable {
            operation: DESCRIBE,
            message: format!("the stream {:?} has no summary", self.stream),
        })
    }
}

#[async_trait]
impl Streams for Kinesis {
    async fn arn(&self) -> Result<String, Error> {
        let summary = self.summary().await?;
        match summary.stream_status {
            StreamStatus::Active | StreamStatus::Updating => Ok(summary.stream_arn),
            status => {
                let message = format!("the stream {:?} is {}", self.stream, status.as_str());
                Err(Error::Unavailable { operation: DESCRIBE, message })
            }
        }
    }

    async fn identifier(&self) -> Result<StreamIdentifier, Error> {
        let summary = self.summary().await?;
        let epoch = u64::try_from(summary.stream_creation_timestamp.secs()).unwrap_or_default();
        StreamIdentifier::of_arn(&summary.stream_arn, epoch).ok_or_else(|| Error::Refused {
            operation: DESCRIBE,
            message: format!("the stream's ARN {:?} cannot be read", summary.stream_arn),
        })
    }

    async fn retention(&self, _: &ShardId) -> Result<Option<Duration>, Error> {
        let hours = u64::try_from(self.summary().await?.retention_period_hours).ok();
        Ok(hours.map(|hours| Duration::from_secs(hours * 3_600)))
    }

    async fn shards(&self, filter: ShardFilter) -> Result<Vec<ShardInfo>, Error> {
        const OPERATION: &str = "ListShards";
        let (kind, at) = match filter {
            ShardFilter::All => (None, None),
            ShardFilter::AtTrimHorizon => (Some(ShardFilterType::AtTrimHorizon), None),
            ShardFilter::AtLatest => (Some(ShardFilterType::AtLatest), None),
            ShardFilter::AtTimestamp(at) => (Some(ShardFilterType::AtTimestamp), Some(DateTime::from(at))),
        };
        let filter = kind
            .map(|kind| types::ShardFilter::builder().r#type(kind).set_timestamp(at).build())
            .transpose()
            .map_err(|error| Error::Refused { operation: OPERATION, message: error.to_string() })?;
        let mut shards = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let mut request = self.client.list_shards();
            // The service refuses a token together with anything else.
            request = match token.take() {
                Some(token) => request.next_token(token),
                None => request
                    .set_stream_name(self.name())
                    .set_stream_arn(self.given_arn())
                    .set_shard_filter(filter.clone()),
            };
            let page = request.send().await.map_err(|error| classify(OPERATION, &error))?;
            for shard in page.shards.unwrap_or_default() {
                let numbers = shard.sequence_number_range;
                let open = numbers.as_ref().is_none_or(|numbers| numbers.ending_sequence_number.is_none());
                let begins = numbers.and_then(|n| SequenceNumber::new(n.starting_sequence_number));
                shards.push(ShardInfo {
                    range: range(OPERATION, shard.hash_key_range.as_ref())?,
                    id: ShardId::from(shard.shard_id.as_str()),
                    parents: [shard.parent_shard_id, shard.adjacent_parent_shard_id]
                        .into_iter()
                        .flatten()
                        .map(ShardId::new)
                        .collect(),
                    open,
                    begins,
                });
            }
            token = page.next_token.filter(|token| !token.is_empty());
            if token.is_none() {
                return Ok(shards);
            }
        }
    }

    async fn consumer(&self, stream_arn: &str, id: &ConsumerId) -> Result<Option<Registered>, Error> {
        const OPERATION: &str = "DescribeStreamConsumer";
        let request = self.client.describe_stream_consumer();
        let request = match id {
            ConsumerId::Name(name) => request.stream_arn(stream_arn).consumer_name(name),
            ConsumerId::Arn(arn) => request.consumer_arn(arn),
        };
        let output = match request.send().await {
            Ok(output) => output,
            Err(error) if error.code() == Some("ResourceNotFoundException") => return Ok(None),
            Err(error) => return Err(classify(OPERATION, &error)),
        };
        let found = output.consumer_description;
        Ok(found.map(|c| Registered { arn: c.consumer_arn, state: state(&c.consumer_status) }))
    }

    async fn register(&self, stream_arn: &str, name: &str) -> Result<Registered, Error> {
        const OPERATION: &str = "RegisterStreamConsumer";
        let request = self.client.register_stream_consumer().stream_arn(stream_arn);
        let output = request.consumer_name(name).send().await.map_err(|error| classify(OPERATION, &error))?;
        let consumer = output.consumer.ok_or_else(|| Error::Unavailable {
            operation: OPERATION,
            message: "the answer names no consumer".to_owned(),
        })?;
        Ok(Registered { arn: consumer.consumer_arn, state: state(&consumer.consumer_status) })
    }

    async fn subscribe(
        &self,
        consumer_arn: &str,
        shard: &ShardId,
        from: &ReadFrom,
    ) -> Result<Subscription, Error> {
        const OPERATION: &str = "SubscribeToShard";
        let (kind, sequence, at) = start(from);
        let position = StartingPosition::builder()
            .r#type(kind)
            .set_sequence_number(sequence)
            .set_timestamp(at)
            .build()
            .map_err(|error| Error::Refused { operation: OPERATION, message: error.to_string() })?;
        // An idle shard sends an event every few seconds: the reader has its own inactivity deadline, and
        // the SDK's protection against slow downloads would cut healthy subscriptions.
        let steady = aws_sdk_kinesis::Config::builder()
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        let output = self
            .client
            .subscribe_to_shard()
            .consumer_arn(consumer_arn)
            .shard_id(shard.as_str())
            .starting_position(position)
            .customize()
            .config_override(steady)
            .send()
            .await
            .map_err(|error| classify(OPERATION, &error))?;
        let events = futures_util::stream::unfold(Some(output.event_stream), |receiver| async move {
            let mut receiver = receiver?;
            loop {
                match receiver.recv().await {
                    Ok(Some(SubscribeToShardEventStream::SubscribeToShardEvent(event))) => {
                        return Some((read_event(event), Some(receiver)));
                    }
                    // An event of a kind that this version does not know.
                    Ok(Some(_)) => {}
                    Ok(None) => return None,
                    Err(error) => return Some((Err(classify(OPERATION, &error)), None)),
                }
            }
        });
        Ok(events.boxed())
    }

    async fn iterator(&self, shard: &ShardId, from: &ReadFrom) -> Result<String, Error> {
        const OPERATION: &str = "GetShardIterator";
        let (kind, sequence, at) = start(from);
        let request = self.client.get_shard_iterator().shard_id(shard.as_str()).shard_iterator_type(kind);
        let output = request
            .set_stream_name(self.name())
            .set_stream_arn(self.given_arn())
            .set_starting_sequence_number(sequence)
            .set_timestamp(at)
            .send()
            .await
            .map_err(|error| classify(OPERATION, &error))?;
        let iterator = output.shard_iterator.ok_or_else(|| Error::Unavailable {
            operation: OPERATION,
            message: "the answer has no iterator".to_owned(),
        })?;
        Ok(with_shard(shard, &iterator))
    }

    async fn records(&self, iterator: &str, most: usize) -> Result<Page, Error> {
        const OPERATION: &str = "GetRecords";
        let limit = i32::try_from(most).unwrap_or(i32::MAX).clamp(1, GET_RECORDS_LIMIT);
        let (shard, iterator) = split_shard(iterator).ok_or_else(|| Error::Refused {
            operation: OPERATION,
            message: "the iterator was not made by this reader".to_owned(),
        })?;
        // By whichever consumer of this process: the service counts them all.
        let region = self.client.config().region().map(AsRef::as_ref).unwrap_or_default();
        let reads = ShardReads::of(region, self.stream.rsplit('/').next().unwrap_or_default(), &shard);
        reads.turn().await;
        let request = self.client.get_records().shard_iterator(iterator).limit(limit);
        let output = request
            .set_stream_arn(self.given_arn())
            .send()
            .await
            .map_err(|error| classify(OPERATION, &error))?;
        let next = output.next_shard_iterator.filter(|iterator| !iterator.is_empty());
        let next = next.map(|iterator| with_shard(&shard, &iterator));
        let end = match next {
            None => Some(children(OPERATION, output.child_shards.unwrap_or_default())?),
            Some(_) => None,
        };
        let records = read_records(OPERATION, output.records)?;
        let millis_behind = output.millis_behind_latest.unwrap_or(0).max(0) as u64;
        let event = Event { records, continuation: None, millis_behind, end };
        reads.brought(event.bytes());
        Ok(Page { event, next })
    }
}

/// Iterators are opaque; this reader's name their shard in front, so that its limits are known.
fn with_shard(shard: &ShardId, iterator: &str) -> String {
    format!("{shard} {iterator}")
}

fn split_shard(iterator: &str) -> Option<(ShardId, &str)> {
    let (shard, iterator) = iterator.split_once(' ')?;
    Some((ShardId::from(shard), iterator))
}

fn read_event(event: types::SubscribeToShardEvent) -> Result<Event, Error> {
    const OPERATION: &str = "SubscribeToShard";
    let records = read_records(OPERATION, event.records)?;
    let children = children(OPERATION, event.child_shards.unwrap_or_default())?;
    // At the shard's end there is no continuation sequence number (the SDK makes the missing text empty).
    let continuation = SequenceNumber::new(event.continuation_sequence_number);
    let ended = !children.is_empty() || continuation.is_none();
    let millis_behind = event.millis_behind_latest.max(0) as u64;
    Ok(Event { records, continuation, millis_behind, end: ended.then_some(children) })
}

fn read_records(operation: &'static str, records: Vec<types::Record>) -> Result<Vec<RawRecord>, Error> {
    let read = |record: types::Record| {
        let text = record.sequence_number;
        let sequence_number = SequenceNumber::new(text.clone()).ok_or_else(|| Error::Unavailable {
            operation,
            message: format!("the sequence number {text:?} is not a number"),
        })?;
        let arrival = record.approximate_arrival_timestamp.and_then(|at| at.to_millis().ok()).unwrap_or(0);
        Ok(RawRecord {
            sequence_number,
            partition_key: record.partition_key.unwrap_or_default().into(),
            arrival_ms: arrival.max(0) as u64,
            data: Bytes::from(record.data.into_inner()),
        })
    };
    records.into_iter().map(read).collect()
}

fn children(operation: &'static str, children: Vec<types::ChildShard>) -> Result<Vec<ShardInfo>, Error> {
    let read = |child: types::ChildShard| {
        Ok(ShardInfo {
            range: range(operation, child.hash_key_range.as_ref())?,
            id: ShardId::new(child.shard_id),
            parents: child.parent_shards.into_iter().map(ShardId::new).collect(),
            open: true,
            begins: None,
        })
    };
    children.into_iter().map(read).collect()
}

fn range(operation: &'static str, range: Option<&HashKeyRange>) -> Result<HashRange, Error> {
    let parse = || {
        let range = range?;
        let key = |text: &str| text.parse::<HashKey>().ok();
        Some(HashRange { start: key(range.starting_hash_key())?, end: key(range.ending_hash_key())? })
    };
    parse().ok_or_else(|| Error::Unavailable {
        operation,
        message: format!("the hash key range {range:?} cannot be read"),
    })
}

fn start(from: &ReadFrom) -> (ShardIteratorType, Option<String>, Option<DateTime>) {
    let at = |time: &SystemTime| Some(DateTime::from(*time));
    match from {
        ReadFrom::TrimHorizon => (ShardIteratorType::TrimHorizon, None, None),
        ReadFrom::Latest => (ShardIteratorType::Latest, None, None),
        ReadFrom::AtTimestamp(time) => (ShardIteratorType::AtTimestamp, None, at(time)),
        ReadFrom::At(sequence) => (ShardIteratorType::AtSequenceNumber, Some(sequence.to_string()), None),
        ReadFrom::After(sequence) => {
            (ShardIteratorType::AfterSequenceNumber, Some(sequence.to_string()), None)
        }
    }
}

fn state(status: &ConsumerStatus) -> Registration {
    match status {
        ConsumerStatus::Active => Registration::Active,
        ConsumerStatus::Deleting => Registration::Deleting,
        _ => Registration::Creating,
    }
}

/// Sorts what the SDK reports into what a reader can do about it.
pub(crate) fn classify<E, R>(operation: &'static str, error: &SdkError<E, R>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    let message = describe(error);
    let code = match error {
        SdkError::ServiceError(service) => service.err().code().unwrap_or_default(),
        SdkError::ConstructionFailure(_) => return Error::Refused { operation, message },
        _ => return Error::Unavailable { operation, message },
    };
    match code {
        "ResourceInUseException" => Error::InUse { operation, message },
        "ResourceNotFoundException" => Error::NotFound { operation, message },
        "LimitExceededException"
        | "ProvisionedThroughputExceededException"
        | "ThrottlingException"
        | "KMSThrottlingException" => Error::Throttled { operation, message },
        "ExpiredIteratorException" => Error::ExpiredIterator { operation },
        "InvalidArgumentException"
        | "ValidationException"
        | "AccessDeniedException"
        | "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "MissingAuthenticationTokenException"
        | "KMSAccessDeniedException"
        | "KMSDisabledException"
        | "KMSInvalidStateException"
        | "KMSNotFoundException"
        | "KMSOptInRequired" => Error::Refused { operation, message },
        // Expired tokens are fetched anew; internal failures and unknown codes may pass.
        _ => Error::Unavailable { operation, message },
    }
}

/// The service's code and message, or the whole chain of what broke on the way.
pub(crate) fn describe<E, R>(error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    if let SdkError::ServiceError(service) = error {
        let (code, message) = (service.err().code(), service.err().message());
        if code.is_some() || message.is_some() {
            return format!("{}: {}", code.unwrap_or("unknown"), message.unwrap_or("no message"));
        }
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
