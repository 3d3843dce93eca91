//! `UpdateStreamMode`, `UpdateMaxRecordSize`, `UpdateStreamWarmThroughput`, and the account's settings, which unlock
//! the last.

use serde::{Deserialize, Serialize};

use super::super::account::Commitment;
use super::super::codec::Timestamp;
use super::super::validate::Check;
use super::super::{Engine, Error, StreamMode, arn};
use super::streams::{ModeDetails, Nothing, WarmThroughput};
use super::{require, stream_name};

/// API_UpdateStreamWarmThroughput: no more than 10 GiB/s.
const MAX_WARM_MIBPS: i64 = 10_240;

/// Checks a warm throughput.
pub(crate) fn warm_mibps(value: Option<i64>) -> Result<Option<u32>, Error> {
    let mut check = Check::default();
    if let Some(value) = value {
        check.range(value, "warmThroughputMiBps", 1, MAX_WARM_MIBPS);
    }
    check.done()?;
    Ok(value.and_then(|value| u32::try_from(value).ok()))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ModeRequest {
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    stream_mode_details: Option<ModeDetails>,
    #[serde(rename = "WarmThroughputMiBps")]
    warm_mibps: Option<i64>,
}

pub(crate) fn update_mode(engine: &Engine, request: ModeRequest) -> Result<(), Error> {
    let stream_arn = require(request.stream_arn, "streamARN")?;
    let details = require(request.stream_mode_details, "streamModeDetails")?;
    let mode = details.parse()?;
    let warm = warm_mibps(request.warm_mibps)?;
    // API_UpdateStreamMode: only towards on-demand; InvalidArgumentException. Words: ours.
    if warm.is_some() && mode != StreamMode::OnDemand {
        return Err(Error::InvalidArgument(
            "WarmThroughputMiBps is only valid when the stream mode is being updated to on-demand."
                .to_owned(),
        ));
    }
    engine.set_stream_mode(arn::stream_of_arn(&stream_arn)?, mode, warm)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RecordSizeRequest {
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    #[serde(rename = "MaxRecordSizeInKiB")]
    max_record_size_in_kib: Option<i64>,
}

pub(crate) fn update_record_size(engine: &Engine, request: RecordSizeRequest) -> Result<(), Error> {
    let stream_arn = require(request.stream_arn, "streamARN")?;
    let kib = require(request.max_record_size_in_kib, "maxRecordSizeInKiB")?;
    let mut check = Check::default();
    // API_UpdateMaxRecordSize: 1,024 to 10,240, else ValidationException.
    check.range(kib, "maxRecordSizeInKiB", 1_024, 10_240);
    check.done()?;
    engine.set_max_record_kib(arn::stream_of_arn(&stream_arn)?, u32::try_from(kib).unwrap_or(1_024))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct WarmRequest {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    #[serde(rename = "WarmThroughputMiBps")]
    warm_mibps: Option<i64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct WarmAnswer {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    warm_throughput: WarmThroughput,
}

pub(crate) fn update_warm_throughput(engine: &Engine, request: WarmRequest) -> Result<WarmAnswer, Error> {
    let name = stream_name(request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    let mibps = require(warm_mibps(request.warm_mibps)?, "warmThroughputMiBps")?;
    engine.set_warm_throughput(&name, mibps)?;
    let stream = engine.describe_stream(&name)?;
    Ok(WarmAnswer {
        warm_throughput: WarmThroughput::of(&stream).unwrap_or_default(),
        stream_name: stream.name,
        stream_arn: stream.arn,
    })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AccountRequest {
    minimum_throughput_billing_commitment: Option<CommitmentIn>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CommitmentIn {
    status: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AccountAnswer {
    minimum_throughput_billing_commitment: CommitmentOut,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct CommitmentOut {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    earliest_allowed_end_at: Option<Timestamp>,
}

pub(crate) fn describe_account(engine: &Engine, _: Nothing) -> Result<AccountAnswer, Error> {
    let now_ms = engine.now_ms();
    let held: Option<Commitment> = engine.commitment();
    Ok(AccountAnswer {
        minimum_throughput_billing_commitment: CommitmentOut {
            status: held.map_or("DISABLED", |held| held.status(now_ms)),
            started_at: held.map(|held| Timestamp(held.started_ms)),
            ended_at: held.and_then(|held| held.ended_ms.map(|at| Timestamp(at.max(held.earliest_end_ms())))),
            earliest_allowed_end_at: held.map(|held| Timestamp(held.earliest_end_ms())),
        },
    })
}

pub(crate) fn update_account(engine: &Engine, request: AccountRequest) -> Result<AccountAnswer, Error> {
    let commitment =
        require(request.minimum_throughput_billing_commitment, "minimumThroughputBillingCommitment")?;
    let status = require(commitment.status, "minimumThroughputBillingCommitment.status")?;
    let mut check = Check::default();
    check.one_of(&status, "minimumThroughputBillingCommitment.status", &["ENABLED", "DISABLED"]);
    check.done()?;
    engine.commit(status == "ENABLED")?;
    describe_account(engine, Nothing {})
}
