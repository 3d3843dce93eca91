//! Measures the embedded stack: put throughput and its cost, memory under load, time to ready, idle memory, push delay.
//!
//! One JSON object for each figure on stdout, talk on stderr. The server is a process of its own. The raw clients send
//! bodies that were built beforehand, from plain sockets (HTTP/1.1) or hyper (HTTP/2), and only look at the length and
//! the failed count of answers: so that the client is not what is measured. The SDK's client builds, signs and reads as
//! it always does. Client and server share the machine's cores.
//!
//! `cargo bench -p headworks-local --bench kinesis`

// What ends a benchmark early is a fault of the benchmark.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{
    PutRecordsRequestEntry, ShardIteratorType, StartingPosition, SubscribeToShardEventStream,
};
use base64::Engine as _;
use bytes::Bytes;
use headworks_local::kinesis::{self, Alone};
use headworks_local::{Config, Settings, Stack};
use http_body_util::{BodyExt, Full};
use tokio_util::sync::CancellationToken;

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

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match std::env::var(ROLE).as_deref() {
        Ok("kinesis") => runtime.block_on(serve_kinesis()),
        Ok("stack") => runtime.block_on(serve_stack()),
        _ => bench(&runtime),
    }
}

async fn serve_kinesis() {
    let listener = kinesis::bind(0).await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    std::io::stdout().flush().unwrap();
    let held = std::env::var(HELD).map_or(MAX_HELD, |bytes| bytes.parse().unwrap());
    let settings = Settings { max_held_bytes: Some(held), ..Settings::default() };
    let data_dir = std::env::var_os("HEADWORKS_BENCH_DIR").map(Into::into);
    let alone = Alone { settings, data_dir, ..Alone::default() };
    kinesis::serve(listener, alone, CancellationToken::new()).await.unwrap();
}

async fn serve_stack() {
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
                put(&case, None, |address, count| match protocol {
                    "h1" => put_h1(address, content_type, &body, count),
                    _ => runtime.block_on(put_h2c(address, content_type, &body, count)),
                });
            }
        }
    }
    if runs("put h1 json kept") {
        let dir = tempfile::tempdir().unwrap();
        let body = Bytes::from(json_body());
        put("put h1 json kept", Some(dir.path()), |address, count| {
            put_h1(address, "application/x-amz-json-1.1", &body, count);
        });
    }
    if runs("memory") {
        memory();
    }
    if runs("put sdk json") {
        put("put sdk json", None, |address, count| runtime.block_on(put_sdk(address, count)));
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

/// A child of this program, which ends with its handle.
struct Server(Child, SocketAddr);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    fn start(role: &str, dir: Option<&std::path::Path>) -> Self {
        Self::start_with(role, |command| {
            if let Some(dir) = dir {
                command.env("HEADWORKS_BENCH_DIR", dir);
            }
        })
    }

    fn start_with(role: &str, set: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(ROLE, role).stdout(Stdio::piped());
        set(&mut command);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().trim_start_matches("http://").parse().unwrap();
        Self(child, address)
    }

    /// Resident memory in MiB.
    fn rss_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1_024.0
    }

    /// Processor time in seconds; the kernel counts in hundredths.
    fn cpu_s(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks / 100.0
    }

    fn client(&self) -> Client {
        let config = aws_sdk_kinesis::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "bench"))
            .endpoint_url(format!("http://{}", self.1));
        Client::from_conf(config.build())
    }
}

/// From the start of a process to all of its ports, and what it takes then.
fn start_and_idle() {
    let mut times: Vec<f64> = Vec::new();
    let mut rss = 0.0_f64;
    for _ in 0..9 {
        let started = Instant::now();
        let server = Server::start("stack", None);
        TcpStream::connect(server.1).unwrap();
        times.push(started.elapsed().as_secs_f64() * 1_000.0);
        std::thread::sleep(Duration::from_millis(300));
        rss = rss.max(server.rss_mib());
    }
    times.sort_by(f64::total_cmp);
    figure("start of the whole stack, as a process", "ready_ms", times[times.len() / 2], "ms");
    figure("idle, the whole stack", "rss_mib", rss, "MiB");
}

fn payload(n: usize) -> Vec<u8> {
    (0..PAYLOAD).map(|at| ((n * 31 + at * 7) % 251) as u8).collect()
}

fn json_body() -> Vec<u8> {
    let records: Vec<_> = (0..RECORDS)
        .map(|n| {
            let data = base64::engine::general_purpose::STANDARD.encode(payload(n));
            serde_json::json!({ "Data": data, "PartitionKey": format!("key-{n:08}") })
        })
        .collect();
    serde_json::to_vec(&serde_json::json!({ "Records": records, "StreamName": "s" })).unwrap()
}

fn cbor_body() -> Vec<u8> {
    use ciborium::Value;
    let text = |text: &str| Value::Text(text.to_owned());
    let records = (0..RECORDS).map(|n| {
        let key = (text("PartitionKey"), text(&format!("key-{n:08}")));
        Value::Map(vec![(text("Data"), Value::Bytes(payload(n))), key])
    });
    let request =
        Value::Map(vec![(text("Records"), Value::Array(records.collect())), (text("StreamName"), text("s"))]);
    let mut body = Vec::new();
    ciborium::into_writer(&request, &mut body).unwrap();
    body
}

/// Counts calls that have been answered, until told to stop.
#[derive(Default)]
struct Count {
    calls: AtomicU64,
    stop: AtomicBool,
}

fn put(case: &str, dir: Option<&std::path::Path>, run: impl FnOnce(SocketAddr, &Arc<Count>)) {
    let server = Server::start("kinesis", dir);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = server.client();
    runtime.block_on(client.create_stream().stream_name("s").shard_count(SHARDS).send()).unwrap();
    let count = Arc::new(Count::default());
    std::thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            std::thread::sleep(WARM_UP);
            let before = (Instant::now(), server.cpu_s(), count.calls.load(Ordering::Relaxed));
            std::thread::sleep(MEASURED);
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
    eprintln!("{case}: the server may hold {} MiB", MAX_HELD >> 20);
}

/// What a process takes whose shards have been put several times what they may hold, in comparison to that bound.
fn memory() {
    let case = format!("memory, put {TIMES_OVER} times a bound of {} MiB", SMALL_HELD >> 20);
    let server = Server::start_with("kinesis", |command| {
        command.env(HELD, SMALL_HELD.to_string());
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = server.client();
    runtime.block_on(client.create_stream().stream_name("s").shard_count(SHARDS).send()).unwrap();
    let idle = server.rss_mib();
    let body = Bytes::from(json_body());
    let count = Arc::new(Count::default());
    let calls = TIMES_OVER * SMALL_HELD / (RECORDS * PAYLOAD) as u64;
    let mut most = 0.0_f64;
    std::thread::scope(|scope| {
        scope.spawn(|| put_h1(server.1, "application/x-amz-json-1.1", &body, &count));
        while count.calls.load(Ordering::Relaxed) < calls {
            most = most.max(server.rss_mib());
            std::thread::sleep(Duration::from_millis(5));
        }
        count.stop.store(true, Ordering::Relaxed);
    });
    most = most.max(server.rss_mib());
    figure(&case, "rss_idle_mib", idle, "MiB");
    figure(&case, "rss_most_mib", most, "MiB");
    figure(&case, "rss_per_bound", (most - idle) / (SMALL_HELD >> 20) as f64, "ratio");
}

fn check(answer: &[u8]) {
    let at = |part: &[u8]| answer.windows(part.len()).position(|window| window == part);
    let json = at(b"\"FailedRecordCount\":0");
    assert!(json.is_some() || at(b"FailedRecordCount\x00").is_some(), "{}", String::from_utf8_lossy(answer));
}

fn put_h1(address: SocketAddr, content_type: &str, body: &Bytes, count: &Arc<Count>) {
    let head = format!(
        "POST / HTTP/1.1\r\nhost: {address}\r\nx-amz-target: Kinesis_20131202.PutRecords\r\ncontent-type: \
         {content_type}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let request = [head.as_bytes(), body].concat();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut socket = TcpStream::connect(address).unwrap();
                socket.set_nodelay(true).unwrap();
                let mut answer = vec![0; 1 << 20];
                let mut first = true;
                while !count.stop.load(Ordering::Relaxed) {
                    socket.write_all(&request).unwrap();
                    let whole = read_answer(&mut socket, &mut answer);
                    if std::mem::take(&mut first) {
                        check(&answer[..whole]);
                    }
                    count.calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
}

/// Reads one answer with a content length; returns its size.
fn read_answer(socket: &mut TcpStream, into: &mut [u8]) -> usize {
    let mut have = 0;
    loop {
        have += socket.read(&mut into[have..]).unwrap();
        let Some(head) = into[..have].windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&into[..head]).unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let whole = head + 4 + length.parse::<usize>().unwrap();
        while have < whole {
            have += socket.read(&mut into[have..]).unwrap();
        }
        return whole;
    }
}

async fn put_h2c(address: SocketAddr, content_type: &'static str, body: &Bytes, count: &Arc<Count>) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let io = hyper_util::rt::TokioIo::new(socket);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (sender, connection) =
            hyper::client::conn::http2::Builder::new(executor).handshake(io).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..2 {
            let (mut sender, body, count) = (sender.clone(), body.clone(), Arc::clone(count));
            tasks.spawn(async move {
                while !count.stop.load(Ordering::Relaxed) {
                    let request = http::Request::post(format!("http://{address}/"))
                        .header("x-amz-target", "Kinesis_20131202.PutRecords")
                        .header("content-type", content_type)
                        .body(Full::new(body.clone()))
                        .unwrap();
                    let answer = sender.send_request(request).await.unwrap();
                    assert_eq!(answer.status(), 200);
                    answer.into_body().collect().await.unwrap();
                    count.calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

async fn put_sdk(address: SocketAddr, count: &Arc<Count>) {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "bench"))
        .endpoint_url(format!("http://{address}"));
    let client = Client::from_conf(config.build());
    let records: Vec<_> = (0..RECORDS)
        .map(|n| {
            let entry = PutRecordsRequestEntry::builder().partition_key(format!("key-{n:08}"));
            entry.data(Blob::new(payload(n))).build().unwrap()
        })
        .collect();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (client, records, count) = (client.clone(), records.clone(), Arc::clone(count));
        tasks.spawn(async move {
            while !count.stop.load(Ordering::Relaxed) {
                let call = client.put_records().stream_name("s").set_records(Some(records.clone()));
                assert_eq!(call.send().await.unwrap().failed_record_count, Some(0));
                count.calls.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

/// From the start of a put to the event that brings its record, both through the SDK.
async fn push_delay() {
    const PUTS: usize = 2_000;
    let server = Server::start("kinesis", None);
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
