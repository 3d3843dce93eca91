//! Workers of which one is cut off from DynamoDB, against the embedded Kinesis and DynamoDB with the real clients
//! over sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on panics

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use headworks_consumer::lease::{LeaseStore, Table};
use headworks_record::ShardId;
use support::proxy::Proxy;
use support::sockets::{put, stack, within, worker};
use support::{Journal, Running, Seen};

/// Each shard's deliveries in order.
fn by_shard(journal: &Journal) -> BTreeMap<ShardId, Vec<Seen>> {
    let mut shards: BTreeMap<ShardId, Vec<Seen>> = BTreeMap::new();
    for seen in journal.all() {
        shards.entry(seen.shard.clone()).or_default().push(seen);
    }
    shards
}

async fn handled(journal: &Journal, numbers: std::ops::Range<u32>) {
    let expected: BTreeSet<String> = numbers.map(|number| number.to_string()).collect();
    within("every record", async {
        while journal.data().into_iter().collect::<BTreeSet<_>>() != expected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_cut_off_from_dynamodb_stops_before_another_starts() {
    let stack = stack(3).await;
    let journal = Journal::default();
    let proxy = Proxy::to(&stack.dynamodb_endpoint()).await;
    let start = |id: &str| {
        let mut built = worker(id, &stack);
        if id == "cut" {
            let config = stack.dynamodb().config().to_builder().endpoint_url(&proxy.url);
            built = built.dynamodb(aws_sdk_dynamodb::Client::from_conf(config.build()));
        }
        let built = built.take_over_after(Duration::from_millis(1500)).configure(|config| {
            config.call_timeout = Duration::from_secs(1);
        });
        Running::recording(built.build().unwrap(), &journal)
    };
    let (cut, left, right) = (start("cut"), start("left"), start("right"));
    for running in [&cut, &left, &right] {
        within("one each", running.until(|status| status.leases_held() == 1)).await.unwrap();
    }
    put(&stack, 0..60).await;
    handled(&journal, 0..60).await;
    let table = Table::new(stack.dynamodb(), "app", "app-workers");
    let leases = async || -> BTreeMap<ShardId, headworks_consumer::lease::Lease> {
        let leases = table.leases().await.unwrap();
        leases.into_iter().map(|lease| (lease.shard.clone(), lease)).collect()
    };
    let before = leases().await;
    let shard = before.values().find(|lease| lease.owner.as_deref() == Some("cut")).unwrap().shard.clone();

    // Records flow on while it is cut off: Kinesis still pushes to it.
    proxy.cut();
    let mut number = 60;
    let taken = within("the take-over", async {
        loop {
            put(&stack, number..number + 7).await;
            number += 7;
            let now = leases().await[&shard].clone();
            let owner = now.owner.clone().filter(|owner| owner != "cut");
            if owner.is_some() && now.counter > before[&shard].counter {
                return now;
            }
        }
    })
    .await;
    let owner = taken.owner.clone().unwrap();
    within("the new owner's first record", async {
        while !by_shard(&journal)[&shard].iter().any(|seen| seen.worker == owner) {
            put(&stack, number..number + 7).await;
            number += 7;
        }
    })
    .await;
    // A worker that did not stop would get these first: they are pushed to it, and polled by the new owner.
    put(&stack, number..number + 28).await;
    number += 28;
    handled(&journal, 0..number).await;
    let seen = &by_shard(&journal)[&shard];
    let first = seen.iter().position(|seen| seen.worker == owner).unwrap();
    assert!(seen[..first].iter().all(|seen| seen.worker == "cut"), "nobody else comes between");
    assert!(seen[first..].iter().all(|seen| seen.worker == owner), "the one that was cut off is silent");
    assert!(seen[first - 1].at < seen[first].at);
    // The others' shards were theirs all the time.
    let now = leases().await;
    for (other, lease) in before.iter().filter(|(other, _)| **other != shard) {
        assert_eq!(now[other].owner, lease.owner);
    }
    // It holds a right that is worth nothing: what it would write is refused.
    let stale = before[&shard].holding().unwrap();
    let refused = table.checkpoint(&stale, &taken.checkpoint, &[]).await.unwrap_err();
    assert_eq!(refused.code(), "lease-lost");

    // Healed, it comes back as one that has lost its lease, and gets a share again.
    proxy.heal();
    let back = cut.until(|status| status.leases_held() == 1 && status.leases_unowned == 0);
    within("its share", back).await.unwrap();
    put(&stack, number..number + 30).await;
    handled(&journal, 0..number + 30).await;
    for (shard, seen) in by_shard(&journal) {
        // In order, but for what its next owner gets again.
        let mut last: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        for seen in &seen {
            let number = seen.data.parse().unwrap();
            let before = last.insert((&seen.worker, &seen.key), number);
            assert!(before.is_none_or(|before| before < number), "{shard} {number} after {before:?}");
        }
    }
    for running in [cut, left, right] {
        assert!(within("the end", running.stop()).await.unreleased.is_empty());
    }
    within("the stack's end", stack.shutdown()).await.unwrap();
}
