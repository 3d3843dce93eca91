//! Where chance comes from: one place, so that a simulation can replay it.

use std::cell::RefCell;

use rand::distr::uniform::{SampleRange, SampleUniform};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

thread_local! {
    static SEEDED: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// From now on everything that this thread draws follows from the seed; `None` is true chance again.
///
/// With a paused, single-threaded runtime a consumer's whole behaviour then follows from the seed.
pub fn seed_this_thread(seed: Option<u64>) {
    SEEDED.with(|seeded| *seeded.borrow_mut() = seed.map(StdRng::seed_from_u64));
}

pub(crate) fn range<T: SampleUniform, R: SampleRange<T>>(range: R) -> T {
    SEEDED.with(|seeded| match seeded.borrow_mut().as_mut() {
        Some(seeded) => seeded.random_range(range),
        None => rand::random_range(range),
    })
}

/// Sixteen hexadecimal digits that nobody else drew.
pub(crate) fn name() -> String {
    format!("{:016x}", range(0..=u64::MAX))
}
