//! What a stream can have beside shards: encryption, shard-level metrics and a resource policy. All is kept and shown;
//! nothing is encrypted, measured or allowed by it.

use serde::{Deserialize, Serialize};

use super::super::validate::Check;
use super::super::{Engine, Error};
use super::tags::{Resource, resource};
use super::{require, stream_name};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct EncryptionRequest {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    encryption_type: Option<String>,
    key_id: Option<String>,
}

impl EncryptionRequest {
    fn parse(self) -> Result<(String, String), Error> {
        let stream = stream_name(self.stream_name.as_deref(), self.stream_arn.as_deref())?;
        let kind = require(self.encryption_type, "encryptionType")?;
        let key_id = require(self.key_id, "keyId")?;
        let mut check = Check::default();
        check.one_of(&kind, "encryptionType", &["NONE", "KMS"]);
        check.length(&key_id, "keyId", 1, 2_048);
        check.done()?;
        // API_StartStreamEncryption and API_StopStreamEncryption: the only valid value is KMS;
        // InvalidArgumentException. Words: ours.
        if kind != "KMS" {
            return Err(Error::InvalidArgument(format!(
                "EncryptionType {kind} cannot be used here: the only valid value is KMS."
            )));
        }
        Ok((stream, key_id))
    }
}

pub(crate) fn start_encryption(engine: &Engine, request: EncryptionRequest) -> Result<(), Error> {
    let (stream, key_id) = request.parse()?;
    engine.set_encryption(&stream, Some(&key_id))
}

pub(crate) fn stop_encryption(engine: &Engine, request: EncryptionRequest) -> Result<(), Error> {
    let (stream, _) = request.parse()?;
    engine.set_encryption(&stream, None)
}

/// As the model lists them; `ALL` stands for every one.
const METRICS: [&str; 8] = [
    "IncomingBytes",
    "IncomingRecords",
    "OutgoingBytes",
    "OutgoingRecords",
    "WriteProvisionedThroughputExceeded",
    "ReadProvisionedThroughputExceeded",
    "IteratorAgeMilliseconds",
    "ALL",
];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct MonitoringRequest {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    shard_level_metrics: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct MonitoringAnswer {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    current_shard_level_metrics: Vec<String>,
    desired_shard_level_metrics: Vec<String>,
}

impl MonitoringRequest {
    fn run(self, engine: &Engine, enable: bool) -> Result<MonitoringAnswer, Error> {
        let name = stream_name(self.stream_name.as_deref(), self.stream_arn.as_deref())?;
        let metrics = require(self.shard_level_metrics, "shardLevelMetrics")?;
        let mut check = Check::default();
        if metrics.is_empty() {
            check.violate(&"[]", "shardLevelMetrics", "Member must have length greater than or equal to 1");
        }
        for metric in &metrics {
            check.one_of(metric, "shardLevelMetrics", &METRICS);
        }
        check.done()?;
        let all = || METRICS[..METRICS.len() - 1].iter().map(|name| (*name).to_owned());
        let named: Vec<String> =
            if metrics.iter().any(|name| name == "ALL") { all().collect() } else { metrics };
        let (current, desired) = engine.change_metrics(&name, |metrics| {
            if enable {
                metrics.extend(named);
            } else {
                metrics.retain(|metric| !named.contains(metric));
            }
        })?;
        Ok(MonitoringAnswer {
            stream_arn: engine.describe_stream(&name)?.arn,
            stream_name: name,
            current_shard_level_metrics: current,
            desired_shard_level_metrics: desired,
        })
    }
}

pub(crate) fn enable_monitoring(
    engine: &Engine,
    request: MonitoringRequest,
) -> Result<MonitoringAnswer, Error> {
    request.run(engine, true)
}

pub(crate) fn disable_monitoring(
    engine: &Engine,
    request: MonitoringRequest,
) -> Result<MonitoringAnswer, Error> {
    request.run(engine, false)
}

/// The guide's page on resource policies: at most 20 KB.
const MAX_POLICY_BYTES: usize = 20 << 10;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PolicyRequest {
    #[serde(rename = "ResourceARN")]
    resource_arn: Option<String>,
    policy: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PolicyAnswer {
    policy: String,
}

pub(crate) fn put_policy(engine: &Engine, request: PolicyRequest) -> Result<(), Error> {
    let Resource { stream, consumer, .. } = resource(engine, request.resource_arn)?;
    let policy = require(request.policy, "policy")?;
    // API_PutResourcePolicy: InvalidArgumentException. Words: ours.
    let document: Option<serde_json::Value> = serde_json::from_str(&policy).ok();
    if document.is_none_or(|document| document.get("Statement").is_none()) {
        return Err(Error::InvalidArgument(
            "The policy is not a JSON object with a Statement, which names a principal and what it may do."
                .to_owned(),
        ));
    }
    if policy.len() > MAX_POLICY_BYTES {
        return Err(Error::InvalidArgument(format!(
            "The policy is {} bytes: the maximum is {MAX_POLICY_BYTES}.",
            policy.len()
        )));
    }
    engine.attach(&stream, consumer.as_deref(), |attached| {
        attached.policy = Some(policy);
        Ok(())
    })
}

pub(crate) fn get_policy(engine: &Engine, request: PolicyRequest) -> Result<PolicyAnswer, Error> {
    let Resource { stream, consumer, .. } = resource(engine, request.resource_arn)?;
    let stream = engine.stream(&stream)?;
    let policy = match consumer {
        Some(name) => stream.consumer(&name)?.attached().policy.clone(),
        None => stream.control().features.policy.clone(),
    };
    // As clients see it from the service where nothing is attached.
    Ok(PolicyAnswer { policy: policy.unwrap_or_else(|| "{}".to_owned()) })
}

pub(crate) fn delete_policy(engine: &Engine, request: PolicyRequest) -> Result<(), Error> {
    let Resource { stream, consumer, arn } = resource(engine, request.resource_arn)?;
    engine.attach(&stream, consumer.as_deref(), |attached| {
        // API_DeleteResourcePolicy: ResourceNotFoundException. Words: ours.
        let none = || Error::ResourceNotFound(format!("No resource policy found for resource ARN {arn}."));
        attached.policy.take().map(drop).ok_or_else(none)
    })
}
