//! Records that are acknowledged by the spool: through outages, crashes and refusals.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use headworks_gateway::{Ack, Config, Gateway, SpoolConfig};
use headworks_proto::v1::put_stream_request::{Batch, Message, Open};
use headworks_proto::v1::record_result::Outcome;
use headworks_proto::v1::{self, PutRequest, PutStreamRequest, put_stream_response};
use headworks_record::LaneCount;
use headworks_telemetry::{Minter, RecordTracer, Sampler};
use headworks_writer::{CallError, Entry, EntryError, Fault, ListedShard, Stored, Stream};
use support::{FakeStream, Mode, Running, codes, config, record, soon};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Code;

fn spooled(stream: &FakeStream, directory: &Path) -> Config {
    let mut config = config(&[stream]);
    config.streams[0].ack = Ack::Spool;
    config.streams[0].spool = Some(SpoolConfig { directory: directory.to_owned(), ..SpoolConfig::default() });
    config.drain_ms = 100;
    config
}

async fn start(stream: &FakeStream, directory: &Path) -> Running {
    Running::with(spooled(stream, directory), &[stream], RecordTracer::disabled()).await
}

fn put(records: Vec<v1::Record>) -> PutRequest {
    PutRequest { records, ..Default::default() }
}

fn is_spooled(result: &v1::RecordResult) -> bool {
    matches!(result.outcome, Some(Outcome::Spooled(_)))
}

async fn metric(gateway: &Running, name: &str) -> u64 {
    let address = gateway.handle.http_addr().unwrap();
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut page = String::new();
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    socket.read_to_string(&mut page).await.unwrap();
    let line = page.lines().find(|line| line.starts_with(&format!("{name}{{")));
    line.unwrap_or_else(|| panic!("{name} is not in {page}")).rsplit(' ').next().unwrap().parse().unwrap()
}

async fn until(gateway: &Running, name: &str, wanted: impl Fn(u64) -> bool) {
    soon(name, async {
        while !wanted(metric(gateway, name).await) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_outage_and_a_restart_lose_nothing_and_keep_the_order() {
    let directory = tempfile::tempdir().unwrap();
    let stream = FakeStream::new("inbound");
    stream.set(Mode::Shut);
    let gateway = start(&stream, directory.path()).await;
    let mut client = gateway.client().await;
    for n in 0..20 {
        let records = vec![record("a", format!("{n}")), record("b", format!("{n}"))];
        let results = soon("an answer", client.put(put(records))).await.unwrap().into_inner().results;
        assert!(results.iter().all(is_spooled), "{results:?}");
    }
    assert_eq!(stream.records().len(), 0);
    let report = gateway.stop().await;
    assert_eq!((report.unanswered, report.spooled), (0, 40));
    assert!(report.spooled_bytes > 0);

    // What is new follows what was left, on another process's watch.
    let gateway = start(&stream, directory.path()).await;
    let mut client = gateway.client().await;
    let results = client.put(put(vec![record("a", "20"), record("b", "20")])).await.unwrap().into_inner();
    assert!(results.results.iter().all(is_spooled));
    stream.set(Mode::Open);
    stream.stored(42).await;
    let report = gateway.stop().await;
    assert_eq!((report.unanswered, report.spooled, report.spooled_bytes), (0, 0, 0));
    let wanted: Vec<String> = (0..21).map(|n| n.to_string()).collect();
    assert_eq!((stream.of_key("a"), stream.of_key("b")), (wanted.clone(), wanted));
    let mut creations: Vec<_> = stream.records().iter().map(|r| *r.headers.creation().unwrap()).collect();
    creations.sort_by_key(|creation| (creation.trace_id.0, creation.span_id.0));
    creations.dedup();
    assert_eq!(creations.len(), 42);

    // Everything is settled: nothing is put again.
    let gateway = start(&stream, directory.path()).await;
    assert_eq!(gateway.stop().await.spooled, 0);
    assert_eq!(stream.records().len(), 42);
}

/// The answer to a put was lost with the process: the record is put again under the identity that it had.
#[tokio::test]
async fn a_repeat_has_the_same_identity() {
    let directory = tempfile::tempdir().unwrap();
    let stream = FakeStream::new("inbound");
    stream.set(Mode::Mute);
    let gateway = start(&stream, directory.path()).await;
    let mut client = gateway.client().await;
    client.put(put(vec![record("a", "x")])).await.unwrap();
    stream.stored(1).await;
    assert_eq!(gateway.stop().await.spooled, 1);
    stream.set(Mode::Open);
    let gateway = start(&stream, directory.path()).await;
    stream.stored(2).await;
    assert_eq!(gateway.stop().await.spooled, 0);
    let records = stream.records();
    assert_eq!(records[0], records[1]);
}

#[tokio::test]
async fn the_deadline_ends_with_the_acknowledgement() {
    let directory = tempfile::tempdir().unwrap();
    let stream = FakeStream::new("inbound");
    stream.set(Mode::Shut);
    let gateway = start(&stream, directory.path()).await;
    let mut client = gateway.client().await;
    let timeout = Some(prost_types::Duration { seconds: 0, nanos: 400_000_000 });
    let asked = PutRequest { records: vec![record("a", "x")], timeout, ..Default::default() };
    let results = client.put(asked).await.unwrap().into_inner().results;
    assert!(is_spooled(&results[0]), "{results:?}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    stream.set(Mode::Open);
    stream.stored(1).await;
    assert_eq!(gateway.stop().await.spooled, 0);
}

#[tokio::test]
async fn a_full_spool_refuses_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let stream = FakeStream::new("inbound");
    stream.set(Mode::Shut);
    let mut settings = spooled(&stream, directory.path());
    let spool = settings.streams[0].spool.as_mut().unwrap();
    (spool.segment_bytes, spool.max_bytes) = (1 << 20, 4 << 20);
    settings.streams[0].writer.max_buffered_bytes = 2 << 20;
    settings.http_listen = Some("127.0.0.1:0".parse().unwrap());
    let gateway = Running::with(settings, &[&stream], RecordTracer::disabled()).await;
    let mut client = gateway.client().await;
    let filler = "x".repeat(500_000);
    let mut taken = 0;
    let refused = loop {
        match client.put(put(vec![record("k", filler.clone())])).await {
            Ok(answer) => assert!(is_spooled(&answer.into_inner().results[0])),
            Err(status) => break status,
        }
        taken += 1;
    };
    assert_eq!(taken, 8);
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.metadata().get("headworks-code").unwrap(), "spool-full");
    assert_eq!(refused.metadata().get("retry-after-ms").unwrap(), "1000");
    assert!(refused.message().contains("4194304"), "{refused}");
    assert_eq!(metric(&gateway, "headworks_spool_records").await, 8);
    assert!(metric(&gateway, "headworks_spool_bytes").await <= 4 << 20);

    // A stream of batches waits for room until its records' deadline, and is told then.
    let (requests, waiting) = tokio::sync::mpsc::channel(4);
    let send = |message| PutStreamRequest { message: Some(message) };
    let timeout = Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 });
    requests.send(send(Message::Open(Open { timeout, ..Default::default() }))).await.unwrap();
    let batch = Batch { number: 1, records: vec![record("k", filler.clone())] };
    requests.send(send(Message::Batch(batch))).await.unwrap();
    let mut answers = client.put_stream(ReceiverStream::new(waiting)).await.unwrap().into_inner();
    let results = loop {
        let told = soon("an answer", answers.message()).await.unwrap().unwrap().message.unwrap();
        if let put_stream_response::Message::Results(results) = told {
            break results.results;
        }
    };
    assert_eq!(codes(&results), ["spool-full"]);

    stream.set(Mode::Open);
    stream.stored(8).await;
    until(&gateway, "headworks_spool_records", |records| records == 0).await;
    let answer = soon("room", async {
        loop {
            match client.put(put(vec![record("k", filler.clone())])).await {
                Ok(answer) => return answer,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await;
    assert!(is_spooled(&answer.into_inner().results[0]));
    stream.stored(9).await;
    assert_eq!(gateway.stop().await.spooled, 0);
}

/// Refuses everything for good until it is told otherwise; may also be gone altogether.
#[derive(Debug, Clone)]
struct Denied {
    stream: FakeStream,
    denied: Arc<AtomicBool>,
    gone: Arc<AtomicBool>,
}

impl Denied {
    fn new() -> Self {
        let (stream, denied, gone) = (FakeStream::new("inbound"), Arc::default(), Arc::default());
        Self { stream, denied, gone }
    }

    fn error(fault: Fault, code: &str) -> CallError {
        CallError { fault, code: code.to_owned(), message: "injected".to_owned() }
    }

    async fn start(&self, directory: &Path) -> Result<Running, headworks_gateway::BindError> {
        let mut config = spooled(&self.stream, directory);
        config.http_listen = Some("127.0.0.1:0".parse().unwrap());
        let this = self.clone();
        let streams = move |_: &str| Arc::new(this.clone()) as Arc<dyn Stream>;
        let minter = Minter::new(Sampler::always());
        let (gateway, handle) = Gateway::bind(config, streams, minter, RecordTracer::disabled()).await?;
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(gateway.run(shutdown.clone()));
        Ok(Running { handle, shutdown, task })
    }
}

#[async_trait::async_trait]
impl Stream for Denied {
    fn name(&self) -> &str {
        "inbound"
    }

    async fn list_shards(&self) -> Result<Vec<ListedShard>, CallError> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(Self::error(Fault::Unavailable, "dispatch"));
        }
        self.stream.list_shards().await
    }

    async fn lanes(&self) -> Result<LaneCount, CallError> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(Self::error(Fault::Unavailable, "dispatch"));
        }
        self.stream.lanes().await
    }

    async fn put_records(&self, entries: &[Entry]) -> Result<Vec<Result<Stored, EntryError>>, CallError> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(Self::error(Fault::Ambiguous, "dispatch"));
        }
        if self.denied.load(Ordering::Relaxed) {
            return Err(Self::error(Fault::Permanent, "ResourceNotFoundException"));
        }
        self.stream.put_records(entries).await
    }
}

#[tokio::test]
async fn what_the_stream_refuses_for_good_stays_with_an_alarm() {
    let directory = tempfile::tempdir().unwrap();
    let denied = Denied::new();
    denied.denied.store(true, Ordering::Relaxed);
    let gateway = denied.start(directory.path()).await.unwrap();
    let mut client = gateway.client().await;
    for n in 0..5 {
        let answer = client.put(put(vec![record("k", n.to_string())])).await.unwrap().into_inner();
        assert!(is_spooled(&answer.results[0]));
    }
    until(&gateway, "headworks_spool_alarm", |alarm| alarm == 1).await;
    until(&gateway, "headworks_spool_refused_total", |refused| refused >= 2).await;
    assert_eq!(metric(&gateway, "headworks_spool_records").await, 5);
    until(&gateway, "headworks_spool_oldest", |age| age > 0).await;
    denied.denied.store(false, Ordering::Relaxed);
    denied.stream.stored(5).await;
    until(&gateway, "headworks_spool_records", |records| records == 0).await;
    assert_eq!(metric(&gateway, "headworks_spool_alarm").await, 0);
    assert_eq!(denied.stream.of_key("k"), ["0", "1", "2", "3", "4"]);
    assert_eq!(gateway.stop().await.spooled, 0);
}

#[tokio::test]
async fn a_gateway_starts_and_takes_records_during_an_outage() {
    let directory = tempfile::tempdir().unwrap();
    let stream = Denied::new();
    stream.gone.store(true, Ordering::Relaxed);
    // The shards were never seen.
    assert_eq!(stream.start(directory.path()).await.unwrap_err().code(), "stream-unreadable");
    stream.gone.store(false, Ordering::Relaxed);
    stream.start(directory.path()).await.unwrap().stop().await;
    stream.gone.store(true, Ordering::Relaxed);
    let gateway = stream.start(directory.path()).await.unwrap();
    let mut client = gateway.client().await;
    let answer = client.put(put(vec![record("k", "x")])).await.unwrap().into_inner();
    assert!(is_spooled(&answer.results[0]));
    stream.gone.store(false, Ordering::Relaxed);
    stream.stream.stored(1).await;
    assert_eq!(gateway.stop().await.unanswered, 0);
}

#[tokio::test]
async fn a_directory_has_one_user_and_damage_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let stream = FakeStream::new("inbound");
    stream.set(Mode::Shut);
    let gateway = start(&stream, directory.path()).await;
    let bind = async || {
        let minter = Minter::new(Sampler::always());
        let config = spooled(&stream, directory.path());
        let bound = Gateway::bind(config, support::factory(&[&stream]), minter, RecordTracer::disabled());
        bound.await.map(|_| ()).unwrap_err()
    };
    let error = bind().await;
    assert_eq!((error.code(), error.is_retryable()), ("spool-in-use", true), "{error}");
    let mut client = gateway.client().await;
    for n in 0..3 {
        client.put(put(vec![record("k", n.to_string())])).await.unwrap();
    }
    gateway.stop().await;
    let file = directory.path().join("inbound.spool").join("0000000000000001.spool");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[130] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let error = bind().await;
    assert_eq!((error.code(), error.is_retryable()), ("spool-damaged", false));
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
}

/// Files that were there when the gateway started, and are away when their records are to be put.
#[tokio::test]
async fn a_spool_that_cannot_be_read_back_raises_the_alarm_until_it_can() {
    const BATCHES: usize = 16;
    let directory = tempfile::tempdir().unwrap();
    let stream = FakeStream::new("inbound");
    stream.set(Mode::Shut);
    let mut settings = spooled(&stream, directory.path());
    settings.streams[0].spool.as_mut().unwrap().segment_bytes = 1 << 20;
    let gateway = Running::with(settings.clone(), &[&stream], RecordTracer::disabled()).await;
    let mut client = gateway.client().await;
    for n in 0..BATCHES {
        let data = format!("{n} {}", "x".repeat(512 << 10));
        let answer = soon("an answer", client.put(put(vec![record("k", data)]))).await.unwrap().into_inner();
        assert!(is_spooled(&answer.results[0]));
    }
    assert_eq!(gateway.stop().await.spooled, BATCHES as u64);

    // Little fits into the writer, so that most is still on disk only.
    settings.http_listen = Some(([127, 0, 0, 1], 0).into());
    settings.streams[0].writer.max_buffered_bytes = 2 << 20;
    let gateway = Running::with(settings, &[&stream], RecordTracer::disabled()).await;
    assert_eq!(metric(&gateway, "headworks_spool_alarm").await, 0);
    let mut files: Vec<_> = std::fs::read_dir(directory.path().join("inbound.spool"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| std::fs::metadata(path).unwrap().len() > 1 << 20)
        .collect();
    files.sort();
    assert!(files.len() >= 5, "{files:?}");
    let last = files.pop().unwrap();
    let away = directory.path().join("away");
    std::fs::rename(&last, &away).unwrap();
    stream.set(Mode::Open);
    until(&gateway, "headworks_spool_alarm", |alarm| alarm == 1).await;
    assert!(metric(&gateway, "headworks_spool_unreadable_total").await > 0);
    assert!(metric(&gateway, "headworks_spool_records").await > 0);

    std::fs::rename(&away, &last).unwrap();
    stream.stored(BATCHES).await;
    until(&gateway, "headworks_spool_records", |records| records == 0).await;
    assert_eq!(metric(&gateway, "headworks_spool_alarm").await, 0);
    let numbers = stream.of_key("k").into_iter().map(|data| data.split(' ').next().unwrap().parse().unwrap());
    assert_eq!(numbers.collect::<Vec<usize>>(), (0..BATCHES).collect::<Vec<_>>());
    assert_eq!(gateway.stop().await.spooled, 0);
}
