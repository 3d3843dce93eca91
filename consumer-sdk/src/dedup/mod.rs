//! Drops repeats: records whose identity (trace id and span id of the creation context) the shard had
//! already brought within the window before.
//!
//! Repeats come from retries whose first attempt was stored without an answer, and from writers that put
//! an aggregate again because another shard took it than its label names.
//!
//! What is a repeat depends on nothing but the stream: a record is one if the shard, or a shard that it
//! came from, holds its identity earlier, at an arrival at most the window before. So every worker, at
//! any time, drops the same records, and the memory that a worker lost, never had, or may not trust (it may
//! be ahead of the checkpoint, and what was not checkpointed must come again) is rebuilt from the stream
//! itself, up to the checkpoint and not a record further. Nothing is stored beside the stream: a snapshot
//! of a busy shard would be megabytes, written all the time for a take-over that seldom comes, and at each
//! moment either older than the checkpoint or ahead of it.
//!
//! - `window` is the memory: `order` keeps the identities, `index` finds them.
//! - `history` rebuilds it: when a shard's first records come, and only then, so that idle shards cost
//!   nothing.
//! - `handover` passes it from a shard that ended to its children in the same worker, so that a reshard
//!   costs no reading back there.

mod handover;
mod history;
mod index;
mod order;
mod window;

pub(crate) use handover::Handover;
pub(crate) use history::{Failure, History};
pub(crate) use window::{Dropped, Window};
