//! From a worker's crash to the first record of its shard that another worker handles.

use std::time::{Duration, Instant};

use aws_sdk_kinesis::primitives::Blob;
use headworks_consumer::Consumer;
use headworks_local::Stack;

use crate::figure;
use crate::support::{Journal, Running};

/// Time between puts: what the figure may be too large by.
const EVERY: Duration = Duration::from_millis(20);

pub fn measure(quick: bool) {
    let runs = if quick { 1 } else { 5 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for (case, window) in [("crash", Duration::from_secs(60)), ("crash-no-dedup", Duration::ZERO)] {
        let taken: Vec<f64> = (0..runs).map(|_| runtime.block_on(crash(window)).as_secs_f64()).collect();
        eprintln!("takeover: {case}: {taken:.2?}");
        // The worst, against the three seconds that are promised.
        let worst = taken.into_iter().fold(0.0, f64::max);
        figure(case, "takeover_s", worst, "s", None);
    }
}

async fn put(stack: &Stack, key: usize) {
    let data = Blob::new(vec![0u8; 200]);
    let request = stack.kinesis().put_record().stream_name("orders").partition_key(key.to_string());
    request.data(data).send().await.unwrap();
}

async fn crash(window: Duration) -> Duration {
    let stack = headworks_local::start().await.unwrap();
    stack.kinesis().create_stream().stream_name("orders").shard_count(1).send().await.unwrap();
    let journal = Journal::default();
    let start = |worker: &str| {
        let built = Consumer::builder("bench", "orders").worker_id(worker).dedup_window(window);
        let built = built.kinesis(stack.kinesis()).dynamodb(stack.dynamodb()).build().unwrap();
        Running::recording(built, &journal)
    };
    let a = start("a");
    a.until(|status| status.is_caught_up()).await.unwrap();
    let b = start("b");
    b.until(|status| status.leases_active == 1).await.unwrap();
    // Both know each other for a while, and the first reads.
    for key in 0..50 {
        put(&stack, key).await;
        tokio::time::sleep(EVERY).await;
    }
    assert!(journal.by("b").is_empty());
    a.kill().await;
    let killed = Instant::now();
    let mut key = 0;
    while journal.by("b").is_empty() {
        put(&stack, key).await;
        key += 1;
        tokio::time::sleep(EVERY).await;
    }
    let taken = killed.elapsed();
    b.stop().await;
    stack.shutdown().await.unwrap();
    taken
}
