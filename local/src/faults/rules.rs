//! The faults in force, and how often each has fired.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::sync::watch;

use super::error::FaultError;
use super::fault::{Action, Fault, Service, When};
use super::plan::{Injected, Plan, Target};
use crate::kinesis::sync::{read, write};

/// Names a fault in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FaultId(u64);

impl FaultId {
    pub(crate) fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// As the control port names it.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

/// What a fault has done so far.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Fired {
    /// Its name.
    pub id: FaultId,
    /// The fault.
    pub fault: Fault,
    /// How many occasions have matched its place.
    pub seen: u64,
    /// On how many of them it has happened.
    pub fired: u64,
}

/// The faults in force of a stack. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    rules: RwLock<Vec<Arc<Rule>>>,
    /// How many there are: all that calls look at when there are none.
    count: AtomicUsize,
    next: AtomicU64,
    changes: watch::Sender<()>,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            rules: RwLock::default(),
            count: AtomicUsize::new(0),
            next: AtomicU64::new(1),
            changes: watch::Sender::new(()),
        }
    }
}

/// A fault in force.
#[derive(Debug)]
pub(crate) struct Rule {
    id: FaultId,
    pub(crate) fault: Fault,
    seen: AtomicU64,
    fired: AtomicU64,
}

/// What becomes of an event of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventFault {
    Reset,
    Stall,
}

impl Faults {
    /// Puts a fault in force, from the next call on.
    ///
    /// # Errors
    /// [`FaultError`] when it can never happen.
    pub fn add(&self, fault: Fault) -> Result<FaultId, FaultError> {
        if let Err(reason) = fault.validate() {
            return Err(FaultError { fault: fault.to_string(), reason });
        }
        let id = FaultId(self.0.next.fetch_add(1, Ordering::Relaxed));
        tracing::info!(%fault, "a fault is in force");
        let rule = Rule { id, fault, seen: AtomicU64::new(0), fired: AtomicU64::new(0) };
        self.change(|rules| rules.push(Arc::new(rule)));
        Ok(id)
    }

    /// Takes a fault out of force and says what it has done; `None` when it is not in force.
    pub fn remove(&self, id: FaultId) -> Option<Fired> {
        let mut removed = None;
        self.change(|rules| {
            if let Some(at) = rules.iter().position(|rule| rule.id == id) {
                removed = Some(rules.remove(at).report());
            }
        });
        removed
    }

    /// Takes every fault out of force.
    pub fn clear(&self) {
        self.change(Vec::clear);
    }

    /// How often a fault has fired; 0 when it is not in force.
    #[must_use]
    pub fn fired(&self, id: FaultId) -> u64 {
        self.list().iter().find(|fired| fired.id == id).map_or(0, |fired| fired.fired)
    }

    /// All faults in force, oldest first, with what they have done.
    #[must_use]
    pub fn list(&self) -> Vec<Fired> {
        read(&self.0.rules).iter().map(|rule| rule.report()).collect()
    }

    fn change(&self, how: impl FnOnce(&mut Vec<Arc<Rule>>)) {
        {
            let mut rules = write(&self.0.rules);
            how(&mut rules);
            self.0.count.store(rules.len(), Ordering::Release);
        }
        self.0.changes.send_replace(());
    }

    /// Whether none is in force.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.count.load(Ordering::Acquire) == 0
    }

    /// Told whenever the faults in force change.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    fn matching(&self, wanted: impl Fn(&Fault) -> bool) -> Vec<Arc<Rule>> {
        if self.is_idle() {
            return Vec::new();
        }
        read(&self.0.rules).iter().filter(|rule| wanted(&rule.fault)).cloned().collect()
    }

    /// What becomes of a call.
    pub(crate) fn plan(&self, target: &Target) -> Plan {
        let rules = self.matching(|fault| {
            !fault.is_of_entries(&target.operation)
                && !fault.is_of_events(&target.operation)
                && fault.concerns(target.service, &target.operation, target.resource.as_deref())
                && target.matches(fault)
        });
        let mut plan = Plan::default();
        for rule in rules.iter().filter(|rule| rule.fires()) {
            plan.add(&rule.fault.action, target);
        }
        plan
    }

    /// The faults that decide on the entries of a put. Empty, without an allocation, when there are none.
    pub(crate) fn of_entries(&self, operation: &str, stream: &str) -> Vec<Arc<Rule>> {
        self.matching(|fault| {
            fault.is_of_entries(operation) && fault.concerns(Service::Kinesis, operation, Some(stream))
        })
    }

    /// What becomes of the next event of a subscription.
    pub(crate) fn event(&self, stream: &str, shard: &str) -> Option<EventFault> {
        const OPERATION: &str = "SubscribeToShard";
        let rules = self.matching(|fault| {
            fault.is_of_events(OPERATION)
                && fault.concerns(Service::Kinesis, OPERATION, Some(stream))
                && fault.takes_shard(shard)
        });
        // Each counts the occasion, whichever of them decides it.
        let fired: Vec<_> = rules.iter().filter(|rule| rule.fires()).collect();
        fired.first().map(|rule| match rule.fault.action {
            Action::Stall => EventFault::Stall,
            _ => EventFault::Reset,
        })
    }

    /// Whether the shard of a running subscription has an outage.
    pub(crate) fn outage(&self, stream: &str, shard: &str) -> bool {
        let rules = self.matching(|fault| {
            fault.action == Action::Outage
                && fault.concerns(Service::Kinesis, "SubscribeToShard", Some(stream))
                && fault.takes_shard(shard)
        });
        rules.iter().any(|rule| rule.fires())
    }
}

impl Rule {
    fn report(&self) -> Fired {
        Fired {
            id: self.id,
            fault: self.fault.clone(),
            seen: self.seen.load(Ordering::Relaxed),
            fired: self.fired.load(Ordering::Relaxed),
        }
    }

    /// Counts an occasion and decides on it.
    pub(crate) fn fires(&self) -> bool {
        let number = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        let decided = match self.fault.when {
            When::Always => true,
            When::Nth(n) => number == n,
            When::Every(n) => number.is_multiple_of(n),
            When::Probability { p, seed } => fraction(seed.wrapping_add(number)) < p,
        };
        if !decided {
            return false;
        }
        let most = self.fault.times.unwrap_or(u64::MAX);
        let counted = self
            .fired
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |fired| (fired < most).then(|| fired + 1));
        counted.is_ok()
    }

    /// Whether an entry of a put is refused, and how.
    pub(crate) fn entry(&self, shard: &str, key: &str) -> Option<Injected> {
        if !self.fault.takes_shard(shard) || !self.fault.takes_key(key) || !self.fires() {
            return None;
        }
        Some(match &self.fault.action {
            Action::Throttle => Injected::Throttled,
            Action::Error { code, status } => Injected::coded(code, *status),
            _ => Injected::coded("InternalFailure", None),
        })
    }
}

/// A number from 0 up to 1 that looks random: the finalizer of SplitMix64, so that a seed means the same in every
/// version of every library.
fn fraction(state: u64) -> f64 {
    let mut z = state.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 11) as f64 / (1u64 << 53) as f64
}

/// Sleeps, if there is anything to sleep.
pub(crate) async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decisions(fault: Fault, count: usize) -> Vec<bool> {
        let faults = Faults::default();
        faults.add(fault).unwrap();
        let rules = faults.matching(|_| true);
        (0..count).map(|_| rules[0].fires()).collect()
    }

    #[test]
    fn occasions_are_counted_from_one() {
        let on = || Fault::on("PutRecords", Action::Lost);
        assert_eq!(decisions(on().nth(3), 5), [false, false, true, false, false]);
        assert_eq!(decisions(Fault { when: When::Every(2), ..on() }, 5), [false, true, false, true, false]);
        assert_eq!(decisions(on().times(2), 4), [true, true, false, false]);
    }

    #[test]
    fn a_seed_decides_the_same_again_and_p_is_met() {
        let on = |seed| Fault::on("PutRecords", Action::Lost).probability(0.05, seed);
        let first = decisions(on(7), 20_000);
        assert_eq!(first, decisions(on(7), 20_000));
        assert_ne!(first, decisions(on(8_000_000), 20_000));
        let hits = first.iter().filter(|hit| **hit).count();
        assert!((800..1_200).contains(&hits), "{hits} of 20,000 at p=0.05");
        let never = decisions(Fault::on("PutRecords", Action::Lost).probability(0.0, 1), 1_000);
        assert!(!never.contains(&true));
        let always = decisions(Fault::on("PutRecords", Action::Lost).probability(1.0, 1), 1_000);
        assert!(!always.contains(&false));
    }

    #[test]
    fn faults_come_and_go_with_their_counts() {
        let faults = Faults::default();
        assert!(faults.is_idle());
        let id = faults.add(Fault::on("PutRecords", Action::Lost).nth(2)).unwrap();
        for _ in 0..3 {
            faults.matching(|_| true)[0].fires();
        }
        assert_eq!(faults.fired(id), 1);
        let fired = faults.remove(id).unwrap();
        assert_eq!((fired.seen, fired.fired), (3, 1));
        assert!(faults.is_idle() && faults.remove(id).is_none());
        let error = faults.add(Fault::on("PutRecrods", Action::Lost)).unwrap_err();
        assert_eq!(error.code(), "local-fault-invalid");
    }
}
