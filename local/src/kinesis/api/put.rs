//! `PutRecord` and `PutRecords`.

use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use super::super::codec::Blob;
use super::super::hash::parse_hash;
use super::super::record::PutEntry;
use super::super::validate::{Check, HASH_DIGITS, SEQUENCE_DIGITS, is_number};
use super::super::{Engine, Error, SequenceNumber};
use super::put_answer::PutRecordsAnswer;
use super::streams::encryption_type;
use super::{require, stream_name};

/// The largest record that any stream takes.
const MAX_RECORD_BYTES: usize = 10 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PutRecordRequest {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    data: Option<Blob>,
    partition_key: Option<ByteString>,
    explicit_hash_key: Option<String>,
    sequence_number_for_ordering: Option<String>,
    dry_run: Option<bool>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PutRecordAnswer {
    shard_id: String,
    sequence_number: SequenceNumber,
    encryption_type: &'static str,
}

pub(crate) fn put_record(engine: &Engine, request: PutRecordRequest) -> Result<PutRecordAnswer, Error> {
    let stream = stream_name(request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    let item = Item {
        data: request.data,
        partition_key: request.partition_key,
        explicit_hash_key: request.explicit_hash_key,
    };
    let mut check = Check::default();
    item.check(&mut check, "");
    // Nothing else follows from it: the numbers of a shard grow with every put.
    if let Some(number) = &request.sequence_number_for_ordering {
        check.number(number, "sequenceNumberForOrdering", SEQUENCE_DIGITS);
    }
    check.done()?;
    if let Some(number) = &request.sequence_number_for_ordering
        && number.parse::<SequenceNumber>().is_err()
    {
        // Seen: kinesalite's action of PutRecord.
        return Err(Error::InvalidArgument(format!(
            "ExclusiveMinimumSequenceNumber {number} used in PutRecord on stream {stream} under account {} is invalid.",
            engine.settings().account_id
        )));
    }
    let entry = item.into_entry()?;
    if request.dry_run == Some(true) {
        engine.admit(&stream, std::slice::from_ref(&entry))?;
        return Err(Error::DryRun);
    }
    let put = engine.put(&stream, entry)?;
    Ok(PutRecordAnswer {
        shard_id: put.shard_id(),
        sequence_number: put.sequence,
        encryption_type: encryption_type(engine.is_encrypted(&stream)),
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PutRecordsRequest {
    pub(crate) stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    pub(crate) stream_arn: Option<String>,
    pub(crate) records: Option<Vec<Item>>,
    pub(crate) dry_run: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Item {
    pub(crate) data: Option<Blob>,
    pub(crate) partition_key: Option<ByteString>,
    pub(crate) explicit_hash_key: Option<String>,
}

pub(crate) fn put_records(engine: &Engine, request: PutRecordsRequest) -> Result<PutRecordsAnswer, Error> {
    let stream = stream_name(request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    let items = require(request.records, "records")?;
    let limits = engine.settings().request_limits;
    let mut check = Check::default();
    if items.is_empty() {
        check.violate(&"[]", "records", "Member must have length greater than or equal to 1");
    } else if let Some(most) = limits.map(|limits| limits.put_records)
        && items.len() > most
    {
        let found = format!("{} records", items.len());
        let constraint = format!("Member must have length less than or equal to {most}");
        check.violate(&found, "records", &constraint);
    }
    for (at, item) in items.iter().enumerate() {
        if item.is_plain() {
            continue;
        }
        item.check(&mut check, &format!("records.{}.member.", at + 1));
    }
    check.done()?;
    let entries = items.into_iter().map(Item::into_entry).collect::<Result<Vec<_>, _>>()?;
    let total: usize = entries.iter().map(PutEntry::size).sum();
    // API_PutRecords: the limit of a request; InvalidArgumentException. Words: ours behind the service's first ones.
    if let Some(most) = limits.map(|limits| limits.put_bytes)
        && total > most
    {
        return Err(Error::InvalidArgument(format!(
            "Records size exceeds {} MB limit: the request is {total} bytes with its partition keys, the limit {most}; \
             send fewer records in one call.",
            most >> 20
        )));
    }
    if request.dry_run == Some(true) {
        engine.admit(&stream, &entries)?;
        return Err(Error::DryRun);
    }
    Ok(PutRecordsAnswer {
        records: engine.put_batch(&stream, entries)?,
        encryption_type: encryption_type(engine.is_encrypted(&stream)),
    })
}

impl Item {
    /// Whether nothing can be wrong with it: spares formatting a field name for each of 500 good records.
    fn is_plain(&self) -> bool {
        let key_fits = self.partition_key.as_ref().is_some_and(|key| (1..=256).contains(&key.len()));
        let data_fits = self.data.as_ref().is_some_and(|data| data.0.len() <= MAX_RECORD_BYTES);
        let hash_fits = self.explicit_hash_key.as_ref().is_none_or(|hash| is_number(hash, HASH_DIGITS));
        key_fits && data_fits && hash_fits
    }

    fn check(&self, check: &mut Check, prefix: &str) {
        let field = |name: &str| format!("{prefix}{name}");
        check.required(self.data.as_ref(), &field("data"));
        check.required(self.partition_key.as_ref(), &field("partitionKey"));
        if let Some(key) = &self.partition_key {
            check.length(key, &field("partitionKey"), 1, 256);
        }
        if let Some(hash) = &self.explicit_hash_key {
            check.number(hash, &field("explicitHashKey"), HASH_DIGITS);
        }
        if let Some(data) = &self.data
            && data.0.len() > MAX_RECORD_BYTES
        {
            let found = format!("{} bytes", data.0.len());
            let constraint = format!("Member must have length less than or equal to {MAX_RECORD_BYTES}");
            check.violate(&found, &field("data"), &constraint);
        }
    }

    fn into_entry(self) -> Result<PutEntry, Error> {
        let explicit_hash_key = match self.explicit_hash_key {
            None => None,
            // Seen: kinesalite's tests of PutRecord and PutRecords.
            Some(text) => Some(parse_hash(&text).ok_or_else(|| {
                Error::InvalidArgument(format!(
                    "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value \
                     was {text}"
                ))
            })?),
        };
        Ok(PutEntry {
            partition_key: self.partition_key.unwrap_or_default(),
            explicit_hash_key,
            data: self.data.unwrap_or_default().0,
        })
    }
}
