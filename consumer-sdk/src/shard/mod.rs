//! One shard while this worker holds its lease.

mod held;
mod loss;
mod session;
mod worker;

pub(crate) use held::{Context, Held};
pub(crate) use session::Session;
pub(crate) use worker::{Outcome, Worker};
