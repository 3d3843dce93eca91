//! `ListShards`, and shards as descriptions show them.

use serde::{Deserialize, Serialize};

use super::super::codec::Timestamp;
use super::super::record::parse_shard_id;
use super::super::settings::millis;
use super::super::validate::Check;
use super::super::{Engine, Error, SequenceNumber, ShardInfo, token};
use super::{HashKeyRange, require, stream_name};

const KIND: u8 = b'S';
const FILTERS: [&str; 6] =
    ["AFTER_SHARD_ID", "AT_TRIM_HORIZON", "FROM_TRIM_HORIZON", "AT_LATEST", "AT_TIMESTAMP", "FROM_TIMESTAMP"];

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ShardOut {
    shard_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_shard_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adjacent_parent_shard_id: Option<String>,
    hash_key_range: HashKeyRange,
    sequence_number_range: SequenceNumberRange,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SequenceNumberRange {
    starting_sequence_number: SequenceNumber,
    #[serde(skip_serializing_if = "Option::is_none")]
    ending_sequence_number: Option<SequenceNumber>,
}

impl From<ShardInfo> for ShardOut {
    fn from(shard: ShardInfo) -> Self {
        Self {
            shard_id: shard.shard_id,
            parent_shard_id: shard.parent,
            adjacent_parent_shard_id: shard.adjacent_parent,
            hash_key_range: shard.range.into(),
            sequence_number_range: SequenceNumberRange {
                starting_sequence_number: shard.starting_sequence,
                ending_sequence_number: shard.ending_sequence,
            },
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListShardsRequest {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    next_token: Option<String>,
    exclusive_start_shard_id: Option<String>,
    max_results: Option<i64>,
    stream_creation_timestamp: Option<Timestamp>,
    shard_filter: Option<FilterIn>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct FilterIn {
    r#type: Option<String>,
    shard_id: Option<String>,
    timestamp: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListShardsAnswer {
    shards: Vec<ShardOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

/// Which shards to list.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Filter {
    All,
    Open,
    OpenAt(i64),
    EndingFrom(i64),
}

impl Filter {
    fn admits(self, shard: &ShardInfo) -> bool {
        match self {
            Self::All => true,
            Self::Open => shard.closed_ms.is_none(),
            Self::OpenAt(ms) => shard.created_ms <= ms && shard.closed_ms.is_none_or(|closed| closed >= ms),
            Self::EndingFrom(ms) => shard.closed_ms.is_none_or(|closed| closed >= ms),
        }
    }
}

/// A listing that is under way; its filter is resolved once, so that all pages agree on it.
#[derive(Debug, Serialize, Deserialize)]
struct Page {
    stream: String,
    created_ms: i64,
    filter: Filter,
    after: Option<u32>,
    issued_ms: i64,
}

pub(crate) fn list_shards(engine: &Engine, request: ListShardsRequest) -> Result<ListShardsAnswer, Error> {
    let mut check = Check::default();
    let max = request.max_results.unwrap_or(1_000);
    check.range(max, "maxResults", 1, 10_000);
    check.done()?;
    let mut page = match &request.next_token {
        Some(text) => resume(engine, &request, text)?,
        None => begin(engine, request)?,
    };
    let stream = engine.stream(&page.stream)?;
    stream.require_listable(engine.now_ms())?;
    if stream.created_ms() != page.created_ms {
        return Err(stream.not_found());
    }
    let listed: Vec<_> = engine
        .shards(&page.stream)?
        .into_iter()
        .filter(|shard| page.after.is_none_or(|after| parse_shard_id(&shard.shard_id) > Some(after)))
        .filter(|shard| page.filter.admits(shard))
        .collect();
    let count = usize::try_from(max).unwrap_or(1_000).min(1_000);
    let more = listed.len() > count;
    let shards: Vec<_> = listed.into_iter().take(count).collect();
    page.after = shards.last().and_then(|shard| parse_shard_id(&shard.shard_id));
    page.issued_ms = engine.now_ms();
    Ok(ListShardsAnswer {
        next_token: more.then(|| token::seal(KIND, &page)),
        shards: shards.into_iter().map(ShardOut::from).collect(),
    })
}

fn begin(engine: &Engine, request: ListShardsRequest) -> Result<Page, Error> {
    let name = stream_name(request.stream_name.as_deref(), request.stream_arn.as_deref())?;
    let stream = engine.stream(&name)?;
    if let Some(at) = request.stream_creation_timestamp {
        stream.require_created(at)?;
    }
    let now_ms = engine.now_ms();
    let mut after = shard_number(request.exclusive_start_shard_id.as_deref(), "exclusiveStartShardId")?;
    // A stream younger than its retention is trimmed at its creation.
    let trim_horizon_ms = stream.horizon(now_ms).max(stream.created_ms());
    let filter = match request.shard_filter {
        None => Filter::All,
        Some(filter) => {
            let kind = require(filter.r#type, "shardFilter.type")?;
            let mut check = Check::default();
            check.one_of(&kind, "shardFilter.type", &FILTERS);
            check.done()?;
            // API_ShardFilter: required by these types; InvalidArgumentException. Words: ours.
            let timestamp = || {
                filter.timestamp.map(|at| at.0).ok_or_else(|| {
                    Error::InvalidArgument(format!(
                        "A Timestamp must be specified for a ShardFilter of type {kind}."
                    ))
                })
            };
            match kind.as_str() {
                "AFTER_SHARD_ID" => {
                    let shard_id = filter.shard_id.as_deref().ok_or_else(|| {
                        Error::InvalidArgument(
                            "A ShardId must be specified for a ShardFilter of type AFTER_SHARD_ID."
                                .to_owned(),
                        )
                    })?;
                    after = after.max(shard_number(Some(shard_id), "shardFilter.shardId")?);
                    Filter::All
                }
                "AT_TRIM_HORIZON" => Filter::OpenAt(trim_horizon_ms),
                "AT_LATEST" => Filter::Open,
                "AT_TIMESTAMP" => Filter::OpenAt(timestamp()?.max(trim_horizon_ms)),
                "FROM_TIMESTAMP" => Filter::EndingFrom(timestamp()?),
                _ => Filter::All,
            }
        }
    };
    Ok(Page { stream: name, created_ms: stream.created_ms(), filter, after, issued_ms: now_ms })
}

fn resume(engine: &Engine, request: &ListShardsRequest, text: &str) -> Result<Page, Error> {
    if request.stream_name.is_some()
        || request.exclusive_start_shard_id.is_some()
        || request.stream_creation_timestamp.is_some()
    {
        // API_ListShards: none of them beside NextToken. Seen: kinesalite's tests of ListShards.
        return Err(Error::InvalidArgument(
            "NextToken and StreamName cannot be provided together.".to_owned(),
        ));
    }
    // API_ListShards: InvalidArgumentException, and ExpiredNextTokenException after 300 seconds. Words: ours.
    let page: Page =
        token::open(KIND, text).ok_or_else(|| Error::InvalidArgument("NextToken is invalid.".to_owned()))?;
    if engine.now_ms().saturating_sub(page.issued_ms) > millis(engine.settings().token_lifetime) {
        return Err(Error::ExpiredNextToken("The NextToken has expired; list from the start.".to_owned()));
    }
    Ok(page)
}

pub(crate) fn shard_number(id: Option<&str>, field: &str) -> Result<Option<u32>, Error> {
    let Some(id) = id else { return Ok(None) };
    match parse_shard_id(id) {
        Some(number) => Ok(Some(number)),
        // API_ListShards: InvalidArgumentException. Words: ours.
        None => Err(Error::InvalidArgument(format!(
            "{field} {id} is not the name of a shard: shardId-000000000000."
        ))),
    }
}
