//! The embedded stack: Kinesis with real enhanced fan-out, DynamoDB and S3 in one process, on loopback only.
//!
//! Everything a pipeline needs from AWS, ready within milliseconds, spoken to with the ordinary SDKs over the
//! ordinary protocols. Product code does not know that it is there: only endpoints differ.
//!
//! ```no_run
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let stack = headworks_local::start().await?;
//! stack.kinesis().create_stream().stream_name("orders").shard_count(2).send().await?;
//! println!("Kinesis at {}", stack.kinesis_endpoint());
//! stack.shutdown().await?;
//! # Ok(()) }
//! ```
//!
//! Nothing throttles by default; [`Settings::aws`] has the service's rates. What goes wrong on AWS's bad days goes
//! wrong here on demand: see [`faults`].
//!
//! * [`kinesis`]: the streams, as an [`Engine`] to call in process and as a server of the AWS
//!   protocol (JSON 1.1 and CBOR 1.1, HTTP/1.1 and h2c on one port).
//! * [`faults`]: what goes wrong, when a test asks for it.
//! * [`lambda`]: the event source mapping. [`otlp`]: a receiver of traces.
//! * [`stack`]: the three services, their ports, their data directory and their end.

pub mod faults;
pub mod kinesis;
pub mod lambda;
pub mod otlp;
pub mod stack;

mod dynamodb;
mod http;
mod s3;

pub use faults::{Fault, Faults};
pub use kinesis::{Engine, Settings};
pub use stack::{Config, Stack, StartError, StopError, start};
