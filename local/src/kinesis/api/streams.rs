//! Creating, deleting, describing and listing streams, and their retention.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::codec::Timestamp;
use super::super::record::parse_shard_id;
use super::super::validate::Check;
use super::super::{CreateStream, Engine, Error, StreamMode, StreamStatus, StreamSummary};
use super::shards::{ShardOut, shard_number};
use super::{capacity, require, stream_name, tags};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct StreamRequest {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ModeDetails {
    stream_mode: String,
}

impl ModeDetails {
    pub(crate) fn parse(&self) -> Result<StreamMode, Error> {
        let mut check = Check::default();
        check.one_of(&self.stream_mode, "streamModeDetails.streamMode", &["PROVISIONED", "ON_DEMAND"]);
        check.done()?;
        Ok(if self.stream_mode == "ON_DEMAND" { StreamMode::OnDemand } else { StreamMode::Provisioned })
    }
}

/// What an on-demand stream takes at once, as descriptions show it.
#[derive(Debug, Default, Serialize)]
pub(crate) struct WarmThroughput {
    #[serde(rename = "TargetMiBps")]
    target_mibps: u32,
    #[serde(rename = "CurrentMiBps")]
    current_mibps: usize,
}

impl WarmThroughput {
    pub(crate) fn of(stream: &StreamSummary) -> Option<Self> {
        // Each shard takes 1 MiB/s.
        stream.warm_mibps.map(|target_mibps| Self { target_mibps, current_mibps: stream.open_shards })
    }
}

impl From<StreamMode> for ModeDetails {
    fn from(mode: StreamMode) -> Self {
        Self { stream_mode: mode.as_str().to_owned() }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CreateRequest {
    stream_name: Option<String>,
    shard_count: Option<i64>,
    stream_mode_details: Option<ModeDetails>,
    tags: Option<BTreeMap<String, String>>,
    #[serde(rename = "MaxRecordSizeInKiB")]
    max_record_size_in_kib: Option<i64>,
    #[serde(rename = "WarmThroughputMiBps")]
    warm_mibps: Option<i64>,
    record_distribution_strategy: Option<String>,
}

pub(crate) fn create(engine: &Engine, request: CreateRequest) -> Result<(), Error> {
    let name = require(request.stream_name, "streamName")?;
    let mut check = Check::default();
    check.name(&name, "streamName");
    if let Some(count) = request.shard_count {
        check.range(count, "shardCount", 1, 100_000);
    }
    if let Some(kib) = request.max_record_size_in_kib {
        check.range(kib, "maxRecordSizeInKiB", 1_024, 10_240);
    }
    if let Some(strategy) = &request.record_distribution_strategy {
        check.one_of(strategy, "recordDistributionStrategy", &["AUTO", "USER_PARTITION_KEY"]);
    }
    check.done()?;
    // Words: ours; the service has it for on-demand streams.
    if request.record_distribution_strategy.as_deref() == Some("AUTO") {
        return Err(Error::InvalidArgument(
            "This Kinesis has no RecordDistributionStrategy AUTO: leave it out, or set USER_PARTITION_KEY."
                .to_owned(),
        ));
    }
    let mode = request.stream_mode_details.map_or(Ok(StreamMode::Provisioned), |details| details.parse())?;
    let shards = match (mode, request.shard_count) {
        // API_StreamModeDetails and API_CreateStream: shards are counted of provisioned streams only;
        // ValidationException. Words: ours.
        (StreamMode::OnDemand, Some(_)) => {
            return Err(Error::Validation(format!(
                "ShardCount must not be set for stream {name} in ON_DEMAND mode: the service chooses it."
            )));
        }
        (StreamMode::OnDemand, None) => 0,
        (StreamMode::Provisioned, count) => u32::try_from(require(count, "shardCount")?).unwrap_or(1),
    };
    if let Some(tags) = &request.tags {
        tags::check(&format!("stream {name}"), engine, tags, tags.len())?;
    }
    let tags = request.tags.unwrap_or_default();
    let max_record_kib = request.max_record_size_in_kib.and_then(|kib| u32::try_from(kib).ok());
    let warm_mibps = capacity::warm_mibps(request.warm_mibps)?;
    if warm_mibps.is_some() {
        engine.require_commitment()?;
        // API_CreateStream: of on-demand streams only; ValidationException. Words: ours.
        if mode == StreamMode::Provisioned {
            return Err(Error::Validation(format!(
                "WarmThroughputMiBps must not be set for stream {name} in PROVISIONED mode: set ShardCount."
            )));
        }
    }
    engine.create_stream(CreateStream { name, shards, mode, tags, max_record_kib, warm_mibps })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DeleteRequest {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    enforce_consumer_deletion: Option<bool>,
}

pub(crate) fn delete(engine: &Engine, request: DeleteRequest) -> Result<(), Error> {
    let stream = stream_name(request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    engine.delete_stream(&stream, request.enforce_consumer_deletion.unwrap_or(false))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SummaryAnswer {
    stream_description_summary: Summary,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Summary {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_status: &'static str,
    stream_mode_details: ModeDetails,
    retention_period_hours: i64,
    stream_creation_timestamp: Timestamp,
    enhanced_monitoring: [Monitoring; 1],
    encryption_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warm_throughput: Option<WarmThroughput>,
    open_shard_count: usize,
    consumer_count: usize,
    #[serde(rename = "MaxRecordSizeInKiB")]
    max_record_size_in_kib: u32,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Monitoring {
    shard_level_metrics: Vec<String>,
}

/// As on the wire.
pub(crate) fn encryption_type(is_encrypted: bool) -> &'static str {
    if is_encrypted { "KMS" } else { "NONE" }
}

pub(crate) fn describe_summary(engine: &Engine, request: StreamRequest) -> Result<SummaryAnswer, Error> {
    let name = stream_name(request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    let stream = engine.describe_stream(&name)?;
    Ok(SummaryAnswer {
        stream_description_summary: Summary {
            stream_status: stream.status.as_str(),
            stream_mode_details: stream.mode.into(),
            retention_period_hours: stream.retention_hours,
            stream_creation_timestamp: Timestamp(stream.created_ms),
            warm_throughput: WarmThroughput::of(&stream),
            enhanced_monitoring: [Monitoring { shard_level_metrics: stream.metrics }],
            encryption_type: encryption_type(stream.key_id.is_some()),
            key_id: stream.key_id,
            open_shard_count: stream.open_shards,
            consumer_count: stream.consumers,
            max_record_size_in_kib: stream.max_record_kib,
            stream_name: stream.name,
            stream_arn: stream.arn,
        },
    })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DescribeRequest {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    limit: Option<i64>,
    exclusive_start_shard_id: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DescribeAnswer {
    stream_description: Description,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Description {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_status: &'static str,
    stream_mode_details: ModeDetails,
    shards: Vec<ShardOut>,
    has_more_shards: bool,
    retention_period_hours: i64,
    stream_creation_timestamp: Timestamp,
    enhanced_monitoring: [Monitoring; 1],
    encryption_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
}

pub(crate) fn describe(engine: &Engine, request: DescribeRequest) -> Result<DescribeAnswer, Error> {
    let name = stream_name(request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    let limit = request.limit.unwrap_or(100);
    let mut check = Check::default();
    check.range(limit, "limit", 1, 10_000);
    check.done()?;
    let after = shard_number(request.exclusive_start_shard_id.as_deref(), "exclusiveStartShardId")?;
    let stream = engine.describe_stream(&name)?;
    // Seen: kinesalite's tests of CreateStream: no shard is shown before the stream is ACTIVE.
    let mut shards =
        if stream.status == StreamStatus::Creating { Vec::new() } else { engine.shards(&name)? };
    shards.retain(|shard| after.is_none_or(|after| parse_shard_id(&shard.shard_id) > Some(after)));
    let limit = usize::try_from(limit).unwrap_or(100);
    Ok(DescribeAnswer {
        stream_description: Description {
            stream_status: stream.status.as_str(),
            stream_mode_details: stream.mode.into(),
            has_more_shards: shards.len() > limit,
            shards: shards.into_iter().take(limit).map(ShardOut::from).collect(),
            retention_period_hours: stream.retention_hours,
            stream_creation_timestamp: Timestamp(stream.created_ms),
            enhanced_monitoring: [Monitoring { shard_level_metrics: stream.metrics }],
            encryption_type: encryption_type(stream.key_id.is_some()),
            key_id: stream.key_id,
            stream_name: stream.name,
            stream_arn: stream.arn,
        },
    })
}

#[derive(Debug, Deserialize)]
pub(crate) struct Nothing {}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct LimitsAnswer {
    shard_limit: u32,
    open_shard_count: usize,
    on_demand_stream_count: usize,
    on_demand_stream_count_limit: usize,
}

pub(crate) fn describe_limits(engine: &Engine, _: Nothing) -> Result<LimitsAnswer, Error> {
    let streams = engine.list_streams();
    Ok(LimitsAnswer {
        shard_limit: engine.settings().shard_limit,
        open_shard_count: streams.iter().map(|stream| stream.open_shards).sum(),
        on_demand_stream_count: streams.iter().filter(|stream| stream.mode == StreamMode::OnDemand).count(),
        on_demand_stream_count_limit: engine.settings().on_demand_stream_limit,
    })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListRequest {
    limit: Option<i64>,
    exclusive_start_stream_name: Option<String>,
    next_token: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListAnswer {
    stream_names: Vec<String>,
    has_more_streams: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
    stream_summaries: Vec<ListedStream>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ListedStream {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_status: &'static str,
    stream_mode_details: ModeDetails,
    stream_creation_timestamp: Timestamp,
}

impl From<StreamSummary> for ListedStream {
    fn from(stream: StreamSummary) -> Self {
        Self {
            stream_name: stream.name,
            stream_arn: stream.arn,
            stream_status: stream.status.as_str(),
            stream_mode_details: stream.mode.into(),
            stream_creation_timestamp: Timestamp(stream.created_ms),
        }
    }
}

pub(crate) fn list(engine: &Engine, request: ListRequest) -> Result<ListAnswer, Error> {
    let limit = request.limit.unwrap_or(100);
    let mut check = Check::default();
    check.range(limit, "limit", 1, 10_000);
    check.done()?;
    // The token is the last name of the page before, as for ExclusiveStartStreamName.
    let after = request.next_token.or(request.exclusive_start_stream_name);
    let mut streams = engine.list_streams();
    streams.retain(|stream| after.as_ref().is_none_or(|after| stream.name > *after));
    let limit = usize::try_from(limit).unwrap_or(100);
    let has_more_streams = streams.len() > limit;
    streams.truncate(limit);
    let stream_names: Vec<_> = streams.iter().map(|stream| stream.name.clone()).collect();
    Ok(ListAnswer {
        next_token: stream_names.last().filter(|_| has_more_streams).cloned(),
        stream_names,
        has_more_streams,
        stream_summaries: streams.into_iter().map(ListedStream::from).collect(),
    })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RetentionRequest {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    retention_period_hours: Option<i64>,
}

impl RetentionRequest {
    fn parse(self, engine: &Engine) -> Result<(StreamSummary, i64), Error> {
        let name = stream_name(self.stream_name.as_deref(), self.stream_arn.as_deref())?;
        let hours = require(self.retention_period_hours, "retentionPeriodHours")?;
        // Seen: kinesalite's tests of IncreaseStreamRetentionPeriod; the maximum in its words.
        if hours < 24 {
            return Err(Error::InvalidArgument(format!(
                "Minimum allowed retention period is 24 hours. Requested retention period ({hours} hours) is too \
                 short."
            )));
        }
        if hours > 8_760 {
            return Err(Error::InvalidArgument(format!(
                "Maximum allowed retention period is 8760 hours. Requested retention period ({hours} hours) is too \
                 long."
            )));
        }
        Ok((engine.describe_stream(&name)?, hours))
    }
}

pub(crate) fn increase_retention(engine: &Engine, request: RetentionRequest) -> Result<(), Error> {
    let (stream, hours) = request.parse(engine)?;
    // Seen: kinesalite's tests of both operations.
    if hours < stream.retention_hours {
        return Err(Error::InvalidArgument(format!(
            "Requested retention period ({hours} hours) for stream {} can not be shorter than existing retention \
             period ({} hours). Use DecreaseRetentionPeriod API.",
            stream.name, stream.retention_hours
        )));
    }
    engine.set_retention_hours(&stream.name, hours)
}

pub(crate) fn decrease_retention(engine: &Engine, request: RetentionRequest) -> Result<(), Error> {
    let (stream, hours) = request.parse(engine)?;
    // Seen: kinesalite's tests of DecreaseStreamRetentionPeriod.
    if hours > stream.retention_hours {
        return Err(Error::InvalidArgument(format!(
            "Requested retention period ({hours} hours) for stream {} can not be longer than existing retention \
             period ({} hours). Use IncreaseRetentionPeriod API.",
            stream.name, stream.retention_hours
        )));
    }
    engine.set_retention_hours(&stream.name, hours)
}
