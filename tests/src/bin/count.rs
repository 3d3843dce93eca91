//! A consumer that only counts, for the benchmarks: `count STREAM APPLICATION RECORDS`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use aws_config::BehaviorVersion;
use headworks_consumer::{Batch, Consumer, Handler, HandlerError, Start};
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
struct Count {
    seen: Arc<AtomicU64>,
    wanted: u64,
    enough: CancellationToken,
}

impl Handler for Count {
    async fn handle(&mut self, batch: Batch) -> Result<(), HandlerError> {
        let more = batch.records().len() as u64;
        if self.seen.fetch_add(more, Ordering::Relaxed) + more >= self.wanted {
            self.enough.cancel();
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [stream, application, records] = arguments.as_slice() else {
        anyhow::bail!("usage: count STREAM APPLICATION RECORDS");
    };
    let wanted = records.parse().context("the number of records")?;
    let aws = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let consumer = Consumer::builder(application, stream)
        .kinesis(aws_sdk_kinesis::Client::new(&aws))
        .dynamodb(aws_sdk_dynamodb::Client::new(&aws))
        .start(Start::TrimHorizon)
        .build()?;
    let (seen, enough) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
    let (counter, stop) = (Arc::clone(&seen), enough.clone());
    let running = consumer
        .run(move |_| Count { seen: Arc::clone(&counter), wanted, enough: stop.clone() }, enough.clone());
    tokio::time::timeout(Duration::from_secs(300), running)
        .await
        .context("too few records within 300 s")??;
    let seen = seen.load(Ordering::Relaxed);
    ensure!(seen >= wanted, "{seen} of {wanted} records came");
    Ok(())
}
