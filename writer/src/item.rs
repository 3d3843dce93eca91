//! A record on its way through the writer.

use std::sync::Arc;

use headworks_record::HashKey;
use tokio::time::Instant;

use crate::stream::Fault;

/// Stands for a record that is taken and not yet answered; the record itself stays in its batch. Kept to one cache
/// line: items move from queue to queue.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) hash: HashKey,
    pub(crate) deadline: Instant,
    /// What went wrong last.
    pub(crate) last: Option<Arc<String>>,
    /// Where its outcome goes: a batch, and a place in it.
    pub(crate) batch: u32,
    pub(crate) place: u32,
    pub(crate) attempts: u32,
    /// Key, headers and data, once each.
    pub(crate) user_bytes: u32,
    /// What it adds to an aggregate, its key included: it adds less where that is there already.
    pub(crate) encoded_bytes: u32,
    /// Trouble with access if there was any, else what kind of trouble the last was.
    pub(crate) fault: Option<Fault>,
    /// A put of it was not answered, or landed where readers skip it.
    pub(crate) maybe_stored: bool,
    /// Its creation is sampled: spans are told of it. Kept here because looking at every record of a call for one that
    /// is would cost more than the call itself.
    pub(crate) sampled: bool,
}

impl Item {
    /// Takes note of trouble. That access was refused is remembered: a put that was not answered after that says
    /// nothing of it.
    pub(crate) fn suffer(&mut self, fault: Fault) {
        if fault.is_access() || !self.fault.is_some_and(Fault::is_access) {
            self.fault = Some(fault);
        }
    }
}

const _: () = assert!(size_of::<Item>() <= 64);
