//! The Headworks record: what travels from a producer's call to a consumer's handler.
//!
//! This crate is pure: no I/O, no async, no AWS client, no clock and no randomness of its own.
//! Everything that several parts must agree on byte for byte lives here.
//!
//! - [`Record`]: a [`PartitionKey`], an optional explicit [`HashKey`], [`Headers`] and data.
//! - [`Creation`]: the record's creation context (W3C trace id and span id) and creation time. It is
//!   minted once, never modified on the way, and is the record's identity.
//! - [`aggregate`]: the KPL's aggregated record. Headers travel in its `tags` field, which every
//!   stock reader skips, so a KCL, Lambda or Flink consumer reads our payloads untouched.
//! - [`ShardMap`], [`HashRange`], [`Lane`]: which shard and lane a hash key belongs to.
//! - [`ownership`]: the hash-range rule, by which a reader decides whether an aggregate that it found
//!   on a shard is delivered there.
//!
//! ```
//! use headworks_record::{Record, aggregate};
//!
//! let record = Record::builder("session-42")?
//!     .header("type", "order.placed")?
//!     .data(r#"{"total": 12}"#)
//!     .build();
//!
//! let mut builder = aggregate::Builder::new();
//! builder.push(&record);
//! let blob = builder.finish();
//!
//! let aggregate::Decoded::Aggregate(aggregate) = aggregate::decode(&blob)? else { unreachable!() };
//! let back = aggregate.members().next().expect("one member").to_record()?;
//! assert_eq!(back, record);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![warn(missing_docs)]

pub mod aggregate;
pub mod creation;
mod digest;
pub mod headers;
pub mod key;
pub mod ownership;
#[cfg(feature = "protected")]
pub mod protected;
mod record;
pub mod shard;

pub use creation::{Creation, SpanId, TraceId};
pub use headers::{Headers, RESERVED_PREFIX};
pub use key::{HashKey, PartitionKey};
pub use record::{Builder, Record, RecordRef};
pub use shard::{HashRange, Lane, LaneCount, Shard, ShardId, ShardMap};
