//! Polling, moving about, dead letters: with the real clients over sockets, against the embedded stack.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on panics

mod support;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use headworks_consumer::admin::{self, Target};
use headworks_consumer::dead_letter::{DeadLetters, StreamDeadLetters};
use headworks_consumer::lease::{LeaseStore, Table};
use headworks_consumer::replay::{Replay, Token};
use headworks_consumer::streams::Kinesis;
use headworks_consumer::{Batch, Checkpoint, Handler, HandlerError, OnFailure, Reading};
use headworks_local::Stack;
use headworks_record::aggregate::{self, Decoded};
use support::sockets::{STREAM, arrived, fault, handled, put, split, stack, within, worker};
use support::{Journal, Running};
use tokio_util::sync::CancellationToken;

async fn consumers(stack: &Stack) -> usize {
    let summary = stack.kinesis().describe_stream_summary().stream_name(STREAM).send().await.unwrap();
    let arn = summary.stream_description_summary().unwrap().stream_arn().to_owned();
    stack.kinesis().list_stream_consumers().stream_arn(arn).send().await.unwrap().consumers().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polling_reads_every_record_once_through_expired_iterators_throttles_and_a_split() {
    let stack = stack(1).await;
    let journal = Journal::default();
    let expired = fault(&stack, "get-records expire-iterator every=3 times=3");
    let throttled = fault(&stack, "get-records throttle every=4 times=3");
    let polling = worker("a", &stack).configure(|config| {
        config.reading = Reading::Polling;
        config.poll_interval = Duration::from_millis(200);
    });
    let a = Running::recording(polling.build().unwrap(), &journal);
    put(&stack, 0..30).await;
    arrived(&journal, 30).await;
    split(&stack).await;
    put(&stack, 30..60).await;
    arrived(&journal, 60).await;
    within("the faults", async {
        while stack.faults().fired(expired) < 3 || stack.faults().fired(throttled) < 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    put(&stack, 60..70).await;
    arrived(&journal, 70).await;
    assert_eq!(handled(&journal), (0..70).collect::<Vec<_>>());
    assert!(a.handle.status().shards.iter().all(|shard| shard.polled));
    assert_eq!(consumers(&stack).await, 0, "who polls registers nobody");
    within("the end", a.stop()).await;
}

async fn falls_back(faults: &str) {
    let stack = stack(1).await;
    let journal = Journal::default();
    fault(&stack, faults);
    let a = Running::recording(worker("a", &stack).build().unwrap(), &journal);
    put(&stack, 0..20).await;
    arrived(&journal, 20).await;
    assert_eq!(handled(&journal), (0..20).collect::<Vec<_>>());
    assert!(a.handle.status().shards[0].polled, "{faults}");
    within("the end", a.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_permission_to_register_shards_are_polled() {
    falls_back("register-stream-consumer error=AccessDeniedException").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_permission_to_subscribe_shards_are_polled() {
    falls_back("subscribe-to-shard error=AccessDeniedException").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_stream_has_all_the_consumers_it_may_have_shards_are_polled() {
    falls_back("register-stream-consumer error=LimitExceededException").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_consumer_is_moved_back() {
    let stack = stack(2).await;
    let journal = Journal::default();
    put(&stack, 0..20).await;
    let a = Running::recording(worker("a", &stack).build().unwrap(), &journal);
    arrived(&journal, 20).await;
    within("both are read", a.until(|status| status.is_caught_up())).await.unwrap();
    let moved = within("the move", a.handle.seek(Target::TrimHorizon)).await.unwrap();
    assert_eq!(moved.len(), 2);
    assert!(moved.iter().all(|(_, to)| *to == Checkpoint::TrimHorizon));
    arrived(&journal, 40).await;
    assert_eq!(handled(&journal), (0..20).flat_map(|n| [n, n]).collect::<Vec<_>>());
    within("the end", a.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_is_replayed_and_goes_on_from_its_token() {
    let stack = stack(1).await;
    put(&stack, 0..10).await;
    // Arrivals are counted in milliseconds.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let from = SystemTime::now();
    put(&stack, 10..30).await;
    split(&stack).await;
    put(&stack, 30..50).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let to = SystemTime::now();
    tokio::time::sleep(Duration::from_millis(5)).await;
    put(&stack, 50..60).await;

    let seen = Arc::new(Mutex::new(Vec::<u32>::new()));
    let stop = CancellationToken::new();
    let handle = |batch: Batch| {
        let (seen, stop) = (seen.clone(), stop.clone());
        async move {
            let mut seen = seen.lock().unwrap();
            for delivered in &batch {
                seen.push(std::str::from_utf8(&delivered.record.data)?.parse()?);
            }
            if seen.len() > 5 {
                stop.cancel();
            }
            Ok(())
        }
    };
    let streams = Arc::new(Kinesis::new(stack.kinesis(), STREAM));
    let replay = Replay::new(streams.clone(), STREAM, from, to).max_batch_records(4);
    let first = within("the first part", replay.run(handle, |_| {}, stop.clone())).await.unwrap();
    assert!(!first.is_done() && first.records() >= 6, "{first}");
    let token: Token = first.to_string().parse().unwrap();
    let replay = Replay::resume(streams, token);
    let second = within("the rest", replay.run(handle, |_| {}, CancellationToken::new())).await.unwrap();
    assert!(second.is_done());
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_unstable();
    assert_eq!(seen, (10..50).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lag_and_hot_shards_are_told_and_checkpoints_are_reset() {
    let stack = stack(2).await;
    let journal = Journal::default();
    put(&stack, 0..20).await;
    let a = Running::recording(worker("a", &stack).build().unwrap(), &journal);
    arrived(&journal, 20).await;
    within("the end", a.stop()).await;
    put(&stack, 20..50).await;

    let streams = Kinesis::new(stack.kinesis(), STREAM);
    let table: Arc<dyn LeaseStore> = Arc::new(Table::new(stack.dynamodb(), "app", "app-workers"));
    let lags = within("the lag", admin::lag(&streams, table.as_ref())).await.unwrap();
    let waiting: u64 = lags.iter().filter_map(|lag| lag.records).map(|records| records.records()).sum();
    assert_eq!((lags.len(), waiting), (2, 30));
    assert_eq!(admin::applications(&stack.dynamodb()).await.unwrap(), ["app"]);
    let hottest = |lags: &[admin::ShardLag]| admin::hot_shards(lags).len();
    let mut hot = lags.clone();
    hot[0].bytes_per_second = Some(1_000_000.0);
    hot[1].bytes_per_second = Some(10.0);
    assert_eq!(hottest(&hot), 1);

    let plan = admin::plan_reset(&streams, table.clone(), &Target::TrimHorizon, &[]).await.unwrap();
    assert_eq!(plan.changes().len(), 2);
    assert!(plan.changes().iter().all(|change| change.after == Checkpoint::TrimHorizon));
    let plan = plan.watch_for(Duration::from_millis(100));
    assert_eq!(within("the reset", plan.apply(false)).await.unwrap().len(), 2);
    let a = Running::recording(worker("a", &stack).build().unwrap(), &journal);
    arrived(&journal, 20 + 50).await;
    let all: BTreeSet<u32> = handled(&journal).into_iter().collect();
    assert_eq!(all, (0..50).collect());
    within("the end", a.stop()).await;
}

/// Refuses every seventh number.
struct Picky(Journal);

impl Handler for Picky {
    async fn handle(&mut self, batch: Batch) -> Result<(), HandlerError> {
        let bad = |data: &[u8]| std::str::from_utf8(data).is_ok_and(|n| n.parse::<u32>().unwrap() % 7 == 3);
        if batch.iter().any(|delivered| bad(&delivered.record.data)) {
            return Err(HandlerError::permanent("not this one"));
        }
        self.0.add("a", &batch);
        Ok(())
    }
}

/// Numbers 0 to 29 of which 3, 10, 17 and 24 become dead letters.
async fn picky(stack: &Stack, letters: Arc<dyn DeadLetters>) {
    let journal = Journal::default();
    put(stack, 0..30).await;
    let built = worker("a", stack).dead_letters(letters).on_failure(OnFailure::DeadLetter);
    let (seen, consumer) = (journal.clone(), built.build().unwrap());
    let a = Running::start(consumer, move |_| Picky(seen.clone()));
    within("the letters", a.until(|status| status.dead_letters == 4)).await.unwrap();
    arrived(&journal, 26).await;
    assert!(handled(&journal).iter().all(|number| number % 7 != 3));
    within("the end", a.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_go_to_a_stream() {
    let stack = stack(1).await;
    let kinesis = stack.kinesis();
    kinesis.create_stream().stream_name("dead").shard_count(1).send().await.unwrap();
    // One write fails for the moment: the shard waits, and the letter is written after all.
    let failing = fault(&stack, "put-record error=InternalFailure stream=dead times=1");
    picky(&stack, Arc::new(StreamDeadLetters::new(kinesis.clone(), "dead"))).await;
    assert_eq!(stack.faults().fired(failing), 1);
    let iterator = kinesis.get_shard_iterator().stream_name("dead").shard_id("shardId-000000000000");
    let iterator = iterator.shard_iterator_type("TRIM_HORIZON".into()).send().await.unwrap();
    let read = kinesis.get_records().set_shard_iterator(iterator.shard_iterator).send().await.unwrap();
    let mut found = Vec::new();
    for record in read.records {
        let Decoded::Aggregate(aggregate) = aggregate::decode(&record.data.into_inner().into()).unwrap()
        else {
            panic!("no aggregate")
        };
        let member = aggregate.members().next().unwrap();
        assert_eq!(member.header("type"), Some("a"));
        assert_eq!(member.header("dead-letter-code"), Some("handler-failed"));
        assert_eq!(member.header("dead-letter-application"), Some("app"));
        assert!(member.header("dead-letter-origin").unwrap().starts_with("orders/shardId-000000000000/"));
        found.push(String::from_utf8(member.data().to_vec()).unwrap());
    }
    assert_eq!(found, ["3", "10", "17", "24"]);
}

#[cfg(feature = "s3")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_go_to_a_bucket() {
    use base64::Engine as _;
    use headworks_consumer::dead_letter::BucketDeadLetters;

    let stack = stack(1).await;
    let s3 = stack.s3();
    s3.create_bucket().bucket("dead").send().await.unwrap();
    let failing = fault(&stack, "s3:put-object throttle bucket=dead times=5");
    picky(&stack, Arc::new(BucketDeadLetters::new(s3.clone(), "dead"))).await;
    assert_eq!(stack.faults().fired(failing), 5);
    let listed = s3.list_objects_v2().bucket("dead").send().await.unwrap();
    let mut found = BTreeSet::new();
    for object in listed.contents() {
        let key = object.key().unwrap();
        assert!(key.starts_with("consumers/app/orders/shardId-000000000000/"), "{key}");
        let body =
            s3.get_object().bucket("dead").key(key).send().await.unwrap().body.collect().await.unwrap();
        let letter: serde_json::Value = serde_json::from_slice(&body.into_bytes()).unwrap();
        assert_eq!(letter["reasons"][0]["code"], "handler-failed");
        assert_eq!(letter["headers"], serde_json::json!([["type", "a"]]));
        let data = base64::engine::general_purpose::STANDARD.decode(letter["data"].as_str().unwrap());
        found.insert(String::from_utf8(data.unwrap()).unwrap().parse::<u32>().unwrap());
    }
    assert_eq!(found, BTreeSet::from([3, 10, 17, 24]));
}
