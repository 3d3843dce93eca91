//! What a router has done, readable at any time.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::report::{Counts, Pressure, Report};

/// What a router has done since it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Batches handled.
    pub batches: u64,
    /// Batches of which a part was handed back.
    pub failed_batches: u64,
    /// The sum over all batches.
    pub counts: Counts,
    /// By destination, those that ever refused something.
    pub destinations: BTreeMap<String, Pressed>,
    /// Route tables that took the place of another one.
    pub tables_loaded: u64,
    /// Route tables that were refused or could not be read, so that the one in force stayed.
    pub tables_refused: u64,
}

/// A destination that refused something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pressed {
    /// Puts that failed and were handed back.
    pub failed: u64,
    /// Puts that went to the dead letters because the rule's `spill-after` had passed.
    pub spilled: u64,
    /// How long the oldest record that it did not take in the last batch has been on the inbound stream; zero when
    /// it took everything.
    pub waiting: Duration,
}

/// The running sums.
#[derive(Debug, Default)]
pub(crate) struct Sums(Mutex<Stats>);

impl Sums {
    pub(crate) fn read(&self) -> Stats {
        self.lock().clone()
    }

    pub(crate) fn table(&self, taken: bool) {
        let mut stats = self.lock();
        if taken { stats.tables_loaded += 1 } else { stats.tables_refused += 1 }
    }

    pub(crate) fn add(&self, report: &Report) {
        let mut stats = self.lock();
        stats.batches += 1;
        stats.failed_batches += u64::from(report.failed.is_some());
        stats.counts += report.counts;
        for pressed in stats.destinations.values_mut() {
            pressed.waiting = Duration::ZERO;
        }
        for (stream, Pressure { failed, spilled, waiting }) in &report.pressure {
            let pressed = stats.destinations.entry(stream.clone()).or_default();
            pressed.failed += failed;
            pressed.spilled += spilled;
            pressed.waiting = *waiting;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Stats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        let Counts {
            kinesis_records,
            records,
            stored,
            skipped,
            dropped,
            foreign,
            damaged,
            misplaced,
            dead_letters,
            spilled,
            unenriched,
            failed,
        } = other;
        self.kinesis_records += kinesis_records;
        self.records += records;
        self.stored += stored;
        self.skipped += skipped;
        self.dropped += dropped;
        self.foreign += foreign;
        self.damaged += damaged;
        self.misplaced += misplaced;
        self.dead_letters += dead_letters;
        self.spilled += spilled;
        self.unenriched += unenriched;
        self.failed += failed;
    }
}
