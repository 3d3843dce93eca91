//! The worker's main loop: looks at heartbeats and leases, claims and gives up shards, and drains.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use headworks_record::ShardId;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::consumer::Summary;
use crate::delivery::Delivery;
use crate::error::Error;
use crate::handle::{Phase, ShardGauge};
use crate::lease::family::Beginning;
use crate::lease::fence::Fence;
use crate::lease::heartbeat::Heartbeat;
use crate::lease::liveness::Liveness;
use crate::lease::machine::{self, Action, Leases, View, parents_done};
use crate::lease::weight::Meter;
use crate::lease::{self, Lease, answered, family};
use crate::position::{Checkpoint, SequenceNumber, Start};
use crate::shard::{Context, Held, Outcome, Session, Worker};
use crate::sources::{check_layout, named_starts};
use crate::streams::{ShardFilter, ShardInfo};

/// Claims that are under way at the same time.
const CLAIMS_AT_ONCE: usize = 16;

/// Leases that one look at the stream removes at most: nothing else waits for long.
const REMOVED_AT_ONCE: usize = 20;

/// While nothing changes, the leases are read less and less often, at last after so many intervals.
const CALM_INTERVALS: u32 = 5;

/// How long a worker waits after giving a lease up before it gives up another for its bytes: until the new
/// owner's load tells what that changed.
const GIVE_EVERY: Duration = Duration::from_secs(20);

/// Runs a consumer; `make` makes the delivery of a shard.
pub(crate) struct Coordinator<M> {
    context: Arc<Context>,
    make: M,
    leases: Leases,
    liveness: Liveness,
    fence: Fence,
    sessions: BTreeMap<ShardId, Session>,
    tasks: JoinSet<(ShardId, Outcome)>,
    next_scan: Instant,
    // How often in a row reading the leases told nothing new.
    calm: u32,
    next_sync: Instant,
    meter: Meter,
    // What was given up here, and when: it is another worker's turn.
    given: BTreeMap<ShardId, Instant>,
    // Where shards begin, as the stream last listed them.
    begins: BTreeMap<ShardId, SequenceNumber>,
}

impl<D: Delivery, M: Fn(&ShardId, &ShardGauge) -> D + Send> Coordinator<M> {
    pub(crate) fn new(context: Arc<Context>, make: M, sent: Instant) -> Self {
        let config = &context.config;
        let now = Instant::now();
        Self {
            make,
            leases: Leases::new(),
            liveness: Liveness::new(config.take_over_after, config.foreign_take_over_after),
            fence: Fence::new(config.deliver_for(), sent),
            sessions: BTreeMap::new(),
            tasks: JoinSet::new(),
            next_scan: now,
            calm: 0,
            next_sync: now,
            meter: Meter::new(now),
            given: BTreeMap::new(),
            begins: BTreeMap::new(),
            context,
        }
    }

    pub(crate) async fn run(
        mut self,
        heartbeat: Heartbeat,
        shutdown: CancellationToken,
    ) -> Result<Summary, Error> {
        let (store, beat) = (heartbeat.store.clone(), heartbeat.beat());
        let mut beating = AbortOnDropHandle::new(tokio::spawn(heartbeat.run(self.fence.clone())));
        self.context.handle.enter(Phase::Running);
        let mut next_tick = Instant::now();
        let result = loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break Ok(()),
                ended = &mut beating => {
                    // It only returns with what cannot pass; a panic in it is no better.
                    let error = ended.map(Error::from).unwrap_or_else(|error| Error::Internal {
                        shard: "every shard".into(),
                        reason: error.to_string(),
                    });
                    // Delivery must not outlive the right to deliver.
                    self.sessions.values().for_each(Session::lose);
                    break Err(error);
                }
                Some(finished) = self.tasks.join_next() => {
                    if let Err(error) = self.finished(finished) {
                        break Err(error);
                    }
                }
                () = sleep_until(next_tick) => {
                    next_tick = Instant::now() + self.context.config.heartbeat_interval;
                    match self.tick().await {
                        Ok(()) => {
                            // A death is noticed when it is due, not up to an interval later.
                            if let Some(due) = self.liveness.next_death() {
                                let soonest = Instant::now() + self.context.config.heartbeat_interval / 10;
                                next_tick = next_tick.min(due.max(soonest));
                            }
                        }
                        Err(error) if error.is_retryable() => {
                            tracing::warn!(%error, "the leases cannot be looked at now");
                        }
                        Err(error) => break Err(error),
                    }
                }
            }
        };
        let unreleased = self.drain().await;
        drop(beating);
        // A worker that says goodbye need not be waited for.
        // Where leases are left in its name, its silence tells the others when to take them.
        if unreleased.is_empty() {
            let limit = self.context.config.call_timeout;
            if let Ok(Err(error)) = timeout(limit, store.retire(&beat)).await {
                tracing::debug!(%error, "the heartbeat could not be removed; it expires by itself");
            }
        }
        self.context.handle.enter(Phase::Stopped);
        let summary = Summary { status: self.context.handle.status(), unreleased };
        result.map(|()| summary)
    }

    async fn tick(&mut self) -> Result<(), Error> {
        let context = self.context.clone();
        let config = &context.config;
        let started = Instant::now();
        let beats = answered(config.call_timeout, context.store.beats()).await?;
        let others = beats.into_iter().filter(|beat| beat.worker != config.worker_id);
        let others: Vec<_> = others.collect();
        let news = self.liveness.observe(&others, started, Instant::now());

        // A session of an earlier era has no right to deliver any more, whether it noticed or not.
        let era = self.fence.era();
        for session in self.sessions.values() {
            session.admit();
        }
        if news {
            // It stays due where the read fails.
            self.next_scan = started;
        }
        if started >= self.next_scan {
            self.scan().await?;
        }
        if started >= self.next_sync {
            self.sync().await?;
        }
        self.publish();
        self.weigh();
        context.handover.tidy();

        if let Some(era) = era {
            let actions = self.decide();
            self.act(actions, era).await?;
            self.publish();
        }
        Ok(())
    }

    async fn scan(&mut self) -> Result<(), Error> {
        let config = &self.context.config;
        let started = Instant::now();
        let mut leases = answered(config.call_timeout, self.context.store.leases()).await?;
        check_layout(config, &leases)?;
        // Another worker, of an earlier or later version of the application, may read other streams as well.
        leases.retain(|lease| self.context.streams.has(&lease.shard));
        let others = leases.iter().filter(|lease| lease.owner.as_ref() != Some(&config.worker_id));
        self.liveness.observe_leases(others, started, Instant::now());
        let leases = leases.into_iter().map(|lease| (lease.shard.clone(), lease)).collect();
        self.calm = if is_calm(&self.leases, &leases) { self.calm + 1 } else { 0 };
        self.leases = leases;
        // Every change by a worker of ours is told through its heartbeat; an owner that has none is watched.
        let watched = self.liveness.has_foreign() || config.renew_leases_every.is_some();
        let interval = match watched {
            true => config.lease_scan_interval.min(config.foreign_take_over_after / 4),
            false => config.lease_scan_interval * self.calm.clamp(1, CALM_INTERVALS),
        };
        self.next_scan = Instant::now() + interval;
        Ok(())
    }

    /// Creates the leases that are missing: all of them at the first start.
    async fn sync(&mut self) -> Result<(), Error> {
        let context = self.context.clone();
        let failed = |error| context.stream_error(error);
        let shards = context.shards(ShardFilter::All).await.map_err(failed)?;
        let begins = shards.iter().filter_map(|shard| Some((shard.id.clone(), shard.begins.clone()?)));
        self.begins = begins.collect();
        if shards.iter().any(|shard| !self.leases.contains_key(&shard.id)) {
            let filter = match context.config.start {
                Start::TrimHorizon => ShardFilter::AtTrimHorizon,
                Start::Latest => ShardFilter::AtLatest,
                Start::AtTimestamp(time) => ShardFilter::AtTimestamp(time),
            };
            let open = context.shards(filter).await.map_err(failed)?;
            let open: BTreeSet<ShardId> = open.into_iter().map(|shard| shard.id).collect();
            let named = named_starts(&context.config, &shards, self.leases.is_empty())?;
            let beginning = Beginning::new(&shards, &open, &context.config.start, &named);
            let missing = family::missing(&shards, &beginning, &self.leases);
            let created = !missing.is_empty();
            for lease in missing {
                if answered(context.config.call_timeout, context.store.create(&lease)).await? {
                    let checkpoint = lease.checkpoint.text();
                    tracing::info!(shard = %lease.shard, %checkpoint, "a lease was created");
                }
            }
            if created {
                context.changes.add();
                self.scan().await?;
            }
        }
        self.tidy(&shards).await;
        // Not in step with the other workers: the service takes few control calls per second.
        let interval = context.config.shard_sync_interval;
        self.next_sync = Instant::now() + crate::random::range(interval / 2..=interval * 3 / 2);
        Ok(())
    }

    /// Removes the leases of shards that are long gone.
    async fn tidy(&mut self, shards: &[ShardInfo]) {
        let context = self.context.clone();
        for shard in family::outlived(shards, &self.leases).into_iter().take(REMOVED_AT_ONCE) {
            // Another worker may have been faster.
            let Some(seen) = self.leases.remove(&shard) else { continue };
            match answered(context.config.call_timeout, context.store.delete(&seen)).await {
                Ok(true) => {
                    tracing::info!(%shard, "the lease was removed: its shard was read to its end and has expired");
                }
                Ok(false) => {}
                // Whoever reads this may lack dynamodb:DeleteItem; a lease too many does no harm.
                Err(error) => return tracing::warn!(%shard, "a lease that is over was not removed: {error}"),
            }
        }
    }

    fn decide(&self) -> Vec<Action> {
        let running = self.sessions.keys().cloned().collect();
        let over = self.sessions.iter().filter(|(_, session)| session.is_over());
        let stopping = over.map(|(shard, _)| shard.clone()).collect();
        let given = self.given.iter().filter(|(_, at)| at.elapsed() < self.context.config.take_over_after);
        let given = given.map(|(shard, _)| shard.clone()).collect();
        machine::decide(&View {
            me: &self.context.config.worker_id,
            leases: &self.leases,
            running: &running,
            stopping: &stopping,
            liveness: &self.liveness,
            rates: self.meter.rates(),
            given: &given,
            settled: self.given.values().all(|at| at.elapsed() >= GIVE_EVERY),
        })
    }

    async fn act(&mut self, actions: Vec<Action>, era: u64) -> Result<(), Error> {
        let mut claims = Vec::new();
        for action in actions {
            match action {
                Action::Claim(shard) => claims.extend(self.leases.get(&shard).cloned()),
                Action::Release(shard) => {
                    if let Some(session) = self.sessions.get(&shard) {
                        tracing::info!(%shard, "the lease is given up for a worker that has less to do");
                        session.stop();
                        self.given.insert(shard, Instant::now());
                    }
                }
                Action::Lose(shard) => {
                    if let Some(session) = self.sessions.get(&shard) {
                        tracing::info!(%shard, "the lease is another worker's");
                        session.lose();
                    }
                }
            }
        }
        self.keep_claimable(&mut claims).await?;
        let (context, mut refused) = (self.context.clone(), false);
        let claimed: Vec<_> = stream::iter(claims)
            .map(|seen| {
                let context = context.clone();
                let unseen = seen.parents.iter().filter(|parent| !self.leases.contains_key(*parent));
                let unseen: Vec<ShardId> = unseen.cloned().collect();
                async move {
                    let call = claim(&context, &seen, &unseen);
                    let claimed = answered(context.config.call_timeout, call).await;
                    (seen, claimed)
                }
            })
            .buffer_unordered(CLAIMS_AT_ONCE)
            .collect()
            .await;
        for (seen, claimed) in claimed {
            match claimed {
                Ok(lease) => self.begin(&seen, lease, era),
                // Another worker was faster, or the answer got lost: the next look tells.
                Err(lease::Error::Conflict { .. }) => refused = true,
                Err(error) if error.is_retryable() => refused = true,
                Err(error) => return Err(error.into()),
            }
        }
        if refused {
            self.next_scan = Instant::now();
        }
        Ok(())
    }

    /// Drops the claims of leases whose owner is not dead by a consistent read of its heartbeat now, after
    /// the leases were read.
    async fn keep_claimable(&mut self, claims: &mut Vec<Lease>) -> Result<(), Error> {
        let context = self.context.clone();
        let (me, limit) = (&context.config.worker_id, context.config.call_timeout);
        let owners: BTreeSet<String> = claims.iter().filter_map(|lease| lease.owner.clone()).collect();
        for owner in owners.iter().filter(|owner| *owner != me) {
            // Of one that has no heartbeat the lease's own counter tells, which the claim compares.
            if !self.liveness.knows(owner) {
                continue;
            }
            let started = Instant::now();
            let beat = answered(limit, context.store.beat_of(owner)).await?;
            if !self.liveness.is_still_dead(owner, beat.as_ref(), started, Instant::now()) {
                tracing::debug!(owner, "the owner of the leases is back");
                claims.retain(|lease| lease.owner.as_ref() != Some(owner));
            }
        }
        Ok(())
    }

    fn begin(&mut self, seen: &Lease, mut lease: Lease, era: u64) {
        let shard = lease.shard.clone();
        let from = seen.owner.as_deref().unwrap_or("nobody");
        tracing::info!(%shard, from, checkpoint = %lease.checkpoint.text(), "a lease was claimed");
        if seen.owner.as_ref().is_some_and(|owner| *owner != self.context.config.worker_id) {
            self.context.handle.took_over();
        }
        self.leases.insert(shard.clone(), lease.clone());
        if lease.checkpoint == Checkpoint::Latest
            && lease.parents.iter().any(|parent| self.leases.contains_key(parent))
        {
            // Two workers that started beside a reshard gave both generations a lease: where the parent is
            // read, all of its child comes after it.
            lease.checkpoint = Checkpoint::TrimHorizon;
        }
        let follows = lease.parents.iter().any(|parent| self.leases.contains_key(parent));
        // One that the last look at the stream did not list is too young to have lost anything.
        let begins = self.begins.get(&shard).filter(|_| follows).cloned();
        self.meter.expect(&shard, lease.throughput.unwrap_or(0));
        let session = Session::new(shard.clone(), self.fence.clone(), era);
        self.sessions.insert(shard.clone(), session.clone());
        let gauge = self.context.handle.shard(&shard);
        let delivery = (self.make)(&shard, &gauge);
        let held = Held::new(self.context.clone(), lease, session, gauge, begins);
        let worker = Worker::new(held, delivery);
        self.tasks.spawn(async move {
            let outcome = AssertUnwindSafe(worker.run()).catch_unwind().await;
            let outcome = outcome.unwrap_or_else(|_| {
                let reason = "it panicked".to_owned();
                Outcome::Failed(Error::Internal { shard: shard.clone(), reason })
            });
            (shard, outcome)
        });
        self.context.changes.add();
    }

    fn finished(&mut self, joined: Result<(ShardId, Outcome), tokio::task::JoinError>) -> Result<(), Error> {
        // Tasks catch their panics, and are aborted only after the loop.
        let Ok((shard, outcome)) = joined else { return Ok(()) };
        self.sessions.remove(&shard);
        self.context.handle.forget(&shard);
        self.next_scan = Instant::now();
        match outcome {
            Outcome::Ended => {
                tracing::info!(%shard, "the shard was read to its end");
                self.context.changes.add();
            }
            Outcome::Released => {
                tracing::info!(%shard, "the lease was released");
                self.context.changes.add();
            }
            Outcome::Lost => tracing::info!(%shard, "the lease was lost"),
            Outcome::Failed(error) => return Err(error),
        }
        Ok(())
    }

    /// Measures what the shards bring, and tells the others.
    fn weigh(&mut self) {
        let totals = self.sessions.iter().map(|(shard, session)| (shard, session.bytes()));
        self.meter.measure(Instant::now(), totals);
        self.context.changes.set_load(self.meter.total());
        self.context.store.measured(self.meter.rates());
        self.given.retain(|_, at| at.elapsed() < GIVE_EVERY);
    }

    fn publish(&self) {
        let due: Vec<&Lease> = self
            .leases
            .values()
            .filter(|lease| !lease.checkpoint.is_end() && parents_done(lease, &self.leases))
            .collect();
        let mine = |lease: &Lease| lease.owner.as_deref() == Some(self.context.config.worker_id.as_str());
        let unowned = |lease: &Lease| match mine(lease) {
            true => !self.sessions.contains_key(&lease.shard),
            false => self.liveness.is_abandoned(lease),
        };
        let waiting = due.iter().filter(|lease| unowned(lease)).count();
        self.context.handle.leases(due.len(), waiting);
    }

    /// Finishes what is in hand; returns the shards whose lease could not be released in time.
    async fn drain(&mut self) -> Vec<ShardId> {
        self.context.handle.enter(Phase::Draining);
        self.sessions.values().for_each(Session::stop);
        let deadline = Instant::now() + self.context.config.drain_timeout;
        while let Ok(Some(joined)) = timeout_at(deadline, self.tasks.join_next()).await {
            if let Err(error) = self.finished(joined) {
                tracing::error!(%error, "another shard failed while draining");
            }
        }
        self.sessions.values().for_each(Session::lose);
        self.tasks.shutdown().await;
        let unreleased: Vec<ShardId> = std::mem::take(&mut self.sessions).into_keys().collect();
        for shard in &unreleased {
            tracing::warn!(%shard, "the lease could not be released in time; it will be taken over");
            self.context.handle.forget(shard);
        }
        unreleased
    }
}

/// Whether nothing has changed that anything is decided by.
fn is_calm(before: &Leases, now: &Leases) -> bool {
    let told = |lease: &Lease| (lease.owner.clone(), lease.checkpoint.is_end());
    before.len() == now.len()
        && now.iter().all(|(shard, lease)| before.get(shard).map(told) == Some(told(lease)))
}

/// Claims a lease, unless one of the parents that were not seen is there after all: a scan reads each item
/// at its own moment, so it may find a child and miss a parent that was created before it.
async fn claim(context: &Context, seen: &Lease, unseen: &[ShardId]) -> Result<Lease, lease::Error> {
    for parent in unseen {
        if context.store.lease(parent).await?.is_some_and(|parent| !parent.checkpoint.is_end()) {
            return Err(lease::Error::Conflict { shard: seen.shard.clone() });
        }
    }
    context.store.claim(seen, &context.config.worker_id).await
}
