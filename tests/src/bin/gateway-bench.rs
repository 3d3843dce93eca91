//! The gateway as a process of its own, between a load from this process and a sink that keeps nothing.
//!
//! A program and no bench target: for one of those, Cargo would link every program of the package first.
//!
//! CPU time and memory are the kernel's figures of the gateway's process. Load, gateway and sink share the
//! machine's cores, so times are told only where the load leaves them idle.

use std::net::TcpListener;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use base64::Engine as _;
use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use futures_util::stream::FuturesUnordered;
use headworks_producer::{Producer, Record};
use headworks_telemetry::{Minter, RecordTracer, Sampler};
use headworks_tests::figure::Figure;
use headworks_tests::{floor::Floor, process, program};
use headworks_writer::{Config, KinesisStream, Writer};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

const PART: &str = "gateway";
/// How a stream is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stream {
    shards: u32,
    lanes: u16,
}

/// A small one.
const FEW: Stream = Stream { shards: 4, lanes: 1 };
/// As many shards as would take what one gateway brings here, at a megabyte per second each.
const MANY: Stream = Stream { shards: 128, lanes: 1 };
/// A small one with as many lanes as the templates of `infra/` make.
const LANES: Stream = Stream { shards: 4, lanes: 8 };
const ROUNDS: u64 = 5;
/// Clients that send at the same time to many shards: a record takes longer there, and each client leaves only so many
/// unanswered.
const CLIENTS: u64 = 4;
/// Where spans would go. Nothing is sampled, so nobody need listen (the discard port).
const NOBODY: u16 = 9;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => {}
        [peer, endpoint, records, bytes] if peer == "plain-sdk" => {
            return plain_sdk(endpoint, records.parse()?, bytes.parse()?).await;
        }
        _ => anyhow::bail!("usage: gateway-bench [plain-sdk ENDPOINT RECORDS BYTES]"),
    }
    let scale: f64 = std::env::var("HEADWORKS_BENCH_SCALE").map_or(Ok(1.0), |scale| scale.parse())?;
    let floor = Floor::measure();
    for (encoding, body) in [("CBOR", sink_cbor()?), ("JSON", sink_json())] {
        sink_ceiling(encoding, &body, Duration::from_secs_f64(3.0 * scale)).await?;
    }
    for (size, bytes, records) in [("200B", 200, 4_000_000.0), ("1KB", 1024, 1_200_000.0)] {
        for (stream, more) in [(FEW, ""), (LANES, ", 8 lanes"), (MANY, ", 128 shards")] {
            full_rate(&floor, &format!("{size}{more}"), bytes, (records * scale) as u64, stream).await?;
        }
    }
    for (stream, gateways, fill_ms) in
        [(FEW, 1, 50), (FEW, 1, 100), (FEW, 2, 100), (LANES, 1, 50), (LANES, 1, 250)]
    {
        shards_full_rate(stream, gateways, fill_ms, Duration::from_secs_f64(10.0 * scale)).await?;
    }
    half_load(200, Duration::from_secs_f64(10.0 * scale)).await
}

/// A sink of so many shards and lanes, and its address.
async fn start_sink(stream: Stream) -> anyhow::Result<(Child, String)> {
    let mut sink = Command::new(program("null-sink")?)
        .args([stream.shards.to_string(), stream.lanes.to_string()])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("null-sink")?;
    let mut line = String::new();
    let stdout = sink.stdout.take().context("the sink has no stdout")?;
    BufReader::new(stdout).read_line(&mut line).await?;
    let addresses: Value = serde_json::from_str(&line).context("the sink's addresses")?;
    let address = addresses["plain"].as_str().context("the sink's address")?.to_owned();
    Ok((sink, address))
}

/// Gateways with default settings, and tracing that samples nothing, before a sink.
struct Rig {
    sink: Child,
    counts: String,
    gateways: Vec<Child>,
    endpoints: Vec<String>,
}

impl Rig {
    async fn start(writer: &str, gateways: usize, stream: Stream) -> anyhow::Result<Self> {
        let (sink, counts) = start_sink(stream).await?;
        let mut rig = Self { sink, counts, gateways: Vec::new(), endpoints: Vec::new() };
        for _ in 0..gateways {
            rig.start_gateway(writer)?;
        }
        Ok(rig)
    }

    fn start_gateway(&mut self, writer: &str) -> anyhow::Result<()> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let gateway = Command::new(program("headworks-gateway")?)
            .env("HEADWORKS_GATEWAY_LISTEN", format!("127.0.0.1:{port}"))
            .env("HEADWORKS_GATEWAY_STREAMS", format!(r#"[{{ name = "null", writer = {{ {writer} }} }}]"#))
            .env("HEADWORKS_GATEWAY_KINESIS_ENDPOINT", &self.counts)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "bench")
            .env("AWS_SECRET_ACCESS_KEY", "bench")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{NOBODY}"))
            .env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
            .env("OTEL_TRACES_SAMPLER_ARG", "0")
            .kill_on_drop(true)
            .spawn()
            .context("headworks-gateway")?;
        self.gateways.push(gateway);
        self.endpoints.push(format!("http://127.0.0.1:{port}"));
        Ok(())
    }

    async fn producer(&self) -> anyhow::Result<Producer> {
        // The producer decides what is sampled, and the gateway follows.
        let minter = Minter::new(Sampler::never());
        Ok(Producer::builder().endpoints(&self.endpoints).stream("null").minter(minter).connect().await?)
    }

    /// The process of the only gateway, or of the first.
    fn gateway_pid(&self) -> anyhow::Result<u32> {
        self.gateways.first().and_then(Child::id).context("the gateway has ended")
    }

    async fn counts(&self) -> anyhow::Result<Counts> {
        let address = self.counts.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /counts HTTP/1.1\r\nhost: sink\r\nconnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (_, body) = answer.split_once("\r\n\r\n").context("the sink's answer has no body")?;
        Ok(serde_json::from_str(body)?)
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        // Nothing is unanswered by now.
        for mut gateway in self.gateways {
            gateway.kill().await?;
        }
        self.sink.kill().await?;
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, serde::Deserialize)]
struct Counts {
    calls: u64,
    records: u64,
    body_bytes: u64,
    data_bytes: u64,
    put_units: u64,
}

/// One of a thousand sessions, as a website would send them.
fn record(number: u64, bytes: usize) -> anyhow::Result<Record> {
    let key = format!("session-{:04}", number % 1000);
    Ok(Record::builder(key)?.header("type", "page.viewed")?.data(vec![b'x'; bytes]).build())
}

/// One of several times that the same was done.
struct Round {
    cpu: Duration,
    taken: Duration,
    before: Counts,
    after: Counts,
}

/// As fast as it goes; the best of several rounds, as the floor is, since the machine does other things too.
async fn full_rate(
    floor: &Floor,
    case: &str,
    bytes: usize,
    records: u64,
    stream: Stream,
) -> anyhow::Result<()> {
    let rig = Rig::start("", 1, stream).await?;
    let clients = if stream == MANY { CLIENTS } else { 1 };
    let mut producers = Vec::new();
    for _ in 0..clients {
        producers.push(rig.producer().await?);
    }
    let records = records / ROUNDS / clients * clients;
    let send_all = |records: u64| {
        try_join_all(producers.iter().map(move |producer| send(producer, bytes, records / clients)))
    };
    // Connections, shard map and allocator are warm before anything counts.
    send_all(20_000).await?;
    let pid = rig.gateway_pid()?;
    let mut best: Option<Round> = None;
    for _ in 0..ROUNDS {
        let before = rig.counts().await?;
        let (cpu, begin) = (process::cpu_time(pid)?, Instant::now());
        send_all(records).await?;
        let (taken, cpu) = (begin.elapsed(), process::cpu_time(pid)? - cpu);
        let after = rig.counts().await?;
        if best.as_ref().is_none_or(|best| cpu < best.cpu) {
            best = Some(Round { cpu, taken, before, after });
        }
    }
    let Round { cpu, taken, before, after } = best.context("no round")?;

    let n = records as f64;
    let (body, data) = (after.body_bytes - before.body_bytes, after.data_bytes - before.data_bytes);
    let calls = after.calls - before.calls;
    let least = floor.ns(records, data, body) / n;
    let ns = cpu.as_nanos() as f64 / n;
    let figure = |metric, value, unit| Figure::new(PART, case, metric, value, unit);
    figure("cpu_ns_per_record", ns, "ns").against("floor", least).print();
    figure("records_per_s_per_core", 1e9 / ns, "1/s").against("floor", 1e9 / least).print();
    figure("records_per_s", n / taken.as_secs_f64(), "1/s").print();
    figure("rss_mib", process::peak_rss_mib(pid)?, "MiB").print();
    figure("mib_per_s", data as f64 / taken.as_secs_f64() / 1024.0 / 1024.0, "MiB/s").print();
    let one = record(0, bytes)?;
    let user = n * one.user_bytes() as f64;
    figure("bytes_ratio", data as f64 / user, "").print();
    let units = (after.put_units - before.put_units) as f64 * 25.0 * 1024.0;
    figure("unit_fill", data as f64 / units, "").print();
    figure("kinesis_records_per_call", (after.records - before.records) as f64 / calls as f64, "").print();
    rig.stop().await
}

/// A call of this many aggregates of this size each.
const SINK_AGGREGATES: usize = 10;
const SINK_AGGREGATE: usize = 100 * 1024;

fn sink_cbor() -> anyhow::Result<Vec<u8>> {
    let mut body = minicbor::Encoder::new(Vec::new());
    body.map(2)?.str("StreamName")?.str("null")?.str("Records")?.array(SINK_AGGREGATES as u64)?;
    for _ in 0..SINK_AGGREGATES {
        body.map(3)?.str("Data")?.bytes(&vec![b'x'; SINK_AGGREGATE])?;
        body.str("PartitionKey")?.str("0")?.str("ExplicitHashKey")?.str("1")?;
    }
    Ok(body.into_writer())
}

fn sink_json() -> Vec<u8> {
    let data = base64::engine::general_purpose::STANDARD.encode(vec![b'x'; SINK_AGGREGATE]);
    let entry = serde_json::json!({ "Data": data, "PartitionKey": "0", "ExplicitHashKey": "1" });
    serde_json::json!({ "StreamName": "null", "Records": vec![entry; SINK_AGGREGATES] })
        .to_string()
        .into_bytes()
}

/// What the sink takes by itself: bodies as full as the gateway's, made beforehand, over plain sockets.
async fn sink_ceiling(encoding: &str, body: &[u8], length: Duration) -> anyhow::Result<()> {
    const CONNECTIONS: usize = 4;
    let (mut sink, address) = start_sink(FEW).await?;
    let host = address.trim_start_matches("http://").to_owned();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: sink\r\nx-amz-target: Kinesis_20131202.PutRecords\r\n\
         content-type: application/x-amz-{}-1.1\r\ncontent-length: {}\r\n\r\n",
        encoding.to_ascii_lowercase(),
        body.len()
    );
    let request: Arc<[u8]> = [head.as_bytes(), body].concat().into();
    let until = Instant::now() + length;
    let connections = (0..CONNECTIONS).map(|_| {
        let (host, request) = (host.clone(), Arc::clone(&request));
        tokio::spawn(async move {
            let mut stream = BufReader::new(TcpStream::connect(host).await?);
            let mut calls = 0_u64;
            while Instant::now() < until {
                stream.write_all(&request).await?;
                let mut left = 0;
                loop {
                    let mut line = String::new();
                    ensure!(stream.read_line(&mut line).await? > 0, "the sink hung up");
                    let line = line.trim_end().to_ascii_lowercase();
                    if line.is_empty() {
                        break;
                    }
                    if let Some(length) = line.strip_prefix("content-length:") {
                        left = length.trim().parse()?;
                    }
                }
                stream.read_exact(&mut vec![0; left]).await?;
                calls += 1;
            }
            anyhow::Ok(calls)
        })
    });
    let (begin, mut calls) = (Instant::now(), 0);
    for connection in connections.collect::<Vec<_>>() {
        calls += connection.await??;
    }
    let bytes = (calls * (SINK_AGGREGATE * SINK_AGGREGATES) as u64) as f64;
    let per_s = bytes / begin.elapsed().as_secs_f64();
    let case = format!("the sink alone, raw client in the same cores, {encoding}");
    Figure::new(PART, &case, "mib_per_s", per_s / 1024.0 / 1024.0, "MiB/s").print();
    sink.kill().await?;
    Ok(())
}

/// Sends records without waiting for answers, then waits for all of them.
async fn send(producer: &Producer, bytes: usize, records: u64) -> anyhow::Result<()> {
    let before = producer.report().stored;
    for number in 0..records {
        drop(producer.send(record(number, bytes)?).await);
    }
    producer.flush().await;
    let stored = producer.report().stored - before;
    ensure!(stored == records, "{stored} of {records} records are stored");
    Ok(())
}

/// 1 KB records at what four provisioned shards take, 1 MiB/s each: how full the billed units are.
async fn shards_full_rate(
    stream: Stream,
    gateways: usize,
    fill_ms: u64,
    length: Duration,
) -> anyhow::Result<()> {
    const BYTES: usize = 1024;
    let rig = Rig::start(&format!("fill_ms = {fill_ms}"), gateways, stream).await?;
    let producer = rig.producer().await?;
    let user_bytes = record(0, BYTES)?.user_bytes() as f64;
    let per_tick = f64::from(stream.shards) * (1 << 20) as f64 / user_bytes / 1000.0;
    send(&producer, BYTES, 4_000).await?;
    let before = rig.counts().await?;
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let count = length.as_millis() as u64;
    let mut sent = 0_u64;
    for tick in 1..=count {
        ticks.tick().await;
        while (sent as f64) < tick as f64 * per_tick {
            drop(producer.send(record(sent, BYTES)?).await);
            sent += 1;
        }
    }
    producer.flush().await;
    let after = rig.counts().await?;
    let plural = if gateways == 1 { "gateway" } else { "gateways" };
    let lanes = if stream.lanes == 1 { String::new() } else { format!("{} lanes, ", stream.lanes) };
    let case = format!("1KB at four shards' full rate, {lanes}{gateways} {plural}, fill {fill_ms} ms");
    let data = (after.data_bytes - before.data_bytes) as f64;
    let units = (after.put_units - before.put_units) as f64 * 25.0 * 1024.0;
    Figure::new(PART, &case, "unit_fill", data / units, "").print();
    Figure::new(PART, &case, "bytes_ratio", data / (sent as f64 * user_bytes), "").print();
    rig.stop().await
}

/// At a rate that leaves half the machine idle: how long a record takes from its due time to its answer, and how long
/// the same takes a producer that has the gateway's writer in itself and puts on the stream directly.
async fn half_load(bytes: usize, length: Duration) -> anyhow::Result<()> {
    const LINGER_MS: u64 = 1;
    let rig = Rig::start(&format!("linger_ms = {LINGER_MS}, fill_ms = 0"), 1, FEW).await?;
    let producer = rig.producer().await?;
    let begin = Instant::now();
    send(&producer, bytes, 200_000).await?;
    let rate = 100_000.0 / begin.elapsed().as_secs_f64();
    let per_tick = (rate / 1000.0).max(1.0) as u64;

    let through = times(&producer, bytes, per_tick, length).await?;
    let config = Config { linger_ms: LINGER_MS, fill_ms: 0, ..Config::default() };
    let stream = KinesisStream::new(kinesis(&rig.counts), "null");
    let (service, writer) = Writer::start(config, stream, RecordTracer::disabled()).await?;
    let writing = tokio::spawn(service.run(CancellationToken::new()));
    let producer = Producer::builder().minter(Minter::new(Sampler::never())).direct(writer)?;
    let direct = times(&producer, bytes, per_tick, length).await?;
    writing.abort();

    let case =
        format!("200B half load, {:.0}/s, linger {LINGER_MS} ms and no fill", per_tick as f64 * 1000.0);
    for (metric, share) in [("p50_ms", 0.5), ("p99_ms", 0.99), ("p99_9_ms", 0.999)] {
        let at =
            |times: &[Duration]| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
        Figure::new(PART, &case, metric, at(&through), "ms").against("direct mode", at(&direct)).print();
    }
    rig.stop().await
}

/// How long records take at this many per millisecond, in ascending order.
async fn times(
    producer: &Producer,
    bytes: usize,
    per_tick: u64,
    length: Duration,
) -> anyhow::Result<Vec<Duration>> {
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (begin, mut number, mut timed) = (Instant::now(), 0, 0);
    let mut waiting = FuturesUnordered::new();
    let mut taken = Vec::new();
    while begin.elapsed() < length {
        tokio::select! {
            biased;
            Some(answered) = waiting.next(), if !waiting.is_empty() => taken.push(answered?),
            due = ticks.tick() => {
                timed = (timed + 1) % per_tick;
                for i in 0..per_tick {
                    let ticket = producer.send(record(number, bytes)?).await;
                    number += 1;
                    // One of a tick's records tells for all; a clock for each would be load of its own.
                    if i == timed {
                        waiting.push(async move { ticket.await.map(|_| due.elapsed()) });
                    }
                }
            }
        }
    }
    while let Some(answered) = waiting.next().await {
        taken.push(answered?);
    }
    taken.sort();
    ensure!(taken.len() > 100, "only {} records were timed", taken.len());
    Ok(taken)
}

fn kinesis(endpoint: &str) -> aws_sdk_kinesis::Client {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("bench", "bench", None, None, "bench"))
        .build();
    aws_sdk_kinesis::Client::from_conf(config)
}

/// The peer that needs no gateway: one Kinesis record each, 500 in a call, 16 calls at a time.
async fn plain_sdk(endpoint: &str, records: u64, bytes: usize) -> anyhow::Result<()> {
    let client = kinesis(endpoint);
    let calls = futures_util::stream::iter(0..records.div_ceil(500)).map(|call| {
        let entries = (call * 500..records.min((call + 1) * 500)).map(|number| {
            PutRecordsRequestEntry::builder()
                .partition_key(format!("session-{:04}", number % 1000))
                .data(Blob::new(vec![b'x'; bytes]))
                .build()
        });
        let entries: Result<Vec<_>, _> = entries.collect();
        let client = client.clone();
        async move {
            let answer = client.put_records().stream_name("null").set_records(Some(entries?)).send().await?;
            anyhow::Ok(answer.records.len() as u64)
        }
    });
    let mut calls = calls.buffer_unordered(16);
    let mut stored = 0;
    while let Some(answer) = calls.next().await {
        stored += answer?;
    }
    ensure!(stored == records, "{stored} of {records} records were answered");
    Ok(())
}
