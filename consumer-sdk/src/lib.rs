//! The Headworks consumer: reads Kinesis streams with enhanced fan-out, shares their shards among workers by
//! leases in DynamoDB, and delivers every record to a handler with its headers and its trace.
//!
//! - [`Consumer`] is built with [`Consumer::builder`] and either calls a [`Handler`]
//!   ([`Consumer::run`]) or hands out records to acknowledge ([`Consumer::stream`]).
//! - One consumer reads one stream, or several whose shards are shared out together
//!   ([`Consumer::builder_of_streams`]). It begins at the oldest record, the newest, a time ([`Start`]) or a place
//!   in a shard ([`SequenceStart`]); where it begins is durable at once.
//! - [`Handle`] tells counters and states at any time, and waits for one.
//! - Leases are in the KCL's layout ([`lease`]), so an application moves from the KCL to this crate, or
//!   back, without losing its place. One heartbeat per worker, in a table of its own, stands for all of
//!   its leases; a worker that cannot renew it stops delivering before another may begin. By default the
//!   shards of a worker that was killed are delivered by another within three seconds, to which a busy
//!   shard adds the reading back that is described below.
//! - Delivery is at least once and in order for each shard: a position is checkpointed when everything up
//!   to it is done, (sequence, sub-sequence) exactly, and every write is fenced by the lease's counter.
//! - Repeats are dropped: a record whose identity (its creation context's trace id and span id) its shard,
//!   or a shard that this one came from, brought at most [`Config::dedup_window`] earlier, by arrival.
//!   That depends on the stream alone, so every worker drops the same records, also after a restart, a
//!   hand-over or a reshard: a worker that begins to read a shard rebuilds the window from the stream, up
//!   to the checkpoint, when the first records come. The first occurrence is never dropped, nor is a record
//!   without a creation context; each repeat is counted in [`Status::repeats_dropped`]. Rebuilding reads
//!   what arrived within the window, at the 2 MB/s that a shard gives: next to nothing for a quiet shard,
//!   and up to half the window's length for one that is written to at its limit, before its first batch is
//!   delivered. Between a shard and its children in one worker the window is handed over without reading.
//!   It needs the permission `kinesis:GetRecords`. An identity that went by shortly before the place
//!   where an application begins counts as seen once a worker has rebuilt the window. A record that is put
//!   again on purpose with its old identity passes when the window is over.
//! - Nothing is skipped silently: a damaged aggregate is delivered raw and counted; a record that cannot
//!   be taken apart stops the consumer (or is delivered raw, as [`Config::undecodable`] says); an
//!   aggregate that landed on the wrong shard is left out only because its writer puts it again, and is
//!   counted; a shard that expired unread, or a checkpoint that the trim horizon has passed, is an error in
//!   the log and in [`Status::shards_expired`] or [`Status::checkpoints_trimmed`].
//!
//! [`streams::Streams`] and [`lease::LeaseStore`] are the boundaries to AWS.
#![warn(missing_docs)]

pub mod admin;
mod backoff;
mod config;
mod consumer;
mod coordinator;
pub mod dead_letter;
mod dedup;
mod delivered;
mod delivery;
pub mod effects;
mod error;
mod fanout;
mod handle;
pub mod lease;
mod metrics;
mod pace;
pub mod position;
#[cfg(feature = "kms")]
pub mod protected;
#[doc(hidden)]
pub mod random;
pub mod reader;
pub mod replay;
mod shard;
mod sources;
mod spans;
pub mod streams;
mod sync;

pub use config::{Checkpointing, Config, ConfigError, HandlerRetry, OnFailure, Reading, Undecodable};
pub use consumer::{Builder, Consumer, Summary};
pub use delivered::{Batch, Delivered};
pub use delivery::checkpoints::Error as CheckpointError;
pub use delivery::{Checkpoints, Closing, Handler, HandlerError, Opening, Pending, Prepared, Records};
pub use error::Error;
pub use handle::{Handle, Phase, ShardStatus, Status, Stopped};
pub use headworks_record::ownership::Foreign;
pub use position::{Checkpoint, Position, SequenceNumber, SequenceStart, Start};
pub use streams::{ConsumerId, StreamIdentifier, StreamShard};

/// The examples of the README are compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
