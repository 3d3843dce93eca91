//! `SubscribeToShard`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::super::arn;
use super::super::codec::{Codec, Timestamp};
use super::super::stream::Stream;
use super::super::subscription::Subscription;
use super::super::{Engine, Error, ReadBatch, SequenceNumber};
use super::get::{RecordOut, Start};
use super::{ChildShardOut, require};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SubscribeRequest {
    #[serde(rename = "ConsumerARN")]
    consumer_arn: Option<String>,
    shard_id: Option<String>,
    starting_position: Option<StartingPosition>,
    dry_run: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StartingPosition {
    r#type: Option<String>,
    sequence_number: Option<String>,
    timestamp: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    records: Vec<RecordOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    continuation_sequence_number: Option<SequenceNumber>,
    millis_behind_latest: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    child_shards: Option<Vec<ChildShardOut>>,
}

pub(crate) fn subscribe(
    engine: &Engine,
    request: SubscribeRequest,
    codec: Codec,
    shutdown: CancellationToken,
) -> Result<Subscription, Error> {
    let consumer_arn = require(request.consumer_arn, "consumerARN")?;
    let shard_id = require(request.shard_id, "shardId")?;
    let starting = require(request.starting_position, "startingPosition")?;
    let kind = require(starting.r#type, "startingPosition.type")?;
    let start =
        Start { kind: &kind, sequence: starting.sequence_number.as_deref(), timestamp: starting.timestamp };
    start.check("startingPosition.type", "startingPosition.sequenceNumber")?;
    let (stream, consumer) = arn::consumer_of_arn(&consumer_arn)?;
    let known = engine.describe_consumer(stream, consumer)?;
    // API_SubscribeToShard: ResourceNotFoundException. Words: ours.
    if known.arn != consumer_arn {
        return Err(Error::ResourceNotFound(format!(
            "Consumer {consumer_arn} not found: the consumer of that name is {}.",
            known.arn
        )));
    }
    let reader = engine.reader(stream, &shard_id)?;
    // Before the claim: a refused request must not end the subscription that runs.
    let position = reader.position(start.parse(&reader)?)?;
    if request.dry_run == Some(true) {
        return Err(Error::DryRun);
    }
    let (reader, claim) = engine.claim(stream, consumer, &shard_id)?;
    let (settings, faults) = (engine.settings().clone(), engine.faults().clone());
    Ok(Subscription { reader, claim, position, codec, settings, shutdown, faults })
}

/// The payload of one event.
pub(crate) fn event_payload(codec: Codec, batch: &ReadBatch, stream: &Stream) -> Result<Bytes, Error> {
    let encryption = stream.control().features.encryption.clone();
    codec.encode(&Event {
        records: batch.records.iter().cloned().map(|record| RecordOut::new(record, &encryption)).collect(),
        // The KCL knows the end of a shard by the absence of this number, and then requires the children.
        continuation_sequence_number: batch.end.is_none().then_some(batch.continuation),
        millis_behind_latest: batch.millis_behind_latest,
        child_shards: batch.end.as_ref().map(|children| children.iter().map(ChildShardOut::from).collect()),
    })
}
