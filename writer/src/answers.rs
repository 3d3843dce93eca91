//! Where records go that are done: counted, traced if they failed, and answered.

use std::sync::Arc;
use std::time::SystemTime;

use headworks_telemetry::{RecordTracer, names};

use crate::batches::Batches;
use crate::item::Item;
use crate::outcome::Failure;
use crate::outcomes::Landed;
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

    /// The batches that the items are of.
    pub(crate) fn batches(&self) -> &Batches {
        self.batches
    }

    pub(crate) fn stored(&mut self, item: &Item, landed: &Arc<Landed>, sub_sequence_number: u32) {
        self.stored += 1;
        self.user_bytes += u64::from(item.user_bytes);
        self.batches.stored(item, landed, sub_sequence_number);
    }

    pub(crate) fn failed(&mut self, item: &Item, failure: Failure) {
        stats::add(&self.counters.failed, 1);
        let content = self.batches.content(item);
        if let Some(creation) = content.and_then(|content| content.creation()) {
            let (code, message) = (failure.code(), failure.to_string());
            self.tracer.failed(&creation, names::SEND, self.stream, SystemTime::now(), code, &message);
        }
        self.batches.failed(item.batch, item.place, failure);
    }
}

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        stats::add(&self.counters.stored, self.stored);
        stats::add(&self.counters.user_bytes, self.user_bytes);
    }
}
