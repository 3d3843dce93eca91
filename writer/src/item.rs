//! A record on its way through the writer.

use std::sync::Arc;

use headworks_record::HashKey;
use tokio::time::Instant;

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
    /// A put of it was not answered, or landed where readers skip it.
    pub(crate) maybe_stored: bool,
    /// Its creation is sampled: spans are told of it. Kept here because looking at every record of a call for one that
    /// is would cost more than the call itself.
    pub(crate) sampled: bool,
}

const _: () = assert!(size_of::<Item>() <= 64);
