//! One destination takes nothing for five minutes: what that costs the others, by either policy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use aws_sdk_kinesis::primitives::Blob;
use headworks_local::faults::{Action, Fault};
use headworks_local::lambda::{Config, Function, Mapping};
use headworks_record::Record;
use headworks_router::{Event, Invocation, KinesisRecord, Load, Outbound, RouteTable, Router, Trouble};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::bootstrap::{PATIENCE, create, read, settings};
use crate::common::{Letters, SHARD, Shards, aggregate, record};
use crate::progress::Memory;

/// When the first record arrives.
const EPOCH_MS: u64 = 1_790_000_000_000;
/// How long records arrive.
const ARRIVALS: u64 = 420;
/// When `orders` takes nothing, in seconds.
const PRESSED: std::ops::Range<u64> = 30..330;
/// What Lambda gives an invocation.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A stream takes what it is given; while `orders` is pressed, it tries until a record's deadline, as a writer does.
struct Pressed {
    start: Instant,
    /// Stream and data to when it was stored.
    stored: Mutex<BTreeMap<(String, String), Vec<Instant>>>,
}

#[async_trait]
impl Outbound for Pressed {
    async fn put(&self, stream: &str, loads: Vec<Load>, _until: Instant) -> Vec<Result<(), Trouble>> {
        let mut outcomes = Vec::new();
        for put in loads.into_iter().flat_map(|load| load.into_puts().unwrap()) {
            let second = self.start.elapsed().as_secs();
            if stream == "orders" && PRESSED.contains(&second) {
                let release = self.start + Duration::from_secs(PRESSED.end);
                sleep_until(put.deadline.unwrap().min(release)).await;
            }
            if stream == "orders" && PRESSED.contains(&self.start.elapsed().as_secs()) {
                outcomes.push(Err(Trouble::unavailable("deadline-exceeded", "throttled")));
                continue;
            }
            let key = (stream.to_owned(), String::from_utf8(put.record.data.to_vec()).unwrap());
            self.stored.lock().unwrap().entry(key).or_default().push(Instant::now());
            outcomes.push(Ok(()));
        }
        outcomes
    }
}

/// What one run showed.
#[derive(Debug)]
struct Seen {
    /// By lane, the longest time from arrival to the first put of a record that is not for `orders`.
    delays: Vec<Duration>,
    /// Puts beyond the first of each record, by stream.
    repeats: BTreeMap<String, usize>,
    spilled: BTreeSet<String>,
    invocations: u64,
    waiting: Duration,
}

/// Three lanes of a shard, two of which carry orders; each worked on as an event source mapping does.
async fn run(rule: &str) -> Seen {
    let routes = format!(
        "[[rules]]\nwhen.type = \"order\"\nto = \"orders\"\n{rule}\n[[rules]]\nwhen.type = \"click\"\nto = \"clicks\"\n[default]\nto = \"default\"\n"
    );
    let start = Instant::now();
    let streams = Arc::new(Pressed { start, stored: Mutex::default() });
    let letters = Arc::new(Letters::default());
    let table = Arc::new(RouteTable::from_toml(&routes).unwrap());
    let clock = move || UNIX_EPOCH + Duration::from_millis(EPOCH_MS) + start.elapsed();
    let router = Router::new(table, streams.clone(), letters.clone(), Arc::new(Shards::default()))
        .with_progress(Arc::new(Memory::default()))
        .with_clock(Arc::new(move || -> SystemTime { clock() }));
    let router = Arc::new(router);
    let pressure = Arc::new(Mutex::new(Duration::ZERO));
    let lane = |lane: usize| {
        let (router, pressure) = (Arc::clone(&router), Arc::clone(&pressure));
        async move {
            let all: Vec<KinesisRecord> = (0..ARRIVALS)
                .map(|second| {
                    let data = |kind: &str| format!("{kind}-{lane}-{second}");
                    let mut records =
                        vec![record("k1", "click", &data("click")), record("k2", "view", &data("view"))];
                    if lane < 2 {
                        records.insert(1, record("k3", "order", &data("order")));
                    }
                    KinesisRecord {
                        shard: SHARD.into(),
                        sequence_number: format!("{}", 1_000_000 + second * 3 + lane as u64).into(),
                        partition_key: format!("hw/{SHARD}/{lane}").into(),
                        data: aggregate(&records),
                        arrival_ms: EPOCH_MS + second * 1000,
                    }
                })
                .collect();
            let mut next = 0;
            while next < all.len() {
                let arrived = (start.elapsed().as_secs() as usize + 1).min(all.len());
                if arrived == next {
                    sleep_until(start + Duration::from_secs(next as u64)).await;
                    continue;
                }
                let mut batch = next..arrived.min(next + 100);
                loop {
                    let event = Event { stream: "inbound".into(), records: all[batch.clone()].to_vec() };
                    let invocation = Invocation { deadline: Instant::now() + TIMEOUT, request_id: None };
                    let report = router.handle(&event, &invocation).await.unwrap();
                    if let Some(seen) = report.pressure.get("orders") {
                        let mut longest = pressure.lock().unwrap();
                        *longest = longest.max(seen.waiting);
                    }
                    assert!(report.pressure.keys().all(|stream| stream == "orders"));
                    let Some(failed) = report.failed else { break };
                    let at = all.iter().position(|r| r.sequence_number == failed.sequence_number).unwrap();
                    batch.start = at;
                    sleep(Duration::from_secs(1)).await;
                }
                next = batch.end;
            }
        }
    };
    tokio::join!(lane(0), lane(1), lane(2));

    let stored = streams.stored.lock().unwrap();
    let spilled: BTreeSet<String> = letters
        .written
        .lock()
        .unwrap()
        .iter()
        .map(|letter| {
            assert_eq!(letter.reasons[0].code, "destination-spilled");
            assert!(letter.reasons[0].message.contains("throttled"), "{:?}", letter.reasons);
            assert_eq!(letter.reasons[0].destination.as_deref(), Some("orders"));
            String::from_utf8(letter.data.to_vec()).unwrap()
        })
        .collect();
    let mut delays = vec![Duration::ZERO; 3];
    for (lane, longest) in delays.iter_mut().enumerate() {
        for second in 0..ARRIVALS {
            for (stream, kind) in [("clicks", "click"), ("default", "view"), ("orders", "order")] {
                if kind == "order" && lane == 2 {
                    continue;
                }
                let data = format!("{kind}-{lane}-{second}");
                let times = stored.get(&(stream.to_owned(), data.clone()));
                assert!(times.is_some() || (kind == "order" && spilled.contains(&data)), "{data} is lost");
                if let (Some(times), false) = (times, kind == "order") {
                    let delay = times[0] - (start + Duration::from_secs(second));
                    *longest = (*longest).max(delay);
                }
            }
        }
    }
    let mut repeats: BTreeMap<String, usize> = BTreeMap::new();
    for ((stream, _), times) in stored.iter() {
        *repeats.entry(stream.clone()).or_default() += times.len() - 1;
    }
    let stats = router.stats();
    assert_eq!(stats.counts.spilled, stats.destinations["orders"].spilled);
    let invocations = stats.batches;
    let waiting = *pressure.lock().unwrap();
    Seen { delays, repeats, spilled, invocations, waiting }
}

#[tokio::test(start_paused = true)]
async fn by_default_a_shards_lane_waits_and_nothing_is_repeated() {
    let seen = run("").await;
    eprintln!("block: {:?} {:?} {} {:?}", seen.delays, seen.repeats, seen.invocations, seen.waiting);
    assert!(seen.spilled.is_empty(), "throttling is never a dead letter");
    assert!(seen.repeats.values().all(|repeats| *repeats == 0), "{:?}", seen.repeats);
    let outage = Duration::from_secs(PRESSED.end - PRESSED.start);
    for lane in 0..2 {
        let most = outage + Duration::from_secs(5);
        assert!(seen.delays[lane] <= most, "{:?}", seen.delays);
        assert!(seen.delays[lane] >= outage - TIMEOUT, "the lane waits: {:?}", seen.delays);
    }
    assert!(seen.delays[2] <= Duration::from_secs(2), "a lane without orders goes on: {:?}", seen.delays);
    assert!(seen.waiting >= outage - TIMEOUT, "the pressure is visible: {:?}", seen.waiting);
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_spills_bounds_the_others_delay() {
    let seen = run("spill-after = \"20s\"").await;
    eprintln!("spill: {:?} {:?} {} {:?}", seen.delays, seen.repeats, seen.spilled.len(), seen.waiting);
    assert!(seen.repeats["clicks"] == 0 && seen.repeats["default"] == 0, "{:?}", seen.repeats);
    for delay in &seen.delays {
        assert!(*delay <= Duration::from_secs(25), "{:?}", seen.delays);
    }
    // What arrives while nothing is taken spills, the last of it is waited for.
    assert!((500..=600).contains(&seen.spilled.len()), "{}", seen.spilled.len());
}

/// Ten seconds after the records of [`crate::common::event`] arrived.
pub(crate) fn later() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(EPOCH_MS + 10_500)
}

#[tokio::test]
async fn each_route_has_its_own_policy() {
    let streams = crate::common::Streams::new(|stream, _| match stream {
        "calm" => Ok(()),
        _ => Err(Trouble::unavailable("deadline-exceeded", "throttled")),
    });
    let routes = r#"
        [[rules]]
        when.type = "soon"
        to = "pressed"
        spill-after = "2s"
        [[rules]]
        when.type = "late"
        to = "pressed-as-well"
        spill-after = "5m"
        [[rules]]
        when.type = "never"
        to = "waits"
        [default]
        to = "calm"
    "#;
    let (world, router) =
        crate::common::World::with_routes(routes, streams, Letters::default(), Shards::default());
    let router = router.with_clock(Arc::new(later));
    let one = |kind: &str| aggregate(&[record("k", kind, kind)]);
    let event = crate::common::event(["soon", "calm", "late", "never"].map(one).to_vec());
    let report = router.handle(&event, &crate::common::invocation()).await.unwrap();
    assert_eq!(world.letters.keys(), [format!("dead-letters/inbound/{SHARD}/100-0.json")]);
    assert_eq!(world.letters.written.lock().unwrap()[0].reasons[0].code, "destination-spilled");
    assert_eq!(&*report.failed.unwrap().sequence_number, "102", "the first that is to wait");
    assert_eq!(world.streams.data("calm"), ["calm"]);
    let seen = |stream: &str| (report.pressure[stream].spilled, report.pressure[stream].failed);
    assert_eq!([seen("pressed"), seen("pressed-as-well"), seen("waits")], [(1, 0), (0, 1), (0, 1)]);
}

#[tokio::test]
async fn a_spilled_record_that_cannot_be_buried_waits() {
    let streams =
        crate::common::Streams::new(|_, _| Err(Trouble::unavailable("deadline-exceeded", "throttled")));
    let routes = "[default]\nto = \"d\"\nspill-after = \"1s\"\n";
    let letters = Letters { broken: true, ..Letters::default() };
    let (_, router) = crate::common::World::with_routes(routes, streams, letters, Shards::default());
    let router = router.with_clock(Arc::new(later));
    let event = crate::common::event(vec![aggregate(&[record("k", "a", "x")])]);
    let report = router.handle(&event, &crate::common::invocation()).await.unwrap();
    assert_eq!(report.failed.unwrap().trouble.code(), "dead-letters-not-configured");
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_real_mapping_the_others_get_nothing_twice() {
    let stack = headworks_local::start().await.unwrap();
    create(&stack, &["inbound", "orders", "clicks"]).await;
    crate::progress::create_table(&stack.dynamodb()).await;
    let vars =
        [("HEADWORKS_PROGRESS_TABLE", "progress"), ("AWS_ENDPOINT_URL_DYNAMODB", &stack.dynamodb_endpoint())];
    let mut program = settings(&stack, &vars);
    program.timeout = Duration::from_secs(4);
    let function = Function::program(program).unwrap();
    let blob = |place: usize| {
        let data = format!("{place:02}");
        aggregate(&[record("k", "click", &data), record("k", "order.placed", &data)])
    };
    for place in 0..20 {
        let put = stack.kinesis().put_record().stream_name("inbound").data(Blob::new(blob(place)));
        put.partition_key("hw/shardId-000000000000/0").explicit_hash_key("0").send().await.unwrap();
    }
    let pressed = stack.faults().add(Fault::on("PutRecords", Action::Throttle).resource("orders")).unwrap();
    let config = Config {
        report_batch_item_failures: true,
        bisect_on_error: true,
        retry_backoff: Duration::from_millis(20),
        ..Config::new("inbound")
    };
    let mapping = Mapping::start(Arc::clone(stack.engine()), function.clone(), config).unwrap();
    let expected: Vec<String> = (0..20).map(|place| format!("{place:02}")).collect();
    let stored = async |stream: &str| -> Vec<String> {
        let data = |record: Record| String::from_utf8(record.data.to_vec()).unwrap();
        read(&stack, stream).await.into_iter().map(data).collect()
    };
    // What is late for one is late for the whole lane, but comes to the others while they wait for it.
    let tries = async {
        while function.counts().invocations < 3 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, tries).await.unwrap();
    assert!(stored("orders").await.is_empty());
    stack.faults().remove(pressed).unwrap();
    timeout(PATIENCE, mapping.wait_idle()).await.unwrap().unwrap();
    for stream in ["orders", "clicks"] {
        assert_eq!(stored(stream).await, expected, "{stream}: in order, each once");
    }
    assert!(mapping.counters().retries > 1, "{:?}", mapping.counters());
    mapping.shutdown().await;
    function.shutdown().await;
    stack.shutdown().await.unwrap();
}
