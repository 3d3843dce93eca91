//! The stream of records that the caller acknowledges, in paused time, and the spans of both faces.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on panics

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use headworks_consumer::{
    Batch, Checkpoint, Consumer, Error, Handler, HandlerError, HandlerRetry, Pending, Position, Records,
};
use headworks_record::aggregate::Builder;
use headworks_record::{Creation, Record};
use headworks_telemetry::{RecordTracer, SpanStore};
use support::{FakeStore, FakeStreams, Running, eventually, seq};
use tokio_util::sync::CancellationToken;

fn consumer(streams: &FakeStreams, store: &FakeStore) -> headworks_consumer::Builder {
    Consumer::builder("app", "orders")
        .worker_id("a")
        .streams(Arc::new(streams.clone()))
        .lease_store(Arc::new(store.clone()))
}

fn text(pending: &Pending) -> String {
    String::from_utf8_lossy(&pending.record.data).into_owned()
}

/// The next item, with a deadline that passes at once in paused time.
async fn next(records: &mut Records) -> Option<Result<Pending, Error>> {
    tokio::time::timeout(Duration::from_secs(300), records.next()).await.expect("an item or the end")
}

#[tokio::test(start_paused = true)]
async fn the_checkpoint_follows_the_first_record_that_is_not_acknowledged() {
    let (streams, store) = (FakeStreams::new(1), FakeStore::default());
    for i in 0..4 {
        streams.put("s0", "k", format!("{i}"));
    }
    let shutdown = CancellationToken::new();
    let mut records = consumer(&streams, &store).build().unwrap().stream(shutdown.clone());
    let mut pending = Vec::new();
    for i in 0..4 {
        let next = next(&mut records).await.unwrap().unwrap();
        assert_eq!(text(&next), i.to_string());
        pending.push(next);
    }
    let checkpoint = |n, sub| Checkpoint::At(Position::new(seq(n), sub));
    pending.remove(2).ack();
    pending.remove(1).ack();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(store.get("s0").unwrap().checkpoint, Checkpoint::At(Position::before(seq(101))));
    pending.remove(0).ack();
    eventually("the first three", || store.get("s0").unwrap().checkpoint == checkpoint(103, 0)).await;

    // What is in hand at shutdown may still be acknowledged.
    shutdown.cancel();
    let last = pending.remove(0);
    let ending = tokio::spawn(async move {
        let ended = next(&mut records).await;
        (ended.is_none(), records.summary().unwrap().unreleased.is_empty())
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(last.ack().record.data, "3");
    assert_eq!(ending.await.unwrap(), (true, true));
    assert_eq!(store.get("s0").unwrap().checkpoint, checkpoint(104, 0));
    assert_eq!(store.get("s0").unwrap().owner, None);
}

#[tokio::test(start_paused = true)]
async fn no_more_is_handed_out_than_may_be_unacknowledged() {
    let (streams, store) = (FakeStreams::new(1), FakeStore::default());
    for i in 0..20 {
        streams.put("s0", "k", format!("{i}"));
    }
    let built = consumer(&streams, &store).configure(|config| config.max_unacknowledged = 3);
    let mut records = built.build().unwrap().stream(CancellationToken::new());
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(next(&mut records).await.unwrap().unwrap());
    }
    assert!(tokio::time::timeout(Duration::from_secs(60), records.next()).await.is_err());
    held.drain(..).for_each(|pending| drop(pending.ack()));
    let next = next(&mut records).await.unwrap().unwrap();
    assert_eq!(text(&next), "3");
}

#[tokio::test(start_paused = true)]
async fn a_shard_ends_when_all_of_it_is_acknowledged() {
    let (streams, store) = (FakeStreams::new(1), FakeStore::default());
    streams.put("s0", "k", "parent");
    streams.split("s0", "s1", "s2");
    streams.put("s1", "k", "child");
    let mut records = consumer(&streams, &store).build().unwrap().stream(CancellationToken::new());
    let parent = next(&mut records).await.unwrap().unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(60), records.next()).await.is_err());
    parent.ack();
    assert_eq!(text(&next(&mut records).await.unwrap().unwrap()), "child");
}

#[tokio::test(start_paused = true)]
async fn a_record_dropped_unacknowledged_is_an_error_at_the_shards_end() {
    let (streams, store) = (FakeStreams::new(1), FakeStore::default());
    streams.put("s0", "k", "x");
    streams.split("s0", "s1", "s2");
    let mut records = consumer(&streams, &store).build().unwrap().stream(CancellationToken::new());
    drop(next(&mut records).await.unwrap().unwrap());
    let error = next(&mut records).await.unwrap().unwrap_err();
    assert_eq!(error.code(), "records-unacknowledged");
    assert!(next(&mut records).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_the_queue_of_a_worker_that_is_cut_off_is_not_handed_out() {
    let (streams, store) = (FakeStreams::new(1), FakeStore::default());
    for i in 0..5 {
        streams.put("s0", "k", format!("{i}"));
    }
    let mut records = consumer(&streams, &store).build().unwrap().stream(CancellationToken::new());
    next(&mut records).await.unwrap().unwrap().ack();
    eventually("it is checkpointed", || {
        store.get("s0").unwrap().checkpoint == Checkpoint::At(Position::new(seq(101), 0))
    })
    .await;
    store.cut(true);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(tokio::time::timeout(Duration::from_secs(30), records.next()).await.is_err());
    // Back again it claims anew, and goes on behind the checkpoint.
    store.cut(false);
    assert_eq!(text(&next(&mut records).await.unwrap().unwrap()), "1");
}

fn traced(sampled: bool, random: u8) -> (Record, Creation) {
    let creation = Creation::mint(1_790_000_000_000, [random; 18]).with_sampled(sampled);
    (Record::builder("k").unwrap().creation(creation).data("x").build(), creation)
}

struct Flaky(u32);

impl Handler for Flaky {
    async fn handle(&mut self, _: Batch) -> Result<(), HandlerError> {
        match self.0 {
            0 => Ok(()),
            _ => Err(std::io::Error::other("no luck").into()),
        }
    }
}

async fn spans(failures: u32) -> Vec<opentelemetry_sdk::trace::SpanData> {
    let (streams, store, spans) = (FakeStreams::new(1), FakeStore::default(), SpanStore::new(100));
    let mut builder = Builder::new();
    for (sampled, random) in [(true, 1), (false, 2)] {
        builder.push(&traced(sampled, random).0);
    }
    streams.put("s0", "hw/s0/0", builder.finish());
    let retry = HandlerRetry { attempts: 1, ..HandlerRetry::default() };
    let built = consumer(&streams, &store).tracer(RecordTracer::new(spans.clone())).handler_retry(retry);
    let running = Running::start(built.build().unwrap(), move |_| Flaky(failures));
    match running.until(|status| status.delivered == 2).await {
        Ok(_) => drop(running.stop().await),
        Err(_) => drop(running.task.await.unwrap().unwrap_err()),
    }
    spans.spans()
}

#[tokio::test(start_paused = true)]
async fn a_sampled_record_has_a_process_span_under_its_creation() {
    let spans = spans(0).await;
    let names: BTreeSet<_> = spans.iter().map(|span| span.name.to_string()).collect();
    assert_eq!(names, BTreeSet::from(["process orders".to_owned(), "receive orders".to_owned()]));
    let process: Vec<_> = spans.iter().filter(|span| span.name == "process orders").collect();
    let (_, creation) = traced(true, 1);
    assert_eq!(process.len(), 1, "the other record is not sampled");
    assert_eq!(process[0].span_context.trace_id().to_bytes(), creation.trace_id.0);
    assert_eq!(process[0].parent_span_id.to_bytes(), creation.span_id.0);
    let receive = spans.iter().find(|span| span.name == "receive orders").unwrap();
    assert_eq!(receive.links.links.len(), 1);
    assert_eq!(receive.links.links[0].span_context.span_id().to_bytes(), creation.span_id.0);
}

#[tokio::test(start_paused = true)]
async fn a_failure_leaves_a_trace_also_of_a_record_that_is_not_sampled() {
    let spans = spans(1).await;
    let process: Vec<_> = spans.iter().filter(|span| span.name == "process orders").collect();
    assert_eq!(process.len(), 2);
    let (_, unsampled) = traced(false, 2);
    let root = process.iter().find(|span| !span.links.links.is_empty()).unwrap();
    assert_eq!(root.links.links[0].span_context.span_id().to_bytes(), unsampled.span_id.0);
    assert!(root.span_context.is_sampled());
}
