//! The worker's main loop: looks at heartbeats and leases, claims and gives up shards, and drains.

use std::collections::{BTreeSet, HashMap};
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
use crate::lease::fence::Fence;
use crate::lease::heartbeat::Heartbeat;
use crate::lease::liveness::Liveness;
use crate::lease::machine::{self, Action, Leases, View, parents_done};
use crate::lease::{self, Lease, family};
use crate::position::{Checkpoint, Start};
use crate::shard::{Context, Held, Outcome, Session, Worker};
use crate::streams::ShardFilter;

/// Claims that are under way at the same time.
const CLAIMS_AT_ONCE: usize = 16;

/// Runs a consumer; `make` makes the delivery of a shard.
pub(crate) struct Coordinator<M> {
    context: Arc<Context>,
    make: M,
    leases: Leases,
    liveness: Liveness,
    fence: Fence,
    sessions: HashMap<ShardId, Session>,
    tasks: JoinSet<(ShardId, Outcome)>,
    next_scan: Instant,
    next_sync: Instant,
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
            sessions: HashMap::new(),
            tasks: JoinSet::new(),
            next_scan: now,
            next_sync: now,
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
        let limit = self.context.config.call_timeout;
        if let Ok(Err(error)) = timeout(limit, store.retire(&beat)).await {
            tracing::debug!(%error, "the heartbeat could not be removed; it expires by itself");
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
        if news || started >= self.next_scan {
            self.scan().await?;
        }
        if started >= self.next_sync {
            self.sync().await?;
        }
        self.publish();
        context.handover.tidy();

        // What was decided on an old observation is not carried out: meanwhile the owner may be back.
        let fresh = started.elapsed() < config.take_over_after / 2;
        if let Some(era) = era.filter(|_| fresh) {
            let actions = self.decide();
            self.act(actions, era).await?;
            self.publish();
        }
        Ok(())
    }

    async fn scan(&mut self) -> Result<(), Error> {
        let config = &self.context.config;
        let started = Instant::now();
        let leases = answered(config.call_timeout, self.context.store.leases()).await?;
        self.liveness.observe_leases(leases.iter(), started, Instant::now());
        self.leases = leases.into_iter().map(|lease| (lease.shard.clone(), lease)).collect();
        self.next_scan = Instant::now() + config.lease_scan_interval;
        Ok(())
    }

    /// Creates the leases that are missing: all of them at the first start.
    async fn sync(&mut self) -> Result<(), Error> {
        let context = self.context.clone();
        let failed = |error| context.stream_error(error);
        let shards = context.shards(ShardFilter::All).await.map_err(failed)?;
        if shards.iter().any(|shard| !self.leases.contains_key(&shard.id)) {
            let filter = match context.config.start {
                Start::TrimHorizon => ShardFilter::AtTrimHorizon,
                Start::Latest => ShardFilter::AtLatest,
                Start::AtTimestamp(time) => ShardFilter::AtTimestamp(time),
            };
            let initial = context.shards(filter).await.map_err(failed)?;
            let initial: BTreeSet<ShardId> = initial.into_iter().map(|shard| shard.id).collect();
            let missing = family::missing(&shards, &initial, &context.config.start, &self.leases);
            let created = !missing.is_empty();
            for lease in missing {
                if context.store.create(&lease).await? {
                    let checkpoint = lease.checkpoint.text();
                    tracing::info!(shard = %lease.shard, %checkpoint, "a lease was created");
                }
            }
            if created {
                self.scan().await?;
            }
        }
        // Not in step with the other workers: the service takes few control calls per second.
        let interval = context.config.shard_sync_interval;
        self.next_sync = Instant::now() + rand::random_range(interval / 2..=interval * 3 / 2);
        Ok(())
    }

    fn decide(&self) -> Vec<Action> {
        let running = self.sessions.keys().cloned().collect();
        let over = self.sessions.iter().filter(|(_, session)| session.is_over());
        let stopping = over.map(|(shard, _)| shard.clone()).collect();
        machine::decide(&View {
            me: &self.context.config.worker_id,
            leases: &self.leases,
            running: &running,
            stopping: &stopping,
            liveness: &self.liveness,
        })
    }

    async fn act(&mut self, actions: Vec<Action>, era: u64) -> Result<(), Error> {
        let mut claims = Vec::new();
        for action in actions {
            match action {
                Action::Claim(shard) => claims.extend(self.leases.get(&shard).cloned()),
                Action::Release(shard) => {
                    if let Some(session) = self.sessions.get(&shard) {
                        tracing::info!(%shard, "the lease is given up for a worker that has fewer");
                        session.stop();
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
        let (context, mut refused) = (self.context.clone(), false);
        let claimed: Vec<_> = stream::iter(claims)
            .map(|seen| {
                let context = context.clone();
                async move {
                    let call = context.store.claim(&seen, &context.config.worker_id);
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

    fn begin(&mut self, seen: &Lease, mut lease: Lease, era: u64) {
        let shard = lease.shard.clone();
        let from = seen.owner.as_deref().unwrap_or("nobody");
        tracing::info!(%shard, from, checkpoint = %lease.checkpoint.text(), "a lease was claimed");
        self.leases.insert(shard.clone(), lease.clone());
        if lease.checkpoint == Checkpoint::Latest
            && lease.parents.iter().any(|parent| self.leases.contains_key(parent))
        {
            // Two workers that started beside a reshard gave both generations a lease: where the parent is
            // read, all of its child comes after it.
            lease.checkpoint = Checkpoint::TrimHorizon;
        }
        let session = Session::new(shard.clone(), self.fence.clone(), era);
        self.sessions.insert(shard.clone(), session.clone());
        let gauge = self.context.handle.shard(&shard);
        let delivery = (self.make)(&shard, &gauge);
        let held = Held::new(self.context.clone(), lease, session, gauge);
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
        let mut unreleased: Vec<ShardId> = self.sessions.drain().map(|(shard, _)| shard).collect();
        unreleased.sort();
        for shard in &unreleased {
            tracing::warn!(%shard, "the lease could not be released in time; it will be taken over");
            self.context.handle.forget(shard);
        }
        unreleased
    }
}

async fn answered<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, lease::Error>>,
) -> Result<T, lease::Error> {
    timeout(limit, call).await.unwrap_or_else(|_| {
        Err(lease::Error::Unavailable {
            operation: "a request",
            table: "leases or heartbeats".to_owned(),
            reason: format!("no answer within {limit:?}"),
        })
    })
}
