//! Measures the embedded stack: put throughput and its cost, memory under load, time to ready, idle memory, push delay.
//!
//! One JSON object for each figure on stdout, talk on stderr. The server is a process of its own. The raw clients send
//! bodies that were built beforehand, from plain sockets (HTTP/1.1) or hyper (HTTP/2), and only look at the length and
//! the failed count of answers: so that the client is not what is measured. The SDK's client builds, signs and reads as
//! it always does. Client and server share the machine's cores.
//!
//! The case with a data directory is bounded in records and in what the server holds, since a disk is not the
//! benchmark's to fill: see [`KEPT_CALLS`]. Its directory goes when it ends, well or not; what a benchmark that was
//! killed has left goes when the next one starts.
//!
//! `cargo bench -p headworks-local --bench kinesis`

// What ends a benchmark early is a fault of the benchmark.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod client;
mod server;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{ShardIteratorType, StartingPosition, SubscribeToShardEventStream};
use bytes::Bytes;
use headworks_local::kinesis::{self, Alone};
use headworks_local::{Config, Settings, Stack};
use tokio_util::sync::CancellationToken;

use client::{Count, cbor_body, json_body, payload, put_h1, put_h2c, put_sdk};
use server::{Scratch, Server, server_with_stream};

/// What the child process is.
const ROLE: &str = "HEADWORKS_BENCH_ROLE";
const RECORDS: usize = 500;
const PAYLOAD: usize = 1_000;
const WARM_UP: Duration = Duration::from_millis(700);
const MEASURED: Duration = Duration::from_secs(4);
const MAX_HELD: u64 = 512 << 20;
/// The bound of the case about memory, which is put several times over, and its variable.
const SMALL_HELD: u64 = 64 << 20;
const HELD: &str = "HEADWORKS_BENCH_HELD";
const TIMES_OVER: u64 = 8;
const SHARDS: i32 = 8;
/// Calls of the case with a data directory, of 500 records of 1,000 bytes: 300,000 records, 315 MB of log. With a
/// snapshot of what is held, and its successor while that is written, the directory stays below 600 MB.
const KEPT_CALLS: u64 = 600;
const KEPT_WARM_UP_CALLS: u64 = 100;
const KEPT_HELD: u64 = 128 << 20;
const DIR: &str = "HEADWORKS_BENCH_DIR";

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match std::env::var(ROLE).as_deref() {
        Ok("kinesis") => runtime.block_on(serve_kinesis()),
        Ok("stack") => runtime.block_on(serve_stack()),
        _ => bench(&runtime),
    }
}

/// Ends this process when the one that started it has ended, however that did.
fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
}

async fn serve_kinesis() {
    end_with_parent();
    let listener = kinesis::bind(0).await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    std::io::stdout().flush().unwrap();
    let held = std::env::var(HELD).map_or(MAX_HELD, |bytes| bytes.parse().unwrap());
    let settings = Settings { max_held_bytes: Some(held), ..Settings::default() };
    let data_dir = std::env::var_os(DIR).map(Into::into);
    let alone = Alone { settings, data_dir, ..Alone::default() };
    kinesis::serve(listener, alone, CancellationToken::new()).await.unwrap();
}

async fn serve_stack() {
    end_with_parent();
    let stack = Stack::start(Config::default()).await.unwrap();
    println!("{}", stack.kinesis_endpoint());
    std::io::stdout().flush().unwrap();
    std::future::pending::<()>().await;
}

fn bench(runtime: &tokio::runtime::Runtime) {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let runs = |case: &str| wanted.is_empty() || wanted.iter().any(|part| case.contains(part.as_str()));
    if runs("start") {
        start_and_idle();
    }
    for (name, content_type, body) in [
        ("json", "application/x-amz-json-1.1", json_body()),
        ("cbor", "application/x-amz-cbor-1.1", cbor_body()),
    ] {
        let body = Bytes::from(body);
        for protocol in ["h1", "h2c"] {
            let case = format!("put {protocol} {name}");
            if runs(&case) {
                put(&case, |address, count| match protocol {
                    "h1" => put_h1(address, content_type, &body, count),
                    _ => runtime.block_on(put_h2c(address, content_type, &body, count)),
                });
            }
        }
    }
    if runs("put h1 json kept") {
        put_kept();
    }
    if runs("memory") {
        memory();
    }
    if runs("put sdk json") {
        put("put sdk json", |address, count| runtime.block_on(put_sdk(address, count)));
    }
    if runs("push") {
        runtime.block_on(push_delay());
    }
}

fn figure(case: &str, metric: &str, value: f64, unit: &str) {
    println!(
        "{{\"part\":\"local\",\"case\":\"{case}\",\"metric\":\"{metric}\",\"value\":{value:.3},\"unit\":\"{unit}\",\
         \"against\":null,\"against_value\":null,\"ratio\":null}}"
    );
}

/// From the start of a process to all of its ports, and what it takes then.
fn start_and_idle() {
    let mut times: Vec<f64> = Vec::new();
    let mut rss = 0.0_f64;
    for _ in 0..9 {
        let started = Instant::now();
        let server = Server::start("stack");
        TcpStream::connect(server.1).unwrap();
        times.push(started.elapsed().as_secs_f64() * 1_000.0);
        std::thread::sleep(Duration::from_millis(300));
        rss = rss.max(server.rss_mib());
    }
    times.sort_by(f64::total_cmp);
    figure("start of the whole stack, as a process", "ready_ms", times[times.len() / 2], "ms");
    figure("idle, the whole stack", "rss_mib", rss, "MiB");
}

/// Runs the clients, and measures between the two waits.
fn measure(
    case: &str,
    server: &Server,
    warm_up: impl FnOnce(&Count) + Send,
    measured: impl FnOnce(&Count) + Send,
    run: impl FnOnce(SocketAddr, &Arc<Count>),
) {
    let count = Arc::new(Count::default());
    std::thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            warm_up(&count);
            let before = (Instant::now(), server.cpu_s(), count.calls.load(Ordering::Relaxed));
            measured(&count);
            let after = (Instant::now(), server.cpu_s(), count.calls.load(Ordering::Relaxed));
            count.stop.store(true, Ordering::Relaxed);
            let records = (after.2 - before.2) as f64 * RECORDS as f64;
            (records / (after.0 - before.0).as_secs_f64(), (after.1 - before.1) * 1e9 / records)
        });
        run(server.1, &count);
        let (per_s, cpu_ns) = measuring.join().unwrap();
        figure(case, "records_per_s", per_s, "records/s");
        figure(case, "cpu_ns_per_record", cpu_ns, "ns");
        figure(case, "rss_mib", server.rss_mib(), "MiB");
    });
}

fn put(case: &str, run: impl FnOnce(SocketAddr, &Arc<Count>)) {
    let server = server_with_stream(|_| {});
    let wait = |time| move |_: &Count| std::thread::sleep(time);
    measure(case, &server, wait(WARM_UP), wait(MEASURED), run);
    eprintln!("{case}: the server may hold {} MiB", MAX_HELD >> 20);
}

/// Puts that are kept in a directory before they are answered, a fixed number of them.
fn put_kept() {
    let case = "put h1 json kept";
    // Dropped last, when the server has ended.
    let scratch = Scratch::new("kinesis-bench");
    let server = server_with_stream(|command| {
        command.env(DIR, &scratch.0).env(HELD, KEPT_HELD.to_string());
    });
    let body = Bytes::from(json_body());
    let most = AtomicU64::new(0);
    let look = || {
        most.fetch_max(scratch.bytes(), Ordering::Relaxed);
    };
    measure(
        case,
        &server,
        |count| count.wait_for(KEPT_WARM_UP_CALLS, look),
        |count| count.wait_for(KEPT_CALLS, look),
        |address, count| put_h1(address, "application/x-amz-json-1.1", &body, count),
    );
    look();
    figure(case, "disk_most_mib", (most.load(Ordering::Relaxed) >> 20) as f64, "MiB");
    eprintln!(
        "{case}: {} records after {} to warm up; the server may hold {} MiB; its directory is removed",
        (KEPT_CALLS - KEPT_WARM_UP_CALLS) * RECORDS as u64,
        KEPT_WARM_UP_CALLS * RECORDS as u64,
        KEPT_HELD >> 20
    );
}

/// What a process takes whose shards have been put several times what they may hold, in comparison to that bound.
fn memory() {
    let case = format!("memory, put {TIMES_OVER} times a bound of {} MiB", SMALL_HELD >> 20);
    let server = server_with_stream(|command| {
        command.env(HELD, SMALL_HELD.to_string());
    });
    let idle = server.rss_mib();
    let body = Bytes::from(json_body());
    let count = Arc::new(Count::default());
    let calls = TIMES_OVER * SMALL_HELD / (RECORDS * PAYLOAD) as u64;
    let mut most = 0.0_f64;
    std::thread::scope(|scope| {
        scope.spawn(|| put_h1(server.1, "application/x-amz-json-1.1", &body, &count));
        count.wait_for(calls, || most = most.max(server.rss_mib()));
        count.stop.store(true, Ordering::Relaxed);
    });
    most = most.max(server.rss_mib());
    figure(&case, "rss_idle_mib", idle, "MiB");
    figure(&case, "rss_most_mib", most, "MiB");
    figure(&case, "rss_per_bound", (most - idle) / (SMALL_HELD >> 20) as f64, "ratio");
}

/// From the start of a put to the event that brings its record, both through the SDK.
async fn push_delay() {
    const PUTS: usize = 2_000;
    let server = Server::start("kinesis");
    let client = server.client();
    client.create_stream().stream_name("s").shard_count(1).send().await.unwrap();
    let summary = client.describe_stream_summary().stream_name("s").send().await.unwrap();
    let arn = summary.stream_description_summary.unwrap().stream_arn;
    let consumer = client.register_stream_consumer().stream_arn(arn).consumer_name("c").send().await.unwrap();
    let start = StartingPosition::builder().r#type(ShardIteratorType::TrimHorizon).build().unwrap();
    let mut events = client
        .subscribe_to_shard()
        .consumer_arn(consumer.consumer.unwrap().consumer_arn)
        .shard_id("shardId-000000000000")
        .starting_position(start)
        .send()
        .await
        .unwrap()
        .event_stream;
    let reader = tokio::spawn(async move {
        let mut seen = BTreeMap::new();
        while seen.len() < PUTS {
            let Ok(Some(SubscribeToShardEventStream::SubscribeToShardEvent(event))) = events.recv().await
            else {
                panic!("the subscription ended");
            };
            let now = Instant::now();
            for record in event.records {
                seen.insert(record.partition_key.unwrap_or_default(), now);
            }
        }
        seen
    });
    let mut sent = BTreeMap::new();
    for n in 0..PUTS {
        let key = n.to_string();
        sent.insert(key.clone(), Instant::now());
        let put = client.put_record().stream_name("s").partition_key(key).data(Blob::new(payload(n)));
        put.send().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let seen = reader.await.unwrap();
    let mut delays: Vec<f64> = sent
        .iter()
        .map(|(key, at)| seen[key].saturating_duration_since(*at).as_secs_f64() * 1_000.0)
        .collect();
    delays.sort_by(f64::total_cmp);
    figure("push, from the put to the event, by SDK", "p50_ms", delays[PUTS / 2], "ms");
    figure("push, from the put to the event, by SDK", "p99_ms", delays[PUTS * 99 / 100], "ms");
}
