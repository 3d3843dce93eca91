//! Each state of a subscription, and each kind of reshard: over sockets, against the embedded stack.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on panics

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use headworks_consumer::{Batch, Handler, HandlerError, Reading};
use headworks_local::Stack;
use support::sockets::{STREAM, arrived, fault, handled, put, split, stack, within, worker};
use support::{Journal, Running};

/// Records are put before, while and after something goes wrong with the subscription; each comes once.
async fn survives(faults: &str, times: u64) {
    let stack = stack(1).await;
    let journal = Journal::default();
    let id = fault(&stack, faults);
    let built = worker("a", &stack).configure(|config| {
        config.reading = Reading::FanOut;
        config.inactivity_timeout = Duration::from_secs(1);
    });
    let a = Running::recording(built.build().unwrap(), &journal);
    put(&stack, 0..40).await;
    let mut total = 40;
    within("the fault", async {
        while stack.faults().fired(id) < times {
            put(&stack, total..total + 1).await;
            total += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    put(&stack, total..total + 20).await;
    arrived(&journal, total as usize + 20).await;
    assert_eq!(handled(&journal), (0..total + 20).collect::<Vec<_>>(), "{faults}");
    within("the end", a.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_in_use_is_bridged() {
    survives("subscribe-to-shard error=ResourceInUseException times=3", 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_one_too_many_is_tried_again() {
    survives("subscribe-to-shard error=LimitExceededException times=3", 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_credentials_are_fetched_anew() {
    survives("subscribe-to-shard error=ExpiredTokenException times=2", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_in_the_middle_of_an_event_loses_and_repeats_nothing() {
    survives("subscribe-to-shard reset every=4 times=3", 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_falls_silent_is_replaced() {
    survives("subscribe-to-shard stall n=3", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_being_changed_is_waited_for() {
    survives("describe-stream-consumer error=ResourceInUseException times=3", 3).await;
}

async fn registered(stack: &Stack) -> Vec<(String, i64)> {
    let summary = stack.kinesis().describe_stream_summary().stream_name(STREAM).send().await.unwrap();
    let arn = summary.stream_description_summary().unwrap().stream_arn().to_owned();
    let listed = stack.kinesis().list_stream_consumers().stream_arn(arn).send().await.unwrap();
    let consumer = |consumer: &aws_sdk_kinesis::types::Consumer| {
        (consumer.consumer_arn().to_owned(), consumer.consumer_creation_timestamp().secs())
    };
    listed.consumers().iter().map(consumer).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_registration_outlives_stops_and_kills() {
    let stack = stack(1).await;
    let journal = Journal::default();
    let a = Running::recording(worker("a", &stack).build().unwrap(), &journal);
    put(&stack, 0..5).await;
    arrived(&journal, 5).await;
    let before = registered(&stack).await;
    assert_eq!(before.len(), 1);
    within("a's end", a.stop()).await;
    assert_eq!(registered(&stack).await, before);
    let a = Running::recording(worker("a", &stack).build().unwrap(), &journal);
    put(&stack, 5..10).await;
    arrived(&journal, 10).await;
    a.kill().await;
    // By its ARN as well.
    let by_arn = worker("b", &stack).consumer_arn(before[0].0.clone());
    let b = Running::recording(by_arn.build().unwrap(), &journal);
    put(&stack, 10..15).await;
    arrived(&journal, 15).await;
    within("b's end", b.stop()).await;
    assert_eq!(registered(&stack).await, before);
}

/// Takes longer for each batch than a worker that is dead may be silent.
struct Slow(Arc<AtomicUsize>);

impl Handler for Slow {
    async fn handle(&mut self, batch: Batch) -> Result<(), HandlerError> {
        tokio::time::sleep(Duration::from_secs(3)).await;
        self.0.fetch_add(batch.len(), Ordering::Relaxed);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_handler_keeps_its_lease() {
    let stack = stack(1).await;
    put(&stack, 0..60).await;
    let handled = Arc::new(AtomicUsize::new(0));
    let slow = worker("a", &stack).max_batch_records(30);
    let slow = slow.configure(|config| config.read_ahead_bytes = 64 << 10).build().unwrap();
    let counted = handled.clone();
    let a = Running::start(slow, move |_| Slow(counted.clone()));
    within("a's lease", a.until(|status| status.leases_held() == 1)).await.unwrap();
    // Another one would take over what the first does not renew.
    let journal = Journal::default();
    let b = Running::recording(worker("b", &stack).build().unwrap(), &journal);
    within("all", a.until(|status| status.delivered == 60)).await.unwrap();
    assert_eq!((handled.load(Ordering::Relaxed), journal.len()), (60, 0));
    within("b's end", b.stop()).await;
    within("a's end", a.stop()).await;
}

async fn merge(stack: &Stack) {
    let listed = stack.kinesis().list_shards().stream_name(STREAM).send().await.unwrap();
    let mut open: Vec<_> = listed
        .shards()
        .iter()
        .filter(|shard| shard.sequence_number_range().unwrap().ending_sequence_number().is_none())
        .collect();
    open.sort_by_key(|shard| shard.hash_key_range().unwrap().starting_hash_key().parse::<u128>().unwrap());
    let request = stack.kinesis().merge_shards().stream_name(STREAM).shard_to_merge(open[0].shard_id());
    request.adjacent_shard_to_merge(open[1].shard_id()).send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_of_two_workers_merge_and_split_twice() {
    let stack = stack(2).await;
    let journal = Journal::default();
    let a = Running::recording(worker("a", &stack).build().unwrap(), &journal);
    let b = Running::recording(worker("b", &stack).build().unwrap(), &journal);
    within("a's share", a.until(|status| status.leases_held() == 1)).await.unwrap();
    within("b's share", b.until(|status| status.leases_held() == 1)).await.unwrap();
    put(&stack, 0..30).await;
    merge(&stack).await;
    put(&stack, 30..60).await;
    arrived(&journal, 60).await;
    // A child is split before anybody can have read it.
    split(&stack).await;
    split(&stack).await;
    put(&stack, 60..90).await;
    arrived(&journal, 90).await;
    assert_eq!(handled(&journal), (0..90).collect::<Vec<_>>());
    let share = |running: &Running| running.handle.status().leases_held();
    within("all three leaves are held", async {
        while share(&a) + share(&b) != 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    in_order(&journal);
    within("a's end", a.stop()).await;
    within("b's end", b.stop()).await;
}

/// Numbers of one key come in order, whichever shards and workers they went through.
fn in_order(journal: &Journal) {
    let all = journal.all();
    for key in 0..7 {
        let key = format!("key-{key}");
        let of_key = all.iter().filter(|seen| seen.key == key).map(|seen| seen.data.parse::<u32>().unwrap());
        assert!(of_key.is_sorted(), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_starts_late_reads_generations_in_order() {
    let stack = stack(1).await;
    put(&stack, 0..20).await;
    split(&stack).await;
    put(&stack, 20..40).await;
    split(&stack).await;
    merge(&stack).await;
    put(&stack, 40..60).await;
    let journal = Journal::default();
    let a = Running::recording(worker("a", &stack).build().unwrap(), &journal);
    arrived(&journal, 60).await;
    assert_eq!(handled(&journal), (0..60).collect::<Vec<_>>());
    in_order(&journal);
    within("a's end", a.stop()).await;
}
