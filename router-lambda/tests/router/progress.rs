//! Batches that come again: what a destination has is left out, and nothing is ever lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytestring::ByteString;
use headworks_record::Record;
use headworks_router::progress::{self, Entry, Progress, Span};
use headworks_router::{Event, Router, Trouble};
use proptest::prelude::*;

use crate::common::{
    Letters, ROUTES, SHARD, Shards, Streams, World, aggregate, invocation, labelled, record,
};

/// Entries in memory.
#[derive(Default)]
pub(crate) struct Memory {
    entries: Mutex<HashMap<(String, ByteString), Entry>>,
    reads: AtomicU32,
    writes: AtomicU32,
    broken: AtomicBool,
    /// What the clock is ahead of the entries, in seconds.
    ahead: AtomicU64,
}

impl Memory {
    fn check(&self) -> Result<(), progress::Error> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(progress::Error::Unavailable { table: "progress".into(), reason: "no".into() });
        }
        Ok(())
    }
}

#[async_trait]
impl Progress for Memory {
    async fn read(&self, shard: &str, lanes: &[ByteString]) -> Result<Vec<Entry>, progress::Error> {
        self.check()?;
        self.reads.fetch_add(1, Ordering::Relaxed);
        let entries = self.entries.lock().unwrap();
        let found = lanes.iter().filter_map(|lane| entries.get(&(shard.to_owned(), lane.clone())));
        let aged = |entry: &Entry| Entry {
            expires: entry.expires - self.ahead.load(Ordering::Relaxed),
            ..entry.clone()
        };
        Ok(found.map(aged).collect())
    }

    async fn write(&self, shard: &str, entries: Vec<Entry>) -> Result<(), progress::Error> {
        self.check()?;
        self.writes.fetch_add(1, Ordering::Relaxed);
        let mut kept = self.entries.lock().unwrap();
        kept.extend(entries.into_iter().map(|entry| ((shard.to_owned(), entry.lane.clone()), entry)));
        Ok(())
    }

    async fn forget(&self, shard: &str, lanes: Vec<ByteString>) -> Result<(), progress::Error> {
        self.check()?;
        let mut kept = self.entries.lock().unwrap();
        lanes.into_iter().for_each(|lane| drop(kept.remove(&(shard.to_owned(), lane))));
        Ok(())
    }
}

/// A world in which `orders` fails while the switch is on.
fn switched(routes: &str) -> (World, Router, Arc<AtomicBool>, Arc<Memory>) {
    let down = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&down);
    let streams = Streams::new(move |stream, _| {
        if stream == "orders" && switch.load(Ordering::Relaxed) {
            return Err(Trouble::unavailable("deadline-exceeded", "throttled"));
        }
        Ok(())
    });
    let (world, router) = World::with_routes(routes, streams, Letters::default(), Shards::default());
    let store = Arc::new(Memory::default());
    let router = router.with_progress(store.clone());
    (world, router, down, store)
}

fn batch() -> Event {
    let records: Vec<Record> = (0..60)
        .map(|i| {
            let kind = ["order", "click", "order.click", "other"][i % 4];
            record(&format!("k{}", i % 5), kind, &format!("{i:02}"))
        })
        .collect();
    let lane = |i: usize| format!("hw/{SHARD}/{}", i % 3);
    labelled(records.chunks(6).enumerate().map(|(i, part)| (lane(i), aggregate(part))).collect())
}

/// What Lambda hands over next.
fn rest(event: &Event, from: &str) -> Event {
    let start = event.records.iter().position(|record| *record.sequence_number == *from).unwrap();
    Event { stream: event.stream.clone(), records: event.records[start..].to_vec() }
}

/// Handles a batch as Lambda does, until it is done or has been tried so often; the attempts.
async fn retry(router: &Router, mut event: Event, times: usize) -> usize {
    for attempt in 1..=times {
        let report = router.handle(&event, &invocation()).await.unwrap();
        let Some(failed) = report.failed else { return attempt };
        event = rest(&event, &failed.sequence_number);
    }
    times
}

#[tokio::test]
async fn one_failing_destination_costs_the_others_no_repeats() {
    let (world, router, down, store) = switched(ROUTES);
    let event = batch();
    assert_eq!(retry(&router, event.clone(), 100).await, 100);
    down.store(false, Ordering::Relaxed);
    assert_eq!(retry(&router, event.clone(), 5).await, 1);
    let all: Vec<usize> = (0..60).collect();
    let of = |kinds: &[usize]| -> Vec<String> {
        all.iter().filter(|i| kinds.contains(&(*i % 4))).map(|i| format!("{i:02}")).collect()
    };
    assert_eq!(world.streams.data("clicks"), of(&[1, 2]));
    assert_eq!(world.streams.data("default"), of(&[3]));
    assert_eq!(world.streams.data("orders"), of(&[0, 2]));
    assert!(store.entries.lock().unwrap().is_empty(), "what is done is forgotten");

    // Without a store the same costs a repeat per attempt.
    let (world, router) = World::new(
        Streams::new(|stream, _| match stream {
            "orders" => Err(Trouble::unavailable("deadline-exceeded", "throttled")),
            _ => Ok(()),
        }),
        Letters::default(),
        Shards::default(),
    );
    retry(&router, event, 10).await;
    assert_eq!(world.streams.data("default").len(), 150);
}

#[tokio::test]
async fn nothing_is_read_or_written_while_all_is_well() {
    let (_, router, down, store) = switched(ROUTES);
    down.store(false, Ordering::Relaxed);
    let router = router.with_read_after(Duration::from_secs(365 * 86_400 * 10));
    assert_eq!(retry(&router, batch(), 1).await, 1);
    assert_eq!((store.reads.load(Ordering::Relaxed), store.writes.load(Ordering::Relaxed)), (0, 0));
    let router = router.with_read_after(Duration::ZERO);
    assert_eq!(retry(&router, batch(), 1).await, 1);
    assert_eq!((store.reads.load(Ordering::Relaxed), store.writes.load(Ordering::Relaxed)), (1, 0));
}

#[tokio::test]
async fn what_is_written_down_counts_for_its_table_only_and_not_for_ever() {
    for other in ["table", "expired", "broken", "same"] {
        let (world, router, down, store) = switched(ROUTES);
        let event = batch();
        assert!(router.handle(&event, &invocation()).await.unwrap().failed.is_some());
        assert_eq!(world.streams.data("default").len(), 15);
        let before = world.streams.data("default");
        down.store(false, Ordering::Relaxed);
        let routes = format!("{ROUTES}\n# another text\n");
        let (world, router) = match other {
            "table" => {
                let streams = Streams::new(|_, _| Ok(()));
                let (world, router) =
                    World::with_routes(&routes, streams, Letters::default(), Shards::default());
                (world, router.with_progress(store.clone()))
            }
            "expired" => {
                store.ahead.store(progress::LIFETIME.as_secs() + 5, Ordering::Relaxed);
                (world, router)
            }
            "broken" => {
                store.broken.store(true, Ordering::Relaxed);
                (world, router)
            }
            _ => (world, router),
        };
        let report = router.handle(&event, &invocation()).await.unwrap();
        assert_eq!(report.failed, None, "{other}");
        let puts = world.streams.data("default").len();
        match other {
            "table" => assert_eq!(puts, 15),
            "same" => {
                assert_eq!((puts, report.counts.skipped), (15, 45));
                assert_eq!(world.streams.data("default"), before);
            }
            _ => assert_eq!((puts, report.counts.skipped), (30, 0)),
        }
    }
}

#[tokio::test]
async fn a_dead_letter_keeps_every_reason_when_its_batch_comes_again() {
    let calm = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&calm);
    let streams = Streams::new(move |stream, record| match (stream, &record.data[..]) {
        ("clicks", b"big") => Err(Trouble::poison("record-too-large", "too large")),
        ("orders", b"big") if switch.load(Ordering::Relaxed) => {
            Err(Trouble::poison("destination-missing", "gone"))
        }
        ("orders", _) if !switch.load(Ordering::Relaxed) => Err(Trouble::retryable("x", "throttled")),
        _ => Ok(()),
    });
    let (world, router) = World::new(streams, Letters::default(), Shards::default());
    let router = router.with_progress(Arc::new(Memory::default()));
    let event = labelled(vec![
        (
            format!("hw/{SHARD}/0"),
            aggregate(&[record("k", "order.click", "big"), record("k", "click", "big")]),
        ),
        (format!("hw/{SHARD}/1"), aggregate(&[record("k", "click", "big")])),
    ]);
    retry(&router, event.clone(), 3).await;
    calm.store(true, Ordering::Relaxed);
    assert_eq!(retry(&router, event, 1).await, 1);
    let letters = world.letters.written.lock().unwrap();
    let last = letters.iter().rfind(|letter| letter.key().ends_with("/100-0.json")).unwrap();
    let destinations: BTreeSet<_> = last.reasons.iter().map(|r| r.destination.clone().unwrap()).collect();
    assert_eq!(destinations, BTreeSet::from(["orders".to_owned(), "clicks".to_owned()]));
    let other = letters.iter().filter(|letter| letter.key().ends_with("/101-0.json")).count();
    assert_eq!(other, 1, "one with no other destination is not buried twice");
}

/// The table `progress`, as its documentation wants it.
pub(crate) async fn create_table(client: &aws_sdk_dynamodb::Client) {
    create_keyed(client, "progress", "lane").await;
}

/// A table with this hash key, a string.
pub(crate) async fn create_keyed(client: &aws_sdk_dynamodb::Client, table: &str, key: &str) {
    use aws_sdk_dynamodb::types::{
        AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    };
    let schema = KeySchemaElement::builder().attribute_name(key).key_type(KeyType::Hash).build().unwrap();
    let kind = AttributeDefinition::builder().attribute_name(key).attribute_type(ScalarAttributeType::S);
    let create = client.create_table().table_name(table).key_schema(schema);
    let create = create.attribute_definitions(kind.build().unwrap()).billing_mode(BillingMode::PayPerRequest);
    create.send().await.unwrap();
}

#[tokio::test]
async fn entries_live_in_a_dynamodb_table() {
    let stack = headworks_local::start().await.unwrap();
    let client = stack.dynamodb();
    let store = progress::Dynamo::new(client.clone(), "progress", "router");
    let error = store.read("inbound/s", &["l".into()]).await.unwrap_err();
    assert_eq!(error.code(), "progress-unavailable");
    assert!(error.to_string().contains("ResourceNotFoundException"), "{error}");

    create_table(&client).await;

    let span = |from: &str, to: &str| Span { from: from.into(), to: to.into() };
    let entry = |i: usize| Entry {
        lane: format!("hw/{SHARD}/{i}").into(),
        table: "t".into(),
        has: BTreeMap::from([("orders".to_owned(), span("7", "12")), ("clicks".to_owned(), span("7", "9"))]),
        expires: 1_900_000_000 + i as u64,
    };
    let entries: Vec<Entry> = (0..60).map(entry).collect();
    let lanes: Vec<ByteString> = entries.iter().map(|entry| entry.lane.clone()).collect();
    store.write("inbound/s", entries.clone()).await.unwrap();
    let read = async |shard: &str, lanes: &[ByteString]| {
        let mut read = store.read(shard, lanes).await.unwrap();
        read.sort_by_key(|entry| entry.expires);
        read
    };
    assert_eq!(read("inbound/s", &lanes).await, entries);
    assert_eq!(read("inbound/s", &lanes[3..5]).await, entries[3..5]);
    assert_eq!(read("inbound/t", &lanes).await, []);
    let other = progress::Dynamo::new(client, "progress", "another-function");
    assert_eq!(other.read("inbound/s", &lanes).await.unwrap(), []);
    store.forget("inbound/s", lanes[1..].to_vec()).await.unwrap();
    assert_eq!(read("inbound/s", &lanes).await, entries[..1]);
    stack.shutdown().await.unwrap();
}

/// One step of Lambda's: which destinations are down, whether the batch is cut in two, whether the store works.
#[derive(Debug, Clone)]
struct Step {
    down: Vec<&'static str>,
    bisect: bool,
    broken: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let down = prop::sample::subsequence(vec!["orders", "clicks", "default"], 0..3);
    let step = (down, any::<bool>(), prop::bool::weighted(0.15)).prop_map(|(down, bisect, broken)| Step {
        down,
        bisect,
        broken,
    });
    prop::collection::vec(step, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Random destinations fail, one record at a time and all that follows of its key, batches are cut in two:
    /// every record arrives, in order of first occurrences per key, and without the store's failing a
    /// destination that never failed gets everything once.
    #[test]
    fn nothing_is_lost_and_order_holds_over_any_retries(
        kinds in prop::collection::vec((0..4usize, 0..3usize, 0..3usize), 1..60),
        per in 1..5usize, steps in steps(), weak in 0..3usize,
    ) {
        let records: Vec<(usize, Record)> = kinds.iter().enumerate().map(|(i, (kind, key, _))| {
            let kind = ["order", "click", "order.click", "other"][*kind];
            (*key, record(&format!("k{key}"), kind, &format!("{i:02}")))
        }).collect();
        // A lane per key, as lanes are slices of the hash space.
        let mut whole: Vec<(String, bytes::Bytes)> = Vec::new();
        for part in records.chunks(per) {
            for key in 0..3 {
                let part: Vec<Record> = part.iter().filter(|(k, _)| *k == key).map(|(_, r)| r.clone()).collect();
                if !part.is_empty() {
                    whole.push((format!("hw/{SHARD}/{key}"), aggregate(&part)));
                }
            }
        }
        let whole = labelled(whole);
        let down: Arc<Mutex<Vec<&'static str>>> = Arc::default();
        let seen = Arc::clone(&down);
        // A destination that is down refuses one key, or all.
        let streams = Streams::new(move |stream, record| {
            let refuses = weak == 0 || record.key.as_str() == format!("k{weak}");
            if refuses && seen.lock().unwrap().contains(&stream) {
                return Err(Trouble::retryable("x", "throttled"));
            }
            Ok(())
        });
        let (world, router) = World::new(streams, Letters::default(), Shards::default());
        let store = Arc::new(Memory::default());
        let router = router.with_progress(store.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut ever_broken = false;
        let mut ever_down: BTreeSet<&str> = BTreeSet::new();
        let mut pending = vec![whole.clone()];
        let mut steps = steps.into_iter();
        while let Some(event) = pending.pop() {
            let step = steps.next().unwrap_or(Step { down: vec![], bisect: false, broken: false });
            ever_broken |= step.broken;
            ever_down.extend(&step.down);
            store.broken.store(step.broken, Ordering::Relaxed);
            *down.lock().unwrap() = step.down;
            let report = runtime.block_on(router.handle(&event, &invocation())).unwrap();
            if let Some(failed) = report.failed {
                let mut left = rest(&event, &failed.sequence_number);
                if step.bisect && left.records.len() > 1 {
                    let second = left.records.split_off(left.records.len() / 2);
                    pending.push(Event { stream: left.stream.clone(), records: second });
                }
                pending.push(left);
            }
        }
        for (stream, wanted) in [("orders", [0, 2]), ("clicks", [1, 2]), ("default", [3, 3])] {
            let got = world.streams.records(stream);
            for key in 0..3 {
                let name = format!("k{key}");
                let expected: Vec<String> = kinds.iter().enumerate()
                    .filter(|(_, (kind, k, _))| wanted.contains(kind) && *k == key)
                    .map(|(i, _)| format!("{i:02}")).collect();
                let mut first = Vec::new();
                for record in got.iter().filter(|record| record.key.as_str() == name) {
                    let text = String::from_utf8(record.data.to_vec()).unwrap();
                    if !first.contains(&text) {
                        first.push(text);
                    }
                }
                prop_assert_eq!(first, expected, "{} {}", stream, key);
            }
            if !ever_broken && !ever_down.contains(stream) {
                let distinct: BTreeSet<&[u8]> = got.iter().map(|record| &record.data[..]).collect();
                prop_assert_eq!(distinct.len(), got.len(), "{} got repeats", stream);
            }
        }
        prop_assert!(ever_broken || store.entries.lock().unwrap().is_empty());
    }
}
