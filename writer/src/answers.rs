//! Where records go that are done: counted, traced if they failed, and answered.

use std::time::SystemTime;

use headworks_record::Creation;
use headworks_telemetry::{RecordTracer, names};

use crate::batches::Batches;
use crate::item::Item;
use crate::outcome::{Failure, Outcome};
use crate::stats::{self, Counters};

/// Takes outcomes as they come up; what they add to the counters is added when it is dropped, because an
/// atomic addition for each record costs more than the rest of this.
#[derive(Debug)]
pub(crate) struct Answers<'w> {
    batches: &'w mut Batches,
    counters: &'w Counters,
    tracer: &'w RecordTracer,
    stream: &'w str,
    stored: u64,
    user_bytes: u64,
}

impl<'w> Answers<'w> {
    pub(crate) fn new(
        batches: &'w mut Batches,
        counters: &'w Counters,
        tracer: &'w RecordTracer,
        stream: &'w str,
    ) -> Self {
        Self { batches, counters, tracer, stream, stored: 0, user_bytes: 0 }
    }

    pub(crate) fn give(&mut self, item: Item, outcome: Outcome) {
        match &outcome {
            Ok(_) => {
                self.stored += 1;
                self.user_bytes += u64::from(item.user_bytes);
            }
            Err(failure) => self.failed(item.creation(), failure),
        }
        self.batches.settle(item.batch, item.place, outcome);
    }

    /// Answers for a record that was never an item.
    pub(crate) fn refuse(
        &mut self,
        batch: usize,
        place: usize,
        creation: Option<&Creation>,
        failure: Failure,
    ) {
        self.failed(creation, &failure);
        self.batches.settle(batch, place, Err(failure));
    }

    fn failed(&self, creation: Option<&Creation>, failure: &Failure) {
        stats::add(&self.counters.failed, 1);
        if let Some(creation) = creation {
            let (code, message) = (failure.code(), failure.to_string());
            self.tracer.failed(creation, names::SEND, self.stream, SystemTime::now(), code, &message);
        }
    }
}

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        stats::add(&self.counters.stored, self.stored);
        stats::add(&self.counters.user_bytes, self.user_bytes);
    }
}
