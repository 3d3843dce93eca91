//! Tags of streams, through the stream's own operations and the generic ones.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::arn;
use super::super::validate::Check;
use super::super::{Engine, Error};
use super::{require, stream_name};

/// Tags on one stream.
const MAX_TAGS: usize = 50;

/// Checks tags to add, when the stream would then have `total`.
pub(crate) fn check(
    stream: &str,
    engine: &Engine,
    tags: &BTreeMap<String, String>,
    total: usize,
) -> Result<(), Error> {
    let mut check = Check::default();
    for (key, value) in tags {
        check.length(key, "tags.key", 1, 128);
        check.length(value, "tags.value", 0, 256);
    }
    check.done()?;
    if total > MAX_TAGS {
        return Err(Error::InvalidArgument(format!(
            "Failed to add tags to stream {stream} under account {} because a given stream cannot have more than \
             {MAX_TAGS} tags associated with it.",
            engine.settings().account_id
        )));
    }
    Ok(())
}

fn add(engine: &Engine, name: &str, tags: BTreeMap<String, String>) -> Result<(), Error> {
    let stream = engine.stream(name)?;
    let mut control = stream.control();
    let total = control.tags.len() + tags.keys().filter(|key| !control.tags.contains_key(*key)).count();
    check(name, engine, &tags, total)?;
    control.tags.extend(tags);
    Ok(())
}

fn remove(engine: &Engine, name: &str, keys: &[String]) -> Result<(), Error> {
    let stream = engine.stream(name)?;
    let mut control = stream.control();
    for key in keys {
        control.tags.remove(key);
    }
    Ok(())
}

fn all(engine: &Engine, name: &str) -> Result<Vec<Tag>, Error> {
    let stream = engine.stream(name)?;
    let control = stream.control();
    Ok(control.tags.iter().map(|(key, value)| Tag { key: key.clone(), value: value.clone() }).collect())
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Tag {
    key: String,
    value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AddRequest {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    tags: Option<BTreeMap<String, String>>,
}

pub(crate) fn add_to_stream(engine: &Engine, request: AddRequest) -> Result<(), Error> {
    let stream = stream_name(request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    add(engine, &stream, require(request.tags, "tags")?)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RemoveRequest {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    tag_keys: Option<Vec<String>>,
}

pub(crate) fn remove_from_stream(engine: &Engine, request: RemoveRequest) -> Result<(), Error> {
    let stream = stream_name(request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    remove(engine, &stream, &require(request.tag_keys, "tagKeys")?)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListRequest {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    exclusive_start_tag_key: Option<String>,
    limit: Option<i64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListAnswer {
    tags: Vec<Tag>,
    has_more_tags: bool,
}

pub(crate) fn list_for_stream(engine: &Engine, request: ListRequest) -> Result<ListAnswer, Error> {
    let stream = stream_name(request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    let limit = request.limit.unwrap_or(50);
    let mut check = Check::default();
    check.range(limit, "limit", 1, 50);
    check.done()?;
    let mut tags = all(engine, &stream)?;
    tags.retain(|tag| request.exclusive_start_tag_key.as_ref().is_none_or(|after| tag.key > *after));
    let limit = usize::try_from(limit).unwrap_or(50);
    let has_more_tags = tags.len() > limit;
    tags.truncate(limit);
    Ok(ListAnswer { tags, has_more_tags })
}

/// The stream of a `ResourceARN`. Tags of consumers are not kept.
fn resource(arn: Option<String>) -> Result<String, Error> {
    let arn = require(arn, "resourceARN")?;
    arn::stream_of_arn(&arn).map(str::to_owned)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TagResourceRequest {
    #[serde(rename = "ResourceARN")]
    resource_arn: Option<String>,
    tags: Option<BTreeMap<String, String>>,
}

pub(crate) fn tag_resource(engine: &Engine, request: TagResourceRequest) -> Result<(), Error> {
    add(engine, &resource(request.resource_arn)?, require(request.tags, "tags")?)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct UntagResourceRequest {
    #[serde(rename = "ResourceARN")]
    resource_arn: Option<String>,
    tag_keys: Option<Vec<String>>,
}

pub(crate) fn untag_resource(engine: &Engine, request: UntagResourceRequest) -> Result<(), Error> {
    remove(engine, &resource(request.resource_arn)?, &require(request.tag_keys, "tagKeys")?)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListResourceRequest {
    #[serde(rename = "ResourceARN")]
    resource_arn: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListResourceAnswer {
    tags: Vec<Tag>,
}

pub(crate) fn list_for_resource(
    engine: &Engine,
    request: ListResourceRequest,
) -> Result<ListResourceAnswer, Error> {
    Ok(ListResourceAnswer { tags: all(engine, &resource(request.resource_arn)?)? })
}
