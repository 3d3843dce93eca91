//! The Headworks router: records go from an inbound Kinesis stream to outbound streams by their headers.
//!
//! - [`table`]: route tables. [`table::route`] is a pure function from headers to destinations,
//!   [`table::explain`] says why.
//! - [`Router`]: the handler. A Lambda event is de-aggregated, each record is routed, and the records of
//!   each destination are put in order; what failed is named in the partial batch response.
//! - [`lambda`]: the function itself, as the `bootstrap` binary and the `headworks` command run it.
//!
//! What it needs of the world stands behind four traits: [`Outbound`] (streams to put on),
//! [`DeadLetters`] (where poison goes), [`ListShards`] (ranges of inbound shards) and [`Progress`] (what each
//! destination has of a batch that comes again).
//!
//! A batch moves on only when each record is stored on every destination, dropped by a rule, skipped
//! because its writer puts it again (a misplaced aggregate), or written to the dead letters. Throttling,
//! credentials, keys and connections are never poison: the shard waits.
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
pub mod outbound;
pub mod progress;
pub mod report;
pub mod shards;
pub mod table;
pub mod trouble;

mod plan;
mod spans;

pub use config::Config;
pub use dead_letter::{Bucket, DeadLetters, NoDeadLetters};
pub use event::{Event, KinesisRecord};
pub use handler::{Invocation, Router};
pub use outbound::{Outbound, Writers, writer_config};
pub use progress::Progress;
pub use report::{Counts, Report, Response};
pub use shards::{KinesisShards, ListShards};
pub use table::{Destinations, RouteTable, explain, route};
pub use trouble::Trouble;

/// An example of a route table, `routes.example.toml`: website events by their `type` header.
pub const EXAMPLE_ROUTES: &str = include_str!("../routes.example.toml");
