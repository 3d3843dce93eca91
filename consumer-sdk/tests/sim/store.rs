//! The lease table and the heartbeats, behind a network that delays, repeats and loses.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use async_trait::async_trait;
use headworks_consumer::Checkpoint;
use headworks_consumer::lease::{Beat, Error, Holding, Lease, LeaseStore};
use headworks_record::ShardId;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use crate::judge::Life;
use crate::world::{Broken, Line, World};

#[derive(Debug, Default)]
pub struct Tables {
    pub leases: BTreeMap<ShardId, Lease>,
    /// What each worker's item was since when, so that a read can be late.
    beats: BTreeMap<String, VecDeque<(Instant, Option<Beat>)>>,
}

impl Tables {
    fn beat(&self, worker: &str) -> Option<&Beat> {
        self.beats.get(worker)?.back()?.1.as_ref()
    }

    fn set_beat(&mut self, worker: &str, beat: Option<Beat>) {
        let log = self.beats.entry(worker.to_owned()).or_default();
        log.push_back((Instant::now(), beat));
        if log.len() > 32 {
            log.pop_front();
        }
    }

    fn beats_at(&self, at: Instant) -> Vec<Beat> {
        let then = |log: &VecDeque<(Instant, Option<Beat>)>| {
            log.iter().rev().find(|(since, _)| *since <= at).and_then(|(_, beat)| beat.clone())
        };
        self.beats.values().filter_map(then).collect()
    }
}

/// One worker's way to the tables.
#[derive(Debug, Clone)]
pub struct SimStore {
    pub line: Line,
}

fn unavailable(reason: &str) -> Error {
    Error::Unavailable { operation: "a call", table: "sim".to_owned(), reason: reason.to_owned() }
}

fn conflict(shard: &ShardId) -> Error {
    Error::Conflict { shard: shard.clone() }
}

impl SimStore {
    fn broken(&self, broken: Broken) -> bool {
        self.line.shared.broken == broken
    }

    /// A call over the network. What is under way goes on also where the caller stops waiting or dies.
    async fn call<T: Send + 'static>(
        &self,
        op: impl Fn(&mut World, Duration) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.line.awake().await;
        let (line, (answer, answered)) = (self.line.clone(), oneshot::channel());
        tokio::spawn(async move {
            let faults = line.faults();
            line.leg().await;
            if let Some(until) = line.is_cut() {
                if line.happens(500) {
                    return std::future::pending().await;
                }
                // It lies in some buffer and arrives when the line is back.
                sleep_until(until).await;
                line.leg().await;
            }
            if line.happens(faults.refused) {
                let _ = answer.send(Err(unavailable("refused")));
                return;
            }
            let result = {
                let now = line.shared.now();
                op(&mut line.shared.lock(), now)
            };
            if line.happens(faults.twice) {
                let (line, delay) = (line.clone(), line.draw(0..3_000));
                tokio::spawn(async move {
                    sleep(Duration::from_millis(delay)).await;
                    let now = line.shared.now();
                    let _ = op(&mut line.shared.lock(), now);
                });
            }
            line.leg().await;
            if line.is_cut().is_some() || line.happens(faults.lost) {
                return std::future::pending().await;
            }
            let _ = answer.send(result);
        });
        // A lost answer is waited for as long as the caller likes.
        let answered = answered.await;
        self.line.awake().await;
        match answered {
            Ok(result) => result,
            Err(_) => std::future::pending().await,
        }
    }
}

fn trace(world: &mut World, now: Duration, life: &Life, line: std::fmt::Arguments<'_>) {
    world.trace.add(now, format_args!("{}.{} {line}", life.0, life.1));
}

#[async_trait]
impl LeaseStore for SimStore {
    async fn prepare(&self) -> Result<(), Error> {
        self.call(|_, _| Ok(())).await
    }

    async fn leases(&self) -> Result<Vec<Lease>, Error> {
        // A scan is no snapshot: each item is read at its own moment, in no order that anyone knows.
        let parts = if self.line.happens(self.line.faults().slow * 5) { 3 } else { 1 };
        let turn = self.line.draw(0..parts) as usize;
        let mut found: BTreeMap<ShardId, Lease> = BTreeMap::new();
        for part in 0..parts as usize {
            let read = self.call(move |world, _| {
                let mine = |(i, _): &(usize, &Lease)| (i + turn) % parts as usize == part;
                Ok(world
                    .tables
                    .leases
                    .values()
                    .enumerate()
                    .filter(mine)
                    .map(|(_, l)| l.clone())
                    .collect::<Vec<_>>())
            });
            found.extend(read.await?.into_iter().map(|lease| (lease.shard.clone(), lease)));
        }
        let parents = !self.broken(Broken::ParentRule);
        Ok(found
            .into_values()
            .map(|mut lease| {
                lease.parents.retain(|_| parents);
                lease
            })
            .collect())
    }

    async fn lease(&self, shard: &ShardId) -> Result<Option<Lease>, Error> {
        let shard = shard.clone();
        self.call(move |world, _| Ok(world.tables.leases.get(&shard).cloned())).await
    }

    async fn create(&self, lease: &Lease) -> Result<bool, Error> {
        let (lease, life) = (lease.clone(), self.line.life.clone());
        let forgets = self.broken(Broken::NoChildren) && !lease.parents.is_empty();
        self.call(move |world, now| {
            let new = !world.tables.leases.contains_key(&lease.shard);
            if new && !forgets {
                trace(world, now, &life, format_args!("creates {}", lease.shard));
                world.judge.created(&lease.shard);
                world.tables.leases.insert(lease.shard.clone(), lease.clone());
            }
            Ok(new)
        })
        .await
    }

    async fn claim(&self, seen: &Lease, worker: &str) -> Result<Lease, Error> {
        let (mut seen, worker, life) = (seen.clone(), worker.to_owned(), self.line.life.clone());
        if self.broken(Broken::ParentRule) {
            seen.parents = self.line.shared.lock().tables.leases[&seen.shard].parents.clone();
        }
        let careless = self.broken(Broken::ClaimCondition);
        self.call(move |world, now| {
            let switched = seen.owner.as_ref() != Some(&worker);
            let claimed = Lease {
                owner: Some(worker.clone()),
                counter: seen.counter + 1,
                owner_switches: seen.owner_switches + u64::from(switched),
                ..seen.clone()
            };
            let lease = world.tables.leases.get_mut(&seen.shard).ok_or_else(|| conflict(&seen.shard))?;
            if careless || (&lease.owner, lease.counter) == (&seen.owner, seen.counter) {
                lease.owner.clone_from(&claimed.owner);
                lease.counter += 1;
                lease.owner_switches = claimed.owner_switches;
                let (shard, from) = (&seen.shard, seen.owner.as_deref().unwrap_or("nobody"));
                trace(world, now, &life, format_args!("claims {shard} from {from} #{}", claimed.counter));
                if careless {
                    world.judge.claimed(&seen.shard, &life, now);
                    return Ok(world.tables.leases[&seen.shard].clone());
                }
            } else if *lease != claimed {
                // As the table does where the answer to the very same write was lost.
                return Err(conflict(&seen.shard));
            } else if world.judge.is_of_a_later_life(&seen.shard, &life) {
                // What a dead life still had on its way changes nothing.
                return Ok(claimed);
            }
            world.judge.claimed(&seen.shard, &life, now);
            Ok(claimed)
        })
        .await
    }

    async fn checkpoint(
        &self,
        holding: &Holding,
        checkpoint: &Checkpoint,
        children: &[ShardId],
    ) -> Result<Holding, Error> {
        let (holding, checkpoint, children) = (holding.clone(), checkpoint.clone(), children.to_vec());
        let life = self.line.life.clone();
        let careless = self.broken(Broken::CheckpointCondition);
        self.call(move |world, now| {
            let next = Holding { counter: holding.counter + 1, ..holding.clone() };
            let shard = &holding.shard;
            let lease = world.tables.leases.get_mut(shard).ok_or_else(|| conflict(shard))?;
            if careless || lease.holding().as_ref() == Some(&holding) {
                lease.counter += 1;
                lease.owner_switches = 0;
                lease.checkpoint = checkpoint.clone();
                if !children.is_empty() {
                    lease.children.clone_from(&children);
                }
                let text = checkpoint.text();
                trace(world, now, &life, format_args!("checkpoints {shard} {text}/{}", checkpoint.sub()));
                world.judge.checkpointed(&life, shard, &checkpoint, now);
                return Ok(next);
            }
            match lease.holding().as_ref() == Some(&next) && lease.checkpoint == checkpoint {
                true => Ok(next),
                false => Err(conflict(shard)),
            }
        })
        .await
    }

    async fn renew(&self, holding: &Holding) -> Result<Holding, Error> {
        let (holding, life) = (holding.clone(), self.line.life.clone());
        self.call(move |world, now| {
            let next = Holding { counter: holding.counter + 1, ..holding.clone() };
            let shard = &holding.shard;
            let lease = world.tables.leases.get_mut(shard).ok_or_else(|| conflict(shard))?;
            if lease.holding().as_ref() == Some(&holding) {
                lease.counter += 1;
                trace(world, now, &life, format_args!("renews {shard}"));
                world.judge.renewed(&life, shard);
                return Ok(next);
            }
            match lease.holding().as_ref() == Some(&next) {
                true => Ok(next),
                false => Err(conflict(shard)),
            }
        })
        .await
    }

    async fn delete(&self, seen: &Lease) -> Result<bool, Error> {
        let (seen, life) = (seen.clone(), self.line.life.clone());
        self.call(move |world, now| {
            let shard = &seen.shard;
            let lease = world.tables.leases.get(shard);
            let unchanged = lease
                .is_some_and(|lease| (lease.counter, &lease.checkpoint) == (seen.counter, &seen.checkpoint));
            if unchanged {
                trace(world, now, &life, format_args!("removes {shard}"));
                world.judge.removed(shard);
                world.tables.leases.remove(shard);
            }
            Ok(unchanged)
        })
        .await
    }

    async fn release(&self, holding: &Holding) -> Result<(), Error> {
        let (holding, life) = (holding.clone(), self.line.life.clone());
        self.call(move |world, now| {
            let shard = &holding.shard;
            let lease = world.tables.leases.get_mut(shard).ok_or_else(|| conflict(shard))?;
            if lease.holding().as_ref() == Some(&holding) {
                lease.owner = None;
                lease.counter += 1;
                trace(world, now, &life, format_args!("releases {shard}"));
                world.judge.released(shard);
                return Ok(());
            }
            match lease.owner.as_ref() == Some(&holding.owner) {
                true => Err(conflict(shard)),
                false => Ok(()),
            }
        })
        .await
    }

    async fn beat(&self, beat: &Beat, first: bool) -> Result<(), Error> {
        if self.broken(Broken::FenceTooLong) && !first && self.line.is_cut().is_some() {
            return Ok(());
        }
        let beat = beat.clone();
        self.call(move |world, _| {
            let counter = match world.tables.beat(&beat.worker) {
                Some(before) if !first && before.incarnation != beat.incarnation => {
                    return Err(Error::WorkerTaken { worker: beat.worker.clone() });
                }
                Some(before) => before.counter + 1,
                None => 1,
            };
            world.tables.set_beat(&beat.worker, Some(Beat { counter, ..beat.clone() }));
            Ok(())
        })
        .await
    }

    async fn beats(&self) -> Result<Vec<Beat>, Error> {
        let (called, then) = (Instant::now(), self.line.reads_as_of());
        self.call(move |world, _| {
            // What is not old is as new as its arrival.
            Ok(world.tables.beats_at(if then < called { then } else { Instant::now() }))
        })
        .await
    }

    async fn beat_of(&self, worker: &str) -> Result<Option<Beat>, Error> {
        if self.broken(Broken::StaleDeaths) {
            return Ok(self.beats().await?.into_iter().find(|beat| beat.worker == worker));
        }
        let worker = worker.to_owned();
        self.call(move |world, _| Ok(world.tables.beat(&worker).cloned())).await
    }

    async fn retire(&self, beat: &Beat) -> Result<(), Error> {
        let beat = beat.clone();
        self.call(move |world, _| {
            if world.tables.beat(&beat.worker).is_some_and(|now| now.incarnation == beat.incarnation) {
                world.tables.set_beat(&beat.worker, None);
            }
            Ok(())
        })
        .await
    }
}
