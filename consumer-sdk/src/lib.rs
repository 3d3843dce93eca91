//! The Headworks consumer: reads a Kinesis stream with enhanced fan-out, shares its shards among workers by
//! leases in DynamoDB, and delivers every record to a handler with its headers and its trace.
//!
//! - [`Consumer`] is built with [`Consumer::builder`] and either calls a [`Handler`]
//!   ([`Consumer::run`]) or hands out records to acknowledge ([`Consumer::stream`]).
//! - [`Handle`] tells counters and states at any time, and waits for one.
//! - Leases are in the KCL's layout ([`lease`]), so an application moves from the KCL to this crate, or
//!   back, without losing its place. One heartbeat per worker, in a table of its own, stands for all of
//!   its leases; a worker that cannot renew it stops delivering before another may begin.
//! - Delivery is at least once and in order for each shard: a position is checkpointed when everything up
//!   to it is done, (sequence, sub-sequence) exactly, and every write is fenced by the lease's counter.
//! - Nothing is skipped silently: a damaged aggregate is delivered raw and counted; a record that cannot
//!   be taken apart stops the consumer (or is delivered raw, as [`Config::undecodable`] says); an
//!   aggregate that landed on the wrong shard is left out only because its writer puts it again, and is
//!   counted; a shard that expired unread is an error in the log and in [`Status::shards_expired`].
//!
//! [`streams::Streams`] and [`lease::LeaseStore`] are the boundaries to AWS.
#![warn(missing_docs)]

mod backoff;
mod config;
mod consumer;
mod coordinator;
mod delivered;
mod delivery;
mod error;
mod fanout;
mod handle;
pub mod lease;
pub mod position;
pub mod reader;
mod shard;
mod spans;
pub mod streams;
mod sync;

pub use config::{Config, ConfigError, HandlerRetry, Undecodable};
pub use consumer::{Builder, Consumer, Summary};
pub use delivered::{Batch, Delivered};
pub use delivery::{Handler, HandlerError, Pending, Records};
pub use error::Error;
pub use handle::{Handle, Phase, ShardStatus, Status, Stopped};
pub use headworks_record::ownership::Foreign;
pub use position::{Checkpoint, Position, SequenceNumber, Start};
pub use streams::ConsumerId;
