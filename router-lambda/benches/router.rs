//! What a record costs the router, against the floor that the formats force on anyone: MD5 of the blob and of each
//! key, SHA-256 of what is signed when it is put.
//!
//! An event of 6 MB goes from its JSON text to stored records, through the real client, into a sink on the same
//! machine. CPU time is that of every thread of the process but the sink's; the floor is measured in the same run,
//! on the bytes that were put. Prints one JSON object per figure and line on stdout, and talks on stderr.
//!
//! With `event CASE FILE` it writes the event of a case into a file, prints how many records are in it, and ends:
//! peers are given the same records. Their payload is JSON that names the type again, for routers that read no headers.
//! With `case CASE EVENTS` it handles so many events of one case and ends, with nothing else in the process: for profilers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "a bench fails by panicking"
)]

#[path = "router/cold.rs"]
mod cold;
#[path = "router/cpu.rs"]
mod cpu;
#[path = "router/sink.rs"]
mod sink;

use std::alloc::System;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use headworks_record::aggregate::Builder;
use headworks_record::{Creation, HashRange, Headers, LaneCount, Record};
use headworks_router::{
    EXAMPLE_ROUTES, Event, Invocation, KinesisShards, NoDeadLetters, RouteTable, Router, Writers, route,
    writer_config,
};
use headworks_telemetry::RecordTracer;
use md5::{Digest, Md5};
use serde_json::json;
use sha2::Sha256;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::time::Instant;

use crate::sink::Sink;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What Lambda hands over at most.
const EVENT_BYTES: usize = 6 * 1024 * 1024;
const AGGREGATE_BYTES: usize = 100 * 1024;

/// Events of one kind: how many destinations their records part to, and how large payloads are.
struct Case {
    name: &'static str,
    ways: usize,
    payload: usize,
    /// Lanes of every shard, inbound and outbound.
    lanes: u16,
}

/// As many lanes as the templates of `infra/` make.
const LANES: u16 = 8;

const CASES: [Case; 5] = [
    Case { name: "pass-through", ways: 1, payload: 200, lanes: LANES },
    Case { name: "pass-through, one lane", ways: 1, payload: 200, lanes: 1 },
    Case { name: "two-way", ways: 2, payload: 200, lanes: LANES },
    Case { name: "ten-way", ways: 10, payload: 200, lanes: LANES },
    Case { name: "many-tiny-records", ways: 2, payload: 20, lanes: LANES },
];

fn main() {
    let given: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if let [command, case, path] = &given[..]
        && command == "event"
    {
        let case = CASES.iter().find(|known| known.name == case).expect("the name of a case");
        let (text, blobs) = event(case, EVENT_BYTES);
        std::fs::write(path, text).unwrap();
        println!("{}", blobs.iter().map(|(_, keys)| keys.len()).sum::<usize>());
        return;
    }
    if let [command, case, events] = &given[..]
        && command == "case"
    {
        let case = CASES.iter().find(|known| known.name == case).expect("the name of a case");
        let handled = Bench::start(case);
        (0..events.parse::<usize>().expect("a number of events")).for_each(|_| handled.once());
        return;
    }
    // `cargo test --benches` runs this too, to see that it works.
    let quick = std::env::args().any(|arg| arg == "--test") || !std::env::args().any(|arg| arg == "--bench");
    routing(if quick { 1_000 } else { 3_000_000 });
    for case in &CASES {
        whole(case, if quick { 0 } else { 2_000_000_000 });
    }
    let case = Case { name: "cold", ways: 2, payload: 200, lanes: LANES };
    let sink = Sink::start(case.lanes);
    let (small, _) = event(&case, 50_000);
    let mut starts: Vec<f64> =
        (0..if quick { 1 } else { 21 }).map(|_| cold::start(&sink, &small).ms).collect();
    starts.sort_by(f64::total_cmp);
    figure("cold-start", "cold_start_ms", starts[starts.len() / 2], "ms", None);
    let (largest, _) = event(&case, EVENT_BYTES);
    figure("largest-event", "rss_mib", cold::start(&sink, &largest).peak_mib, "MiB", None);
}

fn figure(case: &str, metric: &str, value: f64, unit: &str, floor: Option<f64>) {
    let line = json!({
        "part": "router", "case": case, "metric": metric, "value": value, "unit": unit,
        "against": floor.map(|_| "floor"), "against_value": floor, "ratio": floor.map(|floor| value / floor),
    });
    println!("{line}");
}

/// `route()` alone, with the example's table and a record's usual headers.
fn routing(times: u64) {
    let table = RouteTable::from_toml(EXAMPLE_ROUTES).unwrap();
    let kinds = ["order.placed", "payment.failed", "page.view", "cart.add", "click", "login"];
    let all: Vec<Headers> = kinds
        .iter()
        .map(|kind| {
            let mut headers = Headers::new();
            headers.set("source", "web").unwrap();
            headers.set("type", *kind).unwrap();
            headers
        })
        .collect();
    let begun = cpu::now();
    for i in 0..times {
        black_box(route(black_box(&all[i as usize % all.len()]), &table).len());
    }
    let each = (cpu::now() - begun) as f64 / times as f64;
    figure("route", "cpu_ns_per_record", each, "ns", None);
}

/// An event's JSON text, and its records as blobs with their keys. A blob holds records of one lane, as writers put them.
fn event(case: &Case, bytes: usize) -> (String, Vec<(Bytes, Vec<String>)>) {
    let (lanes, shard) = (LaneCount::new(case.lanes).unwrap(), HashRange::new(0, u128::MAX));
    let mut open: Vec<(Builder, Vec<String>)> = (0..case.lanes).map(|_| Default::default()).collect();
    let mut text = r#"{"Records":["#.to_owned();
    let mut blobs = Vec::new();
    for count in 0usize.. {
        let mut random = [0; 18];
        random[..8].copy_from_slice(&(count as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        random[10..].copy_from_slice(&(count as u64 + 1).to_be_bytes());
        let key = format!("session-{:08}", count % 5000);
        let record = Record::builder(key.clone())
            .unwrap()
            .header("type", format!("t{}", count % case.ways))
            .unwrap()
            .header("source", "web")
            .unwrap()
            .creation(Creation::mint(1_790_000_000_000, random))
            .data(payload(count % case.ways, case.payload))
            .build();
        let lane = lanes.lane_of(&shard, record.hash_key());
        let (builder, keys) = &mut open[usize::from(lane)];
        builder.push(&record);
        keys.push(key);
        if builder.len() < AGGREGATE_BYTES - case.payload - 200 {
            continue;
        }
        let (blob, keys) = (builder.take(), std::mem::take(keys));
        let found = json!({
            "kinesis": {
                "kinesisSchemaVersion": "1.0", "partitionKey": format!("hw/shardId-000000000000/{lane}"),
                "sequenceNumber": format!("496700000000000000000000000000000000000000000000{:08}", blobs.len()),
                "data": base64::engine::general_purpose::STANDARD.encode(&blob),
                "approximateArrivalTimestamp": 1_790_000_000.5,
            },
            "eventSource": "aws:kinesis", "eventVersion": "1.0", "eventID": "shardId-000000000000:7",
            "eventName": "aws:kinesis:record", "invokeIdentityArn": "arn:aws:iam::000000000000:role/r",
            "awsRegion": "us-east-1", "eventSourceARN": "arn:aws:kinesis:us-east-1:000000000000:stream/inbound",
        });
        let found = found.to_string();
        if !blobs.is_empty() && text.len() + found.len() + 3 > bytes {
            break;
        }
        if !blobs.is_empty() {
            text.push(',');
        }
        text.push_str(&found);
        blobs.push((blob, keys));
    }
    text.push_str("]}");
    (text, blobs)
}

/// JSON of this size that names the type.
fn payload(way: usize, bytes: usize) -> String {
    let begin = format!(r#"{{"type":"t{way}","x":""#);
    format!("{begin}{}\"}}", "x".repeat(bytes - begin.len() - 2))
}

fn table(ways: usize) -> RouteTable {
    let rules: String =
        (1..ways).map(|i| format!("[[rules]]\nwhen.type = \"t{i}\"\nto = \"out-{i}\"\n")).collect();
    RouteTable::from_toml(&format!("{rules}[default]\nto = \"out-0\"\n")).unwrap()
}

/// A router, its sink, and the event that it is given.
struct Bench {
    sink: Sink,
    text: String,
    blobs: Vec<(Bytes, Vec<String>)>,
    records: usize,
    runtime: tokio::runtime::Runtime,
    router: Router,
}

impl Bench {
    fn start(case: &Case) -> Self {
        let sink = Sink::start(case.lanes);
        let (text, blobs) = event(case, EVENT_BYTES);
        let records: usize = blobs.iter().map(|(_, keys)| keys.len()).sum();
        let (name, aggregates) = (case.name, blobs.len());
        eprintln!("{name}: an event of {} bytes, {aggregates} aggregates, {records} records", text.len());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let entered = runtime.enter();
        let writers = Writers::new(sink.client(), writer_config(), RecordTracer::disabled()).unwrap();
        let shards = Arc::new(KinesisShards::new(sink.client()));
        let table = Arc::new(table(case.ways));
        let router = Router::new(table, Arc::new(writers), Arc::new(NoDeadLetters), shards);
        drop(entered);
        let bench = Self { sink, text, blobs, records, runtime, router };
        // Writers start, connections open.
        bench.once();
        bench
    }

    /// An event from its text to stored records.
    fn once(&self) {
        let _entered = self.runtime.enter();
        let event = Event::parse(self.text.as_bytes()).unwrap();
        let invocation = Invocation { deadline: Instant::now() + Duration::from_secs(60), request_id: None };
        let report = self.runtime.block_on(self.router.handle(&event, &invocation)).unwrap();
        assert!(report.failed.is_none(), "{:?}", report.failed);
        assert_eq!(report.counts.stored as usize, self.records);
    }
}

const ROUNDS: u64 = 5;

/// What an event costs a record in the best of several rounds, since the machine does other things too.
fn best(records: usize, round_ns: u64, mut event: impl FnMut()) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let (begun, mut events) = (cpu::now(), 0);
        while events == 0 || cpu::now() - begun < round_ns {
            event();
            events += 1;
        }
        (cpu::now() - begun) as f64 / (events * records) as f64
    });
    rounds.fold(f64::INFINITY, f64::min)
}

/// A case over and over for so much CPU time, and its floor.
fn whole(case: &Case, budget_ns: u64) {
    let bench = Bench::start(case);
    let Bench { sink, blobs, records, .. } = &bench;
    let records = *records;
    let bytes: usize = blobs.iter().map(|(blob, _)| blob.len()).sum();

    sink.signed.store(0, Ordering::Relaxed);
    let region = Region::new(ALLOCATOR);
    let mut times = 0;
    let each = best(records, budget_ns / ROUNDS, || {
        bench.once();
        times += 1;
    });
    let allocated = region.change();
    let signed = sink.signed.load(Ordering::Relaxed) as usize / times;

    let body = vec![b'x'; signed];
    let floor = best(records, budget_ns / ROUNDS, || {
        for (blob, keys) in blobs {
            black_box(Md5::digest(blob));
            for key in keys {
                black_box(Md5::digest(key));
            }
        }
        black_box(Sha256::digest(&body));
    });
    eprintln!("{}: {times} events, {signed} bytes signed per event", case.name);
    figure(case.name, "cpu_ns_per_record", each, "ns", Some(floor));
    let mb_per_s = |ns: f64| bytes as f64 / records as f64 / ns * 1e3;
    figure(case.name, "mb_per_s_per_core", mb_per_s(each), "MB/s", Some(mb_per_s(floor)));
    let per_record = allocated.allocations as f64 / (times * records) as f64;
    // Those of the sink are among them, a few for each call.
    figure(case.name, "allocations_per_record", per_record, "1", None);
}
