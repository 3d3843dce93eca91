//! The ordered Kinesis putter that the gateway, the router and the producer's direct mode share.
//!
//! A [`Writer`] takes records, groups them by predicted shard and lane into aggregates, and puts
//! these on one stream so that the order of records of one key is the order in which they were given:
//!
//! - a lane has one aggregate in flight, and a failed one is put again before anything that follows it;
//! - one `PutRecords` call carries many lanes, several calls are in flight over disjoint lanes, and no
//!   call carries two aggregates of one lane, because the service gives no order within a call;
//! - when the answer shows that an aggregate landed on another shard than predicted (the stream was
//!   resharded), all members are put again, regrouped by the fresh shard map, and the lanes that hold
//!   their keys stay closed until the old aggregate is settled.
//!
//! Every record is answered exactly once: [`Placed`], or a [`Failure`] that says whether the record
//! may be stored all the same.
//!
//! ```no_run
//! # async fn example(client: aws_sdk_kinesis::Client, record: headworks_record::Record) -> Result<(), Box<dyn std::error::Error>> {
//! use headworks_writer::{Config, KinesisStream, Put, Writer};
//!
//! let stream = KinesisStream::new(client, "inbound");
//! let (service, writer) = Writer::start(Config::default(), stream, Default::default()).await?;
//! tokio::spawn(service.run(Default::default()));
//!
//! let ticket = writer.put(vec![Put::new(record)]).await?;
//! for outcome in ticket.await {
//!     println!("{:?}", outcome?);
//! }
//! # Ok(()) }
//! ```
#![warn(missing_docs)]

mod answers;
mod batch;
mod batches;
mod body;
mod call;
mod config;
mod content;
mod handle;
mod hot;
mod item;
mod kinesis;
mod lane;
mod limiter;
mod outcome;
mod outcomes;
mod parcel;
mod parts;
mod protocol;
mod puts;
mod schedule;
mod service;
mod stats;
mod stream;

pub use batch::Batch;
pub use config::{Config, ConfigError, DEFAULT_AGGREGATE_BYTES};
pub use handle::{Handle, Refused, Ticket};
pub use hot::HotKey;
pub use kinesis::{KinesisStream, LANES_TAG};
pub use outcome::{Failure, Outcome, Placed, Put};
pub use outcomes::{Landed, Outcomes};
pub use parcel::{Encoded, Parcel};
pub use service::{Report, StartError, Writer};
pub use stats::Stats;
pub use stream::{CallError, Capacity, Entry, EntryError, Fault, ListedShard, Stored, Stream};
