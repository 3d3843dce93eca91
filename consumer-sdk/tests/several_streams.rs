//! One consumer of several streams, against the embedded Kinesis and DynamoDB, with the real clients over sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on panics

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_kinesis::primitives::Blob;
use headworks_consumer::admin::{self, Target};
use headworks_consumer::dead_letter::{self, DeadLetter, DeadLetters};
use headworks_consumer::lease::{LeaseStore, Table};
use headworks_consumer::streams::{Kinesis, Several, Streams};
use headworks_consumer::{
    Batch, Builder, Checkpoint, Consumer, Handler, HandlerError, HandlerRetry, OnFailure, Reading,
    SequenceNumber, SequenceStart, Start, StreamShard,
};
use headworks_local::Stack;
use headworks_record::{Creation, Record, ShardId};
use support::sockets::{arrived, within};
use support::{Journal, Running};

const STREAMS: [&str; 2] = ["orders", "clicks"];

async fn stack(shards: i32) -> Stack {
    let stack = headworks_local::start().await.unwrap();
    for stream in STREAMS {
        stack.kinesis().create_stream().stream_name(stream).shard_count(shards).send().await.unwrap();
    }
    stack
}

fn worker(id: &str, stack: &Stack) -> Builder {
    Consumer::builder_of_streams("app", STREAMS)
        .kinesis(stack.kinesis())
        .dynamodb(stack.dynamodb())
        .worker_id(id)
        .take_over_after(Duration::from_millis(1500))
        .checkpoint_interval(Duration::from_millis(100))
}

/// Puts an aggregate for each number; its data is the stream and the number. Returns the sequence numbers.
async fn put(stack: &Stack, stream: &str, numbers: std::ops::Range<u32>) -> Vec<SequenceNumber> {
    let mut sequences = Vec::new();
    for number in numbers {
        // The same identities in both streams: they are told apart by their streams, not by these.
        let creation = Creation::mint(1, [number as u8 + 1; 18]);
        let record = Record::builder(format!("key-{}", number % 7)).unwrap().creation(creation);
        let record = record.data(format!("{stream} {number}")).build();
        let mut aggregate = headworks_record::aggregate::Builder::new();
        aggregate.push(&record);
        let request = stack.kinesis().put_record().stream_name(stream).partition_key(record.key.as_str());
        let put = request.data(Blob::new(aggregate.finish().to_vec())).send().await.unwrap();
        sequences.push(SequenceNumber::new(put.sequence_number).unwrap());
    }
    sequences
}

fn expected(numbers: std::ops::Range<u32>) -> BTreeSet<String> {
    STREAMS.iter().flat_map(|stream| numbers.clone().map(move |n| format!("{stream} {n}"))).collect()
}

/// In order for each stream and key, repeats after a take-over aside.
fn in_order(journal: &Journal) {
    let mut last: BTreeMap<(String, String), (String, u32)> = BTreeMap::new();
    for seen in journal.all() {
        let (stream, number) = seen.data.split_once(' ').unwrap();
        let number: u32 = number.parse().unwrap();
        let place = last.entry((stream.to_owned(), seen.key)).or_insert((seen.worker.clone(), number));
        assert!(place.1 <= number || place.0 != seen.worker, "{stream} {number} after {place:?}");
        *place = (seen.worker, number);
    }
}

async fn distinct(journal: &Journal, expected: &BTreeSet<String>) {
    within("every record", async {
        while journal.data().into_iter().collect::<BTreeSet<_>>() != *expected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

async fn kill_one_of_two(reading: Reading) {
    let stack = stack(2).await;
    let journal = Journal::default();
    let start = |id: &str| {
        let built = worker(id, &stack).configure(|config| config.reading = reading);
        Running::recording(built.build().unwrap(), &journal)
    };
    let (a, b) = (start("a"), start("b"));
    // The leases of both streams are shared out together.
    for running in [&a, &b] {
        let shared = running.until(|status| status.leases_held() == 2 && status.leases_active == 4);
        within("both share", shared).await.unwrap();
    }
    for stream in STREAMS {
        put(&stack, stream, 0..40).await;
    }
    distinct(&journal, &expected(0..40)).await;
    let told: BTreeSet<_> = [&a, &b]
        .iter()
        .flat_map(|running| running.handle.status().shards)
        .collect::<Vec<_>>()
        .into_iter()
        .map(|shard| (shard.stream.to_string(), shard.polled))
        .collect();
    let polled = reading == Reading::Polling;
    assert_eq!(told, STREAMS.iter().map(|stream| ((*stream).to_owned(), polled)).collect());
    a.kill().await;
    for stream in STREAMS {
        put(&stack, stream, 40..60).await;
    }
    within("b has all", b.until(|status| status.leases_held() == 4)).await.unwrap();
    distinct(&journal, &expected(0..60)).await;
    in_order(&journal);
    let summary = within("b's end", b.stop()).await;
    assert!(summary.unreleased.is_empty());
    within("the stack's end", stack.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_share_two_streams_and_one_is_killed() {
    kill_one_of_two(Reading::FanOut).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn and_likewise_by_polling() {
    kill_one_of_two(Reading::Polling).await;
}

/// Every attribute that the KCL's multi-stream serializer reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lease_table_is_the_kcls_through_a_split() {
    let stack = stack(1).await;
    let journal = Journal::default();
    let a = Running::recording(worker("a", &stack).build().unwrap(), &journal);
    put(&stack, "clicks", 0..3).await;
    arrived(&journal, 3).await;
    let split = stack.kinesis().split_shard().stream_name("clicks").shard_to_split("shardId-000000000000");
    split.new_starting_hash_key((u128::MAX / 2).to_string()).send().await.unwrap();
    put(&stack, "clicks", 10..40).await;
    arrived(&journal, 33).await;
    within("the children", a.until(|status| status.leases_held() == 3)).await.unwrap();
    within("a's end", a.stop()).await;

    let summary = stack.kinesis().describe_stream_summary().stream_name("clicks").send().await.unwrap();
    let summary = summary.stream_description_summary.unwrap();
    let account = summary.stream_arn.split(':').nth(4).unwrap().to_owned();
    let stream = format!("{account}:clicks:{}", summary.stream_creation_timestamp.secs());
    let scan = stack.dynamodb().scan().table_name("app").send().await.unwrap();
    let items: BTreeMap<String, _> =
        scan.items().iter().map(|item| (item["leaseKey"].as_s().unwrap().clone(), item.clone())).collect();
    assert_eq!(items.len(), 4, "{:?}", items.keys());
    let s = |text: &str| AttributeValue::S(text.to_owned());
    let parent = &items[&format!("{stream}:shardId-000000000000")];
    assert_eq!((&parent["streamName"], &parent["shardId"]), (&s(&stream), &s("shardId-000000000000")));
    assert_eq!(parent["checkpoint"], s("SHARD_END"));
    let mut children = parent["childShardIds"].as_ss().unwrap().clone();
    children.sort();
    assert_eq!(children, ["shardId-000000000001", "shardId-000000000002"]);
    let child = &items[&format!("{stream}:shardId-000000000001")];
    assert_eq!((&child["streamName"], &child["shardId"]), (&s(&stream), &s("shardId-000000000001")));
    assert_eq!(child["parentShardId"].as_ss().unwrap(), &["shardId-000000000000"]);

    // A KCL that was told another epoch goes on under it.
    let built =
        Consumer::builder_of_streams("other", ["orders".to_owned(), format!("{account}:clicks:12345")])
            .kinesis(stack.kinesis())
            .dynamodb(stack.dynamodb());
    let other = Running::recording(built.build().unwrap(), &Journal::default());
    within("other reads", other.until(|status| status.is_caught_up() && status.delivered == 33))
        .await
        .unwrap();
    within("other's end", other.stop()).await;
    let leases = Table::new(stack.dynamodb(), "other", "other-workers").leases().await.unwrap();
    assert!(leases.iter().any(|lease| lease.shard.as_str().starts_with(&format!("{account}:clicks:12345:"))));
    within("the stack's end", stack.shutdown()).await.unwrap();
}

#[derive(Debug, Default)]
struct Letters(Mutex<Vec<DeadLetter>>);

#[async_trait]
impl DeadLetters for Letters {
    async fn write(&self, letter: &DeadLetter) -> Result<(), dead_letter::Error> {
        self.0.lock().unwrap().push(letter.clone());
        Ok(())
    }
}

struct Picky {
    shard: StreamShard,
    journal: Journal,
}

impl Handler for Picky {
    async fn handle(&mut self, batch: Batch) -> Result<(), HandlerError> {
        // Batches and records name the shard itself, factories the lease.
        assert_eq!(*batch.shard(), self.shard.shard);
        assert_eq!(batch.stream(), &**self.shard.stream.as_ref().unwrap().name());
        for delivered in &batch {
            assert_eq!((&*delivered.stream, &delivered.shard), (batch.stream(), batch.shard()));
        }
        match batch.iter().any(|delivered| delivered.record.data.ends_with(b" 5")) {
            true => Err(std::io::Error::other("five").into()),
            false => {
                self.journal.add("a", &batch);
                Ok(())
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeats_and_dead_letters_are_kept_apart_by_stream() {
    let stack = stack(1).await;
    let (journal, letters) = (Journal::default(), Arc::new(Letters::default()));
    for stream in STREAMS {
        put(&stack, stream, 0..10).await;
        put(&stack, stream, 0..10).await;
    }
    let retry = HandlerRetry { attempts: 1, ..HandlerRetry::default() };
    for parallelism in [1, 3] {
        let application = format!("app-{parallelism}");
        let built = worker("a", &stack).on_failure(OnFailure::DeadLetter).dead_letters(letters.clone());
        let built = built.handler_retry(retry).parallelism(parallelism).configure(|config| {
            config.lease_table = application.clone();
            config.worker_table = format!("{application}-workers");
            config.application = application.clone();
        });
        let kept = journal.clone();
        let a = Running::start(built.build().unwrap(), move |key: &ShardId| Picky {
            shard: StreamShard::of(key),
            journal: kept.clone(),
        });
        let all = a.until(|status| status.repeats_dropped == 20 && status.dead_letters == 2);
        within("everything", all).await.unwrap();
        within("all records", a.until(|status| status.delivered == 18)).await.unwrap();
        within("a's end", a.stop()).await;
    }
    assert_eq!(journal.len(), 2 * 18, "one of ten is a dead letter");
    let mut keys: Vec<String> = letters.0.lock().unwrap().iter().map(DeadLetter::key).collect();
    keys.sort();
    let of =
        |application: &str, stream: &str| format!("consumers/{application}/{stream}/shardId-000000000000/");
    for (key, (application, stream)) in
        keys.iter().zip([("app-1", "clicks"), ("app-1", "orders"), ("app-3", "clicks"), ("app-3", "orders")])
    {
        assert!(key.starts_with(&of(application, stream)), "{keys:?}");
    }
    within("the stack's end", stack.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_reset_and_seek_know_the_streams() {
    let stack = stack(1).await;
    let journal = Journal::default();
    for stream in STREAMS {
        put(&stack, stream, 0..5).await;
    }
    let a = Running::recording(worker("a", &stack).build().unwrap(), &journal);
    arrived(&journal, 10).await;
    let moved = within("the move", a.handle.seek(Target::TrimHorizon)).await.unwrap();
    assert_eq!(moved.len(), 2);
    arrived(&journal, 20).await;
    within("checkpoints", a.until(|status| status.is_caught_up())).await.unwrap();
    within("a's end", a.stop()).await;
    put(&stack, "orders", 5..9).await;

    let table = Arc::new(Table::new(stack.dynamodb(), "app", "app-workers"));
    let only = |stream: &str| {
        let leases = stream.to_owned();
        let (table, kinesis) = (table.clone(), stack.kinesis());
        async move {
            let found =
                table.leases().await.unwrap().into_iter().filter_map(|l| StreamShard::of(&l.shard).stream);
            let meant = found.into_iter().find(|s| **s.name() == *leases).unwrap();
            let source: Arc<dyn Streams> = Arc::new(Kinesis::new(kinesis, leases));
            Several::new([(meant, source)])
        }
    };
    let (orders, clicks) = (only("orders").await, only("clicks").await);
    let waiting = admin::lag(&orders, table.as_ref()).await.unwrap();
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].records.unwrap().records(), 4);
    assert_eq!(admin::lag(&clicks, table.as_ref()).await.unwrap()[0].records.unwrap().records(), 0);
    let plan = admin::plan_reset(&clicks, table.clone(), &Target::TrimHorizon, &[]).await.unwrap();
    assert_eq!(plan.changes().len(), 1);
    assert_eq!(StreamShard::of(&plan.changes()[0].shard).stream.unwrap().name(), "clicks");
    plan.watch_for(Duration::from_millis(10)).apply(false).await.unwrap();
    let b = Running::recording(worker("b", &stack).build().unwrap(), &journal);
    arrived(&journal, 20 + 4 + 5).await;
    within("b's end", b.stop()).await;
    within("the stack's end", stack.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_by_sequence_number_is_durable_and_of_its_shard_alone() {
    let stack = stack(1).await;
    let journal = Journal::default();
    let numbers = put(&stack, "orders", 0..10).await;
    put(&stack, "clicks", 0..10).await;
    let begin = |id: &str, at: SequenceStart| {
        let built = worker(id, &stack).start(Start::Latest).start_at("orders/shardId-000000000000", at);
        Running::recording(built.build().unwrap(), &journal)
    };
    let a = begin("a", SequenceStart::After(numbers[6].clone()));
    arrived(&journal, 3).await;
    let mut seen = journal.data();
    seen.sort();
    assert_eq!(seen, ["orders 7", "orders 8", "orders 9"]);
    a.kill().await;
    // What another start says does not matter any more.
    let b = begin("b", SequenceStart::At(numbers[0].clone()));
    within("b reads both", b.until(|status| status.leases_held() == 2 && status.is_caught_up()))
        .await
        .unwrap();
    put(&stack, "clicks", 10..12).await;
    within("the news", async {
        while !journal.data().contains(&"clicks 11".to_owned()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(
        !journal.data().contains(&"orders 6".to_owned()) && !journal.data().contains(&"clicks 9".to_owned())
    );
    within("b's end", b.stop()).await;

    let built = worker("c", &stack).start_at("orders/shardId-9", SequenceStart::At(numbers[0].clone()));
    let built = built.configure(|config| {
        (config.lease_table, config.worker_table) = ("fresh".to_owned(), "fresh-workers".to_owned());
    });
    let c = Running::recording(built.build().unwrap(), &journal);
    let error = within("the refusal", c.task).await.unwrap().unwrap_err();
    assert_eq!(error.code(), "consumer-config-invalid");
    assert!(error.to_string().contains("orders/shardId-9"), "{error}");
    within("the stack's end", stack.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_of_one_stream_and_of_several_are_not_mixed() {
    let stack = stack(1).await;
    let a = Running::recording(worker("a", &stack).build().unwrap(), &Journal::default());
    within("a's leases", a.until(|status| status.leases_held() == 2)).await.unwrap();
    within("a's end", a.stop()).await;
    let one = |application: &str| {
        let built = Consumer::builder(application, "orders").kinesis(stack.kinesis());
        Running::recording(built.dynamodb(stack.dynamodb()).build().unwrap(), &Journal::default())
    };
    let error = within("the refusal", one("app").task).await.unwrap().unwrap_err();
    assert_eq!(error.code(), "lease-table-invalid");
    assert!(error.to_string().contains("several streams"), "{error}");

    let alone = one("alone");
    within("its lease", alone.until(|status| status.leases_held() == 1)).await.unwrap();
    within("its end", alone.stop()).await;
    let built = worker("b", &stack).configure(|config| {
        (config.lease_table, config.worker_table) = ("alone".to_owned(), "alone-workers".to_owned());
    });
    let several = Running::recording(built.build().unwrap(), &Journal::default());
    let error = within("the refusal", several.task).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("one stream"), "{error}");

    // A worker that reads fewer of the streams leaves the others' leases alone.
    let built = Consumer::builder_of_streams("app", ["clicks"]).kinesis(stack.kinesis());
    let fewer = Running::recording(built.dynamodb(stack.dynamodb()).build().unwrap(), &Journal::default());
    within("its one lease", fewer.until(|status| status.leases_held() == 1 && status.is_caught_up()))
        .await
        .unwrap();
    assert_eq!(fewer.handle.status().leases_active, 1);
    within("its end", fewer.stop()).await;

    let built =
        Consumer::builder_of_streams("missing", ["orders", "no-such-stream"]).kinesis(stack.kinesis());
    let missing = Running::recording(built.dynamodb(stack.dynamodb()).build().unwrap(), &Journal::default());
    let error = within("the refusal", missing.task).await.unwrap().unwrap_err();
    assert_eq!(error.code(), "kinesis-not-found");
    assert!(error.to_string().contains("no-such-stream"), "{error}");
    let leases = Table::new(stack.dynamodb(), "app", "app-workers").leases().await.unwrap();
    assert!(leases.iter().all(|lease| lease.checkpoint != Checkpoint::ShardEnd));
    within("the stack's end", stack.shutdown()).await.unwrap();
}
