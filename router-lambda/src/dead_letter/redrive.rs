//! Putting dead letters back on their way.
//!
//! A record keeps its identity, so consumers recognize a repeat; it does not keep its place in the order of its
//! key. An object is moved to `redriven/` only after its record was stored everywhere, so a run that is stopped at any
//! moment is resumed by starting it again: at worst the records of one batch are put twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use headworks_record::aggregate::{Decoded, Origin, decode};
use headworks_record::{Creation, Headers, PartitionKey, Record};
use headworks_writer::Put;
use tokio::time::Instant;

use super::{Bucket, Error, Filter, Letter, PREFIX, Position, REDRIVEN_PREFIX, Reason, list};
use crate::lookup::Items;
use crate::outbound::{Load, Outbound};
use crate::plan::identity;
use crate::table::{Destination, RouteTable, Subject, route_subject};

/// How many letters are put together. They are in memory at once.
const LETTERS_AT_ONCE: usize = 32;

/// Where records are put.
#[derive(Debug, Clone)]
pub enum Target {
    /// To the destinations that did not get them, in the form that this table gives them. A record that could not be
    /// routed at all goes wherever the table sends it now.
    Destinations(Arc<RouteTable>),
    /// On this stream, as they were found. On the inbound stream they are routed anew, so destinations that had
    /// them get them again.
    Stream(String),
}

/// What is redriven, and how.
#[derive(Clone)]
pub struct Options {
    /// Which letters.
    pub filter: Filter,
    /// Where to.
    pub target: Target,
    /// Begins after this key, as [`Summary::last`] said.
    pub after: Option<String>,
    /// Ends after so many letters; `None` means all.
    pub limit: Option<usize>,
    /// How long a batch of letters is tried. Default 60 s.
    pub patience: Duration,
    /// Makes the look-ups of the table's rules; without it, letters for destinations with look-ups are left.
    pub items: Option<Arc<dyn Items>>,
    /// Says what would be done and does nothing.
    pub dry_run: bool,
}

impl Options {
    /// Every letter, to this target.
    pub fn new(target: Target) -> Self {
        Self {
            filter: Filter::default(),
            target,
            after: None,
            limit: None,
            patience: Duration::from_secs(60),
            items: None,
            dry_run: false,
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("filter", &self.filter)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// What became of one letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redriven {
    /// The object's key.
    pub key: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of one letter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Its record is stored on these streams, and the object has moved. After a dry run: it would be put there.
    Done {
        /// The streams.
        streams: Vec<String>,
    },
    /// Its record is stored on some streams. The letter stays, and names the others only.
    Partly {
        /// The streams that have it now.
        streams: Vec<String>,
        /// Why others do not.
        reasons: Vec<Reason>,
    },
    /// Nothing was put; the letter stays as it is.
    Left {
        /// Why.
        reasons: Vec<Reason>,
    },
}

/// What a run did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Letters whose records are stored everywhere.
    pub done: u64,
    /// Letters whose records are stored on some of their streams.
    pub partly: u64,
    /// Letters that stay as they are.
    pub left: u64,
    /// The key of the last letter that was looked at: a later run may begin after it.
    pub last: Option<String>,
    /// Whether there are no more letters.
    pub finished: bool,
}

/// Puts letters back on their way, in the order of their keys; `progress` hears of each.
///
/// An error stops the run; what was reported before is done.
pub async fn redrive(
    bucket: &Bucket,
    outbound: &dyn Outbound,
    options: &Options,
    progress: &mut (dyn FnMut(&Redriven) + Send),
) -> Result<Summary, Error> {
    let mut summary = Summary { last: options.after.clone(), ..Summary::default() };
    let mut left = options.limit.unwrap_or(usize::MAX);
    while left > 0 {
        let page = list(bucket, &options.filter, summary.last.as_deref(), LETTERS_AT_ONCE.min(left)).await?;
        left -= page.letters.len();
        summary.finished = page.next.is_none();
        let mut batch = Vec::with_capacity(page.letters.len());
        for stored in page.letters {
            batch.push(prepare(options, stored.key, stored.letter).await);
        }
        if !options.dry_run {
            put(outbound, &mut batch, options.patience).await;
        }
        for job in batch {
            let redriven = settle(bucket, job, options.dry_run).await?;
            match redriven.outcome {
                Outcome::Done { .. } => summary.done += 1,
                Outcome::Partly { .. } => summary.partly += 1,
                Outcome::Left { .. } => summary.left += 1,
            }
            progress(&redriven);
            summary.last = Some(redriven.key);
        }
        if summary.finished {
            break;
        }
    }
    Ok(summary)
}

/// One letter on its way.
struct Job {
    key: String,
    letter: Option<Letter>,
    /// Stream to records; each with the streams' own form.
    puts: BTreeMap<String, Vec<Put>>,
    /// Streams that have all of it.
    stored: Vec<String>,
    /// Why other streams do not.
    reasons: Vec<Reason>,
}

async fn prepare(options: &Options, key: String, letter: Result<Letter, String>) -> Job {
    let mut job = Job { key, letter: None, puts: BTreeMap::new(), stored: Vec::new(), reasons: Vec::new() };
    let letter = match letter {
        Ok(letter) => letter,
        Err(error) => {
            let error = Error::NotALetter { key: job.key.clone(), reason: error };
            job.reasons.push(reason(error.code(), &error, None));
            return job;
        }
    };
    match records(&letter) {
        Ok(records) => {
            for record in records {
                let forms = match &options.target {
                    Target::Stream(stream) => vec![(stream.clone(), Ok(record))],
                    Target::Destinations(table) => forms(table, options, &letter, record).await,
                };
                for (stream, form) in forms {
                    match form {
                        Ok(record) => {
                            let origin = match &options.target {
                                Target::Stream(_) => None,
                                Target::Destinations(_) => Some(origin(&letter)),
                            };
                            job.puts.entry(stream).or_default().push(Put { record, origin, deadline: None });
                        }
                        Err(reason) => job.reasons.push(reason),
                    }
                }
            }
        }
        Err(reason) => job.reasons.push(reason),
    }
    job.letter = Some(letter);
    job
}

/// The records of a letter, with the identity that they had.
fn records(letter: &Letter) -> Result<Vec<Record>, Reason> {
    let bad = |error: &dyn std::fmt::Display| not_redrivable(error, None);
    if letter.origin.sub_sequence_number.is_none() {
        let aggregate = match decode(&letter.data) {
            Ok(Decoded::Aggregate(aggregate)) => aggregate,
            Ok(_) => return Err(bad(&"it is no aggregate")),
            Err(error) => return Err(bad(&format!("it still cannot be taken apart: {error}"))),
        };
        let members = aggregate.members().enumerate().map(|(place, member)| {
            let mut record = member.to_record().map_err(|error| bad(&error))?;
            if record.headers.creation().is_none() {
                let Position { stream, shard, sequence_number, arrival_ms, .. } = &letter.origin;
                let found = identity(stream, shard, sequence_number, place as u32, *arrival_ms);
                record.headers.set_creation(found);
            }
            Ok(record)
        });
        return members.collect();
    }
    let (trace_id, span_id, flags) =
        Creation::parse_traceparent(&letter.traceparent).map_err(|error| bad(&error))?;
    // As they were found: a foreign writer's names may repeat, and a newer version of ours may have put more `hw-` tags.
    let mut headers =
        Headers::from_wire(letter.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    headers.set_creation(Creation { trace_id, span_id, flags, created_ms: letter.created_ms });
    let explicit_hash_key = letter.explicit_hash_key.as_deref().map(str::parse).transpose();
    Ok(vec![Record {
        key: PartitionKey::new(letter.partition_key.as_str()).map_err(|error| bad(&error))?,
        explicit_hash_key: explicit_hash_key.map_err(|error| bad(&error))?,
        headers,
        data: letter.data.clone(),
    }])
}

/// A record in the form of each destination that lacks it, or why it has none.
async fn forms(
    table: &RouteTable,
    options: &Options,
    letter: &Letter,
    mut record: Record,
) -> Vec<(String, Result<Record, Reason>)> {
    let mut wanted: BTreeSet<&str> =
        letter.reasons.iter().filter_map(|reason| reason.destination.as_deref()).collect();
    let everywhere = letter.reasons.iter().any(|reason| reason.destination.is_none());
    if let Err(error) = table.derive(&mut record.headers, &record.data) {
        return vec![(String::new(), Err(reason(error.code(), error, None)))];
    }
    let subject = Subject::from(&record);
    let routed = route_subject(&subject, table);
    let mut forms = Vec::new();
    if everywhere && routed.is_empty() {
        let what = routed.dead_letter().map_or_else(
            || "the table drops it".to_owned(),
            |rule| format!("{rule} of the route table sends it to the dead letters"),
        );
        forms.push((String::new(), Err(not_redrivable(what, None))));
    }
    for destination in routed.iter() {
        if wanted.remove(&*destination.stream) || everywhere {
            let form = form(table, options, destination, record.clone()).await;
            forms.push((destination.stream.to_string(), form));
        }
    }
    for gone in wanted {
        let what =
            "the route table does not send it there any more; redrive it to the inbound stream, or delete it";
        forms.push((gone.to_owned(), Err(not_redrivable(what, Some(gone)))));
    }
    forms
}

async fn form(
    table: &RouteTable,
    options: &Options,
    destination: &Destination,
    mut record: Record,
) -> Result<Record, Reason> {
    let stream = Some(&*destination.stream);
    if let Some(lookup) = destination.lookup.map(|index| &table.lookups()[index])
        && let Some(key) = lookup.key_of(&Subject::from(&record))
    {
        let Some(items) = &options.items else {
            let error = crate::lookup::Error::NotConfigured { table: lookup.table.clone() };
            return Err(reason(error.code(), error, stream));
        };
        let answer =
            tokio::time::timeout(options.patience, items.get(lookup, std::slice::from_ref(&key))).await;
        let answer = answer.unwrap_or_else(|_elapsed| {
            Err(crate::lookup::Error::Slow { table: lookup.table.clone(), after: options.patience })
        });
        let mut found = answer.map_err(|error| reason(error.code(), error, stream))?;
        lookup
            .apply(&found.remove(&key).unwrap_or_default(), &mut record.headers)
            .map_err(|error| reason(error.code(), error, stream))?;
    }
    destination
        .transform
        .apply(&mut record.headers, &mut record.data)
        .map_err(|error| reason(error.code(), error, stream))?;
    Ok(record)
}

/// Puts a batch, each stream on its own, in the order of the letters.
async fn put(outbound: &dyn Outbound, batch: &mut [Job], patience: Duration) {
    let until = Instant::now() + patience;
    let mut streams: BTreeMap<String, (Vec<Put>, Vec<usize>)> = BTreeMap::new();
    for (index, job) in batch.iter_mut().enumerate() {
        for (stream, puts) in std::mem::take(&mut job.puts) {
            let (all, owners) = streams.entry(stream).or_default();
            owners.extend(std::iter::repeat_n(index, puts.len()));
            all.extend(puts.into_iter().map(|put| Put { deadline: Some(until), ..put }));
        }
    }
    let calls = streams.into_iter().map(|(stream, (puts, owners))| async move {
        let loads = puts.into_iter().map(Load::Record).collect();
        // Writers answer a moment after the puts' own deadline.
        let outcomes = outbound.put(&stream, loads, until + Duration::from_secs(2)).await;
        (stream, owners, outcomes)
    });
    for (stream, owners, outcomes) in join_all(calls).await {
        let mut failed: BTreeMap<usize, Reason> = BTreeMap::new();
        for (index, outcome) in owners.iter().zip(outcomes) {
            if let Err(trouble) = outcome {
                failed
                    .entry(*index)
                    .or_insert_with(|| reason(&trouble.code, &trouble.message, Some(&stream)));
            }
        }
        for index in owners.into_iter().collect::<BTreeSet<usize>>() {
            match failed.remove(&index) {
                Some(reason) => batch[index].reasons.push(reason),
                None => batch[index].stored.push(stream.clone()),
            }
        }
    }
}

/// Moves or rewrites the letter, now that its record is where it is.
async fn settle(bucket: &Bucket, job: Job, dry_run: bool) -> Result<Redriven, Error> {
    let Job { key, letter, puts, stored: mut streams, reasons } = job;
    if dry_run {
        streams = puts.into_keys().collect();
    }
    let outcome = match letter {
        Some(letter) if reasons.is_empty() => {
            if !dry_run {
                let kept = format!("{REDRIVEN_PREFIX}{}", key.strip_prefix(PREFIX).unwrap_or(&key));
                bucket.put(&letter, kept).await?;
                bucket.remove(&key).await?;
            }
            Outcome::Done { streams }
        }
        Some(mut letter) if !streams.is_empty() => {
            // A whole aggregate may be stored on a stream in part: it is put there again as a whole.
            if !dry_run && letter.origin.sub_sequence_number.is_some() {
                letter.reasons.clone_from(&reasons);
                bucket.put(&letter, key.clone()).await?;
            }
            Outcome::Partly { streams, reasons }
        }
        _ => Outcome::Left { reasons },
    };
    Ok(Redriven { key, outcome })
}

fn origin(letter: &Letter) -> Arc<Origin> {
    Arc::new(Origin {
        shard: letter.origin.shard.as_str().into(),
        sequence_number: letter.origin.sequence_number.as_str().into(),
        arrival_ms: letter.origin.arrival_ms,
    })
}

fn reason(code: &str, message: impl ToString, destination: Option<&str>) -> Reason {
    let destination = destination.map(str::to_owned);
    Reason { code: code.to_owned(), message: message.to_string(), destination }
}

fn not_redrivable(why: impl ToString, destination: Option<&str>) -> Reason {
    let error = Error::NotRedrivable { reason: why.to_string() };
    reason(error.code(), &error, destination)
}
