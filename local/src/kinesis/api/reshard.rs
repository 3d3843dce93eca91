//! `SplitShard`, `MergeShards` and `UpdateShardCount`.

use serde::{Deserialize, Serialize};

use super::super::hash::parse_hash;
use super::super::validate::{Check, HASH_DIGITS};
use super::super::{Engine, Error};
use super::{require, stream_name};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SplitRequest {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    shard_to_split: Option<String>,
    new_starting_hash_key: Option<String>,
}

pub(crate) fn split(engine: &Engine, request: SplitRequest) -> Result<(), Error> {
    let stream = stream_name(request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    let shard = require(request.shard_to_split, "shardToSplit")?;
    let hash = require(request.new_starting_hash_key, "newStartingHashKey")?;
    let mut check = Check::default();
    check.number(&hash, "newStartingHashKey", HASH_DIGITS);
    check.done()?;
    // Words: those for an ExplicitHashKey, which is bounded alike.
    let start = parse_hash(&hash).ok_or_else(|| {
        Error::InvalidArgument(format!(
            "Invalid NewStartingHashKey. NewStartingHashKey must be in the range: [0, 2^128-1]. Specified value was \
             {hash}"
        ))
    })?;
    engine.split_shard(&stream, &shard, start)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct MergeRequest {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    shard_to_merge: Option<String>,
    adjacent_shard_to_merge: Option<String>,
}

pub(crate) fn merge(engine: &Engine, request: MergeRequest) -> Result<(), Error> {
    let stream = stream_name(request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    let shard = require(request.shard_to_merge, "shardToMerge")?;
    let adjacent = require(request.adjacent_shard_to_merge, "adjacentShardToMerge")?;
    engine.merge_shards(&stream, &shard, &adjacent)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct UpdateCountRequest {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    target_shard_count: Option<i64>,
    scaling_type: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct UpdateCountAnswer {
    stream_name: String,
    current_shard_count: usize,
    target_shard_count: u32,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
}

pub(crate) fn update_count(engine: &Engine, request: UpdateCountRequest) -> Result<UpdateCountAnswer, Error> {
    let stream = stream_name(request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    let target = require(request.target_shard_count, "targetShardCount")?;
    let scaling = require(request.scaling_type, "scalingType")?;
    let mut check = Check::default();
    check.range(target, "targetShardCount", 1, 10_000);
    check.one_of(&scaling, "scalingType", &["UNIFORM_SCALING"]);
    check.done()?;
    let target = u32::try_from(target).unwrap_or(1);
    let current = engine.update_shard_count(&stream, target)?;
    Ok(UpdateCountAnswer {
        stream_arn: engine.describe_stream(&stream)?.arn,
        stream_name: stream,
        current_shard_count: current,
        target_shard_count: target,
    })
}
