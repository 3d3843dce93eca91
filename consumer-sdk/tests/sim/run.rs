//! One run: a seed makes the cluster, the load and everything that goes wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use headworks_consumer::{Batch, Config, Consumer, Handler, HandlerError, HandlerRetry};
use headworks_record::ShardId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::judge::Life;
use crate::store::SimStore;
use crate::stream::{SimStreams, number, work};
use crate::world::{Broken, Faults, Line, Shared};

/// How long things go wrong.
const TROUBLE: Duration = Duration::from_secs(30);
/// How long everything may take to be well again.
const RECOVERY: Duration = Duration::from_secs(120);
/// What was even by chance while a lease was on its way may be put right for so long.
const SETTLED: Duration = Duration::from_secs(10);
/// How long nothing may happen after that.
const QUIET: Duration = Duration::from_secs(15);

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    pub seed: u64,
    pub hash: u64,
    pub violation: Option<String>,
    pub lines: Vec<String>,
    pub claims: u32,
}

/// Workers whose clocks run up to this much too fast or too slow, in per mille.
const SKEW: u32 = 100;

struct Sim {
    shared: Shared,
    rng: StdRng,
    shape: Shape,
    running: BTreeMap<String, Running>,
    lives: BTreeMap<String, u32>,
    leaving: Vec<Running>,
}

/// What all of a run's consumers have in common.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// Workers come and go in good order, and nothing else goes wrong: no record is repeated.
    gentle: bool,
    dedup: bool,
    /// Some shards bring much more than others: leases are balanced by bytes, not by their number.
    busy: bool,
    workers: u32,
    checkpoint_interval: Duration,
    /// As in a fleet with workers of the KCL: each lease is renewed.
    renewed: bool,
}

struct Running {
    line: Line,
    task: JoinHandle<Result<headworks_consumer::Summary, headworks_consumer::Error>>,
    shutdown: CancellationToken,
}

/// Runs one seed on a runtime of its own, in time that nobody waits for.
pub fn run(seed: u64, broken: Broken) -> Report {
    headworks_consumer::random::seed_this_thread(Some(seed));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let report = runtime.unwrap().block_on(Sim::run(seed, broken));
    headworks_consumer::random::seed_this_thread(None);
    report
}

impl Sim {
    async fn run(seed: u64, broken: Broken) -> Report {
        let mut rng = StdRng::seed_from_u64(seed);
        // The last run of every five is gentle.
        let gentle = seed % 5 == 4;
        let mut chance = |most: u32| if rng.random_bool(0.5) { rng.random_range(0..most) } else { 0 };
        let faults = Faults {
            refused: chance(150),
            lost: chance(60),
            twice: chance(150),
            slow: chance(80),
            stale: chance(300),
            broken_subscription: chance(500),
            handler_fails: chance(200),
            handler_slow: chance(150),
        };
        let faults = match gentle {
            true => Faults { handler_slow: faults.handler_slow, stale: faults.stale, ..Faults::default() },
            false => faults,
        };
        let shape = Shape {
            gentle,
            dedup: rng.random_bool(0.3),
            busy: rng.random_bool(0.3),
            workers: rng.random_range(1..=4),
            checkpoint_interval: Duration::from_millis(rng.random_range(0..3) * 500),
            renewed: rng.random_bool(0.2),
        };
        let shared = Shared::new(faults, broken);
        let shards = rng.random_range(1..=5);
        shared.lock().add_shards(shards);
        let (running, lives) = (BTreeMap::new(), BTreeMap::new());
        let mut sim = Self { shared, rng, shape, running, lives, leaving: vec![] };
        let violation = sim.story().await.err();
        for running in std::mem::take(&mut sim.running).into_values().chain(sim.leaving.drain(..)) {
            running.task.abort();
        }
        let world = sim.shared.lock();
        Report {
            seed,
            hash: world.trace.hash(),
            violation,
            lines: world.trace.lines().to_vec(),
            claims: world.judge.claims,
        }
    }

    async fn story(&mut self) -> Result<(), String> {
        for i in 0..self.shape.workers {
            if i == 0 || self.rng.random_bool(0.7) {
                self.start(&format!("w{i}"));
            }
        }
        while self.shared.now() < TROUBLE {
            sleep(Duration::from_millis(self.rng.random_range(20..400))).await;
            self.load();
            self.expire();
            if self.rng.random_bool(0.12) {
                self.trouble().await;
            }
            self.check()?;
        }
        self.shared.lock().faults = Faults::default();
        self.shared.trace(format_args!("-- the faults are over"));
        self.bring_back();
        self.recovery().await?;
        self.quiet().await
    }

    fn check(&self) -> Result<(), String> {
        self.shared.lock().judge.violation.clone().map_or(Ok(()), Err)
    }

    /// Every record is finished and every shard held, within a time, and evenly.
    async fn recovery(&mut self) -> Result<(), String> {
        let began = self.shared.now();
        loop {
            sleep(Duration::from_millis(500)).await;
            self.bring_back();
            self.expire();
            self.check()?;
            if self.shape.busy && self.shared.now() < began + RECOVERY - Duration::from_secs(3) {
                self.load();
            }
            let alive: BTreeSet<Life> =
                self.running.values().map(|running| running.line.life.clone()).collect();
            let (unfinished, held) = {
                let world = self.shared.lock();
                (world.judge.unfinished(&alive), world.judge.held(&alive))
            };
            let uneven =
                !self.shape.busy && held.iter().max() > held.iter().min().map(|least| least + 1).as_ref();
            match unfinished {
                // Bytes are given time to tell.
                None if self.shape.busy && self.shared.now() < began + RECOVERY => {}
                None if !uneven => return Ok(()),
                _ if self.shared.now() < began + RECOVERY => {}
                Some(what) => return Err(format!("not well again within {RECOVERY:?}: {what}")),
                None => return Err(format!("not even within {RECOVERY:?}: {held:?}")),
            }
        }
    }

    /// Then nobody takes anything from anybody.
    async fn quiet(&mut self) -> Result<(), String> {
        let began = self.shared.now();
        let mut before = 0;
        while self.shared.now() < began + SETTLED + QUIET {
            sleep(Duration::from_millis(500)).await;
            self.load();
            self.check()?;
            if self.shared.now() < began + SETTLED {
                before = self.shared.lock().judge.claims;
            }
        }
        let judge = &self.shared.lock().judge;
        if judge.claims > before {
            return Err(format!("{} leases changed hands although all was well", judge.claims - before));
        }
        if self.shape.gentle && judge.repeats > 0 {
            return Err(format!("{} records were repeated by graceful hand-overs", judge.repeats));
        }
        Ok(())
    }

    fn expire(&self) {
        let now = self.shared.now();
        self.shared.lock().expire(now);
    }

    fn load(&mut self) {
        let now = self.shared.now().as_millis() as u64;
        let mut world = self.shared.lock();
        let open = world.open_shards();
        for _ in 0..self.rng.random_range(0..4) {
            let shard = &open[self.rng.random_range(0..open.len())];
            world.put(shard, now, 10);
        }
        for shard in open.iter().step_by(3).filter(|_| self.shape.busy) {
            world.put(shard, now, 20_000);
        }
    }

    async fn trouble(&mut self) {
        let name = format!("w{}", self.rng.random_range(0..self.shape.workers));
        let what = self.rng.random_range(0..100);
        match what {
            0..20 if !self.running.contains_key(&name) => self.start(&name),
            0..20 if self.shape.gentle => self.leave(&name),
            0..20 => self.kill(&name).await,
            20..35 => match self.running.contains_key(&name) {
                true => self.leave(&name),
                false => self.start(&name),
            },
            35..60 if !self.shape.gentle => {
                let span = Duration::from_millis(self.rng.random_range(300..8_000));
                let streams_too = self.rng.random_bool(0.3);
                if let Some(running) = self.running.get(&name) {
                    self.shared.trace(format_args!("-- {name} is cut off for {span:?}"));
                    running.line.cut(span, streams_too);
                }
            }
            60..75 => self.reshard(true),
            75..84 => self.reshard(false),
            84..88 if !self.shape.gentle => {
                // Back at once under its name, while what it sent before is still on its way.
                self.kill(&name).await;
                self.start(&name);
            }
            88..93 if !self.shape.gentle => {
                let span = Duration::from_millis(self.rng.random_range(500..12_000));
                if let Some(running) = self.running.get(&name) {
                    self.shared.trace(format_args!("-- {name} stands still for {span:?}"));
                    running.line.freeze(span);
                }
            }
            93..98 => {
                self.reshard(true);
                self.reshard(true);
                self.reshard(false);
            }
            _ if self.running.is_empty() => self.start(&name),
            _ => {}
        }
    }

    fn reshard(&mut self, split: bool) {
        let mut world = self.shared.lock();
        let open = world.open_shards();
        let shard = open[self.rng.random_range(0..open.len())].clone();
        let children = match split {
            true if open.len() < 8 => world.split(&shard),
            true => vec![],
            false => world.merge(&shard).into_iter().collect(),
        };
        drop(world);
        self.shared.trace(format_args!("-- {shard} becomes {children:?}"));
    }

    fn start(&mut self, name: &str) {
        // A worker's id is unique while it runs: whoever is still leaving under it is hurried out.
        self.leaving.retain(|running| !running.task.is_finished());
        if self.shape.gentle && self.leaving.iter().any(|running| running.line.life.0 == name) {
            return;
        }
        self.leaving.retain(|running| {
            running.line.life.0 != name || {
                running.task.abort();
                false
            }
        });
        let life = self.lives.entry(name.to_owned()).or_default();
        *life += 1;
        let life = (name.to_owned(), *life);
        self.shared.trace(format_args!("-- {}.{} starts", life.0, life.1));
        let line = Line::new(life, self.shared.clone(), self.rng.random());
        // A clock that runs fast makes every span short.
        let pace = 1.0 + f64::from(self.rng.random_range(0..=2 * SKEW)) / 1000.0 - f64::from(SKEW) / 1000.0;
        let span = |ms: u64| Duration::from_millis((ms as f64 * pace) as u64);
        let mut config = Config::new("app", "orders");
        config.worker_id = name.to_owned();
        config.take_over_after = span(2_000);
        config.heartbeat_interval = span(450);
        config.foreign_take_over_after = span(20_000);
        // Nothing but thrift may rest on it.
        config.lease_scan_interval = span(self.rng.random_range(5_000..120_000));
        config.shard_sync_interval = span(10_000);
        config.call_timeout = span(3_000);
        config.inactivity_timeout = span(8_000);
        config.drain_timeout = span(6_000);
        config.startup_timeout = span(60_000);
        config.checkpoint_interval = self.shape.checkpoint_interval;
        config.renew_leases_every = self.shape.renewed.then(|| span(3_000));
        config.dedup_window = if self.shape.dedup { span(60_000) } else { Duration::ZERO };
        config.max_batch_records = 5;
        config.handler_retry = HandlerRetry { attempts: 1_000, ..HandlerRetry::default() };
        let consumer = headworks_consumer::Builder::new(config)
            .streams(Arc::new(SimStreams { line: line.clone() }))
            .lease_store(Arc::new(SimStore { line: line.clone() }))
            .build()
            .unwrap();
        let shutdown = CancellationToken::new();
        let task = spawn(consumer, line.clone(), shutdown.clone());
        self.running.insert(name.to_owned(), Running { line, task, shutdown });
    }

    async fn kill(&mut self, name: &str) {
        let Some(running) = self.running.remove(name) else { return };
        self.shared.trace(format_args!("-- {name} is killed"));
        running.task.abort();
        let _ = running.task.await;
    }

    fn leave(&mut self, name: &str) {
        let Some(running) = self.running.remove(name) else { return };
        self.shared.trace(format_args!("-- {name} leaves"));
        running.shutdown.cancel();
        self.leaving.push(running);
    }

    /// Whoever stopped with an error is started again, and there is always somebody.
    fn bring_back(&mut self) {
        let names: Vec<String> = self.running.keys().cloned().collect();
        for name in names {
            if self.running[&name].task.is_finished() {
                self.start(&name);
            }
        }
        if self.running.is_empty() {
            self.start("w0");
        }
    }
}

fn spawn(
    consumer: Consumer,
    line: Line,
    shutdown: CancellationToken,
) -> JoinHandle<Result<headworks_consumer::Summary, headworks_consumer::Error>> {
    tokio::spawn(async move {
        let of = line.clone();
        let factory = move |shard: &ShardId| SimHandler { line: of.clone(), shard: shard.clone() };
        let result = consumer.run(factory, shutdown).await;
        let end = result.as_ref().map(|summary| summary.unreleased.len()).map_err(|error| error.code());
        line.shared.trace(format_args!("-- {}.{} stops: {end:?}", line.life.0, line.life.1));
        result
    })
}

struct SimHandler {
    line: Line,
    shard: ShardId,
}

impl Handler for SimHandler {
    async fn handle(&mut self, batch: Batch) -> Result<(), HandlerError> {
        let records: Vec<u64> =
            batch.records().iter().map(|record| number(&record.sequence_number)).collect();
        let shared = &self.line.shared;
        shared.lock().judge.begins(&self.line.life, &self.shard, &records);
        let life = &self.line.life;
        shared.trace(format_args!("{}.{} begins {} {records:?}", life.0, life.1, self.shard));
        if shared.broken == Broken::DoneBeforeHandled {
            let (line, shard) = (self.line.clone(), self.shard.clone());
            tokio::spawn(async move {
                work(&line).await;
                line.shared.lock().judge.finished(&shard, &records);
            });
            return Ok(());
        }
        if !work(&self.line).await {
            return Err(HandlerError::new("chance wanted it"));
        }
        shared.lock().judge.finished(&self.shard, &records);
        shared.trace(format_args!("{}.{} finished {} {records:?}", life.0, life.1, self.shard));
        Ok(())
    }
}
