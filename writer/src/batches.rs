//! Batches on their way, from the first of their records to the last answer.
//!
//! A batch keeps its records, as they were prepared when they were handed over, until the whole of it is answered, as it
//! keeps its share of the byte budget. What moves through the lanes are [`Item`]s, which are small and name a place in a
//! batch.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::content::{Content, Contents};
use crate::item::Item;
use crate::outcome::Failure;
use crate::outcomes::{Landed, Outcomes};

/// The batches that are not yet answered whole.
#[derive(Debug, Default)]
pub(crate) struct Batches {
    slots: Vec<Option<OpenBatch>>,
    free: Vec<u32>,
    pub(crate) open: usize,
}

#[derive(Debug)]
struct OpenBatch {
    contents: Contents,
    outcomes: Outcomes,
    left: usize,
    answer: oneshot::Sender<Outcomes>,
    /// The batch's share of the byte budget, given back when it is answered.
    _permit: OwnedSemaphorePermit,
}

impl Batches {
    pub(crate) fn open(
        &mut self,
        contents: Contents,
        answer: oneshot::Sender<Outcomes>,
        permit: OwnedSemaphorePermit,
    ) -> u32 {
        let left = contents.len();
        let batch = OpenBatch { contents, outcomes: Outcomes::open(left), left, answer, _permit: permit };
        self.open += 1;
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(batch);
                slot
            }
            None => {
                self.slots.push(Some(batch));
                // The byte budget bounds them far below that: each record in it weighs more than its place here.
                (self.slots.len() - 1) as u32
            }
        }
    }

    /// What is to be put for an item; it is there until the item is settled.
    #[inline]
    pub(crate) fn content(&self, item: &Item) -> Option<Content<'_>> {
        self.slots.get(item.batch as usize)?.as_ref()?.contents.get(item.place as usize)
    }

    pub(crate) fn stored(&mut self, item: &Item, landed: &Arc<Landed>, sub_sequence_number: u32) {
        self.settle(item.batch, |outcomes| outcomes.stored(item.place, landed, sub_sequence_number));
    }

    pub(crate) fn failed(&mut self, batch: u32, place: u32, failure: Failure) {
        self.settle(batch, |outcomes| outcomes.failed(place, failure));
    }

    fn settle(&mut self, number: u32, tell: impl FnOnce(&mut Outcomes)) {
        let Some(slot) = self.slots.get_mut(number as usize) else { return };
        let Some(batch) = slot else { return };
        tell(&mut batch.outcomes);
        batch.left -= 1;
        if batch.left == 0
            && let Some(batch) = slot.take()
        {
            self.open -= 1;
            self.free.push(number);
            // The ticket may have been dropped: the records were put all the same.
            let _ = batch.answer.send(batch.outcomes);
        }
    }
}
