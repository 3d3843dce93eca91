//! A Kinesis: streams, shards, resharding, iterators and enhanced fan-out, in memory.
//!
//! [`Engine`] holds all state behind a synchronous API and an injected [`Clock`]; [`server`] speaks the AWS
//! protocol over it. A caller in the same process reads shards with a [`ShardReader`], which waits for records
//! without polling.

pub mod alone;
pub mod clock;
pub mod consumer;
pub mod engine;
pub mod error;
pub mod hash;
pub mod reader;
pub mod record;
pub mod sequence;
pub mod server;
pub mod setting;
pub mod settings;
pub mod snapshot;
pub mod store;
pub mod stream;

mod account;
mod api;
mod arn;
mod bodies;
mod codec;
mod eventstream;
mod features;
mod iterator;
mod journal;
mod limiter;
mod memory;
mod ondemand;
mod puts;
mod rates;
mod reshard;
mod shard;
mod shardmap;
mod subscription;
pub(crate) mod sync;
mod target;
mod token;
mod validate;

pub use alone::{Alone, ServeError, bind, serve};
pub use clock::{Clock, ManualClock, SystemClock};
pub use consumer::ConsumerInfo;
pub use engine::Engine;
pub use error::Error;
pub use hash::HashRange;
pub use ondemand::OnDemandScaling;
pub use reader::{ChildShard, Position, ReadBatch, ReadLimits, ShardReader, StartPosition};
pub use record::{Put, PutEntry, Record};
pub use sequence::SequenceNumber;
pub use setting::SettingError;
pub use settings::{DailyLimits, ReadRate, RequestLimits, Settings, WriteLimits};
pub use stream::{CreateStream, ShardInfo, StreamMode, StreamStatus, StreamSummary};
