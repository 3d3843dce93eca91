//! Which shards are read when: parents before children.

use std::collections::BTreeMap;

use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::types;
use headworks_record::{HashKey, HashRange, ShardId};

use super::reader::{arn, name};
use super::since::Start;
use crate::aws::{Kinesis, describe};
use crate::exit::Failure;

/// The most stream names in a message.
const SHOWN_STREAMS: usize = 20;

/// One shard as the stream lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) id: ShardId,
    pub(crate) parents: Vec<ShardId>,
    pub(crate) range: HashRange,
    pub(crate) open: bool,
}

#[derive(Debug)]
struct Known {
    shard: Shard,
    start: Start,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Reading,
    Done,
}

/// The shards of a stream and how far each is.
#[derive(Debug)]
pub(crate) struct Family {
    known: BTreeMap<ShardId, Known>,
    start: Start,
}

impl Family {
    /// The shards that were there when the tail began.
    pub(crate) fn new(shards: Vec<Shard>, start: Start) -> Self {
        let mut family = Self { known: BTreeMap::new(), start };
        for shard in shards {
            // What is closed has nothing behind its newest record.
            let passed = family.start == Start::Latest && !shard.open;
            let state = if passed { State::Done } else { State::Waiting };
            let start = family.start.clone();
            family.known.insert(shard.id.clone(), Known { shard, start, state });
        }
        family
    }

    /// Shards that came since: all that is in them arrived after the tail began.
    pub(crate) fn grow(&mut self, shards: Vec<Shard>) {
        for shard in shards {
            let start = match &self.start {
                Start::Latest => Start::TrimHorizon,
                other => other.clone(),
            };
            self.known.entry(shard.id.clone()).or_insert(Known { shard, start, state: State::Waiting });
        }
    }

    /// A shard was read to its end.
    pub(crate) fn done(&mut self, shard: &ShardId) {
        if let Some(known) = self.known.get_mut(shard) {
            known.state = State::Done;
        }
    }

    /// The shards to begin with now: none of their parents has anything left. A parent that is not listed
    /// has expired.
    pub(crate) fn ready(&mut self) -> Vec<(Shard, Start)> {
        let free = |known: &Known| {
            let done = |id| self.known.get(id).is_none_or(|parent| parent.state == State::Done);
            known.state == State::Waiting && known.shard.parents.iter().all(done)
        };
        let ids: Vec<ShardId> =
            self.known.values().filter(|known| free(known)).map(|known| known.shard.id.clone()).collect();
        let mut ready = Vec::new();
        for id in ids {
            if let Some(known) = self.known.get_mut(&id) {
                known.state = State::Reading;
                ready.push((known.shard.clone(), known.start.clone()));
            }
        }
        ready
    }

    /// The hash keys that a shard takes.
    pub(crate) fn range(&self, shard: &ShardId) -> HashRange {
        self.known.get(shard).map_or(HashRange::ALL, |known| known.shard.range)
    }
}

/// Lists the shards of a stream; a stream that is not there is named with those that are.
pub(crate) async fn list(kinesis: &Kinesis, stream: &str) -> Result<Vec<Shard>, Failure> {
    let mut shards = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let request = kinesis.client.list_shards();
        // The service refuses a token together with a name.
        let request = match token.take() {
            Some(token) => request.next_token(token),
            None => request.set_stream_name(name(stream)).set_stream_arn(arn(stream)),
        };
        let page = match request.send().await {
            Ok(page) => page,
            Err(error) if error.code() == Some("ResourceNotFoundException") => {
                return Err(unknown_stream(kinesis, stream).await);
            }
            Err(error)
                if matches!(error.code(), Some("InvalidArgumentException" | "ValidationException")) =>
            {
                return Err(Failure::usage(
                    "stream-name-invalid",
                    format_args!(
                        "Kinesis at {} refused the stream name {stream:?}: {}; a name has 1 to 128 letters, digits, dots, hyphens or underscores",
                        kinesis.place,
                        describe(&error)
                    ),
                ));
            }
            Err(error) => return Err(kinesis.failure("ListShards", &error)),
        };
        for shard in page.shards.unwrap_or_default() {
            shards.push(read(kinesis, shard)?);
        }
        token = page.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(shards);
        }
    }
}

fn read(kinesis: &Kinesis, shard: types::Shard) -> Result<Shard, Failure> {
    let key = |text: &str| text.parse::<HashKey>();
    let range = shard.hash_key_range.as_ref().and_then(|range| {
        Some(HashRange {
            start: key(range.starting_hash_key()).ok()?,
            end: key(range.ending_hash_key()).ok()?,
        })
    });
    let range = range.ok_or_else(|| {
        Failure::environment(
            "kinesis-refused",
            format_args!("Kinesis at {} says no hash key range of {}", kinesis.place, shard.shard_id),
        )
    })?;
    let parents = [shard.parent_shard_id, shard.adjacent_parent_shard_id];
    Ok(Shard {
        open: shard.sequence_number_range.is_none_or(|range| range.ending_sequence_number.is_none()),
        id: ShardId::new(shard.shard_id),
        parents: parents.into_iter().flatten().map(ShardId::new).collect(),
        range,
    })
}

async fn unknown_stream(kinesis: &Kinesis, stream: &str) -> Failure {
    let existing = match kinesis.client.list_streams().send().await {
        Ok(page) => {
            let more =
                if page.has_more_streams || page.stream_names.len() > SHOWN_STREAMS { ", ..." } else { "" };
            let shown: Vec<&str> = page.stream_names.iter().take(SHOWN_STREAMS).map(String::as_str).collect();
            if shown.is_empty() {
                "it has no streams".to_owned()
            } else {
                format!("it has {}{more}", shown.join(", "))
            }
        }
        Err(error) => format!("what it has cannot be listed ({})", describe(&error)),
    };
    Failure::environment(
        "stream-not-found",
        format_args!(
            "there is no stream {stream:?} at {}; {existing}; check the name, --region and --endpoint-url",
            kinesis.place
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(id: &str, parents: &[&str], open: bool) -> Shard {
        Shard {
            id: ShardId::from(id),
            parents: parents.iter().map(|id| ShardId::from(*id)).collect(),
            range: HashRange::ALL,
            open,
        }
    }

    fn ready(family: &mut Family) -> Vec<(String, Start)> {
        family.ready().into_iter().map(|(shard, start)| (shard.id.to_string(), start)).collect()
    }

    #[test]
    fn children_wait_for_all_parents() {
        let shards =
            vec![shard("a", &["expired"], false), shard("b", &[], false), shard("merged", &["a", "b"], true)];
        let mut family = Family::new(shards, Start::TrimHorizon);
        let both = [("a".to_owned(), Start::TrimHorizon), ("b".to_owned(), Start::TrimHorizon)];
        assert_eq!(ready(&mut family), both);
        family.done(&ShardId::from("a"));
        assert_eq!(ready(&mut family), []);
        family.done(&ShardId::from("b"));
        assert_eq!(ready(&mut family), [("merged".to_owned(), Start::TrimHorizon)]);
        assert_eq!(ready(&mut family), []);
    }

    #[test]
    fn from_the_newest_record_on_children_are_read_whole() {
        let mut family =
            Family::new(vec![shard("old", &[], false), shard("now", &["old"], true)], Start::Latest);
        assert_eq!(ready(&mut family), [("now".to_owned(), Start::Latest)]);
        family.done(&ShardId::from("now"));
        family.grow(vec![shard("now", &["old"], false), shard("child", &["now"], true)]);
        assert_eq!(ready(&mut family), [("child".to_owned(), Start::TrimHorizon)]);
    }
}
