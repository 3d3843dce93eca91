//! Splits and merges while several workers read, and shards that expire, against the embedded Kinesis and DynamoDB
//! with the real clients over sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on panics

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headworks_consumer::lease::{LeaseStore, Table};
use headworks_consumer::{
    Batch, Builder, Checkpoint, Handler, HandlerError, SequenceNumber, SequenceStart, Start,
};
use headworks_local::Stack;
use headworks_local::kinesis::ManualClock;
use headworks_record::ShardId;
use support::sockets::{self, arrived, handled, stack, within};
use support::writer::{Writer, exactly_once, merge, split};
use support::{Journal, Running};

fn start(id: &str, stack: &Stack, journal: &Journal) -> Running {
    Running::recording(sockets::worker(id, stack).build().unwrap(), journal)
}

async fn leases(stack: &Stack) -> BTreeMap<ShardId, headworks_consumer::lease::Lease> {
    let leases = Table::new(stack.dynamodb(), "app", "app-workers").leases().await.unwrap();
    leases.into_iter().map(|lease| (lease.shard.clone(), lease)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_of_shards_of_two_workers_waits_for_both() {
    let stack = stack(2).await;
    let journal = Journal::default();
    let mut writer = Writer::new(&stack).await;
    let (a, b) = (start("a", &stack, &journal), start("b", &stack, &journal));
    for running in [&a, &b] {
        within("one each", running.until(|status| status.leases_held() == 1)).await.unwrap();
    }
    let (left, right) = (writer.map.open()[0].clone(), writer.map.open()[1].clone());
    let owners: BTreeSet<_> = leases(&stack).await.into_values().map(|lease| lease.owner.unwrap()).collect();
    assert_eq!(owners.len(), 2, "each of the parents is another worker's");
    for _ in 0..5 {
        writer.round().await;
    }
    merge(&stack, &left, &right).await;
    writer.refresh().await;
    for _ in 0..5 {
        writer.round().await;
    }
    arrived(&journal, writer.total()).await;
    exactly_once(&journal, &writer.counts);
    // All of both parents was delivered before anything of their child, and by one worker.
    let all = journal.all();
    let child = &writer.map.open()[0].id;
    let first = all.iter().position(|seen| seen.shard == *child).unwrap();
    assert!(all[first..].iter().all(|seen| seen.shard == *child && seen.worker == all[first].worker));
    within("the end of both", async {
        let (one, other) = tokio::join!(a.stop(), b.stop());
        assert!(one.unreleased.is_empty() && other.unreleased.is_empty());
    })
    .await;
    let leases = leases(&stack).await;
    assert_eq!(leases[child].parents, [left.id.clone(), right.id.clone()]);
    for parent in [&left.id, &right.id] {
        assert_eq!(leases[parent].checkpoint, Checkpoint::ShardEnd);
        assert_eq!(leases[parent].children, std::slice::from_ref(child));
    }
    within("the stack's end", stack.shutdown()).await.unwrap();
}

/// Works slowly enough that the stream is resharded twice before the first shard has been read.
struct Slow(Journal);

impl Handler for Slow {
    async fn handle(&mut self, batch: Batch) -> Result<(), HandlerError> {
        tokio::time::sleep(Duration::from_millis(40)).await;
        self.0.add("slow", &batch);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_may_be_split_before_its_parent_was_read() {
    let stack = stack(1).await;
    let journal = Journal::default();
    let mut writer = Writer::new(&stack).await;
    for _ in 0..20 {
        writer.round().await;
    }
    let slow = |id: &str| {
        let (built, journal) = (sockets::worker(id, &stack).max_batch_records(20), journal.clone());
        Running::start(built.build().unwrap(), move |_| Slow(journal.clone()))
    };
    let (a, b) = (slow("a"), slow("b"));
    arrived(&journal, 1).await;
    let mut generations = vec![writer.map.open()[0].id.clone()];
    for _ in 0..2 {
        let shard = writer.map.open()[0].clone();
        split(&stack, &shard).await;
        generations.push(shard.id);
        writer.refresh().await;
        for _ in 0..5 {
            writer.round().await;
        }
    }
    let root = &leases(&stack).await[&generations[0]];
    assert!(!root.checkpoint.is_end(), "the first shard was read too soon for this test: {root:?}");
    assert_eq!(writer.map.open().len(), 3);
    arrived(&journal, writer.total()).await;
    exactly_once(&journal, &writer.counts);
    within("all generations", a.until(|status| status.leases_active == 3)).await.unwrap();
    within("a's end", a.stop()).await;
    within("b's end", b.stop()).await;
    let leases = leases(&stack).await;
    assert_eq!(leases.len(), 5, "the first, two children, two grandchildren");
    assert!(generations.iter().all(|shard| leases[shard].checkpoint.is_end()));
    within("the stack's end", stack.shutdown()).await.unwrap();
}

const HOUR_MS: i64 = 3_600_000;

/// A stack whose clock stands so many hours in the past, and is moved by hand.
async fn earlier(hours: i64) -> (Stack, Arc<ManualClock>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let clock = Arc::new(ManualClock::new(i64::try_from(now).unwrap() - hours * HOUR_MS));
    let config = headworks_local::Config { clock: clock.clone(), ..headworks_local::Config::default() };
    let stack = Stack::start(config).await.unwrap();
    stack.kinesis().create_stream().stream_name(sockets::STREAM).shard_count(1).send().await.unwrap();
    // A new stream and a new consumer take their time to become usable, by this clock.
    clock.advance_ms(60_000);
    (stack, clock)
}

fn worker(id: &str, stack: &Stack) -> Builder {
    sockets::worker(id, stack)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_may_begin_when_the_parents_have_expired() {
    for start in [Start::TrimHorizon, Start::AtTimestamp(UNIX_EPOCH)] {
        let (stack, clock) = earlier(30).await;
        let journal = Journal::default();
        sockets::put(&stack, 0..10).await;
        sockets::split(&stack).await;
        clock.advance_ms(60_000);
        sockets::put(&stack, 10..20).await;
        clock.advance_ms(30 * HOUR_MS);
        stack.engine().sweep();
        sockets::put(&stack, 20..30).await;
        let a = Running::recording(worker("a", &stack).start(start).build().unwrap(), &journal);
        arrived(&journal, 10).await;
        let status = within("both children", a.until(|status| status.leases_held() == 2)).await.unwrap();
        assert_eq!(handled(&journal), (20..30).collect::<Vec<_>>());
        // Nothing that this application had begun was lost.
        assert_eq!((status.shards_expired, status.checkpoints_trimmed), (0, 0));
        within("a's end", a.stop()).await;
        assert!(!leases(&stack).await.contains_key(&"shardId-000000000000".into()), "the parent is gone");
        within("the stack's end", stack.shutdown()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_expired_half_read_is_a_loss_and_its_children_are_read() {
    let (stack, clock) = earlier(30).await;
    let journal = Journal::default();
    sockets::put(&stack, 0..10).await;
    let a = Running::recording(worker("a", &stack).build().unwrap(), &journal);
    arrived(&journal, 10).await;
    within("a's end", a.stop()).await;
    sockets::put(&stack, 10..20).await;
    sockets::split(&stack).await;
    clock.advance_ms(30 * HOUR_MS);
    stack.engine().sweep();
    sockets::put(&stack, 20..30).await;
    let b = Running::recording(worker("b", &stack).build().unwrap(), &journal);
    arrived(&journal, 20).await;
    let status = within("the loss", b.until(|status| status.shards_expired == 1)).await.unwrap();
    assert_eq!(status.delivered, 10, "10 to 19 have expired");
    within("b's end", b.stop()).await;
    within("the stack's end", stack.shutdown()).await.unwrap();
}

/// What an application left behind that has not begun to read, or has not read a record yet.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Left {
    /// LATEST's continuation, which is no record's.
    Latest,
    /// The sequence number with which the shard begins.
    ShardStart,
    /// Children that nobody began.
    Children,
    /// The last record.
    Record,
}

/// Reads on after so many hours of retention of 24; returns how many losses were told.
async fn reads_on_after(left: Left, hours: i64) -> u64 {
    let (stack, clock) = earlier(hours).await;
    let journal = Journal::default();
    let built = worker("a", &stack);
    let built = match left {
        Left::Latest => built.start(Start::Latest),
        Left::ShardStart => {
            let listed = stack.kinesis().list_shards().stream_name(sockets::STREAM).send().await.unwrap();
            let range = listed.shards()[0].sequence_number_range().unwrap();
            let begins = SequenceNumber::new(range.starting_sequence_number().to_owned()).unwrap();
            built.start_at("shardId-000000000000", SequenceStart::At(begins))
        }
        Left::Children | Left::Record => {
            sockets::put(&stack, 0..1).await;
            built
        }
    };
    let a = Running::recording(built.build().unwrap(), &journal);
    let begun = a.until(|status| status.leases_held() == 1 && status.is_caught_up());
    within("the start", begun).await.unwrap();
    match left {
        Left::Latest => drop(within("its place", a.until(|status| status.checkpoints >= 1)).await.unwrap()),
        Left::ShardStart => {}
        Left::Children | Left::Record => arrived(&journal, 1).await,
    }
    if left == Left::Children {
        sockets::split(&stack).await;
        within("the end of the parent", async {
            while !leases(&stack).await[&"shardId-000000000000".into()].checkpoint.is_end() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        // As if it had not come to claim them.
        a.kill().await;
        let table = Table::new(stack.dynamodb(), "app", "app-workers");
        for lease in leases(&stack).await.into_values().filter(|lease| !lease.parents.is_empty()) {
            let held = table.claim(&lease, "nobody").await.unwrap().holding().unwrap();
            let held = table.checkpoint(&held, &Checkpoint::TrimHorizon, &[]).await.unwrap();
            table.release(&held).await.unwrap();
        }
    } else {
        within("a's end", a.stop()).await;
    }
    sockets::put(&stack, 1..8).await;
    clock.advance_ms(hours * HOUR_MS - 60_000);
    stack.engine().sweep();
    let before = journal.len();
    let b = Running::recording(worker("b", &stack).build().unwrap(), &journal);
    within("b reads", b.until(|status| status.is_caught_up() && status.leases_held() > 0)).await.unwrap();
    // At the tip already, and with the first record that comes.
    sockets::put(&stack, 8..20).await;
    let expired = if hours > 24 { 7 } else { 0 };
    arrived(&journal, before + 19 - expired).await;
    let trimmed = b.handle.status().checkpoints_trimmed;
    within("b's end", b.stop()).await;
    within("the stack's end", stack.shutdown()).await.unwrap();
    trimmed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_that_the_trim_horizon_has_passed_is_a_loss_whatever_it_is() {
    for (left, losses) in [(Left::Latest, 1), (Left::ShardStart, 1), (Left::Children, 2), (Left::Record, 1)] {
        assert_eq!(reads_on_after(left, 30).await, losses, "{left:?}, too late");
        assert_eq!(reads_on_after(left, 20).await, 0, "{left:?}, in time");
    }
}
