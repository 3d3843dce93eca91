//! Dead letters in a real bucket: found, shown, and put back on their way.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use headworks_local::Stack;
use headworks_local::faults::{Action, Fault, Service};
use headworks_record::{Creation, Headers, Record};
use headworks_router::dead_letter::{
    self, Filter, Options, Outcome, REDRIVEN_PREFIX, Target, list, redrive, show,
};
use headworks_router::{Bucket, Event, RouteTable, Router, Trouble};

use crate::common::{ROUTES, SHARD, Shards, Streams, aggregate, event, invocation, record, seal};

async fn bucket(stack: &Stack) -> Bucket {
    stack.s3().create_bucket().bucket("letters").send().await.unwrap();
    Bucket::new(stack.s3(), "letters")
}

async fn keys(stack: &Stack, prefix: &str) -> Vec<String> {
    let listed = stack.s3().list_objects_v2().bucket("letters").prefix(prefix).send().await.unwrap();
    listed.contents().iter().map(|object| object.key().unwrap().to_owned()).collect()
}

/// Buries what `orders` and `clicks` refuse.
async fn bury(bucket: &Bucket, event: &Event, streams: Streams) {
    let table = Arc::new(RouteTable::from_toml(ROUTES).unwrap());
    let router = Router::new(table, Arc::new(streams), Arc::new(bucket.clone()), Arc::new(Shards::default()));
    let report = router.handle(event, &invocation()).await.unwrap();
    assert_eq!(report.failed, None);
}

fn refusing(names: &'static [&'static str]) -> Streams {
    Streams::new(move |stream, _| match names.contains(&stream) {
        true => Err(Trouble::poison("destination-missing", "no such stream")),
        false => Ok(()),
    })
}

fn identity(record: &Record) -> (Creation, Vec<(String, String)>, String, bytes::Bytes) {
    let headers = record.headers.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    (*record.headers.creation().unwrap(), headers, record.key.as_str().to_owned(), record.data.clone())
}

#[tokio::test]
async fn letters_are_found_page_by_page_and_by_what_they_say() {
    let stack = headworks_local::start().await.unwrap();
    let bucket = bucket(&stack).await;
    let before = SystemTime::now() - Duration::from_secs(5);
    let sent: Vec<Record> = (0..40)
        .map(|i| {
            record(&format!("k{i}"), ["order", "click", "other", "order.click"][i % 4], &format!("{i:02}"))
        })
        .collect();
    let mut batch = event(sent.chunks(8).map(aggregate).collect());
    bury(&bucket, &batch, refusing(&["orders", "clicks"])).await;
    batch = event(vec![seal(&[0x0a, 1, b'k', 0x1a, 5, 0x08, 1, 0x1a, 1, b'y'])]);
    batch.stream = "other-inbound".into();
    bury(&bucket, &batch, refusing(&[])).await;
    stack
        .s3()
        .put_object()
        .bucket("letters")
        .key("dead-letters/inbound/x/1-0.json")
        .body(b"{}".to_vec().into())
        .send()
        .await
        .unwrap();

    let mut found = Vec::new();
    let (mut after, mut pages) = (None, 0);
    loop {
        let page = list(&bucket, &Filter::default(), after.as_deref(), 7).await.unwrap();
        pages += 1;
        found.extend(page.letters);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((found.len(), pages), (32, 5), "30 of two streams, one of a whole record, one that is none");
    assert!(found.is_sorted_by(|a, b| a.key < b.key));
    assert_eq!(found.iter().filter(|stored| stored.letter.is_err()).count(), 1);

    let count = async |filter: Filter| {
        let page = list(&bucket, &filter, None, 1000).await.unwrap();
        assert_eq!(page.next, None);
        page.letters.into_iter().filter(|stored| stored.letter.is_ok()).count()
    };
    let some = |text: &str| Some(text.to_owned());
    let all = Filter::default();
    assert_eq!(count(Filter { destination: some("orders"), ..all.clone() }).await, 20);
    assert_eq!(
        count(Filter { destination: some("clicks"), stream: some("inbound"), ..all.clone() }).await,
        20
    );
    assert_eq!(count(Filter { reason: some("aggregate-index-out-of-range"), ..all.clone() }).await, 1);
    assert_eq!(count(Filter { stream: some("other-inbound"), ..all.clone() }).await, 1);
    assert_eq!(count(Filter { stream: some("inbound"), shard: some(SHARD), ..all.clone() }).await, 30);
    assert_eq!(count(Filter { since: Some(before), ..all.clone() }).await, 31);
    assert_eq!(count(Filter { until: Some(before), ..all.clone() }).await, 0);

    let one = found.iter().find(|stored| stored.letter.is_ok()).unwrap();
    assert_eq!(show(&bucket, &one.key).await.unwrap(), *one.letter.as_ref().unwrap());
    assert_eq!(show(&bucket, "dead-letters/none").await.unwrap_err().code(), "dead-letter-missing");
    assert_eq!(
        show(&bucket, "dead-letters/inbound/x/1-0.json").await.unwrap_err().code(),
        "dead-letter-invalid"
    );
    let nowhere = Bucket::new(stack.s3(), "nowhere");
    let error = list(&nowhere, &Filter::default(), None, 1).await.unwrap_err();
    assert_eq!(error.code(), "dead-letter-unreadable");
    stack.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_redriven_record_is_the_same_and_its_letter_moves_when_it_is_stored() {
    let stack = headworks_local::start().await.unwrap();
    let bucket = bucket(&stack).await;
    let sent: Vec<Record> = (0..50)
        .map(|i| record(&format!("k{}", i % 3), ["order", "order.click"][i % 2], &format!("{i:02}")))
        .collect();
    bury(&bucket, &event(sent.chunks(10).map(aggregate).collect()), refusing(&["orders", "clicks"])).await;
    assert_eq!(keys(&stack, "dead-letters/").await.len(), 50);

    let table = Arc::new(RouteTable::from_toml(ROUTES).unwrap());
    let mut options = Options::new(Target::Destinations(table));
    options.dry_run = true;
    let clicks_down = Arc::new(AtomicBool::new(true));
    let down = Arc::clone(&clicks_down);
    let streams = Streams::new(move |stream, _| match stream == "clicks" && down.load(Ordering::Relaxed) {
        true => Err(Trouble::unavailable("deadline-exceeded", "throttled")),
        false => Ok(()),
    });
    let summary = redrive(&bucket, &streams, &options, &mut |_| {}).await.unwrap();
    assert_eq!((summary.done, summary.finished), (50, true));
    assert!(streams.stored.lock().unwrap().is_empty(), "a dry run puts nothing");
    assert_eq!(keys(&stack, "dead-letters/").await.len(), 50);

    // Ten of them, then the rest; `clicks` does not take any.
    options.dry_run = false;
    options.limit = Some(10);
    let heard = Mutex::new(Vec::new());
    let mut progress = |redriven: &dead_letter::Redriven| heard.lock().unwrap().push(redriven.clone());
    let first = redrive(&bucket, &streams, &options, &mut progress).await.unwrap();
    assert_eq!((first.done, first.partly, first.left, first.finished), (5, 5, 0, false));
    assert_eq!(heard.lock().unwrap().len(), 10);
    options.limit = None;
    options.after = first.last;
    let second = redrive(&bucket, &streams, &options, &mut progress).await.unwrap();
    assert_eq!((second.done, second.partly, second.finished), (20, 20, true));
    let heard = heard.into_inner().unwrap();
    assert!(heard.iter().any(|redriven| matches!(&redriven.outcome,
        Outcome::Partly { streams, reasons } if streams == &["orders"] && reasons[0].code == "deadline-exceeded")));
    // What a stream has it does not get again: the letters name the other one only.
    options.after = None;
    clicks_down.store(false, Ordering::Relaxed);
    let third = redrive(&bucket, &streams, &options, &mut |_| {}).await.unwrap();
    assert_eq!((third.done, third.partly, third.left), (25, 0, 0));
    assert_eq!(keys(&stack, "dead-letters/").await, [""; 0]);
    assert_eq!(keys(&stack, REDRIVEN_PREFIX).await.len(), 50);

    let orders: Vec<_> = streams.records("orders").iter().map(identity).collect();
    assert_eq!(orders, sent.iter().map(identity).collect::<Vec<_>>(), "same identity, same bytes, once");
    let clicks: Vec<_> = streams.records("clicks").iter().map(identity).collect();
    let expected: Vec<_> =
        sent.iter().filter(|r| r.headers.get("type") == Some("order.click")).map(identity).collect();
    assert_eq!(clicks, expected);
    let (_, origin) = streams.stored.lock().unwrap()["orders"][0].clone();
    assert_eq!((origin.shard.as_str(), &*origin.sequence_number), (SHARD, "100"));
    stack.shutdown().await.unwrap();
}

#[tokio::test]
async fn headers_that_no_user_may_set_come_back_as_they_were() {
    let stack = headworks_local::start().await.unwrap();
    let bucket = bucket(&stack).await;
    let wire = [("type", "order"), ("hw-next", "of a newer version"), ("type", "again"), ("Odd Name", "")];
    let mut sent = record("k", "order", "0");
    let creation = *sent.headers.creation().unwrap();
    sent.headers = Headers::from_wire(wire);
    sent.headers.set_creation(creation);
    bury(&bucket, &event(vec![aggregate(std::slice::from_ref(&sent))]), refusing(&["orders"])).await;

    let table = Arc::new(RouteTable::from_toml(ROUTES).unwrap());
    let streams = refusing(&[]);
    let options = Options::new(Target::Destinations(table));
    let summary = redrive(&bucket, &streams, &options, &mut |_| {}).await.unwrap();
    assert_eq!((summary.done, summary.left), (1, 0));
    assert_eq!(streams.records("orders"), [sent]);
    stack.shutdown().await.unwrap();
}

#[tokio::test]
async fn nothing_is_removed_before_it_is_stored_and_an_interrupted_run_is_resumed() {
    let stack = headworks_local::start().await.unwrap();
    let bucket = bucket(&stack).await;
    let sent: Vec<Record> = (0..6).map(|i| record("k", "order", &format!("{i}"))).collect();
    bury(&bucket, &event(vec![aggregate(&sent)]), refusing(&["orders"])).await;
    let table = Arc::new(RouteTable::from_toml(ROUTES).unwrap());
    let options = Options::new(Target::Destinations(table));

    let down = refusing(&["orders"]);
    let summary = redrive(&bucket, &down, &options, &mut |_| {}).await.unwrap();
    assert_eq!((summary.done, summary.left), (0, 6));
    assert_eq!(keys(&stack, "dead-letters/").await.len(), 6);

    // The bucket fails while letters are moved: records are stored, letters stay, and the next run puts them again.
    let fails = Fault::of(Service::S3, Action::Error { code: "AccessDenied".into(), status: None });
    let fails = fails.operations(["DeleteObject"]).nth(3);
    stack.faults().add(fails).unwrap();
    let streams = refusing(&[]);
    let mut options = options;
    let error = redrive(&bucket, &streams, &options, &mut |_| {}).await.unwrap_err();
    assert_eq!(error.code(), "dead-letter-unreadable");
    stack.faults().clear();
    assert_eq!(keys(&stack, "dead-letters/").await.len(), 4);
    let summary = redrive(&bucket, &streams, &options, &mut |_| {}).await.unwrap();
    assert_eq!((summary.done, summary.left), (4, 0));
    let identities: BTreeSet<_> =
        streams.records("orders").iter().map(|r| r.traceparent().unwrap()).collect();
    assert_eq!(
        (identities.len(), streams.records("orders").len()),
        (6, 10),
        "repeats bear the same identity"
    );

    // To the inbound stream, whole and unrouted; and what the table no longer routes is left.
    bury(&bucket, &event(vec![aggregate(&sent)]), refusing(&["orders"])).await;
    let elsewhere = RouteTable::from_toml("[default]\nto = \"elsewhere\"\n").unwrap();
    options.target = Target::Destinations(Arc::new(elsewhere));
    let mut reasons = Vec::new();
    let mut progress = |redriven: &dead_letter::Redriven| {
        if let Outcome::Left { reasons: why } = &redriven.outcome {
            reasons.push(why[0].code.clone());
        }
    };
    assert_eq!(redrive(&bucket, &streams, &options, &mut progress).await.unwrap().left, 6);
    assert_eq!(reasons, ["dead-letter-not-redrivable"; 6]);
    options.target = Target::Stream("inbound".to_owned());
    assert_eq!(redrive(&bucket, &RawStreams::default(), &options, &mut |_| {}).await.unwrap().done, 6);
    assert_eq!(keys(&stack, "dead-letters/").await, [""; 0]);
    stack.shutdown().await.unwrap();
}

/// Takes what has no origin, as the inbound stream does.
#[derive(Default)]
struct RawStreams(Mutex<Vec<String>>);

#[async_trait::async_trait]
impl headworks_router::Outbound for RawStreams {
    async fn put(
        &self,
        stream: &str,
        loads: Vec<headworks_router::Load>,
        _until: tokio::time::Instant,
    ) -> Vec<Result<(), Trouble>> {
        let puts = loads.into_iter().flat_map(|load| load.into_puts().unwrap());
        puts.map(|put| {
            assert!(put.origin.is_none());
            self.0.lock().unwrap().push(stream.to_owned());
            Ok(())
        })
        .collect()
    }
}
