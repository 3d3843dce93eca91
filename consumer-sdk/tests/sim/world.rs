//! What all workers of a run share: the tables, the stream, the judge, the trace, and the faults.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep, sleep_until};

use crate::judge::{Judge, Life};
use crate::store::Tables;
use crate::stream::Stream;
use crate::trace::Trace;

/// How bad the network is. Chances are in per mille.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// A call fails before anything is done.
    pub refused: u32,
    /// A call is done and its answer never comes.
    pub lost: u32,
    /// A call is done twice, the second time up to three seconds later.
    pub twice: u32,
    /// A call takes up to three seconds on its way there or back.
    pub slow: u32,
    /// Reads of the heartbeats come, for up to three seconds, from a replica that stands still.
    pub stale: u32,
    /// A subscription breaks, or falls silent, within seconds.
    pub broken_subscription: u32,
    /// A handler fails.
    pub handler_fails: u32,
    /// A handler takes up to four seconds.
    pub handler_slow: u32,
}

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Broken {
    #[default]
    Nothing,
    /// Checkpoints are written whoever has the lease.
    CheckpointCondition,
    /// Claims succeed whatever the claimer saw.
    ClaimCondition,
    /// Leases do not tell their parents.
    ParentRule,
    /// Handlers say that they are done before they are.
    DoneBeforeHandled,
    /// A heartbeat that nobody got counts as renewed: delivery goes on longer than the take-over takes.
    FenceTooLong,
    /// The death of a worker is concluded from stale reads.
    StaleDeaths,
    /// The leases of children are not written.
    NoChildren,
}

#[derive(Debug)]
pub struct World {
    pub tables: Tables,
    pub stream: Stream,
    pub judge: Judge,
    pub trace: Trace,
    pub faults: Faults,
}

#[derive(Debug, Clone)]
pub struct Shared {
    world: Arc<Mutex<World>>,
    pub started: Instant,
    pub broken: Broken,
}

impl Shared {
    pub fn new(faults: Faults, broken: Broken) -> Self {
        let world = World {
            tables: Tables::default(),
            stream: Stream::default(),
            judge: Judge::default(),
            trace: Trace::default(),
            faults,
        };
        Self { world: Arc::new(Mutex::new(world)), started: Instant::now(), broken }
    }

    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn trace(&self, line: std::fmt::Arguments<'_>) {
        let now = self.now();
        self.lock().trace.add(now, line);
    }
}

/// How one life of a worker reaches the rest of the world, and what chance has in store for it.
#[derive(Debug, Clone)]
pub struct Line {
    pub life: Life,
    pub shared: Shared,
    rng: Arc<Mutex<StdRng>>,
    cut: Arc<Mutex<Cut>>,
    frozen: Arc<Mutex<Instant>>,
    lag: Arc<Mutex<Lag>>,
}

/// A replica that shows what was then, for a while.
#[derive(Debug, Clone, Copy)]
struct Lag {
    then: Instant,
    until: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Cut {
    until: Instant,
    streams_too: bool,
}

impl Line {
    pub fn new(life: Life, shared: Shared, seed: u64) -> Self {
        let shared_started = shared.started;
        let cut = Cut { until: shared.started, streams_too: false };
        Self {
            life,
            shared,
            rng: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
            cut: Arc::new(Mutex::new(cut)),
            frozen: Arc::new(Mutex::new(shared_started)),
            lag: Arc::new(Mutex::new(Lag { then: shared_started, until: shared_started })),
        }
    }

    pub fn cut(&self, span: Duration, streams_too: bool) {
        *self.cut.lock().unwrap() = Cut { until: Instant::now() + span, streams_too };
    }

    /// The process stands still for so long: it sends nothing, hears nothing, and works on nothing.
    pub fn freeze(&self, span: Duration) {
        *self.frozen.lock().unwrap() = Instant::now() + span;
    }

    /// Waits while the process stands still.
    pub async fn awake(&self) {
        loop {
            let until = *self.frozen.lock().unwrap();
            if Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
    }

    pub fn is_cut(&self) -> Option<Instant> {
        let until = self.cut.lock().unwrap().until;
        (Instant::now() < until).then_some(until)
    }

    pub fn is_cut_from_streams(&self) -> Option<Instant> {
        self.is_cut().filter(|_| self.cut.lock().unwrap().streams_too)
    }

    /// The moment that a read shows which need not be consistent.
    pub fn reads_as_of(&self) -> Instant {
        let now = Instant::now();
        let fresh = now >= self.lag.lock().unwrap().until;
        if fresh && self.happens(self.faults().stale) {
            let span = Duration::from_millis(self.draw(0..3_000));
            *self.lag.lock().unwrap() = Lag { then: now, until: now + span };
        }
        let lag = *self.lag.lock().unwrap();
        if now < lag.until { lag.then } else { now }
    }

    pub fn draw(&self, range: std::ops::Range<u64>) -> u64 {
        self.rng.lock().unwrap().random_range(range)
    }

    pub fn happens(&self, per_mille: u32) -> bool {
        per_mille > 0 && self.draw(0..1000) < u64::from(per_mille)
    }

    pub fn faults(&self) -> Faults {
        self.shared.lock().faults
    }

    /// One leg of a call.
    pub async fn leg(&self) {
        let slow = self.happens(self.faults().slow);
        let most = if slow { 3_000_000 } else { 8_000 };
        let delay = self.draw(500..most);
        sleep(Duration::from_micros(delay)).await;
    }
}
