//! The producer against the real gateway, whose stream lives in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod mortal;
#[path = "../../gateway/tests/support/mod.rs"]
mod support;

use std::collections::HashSet;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use headworks_producer::{ConnectError, Error, Producer, Receipt, Record};
use headworks_telemetry::{Minter, RecordTracer, Sampler, SpanStore};
use mortal::{Mortal, first_occurrences};
use support::{FakeStream, Mode, Running, config, soon};

fn record(key: &str, data: impl Into<bytes::Bytes>) -> Record {
    Record::builder(key).unwrap().header("type", "test").unwrap().data(data).build()
}

async fn connect(url: &str) -> Producer {
    Producer::builder().endpoint(url).stream("inbound").connect().await.unwrap()
}

#[tokio::test]
async fn records_arrive_in_order_as_they_were_sent() {
    const RECORDS: usize = 5_000;
    let stream = FakeStream::new("inbound");
    let running = Running::start(&[&stream]).await;
    let producer = connect(&running.url()).await;
    let keys = ["a", "b", "c", "d", "e"];
    let mut tickets = Vec::new();
    for i in 0..RECORDS {
        tickets.push(producer.send(record(keys[i % keys.len()], i.to_string())).await);
    }
    for stored in soon("the answers", join_all(tickets)).await {
        let Receipt::Stored(stored) = stored.unwrap() else { panic!("there is no spool") };
        assert!(stored.shard_id.starts_with("shardId-") && stored.attempts == 1, "{stored:?}");
    }
    for (k, key) in keys.iter().enumerate() {
        let expected: Vec<String> = (k..RECORDS).step_by(keys.len()).map(|i| i.to_string()).collect();
        assert_eq!(stream.of_key(key), expected);
    }
    assert!(stream.records().iter().all(|r| r.headers.get("type") == Some("test")));
    let identities: HashSet<_> = stream.records().iter().map(|r| *r.headers.creation().unwrap()).collect();
    assert_eq!(identities.len(), RECORDS);
    let report = producer.close(Duration::from_secs(10)).await;
    assert_eq!((report.stored, report.is_complete()), (RECORDS as u64, true));
    assert_eq!(running.stop().await.unanswered, 0);
}

#[tokio::test]
async fn a_small_credit_only_slows_it_down() {
    let stream = FakeStream::new("inbound");
    let mut settings = config(&[&stream]);
    settings.credit_records = 7;
    settings.max_record_bytes = 100;
    settings.credit_bytes = 300;
    let running = Running::with(settings, &[&stream], RecordTracer::disabled()).await;
    let producer = connect(&running.url()).await;
    let mut tickets = Vec::new();
    for i in 0..500 {
        tickets.push(producer.send(record("k", format!("{i:0>50}"))).await);
    }
    let too_large = producer.send(record("k", vec![0; 300])).await;
    let results = soon("the answers", join_all(tickets)).await;
    assert!(results.iter().all(Result::is_ok));
    let numbers: Vec<usize> = stream.of_key("k").iter().map(|data| data.parse().unwrap()).collect();
    assert_eq!(numbers, (0..500).collect::<Vec<_>>());
    let error = too_large.await.unwrap_err();
    assert_eq!(error.code(), "record-too-large");
    assert!(error.to_string().contains("credit"), "{error}");
}

#[tokio::test]
async fn bad_records_are_told_apart() {
    let stream = FakeStream::new("inbound");
    let mut settings = config(&[&stream]);
    settings.max_record_bytes = 1000;
    let running = Running::with(settings, &[&stream], RecordTracer::disabled()).await;
    let producer = Producer::builder().endpoint(running.url()).buffer_bytes(4096).connect().await.unwrap();
    assert!(Record::builder("").is_err() && Record::builder("k").unwrap().header("A", "").is_err());

    // Key, header and data: 1 + 8 + 991.
    soon("an answer", producer.put(record("k", vec![0; 991]))).await.unwrap();
    let error = soon("an answer", producer.put(record("k", vec![0; 992]))).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }) && !error.is_retryable() && !error.outcome_unknown());
    assert_eq!(error.code(), "record-too-large");
    assert!(error.to_string().contains("1001 bytes"), "{error}");

    let error = producer.put(record("k", vec![0; 4096])).await.unwrap_err();
    assert_eq!(error.code(), "record-too-large");
    assert!(error.to_string().contains("buffer_bytes"), "{error}");
    let large = Producer::builder().endpoint(running.url()).buffer_bytes(1 << 30).connect().await.unwrap();
    let error = large.put(record("k", vec![0; 16 << 20])).await.unwrap_err();
    assert!(error.to_string().contains("one message"), "{error}");

    let report = producer.close(Duration::from_secs(10)).await;
    assert_eq!((report.stored, report.failed, report.unknown), (1, 2, 0));
}

#[tokio::test]
async fn a_full_buffer_makes_senders_wait() {
    let stream = FakeStream::new("inbound");
    stream.set(Mode::Shut);
    let running = Running::start(&[&stream]).await;
    let producer = Producer::builder().endpoint(running.url()).buffer_bytes(10_000).connect().await.unwrap();
    let first = producer.send(record("k", vec![b'1'; 6000])).await;
    stream.called(1).await;
    let mut second = std::pin::pin!(producer.send(record("k", vec![b'2'; 6000])));
    assert!((&mut second).now_or_never().is_none());
    stream.set(Mode::Open);
    soon("the first answer", first).await.unwrap();
    soon("the second answer", soon("room", second).await).await.unwrap();

    // One that waits when the producer is closed was never sent.
    stream.set(Mode::Shut);
    let third = producer.send(record("k", vec![b'3'; 6000])).await;
    let mut fourth = std::pin::pin!(producer.send(record("k", vec![b'4'; 6000])));
    assert!((&mut fourth).now_or_never().is_none());
    let closing = tokio::spawn(producer.clone().close(Duration::from_secs(20)));
    assert_eq!(soon("a refusal", fourth).await.await, Err(Error::Closed));
    stream.set(Mode::Open);
    soon("the third answer", third).await.unwrap();
    let report = closing.await.unwrap();
    assert_eq!((report.stored, report.failed), (3, 1));
    assert_eq!(producer.put(record("k", "late")).await, Err(Error::Closed));
}

#[tokio::test]
async fn dropped_tickets_and_a_dropped_producer_take_nothing_back() {
    let stream = FakeStream::new("inbound");
    stream.set(Mode::Shut);
    let running = Running::start(&[&stream]).await;
    let producer = connect(&running.url()).await;
    for i in 0..100 {
        drop(producer.send(record("k", i.to_string())).await);
    }
    let mut flush = producer.flush().boxed();
    assert!((&mut flush).now_or_never().is_none());
    stream.set(Mode::Open);
    soon("the flush", flush).await;
    assert_eq!(stream.of_key("k").len(), 100);
    assert_eq!(producer.report().stored, 100);
    soon("an empty flush", producer.flush()).await;

    drop(producer.send(record("k", "last")).await);
    drop(producer);
    stream.stored(101).await;
}

#[tokio::test]
async fn a_killed_gateway_costs_nothing_and_order_holds() {
    const ROUNDS: usize = 4;
    let stream = FakeStream::new("inbound");
    let mut gateway = Mortal::start(config(&[&stream]), &stream).await;
    let producer = connect(&gateway.url()).await;
    let (mut tickets, mut sent) = (Vec::new(), 0);
    for round in 0..ROUNDS {
        // Killed before the stream has the records in one round, before it answers in the next.
        stream.set(if round % 2 == 0 { Mode::Shut } else { Mode::Mute });
        let calls = stream.calls();
        for _ in 0..200 {
            let key = ["a", "b", "c"][sent % 3];
            tickets.push(producer.send(record(key, sent.to_string())).await);
            sent += 1;
        }
        stream.called(calls + 1).await;
        gateway = gateway.again(&stream).await;
        stream.set(Mode::Open);
    }
    for stored in soon("the answers", join_all(tickets)).await {
        stored.unwrap();
    }
    for (k, key) in ["a", "b", "c"].iter().enumerate() {
        let expected: Vec<String> = (k..sent).step_by(3).map(|i| i.to_string()).collect();
        assert_eq!(first_occurrences(&stream, key), expected);
    }
    // What came twice came as the same record.
    let stored = stream.records();
    assert!(stored.len() > sent, "some were stored, not answered, and sent again");
    let identities: HashSet<_> = stored.iter().map(|r| *r.headers.creation().unwrap()).collect();
    assert_eq!(identities.len(), sent);
    assert!(producer.close(Duration::from_secs(10)).await.is_complete());
}

#[tokio::test]
async fn a_gateway_that_drains_hands_over_to_the_next() {
    let stream = FakeStream::new("inbound");
    let mut running = Running::start(&[&stream]).await;
    let producer = connect(&running.url()).await;
    let mut tickets = Vec::new();
    for round in 0..3 {
        for i in 0..300 {
            tickets.push(producer.send(record("k", (round * 300 + i).to_string())).await);
        }
        let mut settings = config(&[&stream]);
        settings.listen = running.handle.local_addr();
        assert_eq!(running.stop().await.unanswered, 0);
        running = Running::with(settings, &[&stream], RecordTracer::disabled()).await;
    }
    for stored in soon("the answers", join_all(tickets)).await {
        stored.unwrap();
    }
    let expected: Vec<String> = (0..900).map(|i| i.to_string()).collect();
    assert_eq!(stream.of_key("k"), expected, "a drain repeats nothing");
}

#[tokio::test]
async fn time_runs_out_when_nobody_is_there() {
    let stream = FakeStream::new("inbound");
    stream.set(Mode::Shut);
    let gateway = Mortal::start(config(&[&stream]), &stream).await;
    let url = gateway.url();
    let builder = Producer::builder().endpoint(&url).timeout(Duration::from_millis(300));
    let producer = builder.connect().await.unwrap();
    let sent = producer.send(record("k", "sent")).await;
    stream.called(1).await;
    drop(gateway);
    // It notices the loss before the record's time is over, or not; what was sent is unknown either way.
    let error = soon("an answer", sent).await.unwrap_err();
    assert!(error.outcome_unknown() && error.is_retryable(), "{error:?}");
    assert_eq!(error.code(), "outcome-unknown");

    let error = soon("an answer", producer.put(record("k", "never sent"))).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }) && error.is_retryable() && !error.outcome_unknown());
    assert!(error.to_string().contains(&url), "{error}");
    let report = producer.close(Duration::ZERO).await;
    assert_eq!((report.stored, report.failed, report.unknown, report.abandoned), (0, 1, 1, 0));
}

#[tokio::test]
async fn closing_keeps_its_deadline_and_says_what_was_given_up() {
    let stream = FakeStream::new("inbound");
    let mut settings = config(&[&stream]);
    settings.credit_records = 2;
    let running = Running::with(settings, &[&stream], RecordTracer::disabled()).await;
    let producer = connect(&running.url()).await;
    soon("an answer", producer.put(record("k", "0"))).await.unwrap();
    stream.set(Mode::Mute);
    let mut tickets = Vec::new();
    for i in 1..=5 {
        tickets.push(producer.send(record("k", i.to_string())).await);
    }
    stream.called(2).await;
    let report = soon("the end", producer.close(Duration::from_millis(50))).await;
    // The credit lets two go; whether the second was on its way when the time was over is a race.
    assert_eq!((report.stored, report.failed + report.unknown, report.abandoned), (1, 5, 5));
    assert!((1..=2).contains(&report.unknown), "{report:?}");
    let errors: Vec<Error> = join_all(tickets).await.into_iter().map(Result::unwrap_err).collect();
    assert!(errors[0].outcome_unknown());
    assert_eq!(errors[4], Error::Closed);
}

#[tokio::test]
async fn what_keeps_it_from_connecting_is_named() {
    let stream = FakeStream::new("inbound");
    let running = Running::start(&[&stream]).await;
    let error = Producer::builder().endpoint(running.url()).stream("elsewhere").connect().await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("gateway-refused", false));
    assert!(error.to_string().contains("\"elsewhere\"") && error.to_string().contains("inbound"), "{error}");

    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let builder = Producer::builder().endpoint(&url).connect_timeout(Duration::from_millis(300));
    let error = soon("a refusal", builder.connect()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }) && error.is_retryable());
    assert!(error.to_string().contains(&url) && error.to_string().contains("refused"), "{error}");

    for endpoint in ["", "127.0.0.1:4400", "ftp://x", "http://a b"] {
        let error = Producer::builder().endpoint(endpoint).connect().await.unwrap_err();
        assert_eq!(error.code(), "config-invalid", "{endpoint}: {error}");
    }
}

#[tokio::test]
async fn connecting_waits_for_a_gateway_that_is_late() {
    let stream = FakeStream::new("inbound");
    let place = Mortal::start(config(&[&stream]), &stream).await;
    let url = place.url();
    let mut settings = config(&[&stream]);
    settings.listen = place.address;
    drop(place);
    let connecting = tokio::spawn(async move { connect(&url).await });
    let _gateway = Mortal::start(settings, &stream).await;
    let producer = soon("the connection", connecting).await.unwrap();
    soon("an answer", producer.put(record("k", "x"))).await.unwrap();
}

#[tokio::test]
async fn a_record_is_born_in_the_callers_span() {
    use opentelemetry::trace::TracerProvider as _;
    use tracing::Instrument as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    let stream = FakeStream::new("inbound");
    let (ours, gateways) = (SpanStore::new(100), SpanStore::new(100));
    let running = Running::with(config(&[&stream]), &[&stream], RecordTracer::new(gateways.clone())).await;
    let producer = Producer::builder()
        .endpoint(running.url())
        .stream("inbound")
        .minter(Minter::new(Sampler::never()))
        .tracer(RecordTracer::new(ours.clone()))
        .connect()
        .await
        .unwrap();

    let callers = SpanStore::new(100);
    let provider =
        opentelemetry_sdk::trace::SdkTracerProvider::builder().with_span_processor(callers.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let put = async { producer.put(record("k", "x")).await }.instrument(tracing::info_span!("caller"));
    let receipt = soon("an answer", put).await.unwrap();
    soon("an answer", producer.put(record("k", "unsampled"))).await.unwrap();

    let spans = ours.spans();
    assert_eq!(spans.len(), 1, "{spans:?}");
    assert_eq!(spans[0].name, "create inbound");
    let creation = *stream.records()[0].headers.creation().unwrap();
    assert_eq!(spans[0].span_context.span_id().to_bytes(), creation.span_id.0);
    let caller = callers.spans().into_iter().find(|span| span.name == "caller").unwrap();
    assert_eq!(spans[0].parent_span_id, caller.span_context.span_id());
    assert_eq!(spans[0].span_context.trace_id(), caller.span_context.trace_id());
    assert!(
        spans[0].attributes.iter().any(|a| a.value.as_str() == *receipt.stored().unwrap().sequence_number)
    );
    assert!(gateways.spans().iter().all(|span| !span.name.starts_with("create")));
}
