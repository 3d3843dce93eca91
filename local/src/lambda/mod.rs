//! A local Lambda: functions behind the Runtime API, and an event source mapping that feeds them from a stream.
//!
//! A [`Function`] is any program that speaks the Lambda Runtime API (a Rust `bootstrap`, a script), run in as many
//! processes as invocations overlap, or an async closure. A [`Mapping`] reads a stream of the
//! [`Engine`](crate::kinesis::Engine) and hands the function real Kinesis events, with Lambda's batching, order,
//! retries, splits, partial responses and on-failure destination. It is woken by puts; it does not poll.
//!
//! ```no_run
//! # async fn demo(engine: std::sync::Arc<headworks_local::Engine>) -> Result<(), Box<dyn std::error::Error>> {
//! use headworks_local::lambda::{Config, Function, Mapping, Program};
//!
//! let router = Function::program(Program::new("router", "target/debug/bootstrap"))?;
//! let mapping = Mapping::start(
//!     engine,
//!     router.clone(),
//!     Config { report_batch_item_failures: true, ..Config::new("inbound") },
//! )?;
//! mapping.wait_idle().await?;
//! mapping.shutdown().await;
//! router.shutdown().await;
//! # Ok(()) }
//! ```

mod config;
mod destination;
mod environment;
mod error;
mod event;
mod filter;
mod function;
mod lane;
mod mapping;
mod poller;
mod progress;
mod response;
mod runtime_api;

pub use config::{Config, StartingPosition};
pub use destination::Destination;
pub use error::{ConfigError, FunctionError};
pub use event::{EventFormat, MAX_EVENT_BYTES};
pub use filter::FilterCriteria;
pub use function::{Function, FunctionCounts, Program};
pub use mapping::{Handle, Mapping, MappingError};
pub use progress::{Counters, ShardProgress};
pub use runtime_api::MAX_RESPONSE_BYTES;
