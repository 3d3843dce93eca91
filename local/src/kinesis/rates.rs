//! How often operations may be called. The rates are those that the API reference states on the page of each
//! operation, and the comments of `aws-sdk-kinesis` 1.130 with it; where it states none (the retention periods, tags
//! of resources) there is none here. So are the exceptions; the words of the messages are
//! not documented.

use std::collections::HashMap;
use std::sync::Mutex;

use super::codec::Codec;
use super::engine::Engine;
use super::error::Error;
use super::puts::rate_exceeded;
use super::sync::lock;
use super::target;

/// What a rate is counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Per {
    Account,
    Stream,
    Shard,
}

/// Calls per second.
fn rate(operation: &str) -> Option<(u32, Per)> {
    Some(match operation {
        "DescribeLimits" => (1, Per::Account),
        "CreateStream"
        | "DeleteStream"
        | "ListStreams"
        | "SplitShard"
        | "MergeShards"
        | "RegisterStreamConsumer"
        | "AddTagsToStream"
        | "RemoveTagsFromStream"
        | "ListTagsForStream"
        | "UpdateStreamWarmThroughput"
        | "UpdateAccountSettings"
        | "DescribeAccountSettings" => (5, Per::Account),
        "UpdateShardCount" => (10, Per::Account),
        "DescribeStream" => (10, Per::Account),
        "DescribeStreamSummary" => (20, Per::Account),
        "ListStreamConsumers" | "DeregisterStreamConsumer" => (5, Per::Stream),
        "DescribeStreamConsumer" => (20, Per::Stream),
        "ListShards" => (1_000, Per::Stream),
        "GetShardIterator" => (5, Per::Shard),
        _ => return None,
    })
}

/// Counted things are forgotten beyond this many, once their second is over.
const KEPT: usize = 10_000;
const SECOND_MS: i64 = 1_000;

/// The calls of the last second.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<HashMap<(String, String), Window>>);

#[derive(Debug)]
struct Window {
    since_ms: i64,
    calls: u32,
}

impl Rates {
    /// Counts a call, or refuses it.
    pub(crate) fn admit(
        &self,
        engine: &Engine,
        operation: &str,
        codec: Codec,
        body: &[u8],
    ) -> Result<(), Error> {
        let Some((most, per)) = rate(operation) else { return Ok(()) };
        let (stream, shard) = match per {
            Per::Account => (None, None),
            Per::Stream | Per::Shard => {
                let target = target::of(engine, operation, codec, body);
                (target.resource, target.shards.into_iter().next())
            }
        };
        // A call that does not say whom it concerns is refused by the operation itself.
        let scope = match (per, &stream, &shard) {
            (Per::Account, ..) => String::new(),
            (Per::Stream, Some(stream), _) => stream.clone(),
            (Per::Shard, Some(stream), Some(shard)) => format!("{stream}/{shard}"),
            _ => return Ok(()),
        };
        if self.count((operation.to_owned(), scope), most, engine.now_ms()) {
            return Ok(());
        }
        // Each operation's page: its rate, and LimitExceededException. Words: ours.
        Err(match (per, &stream, &shard) {
            (Per::Shard, Some(stream), Some(shard)) => rate_exceeded(shard, &*engine.stream(stream)?),
            (_, Some(stream), _) => Error::LimitExceeded(format!(
                "Rate exceeded for {operation} on stream {stream} under account {}: at most {most} calls a second.",
                engine.settings().account_id
            )),
            _ => Error::LimitExceeded(format!(
                "Rate exceeded for {operation} under account {}: at most {most} calls a second.",
                engine.settings().account_id
            )),
        })
    }

    fn count(&self, what: (String, String), most: u32, now_ms: i64) -> bool {
        let mut windows = lock(&self.0);
        if windows.len() >= KEPT {
            windows.retain(|_, window| now_ms.saturating_sub(window.since_ms) < SECOND_MS);
        }
        let window = windows.entry(what).or_insert(Window { since_ms: now_ms, calls: 0 });
        if now_ms.saturating_sub(window.since_ms) >= SECOND_MS {
            *window = Window { since_ms: now_ms, calls: 0 };
        }
        if window.calls >= most {
            return false;
        }
        window.calls += 1;
        true
    }
}
