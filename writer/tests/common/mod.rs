//! A stream in memory that misbehaves on demand, and the readers that judge what is on it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test uses its part, and fails by panicking"
)]

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use headworks_record::aggregate::{Decoded, decode};
use headworks_record::ownership::{Foreign, Verdict, verdict};
use headworks_record::{HashRange, LaneCount, Record, Shard, ShardId};
use headworks_writer::{CallError, Capacity, Entry, EntryError, Fault, ListedShard, Stored, Stream};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

/// What goes wrong, each with its probability.
#[derive(Debug, Clone, Copy, Default)]
pub struct Misbehaviour {
    pub throttle_entry: f64,
    pub fail_entry_ambiguously: f64,
    pub refuse_call: f64,
    pub commit_without_answer: f64,
    pub answer_late_ms: u64,
}

#[derive(Debug)]
pub struct MemoryShard {
    pub id: ShardId,
    pub range: HashRange,
    pub parents: Vec<ShardId>,
    pub closed: bool,
    pub entries: Vec<Entry>,
    /// What it still takes of bytes and records, and as of when.
    room: (f64, f64, Instant),
}

#[derive(Debug)]
pub struct State {
    pub shards: Vec<MemoryShard>,
    pub lanes: u16,
    /// `None`: whoever asks may not know.
    pub capacity: Option<Capacity>,
    pub misbehaviour: Misbehaviour,
    /// Entries per call, in order.
    pub calls: Vec<usize>,
    /// Throttles every entry whose partition key contains this.
    pub throttle_label: Option<String>,
    /// Answers no call for a minute that has an entry whose partition key contains this.
    pub straggling_label: Option<String>,
    /// Whether shards take 1 MiB and 1,000 records per second and no more.
    pub limited: bool,
    pub refuse_all: Option<(Fault, &'static str)>,
    /// Refuses every call as a whole that has an entry of more bytes of data.
    pub refuse_larger: Option<usize>,
    /// The shards may not be listed.
    pub refuse_listing: bool,
    rng: SmallRng,
    sequence: u64,
}

#[derive(Debug, Clone)]
pub struct MemoryStream(pub Arc<Mutex<State>>);

impl MemoryStream {
    pub fn new(shards: u128, seed: u64) -> Self {
        let width = u128::MAX / shards;
        let shards = (0..shards)
            .map(|i| MemoryShard {
                id: id(i as usize),
                range: HashRange::new(
                    i * width,
                    if i + 1 == shards { u128::MAX } else { (i + 1) * width - 1 },
                ),
                parents: Vec::new(),
                closed: false,
                entries: Vec::new(),
                room: full(),
            })
            .collect();
        Self(Arc::new(Mutex::new(State {
            shards,
            lanes: 1,
            capacity: Some(Capacity::Provisioned),
            misbehaviour: Misbehaviour::default(),
            calls: Vec::new(),
            throttle_label: None,
            straggling_label: None,
            limited: false,
            refuse_all: None,
            refuse_larger: None,
            refuse_listing: false,
            rng: SmallRng::seed_from_u64(seed),
            sequence: 0,
        })))
    }

    pub fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }

    /// Splits the `nth` open shard in the middle.
    pub fn split(&self, nth: usize) {
        self.with(|state| {
            let open: Vec<usize> = (0..state.shards.len()).filter(|i| !state.shards[*i].closed).collect();
            let parent = open[nth % open.len()];
            let range = state.shards[parent].range;
            let middle = range.start.0 + (range.end.0 - range.start.0) / 2;
            state.shards[parent].closed = true;
            let parents = vec![state.shards[parent].id.clone()];
            for range in [HashRange::new(range.start.0, middle), HashRange::new(middle + 1, range.end.0)] {
                state.open(range, parents.clone());
            }
        });
    }

    /// Merges the `nth` open shard with its right neighbour.
    pub fn merge(&self, nth: usize) {
        self.with(|state| {
            let mut open: Vec<usize> = (0..state.shards.len()).filter(|i| !state.shards[*i].closed).collect();
            open.sort_by_key(|i| state.shards[*i].range.start);
            if open.len() < 2 {
                return;
            }
            let left = open[nth % (open.len() - 1)];
            let right = open[nth % (open.len() - 1) + 1];
            let range =
                HashRange { start: state.shards[left].range.start, end: state.shards[right].range.end };
            let parents = vec![state.shards[left].id.clone(), state.shards[right].id.clone()];
            state.shards[left].closed = true;
            state.shards[right].closed = true;
            state.open(range, parents);
        });
    }

    /// What a reader delivers, per key, parents before children, by our rule or by the KCL's.
    pub fn read(&self, rule: Rule) -> HashMap<String, Vec<Record>> {
        self.with(|state| {
            let mut by_key: HashMap<String, Vec<Record>> = HashMap::new();
            // A child is always created after its parents, so creation order is a valid reading order.
            for shard in &state.shards {
                let entries: Vec<&Entry> = shard.entries.iter().collect();
                let entries =
                    if rule == Rule::LabelsSideBySide { overtake(entries, &mut state.rng) } else { entries };
                for entry in entries {
                    for record in deliver(shard, entry, rule) {
                        by_key.entry(record.key.as_str().to_owned()).or_default().push(record);
                    }
                }
            }
            by_key
        })
    }
}

const SHARD_BYTES: f64 = 1_048_576.0;
const SHARD_RECORDS: f64 = 1_000.0;

fn full() -> (f64, f64, Instant) {
    (SHARD_BYTES, SHARD_RECORDS, Instant::now())
}

/// Which reader judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    Ours,
    /// Every aggregate with a member outside the shard is skipped whole, whatever its label says.
    Kcl,
    /// Ours, but within a shard only the order of each partition key is kept, as by Lambda with a
    /// parallelization factor.
    LabelsSideBySide,
}

/// Entries in an order that a reader of partition keys side by side may see.
fn overtake<'e>(entries: Vec<&'e Entry>, rng: &mut SmallRng) -> Vec<&'e Entry> {
    let mut queues: Vec<(&str, VecDeque<&Entry>)> = Vec::new();
    for entry in entries {
        match queues.iter_mut().find(|(label, _)| *label == &*entry.partition_key) {
            Some((_, queue)) => queue.push_back(entry),
            None => queues.push((&entry.partition_key, [entry].into())),
        }
    }
    let mut order = Vec::new();
    while !queues.is_empty() {
        let place = rng.random_range(0..queues.len());
        order.extend(queues[place].1.pop_front());
        if queues[place].1.is_empty() {
            queues.swap_remove(place);
        }
    }
    order
}

fn deliver(shard: &MemoryShard, entry: &Entry, rule: Rule) -> Vec<Record> {
    let Decoded::Aggregate(aggregate) = decode(&entry.data).unwrap() else {
        let record = Record::builder(entry.partition_key.clone()).unwrap().data(entry.data.clone()).build();
        return vec![record];
    };
    let label = if rule == Rule::Kcl { "" } else { &entry.partition_key };
    match verdict(&aggregate, label, &shard.id, &shard.range, Foreign::Skip).unwrap() {
        Verdict::Deliver => aggregate.members().map(|member| member.to_record().unwrap()).collect(),
        Verdict::Misplaced { .. } => Vec::new(),
    }
}

fn id(n: usize) -> ShardId {
    ShardId::new(format!("shardId-{n:012}"))
}

impl State {
    fn open(&mut self, range: HashRange, parents: Vec<ShardId>) {
        let id = id(self.shards.len());
        self.shards.push(MemoryShard {
            id,
            range,
            parents,
            closed: false,
            entries: Vec::new(),
            room: full(),
        });
    }

    fn commit(&mut self, entry: &Entry) -> Stored {
        let hash =
            entry.explicit_hash_key.unwrap_or_else(|| headworks_record::key::hash_of(&entry.partition_key));
        let shard = self.shards.iter_mut().find(|s| !s.closed && s.range.contains(hash)).unwrap();
        shard.entries.push(entry.clone());
        self.sequence += 1;
        Stored { shard: shard.id.clone(), sequence_number: self.sequence.to_string().into() }
    }

    /// Two buckets of a second each, as the service has them.
    fn has_room(&mut self, entry: &Entry) -> bool {
        if !self.limited {
            return true;
        }
        let hash = entry.explicit_hash_key.unwrap();
        let shard = self.shards.iter_mut().find(|s| !s.closed && s.range.contains(hash)).unwrap();
        let (bytes, records, since) = &mut shard.room;
        let elapsed = since.elapsed().as_secs_f64();
        *since = Instant::now();
        *bytes = (*bytes + elapsed * SHARD_BYTES).min(SHARD_BYTES);
        *records = (*records + elapsed * SHARD_RECORDS).min(SHARD_RECORDS);
        let fits = *bytes >= entry.bytes() as f64 && *records >= 1.0;
        if fits {
            *bytes -= entry.bytes() as f64;
            *records -= 1.0;
        }
        fits
    }

    fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.random_bool(probability)
    }

    fn put(&mut self, entries: &[Entry]) -> (Result<Vec<Result<Stored, EntryError>>, CallError>, u64) {
        self.calls.push(entries.len());
        let wrong = self.misbehaviour;
        let mut late =
            if wrong.answer_late_ms > 0 { self.rng.random_range(0..wrong.answer_late_ms) } else { 0 };
        if let Some(label) = &self.straggling_label
            && entries.iter().any(|entry| entry.partition_key.contains(label))
        {
            late += 60_000;
        }
        if self.refuse_larger.is_some_and(|most| entries.iter().any(|entry| entry.data.len() > most)) {
            let (code, message) = ("InvalidArgumentException".into(), "told to".into());
            return (Err(CallError { fault: Fault::Permanent, code, message }), 0);
        }
        if let Some((fault, code)) = self.refuse_all {
            return (Err(CallError { fault, code: code.into(), message: "told to".into() }), late);
        }
        if self.chance(wrong.refuse_call) {
            let error =
                CallError { fault: Fault::Unavailable, code: "Unavailable".into(), message: String::new() };
            return (Err(error), late);
        }
        let labels: HashSet<_> = entries.iter().map(|entry| &entry.partition_key).collect();
        assert_eq!(labels.len(), entries.len(), "two aggregates of one lane in one call");
        let results = entries
            .iter()
            .map(|entry| {
                let throttled =
                    self.throttle_label.as_ref().is_some_and(|label| entry.partition_key.contains(label));
                if throttled || !self.has_room(entry) || self.chance(wrong.throttle_entry) {
                    let code = "ProvisionedThroughputExceededException".to_owned();
                    return Err(EntryError { fault: Fault::Throttled, code, message: String::new() });
                }
                let stored = self.commit(entry);
                if self.chance(wrong.fail_entry_ambiguously) {
                    let code = "InternalFailure".to_owned();
                    return Err(EntryError { fault: Fault::Ambiguous, code, message: String::new() });
                }
                Ok(stored)
            })
            .collect();
        if self.chance(wrong.commit_without_answer) {
            let code = "connection-lost".to_owned();
            return (Err(CallError { fault: Fault::Ambiguous, code, message: String::new() }), late);
        }
        (Ok(results), late)
    }
}

#[async_trait]
impl Stream for MemoryStream {
    fn name(&self) -> &str {
        "memory"
    }

    async fn list_shards(&self) -> Result<Vec<ListedShard>, CallError> {
        if self.with(|state| state.refuse_listing) {
            let (code, message) = ("AccessDeniedException".into(), "told to".into());
            return Err(CallError { fault: Fault::Access, code, message });
        }
        Ok(self.with(|state| {
            let listed = |s: &MemoryShard| ListedShard {
                shard: Shard { id: s.id.clone(), range: s.range },
                closed: s.closed,
            };
            state.shards.iter().map(listed).collect()
        }))
    }

    async fn lanes(&self) -> Result<LaneCount, CallError> {
        Ok(LaneCount::new(self.with(|state| state.lanes)).unwrap())
    }

    async fn capacity(&self) -> Result<Capacity, CallError> {
        self.with(|state| state.capacity).ok_or_else(|| CallError {
            fault: Fault::Access,
            code: "AccessDeniedException".into(),
            message: "told to".into(),
        })
    }

    async fn put_records(&self, entries: &[Entry]) -> Result<Vec<Result<Stored, EntryError>>, CallError> {
        // The answer is late after the commit: others may commit meanwhile.
        let (result, late) = self.with(|state| state.put(entries));
        tokio::time::sleep(Duration::from_millis(late)).await;
        result
    }
}

/// A record of this key whose data is its number.
pub fn numbered(key: &str, number: u32) -> Record {
    let data = Bytes::copy_from_slice(&number.to_be_bytes());
    Record::builder(key.to_owned()).unwrap().header("type", "test").unwrap().data(data).build()
}

pub fn number(record: &Record) -> u32 {
    u32::from_be_bytes(record.data[..].try_into().unwrap())
}

/// The order of first occurrences.
pub fn first_occurrences(records: &[Record]) -> Vec<u32> {
    let mut seen = HashSet::new();
    records.iter().map(number).filter(|n| seen.insert(*n)).collect()
}
