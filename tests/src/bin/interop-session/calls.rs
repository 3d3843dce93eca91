//! One operation: its input from JSON, its output to JSON.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::{
    PutRecordsRequestEntry, ScalingType, ShardFilter, ShardFilterType, ShardIteratorType,
};
use serde_json::{Value, json};

use crate::answer::{
    child, consumer, consumer_description, description, failed, record, refused, shard, summary,
};
use crate::fill::Given;

/// The answer, or the error as an answer.
pub(crate) async fn call(client: &Client, operation: &str, given: &Given<'_>) -> Value {
    made(client, operation, given).await.unwrap_or_else(|error| error)
}

async fn made(client: &Client, operation: &str, given: &Given<'_>) -> Result<Value, Value> {
    let stream = given.text("StreamName");
    let arn = given.text("StreamARN");
    let nothing = json!({});
    Ok(match operation {
        "CreateStream" => {
            let request = client.create_stream().set_stream_name(stream);
            request.set_shard_count(given.int("ShardCount")).send().await.map_err(failed)?;
            nothing
        }
        "DeleteStream" => {
            client.delete_stream().set_stream_name(stream).send().await.map_err(failed)?;
            nothing
        }
        "DescribeStream" => {
            let request = client.describe_stream().set_stream_name(stream).set_limit(given.int("Limit"));
            let request = request.set_exclusive_start_shard_id(given.text("ExclusiveStartShardId"));
            let answer = request.send().await.map_err(failed)?;
            json!({"StreamDescription": answer.stream_description().map(description)})
        }
        "DescribeStreamSummary" => {
            let request = client.describe_stream_summary().set_stream_name(stream);
            let answer = request.send().await.map_err(failed)?;
            json!({"StreamDescriptionSummary": answer.stream_description_summary().map(summary)})
        }
        "DescribeLimits" => {
            let answer = client.describe_limits().send().await.map_err(failed)?;
            json!({
                "ShardLimit": answer.shard_limit(),
                "OpenShardCount": answer.open_shard_count(),
                "OnDemandStreamCount": answer.on_demand_stream_count(),
                "OnDemandStreamCountLimit": answer.on_demand_stream_count_limit(),
            })
        }
        "PutRecord" => {
            let request = client.put_record().set_stream_name(stream).set_data(given.blob("Data"));
            let request = request.set_partition_key(given.text("PartitionKey"));
            let request = request.set_explicit_hash_key(given.text("ExplicitHashKey"));
            let answer = request.send().await.map_err(failed)?;
            json!({
                "ShardId": answer.shard_id(),
                "SequenceNumber": answer.sequence_number(),
                "EncryptionType": answer.encryption_type().map(|kind| kind.as_str()),
            })
        }
        "PutRecords" => {
            let mut entries = Vec::new();
            for entry in given.list("Records").unwrap_or_default() {
                let built = PutRecordsRequestEntry::builder()
                    .set_data(entry.blob("Data"))
                    .set_partition_key(entry.text("PartitionKey"))
                    .set_explicit_hash_key(entry.text("ExplicitHashKey"))
                    .build();
                entries.push(built.map_err(|_| refused())?);
            }
            let request = client.put_records().set_stream_name(stream).set_records(Some(entries));
            let answer = request.send().await.map_err(failed)?;
            let each = answer.records().iter().map(|entry| {
                json!({
                    "ShardId": entry.shard_id(),
                    "SequenceNumber": entry.sequence_number(),
                    "ErrorCode": entry.error_code(),
                    "ErrorMessage": entry.error_message(),
                })
            });
            json!({
                "FailedRecordCount": answer.failed_record_count(),
                "Records": each.collect::<Value>(),
                "EncryptionType": answer.encryption_type().map(|kind| kind.as_str()),
            })
        }
        "GetShardIterator" => {
            let request =
                client.get_shard_iterator().set_stream_name(stream).set_shard_id(given.text("ShardId"));
            let kind = given.text("ShardIteratorType").map(|kind| ShardIteratorType::from(kind.as_str()));
            let request = request.set_shard_iterator_type(kind).set_timestamp(given.time("Timestamp"));
            let request = request.set_starting_sequence_number(given.text("StartingSequenceNumber"));
            let answer = request.send().await.map_err(failed)?;
            json!({"ShardIterator": answer.shard_iterator()})
        }
        "GetRecords" => {
            let request = client.get_records().set_shard_iterator(given.text("ShardIterator"));
            let answer = request.set_limit(given.int("Limit")).send().await.map_err(failed)?;
            json!({
                "Records": answer.records().iter().map(record).collect::<Value>(),
                "NextShardIterator": answer.next_shard_iterator(),
                "MillisBehindLatest": answer.millis_behind_latest(),
                "ChildShards": answer.child_shards.as_ref().map(|all| all.iter().map(child).collect::<Value>()),
            })
        }
        "ListShards" => {
            let filter = given.within("ShardFilter").map(|filter| {
                let kind = filter.text("Type").map(|kind| ShardFilterType::from(kind.as_str()));
                let built = ShardFilter::builder().set_type(kind).set_shard_id(filter.text("ShardId"));
                built.set_timestamp(filter.time("Timestamp")).build()
            });
            let filter = filter.transpose().map_err(|_| refused())?;
            let request = client.list_shards().set_stream_name(stream).set_shard_filter(filter);
            let request = request.set_next_token(given.text("NextToken"));
            let request = request.set_max_results(given.int("MaxResults"));
            let request = request.set_exclusive_start_shard_id(given.text("ExclusiveStartShardId"));
            let answer = request.send().await.map_err(failed)?;
            json!({
                "Shards": answer.shards().iter().map(shard).collect::<Value>(),
                "NextToken": answer.next_token(),
            })
        }
        "SplitShard" => {
            let request = client.split_shard().set_stream_name(stream);
            let request = request.set_shard_to_split(given.text("ShardToSplit"));
            let request = request.set_new_starting_hash_key(given.text("NewStartingHashKey"));
            request.send().await.map_err(failed)?;
            nothing
        }
        "MergeShards" => {
            let request = client.merge_shards().set_stream_name(stream);
            let request = request.set_shard_to_merge(given.text("ShardToMerge"));
            let request = request.set_adjacent_shard_to_merge(given.text("AdjacentShardToMerge"));
            request.send().await.map_err(failed)?;
            nothing
        }
        "UpdateShardCount" => {
            let kind = given.text("ScalingType").map(|kind| ScalingType::from(kind.as_str()));
            let request = client.update_shard_count().set_stream_name(stream).set_scaling_type(kind);
            let request = request.set_target_shard_count(given.int("TargetShardCount"));
            let answer = request.send().await.map_err(failed)?;
            json!({
                "StreamName": answer.stream_name(),
                "CurrentShardCount": answer.current_shard_count(),
                "TargetShardCount": answer.target_shard_count(),
                "StreamARN": answer.stream_arn(),
            })
        }
        "AddTagsToStream" => {
            let request = client.add_tags_to_stream().set_stream_name(stream);
            request.set_tags(given.map("Tags")).send().await.map_err(failed)?;
            nothing
        }
        "RemoveTagsFromStream" => {
            let request = client.remove_tags_from_stream().set_stream_name(stream);
            request.set_tag_keys(given.texts("TagKeys")).send().await.map_err(failed)?;
            nothing
        }
        "ListTagsForStream" => {
            let request = client.list_tags_for_stream().set_stream_name(stream).set_limit(given.int("Limit"));
            let request = request.set_exclusive_start_tag_key(given.text("ExclusiveStartTagKey"));
            let answer = request.send().await.map_err(failed)?;
            let tags = answer.tags().iter().map(|tag| json!({"Key": tag.key(), "Value": tag.value()}));
            json!({"Tags": tags.collect::<Value>(), "HasMoreTags": answer.has_more_tags()})
        }
        "IncreaseStreamRetentionPeriod" => {
            let request = client.increase_stream_retention_period().set_stream_name(stream);
            let request = request.set_retention_period_hours(given.int("RetentionPeriodHours"));
            request.send().await.map_err(failed)?;
            nothing
        }
        "DecreaseStreamRetentionPeriod" => {
            let request = client.decrease_stream_retention_period().set_stream_name(stream);
            let request = request.set_retention_period_hours(given.int("RetentionPeriodHours"));
            request.send().await.map_err(failed)?;
            nothing
        }
        "RegisterStreamConsumer" => {
            let request = client.register_stream_consumer().set_stream_arn(arn);
            let request = request.set_consumer_name(given.text("ConsumerName"));
            let answer = request.send().await.map_err(failed)?;
            json!({"Consumer": answer.consumer().map(consumer)})
        }
        "DescribeStreamConsumer" => {
            let request = client.describe_stream_consumer().set_stream_arn(arn);
            let request = request.set_consumer_name(given.text("ConsumerName"));
            let request = request.set_consumer_arn(given.text("ConsumerARN"));
            let answer = request.send().await.map_err(failed)?;
            json!({"ConsumerDescription": answer.consumer_description().map(consumer_description)})
        }
        "ListStreamConsumers" => {
            let request = client.list_stream_consumers().set_stream_arn(arn);
            let answer = request.send().await.map_err(failed)?;
            let consumers: Value = answer.consumers().iter().map(consumer).collect();
            json!({"Consumers": consumers, "NextToken": answer.next_token()})
        }
        "DeregisterStreamConsumer" => {
            let request = client.deregister_stream_consumer().set_stream_arn(arn);
            request.set_consumer_name(given.text("ConsumerName")).send().await.map_err(failed)?;
            nothing
        }
        other => {
            json!({"error": "UnknownOperation", "message": format!("this runner does not know {other}")})
        }
    })
}
