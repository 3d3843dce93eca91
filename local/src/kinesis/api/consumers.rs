//! Enhanced fan-out consumers: register, describe, list, deregister.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::arn;
use super::super::codec::Timestamp;
use super::super::settings::millis;
use super::super::validate::Check;
use super::super::{ConsumerInfo, Engine, Error, token};
use super::{require, tags};

const KIND: u8 = b'C';

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ConsumerOut {
    consumer_name: String,
    #[serde(rename = "ConsumerARN")]
    consumer_arn: String,
    consumer_status: &'static str,
    consumer_creation_timestamp: Timestamp,
    #[serde(rename = "StreamARN", skip_serializing_if = "Option::is_none")]
    stream_arn: Option<String>,
}

impl ConsumerOut {
    /// As registering and listing show it.
    fn brief(consumer: ConsumerInfo) -> Self {
        Self {
            consumer_status: consumer.status.as_str(),
            consumer_creation_timestamp: Timestamp(consumer.created_ms),
            consumer_name: consumer.name,
            consumer_arn: consumer.arn,
            stream_arn: None,
        }
    }

    /// As describing shows it.
    fn full(consumer: ConsumerInfo) -> Self {
        let stream_arn = Some(consumer.stream_arn.clone());
        Self { stream_arn, ..Self::brief(consumer) }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RegisterRequest {
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    consumer_name: Option<String>,
    tags: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RegisterAnswer {
    consumer: ConsumerOut,
}

pub(crate) fn register(engine: &Engine, request: RegisterRequest) -> Result<RegisterAnswer, Error> {
    let stream_arn = require(request.stream_arn, "streamARN")?;
    let name = require(request.consumer_name, "consumerName")?;
    let mut check = Check::default();
    check.name(&name, "consumerName");
    check.done()?;
    if let Some(tags) = &request.tags {
        // API_RegisterStreamConsumer: up to 50; the rules are those of API_TagResource.
        tags::check(&format!("consumer {name}"), engine, tags, tags.len())?;
    }
    let stream = arn::stream_of_arn(&stream_arn)?;
    let consumer = engine.register_tagged_consumer(stream, &name, request.tags.unwrap_or_default())?;
    Ok(RegisterAnswer { consumer: ConsumerOut::brief(consumer) })
}

/// A consumer by its ARN, or by its stream's ARN and its name.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ConsumerRequest {
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    consumer_name: Option<String>,
    #[serde(rename = "ConsumerARN")]
    consumer_arn: Option<String>,
}

impl ConsumerRequest {
    fn find(&self, engine: &Engine) -> Result<(String, ConsumerInfo), Error> {
        let (stream, name) = match (&self.consumer_arn, &self.stream_arn, &self.consumer_name) {
            (Some(consumer_arn), _, _) => arn::consumer_of_arn(consumer_arn)?,
            (None, Some(stream_arn), Some(name)) => (arn::stream_of_arn(stream_arn)?, name.as_str()),
            // API_DescribeStreamConsumer: InvalidArgumentException. Words: ours.
            _ => {
                return Err(Error::InvalidArgument(
                    "Either ConsumerARN, or both StreamARN and ConsumerName must be specified.".to_owned(),
                ));
            }
        };
        let consumer = engine.describe_consumer(stream, name)?;
        match &self.consumer_arn {
            // ResourceNotFoundException. Words: ours. The time in an ARN tells a consumer from an earlier one of the same name.
            Some(asked) if *asked != consumer.arn => Err(Error::ResourceNotFound(format!(
                "Consumer {asked} not found: the consumer of that name is {}.",
                consumer.arn
            ))),
            _ => Ok((stream.to_owned(), consumer)),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DescribeAnswer {
    consumer_description: ConsumerOut,
}

pub(crate) fn describe(engine: &Engine, request: ConsumerRequest) -> Result<DescribeAnswer, Error> {
    let (_, consumer) = request.find(engine)?;
    Ok(DescribeAnswer { consumer_description: ConsumerOut::full(consumer) })
}

pub(crate) fn deregister(engine: &Engine, request: ConsumerRequest) -> Result<(), Error> {
    let (stream, consumer) = request.find(engine)?;
    engine.deregister_consumer(&stream, &consumer.name)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListRequest {
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    next_token: Option<String>,
    max_results: Option<i64>,
    stream_creation_timestamp: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListAnswer {
    consumers: Vec<ConsumerOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Page {
    stream: String,
    after: String,
    issued_ms: i64,
}

pub(crate) fn list(engine: &Engine, request: ListRequest) -> Result<ListAnswer, Error> {
    let max = request.max_results.unwrap_or(100);
    let mut check = Check::default();
    check.range(max, "maxResults", 1, 10_000);
    check.done()?;
    let stream_arn = require(request.stream_arn, "streamARN")?;
    let stream = arn::stream_of_arn(&stream_arn)?.to_owned();
    if let Some(at) = request.stream_creation_timestamp {
        // API_ListStreamConsumers: not beside NextToken; InvalidArgumentException. Words: ours.
        if request.next_token.is_some() {
            return Err(Error::InvalidArgument(
                "NextToken and StreamCreationTimestamp cannot be provided together.".to_owned(),
            ));
        }
        engine.stream(&stream)?.require_created(at)?;
    }
    let mut consumers = engine.list_consumers(&stream)?;
    if let Some(text) = &request.next_token {
        // API_ListStreamConsumers: InvalidArgumentException, ExpiredNextTokenException. Words: ours.
        let page: Page = token::open(KIND, text)
            .filter(|page: &Page| page.stream == stream)
            .ok_or_else(|| Error::InvalidArgument("NextToken is invalid.".to_owned()))?;
        if engine.now_ms().saturating_sub(page.issued_ms) > millis(engine.settings().token_lifetime) {
            return Err(Error::ExpiredNextToken(
                "The NextToken has expired; list from the start.".to_owned(),
            ));
        }
        consumers.retain(|consumer| consumer.name > page.after);
    }
    let max = usize::try_from(max).unwrap_or(100);
    let more = consumers.len() > max;
    consumers.truncate(max);
    let next_token = consumers.last().filter(|_| more).map(|last| {
        let page = Page { stream, after: last.name.clone(), issued_ms: engine.now_ms() };
        token::seal(KIND, &page)
    });
    Ok(ListAnswer { consumers: consumers.into_iter().map(ConsumerOut::brief).collect(), next_token })
}
