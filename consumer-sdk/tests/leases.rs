//! Leases beside those of the KCL, and leases and checkpoints that the stream has outlived.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on panics

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use headworks_consumer::lease::{Lease, LeaseStore, Table};
use headworks_consumer::{Checkpoint, Consumer, Position};
use headworks_local::Stack;
use headworks_record::ShardId;
use support::{FakeStore, FakeStreams, Journal, Running, eventually, seq};
use tokio::time::Instant;

const DEADLINE: Duration = Duration::from_secs(60);

fn start(worker: &str, streams: &FakeStreams, store: &FakeStore, journal: &Journal) -> Running {
    let built = Consumer::builder("app", "orders")
        .worker_id(worker)
        .streams(Arc::new(streams.clone()))
        .lease_store(Arc::new(store.clone()));
    Running::recording(built.build().unwrap(), journal)
}

fn at(n: u64) -> Checkpoint {
    Checkpoint::At(Position::new(seq(n), 0))
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_shard_goes_when_the_shard_is_gone_and_its_children_are_begun() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    streams.put("s0", "k", "parent");
    let a = start("a", &streams, &store, &journal);
    a.until(|status| status.delivered == 1).await.unwrap();
    streams.split("s0", "s1", "s2");
    streams.put("s1", "k", "left");
    eventually("the parent is done", || store.get("s0").is_some_and(|lease| lease.checkpoint.is_end())).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(store.get("s0").is_some(), "the stream still lists the shard");
    // Nothing was put on s2: it is begun by the word of the first event, which is written at once.
    eventually("both children are begun", || {
        ["s1", "s2"].iter().all(|child| matches!(store.get(child).unwrap().checkpoint, Checkpoint::At(_)))
    })
    .await;
    streams.expire("s0");
    eventually("the lease is removed", || store.get("s0").is_none()).await;
    streams.put("s2", "k", "right");
    let status = a.until(|status| status.delivered == 3).await.unwrap();
    assert_eq!((status.shards_expired, status.leases_held()), (0, 2));
    a.stop().await;
    assert!(store.get("s1").is_some() && store.get("s2").is_some());
}

#[tokio::test(start_paused = true)]
async fn leases_are_read_less_often_while_nothing_changes_and_at_once_when_something_does() {
    let (streams, store, journal) = (FakeStreams::new(4), FakeStore::default(), Journal::default());
    let a = start("a", &streams, &store, &journal);
    a.until(|status| status.leases_held() == 4 && status.is_caught_up()).await.unwrap();
    let minutes = |minutes: u64| tokio::time::sleep(Duration::from_secs(60 * minutes));
    minutes(1).await;
    let early = store.scans();
    minutes(15).await;
    let settling = store.scans() - early;
    minutes(50).await;
    let calm = store.scans() - early - settling;
    assert!((4..=6).contains(&settling), "{settling}: 1, 2, 3 and 4 minutes, then every 5");
    assert!((9..=11).contains(&calm), "{calm}: every 5 minutes");
    // A new worker is a change, however calm it was.
    let came = Instant::now();
    let b = start("b", &streams, &store, &journal);
    b.until(|status| status.leases_held() == 2).await.unwrap();
    assert!(came.elapsed() < Duration::from_secs(60), "{:?}", came.elapsed());
    a.stop().await;
    b.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_the_trim_horizon_has_passed_is_a_loss_that_is_told() {
    let (streams, store, journal) = (FakeStreams::new(2), FakeStore::default(), Journal::default());
    let done = streams.put("s0", "k", "done");
    let lost = streams.put("s0", "k", "lost");
    streams.put("s0", "k", "kept");
    let other = streams.put("s1", "k", "done");
    streams.put("s1", "k", "next");
    store.put(Lease::new("s0".into(), at(done)));
    store.put(Lease::new("s1".into(), at(other)));
    streams.trim("s0", lost);
    let a = start("a", &streams, &store, &journal);
    let status = a.until(|status| status.delivered == 2).await.unwrap();
    assert_eq!(status.checkpoints_trimmed, 1, "of s1 nothing is missing");
    a.stop().await;
    let mut data = journal.data();
    data.sort();
    assert_eq!(data, ["kept", "next"]);
}

#[tokio::test(start_paused = true)]
async fn a_shard_whose_end_came_after_all_was_trimmed_is_told_as_well() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    let done = streams.put("s0", "k", "done");
    let lost = streams.put("s0", "k", "lost");
    streams.split("s0", "s1", "s2");
    streams.trim("s0", lost);
    store.put(Lease::new("s0".into(), at(done)));
    let a = start("a", &streams, &store, &journal);
    let status = a.until(|status| status.leases_held() == 2).await.unwrap();
    assert_eq!(status.checkpoints_trimmed, 1);
    a.stop().await;
}

/// Delivery needs the lease's counter as well where workers of the KCL look at it.
#[tokio::test(start_paused = true)]
async fn a_lease_that_cannot_be_renewed_is_no_longer_delivered() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    let line = store.another();
    let built = Consumer::builder("app", "orders")
        .worker_id("a")
        .renew_leases_every(Duration::from_secs(3))
        .streams(Arc::new(streams.clone()))
        .lease_store(Arc::new(line.clone()));
    let a = Running::recording(built.build().unwrap(), &journal);
    a.until(|status| status.is_caught_up()).await.unwrap();
    let before = store.get("s0").unwrap().counter;
    tokio::time::sleep(Duration::from_secs(31)).await;
    let raised = store.get("s0").unwrap().counter - before;
    assert!((9..=11).contains(&raised), "{raised}");
    line.refuse_renewals(true);
    let since = Instant::now();
    a.until(|status| status.leases_held() == 0).await.unwrap();
    let taken = since.elapsed();
    assert!(taken <= Duration::from_millis(6_500), "{taken:?}");
    line.refuse_renewals(false);
    streams.put("s0", "k", "x");
    a.until(|status| status.delivered == 1).await.unwrap();
    a.stop().await;
}

/// A worker that does what a worker of the KCL does to the lease table: it raises the counter of each of its
/// leases, and takes a lease whose counter has stood still for its fail-over time, or that nobody owns.
struct KclLike {
    client: Client,
    fail_over: Duration,
    seen: BTreeMap<String, (String, u64, Instant)>,
    taken: Vec<String>,
}

impl KclLike {
    const NAME: &'static str = "kcl";

    fn new(stack: &Stack, fail_over: Duration) -> Self {
        Self { client: stack.dynamodb(), fail_over, seen: BTreeMap::new(), taken: Vec::new() }
    }

    /// One round of renewing and taking.
    async fn round(&mut self, takes: bool) {
        let leases = self.client.scan().table_name("app").consistent_read(true).send().await.unwrap();
        for item in leases.items() {
            let shard = item["leaseKey"].as_s().unwrap().clone();
            let counter: u64 = item["leaseCounter"].as_n().unwrap().parse().unwrap();
            let owner = item.get("leaseOwner").map(|owner| owner.as_s().unwrap().clone()).unwrap_or_default();
            let now = Instant::now();
            let (before, at_counter, since) =
                self.seen.entry(shard.clone()).or_insert_with(|| (owner.clone(), counter, now));
            if (&*before, *at_counter) != (&owner, counter) {
                (*before, *at_counter, *since) = (owner.clone(), counter, now);
            }
            let expired = owner.is_empty() || since.elapsed() >= self.fail_over;
            if owner == Self::NAME {
                self.raise(&shard, counter).await;
            } else if takes && expired && self.raise(&shard, counter).await {
                self.taken.push(shard);
            }
        }
    }

    async fn raise(&self, shard: &str, counter: u64) -> bool {
        let number = |n: u64| AttributeValue::N(n.to_string());
        let raised = self
            .client
            .update_item()
            .table_name("app")
            .key("leaseKey", AttributeValue::S(shard.to_owned()))
            .update_expression("SET leaseOwner = :me, leaseCounter = :next")
            .condition_expression("leaseCounter = :counter")
            .expression_attribute_values(":me", AttributeValue::S(Self::NAME.to_owned()))
            .expression_attribute_values(":next", number(counter + 1))
            .expression_attribute_values(":counter", number(counter))
            .send()
            .await;
        raised.is_ok()
    }
}

async fn stack(shards: i32) -> Stack {
    let stack = headworks_local::start().await.unwrap();
    stack.kinesis().create_stream().stream_name("orders").shard_count(shards).send().await.unwrap();
    stack
}

fn ours(worker: &str, stack: &Stack, journal: &Journal) -> Running {
    let built = Consumer::builder("app", "orders")
        .kinesis(stack.kinesis())
        .dynamodb(stack.dynamodb())
        .worker_id(worker)
        .foreign_take_over_after(Duration::from_secs(3))
        .renew_leases_every(Duration::from_millis(300));
    Running::recording(built.build().unwrap(), journal)
}

async fn leases(stack: &Stack) -> Vec<Lease> {
    Table::new(stack.dynamodb(), "app", "app-workers").leases().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_fleet_takes_only_what_is_dead() {
    let (stack, journal) = (stack(2).await, Journal::default());
    let a = ours("a", &stack, &journal);
    let reads = tokio::time::timeout(DEADLINE, a.until(|status| status.is_caught_up()));
    reads.await.unwrap().unwrap();
    // The KCL's worker looks on for much longer than its fail-over time: every counter moves.
    let mut kcl = KclLike::new(&stack, Duration::from_secs(3));
    let (began, mut rounds) = (Instant::now(), 0);
    let before: u64 = leases(&stack).await.iter().map(|lease| lease.counter).sum();
    while began.elapsed() < kcl.fail_over * 2 {
        kcl.round(true).await;
        rounds += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(kcl.taken.is_empty(), "it took {:?} from a live worker in {rounds} rounds", kcl.taken);
    let after: u64 = leases(&stack).await.iter().map(|lease| lease.counter).sum();
    assert!(after >= before + 10, "idle leases were renewed: {before} to {after}");

    // A dead worker of ours is one whose counters stand still.
    a.kill().await;
    tokio::time::timeout(DEADLINE, async {
        while kcl.taken.len() < 2 {
            kcl.round(true).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap();

    // A worker of ours that comes leaves the live KCL its leases, and takes them when it is dead.
    let b = ours("b", &stack, &journal);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        kcl.round(false).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(b.handle.status().leases_held(), 0, "their counters move");
    let taken = tokio::time::timeout(DEADLINE, b.until(|status| status.leases_held() == 2));
    taken.await.unwrap().unwrap();
    b.stop().await;
    stack.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_throughput_is_written_with_the_checkpoint_in_the_kcls_unit() {
    let stack = headworks_local::start().await.unwrap();
    let table = Table::new(stack.dynamodb(), "app", "app-workers");
    table.prepare().await.unwrap();
    let shard = ShardId::from("s0");
    table.create(&Lease::new(shard.clone(), Checkpoint::TrimHorizon)).await.unwrap();
    let seen = table.lease(&shard).await.unwrap().unwrap();
    let held = table.claim(&seen, "a").await.unwrap().holding().unwrap();
    table.measured(&BTreeMap::from([(shard.clone(), 12_800)]));
    let held = table.checkpoint(&held, &at(7), &[]).await.unwrap();
    let key = AttributeValue::S("s0".to_owned());
    let item = stack.dynamodb().get_item().table_name("app").key("leaseKey", key).send().await.unwrap();
    assert_eq!(item.item.unwrap()["throughputKBps"], AttributeValue::N("12.5".to_owned()));
    table.measured(&BTreeMap::from([(shard.clone(), 2_048)]));
    let next = table.renew(&held).await.unwrap();
    assert_eq!(next.counter, held.counter + 1);
    assert_eq!(table.renew(&held).await.unwrap(), next, "the answer to the first was lost");
    let lease = table.lease(&shard).await.unwrap().unwrap();
    assert_eq!(
        (lease.throughput, lease.checkpoint.clone(), lease.counter),
        (Some(2_048), at(7), next.counter)
    );

    assert!(!table.delete(&seen).await.unwrap(), "it has changed since");
    assert!(table.delete(&lease).await.unwrap());
    assert!(!table.delete(&lease).await.unwrap());
    assert_eq!(table.lease(&shard).await.unwrap(), None);
    stack.shutdown().await.unwrap();
}
