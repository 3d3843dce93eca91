//! What a worker does about the leases it sees: a pure function of a view.
//!
//! Every worker decides for itself; there is no leader. Nothing here is trusted for safety except the rule
//! that parents come before children: two workers that decide to claim the same lease meet at the
//! conditional write, and one of them loses.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use headworks_record::ShardId;

use super::liveness::{Life, Liveness};
use super::model::Lease;

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
    let fair = claimable.iter().zip(held + 1..).take_while(|(_, count)| load.may_hold(*count));
    actions.extend(fair.map(|(lease, _)| Action::Claim(lease.shard.clone())));

    if claimable.is_empty() && left.is_empty() && view.stopping.is_empty() && load.should_shed(view.me) {
        // One at a time: the next is shed when this one has found its new owner.
        let mine = due.iter().filter(|lease| view.running.contains(&lease.shard) && mine(lease));
        if let Some(lease) = mine.max_by_key(|lease| rendezvous(view.me, &lease.shard)) {
            actions.push(Action::Release(lease.shard.clone()));
        }
    }
    actions
}

/// Who holds how many of the leases that can be read now.
struct Load<'a> {
    mine: usize,
    /// Live workers other than this one; those whose heartbeat has not been seen to move are marked.
    others: HashMap<&'a str, (usize, Life)>,
    total: usize,
}

impl<'a> Load<'a> {
    fn of(view: &View<'a>, due: &[&'a Lease]) -> Self {
        let mut others: HashMap<&str, (usize, Life)> = view
            .liveness
            .living()
            .filter(|(worker, _)| *worker != view.me)
            .map(|(worker, life)| (worker, (0, life)))
            .collect();
        for lease in due {
            let Some(owner) = lease.owner.as_deref().filter(|owner| *owner != view.me) else { continue };
            if view.liveness.is_abandoned(lease) {
                continue;
            }
            others.entry(owner).or_insert((0, Life::Alive)).0 += 1;
        }
        // Shards that are being stopped still count: they are released only at the end.
        let mine = view.running.len();
        Self { mine, others, total: due.len() }
    }

    fn workers(&self) -> usize {
        self.others.len() + 1
    }

    /// Whether this worker's fair share allows so many leases.
    fn may_hold(&self, count: usize) -> bool {
        let floor = self.total / self.workers();
        let extras = self.total % self.workers();
        let taken = self.others.values().filter(|(held, _)| *held > floor).count();
        count <= floor || (count == floor + 1 && taken < extras)
    }

    /// Whether this worker is the one that should give up a lease to a worker that has at least two fewer.
    ///
    /// Only the most loaded does, and among equals the first by name, so that a lease moves at a time.
    fn should_shed(&self, me: &str) -> bool {
        let lightest =
            self.others.values().filter(|(_, life)| *life == Life::Alive).map(|(held, _)| *held).min();
        let heaviest = self.others.iter().all(|(worker, (held, _))| (self.mine, *worker) > (*held, me));
        lightest.is_some_and(|lightest| self.mine >= lightest + 2) && heaviest
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

    fn alone(leases: &Leases) -> Vec<Action> {
        let liveness = Liveness::new(TAKE_OVER, TAKE_OVER);
        let none = BTreeSet::new();
        decide(&View { me: "me", leases, running: &none, stopping: &none, liveness: &liveness })
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
        let (running, none) = (BTreeSet::from([ShardId::from("a")]), BTreeSet::new());
        let view =
            View { me: "me", leases: &leases, running: &running, stopping: &none, liveness: &liveness };
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
            });
            Self { now: Instant::now(), workers: workers.collect(), leases }
        }

        fn beats(&self) -> Vec<Beat> {
            let beat = |worker: &Worker| Beat {
                worker: worker.name.clone(),
                incarnation: String::new(),
                counter: worker.counter,
                changes: 0,
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
            let worker = &self.workers[i];
            let none = BTreeSet::new();
            let actions = decide(&View {
                me: &worker.name,
                leases: &worker.seen,
                running: &worker.running,
                stopping: &none,
                liveness: &worker.liveness,
            });
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
    }
}
