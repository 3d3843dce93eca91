//! Lanes of one shard side by side: labels of the real writer, an event source mapping with a parallelization factor, the
//! real `bootstrap` in several processes, while calls fail, functions die and the inbound stream is split.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use headworks_local::Stack;
use headworks_local::faults::{Action, Fault, When};
use headworks_local::lambda::{Config, Function, FunctionError, Mapping};
use headworks_record::aggregate::{Decoded, decode};
use headworks_record::ownership::{Foreign, Verdict, verdict};
use headworks_record::{HashRange, Lane, LaneCount, Record};
use headworks_router::Event;
use headworks_telemetry::RecordTracer;
use headworks_writer::{Handle, KinesisStream, LANES_TAG, Put, Writer};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::bootstrap::{PATIENCE, create_with, read, read_shards, settings};
use crate::common::record;

const KEYS: usize = 24;
/// Each brings a record of every key.
const ROUNDS: usize = 32;
const KINDS: [&str; 4] = ["order", "click", "sale", "noise"];
const TABLE: &str = r#"
mode = "all-matches"
[[rules]]
when.type.one-of = ["order", "sale"]
to = "orders"
[[rules]]
when.type.one-of = ["click", "sale"]
to = "clicks"
[[rules]]
when.type = "noise"
drop = true
[default]
to = "rest"
"#;
/// What an invocation may take.
const LIMIT: Duration = Duration::from_secs(3);
const PARENT: &str = "shardId-000000000000";
/// Within the third of four lanes: what that lane has in flight has members on both sides.
const CUT: u128 = 5 << 125;

/// What the mapping was seen to do.
#[derive(Debug, Default)]
struct Seen {
    calls: u64,
    /// By call, the lanes of the batch: shard and partition key.
    running: BTreeMap<u64, BTreeSet<(String, String)>>,
    /// Different lanes of one shard that were worked on at the same time.
    together: BTreeSet<[(String, String); 2]>,
    /// Lanes that were worked on twice at a time: never.
    twice: BTreeSet<(String, String)>,
    /// Batches that failed as a whole: first sequence number to length.
    failed: BTreeMap<String, usize>,
    /// Halves of such batches.
    halves: u32,
    /// Batches of which a part failed.
    parts: u32,
}

impl Seen {
    fn begin(&mut self, event: &Event) -> u64 {
        self.calls += 1;
        let lane = |found: &headworks_router::KinesisRecord| {
            (found.shard.to_string(), found.partition_key.to_string())
        };
        let lanes: BTreeSet<_> = event.records.iter().map(lane).collect();
        for other in self.running.values().flatten() {
            if lanes.contains(other) {
                self.twice.insert(other.clone());
                continue;
            }
            let beside = lanes.iter().filter(|lane| lane.0 == other.0);
            self.together.extend(
                beside.map(|lane| [lane.clone().min(other.clone()), lane.clone().max(other.clone())]),
            );
        }
        let first = event.records[0].sequence_number.to_string();
        self.halves +=
            u32::from(self.failed.get(&first).is_some_and(|whole| whole / 2 == event.records.len()));
        self.running.insert(self.calls, lanes);
        self.calls
    }

    fn end(&mut self, call: u64, event: &Event, answer: &Result<bytes::Bytes, FunctionError>) {
        self.running.remove(&call);
        match answer {
            Ok(answer) => self.parts += u32::from(answer.windows(14).any(|name| name == b"itemIdentifier")),
            Err(_) => {
                self.failed.insert(event.records[0].sequence_number.to_string(), event.records.len());
            }
        }
    }
}

/// The function as the mapping calls it. `die` kills one call's process in the middle; of every fifth call the answer is
/// lost, although all its work is done.
fn watched(function: Function, seen: Arc<watch::Sender<Seen>>, die: Arc<Notify>) -> Function {
    Function::from_fn("router", move |payload| {
        let (function, seen, die) = (function.clone(), Arc::clone(&seen), Arc::clone(&die));
        async move {
            let event = Event::parse(&payload).unwrap();
            let mut call = 0;
            seen.send_modify(|seen| call = seen.begin(&event));
            let answer = tokio::select! {
                answer = function.invoke(payload) => match call % 5 {
                    0 => Err(FunctionError::Exited { status: "after its work".to_owned() }),
                    _ => answer,
                },
                // An invocation that is dropped takes its process with it.
                () = die.notified() => Err(FunctionError::Timeout { limit: LIMIT }),
            };
            seen.send_modify(|seen| seen.end(call, &event, &answer));
            answer
        }
    })
    .unwrap()
}

fn sent(round: usize) -> Vec<Record> {
    let one = |key: usize| record(&format!("key-{key}"), kind(key, round), &format!("{round:02}-{key:02}"));
    (0..KEYS).map(one).collect()
}

fn kind(key: usize, round: usize) -> &'static str {
    KINDS[(key + round) % 4]
}

async fn put(inbound: &Handle, rounds: std::ops::Range<usize>) {
    for round in rounds {
        let puts = sent(round).into_iter().map(Put::new).collect();
        for outcome in inbound.put(puts).await.unwrap().await {
            outcome.unwrap();
        }
    }
}

/// Every lane has several keys, and the one that is cut has some on either side.
fn check_keys() {
    let hashes: Vec<_> = sent(0).iter().map(Record::hash_key).collect();
    for lane in 0..4 {
        let mine =
            hashes.iter().filter(|hash| LaneCount::new(4).unwrap().lane_of(&HashRange::ALL, **hash) == lane);
        let mine: Vec<u128> = mine.map(|hash| hash.0).collect();
        assert!(mine.len() > 1, "lane {lane}");
        assert!(lane != 2 || (mine.iter().any(|hash| *hash < CUT) && mine.iter().any(|hash| *hash >= CUT)));
    }
}

async fn tag(stack: &Stack, stream: &str, lanes: u16) {
    stack
        .kinesis()
        .add_tags_to_stream()
        .stream_name(stream)
        .tags(LANES_TAG, lanes.to_string())
        .send()
        .await
        .unwrap();
}

/// Puts of both destinations are throttled in part and as a whole, fail, and are stored without an answer.
fn trouble(stack: &Stack) {
    for stream in ["orders", "clicks"] {
        let failure = Action::Error { code: "InternalFailure".to_owned(), status: None };
        let actions = [(Action::Throttle, 4), (Action::ThrottleCall, 6), (failure, 11), (Action::Lost, 9)];
        for (action, every) in actions {
            let mut fault = Fault::on("PutRecords", action).resource(stream);
            fault.when = When::Every(every);
            stack.faults().add(fault).unwrap();
        }
    }
    // One lane of each of its shards takes nothing for about as long as an invocation lasts.
    let lane = Fault::on("PutRecords", Action::Throttle).resource("orders").key("/2");
    stack.faults().add(lane.times(9)).unwrap();
}

/// The mapping is past everything, nothing was given up, and it had to try again on the way.
fn check_end(mapping: &headworks_local::lambda::Handle, records: u64) {
    let counters = mapping.counters();
    eprintln!("{counters:?}");
    assert_eq!((counters.records, counters.discarded, counters.iterator_age_ms), (records, 0, 0));
    assert!(counters.failures > 0 && counters.retries > 0, "{counters:?}");
    let shards = mapping.shards();
    assert_eq!(shards.len(), 3);
    assert!(shards.iter().all(|shard| shard.unfinished.is_none()), "{shards:?}");
    assert!(shards.iter().any(|shard| shard.shard_id == PARENT && shard.finished), "{shards:?}");
}

fn check_seen(seen: &Seen) {
    eprintln!(
        "{} calls, {} halves, {} parts, {} pairs",
        seen.calls,
        seen.halves,
        seen.parts,
        seen.together.len()
    );
    let ours = |(shard, label): &(String, String)| Lane::shard_of(label) == Some(shard);
    assert!(seen.together.iter().any(|pair| pair.iter().all(ours)), "lanes of one shard side by side");
    assert!(seen.twice.is_empty(), "no lane is worked on twice at a time: {:?}", seen.twice);
    assert!(seen.halves > 0 && seen.parts > 0, "batches were cut in two, and answered in part");
}

/// What was in flight at the split was put again; a reader of a child had to skip what is not all its own.
async fn check_split(stack: &Stack, inbound: &Handle) {
    assert!(inbound.stats().misplaced > 0, "{:?}", inbound.stats());
    let mut skipped = 0;
    for (shard, found) in read_shards(stack, "inbound").await {
        let bounds = shard.hash_key_range().unwrap();
        let [start, end] =
            [bounds.starting_hash_key(), bounds.ending_hash_key()].map(|key| key.parse().unwrap());
        let (label, data) = (found.partition_key.unwrap(), found.data.into_inner().into());
        let Decoded::Aggregate(aggregate) = decode(&data).unwrap() else { panic!("an aggregate") };
        let (id, range) = (shard.shard_id().into(), HashRange::new(start, end));
        let verdict = verdict(&aggregate, &label, &id, &range, Foreign::Deliver).unwrap();
        skipped += u32::from(matches!(verdict, Verdict::Misplaced { .. }));
    }
    assert!(skipped > 0, "the split parted an aggregate");
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_side_by_side_keep_every_keys_order_and_lose_nothing() {
    check_keys();
    let stack = headworks_local::start().await.unwrap();
    create_with(&stack, &["inbound", "clicks", "rest"], 1).await;
    create_with(&stack, &["orders"], 2).await;
    tag(&stack, "inbound", 4).await;
    tag(&stack, "orders", 3).await;
    crate::progress::create_table(&stack.dynamodb()).await;
    let directory = tempfile::tempdir().unwrap();
    let routes = directory.path().join("routes.toml");
    std::fs::write(&routes, TABLE).unwrap();

    let stream = KinesisStream::new(stack.kinesis(), "inbound");
    let config = headworks_writer::Config { linger_ms: 0, fill_ms: 0, ..Default::default() };
    let (service, inbound) = Writer::start(config, stream, RecordTracer::disabled()).await.unwrap();
    let stop = CancellationToken::new();
    let service = tokio::spawn(service.run(stop.clone()));
    put(&inbound, 0..ROUNDS / 2).await;

    trouble(&stack);
    // Longer than any test runs: no first call is answered, those of orders are stored all the same.
    let hour = Duration::from_secs(3600);
    let stalls = [("clicks", Action::Delay(hour)), ("orders", Action::DelayAfterCommit(hour))].map(
        |(stream, action)| stack.faults().add(Fault::on("PutRecords", action).resource(stream)).unwrap(),
    );
    let vars = [
        ("HEADWORKS_ROUTES", routes.to_str().unwrap()),
        ("HEADWORKS_PROGRESS_TABLE", "progress"),
        ("AWS_ENDPOINT_URL_DYNAMODB", &stack.dynamodb_endpoint()),
    ];
    let mut program = settings(&stack, &vars);
    program.timeout = LIMIT;
    let function = Function::program(program).unwrap();
    let (seen, die) = (Arc::new(watch::Sender::new(Seen::default())), Arc::new(Notify::new()));
    let config = Config {
        batch_size: 8,
        parallelization_factor: 4,
        report_batch_item_failures: true,
        bisect_on_error: true,
        retry_backoff: Duration::from_millis(20),
        retry_backoff_max: Duration::from_millis(200),
        ..Config::new("inbound")
    };
    let watched = watched(function.clone(), Arc::clone(&seen), Arc::clone(&die));
    let mapping = Mapping::start(Arc::clone(stack.engine()), watched, config).unwrap();

    // Two lanes are in the hands of two processes, whose puts hang; one of those dies.
    let mut seeing = seen.subscribe();
    timeout(PATIENCE, seeing.wait_for(|seen| !seen.together.is_empty())).await.unwrap().unwrap();
    let hanging = async {
        // A stalled call outlives its invocation, so two of them on one lane are those of two processes.
        let fired = || stalls.map(|stall| stack.faults().fired(stall));
        while fired()[0] < 2 || fired()[1] == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, hanging).await.unwrap();
    assert!(function.counts().environments_started > 1);
    die.notify_one();
    timeout(PATIENCE, seeing.wait_for(|seen| !seen.failed.is_empty())).await.unwrap().unwrap();
    for stall in stalls {
        stack.faults().remove(stall).unwrap();
    }

    // The shard is split while it is worked on; the writer finds out by its next puts.
    let split = stack.kinesis().split_shard().stream_name("inbound").shard_to_split(PARENT);
    split.new_starting_hash_key(CUT.to_string()).send().await.unwrap();
    put(&inbound, ROUNDS / 2..ROUNDS).await;
    timeout(PATIENCE * 3, mapping.wait_idle()).await.unwrap().unwrap();

    for (stream, kinds) in [("orders", ["order", "sale"]), ("clicks", ["click", "sale"])] {
        let mut firsts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for record in read(&stack, stream).await {
            let data = String::from_utf8(record.data.to_vec()).unwrap();
            let known = firsts.entry(record.key.as_str().to_owned()).or_default();
            if !known.contains(&data) {
                known.push(data);
            }
        }
        let of = |key: usize| -> Vec<String> {
            let mine = (0..ROUNDS).filter(|round| kinds.contains(&kind(key, *round)));
            mine.map(|round| format!("{round:02}-{key:02}")).collect()
        };
        let expected: BTreeMap<_, _> = (0..KEYS).map(|key| (format!("key-{key}"), of(key))).collect();
        assert_eq!(firsts, expected, "{stream}");
    }
    assert!(read(&stack, "rest").await.is_empty());
    let lanes: BTreeSet<_> =
        read_shards(&stack, "orders").await.into_iter().map(|(_, found)| found.partition_key).collect();
    assert!(lanes.len() > 2, "several lanes on two shards: {lanes:?}");

    check_split(&stack, &inbound).await;
    check_end(&mapping, read_shards(&stack, "inbound").await.len() as u64);
    check_seen(&seen.borrow());
    for fault in stack.faults().list() {
        assert!(fault.fired > 0, "{}", fault.fault);
    }
    mapping.shutdown().await;
    function.shutdown().await;
    stop.cancel();
    service.await.unwrap();
    stack.shutdown().await.unwrap();
}
