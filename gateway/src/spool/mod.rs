//! The spool: records that are acknowledged when they are on disk, before the stream has them.
//!
//! A stream with `ack = "spool"` has a write-ahead log in a directory of its own. A record is acknowledged
//! after the fsync that made it durable, which it shares with all that wait for one. From there one task puts
//! everything on the stream, in the order of the log: what was left by a crash or an outage, then
//! what is new. So order per key holds across restarts. What the stream has is noted in the log, and files of
//! which nothing is needed any more are removed. After a crash some records may be put twice, with the same
//! identity, by which consumers recognize them.
//!
//! - The deadline of a record applies until it is acknowledged, and never after.
//! - What Kinesis refuses for good (access denied, stream deleted) stays, is tried again, and
//!   raises an alarm in log and metrics.
//! - When `max_bytes` are used, new records are refused with `spool-full`, which is retryable; a `PutStream`
//!   waits for room until its records' deadline.
//! - A write or fsync that fails gives its file up for good; the records go to a new file before they are
//!   acknowledged. If that fails too, they are answered with `spool-failed`.
//! - A torn end, which a crash leaves, is cut off: none of it was acknowledged. Damage before that,
//!   or a missing file, is a start refused with `spool-damaged`.
//!
//! The spool survives a crash of the process and of the system. It does not survive the loss of its disk, nor
//! a disk that says that it has synced when it has not. A bit that rots in the last block of all looks
//! like a torn end.

mod disk;
mod forward;
mod handle;
pub(crate) mod latency;
mod log;
#[cfg(test)]
mod log_tests;
mod read;
mod recover;
mod segment;
mod service;
#[cfg(test)]
mod service_tests;
#[cfg(test)]
mod sim;
mod state;
mod steadfast;

pub(crate) use self::handle::{Failure, Handle, Refused, Ticket};
pub use self::recover::OpenError;
pub(crate) use self::service::{Left, Spool};
pub(crate) use self::state::State;
pub(crate) use self::steadfast::Steadfast;
