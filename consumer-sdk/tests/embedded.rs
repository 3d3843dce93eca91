//! Consumers against the embedded Kinesis and DynamoDB, with the real clients over sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on panics

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use headworks_consumer::{Checkpoint, Consumer, Start};
use headworks_local::Stack;
use headworks_record::aggregate::Builder;
use headworks_record::{HashKey, Record};
use support::sockets::stack;
use support::writer::{Writer, exactly_once, merge, put, shards, split};
use support::{Journal, Running};

const DEADLINE: Duration = Duration::from_secs(60);

fn start(worker: &str, stack: &Stack, journal: &Journal) -> Running {
    let built = Consumer::builder("app", "orders")
        .kinesis(stack.kinesis().clone())
        .dynamodb(stack.dynamodb().clone())
        .worker_id(worker)
        .take_over_after(Duration::from_millis(1500))
        .checkpoint_interval(Duration::from_millis(200));
    Running::recording(built.build().unwrap(), journal)
}

async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

async fn delivered(journal: &Journal, total: usize) {
    within("all records", async {
        while journal.len() < total {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_share_a_stream_through_splits_restarts_and_a_merge() {
    let stack = stack(2).await;
    let journal = Journal::default();
    let mut writer = Writer::new(&stack).await;
    for _ in 0..10 {
        writer.round().await;
    }
    let a = start("a", &stack, &journal);
    delivered(&journal, writer.total()).await;

    // A split while records flow: the parent is read to its end, then its children.
    split(&stack, &writer.map.open()[0].clone()).await;
    writer.refresh().await;
    assert_eq!(writer.map.open().len(), 3);
    for _ in 0..10 {
        writer.round().await;
    }
    delivered(&journal, writer.total()).await;
    within("the children", a.until(|status| status.leases_held() == 3)).await.unwrap();

    // A second worker joins and gets its share.
    let b = start("b", &stack, &journal);
    within("b's share", b.until(|status| status.leases_held() >= 1)).await.unwrap();
    for _ in 0..10 {
        writer.round().await;
    }
    delivered(&journal, writer.total()).await;
    assert!(!journal.by("b").is_empty());

    // The first one leaves and comes back.
    let summary = within("a's end", a.stop()).await;
    assert!(summary.unreleased.is_empty());
    for _ in 0..10 {
        writer.round().await;
    }
    let a = start("a", &stack, &journal);
    delivered(&journal, writer.total()).await;

    // And two shards are merged.
    let (left, right) = (writer.map.open()[0].clone(), writer.map.open()[1].clone());
    merge(&stack, &left, &right).await;
    writer.refresh().await;
    assert_eq!(writer.map.open().len(), 2);
    for _ in 0..10 {
        writer.round().await;
    }
    delivered(&journal, writer.total()).await;
    exactly_once(&journal, &writer.counts);
    within("a's end", a.stop()).await;
    within("b's end", b.stop()).await;
    within("the stack's end", stack.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_is_replaced_and_nothing_is_lost() {
    let stack = stack(4).await;
    let journal = Journal::default();
    let mut writer = Writer::new(&stack).await;
    let (a, b) = (start("a", &stack, &journal), start("b", &stack, &journal));
    within("both share", a.until(|status| status.leases_held() == 2)).await.unwrap();
    within("both share", b.until(|status| status.leases_held() == 2)).await.unwrap();
    for _ in 0..20 {
        writer.round().await;
    }
    a.kill().await;
    for _ in 0..20 {
        writer.round().await;
    }
    within("b has all", b.until(|status| status.leases_held() == 4)).await.unwrap();
    within("every record", async {
        loop {
            let all = journal.all();
            let distinct: std::collections::BTreeSet<_> =
                all.iter().map(|seen| (seen.key.clone(), seen.data.clone())).collect();
            if distinct.len() == writer.total() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    within("b's end", b.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregate_that_landed_beside_its_shard_is_left_to_its_writer() {
    let stack = stack(1).await;
    let journal = Journal::default();
    let parent = shards(&stack).await.open()[0].clone();
    let a = start("a", &stack, &journal);
    within("a reads", a.until(|status| status.is_caught_up())).await.unwrap();
    split(&stack, &parent).await;
    // Predicted for the parent; it lands on the left child with members of both.
    let record = |key: &str| Record::builder(key).unwrap().data(key.to_owned()).build();
    let mut builder = Builder::new();
    (0..20).for_each(|i| builder.push(&record(&format!("key-{i}"))));
    put(&stack, &parent, HashKey::MIN, builder).await;
    within("it is skipped", a.until(|status| status.misplaced_skipped == 1)).await.unwrap();
    // The writer puts all members again, regrouped.
    let map = shards(&stack).await;
    let mut groups: BTreeMap<usize, Builder> = BTreeMap::new();
    for i in 0..20 {
        let record = record(&format!("key-{i}"));
        groups.entry(map.predict(record.hash_key())).or_default().push(&record);
    }
    assert_eq!(groups.len(), 2);
    for (place, builder) in groups {
        put(&stack, &map.open()[place], map.open()[place].range.start, builder).await;
    }
    delivered(&journal, 20).await;
    let mut keys = journal.data();
    keys.sort();
    keys.dedup();
    assert_eq!((keys.len(), journal.len()), (20, 20));
    within("a's end", a.stop()).await;
}

/// Everything is put twice, at once or a restart and a split later, and handled once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeats_are_dropped_across_restarts_and_splits() {
    let stack = stack(1).await;
    let journal = Journal::default();
    let copies = |from: u8, to: u8| -> Vec<Record> {
        let record = |i: u8| {
            let creation = headworks_record::Creation::mint(1, [i + 1; 18]);
            Record::builder(format!("key-{i}")).unwrap().creation(creation).data(i.to_string()).build()
        };
        (from..to).map(record).collect()
    };
    let send = async |records: Vec<Record>| {
        let map = shards(&stack).await;
        let mut groups: BTreeMap<usize, Builder> = BTreeMap::new();
        for record in records {
            groups.entry(map.predict(record.hash_key())).or_default().push(&record);
        }
        for (place, builder) in groups {
            put(&stack, &map.open()[place], map.open()[place].range.start, builder).await;
        }
    };
    send(copies(0, 20)).await;
    send(copies(10, 30)).await;
    let a = start("a", &stack, &journal);
    delivered(&journal, 30).await;
    within("the repeats", a.until(|status| status.repeats_dropped == 10)).await.unwrap();
    within("a's end", a.stop()).await;

    // Another worker, who never saw the first copies, in the shard itself and in its children.
    send(copies(0, 40)).await;
    let parent = shards(&stack).await.open()[0].clone();
    split(&stack, &parent).await;
    send(copies(0, 50)).await;
    let b = start("b", &stack, &journal);
    delivered(&journal, 50).await;
    within("the repeats", b.until(|status| status.repeats_dropped == 70)).await.unwrap();
    within("b's end", b.stop()).await;

    // And one that begins in the children.
    send(copies(0, 60)).await;
    let c = start("c", &stack, &journal);
    delivered(&journal, 60).await;
    within("the repeats", c.until(|status| status.repeats_dropped == 50)).await.unwrap();
    within("c's end", c.stop()).await;
    let mut all: Vec<u32> = journal.data().iter().map(|data| data.parse().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..60).collect::<Vec<u32>>());
    within("the stack's end", stack.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latest_is_durable_at_once() {
    let stack = stack(1).await;
    let journal = Journal::default();
    let mut writer = Writer::new(&stack).await;
    writer.round().await;
    let latest = || {
        let built = Consumer::builder("app", "orders").worker_id("a").start(Start::Latest);
        let built = built.kinesis(stack.kinesis().clone()).dynamodb(stack.dynamodb().clone());
        Running::recording(built.build().unwrap(), &journal)
    };
    let a = latest();
    let status = within("its start is written", a.until(|status| status.checkpoints == 1)).await;
    let written = status.unwrap().shards[0].checkpoint.clone().unwrap();
    a.kill().await;
    writer.round().await;
    let a = latest();
    delivered(&journal, 40).await;
    assert!(journal.data().iter().all(|data| data == "1"), "only what came after the start");
    within("a's end", a.stop()).await;
    let table = headworks_consumer::lease::Table::new(stack.dynamodb().clone(), "app", "app-workers");
    let leases = headworks_consumer::lease::LeaseStore::leases(&table).await.unwrap();
    assert!(matches!(&leases[0].checkpoint, Checkpoint::At(position) if *position > written));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_said_clearly() {
    let stack = headworks_local::start().await.unwrap();
    let built = Consumer::builder("app", "no-such-stream")
        .kinesis(stack.kinesis().clone())
        .dynamodb(stack.dynamodb().clone());
    let running = Running::recording(built.build().unwrap(), &Journal::default());
    let error = within("the refusal", running.task).await.unwrap().unwrap_err();
    assert_eq!(error.code(), "kinesis-not-found");
    assert!(error.to_string().contains("no-such-stream"), "{error}");
}
