//! `GetShardIterator` and `GetRecords`.

use serde::{Deserialize, Serialize};

use super::super::codec::{Blob, Timestamp};
use super::super::features::{Encryption, encryption_of};
use super::super::puts::rate_exceeded;
use super::super::reader::ShardReader;
use super::super::validate::{Check, SEQUENCE_DIGITS};
use super::super::{Engine, Error, ReadLimits, Record, SequenceNumber, StartPosition, iterator};
use super::{ChildShardOut, require, stream_name};

/// As the service's reference lists them.
const TYPES: [&str; 5] =
    ["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", "TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"];

/// A start position as requests spell it.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    pub(crate) kind: &'a str,
    pub(crate) sequence: Option<&'a str>,
    pub(crate) timestamp: Option<Timestamp>,
}

impl Start<'_> {
    /// Checks its form, before the shard is looked up.
    pub(crate) fn check(&self, kind_field: &str, sequence_field: &str) -> Result<(), Error> {
        let mut check = Check::default();
        check.one_of(self.kind, kind_field, &TYPES);
        if let Some(text) = self.sequence {
            check.number(text, sequence_field, SEQUENCE_DIGITS);
        }
        check.done()
    }

    /// Reads it, for the shard of `reader`.
    pub(crate) fn parse(&self, reader: &ShardReader) -> Result<StartPosition, Error> {
        match self.kind {
            "TRIM_HORIZON" => Ok(StartPosition::TrimHorizon),
            "LATEST" => Ok(StartPosition::Latest),
            // Seen: kinesalite's tests of GetShardIterator, as the words further down.
            "AT_TIMESTAMP" => match self.timestamp {
                Some(at) => Ok(StartPosition::AtTimestamp(at.0)),
                None => Err(Error::InvalidArgument(
                    "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request \
                     has no timestamp parameter."
                        .to_owned(),
                )),
            },
            kind => {
                let number = self.sequence(kind, reader)?;
                let at = kind == "AT_SEQUENCE_NUMBER";
                Ok(if at { StartPosition::AtSequence(number) } else { StartPosition::AfterSequence(number) })
            }
        }
    }

    fn sequence(&self, kind: &str, reader: &ShardReader) -> Result<SequenceNumber, Error> {
        let Some(text) = self.sequence else {
            return Err(mismatch(kind, "no"));
        };
        // Seen: kinesalite's tests of GetShardIterator.
        text.parse().map_err(|_| {
            Error::InvalidArgument(format!(
                "StartingSequenceNumber {text} used in GetShardIterator on shard {} in stream {} under account {} is \
                 invalid.",
                reader.shard_id(),
                reader.stream.name(),
                reader.stream.account_id()
            ))
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct GetShardIteratorRequest {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    shard_id: Option<String>,
    shard_iterator_type: Option<String>,
    starting_sequence_number: Option<String>,
    timestamp: Option<Timestamp>,
    dry_run: Option<bool>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct GetShardIteratorAnswer {
    shard_iterator: String,
}

/// A type that needs a number has none, or one that takes none has one. Seen: kinesalite's tests of GetShardIterator.
fn mismatch(kind: &str, what: &str) -> Error {
    Error::InvalidArgument(format!(
        "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) \
         TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified {kind} and {what} \
         StartingSequenceNumber."
    ))
}

pub(crate) fn get_shard_iterator(
    engine: &Engine,
    request: GetShardIteratorRequest,
) -> Result<GetShardIteratorAnswer, Error> {
    let stream = stream_name(request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    let shard_id = require(request.shard_id, "shardId")?;
    let kind = require(request.shard_iterator_type, "shardIteratorType")?;
    let start = Start {
        kind: &kind,
        sequence: request.starting_sequence_number.as_deref(),
        timestamp: request.timestamp,
    };
    start.check("shardIteratorType", "startingSequenceNumber")?;
    let reader = engine.reader_of_shard(&stream, &shard_id)?;
    if matches!(kind.as_str(), "TRIM_HORIZON" | "LATEST") && start.sequence.is_some() {
        return Err(mismatch(&kind, "also a"));
    }
    let position = reader.position(start.parse(&reader)?)?;
    if request.dry_run == Some(true) {
        return Err(Error::DryRun);
    }
    Ok(GetShardIteratorAnswer { shard_iterator: iterator::issue(&reader, position, engine.now_ms()) })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct GetRecordsRequest {
    shard_iterator: Option<String>,
    limit: Option<i64>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    dry_run: Option<bool>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct GetRecordsAnswer {
    records: Vec<RecordOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_shard_iterator: Option<String>,
    millis_behind_latest: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    child_shards: Option<Vec<ChildShardOut>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RecordOut {
    sequence_number: SequenceNumber,
    approximate_arrival_timestamp: Timestamp,
    data: Blob,
    partition_key: bytestring::ByteString,
    encryption_type: &'static str,
}

impl RecordOut {
    /// Shows a record of a stream that was encrypted for these times.
    pub(crate) fn new(record: Record, encryption: &[Encryption]) -> Self {
        Self {
            encryption_type: encryption_of(encryption, record.arrival_ms),
            sequence_number: record.sequence,
            approximate_arrival_timestamp: Timestamp(record.arrival_ms),
            data: Blob(record.data),
            partition_key: record.partition_key,
        }
    }
}

pub(crate) fn get_records(engine: &Engine, request: GetRecordsRequest) -> Result<GetRecordsAnswer, Error> {
    let token = require(request.shard_iterator, "shardIterator")?;
    let most = match engine.settings().request_limits {
        Some(limits) => ReadLimits { records: limits.get_records, bytes: limits.get_bytes },
        None => ReadLimits { records: usize::MAX, bytes: usize::MAX },
    };
    let most_records = i64::try_from(most.records).unwrap_or(i64::MAX);
    let limit = request.limit.unwrap_or(most_records);
    let mut check = Check::default();
    check.range(limit, "limit", 1, most_records);
    check.done()?;
    let (reader, position) = iterator::redeem(engine, &token)?;
    if let Some(arn) = &request.stream_arn
        && super::super::arn::stream_of_arn(arn)? != reader.stream.name()
    {
        // API_GetRecords: InvalidArgumentException. Words: ours.
        return Err(Error::InvalidArgument(format!(
            "StreamARN {arn} does not match the stream of the ShardIterator, {}.",
            reader.stream.name()
        )));
    }
    if request.dry_run == Some(true) {
        return Err(Error::DryRun);
    }
    let limits = ReadLimits { records: usize::try_from(limit).unwrap_or(most.records), ..most };
    if let Some(rate) = engine.settings().read_limits
        && !reader.shard.admit_read(rate, engine.now_ms())
    {
        return Err(rate_exceeded(&reader.shard_id(), &reader.stream));
    }
    let batch = reader.read(position, limits)?;
    if engine.settings().read_limits.is_some() {
        reader.shard.charge_read(batch.records.iter().map(Record::size).sum());
    }
    let child_shards = batch.end.map(|children| children.iter().map(ChildShardOut::from).collect());
    let next_shard_iterator = match child_shards {
        // Nothing comes after the end of a closed shard.
        Some(_) => None,
        None => Some(iterator::issue(&reader, batch.next, engine.now_ms())),
    };
    let encryption = reader.stream.control().features.encryption.clone();
    Ok(GetRecordsAnswer {
        records: batch.records.into_iter().map(|record| RecordOut::new(record, &encryption)).collect(),
        next_shard_iterator,
        millis_behind_latest: batch.millis_behind_latest,
        child_shards,
    })
}
