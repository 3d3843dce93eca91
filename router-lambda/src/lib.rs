//! The Headworks router: records go from an inbound Kinesis stream to outbound streams by their headers.
//!
//! - [`table`]: route tables. [`table::route`] is a pure function from headers to destinations,
//!   [`table::explain`] says why.
//! - [`Router`]: the handler. A Lambda event is de-aggregated, each record is routed, and the records of
//!   each destination are put in order; what failed is named in the partial batch response.
//! - [`lambda`]: the function itself, as the `bootstrap` binary and the `headworks` command run it.
//! - [`source`]: where the table comes from, and how another one takes its place without a deployment.
//! - [`dead_letter`]: what could not be put; it is listed, shown and redriven by the `headworks` command.
//!
//! What it needs of the world stands behind traits: [`Outbound`] (streams to put on), [`DeadLetters`] (where
//! poison goes), [`ListShards`] (ranges of inbound shards), [`Progress`] (what each destination has of a batch
//! that comes again), [`lookup::Items`] (tables that rules look up) and [`source::Source`] (the route table).
//!
//! A batch moves on only when each record is stored on every destination, dropped by a rule, skipped
//! because its writer puts it again (a misplaced aggregate), or written to the dead letters. Throttling,
//! credentials, keys and connections are never poison: the shard waits. Where the record's rule says so (`spill-after`),
//! it does not wait for ever for a destination that is under pressure or out of reach; for credentials, permissions and
//! keys it always does.
//!
//! ```
//! use headworks_record::Headers;
//! use headworks_router::table::{RouteTable, route};
//!
//! let table = RouteTable::from_toml(r#"
//!     [[rules]]
//!     when.type.glob = "order.*"
//!     to = ["orders", "archive"]
//!
//!     [default]
//!     to = "default"
//! "#)?;
//! let mut headers = Headers::new();
//! headers.set("type", "order.placed")?;
//! assert_eq!(route(&headers, &table).streams().collect::<Vec<_>>(), ["orders", "archive"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod config;
pub mod dead_letter;
pub mod event;
pub mod handler;
pub mod lambda;
pub mod lookup;
pub mod metrics;
pub mod outbound;
pub mod progress;
pub mod report;
pub mod shards;
pub mod source;
pub mod stats;
#[cfg(feature = "stream")]
pub mod stream;
pub mod table;
pub mod trouble;

mod bury;
mod capacity;
mod plan;
mod spans;
mod times;

pub use config::Config;
pub use dead_letter::{Bucket, DeadLetters, NoDeadLetters};
pub use event::{Event, KinesisRecord};
pub use handler::{Clock, Invocation, Router};
pub use outbound::{Load, Members, Outbound, Writers, writer_config};
pub use progress::Progress;
pub use report::{Counts, Pressure, Report, Response};
pub use shards::{KinesisShards, ListShards};
pub use stats::Stats;
pub use table::{Destinations, RouteTable, Subject, explain, explain_subject, route, route_subject};
pub use trouble::Trouble;

/// An example of a route table, `routes.example.toml`: website events by their `type` header.
pub const EXAMPLE_ROUTES: &str = include_str!("../routes.example.toml");
