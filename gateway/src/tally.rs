//! Counts by code.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Stands for the code of what went well.
pub(crate) const OK: &str = "ok";
/// Stands for the code of a call whose client went away.
pub(crate) const CANCELLED: &str = "cancelled";

/// How often each code was given. Codes are a fixed set, so this is bounded.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<BTreeMap<String, u64>>);

impl Tally {
    pub(crate) fn count(&self, code: &str) {
        self.count_all([code]);
    }

    /// Counts each; takes the lock only if there are any.
    pub(crate) fn count_all<'a>(&self, codes: impl IntoIterator<Item = &'a str>) {
        let mut codes = codes.into_iter().peekable();
        if codes.peek().is_none() {
            return;
        }
        // A count is whole at any time: a panic elsewhere cannot leave half of one.
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for code in codes {
            match counts.get_mut(code) {
                Some(count) => *count += 1,
                None => drop(counts.insert(code.to_owned(), 1)),
            }
        }
    }

    /// The counts so far, in the codes' order.
    pub(crate) fn read(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Counts a call when it ends, also when its client goes away before.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    tally: &'a Tally,
    code: &'static str,
}

impl<'a> Call<'a> {
    pub(crate) fn new(tally: &'a Tally) -> Self {
        Self { tally, code: CANCELLED }
    }

    pub(crate) fn ended(mut self, code: &'static str) {
        self.code = code;
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.tally.count(self.code);
    }
}

/// Calls that ended, by door.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    pub(crate) put: Tally,
    pub(crate) put_stream: Tally,
    pub(crate) http: Tally,
}
