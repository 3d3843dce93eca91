//! `PutStream`: order, credit, back-pressure, draining.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod http_client;
mod support;

use std::collections::HashMap;

use headworks_gateway::call::ERROR_CODE;
use headworks_proto::MAX_MESSAGE_BYTES;
use headworks_proto::compact;
use headworks_proto::v1::put_stream_request::{Batch, Message as Asked, Open};
use headworks_proto::v1::put_stream_response::{Credit, Message as Told, Results};
use headworks_proto::v1::record_result::Outcome;
use headworks_proto::v1::{PutStreamRequest, PutStreamResponse, Record};
use headworks_telemetry::RecordTracer;
use support::{FakeStream, Mode, Running, codes, config, error, record, soon};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

struct Talk {
    asks: mpsc::Sender<PutStreamRequest>,
    tells: Streaming<PutStreamResponse>,
}

impl Talk {
    /// Calls, and sends nothing yet.
    async fn call(running: &Running) -> Self {
        let (asks, waiting) = mpsc::channel(1);
        let call = async { running.client().await.put_stream(ReceiverStream::new(waiting)).await };
        let tells = soon("headers", call).await.unwrap().into_inner();
        Self { asks, tells }
    }

    /// Calls and opens.
    async fn open(running: &Running) -> (Self, Credit) {
        let mut talk = Self::call(running).await;
        talk.ask(Asked::Open(Open::default())).await;
        match talk.told().await.unwrap() {
            Some(Told::Credit(credit)) => (talk, credit),
            other => panic!("{other:?}"),
        }
    }

    async fn ask(&self, asked: Asked) {
        soon("room for a message", self.asks.send(PutStreamRequest { message: Some(asked) })).await.unwrap();
    }

    async fn batch(&self, number: u64, records: Vec<Record>) {
        self.ask(Asked::Batch(Batch { number, records })).await;
    }

    async fn told(&mut self) -> Result<Option<Told>, Status> {
        Ok(soon("a message", self.tells.message()).await?.map(|response| response.message.unwrap()))
    }

    async fn results(&mut self) -> Results {
        match self.told().await.unwrap() {
            Some(Told::Results(results)) => results,
            other => panic!("{other:?}"),
        }
    }

    /// The status with which the call fails; answers before it are collected.
    async fn fails(&mut self) -> (Status, Vec<Results>) {
        let mut before = Vec::new();
        loop {
            match self.told().await {
                Ok(Some(Told::Results(results))) => before.push(results),
                Ok(other) => panic!("{other:?}"),
                Err(status) => return (status, before),
            }
        }
    }
}

fn code_of(status: &Status) -> &str {
    status.metadata().get(ERROR_CODE).unwrap().to_str().unwrap()
}

#[tokio::test]
async fn batches_are_taken_in_order_and_answered_by_number() {
    const BATCHES: u64 = 200;
    let stream = FakeStream::new("inbound");
    let running = Running::start(&[&stream]).await;
    let (talk, credit) = Talk::open(&running).await;
    assert_eq!((credit.records, credit.bytes), (65_536, 32 << 20));
    let Talk { asks, mut tells } = talk;
    let sender = tokio::spawn(async move {
        for number in 0..BATCHES {
            let records = ["a", "b", "c", "", "d"].map(|key| record(key, number.to_string())).to_vec();
            let message = Some(Asked::Batch(Batch { number: number * 7, records }));
            asks.send(PutStreamRequest { message }).await.unwrap();
        }
        // Dropping the sender half-closes.
    });
    let mut answered = HashMap::new();
    while let Some(response) = soon("an answer", tells.message()).await.unwrap() {
        let Some(Told::Results(results)) = response.message else { panic!("{response:?}") };
        assert_eq!(codes(&results.results), ["", "", "", "key-empty", ""]);
        assert!(answered.insert(results.number, ()).is_none(), "{} twice", results.number);
    }
    sender.await.unwrap();
    assert_eq!(answered.len() as u64, BATCHES);
    assert!((0..BATCHES).all(|number| answered.contains_key(&(number * 7))));
    for key in ["a", "b", "c", "d"] {
        let expected: Vec<String> = (0..BATCHES).map(|number| number.to_string()).collect();
        assert_eq!(stream.of_key(key), expected);
    }
}

#[tokio::test]
async fn half_closing_answers_what_is_open() {
    let stream = FakeStream::new("inbound");
    stream.set(Mode::Shut);
    let running = Running::start(&[&stream]).await;
    let (talk, _) = Talk::open(&running).await;
    talk.batch(1, vec![record("k", "x")]).await;
    talk.batch(2, vec![record("k", "y")]).await;
    let Talk { asks, mut tells } = talk;
    drop(asks);
    stream.called(1).await;
    stream.set(Mode::Open);
    let mut numbers = Vec::new();
    while let Some(response) = soon("an answer", tells.message()).await.unwrap() {
        let Some(Told::Results(results)) = response.message else { panic!("{response:?}") };
        numbers.push(results.number);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2]);
}

#[tokio::test]
async fn the_protocol_is_kept_to() {
    let stream = FakeStream::new("inbound");
    let running = Running::start(&[&stream]).await;
    let batch = |number| Asked::Batch(Batch { number, records: vec![record("k", "x")] });
    let open = || Asked::Open(Open::default());
    let too_many = Batch { number: 1, records: vec![record("k", "x"); 10_001] };
    let too_large = Batch { number: 1, records: vec![record("k", vec![0; MAX_MESSAGE_BYTES])] };
    let nowhere = Open { stream: "nowhere".into(), ..Default::default() };
    let never = Open { timeout: Some(prost_types::Duration::default()), ..Default::default() };
    let cases: Vec<(Code, &str, Vec<Option<Asked>>)> = vec![
        (Code::InvalidArgument, "put-stream-protocol", vec![Some(batch(1))]),
        (Code::InvalidArgument, "put-stream-protocol", vec![None]),
        (Code::InvalidArgument, "put-stream-protocol", vec![Some(open()), Some(open())]),
        (Code::InvalidArgument, "put-stream-protocol", vec![Some(open()), None]),
        (Code::NotFound, "stream-unknown", vec![Some(Asked::Open(nowhere))]),
        (Code::InvalidArgument, "timeout-invalid", vec![Some(Asked::Open(never))]),
        (Code::InvalidArgument, "batch-empty", vec![Some(open()), Some(Asked::Batch(Batch::default()))]),
        (Code::InvalidArgument, "batch-too-many-records", vec![Some(open()), Some(Asked::Batch(too_many))]),
        (Code::InvalidArgument, "message-too-large", vec![Some(open()), Some(Asked::Batch(too_large))]),
    ];
    for (grpc, code, messages) in cases {
        let mut talk = Talk::call(&running).await;
        for message in messages {
            // The call may have failed before the last message.
            let _ = soon("room", talk.asks.send(PutStreamRequest { message })).await;
        }
        let status = loop {
            match talk.told().await {
                Ok(Some(Told::Credit(_))) => {}
                Ok(other) => panic!("{code}: {other:?}"),
                Err(status) => break status,
            }
        };
        assert_eq!((status.code(), code_of(&status)), (grpc, code), "{status:?}");
    }
    assert!(stream.records().is_empty());
}

#[tokio::test]
async fn credit_and_numbers_are_held_to_and_what_was_taken_is_answered() {
    let stream = FakeStream::new("inbound");
    let mut settings = config(&[&stream]);
    settings.credit_records = 10;
    settings.max_record_bytes = 1000;
    settings.credit_bytes = 5000;
    settings.http_listen = Some("127.0.0.1:0".parse().unwrap());
    let running = Running::with(settings, &[&stream], RecordTracer::disabled()).await;
    let k = |bytes: usize| record("k", vec![b'x'; bytes - 1]);
    // What goes before, and the batch that is one too many.
    let cases = [
        ("credit-exceeded", vec![k(2); 10], (2, vec![k(2)])),
        ("credit-exceeded", vec![k(1000); 5], (2, vec![k(1)])),
        ("batch-number-repeated", vec![k(2)], (1, vec![k(2)])),
    ];
    for (code, before, (number, last)) in cases {
        stream.set(Mode::Shut);
        let failures = async || {
            let metrics = http_client::ask(&running, "GET", "/metrics", &[], "").await;
            let name = format!("headworks_door=\"put_stream\",error_type=\"{code}\"}} ");
            let text = String::from_utf8(metrics.body).unwrap();
            text.split_once(&name).map_or(0, |(_, rest)| rest.lines().next().unwrap().parse::<u64>().unwrap())
        };
        let failed = failures().await;
        let (mut talk, credit) = Talk::open(&running).await;
        assert_eq!((credit.records, credit.bytes), (10, 5000));
        let records = before.len();
        talk.batch(1, before).await;
        talk.batch(number, last).await;
        // Nothing is answered before the stream is opened, and the call has failed by then.
        soon("the failure", async {
            while failures().await == failed {
                tokio::task::yield_now().await;
            }
        })
        .await;
        stream.set(Mode::Open);
        let (status, answered) = talk.fails().await;
        assert_eq!((status.code(), code_of(&status)), (Code::InvalidArgument, code), "{status:?}");
        assert_eq!(answered.len(), 1);
        assert_eq!((answered[0].number, answered[0].results.len()), (1, records));
        assert!(answered[0].results.iter().all(|result| error(result).is_none()));
    }
    // Answered records free their credit.
    let (mut talk, _) = Talk::open(&running).await;
    for number in 0..3 {
        talk.batch(number, vec![k(500); 10]).await;
        assert_eq!(codes(&talk.results().await.results), [""; 10]);
    }
}

#[tokio::test]
async fn a_full_gateway_reads_no_further() {
    const BATCHES: u64 = 40;
    let stream = FakeStream::new("inbound");
    stream.set(Mode::Shut);
    let mut settings = config(&[&stream]);
    settings.streams[0].writer.max_buffered_bytes = 1 << 20;
    let running = Running::with(settings, &[&stream], RecordTracer::disabled()).await;
    let (talk, _) = Talk::open(&running).await;
    let Talk { asks, mut tells } = talk;
    let sender = tokio::spawn(async move {
        for number in 0..BATCHES {
            let data = format!("{}{number}", "0".repeat(199_990));
            let message = Some(Asked::Batch(Batch { number, records: vec![record("k", data)] }));
            asks.send(PutStreamRequest { message }).await.unwrap();
        }
    });
    stream.called(1).await;
    let writer = running.handle.writer("inbound").unwrap();
    // Five batches fill the budget; what follows stays with the client and the transport's windows.
    soon("a full writer", async {
        while writer.stats().records < 5 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(writer.buffered_bytes() <= 1 << 20);
    assert!(!sender.is_finished(), "8 MB do not fit into the windows");

    // Others are refused at once, and nothing is lost.
    let one = headworks_proto::v1::PutRequest {
        records: vec![record("k", vec![0; 200_000])],
        ..Default::default()
    };
    let status = running.client().await.put(one).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(writer.stats().records, 5);

    stream.set(Mode::Open);
    let mut answers = 0;
    while let Some(response) = soon("an answer", tells.message()).await.unwrap() {
        let Some(Told::Results(results)) = response.message else { panic!("{response:?}") };
        assert_eq!(codes(&results.results), [""]);
        answers += 1;
    }
    sender.await.unwrap();
    assert_eq!(answers, BATCHES);
    let numbers: Vec<u64> = stream.of_key("k").iter().map(|data| data.parse().unwrap()).collect();
    assert_eq!(numbers, (0..BATCHES).collect::<Vec<_>>());
}

#[tokio::test]
async fn draining_answers_what_was_taken_and_takes_no_more() {
    let stream = FakeStream::new("inbound");
    stream.set(Mode::Shut);
    let running = Running::start(&[&stream]).await;
    let (mut talk, _) = Talk::open(&running).await;
    let mut client = running.client().await;
    talk.batch(1, vec![record("k", "x")]).await;
    stream.called(1).await;

    running.shutdown.cancel();
    soon("the drain", async {
        while !running.handle.is_draining() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // The door still says what to do.
    let late = headworks_proto::v1::PutRequest { records: vec![record("k", "late")], ..Default::default() };
    let status = client.put(late).await.unwrap_err();
    assert_eq!((status.code(), code_of(&status)), (Code::Unavailable, "gateway-draining"), "{status:?}");

    stream.set(Mode::Open);
    assert_eq!(codes(&talk.results().await.results), [""]);
    let (status, _) = talk.fails().await;
    assert_eq!((status.code(), code_of(&status)), (Code::Unavailable, "gateway-draining"));
    assert_eq!(running.stop().await.unanswered, 0);
    assert_eq!(stream.of_key("k"), ["x"]);
}

#[tokio::test]
async fn what_remains_at_the_drain_deadline_is_said() {
    let stream = FakeStream::new("inbound");
    stream.set(Mode::Mute);
    let mut settings = config(&[&stream]);
    settings.drain_ms = 50;
    let running = Running::with(settings, &[&stream], RecordTracer::disabled()).await;
    let (mut talk, _) = Talk::open(&running).await;
    talk.batch(1, vec![record("k", "x")]).await;
    stream.called(1).await;
    talk.batch(2, vec![record("k", "y")]).await;
    let writer = running.handle.writer("inbound").unwrap().clone();
    soon("both batches with the writer", async {
        while writer.stats().records < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;

    running.shutdown.cancel();
    let (status, answered) = talk.fails().await;
    assert_eq!(status.code(), Code::Unavailable);
    let results: HashMap<u64, Results> = answered.into_iter().map(|r| (r.number, r)).collect();
    let in_flight = error(&results[&1].results[0]).unwrap();
    assert!(in_flight.outcome_unknown && in_flight.retryable, "{in_flight:?}");
    let waiting = error(&results[&2].results[0]).unwrap();
    assert!(!waiting.outcome_unknown && waiting.retryable, "{waiting:?}");
    assert_eq!(running.stop().await.unanswered, 2);
}

#[tokio::test]
async fn compact_answers_say_the_same_in_fewer_bytes() {
    let stream = FakeStream::new("inbound");
    let running = Running::start(&[&stream]).await;
    let told = async |compact_results: bool| {
        let mut call = Talk::call(&running).await;
        call.ask(Asked::Open(Open { compact_results, ..Default::default() })).await;
        assert!(matches!(call.told().await, Ok(Some(Told::Credit(_)))));
        let mut records: Vec<Record> = (0..500).map(|i| record("k", format!("{i}"))).collect();
        records[7].key.clear();
        call.batch(1, records).await;
        call.results().await
    };
    let (full, mut short) = (told(false).await, told(true).await);
    assert!(full.compact.is_none() && short.results.is_empty());
    let (whole, small) = (prost::Message::encoded_len(&full), prost::Message::encoded_len(&short));
    let mut short = short.compact.take().unwrap();
    let items = compact::read(&mut short).unwrap();
    assert_eq!(items.len(), full.results.len());
    let mut seen = std::collections::HashSet::new();
    for (i, (item, result)) in items.iter().zip(&full.results).enumerate() {
        match (item, result.outcome.as_ref().unwrap()) {
            (compact::Item::Stored { place, sub_sequence_number }, Outcome::Stored(stored)) => {
                let place = &short.places[*place];
                assert_eq!(&place.shard_id, &stored.shard_id);
                assert_eq!(place.attempts, stored.attempts);
                assert!(seen.insert((&place.sequence_number, *sub_sequence_number)), "record {i}");
            }
            (compact::Item::Other(other), _) => assert_eq!((i, other), (7, result)),
            other => panic!("{other:?}"),
        }
    }
    println!("500 records: {whole} bytes in full, {small} compact");
    assert!(small * 20 < whole, "{small} of {whole}");
}
