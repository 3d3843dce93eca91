//! The run itself.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use headworks_cli::pipeline::{self, DEAD_LETTERS, INBOUND, Pipeline};
use headworks_local::faults::Fault;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use super::config::Config;
use super::crew::{Crew, Kills};
use super::load::{self, Sent};
use super::{STREAM, effects, reshard};

/// What came out of it.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// What was sent.
    pub sent: Sent,
    /// What was killed.
    pub kills: Kills,
    /// Splits and merges.
    pub reshards: u32,
    /// Records without an effect.
    pub missing: Vec<u64>,
    /// Records with more than one.
    pub repeated: Vec<(u64, u64)>,
    /// Records that nobody sent.
    pub strange: Vec<u64>,
    /// Objects among the dead letters.
    pub dead_letters: usize,
    /// From the last record's acknowledgement to the last effect.
    pub settled_in: Duration,
}

impl Verdict {
    /// Whether each record had its effect exactly once.
    pub fn holds(&self) -> bool {
        self.missing.is_empty()
            && self.repeated.is_empty()
            && self.strange.is_empty()
            && self.dead_letters == 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, kills, .. } = self;
        writeln!(f, "{} records acknowledged, {} of them sent twice", sent.records, sent.again)?;
        writeln!(
            f,
            "{} kills: {} of workers, {} of the gateway, {} of routers; {} reshards",
            kills.total(),
            kills.worker,
            kills.gateway,
            kills.router,
            self.reshards
        )?;
        writeln!(f, "last effect {:.1} s after the last acknowledgement", self.settled_in.as_secs_f64())?;
        write!(
            f,
            "{}: {} without an effect, {} with more than one, {} unknown, {} dead letters",
            if self.holds() { "OK, each record had its effect exactly once" } else { "FAILED" },
            self.missing.len(),
            self.repeated.len(),
            self.strange.len(),
            self.dead_letters
        )
    }
}

/// Runs it, telling of what happens on stderr.
pub async fn run(config: Config) -> anyhow::Result<Verdict> {
    let seed = config.seed.unwrap_or_else(|| {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
    });
    eprintln!("chaos: seed {seed}; --seed {seed} makes the same choices");
    let mut rng = StdRng::seed_from_u64(seed);
    let twice = format!("put-records duplicate p={} seed={seed}", config.repeats);
    let faults = if config.repeats > 0.0 { vec![Fault::parse(&twice)?] } else { Vec::new() };
    let pipeline =
        crate::pipeline(pipeline::Config { trace_ratio: 0.0, faults, ..Default::default() }).await?;
    effects::create_table(&pipeline.stack().dynamodb()).await?;
    let mut crew = Crew::start(pipeline.stack(), &config)?;

    let progress = Arc::new(AtomicU64::new(0));
    let endpoint = crew.gateway_endpoint();
    let mut sending = Box::pin(load::send(&config, &endpoint, seed, Arc::clone(&progress)));
    let mut kills = ticks(&config, config.kills);
    let mut reshards = ticks(&config, config.reshards);
    let mut reports = interval(Duration::from_secs(5));
    let (mut reshard_count, mut kill_count) = (0, 0);
    let sent = loop {
        tokio::select! {
            sent = &mut sending => break sent?,
            _ = kills.tick(), if kill_count < config.kills => {
                kill_count += 1;
                let what = crew.kill_one(&mut rng).await?;
                eprintln!("chaos: kill {kill_count} of {}: {what}", config.kills);
            }
            _ = reshards.tick(), if reshard_count < config.reshards => {
                reshard_count += 1;
                let stream = if rng.random_bool(0.5) { INBOUND } else { STREAM };
                let told = reshard::reshard(&pipeline.stack().kinesis(), stream, &mut rng).await?;
                eprintln!("chaos: reshard {reshard_count} of {}: {told}", config.reshards);
            }
            _ = reports.tick() => eprintln!("chaos: {} records sent", progress.load(Ordering::Relaxed)),
        }
    };
    drop(sending);
    eprintln!("chaos: all {} records are acknowledged; waiting for their effects", sent.records);
    let verdict = settle(&config, &pipeline, sent, crew.kills, reshard_count).await?;
    crew.stop().await?;
    pipeline.shutdown().await?;
    Ok(verdict)
}

/// So many ticks, spread over the time.
fn ticks(config: &Config, count: u32) -> tokio::time::Interval {
    let period = config.length() / (count + 1).max(1);
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn settle(
    config: &Config,
    pipeline: &Pipeline,
    sent: Sent,
    kills: Kills,
    reshards: u32,
) -> anyhow::Result<Verdict> {
    let begin = Instant::now();
    let mut looks = interval(Duration::from_secs(1));
    let counts = loop {
        looks.tick().await;
        let counts = effects::counts(&pipeline.stack().dynamodb()).await?;
        let done = (0..sent.records).all(|id| counts.contains_key(&id));
        if done || begin.elapsed() > Duration::from_secs(config.patience) {
            break counts;
        }
        eprintln!("chaos: {} of {} records had their effect", counts.len(), sent.records);
    };
    let settled_in = begin.elapsed();
    let letters = pipeline.stack().s3().list_objects_v2().bucket(DEAD_LETTERS).send().await?;
    Ok(Verdict {
        sent,
        kills,
        reshards,
        missing: (0..sent.records).filter(|id| !counts.contains_key(id)).collect(),
        repeated: counts.iter().filter(|(_, n)| **n > 1).map(|(id, n)| (*id, *n)).collect(),
        strange: counts.keys().copied().filter(|id| *id >= sent.records).collect(),
        dead_letters: letters.key_count().and_then(|count| usize::try_from(count).ok()).unwrap_or(0),
        settled_in,
    })
}
