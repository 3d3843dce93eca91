//! Leases: who reads which shard, and how far.
//!
//! - [`Lease`] is one item of the lease table, in the KCL's layout.
//! - [`LeaseStore`] is the boundary to DynamoDB; [`Table`] is the real one.
//! - `machine` decides, purely, what a worker does about the leases it sees.
//! - `liveness` tells which workers are alive, by watching their heartbeats on its own clock.
//! - `family` tells which leases are missing: at the start, and when a shard ends.
//! - `weight` measures what the shards bring, so that the load is even in bytes, not in shards alone.
//! - `fence` closes when this worker could not renew its heartbeat for too long.

pub(crate) mod checkpointer;
pub(crate) mod family;
pub(crate) mod fence;
pub(crate) mod heartbeat;
mod item;
pub(crate) mod liveness;
pub(crate) mod machine;
mod model;
mod store;
mod table;
pub(crate) mod weight;

pub use model::{Holding, Lease, PendingCheckpoint};
pub(crate) use store::answered;
pub use store::{Beat, Error, LeaseStore};
pub use table::Table;
