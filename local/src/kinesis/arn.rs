//! Names and ARNs of streams and consumers.

use super::error::Error;
use super::settings::Settings;

/// The ARN of a stream.
pub(crate) fn stream_arn(settings: &Settings, name: &str) -> String {
    format!("arn:aws:kinesis:{}:{}:stream/{name}", settings.region, settings.account_id)
}

/// The ARN of a consumer of the stream with `stream_arn`.
pub(crate) fn consumer_arn(stream_arn: &str, name: &str, created_ms: i64) -> String {
    format!("{stream_arn}/consumer/{name}:{}", created_ms.div_euclid(1_000))
}

/// The stream's name in its ARN; region and account are not compared, since every client here is its own account.
pub(crate) fn stream_of_arn(arn: &str) -> Result<&str, Error> {
    let resource = resource_of_arn(arn)?;
    match resource.strip_prefix("stream/") {
        Some(name) if !name.is_empty() && !name.contains('/') => Ok(name),
        _ => Err(malformed(arn, "stream", "arn:aws:kinesis:us-east-1:000000000000:stream/NAME")),
    }
}

/// The stream's and the consumer's names in a consumer's ARN.
pub(crate) fn consumer_of_arn(arn: &str) -> Result<(&str, &str), Error> {
    let expected = "arn:aws:kinesis:us-east-1:000000000000:stream/NAME/consumer/CONSUMER:1700000000";
    let resource = resource_of_arn(arn)?;
    let parts = resource.strip_prefix("stream/").and_then(|rest| rest.split_once("/consumer/"));
    match parts.and_then(|(stream, rest)| rest.rsplit_once(':').map(|(consumer, _)| (stream, consumer))) {
        Some((stream, consumer)) if !stream.is_empty() && !consumer.is_empty() => Ok((stream, consumer)),
        _ => Err(malformed(arn, "consumer", expected)),
    }
}

fn resource_of_arn(arn: &str) -> Result<&str, Error> {
    let mut parts = arn.splitn(6, ':');
    let is_kinesis = parts.next() == Some("arn")
        && parts.next().is_some_and(|p| p.starts_with("aws"))
        && parts.next() == Some("kinesis");
    match parts.nth(2) {
        Some(resource) if is_kinesis => Ok(resource),
        _ => Err(malformed(arn, "stream", "arn:aws:kinesis:us-east-1:000000000000:stream/NAME")),
    }
}

/// The model has a pattern for ARNs, and what violates one is a ValidationException. Words: ours.
fn malformed(arn: &str, what: &str, expected: &str) -> Error {
    Error::Validation(format!("Invalid {what} ARN: {arn}. Expected the form {expected}."))
}
