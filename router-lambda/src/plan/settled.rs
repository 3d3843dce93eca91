//! What became of puts, and which destinations have all of a Kinesis record.

use std::collections::BTreeMap;

use super::{Plan, Slot};
use crate::trouble::Trouble;

/// What became of a put.
#[derive(Debug)]
pub(crate) struct Settled {
    /// The destination, by its place in the table.
    pub(crate) stream: usize,
    pub(crate) slot: Slot,
    pub(crate) outcome: Result<(), Trouble>,
}

impl Plan<'_> {
    /// By destination and Kinesis record, whether all of it that is for the destination has arrived.
    ///
    /// A dead letter has arrived if it is written, and if its record has no other destination: a later letter
    /// of the same record takes its place, and must name every reason.
    pub(crate) fn done(
        &self,
        settled: &[Settled],
        buried: impl Fn(Slot) -> bool,
    ) -> BTreeMap<(usize, usize), bool> {
        // How many destinations each poisoned record has; only those are counted.
        let mut poisoned: BTreeMap<Slot, usize> = BTreeMap::new();
        let bad = settled.iter().filter(|put| matches!(&put.outcome, Err(t) if t.is_poison()));
        poisoned.extend(bad.map(|put| (put.slot, 0)));
        let stored = settled.iter().map(|put| &put.slot);
        for slot in self.skipped.iter().map(|(_, slot)| slot).chain(stored) {
            if let Some(count) = poisoned.get_mut(slot) {
                *count += 1;
            }
        }
        let mut done = BTreeMap::new();
        for (stream, slot) in &self.skipped {
            done.insert((*stream, slot.record), true);
        }
        for Settled { stream, slot, outcome } in settled {
            let arrived = match outcome {
                Ok(()) => true,
                Err(trouble) => {
                    let reasons = self.rejected.get(slot).map_or(0, Vec::len);
                    trouble.is_poison() && buried(*slot) && reasons == 1 && poisoned.get(slot) == Some(&1)
                }
            };
            *done.entry((*stream, slot.record)).or_insert(true) &= arrived;
        }
        done
    }
}
