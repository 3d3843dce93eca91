//! Which workers are alive, watched on this worker's own monotonic clock.
//!
//! No two clocks are ever compared. A worker is dead when two observations that lie at least the take-over
//! time apart saw the same counter. The time between is counted from the end of the first observation to
//! the beginning of the second, so that slow reads make a worker look alive, never dead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use headworks_record::ShardId;
use tokio::time::Instant;

use super::model::Lease;
use super::store::Beat;

/// What is known of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// Its counter was seen to move within the take-over time.
    Alive,
    /// It was first seen within the take-over time and has not moved yet: perhaps it vanished long ago.
    Unproven,
    /// Its counter has not moved for the take-over time.
    Dead,
}

#[derive(Debug, Clone)]
struct Seen {
    // A worker that comes back counts from one again.
    incarnation: String,
    counter: u64,
    changes: u64,
    load: u64,
    since: Instant,
    moved: bool,
    dead: bool,
}

impl Seen {
    fn life(&self) -> Life {
        match (self.dead, self.moved) {
            (true, _) => Life::Dead,
            (false, true) => Life::Alive,
            (false, false) => Life::Unproven,
        }
    }
}

/// What the heartbeats seen so far tell.
#[derive(Debug)]
pub(crate) struct Liveness {
    take_over_after: Duration,
    foreign_take_over_after: Duration,
    workers: BTreeMap<String, Seen>,
    foreign: BTreeMap<ShardId, (String, Seen)>,
}

impl Liveness {
    /// `foreign_take_over_after` is for owners that have no heartbeat item: workers of the KCL, which
    /// raise the counter of every lease instead, and more slowly.
    pub(crate) fn new(take_over_after: Duration, foreign_take_over_after: Duration) -> Self {
        Self { take_over_after, foreign_take_over_after, workers: BTreeMap::new(), foreign: BTreeMap::new() }
    }

    /// Takes in what was read between `started` and `finished`; tells whether a worker came, vanished,
    /// died, or asks others to look at the leases.
    pub(crate) fn observe(&mut self, beats: &[Beat], started: Instant, finished: Instant) -> bool {
        let mut news = false;
        for beat in beats {
            match self.workers.get_mut(&beat.worker) {
                None => {
                    news = true;
                    self.workers.insert(
                        beat.worker.clone(),
                        Seen {
                            incarnation: beat.incarnation.clone(),
                            counter: beat.counter,
                            changes: beat.changes,
                            load: beat.load,
                            since: finished,
                            moved: false,
                            dead: false,
                        },
                    );
                }
                Some(seen) => {
                    news |= seen.changes != beat.changes;
                    (seen.changes, seen.load) = (beat.changes, beat.load);
                    news |= step(seen, beat, started, finished, self.take_over_after);
                }
            }
        }
        let present: BTreeSet<&str> = beats.iter().map(|beat| beat.worker.as_str()).collect();
        let before = self.workers.len();
        // An item that is gone was retired by its worker, or expired long after its worker died.
        self.workers.retain(|worker, _| present.contains(worker.as_str()));
        news || self.workers.len() != before
    }

    /// Takes in one worker's beat, or its absence, read consistently between `started` and `finished`; tells
    /// whether its leases may be claimed as they were read before `started`.
    ///
    /// The beats of [`Liveness::observe`] may be old, and the leases may have been read after them. A worker
    /// that is dead by this read has no right to its leases, and must claim them anew after its next beat:
    /// that raises their counters, and a claim of what was read before fails.
    pub(crate) fn is_still_dead(
        &mut self,
        worker: &str,
        beat: Option<&Beat>,
        started: Instant,
        finished: Instant,
    ) -> bool {
        let Some(seen) = self.workers.get_mut(worker) else { return false };
        let Some(beat) = beat else { return seen.dead };
        step(seen, beat, started, finished, self.take_over_after);
        seen.dead
    }

    /// Whether leases belong to owners without a heartbeat.
    pub(crate) fn has_foreign(&self) -> bool {
        !self.foreign.is_empty()
    }

    /// Whether this worker has, or had, a heartbeat.
    pub(crate) fn knows(&self, worker: &str) -> bool {
        self.workers.contains_key(worker)
    }

    /// Takes in the leases of owners that have no heartbeat.
    pub(crate) fn observe_leases<'a>(
        &mut self,
        leases: impl Iterator<Item = &'a Lease>,
        started: Instant,
        finished: Instant,
    ) {
        let mut foreign = BTreeMap::new();
        for lease in leases {
            let Some(owner) = lease.owner.as_ref().filter(|owner| !self.workers.contains_key(*owner)) else {
                continue;
            };
            let seen = match self.foreign.remove(&lease.shard) {
                Some((before, mut seen)) if before == *owner => {
                    let beat = Beat {
                        worker: owner.clone(),
                        incarnation: String::new(),
                        counter: lease.counter,
                        changes: 0,
                        load: 0,
                    };
                    step(&mut seen, &beat, started, finished, self.foreign_take_over_after);
                    seen
                }
                _ => Seen {
                    incarnation: String::new(),
                    counter: lease.counter,
                    changes: 0,
                    load: 0,
                    since: finished,
                    moved: false,
                    dead: false,
                },
            };
            foreign.insert(lease.shard.clone(), (owner.clone(), seen));
        }
        self.foreign = foreign;
    }

    /// Whether the lease's owner is dead.
    pub(crate) fn is_abandoned(&self, lease: &Lease) -> bool {
        let Some(owner) = &lease.owner else { return true };
        match (self.workers.get(owner), self.foreign.get(&lease.shard)) {
            (Some(seen), _) => seen.life() == Life::Dead,
            (None, Some((before, seen))) => before == owner && seen.life() == Life::Dead,
            (None, None) => false,
        }
    }

    /// When the next worker will be dead if its counter does not move: the time for another look.
    pub(crate) fn next_death(&self) -> Option<Instant> {
        let silent = self.workers.values().filter(|seen| !seen.dead).map(|seen| seen.since);
        silent.min().map(|since| since + self.take_over_after)
    }

    /// The workers that are not dead, what is known of them, and their load in bytes/s.
    pub(crate) fn living(&self) -> impl Iterator<Item = (&str, Life, u64)> {
        self.workers
            .iter()
            .map(|(worker, seen)| (worker.as_str(), seen.life(), seen.load))
            .filter(|(_, life, _)| *life != Life::Dead)
    }
}

/// Compares a counter with what was seen before; tells whether this is the moment of death or of rising
/// from the dead.
fn step(seen: &mut Seen, beat: &Beat, started: Instant, finished: Instant, limit: Duration) -> bool {
    let was_dead = seen.dead;
    if beat.counter != seen.counter || beat.incarnation != seen.incarnation {
        seen.incarnation.clone_from(&beat.incarnation);
        (seen.counter, seen.since, seen.moved, seen.dead) = (beat.counter, finished, true, false);
    } else if started.saturating_duration_since(seen.since) >= limit {
        seen.dead = true;
    }
    seen.dead != was_dead
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Checkpoint;

    fn beat(worker: &str, counter: u64) -> Beat {
        Beat { worker: worker.to_owned(), incarnation: "i".to_owned(), counter, changes: 0, load: 0 }
    }

    fn owned(owner: &str, counter: u64) -> Lease {
        let mut lease = Lease::new("s".into(), Checkpoint::Latest);
        lease.owner = Some(owner.to_owned());
        lease.counter = counter;
        lease
    }

    const LIMIT: Duration = Duration::from_secs(3);
    const FOREIGN: Duration = Duration::from_secs(20);

    #[test]
    fn a_worker_is_dead_when_its_counter_stands_still_for_the_take_over_time() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut liveness = Liveness::new(LIMIT, FOREIGN);
        assert!(liveness.observe(&[beat("a", 1)], at(0), at(100)), "a newcomer is news");
        assert!(!liveness.observe(&[beat("a", 1)], at(3_050), at(3_060)), "3 s count from the read's end");
        assert!(!liveness.is_abandoned(&owned("a", 1)));
        assert_eq!(liveness.next_death(), Some(at(3_100)));
        assert!(liveness.observe(&[beat("a", 1)], at(3_100), at(3_110)), "a death is news");
        assert!(liveness.is_abandoned(&owned("a", 1)));
        assert_eq!(liveness.next_death(), None);
        assert!(liveness.observe(&[beat("a", 2)], at(3_200), at(3_210)), "and so is a return");
        assert!(!liveness.is_abandoned(&owned("a", 1)));
        assert_eq!(liveness.living().collect::<Vec<_>>(), [("a", Life::Alive, 0)]);
    }

    #[test]
    fn a_death_by_an_old_read_does_not_outlast_a_new_one() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut liveness = Liveness::new(LIMIT, FOREIGN);
        liveness.observe(&[beat("a", 1)], at(0), at(0));
        liveness.observe(&[beat("a", 1)], at(3_000), at(3_001));
        assert!(liveness.is_still_dead("a", Some(&beat("a", 1)), at(3_002), at(3_003)));
        assert!(liveness.is_still_dead("a", None, at(3_002), at(3_003)), "it said goodbye");
        let reborn = Beat { incarnation: "ii".to_owned(), ..beat("a", 1) };
        assert!(!liveness.is_still_dead("a", Some(&reborn), at(3_002), at(3_003)));
        assert!(!liveness.is_abandoned(&owned("a", 1)));
        assert!(!liveness.is_still_dead("nobody", None, at(3_002), at(3_003)));
    }

    #[test]
    fn an_observer_that_could_not_read_takes_nobody_for_dead() {
        let start = Instant::now();
        let mut liveness = Liveness::new(LIMIT, FOREIGN);
        liveness.observe(&[beat("a", 1)], start, start);
        let later = start + Duration::from_secs(60);
        liveness.observe(&[beat("a", 40)], later, later);
        assert!(!liveness.is_abandoned(&owned("a", 1)));
    }

    #[test]
    fn owners_without_heartbeat_are_watched_by_their_lease() {
        let start = Instant::now();
        let mut liveness = Liveness::new(LIMIT, FOREIGN);
        let mut see = |counter, secs| {
            let at = start + Duration::from_secs(secs);
            let lease = owned("kcl", counter);
            liveness.observe_leases([&lease].into_iter(), at, at);
            liveness.is_abandoned(&lease)
        };
        assert!(!see(1, 0));
        assert!(!see(2, 19));
        assert!(!see(2, 38));
        assert!(see(2, 39));
    }
}
