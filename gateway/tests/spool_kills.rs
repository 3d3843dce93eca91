//! kill -9 at random moments: nothing that was acknowledged is lost.
//!
//! `HEADWORKS_SPOOL_KILLS` says how often (200), `HEADWORKS_SPOOL_SEED` where chance begins (1).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod daemon;
mod inbound;
mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use daemon::Daemon;
use headworks_proto::v1::PutRequest;
use headworks_proto::v1::gateway_client::GatewayClient;
use headworks_proto::v1::record_result::Outcome;
use inbound::{everything, stack};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use support::{record, soon};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const PRODUCERS: usize = 6;

/// By key: the numbers that were acknowledged, and the next one to send.
#[derive(Debug, Default)]
struct Producer {
    key: String,
    next: u64,
    acknowledged: Vec<u64>,
}

impl Producer {
    /// Sends batches one after the other until the gateway is gone. What was not answered is never sent again:
    /// nobody knows what became of it.
    async fn send(mut self, url: String, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let Ok(mut client) = GatewayClient::connect(url).await else { return self };
        loop {
            let numbers = self.next..self.next + rng.random_range(1..=8);
            self.next = numbers.end;
            let filler = "x".repeat(rng.random_range(0..2000));
            let records = numbers.clone().map(|n| record(&self.key, format!("{n} {filler}"))).collect();
            // The connection may hang on a process that is being killed.
            let put = client.put(PutRequest { records, ..Default::default() });
            let Ok(Ok(answer)) = timeout(Duration::from_secs(5), put).await else { return self };
            let results = answer.into_inner().results;
            let kept = |outcome: Option<&Outcome>| matches!(outcome, Some(Outcome::Spooled(_)));
            assert!(results.iter().all(|result| kept(result.outcome.as_ref())), "{results:?}");
            self.acknowledged.extend(numbers);
        }
    }
}

fn of_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_records_survive_kill_9() {
    let (kills, seed) =
        (of_environment("HEADWORKS_SPOOL_KILLS", 200), of_environment("HEADWORKS_SPOOL_SEED", 1));
    let mut rng = SmallRng::seed_from_u64(seed);
    let (stack, kinesis) = stack(2).await;
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("gateway.toml");
    let text = format!(
        "listen = \"127.0.0.1:0\"\n[[streams]]\nname = \"inbound\"\nack = \"spool\"\n\
         spool = {{ directory = {:?}, segment_bytes = 1048576, max_bytes = 67108864 }}\n",
        directory.path()
    );
    std::fs::write(&config, text).unwrap();

    let mut producers: Vec<Producer> =
        (0..PRODUCERS).map(|n| Producer { key: format!("key-{n}"), ..Default::default() }).collect();
    let (started, mut early) = (Instant::now(), 0);
    for _ in 0..kills {
        if rng.random_bool(0.1) {
            // In the middle of its start.
            let mut child = daemon::command(&config, &stack.kinesis_endpoint()).spawn().unwrap();
            sleep(Duration::from_millis(rng.random_range(0..60))).await;
            child.kill().await.unwrap();
            early += 1;
            continue;
        }
        let gateway = Daemon::start(&config, &stack.kinesis_endpoint()).await;
        let mut sending = JoinSet::new();
        for producer in producers.drain(..) {
            sending.spawn(producer.send(gateway.url(), rng.random()));
        }
        sleep(Duration::from_micros(rng.random_range(1_000..60_000))).await;
        gateway.kill().await;
        producers = soon("the producers", sending.join_all()).await;
        producers.sort_by(|a, b| a.key.cmp(&b.key));
    }
    let took = started.elapsed();
    let acknowledged: usize = producers.iter().map(|producer| producer.acknowledged.len()).sum();
    // The last one puts all that is left, and says so by its exit code.
    let gateway = Daemon::start(&config, &stack.kinesis_endpoint()).await;
    assert_eq!(gateway.terminate().await, Some(0));

    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (key, payload) in everything(&kinesis).await {
        let number = std::str::from_utf8(&payload).unwrap().split(' ').next().unwrap();
        found.entry(key).or_default().push(number.parse().unwrap());
    }
    let mut repeats = 0;
    for producer in &producers {
        let there = found.get(&producer.key).map_or(&[][..], Vec::as_slice);
        // Order is that of first occurrences.
        let mut first: Vec<u64> = Vec::new();
        for number in there {
            if first.last().is_none_or(|last| number > last) {
                first.push(*number);
            } else {
                repeats += 1;
                assert!(first.binary_search(number).is_ok(), "{}: {number} came late", producer.key);
            }
        }
        for number in &producer.acknowledged {
            assert!(
                first.binary_search(number).is_ok(),
                "{}: {number} was acknowledged and is lost",
                producer.key
            );
        }
    }
    assert!(acknowledged as u64 > kills, "only {acknowledged} records were acknowledged");
    println!(
        "{kills} kills ({early} during the start) in {took:.1?}: {acknowledged} records acknowledged, none lost, {repeats} repeats"
    );
}
