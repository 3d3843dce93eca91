//! What a request is about, looked at only while faults are in force.

use bytestring::ByteString;
use serde::Deserialize;

use super::codec::Codec;
use super::engine::Engine;
use super::error::Error;
use super::hash::{hash_of, parse_hash};
use super::puts::rate_exceeded;
use super::stream::Stream;
use super::{arn, iterator};
use crate::faults::{Injected, MESSAGE, Service, Target};

/// The members by which requests name things.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Names {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    #[serde(rename = "ConsumerARN")]
    consumer_arn: Option<String>,
    shard_id: Option<String>,
    shard_to_split: Option<String>,
    shard_to_merge: Option<String>,
    adjacent_shard_to_merge: Option<String>,
    shard_iterator: Option<String>,
    partition_key: Option<ByteString>,
    explicit_hash_key: Option<String>,
    records: Vec<Keys>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Keys {
    partition_key: Option<ByteString>,
    explicit_hash_key: Option<String>,
}

/// Reads what faults ask about. A body that cannot be read names nothing: the operation itself will refuse it.
pub(crate) fn of(engine: &Engine, operation: &str, codec: Codec, body: &[u8]) -> Target {
    let names: Names = codec.decode(body).unwrap_or_default();
    let mut shards: Vec<String> =
        [names.shard_id, names.shard_to_split, names.shard_to_merge, names.adjacent_shard_to_merge]
            .into_iter()
            .flatten()
            .collect();
    let mut resource = names
        .stream_name
        .or_else(|| Some(arn::stream_of_arn(names.stream_arn.as_deref()?).ok()?.to_owned()))
        .or_else(|| Some(arn::consumer_of_arn(names.consumer_arn.as_deref()?).ok()?.0.to_owned()));
    if let Some((stream, shard)) = names.shard_iterator.as_deref().and_then(iterator::peek) {
        resource = Some(stream);
        shards.push(shard);
    }
    let mut entries = names.records;
    if names.partition_key.is_some() {
        entries.push(Keys { partition_key: names.partition_key, explicit_hash_key: names.explicit_hash_key });
    }
    if let Some(stream) = resource.as_deref().and_then(|name| engine.stream(name).ok()) {
        let map = stream.map();
        for entry in &entries {
            let hash = entry.explicit_hash_key.as_deref().and_then(parse_hash);
            let hash = hash.or_else(|| entry.partition_key.as_deref().map(hash_of));
            let shard = hash.and_then(|hash| map.open().get(map.place_of(hash)));
            shards.extend(shard.map(|shard| shard.id()));
        }
    }
    let keys = entries.into_iter().filter_map(|entry| entry.partition_key).map(String::from).collect();
    Target { service: Service::Kinesis, operation: operation.to_owned(), resource, shards, keys }
}

/// The error of an entry.
pub(crate) fn entry_error(injected: Injected, shard_id: &str, stream: &Stream) -> Error {
    match injected {
        Injected::Throttled => rate_exceeded(shard_id, stream),
        other => named(other, ""),
    }
}

/// The error of a call.
pub(crate) fn call_error(injected: Injected, target: &Target) -> Error {
    let records =
        matches!(target.operation.as_str(), "PutRecord" | "PutRecords" | "GetRecords" | "GetShardIterator");
    named(injected, if records { "ProvisionedThroughputExceededException" } else { "LimitExceededException" })
}

fn named(injected: Injected, throttled: &str) -> Error {
    let message = match injected {
        Injected::Throttled => "Rate exceeded.",
        Injected::ExpiredIterator => "Iterator expired.",
        Injected::Coded { .. } => MESSAGE,
    };
    let (exception, status) = injected.name(throttled);
    Error::Injected { exception, status, message: message.to_owned() }
}
