//! What a worker does about the leases it sees: a pure function of a view.
//!
//! Every worker decides for itself; there is no leader. Nothing here is trusted for safety except the rule
//! that parents come before children: two workers that decide to claim the same lease meet at the
//! conditional write, and one of them loses.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use headworks_record::ShardId;

use super::liveness::{Life, Liveness};
use super::model::Lease;
use super::weight;

/// All leases, by shard.
pub(crate) type Leases = BTreeMap<ShardId, Lease>;

/// What a worker knows when it decides.
#[derive(Debug)]
pub(crate) struct View<'a> {
    /// This worker's id.
    pub(crate) me: &'a str,
    /// The leases as last read.
    pub(crate) leases: &'a Leases,
    /// The shards that are being read here; those that are being stopped included.
    pub(crate) running: &'a BTreeSet<ShardId>,
    /// The shards among them that are being stopped.
    pub(crate) stopping: &'a BTreeSet<ShardId>,
    /// Who is alive.
    pub(crate) liveness: &'a Liveness,
    /// Bytes/s of the shards that are read here.
    pub(crate) rates: &'a BTreeMap<ShardId, u64>,
    /// What was given up here a moment ago, so that another may have it.
    pub(crate) given: &'a BTreeSet<ShardId>,
    /// Whether the rates are worth acting on: nothing was given up for a while.
    pub(crate) settled: bool,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Claim the lease and begin to read the shard.
    Claim(ShardId),
    /// Finish what is in hand, checkpoint, and release the lease for another worker.
    Release(ShardId),
    /// The lease belongs to another worker: stop at once.
    Lose(ShardId),
}

/// Whether every parent of the shard has been read to its end.
///
/// A parent without a lease was finished and tidied away, or lies before the application's start:
/// `family` sees to it that no unfinished parent is ever missing.
pub(crate) fn parents_done(lease: &Lease, leases: &Leases) -> bool {
    lease.parents.iter().all(|parent| leases.get(parent).is_none_or(|parent| parent.checkpoint.is_end()))
}

/// Decides what to do now.
pub(crate) fn decide(view: &View<'_>) -> Vec<Action> {
    let mut actions = Vec::new();
    for shard in view.running.difference(view.stopping) {
        let owner = view.leases.get(shard).and_then(|lease| lease.owner.as_deref());
        if owner != Some(view.me) {
            actions.push(Action::Lose(shard.clone()));
        }
    }

    let due: Vec<&Lease> = view
        .leases
        .values()
        .filter(|lease| !lease.checkpoint.is_end() && parents_done(lease, view.leases))
        .collect();
    let mine = |lease: &Lease| lease.owner.as_deref() == Some(view.me);
    let (left, mut claimable): (Vec<&Lease>, Vec<&Lease>) = due
        .iter()
        .copied()
        .filter(|lease| !view.running.contains(&lease.shard))
        .filter(|lease| mine(lease) || view.liveness.is_abandoned(lease))
        .partition(|lease| mine(lease));
    let load = Load::of(view, &due);

    // What is left in this worker's name from an earlier life or era nobody else may claim: it is taken up
    // again even where it is more than a fair share, and then shed in good order.
    let held = load.mine + left.len();
    actions.extend(left.iter().map(|lease| Action::Claim(lease.shard.clone())));

    // Workers that see the same free leases reach for different ones first.
    claimable.sort_by_key(|lease| rendezvous(view.me, &lease.shard));
    let fair =
        claimable.iter().filter(|lease| !view.given.contains(&lease.shard)).zip(held + 1..).take_while(
            |(_, count)| load.may_hold(*count) || (*count == held + 1 && load.is_lightest(view.me)),
        );
    actions.extend(fair.map(|(lease, _)| Action::Claim(lease.shard.clone())));

    // One at a time: the next is shed when this one has found its new owner.
    if claimable.is_empty()
        && left.is_empty()
        && view.stopping.is_empty()
        && let Some(most) = load.may_shed(view.me, view.settled)
    {
        let weight = |lease: &Lease| load.idle + view.rates.get(&lease.shard).copied().unwrap_or(0);
        let mine = due.iter().filter(|lease| view.running.contains(&lease.shard) && mine(lease));
        let fitting = mine.filter(|lease| weight(lease) <= most);
        if let Some(lease) = fitting.max_by_key(|lease| (weight(lease), rendezvous(view.me, &lease.shard))) {
            actions.push(Action::Release(lease.shard.clone()));
        }
    }
    actions
}

/// What one worker has to do.
#[derive(Debug, Clone, Copy)]
struct Share {
    held: usize,
    /// Bytes/s of all of its shards.
    bytes: u64,
    life: Life,
}

/// Who holds how much of the leases that can be read now.
struct Load<'a> {
    mine: usize,
    bytes: u64,
    /// Live workers other than this one; those whose heartbeat has not been seen to move are marked.
    others: BTreeMap<&'a str, Share>,
    total: usize,
    /// What an idle lease weighs.
    idle: u64,
}

impl<'a> Load<'a> {
    fn of(view: &View<'a>, due: &[&'a Lease]) -> Self {
        let mut others: BTreeMap<&str, Share> = view
            .liveness
            .living()
            .filter(|(worker, ..)| *worker != view.me)
            .map(|(worker, life, bytes)| (worker, Share { held: 0, bytes, life }))
            .collect();
        for lease in due {
            let Some(owner) = lease.owner.as_deref().filter(|owner| *owner != view.me) else { continue };
            if view.liveness.is_abandoned(lease) {
                continue;
            }
            others.entry(owner).or_insert(Share { held: 0, bytes: 0, life: Life::Alive }).held += 1;
        }
        // Shards that are being stopped still count: they are released only at the end.
        let mine = view.running.len();
        let bytes = view.running.iter().filter_map(|shard| view.rates.get(shard)).sum();
        let all = bytes + others.values().map(|share| share.bytes).sum::<u64>();
        Self { mine, bytes, others, total: due.len(), idle: weight::idle(due.len(), all) }
    }

    fn workers(&self) -> usize {
        self.others.len() + 1
    }

    /// Whether this worker's fair share allows so many leases.
    fn may_hold(&self, count: usize) -> bool {
        let floor = self.total / self.workers();
        let extras = self.total % self.workers();
        let taken = self.others.values().filter(|share| share.held > floor).count();
        count <= floor || (count == floor + 1 && taken < extras)
    }

    fn weight(&self, share: &Share) -> u64 {
        share.bytes + share.held as u64 * self.idle
    }

    fn my_weight(&self) -> u64 {
        self.bytes + self.mine as u64 * self.idle
    }

    /// Whether this worker has the least to do; among equals the first by name.
    fn is_lightest(&self, me: &str) -> bool {
        let mine = self.my_weight();
        self.others.iter().all(|(worker, share)| (mine, me) < (self.weight(share), *worker))
    }

    /// The most that a lease may weigh which this worker gives up for the one with the least to do.
    ///
    /// Only the most loaded does, and among equals the first by name, so that a lease moves at a time. What
    /// moves is at most half the difference, less what rates vary by themselves: so the two do not change
    /// places, and no lease goes to and fro. For bytes alone nothing moves while an earlier move has not
    /// shown yet.
    fn may_shed(&self, me: &str, settled: bool) -> Option<u64> {
        let mine = self.my_weight();
        let alive = self.others.values().filter(|share| share.life == Life::Alive);
        let lightest = alive.min_by_key(|share| self.weight(share))?;
        let heaviest = self.others.iter().all(|(worker, share)| (mine, *worker) > (self.weight(share), me));
        let noise = (self.bytes + lightest.bytes) / 10;
        let most = mine.saturating_sub(self.weight(lightest)).saturating_sub(noise) / 2;
        (heaviest && most >= self.idle && (settled || self.mine >= lightest.held + 2)).then_some(most)
    }
}

/// A worker's own order of the shards.
fn rendezvous(worker: &str, shard: &ShardId) -> u64 {
    let mut hasher = DefaultHasher::new();
    (worker, shard.as_str()).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::*;
    use crate::lease::Beat;
    use crate::position::Checkpoint;

    const TAKE_OVER: Duration = Duration::from_secs(3);

    fn lease(shard: &str, parents: &[&str]) -> Lease {
        let mut lease = Lease::new(shard.into(), Checkpoint::TrimHorizon);
        lease.parents = parents.iter().map(|parent| ShardId::from(*parent)).collect();
        lease
    }

    fn table(leases: impl IntoIterator<Item = Lease>) -> Leases {
        leases.into_iter().map(|lease| (lease.shard.clone(), lease)).collect()
    }

    static NONE: BTreeSet<ShardId> = BTreeSet::new();
    static IDLE: BTreeMap<ShardId, u64> = BTreeMap::new();

    fn view<'a>(
        me: &'a str,
        leases: &'a Leases,
        running: &'a BTreeSet<ShardId>,
        liveness: &'a Liveness,
    ) -> View<'a> {
        View { me, leases, running, stopping: &NONE, liveness, rates: &IDLE, given: &NONE, settled: true }
    }

    fn alone(leases: &Leases) -> Vec<Action> {
        let liveness = Liveness::new(TAKE_OVER, TAKE_OVER);
        let none = BTreeSet::new();
        decide(&view("me", leases, &none, &liveness))
    }

    #[test]
    fn children_wait_for_all_of_their_parents() {
        let mut leases = table([lease("a", &[]), lease("b", &[]), lease("merged", &["a", "b"])]);
        let claimed = alone(&leases);
        assert!(!claimed.contains(&Action::Claim("merged".into())));
        assert_eq!(claimed.len(), 2);
        leases.get_mut(&ShardId::from("a")).unwrap().checkpoint = Checkpoint::ShardEnd;
        assert_eq!(alone(&leases), [Action::Claim("b".into())]);
        leases.get_mut(&ShardId::from("b")).unwrap().checkpoint = Checkpoint::ShardEnd;
        assert_eq!(alone(&leases), [Action::Claim("merged".into())]);
        leases.remove(&ShardId::from("a"));
        assert_eq!(alone(&leases), [Action::Claim("merged".into())], "a finished parent may be tidied away");
    }

    #[test]
    fn what_another_worker_took_is_lost() {
        let mut taken = lease("a", &[]);
        taken.owner = Some("other".to_owned());
        let leases = table([taken]);
        let liveness = Liveness::new(TAKE_OVER, TAKE_OVER);
        let running = BTreeSet::from([ShardId::from("a")]);
        let view = view("me", &leases, &running, &liveness);
        assert_eq!(decide(&view), [Action::Lose("a".into())]);
        let stopping = View { stopping: &running, ..view };
        assert_eq!(decide(&stopping), [], "it is being stopped already");
    }

    /// Workers around one table, as the coordinator would drive them.
    #[derive(Debug)]
    struct World {
        now: Instant,
        leases: Leases,
        workers: Vec<Worker>,
        /// Bytes/s of busy shards.
        rates: BTreeMap<ShardId, u64>,
        released: usize,
    }

    #[derive(Debug)]
    struct Worker {
        name: String,
        up: bool,
        counter: u64,
        running: BTreeSet<ShardId>,
        liveness: Liveness,
        // The view may be older than the table when the decision is carried out.
        seen: Leases,
        given: BTreeSet<ShardId>,
        gave: Instant,
    }

    impl World {
        fn new(shards: usize, workers: usize) -> Self {
            let leases = table((0..shards).map(|i| lease(&format!("s{i:02}"), &[])));
            let workers = (0..workers).map(|i| Worker {
                name: format!("w{i}"),
                up: true,
                counter: 0,
                running: BTreeSet::new(),
                liveness: Liveness::new(TAKE_OVER, TAKE_OVER),
                seen: leases.clone(),
                given: BTreeSet::new(),
                gave: Instant::now(),
            });
            let (rates, released) = (BTreeMap::new(), 0);
            Self { now: Instant::now(), workers: workers.collect(), leases, rates, released }
        }

        fn beats(&self) -> Vec<Beat> {
            let beat = |worker: &Worker| Beat {
                worker: worker.name.clone(),
                incarnation: String::new(),
                counter: worker.counter,
                changes: 0,
                load: worker.running.iter().map(|shard| self.rates.get(shard).copied().unwrap_or(0)).sum(),
            };
            self.workers.iter().filter(|worker| worker.counter > 0).map(beat).collect()
        }

        fn look(&mut self, i: usize) {
            let beats = self.beats();
            let worker = &mut self.workers[i];
            worker.seen = self.leases.clone();
            worker.liveness.observe(&beats, self.now, self.now);
            worker.liveness.observe_leases(self.leases.values(), self.now, self.now);
        }

        fn act(&mut self, i: usize) -> Result<usize, TestCaseError> {
            let worker = &mut self.workers[i];
            if self.now > worker.gave + TAKE_OVER {
                worker.given.clear();
            }
            let seen = view(&worker.name, &worker.seen, &worker.running, &worker.liveness);
            let actions = decide(&View { rates: &self.rates, given: &worker.given, ..seen });
            let name = worker.name.clone();
            for action in &actions {
                match action {
                    Action::Claim(shard) => {
                        let seen = self.workers[i].seen[shard].clone();
                        prop_assert!(!self.workers[i].running.contains(shard));
                        prop_assert!(parents_done(&seen, &self.leases), "{} before its parents", shard);
                        let owner_lives = |owner: &String| {
                            let owner = self.workers.iter().find(|w| w.name == *owner);
                            owner.is_some_and(|w| w.up && w.name != name)
                        };
                        prop_assert!(!seen.owner.as_ref().is_some_and(owner_lives), "{} was alive", shard);
                        let now = self.leases.get_mut(shard).unwrap();
                        if (&now.owner, now.counter) == (&seen.owner, seen.counter) {
                            now.owner = Some(name.clone());
                            now.counter += 1;
                            self.workers[i].running.insert(shard.clone());
                        }
                    }
                    Action::Release(shard) => {
                        let lease = self.leases.get_mut(shard).unwrap();
                        if lease.owner.as_ref() == Some(&name) {
                            lease.owner = None;
                            lease.counter += 1;
                        }
                        self.workers[i].running.remove(shard);
                        self.workers[i].given = BTreeSet::from([shard.clone()]);
                        self.workers[i].gave = self.now;
                        self.released += 1;
                    }
                    Action::Lose(shard) => {
                        self.workers[i].running.remove(shard);
                    }
                }
            }
            Ok(actions.len())
        }

        fn split(&mut self, shard: &ShardId) {
            let done = self.leases.get_mut(shard).unwrap();
            done.checkpoint = Checkpoint::ShardEnd;
            done.counter += 1;
            done.owner = None;
            for side in ["l", "r"] {
                let child = lease(&format!("{shard}{side}"), &[shard.as_str()]);
                self.leases.insert(child.shard.clone(), child);
            }
            self.workers.iter_mut().for_each(|worker| {
                worker.running.remove(shard);
            });
        }

        /// Lets everyone beat, look and act in turn until nobody does anything any more.
        fn settle(&mut self) -> Result<(), TestCaseError> {
            let mut quiet = 0;
            for _ in 0..2000 {
                self.now += Duration::from_millis(500);
                self.beat();
                let mut acted = 0;
                for i in 0..self.workers.len() {
                    if self.workers[i].up {
                        self.look(i);
                        acted += self.act(i)?;
                    }
                }
                quiet = if acted == 0 { quiet + 1 } else { 0 };
                if quiet > 10 {
                    return Ok(());
                }
            }
            Err(TestCaseError::fail("the workers never came to rest"))
        }

        fn beat(&mut self) {
            self.workers.iter_mut().filter(|worker| worker.up).for_each(|worker| worker.counter += 1);
        }
    }

    proptest! {
        #[test]
        fn every_lease_finds_an_owner_and_the_load_is_even(
            shards in 1usize..24,
            workers in 1usize..6,
            steps in proptest::collection::vec((0u8..7, any::<usize>()), 0..120),
        ) {
            let mut world = World::new(shards, workers);
            for (step, at) in steps {
                let i = at % workers;
                match step {
                    0 => world.now += Duration::from_millis(at as u64 % 700),
                    1 => world.beat(),
                    2 | 3 if world.workers[i].up => world.look(i),
                    // Everyone beats at least as often as half the take-over time, so nobody who is up
                    // may be taken for dead.
                    4 if world.workers[i].up => { world.beat(); world.act(i)?; }
                    5 if world.workers.iter().filter(|w| w.up).count() > 1 => {
                        world.workers[i].up = false;
                        world.workers[i].running.clear();
                    }
                    6 => {
                        let open = world.leases.values().filter(|l| !l.checkpoint.is_end());
                        let shard = open.map(|l| l.shard.clone()).nth(at % 3);
                        if let Some(shard) = shard.filter(|_| world.leases.len() < 60) {
                            world.split(&shard);
                        }
                    }
                    _ => {}
                }
                world.beat();
                for i in 0..workers {
                    let beats = world.beats();
                    let now = world.now;
                    world.workers[i].liveness.observe(&beats, now, now);
                }
            }
            world.settle()?;
            let up: Vec<&Worker> = world.workers.iter().filter(|worker| worker.up).collect();
            for lease in world.leases.values().filter(|lease| !lease.checkpoint.is_end()) {
                let readers = up.iter().filter(|worker| worker.running.contains(&lease.shard)).count();
                prop_assert_eq!(readers, 1, "{} has {} readers", lease.shard, readers);
            }
            let held = || up.iter().map(|worker| worker.running.len());
            prop_assert!(held().max().unwrap() - held().min().unwrap() <= 1, "uneven: {:?}", held().collect::<Vec<_>>());
        }

        #[test]
        fn busy_shards_are_spread_by_their_bytes_and_come_to_rest(
            rates in proptest::collection::vec(0u64..2_000_000, 1..20),
            workers in 1usize..5,
            busy in 1usize..4,
        ) {
            let mut world = World::new(rates.len(), workers);
            // Some shards are busy, the others idle.
            let shards = world.leases.keys().cloned().zip(rates);
            world.rates = shards.enumerate().filter(|(i, _)| i % busy == 0).map(|(_, rate)| rate).collect();
            world.settle()?;
            let leases = world.leases.len();
            prop_assert!(world.released <= 4 * leases, "{} moves of {} leases", world.released, leases);
            let bytes = |worker: &Worker| worker.running.iter().filter_map(|s| world.rates.get(s)).sum::<u64>();
            let all: u64 = world.workers.iter().map(bytes).sum();
            let idle = weight::idle(leases, all);
            let weight = |worker: &Worker| bytes(worker) + worker.running.len() as u64 * idle;
            let heaviest = world.workers.iter().max_by_key(|worker| weight(worker)).unwrap();
            let lightest = world.workers.iter().min_by_key(|worker| weight(worker)).unwrap();
            let rate = |shard: &ShardId| world.rates.get(shard).copied().unwrap_or(0);
            let smallest = heaviest.running.iter().map(|shard| rate(shard) + idle).min().unwrap_or(0);
            let noise = (bytes(heaviest) + bytes(lightest)) / 10;
            // Nothing is left that could be moved without the two changing places.
            prop_assert!(weight(heaviest) - weight(lightest) <= 2 * smallest + noise + 2);
        }
    }
}
