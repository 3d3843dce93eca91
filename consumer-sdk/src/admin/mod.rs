//! Looking after applications from outside: who reads what, how far behind, and moving them elsewhere.
//!
//! - [`applications`] finds the lease tables of an account.
//! - [`lag`](lag()) tells, for each shard, how far its checkpoint is behind the newest record, in time and
//!   records, and which shards are hot.
//! - [`plan_reset`] and [`Reset::apply`] move checkpoints: what will change is known before anything does.
//! - [`Target`] is a place to go to; [`Handle::seek`](crate::Handle::seek) takes one, too.

mod applications;
mod lag;
mod reset;
mod target;

pub use applications::applications;
pub(crate) use lag::is_hot;
pub use lag::{Estimate, ShardLag, hot_shards, lag};
pub use reset::{Change, Reset, plan_reset};
pub use target::Target;
pub(crate) use target::{patiently, resolve, resolve_page};

use crate::{lease, streams};

/// Why something could not be looked after.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Workers of the application are running.
    #[error(
        "the application's worker(s) {} are alive, and would write their own checkpoints over the new ones; stop them, or force the reset, which takes the leases away from them",
        workers.join(", ")
    )]
    WorkersAlive {
        /// Their ids.
        workers: Vec<String>,
    },
    /// The checkpoint is no longer what it was when the reset was planned.
    #[error(
        "the checkpoint of {shard} has moved since the reset was planned; plan it again to see what it would change"
    )]
    Moved {
        /// The shard.
        shard: headworks_record::ShardId,
    },
    /// The stream could not be read.
    #[error("cannot read the stream: {0}")]
    Stream(#[from] streams::Error),
    /// The leases could not be read or written.
    #[error(transparent)]
    Lease(#[from] lease::Error),
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::WorkersAlive { .. } => "workers-alive",
            Error::Moved { .. } => "checkpoint-moved",
            Error::Stream(source) => source.code(),
            Error::Lease(source) => source.code(),
        }
    }

    /// Whether the same may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::WorkersAlive { .. } => true,
            Error::Moved { .. } => false,
            Error::Stream(source) => source.is_retryable(),
            Error::Lease(source) => source.is_retryable(),
        }
    }
}
