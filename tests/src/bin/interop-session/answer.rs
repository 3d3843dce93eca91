//! Outputs of the SDK in the words of the wire, so that they compare with those of other SDKs.

use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::types::{
    ChildShard, Consumer, ConsumerDescription, EnhancedMetrics, HashKeyRange, Record, Shard,
    StreamDescription, StreamDescriptionSummary, StreamModeDetails,
};
use serde_json::{Value, json};

/// Any time; they are all alike to the comparison.
const TIME: &str = "<time>";

/// What became of a call: its error has a kind and a message.
pub(crate) fn failed<E: ProvideErrorMetadata, R>(error: SdkError<E, R>) -> Value {
    match error.code() {
        Some(code) => json!({"error": code, "message": error.message().unwrap_or_default()}),
        None => refused(),
    }
}

/// What the client itself refuses to send, or cannot read.
pub(crate) fn refused() -> Value {
    json!({"error": "ClientRefused", "message": "the client does not send it, or cannot read the answer"})
}

fn range(range: &HashKeyRange) -> Value {
    json!({"StartingHashKey": range.starting_hash_key(), "EndingHashKey": range.ending_hash_key()})
}

pub(crate) fn shard(shard: &Shard) -> Value {
    json!({
        "ShardId": shard.shard_id(),
        "ParentShardId": shard.parent_shard_id(),
        "AdjacentParentShardId": shard.adjacent_parent_shard_id(),
        "HashKeyRange": shard.hash_key_range().map(range),
        "SequenceNumberRange": shard.sequence_number_range().map(|range| json!({
            "StartingSequenceNumber": range.starting_sequence_number(),
            "EndingSequenceNumber": range.ending_sequence_number(),
        })),
    })
}

pub(crate) fn child(child: &ChildShard) -> Value {
    json!({
        "ShardId": child.shard_id(),
        "ParentShards": child.parent_shards(),
        "HashKeyRange": child.hash_key_range().map(range),
    })
}

pub(crate) fn record(record: &Record) -> Value {
    json!({
        "SequenceNumber": record.sequence_number(),
        "ApproximateArrivalTimestamp": record.approximate_arrival_timestamp().map(|_| TIME),
        "Data": text(record),
        "PartitionKey": record.partition_key(),
        "EncryptionType": record.encryption_type().map(|kind| kind.as_str()),
    })
}

pub(crate) fn text(record: &Record) -> String {
    String::from_utf8_lossy(record.data().as_ref()).into_owned()
}

fn mode(details: &StreamModeDetails) -> Value {
    json!({"StreamMode": details.stream_mode().as_str()})
}

fn monitoring(metrics: &[EnhancedMetrics]) -> Value {
    let names = |metrics: &EnhancedMetrics| -> Vec<String> {
        metrics.shard_level_metrics().iter().map(|name| name.as_str().to_owned()).collect()
    };
    metrics.iter().map(|metrics| json!({"ShardLevelMetrics": names(metrics)})).collect()
}

pub(crate) fn description(stream: &StreamDescription) -> Value {
    json!({
        "StreamName": stream.stream_name(),
        "StreamARN": stream.stream_arn(),
        "StreamStatus": stream.stream_status().as_str(),
        "StreamModeDetails": stream.stream_mode_details().map(mode),
        "Shards": stream.shards().iter().map(shard).collect::<Value>(),
        "HasMoreShards": stream.has_more_shards(),
        "RetentionPeriodHours": stream.retention_period_hours(),
        "StreamCreationTimestamp": TIME,
        "EnhancedMonitoring": monitoring(stream.enhanced_monitoring()),
        "EncryptionType": stream.encryption_type().map(|kind| kind.as_str()),
        "KeyId": stream.key_id(),
    })
}

pub(crate) fn summary(stream: &StreamDescriptionSummary) -> Value {
    json!({
        "StreamName": stream.stream_name(),
        "StreamARN": stream.stream_arn(),
        "StreamStatus": stream.stream_status().as_str(),
        "StreamModeDetails": stream.stream_mode_details().map(mode),
        "RetentionPeriodHours": stream.retention_period_hours(),
        "StreamCreationTimestamp": TIME,
        "EnhancedMonitoring": monitoring(stream.enhanced_monitoring()),
        "EncryptionType": stream.encryption_type().map(|kind| kind.as_str()),
        "KeyId": stream.key_id(),
        "OpenShardCount": stream.open_shard_count(),
        "ConsumerCount": stream.consumer_count(),
        "MaxRecordSizeInKiB": stream.max_record_size_in_kib(),
    })
}

pub(crate) fn consumer(consumer: &Consumer) -> Value {
    json!({
        "ConsumerName": consumer.consumer_name(),
        "ConsumerARN": consumer.consumer_arn(),
        "ConsumerStatus": consumer.consumer_status().as_str(),
        "ConsumerCreationTimestamp": TIME,
    })
}

pub(crate) fn consumer_description(consumer: &ConsumerDescription) -> Value {
    json!({
        "ConsumerName": consumer.consumer_name(),
        "ConsumerARN": consumer.consumer_arn(),
        "ConsumerStatus": consumer.consumer_status().as_str(),
        "ConsumerCreationTimestamp": TIME,
        "StreamARN": consumer.stream_arn(),
    })
}
