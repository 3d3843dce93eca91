//! The operations of the protocol: requests and answers as they are on the wire, by group.

pub(crate) mod capacity;
pub(crate) mod consumers;
pub(crate) mod extras;
pub(crate) mod get;
pub(crate) mod put;
mod put_answer;
mod put_body;
pub(crate) mod reshard;
pub(crate) mod shards;
pub(crate) mod streams;
pub(crate) mod subscribe;
pub(crate) mod tags;

use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::arn;
use super::codec::Codec;
use super::engine::Engine;
use super::error::Error;
use super::reader::ChildShard;
use super::subscription::Subscription;
use super::validate::Check;

/// An answer.
#[derive(Debug)]
pub(crate) enum Reply {
    Body(Bytes),
    Messages(Box<Subscription>),
}

/// Runs one operation.
pub(crate) fn dispatch(
    engine: &Arc<Engine>,
    operation: &str,
    codec: Codec,
    body: &[u8],
    shutdown: &CancellationToken,
) -> Result<Reply, Error> {
    let call = Call { engine, codec, body };
    match operation {
        "PutRecords" => {
            let request = match put_body::read(codec, body) {
                Some(request) => request,
                None => codec.decode(body)?,
            };
            Ok(Reply::Body(put::put_records(engine, request)?.encode(codec)?))
        }
        "PutRecord" => call.answer(put::put_record),
        "GetRecords" => call.answer(get::get_records),
        "GetShardIterator" => call.answer(get::get_shard_iterator),
        "SubscribeToShard" => {
            let request = codec.decode(body)?;
            let subscription = subscribe::subscribe(engine, request, codec, shutdown.clone())?;
            Ok(Reply::Messages(Box::new(subscription)))
        }
        "ListShards" => call.answer(shards::list_shards),
        "SplitShard" => call.accept(reshard::split),
        "MergeShards" => call.accept(reshard::merge),
        "UpdateShardCount" => call.answer(reshard::update_count),
        "CreateStream" => call.accept(streams::create),
        "DeleteStream" => call.accept(streams::delete),
        "DescribeStream" => call.answer(streams::describe),
        "DescribeStreamSummary" => call.answer(streams::describe_summary),
        "DescribeLimits" => call.answer(streams::describe_limits),
        "ListStreams" => call.answer(streams::list),
        "IncreaseStreamRetentionPeriod" => call.accept(streams::increase_retention),
        "DecreaseStreamRetentionPeriod" => call.accept(streams::decrease_retention),
        "AddTagsToStream" => call.accept(tags::add_to_stream),
        "RemoveTagsFromStream" => call.accept(tags::remove_from_stream),
        "ListTagsForStream" => call.answer(tags::list_for_stream),
        "TagResource" => call.accept(tags::tag_resource),
        "UntagResource" => call.accept(tags::untag_resource),
        "ListTagsForResource" => call.answer(tags::list_for_resource),
        "RegisterStreamConsumer" => call.answer(consumers::register),
        "DescribeStreamConsumer" => call.answer(consumers::describe),
        "ListStreamConsumers" => call.answer(consumers::list),
        "DeregisterStreamConsumer" => call.accept(consumers::deregister),
        "StartStreamEncryption" => call.accept(extras::start_encryption),
        "StopStreamEncryption" => call.accept(extras::stop_encryption),
        "EnableEnhancedMonitoring" => call.answer(extras::enable_monitoring),
        "DisableEnhancedMonitoring" => call.answer(extras::disable_monitoring),
        "PutResourcePolicy" => call.accept(extras::put_policy),
        "GetResourcePolicy" => call.answer(extras::get_policy),
        "DeleteResourcePolicy" => call.accept(extras::delete_policy),
        "UpdateStreamMode" => call.accept(capacity::update_mode),
        "UpdateMaxRecordSize" => call.accept(capacity::update_record_size),
        "UpdateStreamWarmThroughput" => call.answer(capacity::update_warm_throughput),
        "UpdateAccountSettings" => call.answer(capacity::update_account),
        "DescribeAccountSettings" => call.answer(capacity::describe_account),
        // Seen: kinesalite's tests of connections, without words, as for the body that cannot be read. Words: ours.
        other => Err(Error::UnknownOperation(format!("Operation {other} is not known to this Kinesis."))),
    }
}

struct Call<'a> {
    engine: &'a Engine,
    codec: Codec,
    body: &'a [u8],
}

impl Call<'_> {
    /// Runs an operation that answers with a structure.
    fn answer<Q: DeserializeOwned, A: Serialize>(
        &self,
        operation: impl FnOnce(&Engine, Q) -> Result<A, Error>,
    ) -> Result<Reply, Error> {
        let answer = operation(self.engine, self.codec.decode(self.body)?)?;
        Ok(Reply::Body(self.codec.encode(&answer)?))
    }

    /// Runs an operation that answers with nothing.
    fn accept<Q: DeserializeOwned>(
        &self,
        operation: impl FnOnce(&Engine, Q) -> Result<(), Error>,
    ) -> Result<Reply, Error> {
        operation(self.engine, self.codec.decode(self.body)?)?;
        Ok(Reply::Body(Bytes::new()))
    }
}

/// The body of an error.
pub(crate) fn error_payload(codec: Codec, error: &Error) -> Bytes {
    #[derive(Serialize)]
    struct Payload<'a> {
        #[serde(rename = "__type")]
        exception: &'a str,
        message: &'a str,
    }
    let message = error.to_string();
    // Two strings always encode.
    codec.encode(&Payload { exception: error.exception(), message: &message }).unwrap_or_default()
}

/// The stream that a request names, by name or by ARN.
fn stream_name(name: Option<&str>, arn: Option<&str>) -> Result<String, Error> {
    match (name, arn) {
        (Some(name), arn) => {
            let mut check = Check::default();
            check.name(name, "streamName");
            check.done()?;
            if let Some(arn) = arn
                && arn::stream_of_arn(arn)? != name
            {
                // API_DescribeStream: InvalidArgumentException. Words: ours.
                return Err(Error::InvalidArgument(format!(
                    "StreamName {name} and StreamARN {arn} name two streams."
                )));
            }
            Ok(name.to_owned())
        }
        (None, Some(arn)) => Ok(arn::stream_of_arn(arn)?.to_owned()),
        // The description of API_DescribeStream: one of both; InvalidArgumentException. Words: ours.
        (None, None) => {
            Err(Error::InvalidArgument("Either StreamName or StreamARN must be specified.".to_owned()))
        }
    }
}

/// A required member.
fn require<T>(value: Option<T>, field: &str) -> Result<T, Error> {
    let mut check = Check::default();
    check.required(value.as_ref(), field);
    check.done()?;
    // Checked by the line above.
    value.ok_or_else(|| Error::Internal(format!("{field} is missing")))
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HashKeyRange {
    starting_hash_key: String,
    ending_hash_key: String,
}

impl From<super::HashRange> for HashKeyRange {
    fn from(range: super::HashRange) -> Self {
        Self { starting_hash_key: range.start.to_string(), ending_hash_key: range.end.to_string() }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ChildShardOut {
    shard_id: String,
    parent_shards: Vec<String>,
    hash_key_range: HashKeyRange,
}

impl From<&ChildShard> for ChildShardOut {
    fn from(child: &ChildShard) -> Self {
        Self {
            shard_id: child.shard_id.clone(),
            parent_shards: child.parent_shards.clone(),
            hash_key_range: child.range.into(),
        }
    }
}
