//! The handler against fakes: every record is accounted for, and a batch moves on only when it is.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::common::{
    Letters, SHARD, Shards, Streams, World, aggregate, event, invocation, kpl, labelled, record, seal,
};
use headworks_record::aggregate::MAGIC;
use headworks_record::headers::MAX_HEADERS;
use headworks_record::{Creation, Record};
use headworks_router::trouble::Kind;
use headworks_router::{Event, Invocation, Router, Trouble};
use headworks_telemetry::{RecordTracer, Sampler, SpanStore};
use tokio::time::Instant;

fn broken_member() -> bytes::Bytes {
    // Table ["k"]; a member that names entry 1.
    seal(&[0x0a, 1, b'k', 0x1a, 5, 0x08, 1, 0x1a, 1, b'y'])
}

async fn failed_from(router: &Router, event: &Event) -> Option<(String, String)> {
    let report = router.handle(event, &invocation()).await.unwrap();
    report.failed.map(|failed| (failed.sequence_number.to_string(), failed.trouble.code.into_owned()))
}

#[tokio::test]
async fn every_record_goes_where_the_table_says_unchanged_and_in_order() {
    let (world, router) = World::kind();
    let sent: Vec<Record> = (0..40)
        .map(|i| {
            let kind = ["order.placed", "click", "order.click", "noise", "other"][i % 5];
            record(&format!("session-{}", i % 3), kind, &format!("{i:02}"))
        })
        .collect();
    let report = router.handle(&event(sent.chunks(7).map(aggregate).collect()), &invocation()).await.unwrap();
    assert_eq!(report.failed, None);
    assert_eq!(serde_json::to_string(&report.response()).unwrap(), r#"{"batchItemFailures":[]}"#);
    assert_eq!((report.counts.records, report.counts.stored, report.counts.dropped), (40, 40, 8));
    for (stream, kinds) in [
        ("orders", &["order.placed", "order.click"][..]),
        ("clicks", &["click", "order.click"]),
        ("default", &["other"]),
    ] {
        let expected: Vec<Record> =
            sent.iter().filter(|r| kinds.contains(&r.headers.get("type").unwrap())).cloned().collect();
        assert_eq!(world.streams.records(stream), expected, "{stream}");
    }
    let stored = world.streams.stored.lock().unwrap();
    let (_, origin) = &stored["default"][1];
    assert_eq!((origin.shard.as_str(), &*origin.sequence_number), (SHARD, "101"));
    assert_eq!(origin.arrival_ms, 1_790_000_000_501);
}

#[tokio::test]
async fn a_partial_failure_names_the_lowest_sequence_number() {
    let streams = Streams::new(|stream, record| {
        let throttled =
            (stream == "orders" && record.data == "c") || (stream == "clicks" && record.data == "b");
        if throttled { Err(Trouble::unavailable("deadline-exceeded", "throttled")) } else { Ok(()) }
    });
    let (world, router) = World::new(streams, Letters::default(), Shards::default());
    let event = event(vec![
        aggregate(&[record("k", "order", "a")]),
        aggregate(&[record("k", "order", "b"), record("k", "click", "b")]),
        aggregate(&[record("k", "order", "c")]),
        aggregate(&[record("k", "other", "d")]),
    ]);
    let report = router.handle(&event, &invocation()).await.unwrap();
    assert_eq!(
        serde_json::to_string(&report.response()).unwrap(),
        r#"{"batchItemFailures":[{"itemIdentifier":"101"}]}"#
    );
    assert_eq!((report.counts.failed, report.counts.stored), (2, 3));
    assert_eq!(world.streams.data("default"), ["d"]);
    assert!(world.letters.keys().is_empty(), "throttling is never poison");
}

#[tokio::test]
async fn poison_goes_to_the_dead_letters_and_the_batch_goes_on() {
    let streams = Streams::new(|stream, record| match (stream, &record.data[..]) {
        ("orders", b"big") => Err(Trouble::poison("record-too-large", "too large")),
        ("clicks", b"big") => Err(Trouble::poison("destination-missing", "no such stream")),
        _ => Ok(()),
    });
    let (world, router) = World::new(streams, Letters::default(), Shards::default());
    let event = event(vec![
        aggregate(&[
            record("k", "order", "a"),
            record("key-2", "order.click", "big"),
            record("k", "click", "b"),
        ]),
        broken_member(),
        aggregate(&[record("k", "other", "c")]),
    ]);
    let report = router.handle(&event, &invocation()).await.unwrap();
    assert_eq!(report.failed, None);
    assert_eq!(report.counts.dead_letters, 2);
    assert_eq!(world.streams.data("orders"), ["a"]);
    assert_eq!(world.streams.data("clicks"), ["b"]);
    assert_eq!(world.streams.data("default"), ["c"]);

    let letters = world.letters.written.lock().unwrap();
    let all = &letters[0];
    assert_eq!(all.key(), format!("dead-letters/inbound/{SHARD}/101-all.json"));
    assert_eq!(all.reasons[0].code, "aggregate-index-out-of-range");
    assert_eq!((&all.data, &*all.partition_key), (&broken_member(), &*format!("hw/{SHARD}/0")));
    let big = &letters[1];
    assert_eq!(big.key(), format!("dead-letters/inbound/{SHARD}/100-1.json"));
    let reasons: Vec<_> = big.reasons.iter().map(|r| (&*r.code, r.destination.as_deref().unwrap())).collect();
    assert_eq!(reasons, [("record-too-large", "orders"), ("destination-missing", "clicks")]);
    let original = record("key-2", "order.click", "big");
    assert_eq!(Some(big.traceparent.clone()), original.traceparent());
    assert_eq!((&*big.partition_key, &big.data), ("key-2", &original.data));
    assert_eq!(big.headers, [("type".to_owned(), "order.click".to_owned())]);
}

#[tokio::test]
async fn poison_without_a_bucket_blocks_the_shard_and_is_not_overtaken() {
    let letters = Letters { broken: true, ..Letters::default() };
    let (world, router) = World::new(Streams::new(|_, _| Ok(())), letters, Shards::default());
    let event = event(vec![
        aggregate(&[record("k", "order", "a")]),
        broken_member(),
        aggregate(&[record("k", "order", "b")]),
    ]);
    let expected = Some(("101".to_owned(), "dead-letters-not-configured".to_owned()));
    assert_eq!(failed_from(&router, &event).await, expected);
    assert_eq!(world.streams.data("orders"), ["a"]);

    // A destination's refusal is known only after the puts.
    let letters = Letters { broken: true, ..Letters::default() };
    let streams = Streams::new(|_, _| Err(Trouble::poison("record-too-large", "too large")));
    let (_, router) = World::new(streams, letters, Shards::default());
    let expected = Some(("100".to_owned(), "dead-letters-not-configured".to_owned()));
    assert_eq!(failed_from(&router, &event).await, expected);
}

#[tokio::test]
async fn records_of_other_writers_get_an_identity_that_retries_keep() {
    let (world, router) = World::kind();
    let event = labelled(vec![("plain".to_owned(), "p".into()), ("a".to_owned(), kpl(&["x", "y"]))]);
    for _ in 0..2 {
        let report = router.handle(&event, &invocation()).await.unwrap();
        assert_eq!((report.failed, report.counts.foreign), (None, 3));
    }
    let records = world.streams.records("default");
    let keys: Vec<&str> = records.iter().map(|record| record.key.as_str()).collect();
    assert_eq!(keys, ["plain", "k", "k", "plain", "k", "k"]);
    let identities: Vec<Creation> = records.iter().map(|r| *r.headers.creation().unwrap()).collect();
    assert_eq!(identities[..3], identities[3..]);
    assert_ne!(identities[1].trace_id, identities[2].trace_id);
    assert_eq!(identities[0].created_ms, 1_790_000_000_500);
    assert_eq!(identities[1].created_ms, 1_790_000_000_501);
}

#[tokio::test]
async fn damaged_aggregates_are_routed_raw_and_counted() {
    let (world, router) = World::kind();
    let mut bytes = aggregate(&[record("k", "order", "a")]).to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let event =
        labelled(vec![("its-key".to_owned(), bytes.clone().into()), ("z".to_owned(), MAGIC.to_vec().into())]);
    let report = router.handle(&event, &invocation()).await.unwrap();
    assert_eq!((report.failed, report.counts.damaged), (None, 2));
    let records = world.streams.records("default");
    assert_eq!((records[0].key.as_str(), &records[0].data[..]), ("its-key", &bytes[..]));
    assert_eq!(records[1].key.as_str(), "z");
    assert_eq!(world.shards.calls.load(Ordering::Relaxed), 0, "the hash-range rule is for aggregates");
}

#[tokio::test]
async fn misplaced_aggregates_are_left_to_their_writer() {
    let (world, router) = World::kind();
    // md5("a") begins 0x0c: in the shard; md5("b") begins 0x92: outside.
    let inside = || aggregate(&[record("a", "order", "inside")]);
    let both = || aggregate(&[record("a", "order", "both"), record("b", "order", "both")]);
    let parent = || "hw/shardId-000000000000/0".to_owned();
    let event = labelled(vec![
        (parent(), both()),
        (parent(), inside()),
        (format!("hw/{SHARD}/0"), aggregate(&[record("b", "order", "by label")])),
        (parent(), both()),
        ("k".to_owned(), kpl(&["foreign"])),
    ]);
    let report = router.handle(&event, &invocation()).await.unwrap();
    assert_eq!((report.failed, report.counts.misplaced), (None, 2));
    assert_eq!(world.streams.data("orders"), ["inside", "by label"]);
    assert_eq!(world.streams.data("default"), ["foreign"]);
    assert_eq!(world.shards.calls.load(Ordering::Relaxed), 1, "ranges are kept");

    // Without the range the shard waits there; nothing overtakes.
    let shards = Shards { down: true, ..Shards::default() };
    let (world, router) = World::new(Streams::new(|_, _| Ok(())), Letters::default(), shards);
    let event = labelled(vec![
        (format!("hw/{SHARD}/0"), aggregate(&[record("k", "order", "first")])),
        (parent(), inside()),
        (format!("hw/{SHARD}/0"), aggregate(&[record("k", "order", "later")])),
    ]);
    assert_eq!(failed_from(&router, &event).await, Some(("101".to_owned(), "shards-not-listed".to_owned())));
    assert_eq!(world.streams.data("orders"), ["first"]);
}

#[tokio::test(start_paused = true)]
async fn it_stops_before_the_deadline_and_returns_what_is_done() {
    let mut streams = Streams::new(|_, _| Ok(()));
    streams.silent = vec!["orders"];
    let (world, router) = World::new(streams, Letters::default(), Shards::default());
    let event = event(vec![
        aggregate(&[record("k", "other", "a")]),
        aggregate(&[record("k", "order", "b")]),
        aggregate(&[record("k", "other", "c")]),
    ]);
    let deadline = Instant::now() + Duration::from_secs(30);
    let report = router.handle(&event, &Invocation { deadline, request_id: None }).await.unwrap();
    assert!(Instant::now() < deadline);
    let failed = report.failed.unwrap();
    assert_eq!((&*failed.sequence_number, failed.trouble.kind), ("101", Kind::Unavailable));
    assert_eq!(world.streams.data("default"), ["a", "c"]);

    // A deadline that has passed already.
    let late = Invocation { deadline: Instant::now(), request_id: None };
    assert_eq!(&*router.handle(&event, &late).await.unwrap().failed.unwrap().sequence_number, "101");
}

#[tokio::test]
async fn a_transform_that_breaks_the_limits_is_poison_for_that_destination() {
    let (world, router) = World::kind();
    let mut full = Record::builder("k").unwrap().header("type", "marked").unwrap();
    for i in 1..MAX_HEADERS {
        full = full.header(format!("h{i}"), "x").unwrap();
    }
    let event = event(vec![aggregate(&[full.build(), record("k", "marked", "m")])]);
    let report = router.handle(&event, &invocation()).await.unwrap();
    assert_eq!((report.failed, report.counts.dead_letters), (None, 1));
    let letters = world.letters.written.lock().unwrap();
    assert_eq!(letters[0].reasons[0].code, "headers-too-many");
    assert_eq!(letters[0].reasons[0].destination.as_deref(), Some("marked"));
    assert_eq!(letters[0].headers.len(), MAX_HEADERS);
    assert_eq!(world.streams.records("marked")[0].headers.get("mark"), Some("yes"));
}

#[tokio::test]
async fn a_table_that_feeds_its_own_stream_is_refused() {
    let (world, router) = World::kind();
    let mut event = event(vec![aggregate(&[record("k", "order", "a")])]);
    event.stream = "clicks".into();
    let error = router.handle(&event, &invocation()).await.unwrap_err();
    assert_eq!(error.code(), "route-table-loop");
    assert!(error.to_string().contains("\"clicks\""), "{error}");
    assert!(world.streams.stored.lock().unwrap().is_empty());
    let report = router.handle(&Event::default(), &invocation()).await.unwrap();
    assert_eq!(report.response(), Default::default());
}

#[tokio::test]
async fn spans_tell_a_records_journey_and_never_miss_an_error() {
    let spans = SpanStore::new(100);
    let streams = Streams::new(|_, record| {
        if record.data == "bad" { Err(Trouble::poison("record-too-large", "too large")) } else { Ok(()) }
    });
    let (_, router) = World::new(streams, Letters::default(), Shards::default());
    let router = router.with_tracer(RecordTracer::new(spans.clone()), Sampler::always());
    let sampled = |mut record: Record| {
        let creation = record.headers.creation().unwrap().with_sampled(true);
        record.headers.set_creation(creation);
        record
    };
    let good = sampled(record("k", "order.click", "good"));
    let members = [good.clone(), record("k", "order", "quiet"), record("k", "order", "bad")];
    let event =
        labelled(vec![(format!("hw/{SHARD}/0"), aggregate(&members)), ("p".to_owned(), "plain".into())]);
    router.handle(&event, &invocation()).await.unwrap();

    let spans = spans.take();
    let names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
    assert_eq!(
        names,
        ["create inbound", "route inbound", "route inbound", "route inbound", "invoke inbound"]
    );
    let creation = good.headers.creation().unwrap();
    let route = &spans[1];
    assert_eq!(route.span_context.trace_id().to_bytes(), creation.trace_id.0);
    assert_eq!(route.parent_span_id.to_bytes(), creation.span_id.0);
    let attribute = |name: &str| {
        route.attributes.iter().find(|a| a.key.as_str() == name).map(|a| a.value.as_str().into_owned())
    };
    assert_eq!(attribute("headworks.rule").as_deref(), Some("orders"));
    assert_eq!(attribute("headworks.destinations").as_deref(), Some("orders clicks"));
    // The record of another writer: its creation span is the router's, and the route span its child.
    assert_eq!(spans[2].parent_span_id, spans[0].span_context.span_id());
    // The unsampled record that failed: a root of its own that links to the record.
    let links: Vec<_> = spans[3].links.iter().map(|link| link.span_context.trace_id().to_bytes()).collect();
    assert_eq!(links, [record("k", "order", "bad").headers.creation().unwrap().trace_id.0]);
    assert_eq!(spans[4].links.len(), 2);
}

#[tokio::test]
async fn rules_see_derived_headers_change_payloads_and_bury() {
    let routes = r#"
        [derive]
        type = "/type"
        [[rules]]
        when.type = "card"
        to = "cards"
        payload.drop = "/number"
        [[rules]]
        name = "tests"
        when.type = "test"
        dead-letter = true
        [default]
        to = "default"
    "#;
    let streams = Streams::new(|_, _| Ok(()));
    let (world, router) = World::with_routes(routes, streams, Letters::default(), Shards::default());
    let card = r#"{"type":"card","number":4111,"sum":1.10}"#;
    let event = labelled(vec![
        ("k".to_owned(), card.into()),
        ("k".to_owned(), r#"{"type":"test"}"#.into()),
        (format!("hw/{SHARD}/0"), aggregate(&[record("k", "card", "4111"), record("k", "other", card)])),
    ]);
    let report = router.handle(&event, &invocation()).await.unwrap();
    assert_eq!((report.failed, report.counts.dead_letters, report.counts.dropped), (None, 2, 0));
    let cards = world.streams.records("cards");
    assert_eq!(world.streams.data("cards"), [r#"{"type":"card","sum":1.10}"#]);
    assert_eq!(cards[0].headers.get("type"), Some("card"));
    assert_eq!(
        world.streams.data("default"),
        [card],
        "the producer's header decides, the payload is untouched"
    );
    let letters = world.letters.written.lock().unwrap();
    let reasons: Vec<_> =
        letters.iter().map(|l| (&*l.reasons[0].code, l.reasons[0].destination.as_deref())).collect();
    assert_eq!(reasons, [("dead-letter-by-rule", None), ("payload-not-an-object", Some("cards"))]);
    assert!(letters[0].reasons[0].message.starts_with("rule 2 \"tests\""), "{:?}", letters[0].reasons);
    assert_eq!(letters[1].data, "4111");
}
