//! Records at a steady rate, some of them twice.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use headworks_producer::{Producer, Record, Ticket};
use headworks_telemetry::{Minter, Parent, Sampler};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::STREAM;
use super::config::Config;

/// How long a record rests before it is sent again: within the window of de-duplication, and beyond it.
const REST: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(75)];

/// Partition keys in turn.
const KEYS: u64 = 97;

/// What was sent.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// Records, each counted once.
    pub records: u64,
    /// Those of them that were sent a second time.
    pub again: u64,
}

/// Sends for as long as the configuration says; every record is acknowledged in the end.
pub(super) async fn send(
    config: &Config,
    endpoint: &str,
    seed: u64,
    progress: Arc<AtomicU64>,
) -> anyhow::Result<Sent> {
    let producer = Producer::builder()
        .endpoint(endpoint)
        .timeout(Duration::from_secs(120))
        .longest_pause(Duration::from_millis(500))
        .buffer_offline(true)
        .connect()
        .await?;
    let minter = Minter::new(Sampler::never());
    let mut rng = StdRng::seed_from_u64(seed);
    let mut ticks = interval(Duration::from_secs(1) / u32::try_from(config.rate)?);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let begin = Instant::now();
    let mut sent = Sent { records: 0, again: 0 };
    let mut later: VecDeque<(Instant, Record)> = VecDeque::new();
    let mut tickets: VecDeque<Ticket> = VecDeque::new();
    while begin.elapsed() < config.length() {
        let now = ticks.tick().await;
        let mut record = Record::builder(format!("order-{}", sent.records % KEYS))?
            .header("type", "order.placed")?
            .data(sent.records.to_string())
            .build();
        record.headers.set_creation(minter.mint(Parent::None));
        if rng.random_bool(config.repeats) {
            later.push_back((now + REST[usize::from(rng.random_bool(0.5))], record.clone()));
        }
        tickets.push_back(producer.send(record).await);
        sent.records += 1;
        progress.store(sent.records, Ordering::Relaxed);
        while tickets.len() > 1000 {
            acknowledged(tickets.pop_front()).await?;
        }
        let due = later.iter().filter(|(at, _)| *at <= now).count();
        if due > 0 {
            let ready: VecDeque<(Instant, Record)>;
            (ready, later) = later.into_iter().partition(|(at, _)| *at <= now);
            for (_, record) in ready {
                tickets.push_back(producer.send(record).await);
                sent.again += 1;
            }
        }
    }
    // What still rests is sent now.
    for (_, record) in later {
        tickets.push_back(producer.send(record).await);
        sent.again += 1;
    }
    while !tickets.is_empty() {
        acknowledged(tickets.pop_front()).await?;
    }
    // Behind everything else, one of each key: once these have had their effects, every repeat has been
    // delivered too.
    for key in 0..KEYS {
        let record = Record::builder(format!("order-{key}"))?.header("type", "order.placed")?;
        tickets.push_back(producer.send(record.data(sent.records.to_string()).build()).await);
        sent.records += 1;
    }
    while !tickets.is_empty() {
        acknowledged(tickets.pop_front()).await?;
    }
    producer.close(Duration::from_secs(10)).await;
    Ok(sent)
}

async fn acknowledged(ticket: Option<Ticket>) -> anyhow::Result<()> {
    if let Some(ticket) = ticket {
        ticket.await.with_context(|| format!("a record for {STREAM} was not acknowledged"))?;
    }
    Ok(())
}
