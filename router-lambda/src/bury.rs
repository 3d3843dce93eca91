//! Writing the dead letters of a batch.

use futures_util::StreamExt as _;
use headworks_record::Creation;
use tokio::time::{Instant, timeout_at};

use crate::dead_letter::{self, Reason};
use crate::handler::Router;
use crate::plan::{Plan, Slot};
use crate::spans::Graves;

/// How many dead letters are written side by side.
const LETTERS_AT_ONCE: usize = 8;

impl Router {
    /// Writes dead letters; the lowest one that could not be written, or not by `until`.
    pub(crate) async fn bury(
        &self,
        plan: &Plan<'_>,
        slots: impl IntoIterator<Item = Slot>,
        until: Instant,
        graves: &mut Graves,
    ) -> Option<(Slot, dead_letter::Error)> {
        // Collected first, each with what it owns: closures over borrowed items make futures that are not Send.
        let writes: Vec<_> = slots
            .into_iter()
            .filter_map(|slot| Some((slot, plan.rejected.get(&slot)?.clone())))
            .map(|(slot, reasons)| self.write_letter(plan, slot, reasons, until))
            .collect();
        let mut writes = futures_util::stream::iter(writes).buffer_unordered(LETTERS_AT_ONCE);
        let mut lowest: Option<(Slot, dead_letter::Error)> = None;
        while let Some((slot, creation, reasons, written)) = writes.next().await {
            match written {
                Ok(()) => {
                    if let Some(reason) = reasons.into_iter().next() {
                        graves.0.insert(slot, (creation, reason));
                    }
                }
                Err(error) if lowest.as_ref().is_none_or(|(low, _)| slot < *low) => {
                    lowest = Some((slot, error));
                }
                Err(_) => {}
            }
        }
        lowest
    }

    async fn write_letter(
        &self,
        plan: &Plan<'_>,
        slot: Slot,
        reasons: Vec<Reason>,
        until: Instant,
    ) -> (Slot, Creation, Vec<Reason>, Result<(), dead_letter::Error>) {
        let (letter, creation) = plan.letter(slot, &reasons);
        let written = match timeout_at(until, self.dead_letters.write(&letter)).await {
            Ok(written) => written,
            Err(_elapsed) => Err(dead_letter::Error::Deadline { key: letter.key() }),
        };
        (slot, creation, reasons, written)
    }
}
