//! Shard iterators: a place in a shard, with the time at which it was handed out.

use serde::{Deserialize, Serialize};

use super::engine::Engine;
use super::error::Error;
use super::reader::{Position, ShardReader};
use super::settings::millis;
use super::token;

const KIND: u8 = b'I';

#[derive(Debug, Serialize, Deserialize)]
struct Iterator {
    stream: String,
    /// Distinguishes a stream from an earlier one of the same name.
    created_ms: i64,
    shard: String,
    next: u64,
    issued_ms: i64,
}

/// Hands out an iterator.
pub(crate) fn issue(reader: &ShardReader, position: Position, now_ms: i64) -> String {
    let iterator = Iterator {
        stream: reader.stream.name().to_owned(),
        created_ms: reader.stream.created_ms(),
        shard: reader.shard_id(),
        next: position.0,
        issued_ms: now_ms,
    };
    token::seal(KIND, &iterator)
}

/// The stream and the shard of an iterator, expired or not.
pub(crate) fn peek(text: &str) -> Option<(String, String)> {
    let iterator: Iterator = token::open(KIND, text)?;
    Some((iterator.stream, iterator.shard))
}

/// Takes an iterator back.
pub(crate) fn redeem(engine: &Engine, text: &str) -> Result<(ShardReader, Position), Error> {
    // Seen: kinesalite's tests of GetRecords, as the words for an iterator that is too old.
    let iterator: Iterator =
        token::open(KIND, text).ok_or_else(|| Error::InvalidArgument("Invalid ShardIterator.".to_owned()))?;
    let now_ms = engine.now_ms();
    let lifetime_ms = millis(engine.settings().iterator_lifetime);
    if now_ms.saturating_sub(iterator.issued_ms) > lifetime_ms {
        return Err(Error::ExpiredIterator(format!(
            "Iterator expired. The iterator was created at time {} while right now it is {} which is further in the \
             future than the tolerated delay of {lifetime_ms} milliseconds.",
            date(iterator.issued_ms),
            date(now_ms)
        )));
    }
    let reader = engine.reader_of_shard(&iterator.stream, &iterator.shard)?;
    // API_GetRecords: InvalidArgumentException. Words: ours; the service has been seen to fail by an internal error.
    if reader.stream.created_ms() != iterator.created_ms {
        return Err(Error::InvalidArgument(format!(
            "Invalid ShardIterator: it was issued for an earlier stream named {}, which has been deleted.",
            iterator.stream
        )));
    }
    Ok((reader, Position(iterator.next)))
}

fn date(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |at| at.to_string())
}
