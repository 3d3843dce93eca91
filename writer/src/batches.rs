//! Batches on their way, from the first of their records to the last answer.

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::outcome::Outcome;

/// The batches that are not yet answered whole.
#[derive(Debug, Default)]
pub(crate) struct Batches {
    slots: Vec<Option<OpenBatch>>,
    free: Vec<usize>,
    pub(crate) open: usize,
}

#[derive(Debug)]
struct OpenBatch {
    outcomes: Vec<Option<Outcome>>,
    left: usize,
    answer: oneshot::Sender<Vec<Outcome>>,
    /// The batch's share of the byte budget, given back when it is answered.
    _permit: OwnedSemaphorePermit,
}

impl Batches {
    pub(crate) fn open(
        &mut self,
        records: usize,
        answer: oneshot::Sender<Vec<Outcome>>,
        permit: OwnedSemaphorePermit,
    ) -> usize {
        let batch = OpenBatch { outcomes: vec![None; records], left: records, answer, _permit: permit };
        self.open += 1;
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(batch);
                slot
            }
            None => {
                self.slots.push(Some(batch));
                self.slots.len() - 1
            }
        }
    }

    pub(crate) fn settle(&mut self, number: usize, place: usize, outcome: Outcome) {
        let Some(batch) = &mut self.slots[number] else { return };
        batch.outcomes[place] = Some(outcome);
        batch.left -= 1;
        if batch.left == 0
            && let Some(batch) = self.slots[number].take()
        {
            self.open -= 1;
            self.free.push(number);
            // The ticket may have been dropped: the records were put all the same.
            let _ = batch.answer.send(batch.outcomes.into_iter().flatten().collect());
        }
    }
}
