//! Tags of streams and consumers, through the stream's own operations and the generic ones.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::arn;
use super::super::validate::Check;
use super::super::{Engine, Error};
use super::{require, stream_name};

/// Tags on one stream or consumer.
const MAX_TAGS: usize = 50;

/// Tags that one request may bring: API_TagResource and its like, Map Entries.
const MAX_TAGS_OF_A_REQUEST: usize = 200;

/// Whether a tag's key or value may have it, as the description of Tags in API_TagResource says.
fn is_legal(letter: char) -> bool {
    letter.is_alphanumeric() || letter.is_whitespace() || "_.:/=+-@".contains(letter)
}

/// Checks tags to add to `what`, which would then have `total` of them.
pub(crate) fn check(
    what: &str,
    engine: &Engine,
    tags: &BTreeMap<String, String>,
    total: usize,
) -> Result<(), Error> {
    let mut check = Check::default();
    if tags.is_empty() {
        check.violate(&"{}", "tags", "Member must have length greater than or equal to 1");
    } else if tags.len() > MAX_TAGS_OF_A_REQUEST {
        let count = format!("{} tags", tags.len());
        check.violate(&count, "tags", "Member must have length less than or equal to 200");
    }
    for (key, value) in tags {
        check.length(key, "tags.key", 1, 128);
        check.length(value, "tags.value", 0, 256);
    }
    check.done()?;
    // API_AddTagsToStream and API_TagResource: the prefix is the service's own; InvalidArgumentException. Words: ours.
    if let Some(key) = tags.keys().find(|key| key.to_ascii_lowercase().starts_with("aws:")) {
        return Err(Error::InvalidArgument(format!(
            "The tag key {key} begins with aws:, which is reserved; choose another."
        )));
    }
    // The model has no pattern for it. API_Tag allows `%`, API_TagResource does not, and the service is reported to
    // refuse it in other words than the rest. Seen: kinesalite's action of AddTagsToStream, as the words below.
    let letters = || tags.iter().flat_map(|(key, value)| key.chars().chain(value.chars()));
    if letters().any(|letter| letter != '%' && !is_legal(letter)) {
        return Err(Error::InvalidArgument(
            "Some tags contain invalid characters. Valid characters: Unicode letters, digits, white space, \
             _ . / = + - % @ :."
                .to_owned(),
        ));
    }
    if letters().any(|letter| letter == '%') {
        return Err(Error::InvalidArgument(format!(
            "Failed to add tags to {what} under account {} because some tags contained illegal characters. The \
             allowed characters are Unicode letters, white-spaces, '_',',','/','=','+','-','@',':'.",
            engine.settings().account_id
        )));
    }
    // Seen: kinesalite's action of AddTagsToStream, with the number of today.
    if total > MAX_TAGS {
        return Err(Error::InvalidArgument(format!(
            "Failed to add tags to {what} under account {} because a given {} cannot have more than {MAX_TAGS} tags \
             associated with it.",
            engine.settings().account_id,
            what.split(' ').next().unwrap_or(what)
        )));
    }
    Ok(())
}

fn add(engine: &Engine, to: &Resource, tags: BTreeMap<String, String>) -> Result<(), Error> {
    engine.attach(&to.stream, to.consumer.as_deref(), |attached| {
        let more = tags.keys().filter(|key| !attached.tags.contains_key(*key)).count();
        check(&to.shown(), engine, &tags, attached.tags.len() + more)?;
        attached.tags.extend(tags);
        Ok(())
    })
}

fn remove(engine: &Engine, from: &Resource, keys: &[String]) -> Result<(), Error> {
    let mut check = Check::default();
    if keys.is_empty() {
        check.violate(&"[]", "tagKeys", "Member must have length greater than or equal to 1");
    } else if keys.len() > MAX_TAGS {
        let count = format!("{} keys", keys.len());
        check.violate(&count, "tagKeys", "Member must have length less than or equal to 50");
    }
    for key in keys {
        check.length(key, "tagKeys.member", 1, 128);
    }
    check.done()?;
    engine.attach(&from.stream, from.consumer.as_deref(), |attached| {
        attached.tags.retain(|key, _| !keys.contains(key));
        Ok(())
    })
}

fn all(engine: &Engine, of: &Resource) -> Result<Vec<Tag>, Error> {
    let stream = engine.stream(&of.stream)?;
    let list = |tags: &BTreeMap<String, String>| {
        tags.iter().map(|(key, value)| Tag { key: key.clone(), value: value.clone() }).collect()
    };
    Ok(match &of.consumer {
        Some(name) => list(&stream.consumer(name)?.attached().tags),
        None => list(&stream.control().tags),
    })
}

/// A stream, or one of its consumers.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) arn: String,
    pub(crate) stream: String,
    pub(crate) consumer: Option<String>,
}

impl Resource {
    fn stream(name: String) -> Self {
        Self { arn: String::new(), stream: name, consumer: None }
    }

    /// As errors call it.
    fn shown(&self) -> String {
        match &self.consumer {
            Some(name) => format!("consumer {name} of stream {}", self.stream),
            None => format!("stream {}", self.stream),
        }
    }
}

/// What a `ResourceARN` names, which must exist.
pub(crate) fn resource(engine: &Engine, arn: Option<String>) -> Result<Resource, Error> {
    let arn = require(arn, "resourceARN")?;
    if !arn.contains("/consumer/") {
        let stream = arn::stream_of_arn(&arn)?.to_owned();
        engine.stream(&stream)?;
        return Ok(Resource { arn, stream, consumer: None });
    }
    let (stream, consumer) = arn::consumer_of_arn(&arn)?;
    let known = engine.describe_consumer(stream, consumer)?;
    if known.arn != arn {
        // API_TagResource: ResourceNotFoundException. Words: ours. The time in an ARN tells a consumer from an earlier one of the same name.
        return Err(Error::ResourceNotFound(format!(
            "Consumer {arn} not found: the consumer of that name is {}.",
            known.arn
        )));
    }
    let (stream, consumer) = (stream.to_owned(), Some(consumer.to_owned()));
    Ok(Resource { arn, stream, consumer })
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
    add(engine, &Resource::stream(stream), require(request.tags, "tags")?)
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
    remove(engine, &Resource::stream(stream), &require(request.tag_keys, "tagKeys")?)
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
    let mut tags = all(engine, &Resource::stream(stream))?;
    tags.retain(|tag| request.exclusive_start_tag_key.as_ref().is_none_or(|after| tag.key > *after));
    let limit = usize::try_from(limit).unwrap_or(50);
    let has_more_tags = tags.len() > limit;
    tags.truncate(limit);
    Ok(ListAnswer { tags, has_more_tags })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TagResourceRequest {
    #[serde(rename = "ResourceARN")]
    resource_arn: Option<String>,
    tags: Option<BTreeMap<String, String>>,
}

pub(crate) fn tag_resource(engine: &Engine, request: TagResourceRequest) -> Result<(), Error> {
    add(engine, &resource(engine, request.resource_arn)?, require(request.tags, "tags")?)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct UntagResourceRequest {
    #[serde(rename = "ResourceARN")]
    resource_arn: Option<String>,
    tag_keys: Option<Vec<String>>,
}

pub(crate) fn untag_resource(engine: &Engine, request: UntagResourceRequest) -> Result<(), Error> {
    remove(engine, &resource(engine, request.resource_arn)?, &require(request.tag_keys, "tagKeys")?)
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
    Ok(ListResourceAnswer { tags: all(engine, &resource(engine, request.resource_arn)?)? })
}
