//! Memory while Kinesis stands still: one budget holds everything that is unacknowledged.
//!
//! `HEADWORKS_HOLD_SECONDS` says how long it stands still (3).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod daemon;
mod inbound;
mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use daemon::Daemon;
use headworks_local::Fault;
use headworks_local::faults::Action;
use headworks_proto::v1::gateway_client::GatewayClient;
use headworks_proto::v1::put_stream_request::{Batch, Message as Asked, Open};
use headworks_proto::v1::put_stream_response::Message as Told;
use headworks_proto::v1::record_result::Outcome;
use headworks_proto::v1::{self, PutRequest, PutStreamRequest};
use inbound::{everything, stack};
use support::{record, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

const MIB: usize = 1 << 20;
/// The budget that is configured, per stream.
const BUDGET: usize = 32 * MIB;
const HTTP_BUFFER: usize = 16 * MIB;
/// What the process may have, all in all; the gateway checks that its budgets fit below it.
const CEILING: usize = 64 * MIB + 16 * (5 * MIB + MIB / 2) + 3 * RECEIVE + 2 * HTTP_BUFFER + BUDGET * 10 / 3;
const RECEIVE: usize = 16 * MIB;
const BATCH: usize = 256 * 1024;
const RECORD: usize = 4096;

#[derive(Debug, Default)]
struct Seen {
    next: AtomicU64,
    /// Batches that the streams' clients could send.
    sent: AtomicU64,
    refused_unary: AtomicU64,
    refused_http: AtomicU64,
    stop: AtomicBool,
}

impl Seen {
    fn batch(&self) -> (Vec<u64>, Vec<v1::Record>) {
        let count = (BATCH / RECORD) as u64;
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        let numbers: Vec<u64> = (first..first + count).collect();
        let filler = "x".repeat(RECORD - 40);
        let records = numbers.iter().map(|n| record(&format!("key-{n}"), format!("{n} {filler}"))).collect();
        (numbers, records)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn stored(numbers: Vec<u64>, results: &[v1::RecordResult]) -> Vec<u64> {
    assert_eq!(numbers.len(), results.len());
    let stored = |result: &v1::RecordResult| matches!(result.outcome, Some(Outcome::Stored(_)));
    numbers.into_iter().zip(results).filter(|(_, result)| stored(result)).map(|(number, _)| number).collect()
}

/// Calls again and again; the numbers of what was acknowledged.
async fn unary(url: String, seen: Arc<Seen>) -> Vec<u64> {
    let mut client = GatewayClient::connect(url).await.unwrap();
    let mut acknowledged = Vec::new();
    while !seen.stopped() {
        let (numbers, records) = seen.batch();
        match client.put(PutRequest { records, ..Default::default() }).await {
            Ok(answer) => acknowledged.extend(stored(numbers, &answer.into_inner().results)),
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                let delay = status.metadata().get("retry-after-ms").unwrap().to_str().unwrap();
                seen.refused_unary.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(delay.parse().unwrap())).await;
            }
        }
    }
    acknowledged
}

/// Sends as much as the stream takes; the numbers of what was acknowledged.
async fn pipelined(url: String, seen: Arc<Seen>) -> Vec<u64> {
    let mut client = GatewayClient::connect(url).await.unwrap();
    let (requests, waiting) = mpsc::channel(1);
    let message = |message| PutStreamRequest { message: Some(message) };
    requests.send(message(Asked::Open(Open::default()))).await.unwrap();
    let mut answers = client.put_stream(ReceiverStream::new(waiting)).await.unwrap().into_inner();
    let Some(Told::Credit(credit)) = answers.message().await.unwrap().unwrap().message else { panic!() };
    let batches = (credit.bytes as usize / BATCH).min(credit.records as usize / (BATCH / RECORD)) - 1;
    let mut open: Vec<Option<Vec<u64>>> = Vec::new();
    let (mut unanswered, mut acknowledged) = (0, Vec::new());
    let mut requests = Some(requests);
    loop {
        if seen.stopped() {
            requests = None;
        }
        let room = async {
            match &requests {
                Some(requests) if unanswered < batches => requests.reserve().await.unwrap(),
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            permit = room => {
                let (numbers, records) = seen.batch();
                permit.send(message(Asked::Batch(Batch { number: open.len() as u64, records })));
                open.push(Some(numbers));
                unanswered += 1;
                seen.sent.fetch_add(1, Ordering::Relaxed);
            }
            told = answers.message() => match told.unwrap() {
                None => return acknowledged,
                Some(told) => if let Some(Told::Results(results)) = told.message {
                    let numbers = open[results.number as usize].take().unwrap();
                    acknowledged.extend(stored(numbers, &results.results));
                    unanswered -= 1;
                }
            },
            () = sleep(Duration::from_millis(50)), if requests.is_some() => {}
        }
    }
}

/// Posts again and again; the numbers of what was acknowledged.
async fn posts(address: std::net::SocketAddr, seen: Arc<Seen>) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    while !seen.stopped() {
        let (numbers, records) = seen.batch();
        let lines: Vec<String> = records
            .iter()
            .map(|record| {
                let data = std::str::from_utf8(&record.data).unwrap();
                format!("{{\"key\":\"{}\",\"data\":\"{data}\"}}", record.key)
            })
            .collect();
        let body = lines.join("\n");
        let mut socket = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST /v1/records HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        // A refusal may come before all is written.
        let _ = socket.write_all(head.as_bytes()).await;
        let _ = socket.write_all(body.as_bytes()).await;
        let mut answer = String::new();
        if socket.read_to_string(&mut answer).await.is_err() || answer.is_empty() {
            continue;
        }
        if answer.starts_with("HTTP/1.1 429") {
            assert!(answer.to_ascii_lowercase().contains("retry-after: 1"), "{answer}");
            seen.refused_http.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(200)).await;
            continue;
        }
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let results = answer.matches("\"sequence_number\"").count();
        assert_eq!(results, numbers.len(), "{answer}");
        acknowledged.extend(numbers);
    }
    acknowledged
}

/// A line of /proc/<pid>/status, in bytes.
fn memory(pid: u32, name: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_under_the_ceiling_while_kinesis_stands_still() {
    let hold = std::env::var("HEADWORKS_HOLD_SECONDS").map_or(3, |text| text.parse().unwrap());
    let (stack, kinesis) = stack(4).await;
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("gateway.toml");
    let text = format!(
        "listen = \"127.0.0.1:0\"\nhttp_listen = \"127.0.0.1:0\"\nhttp_buffer_bytes = {HTTP_BUFFER}\ntimeout_ms = 600000\n\
         receive_bytes = {RECEIVE}\nmax_connections = 16\nmemory_limit_bytes = {CEILING}\n\
         [[streams]]\nname = \"inbound\"\nwriter.max_buffered_bytes = {BUDGET}\n"
    );
    std::fs::write(&config, text).unwrap();
    let gateway = Daemon::start(&config, &stack.kinesis_endpoint()).await;
    let pid = gateway.child.id().unwrap();
    let idle = memory(pid, "VmRSS");

    let stalled = Fault::on("PutRecords", Action::Delay(Duration::from_secs(3600)));
    let stalled = stack.faults().add(stalled).unwrap();
    let seen = Arc::new(Seen::default());
    let mut load = JoinSet::new();
    let until = Instant::now() + Duration::from_secs(hold);
    for _ in 0..4 {
        load.spawn(pipelined(gateway.url(), Arc::clone(&seen)));
    }
    // Full means that nothing more is read.
    let mut still = (0, Instant::now());
    soon("streams that are not read", async {
        while still.1.elapsed() < Duration::from_millis(500) || still.0 * BATCH < BUDGET {
            let sent = seen.sent.load(Ordering::Relaxed) as usize;
            if sent != still.0 {
                still = (sent, Instant::now());
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for _ in 0..4 {
        load.spawn(unary(gateway.url(), Arc::clone(&seen)));
        load.spawn(posts(gateway.http.unwrap(), Arc::clone(&seen)));
    }
    let counts = || [&seen.refused_unary, &seen.refused_http].map(|n| n.load(Ordering::Relaxed));
    soon("refusals", async {
        while counts().iter().any(|refused| *refused < 8) {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    while Instant::now() < until {
        assert!(memory(pid, "VmRSS") < CEILING);
        sleep(Duration::from_millis(50)).await;
    }
    let taken = seen.sent.load(Ordering::Relaxed);
    assert!(taken as usize * BATCH < 2 * BUDGET, "{taken} batches were sent");
    let ([unary_refused, http_refused], held) = (counts(), memory(pid, "VmRSS"));

    stack.faults().remove(stalled);
    let recovered = Instant::now();
    soon("streams that are read again", async {
        while seen.sent.load(Ordering::Relaxed) < taken + 100 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let recovered = recovered.elapsed();
    seen.stop.store(true, Ordering::Relaxed);
    let acknowledged: Vec<u64> =
        soon("the load's end", load.join_all()).await.into_iter().flatten().collect();
    let peak = memory(pid, "VmHWM");
    assert!(peak < CEILING, "the peak is {} MiB, the ceiling {} MiB", peak / MIB, CEILING / MIB);
    assert_eq!(gateway.terminate().await, Some(0));
    let number = |payload: &[u8]| {
        let text = std::str::from_utf8(payload).unwrap();
        text.trim_start_matches('"').split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let found: HashSet<u64> = everything(&kinesis).await.iter().map(|(_, payload)| number(payload)).collect();
    assert!(acknowledged.len() > 1000);
    assert!(acknowledged.iter().all(|number| found.contains(number)), "an acknowledged record is lost");
    println!(
        "{hold} s: idle {} MiB, held {} MiB, peak {} MiB, ceiling {} MiB, budget {} MiB; {unary_refused} unary and \
         {http_refused} HTTP refusals; read again after {recovered:.1?}; {} records acknowledged, none lost",
        idle / MIB,
        held / MIB,
        peak / MIB,
        CEILING / MIB,
        BUDGET / MIB,
        acknowledged.len()
    );
}
