//! The embedded stack: Kinesis with real enhanced fan-out, DynamoDB and S3 in one process, on loopback only.
//!
//! Everything a pipeline needs from AWS, ready within milliseconds, spoken to with the ordinary SDKs over the
//! ordinary protocols. Product code does not know that it is there: only endpoints differ.
//!
//! In a test, a stack of its own, on free ports, which ends with the test:
//!
//! ```
//! #[tokio::test]
//! async fn an_order_arrives() -> Result<(), Box<dyn std::error::Error>> {
//!     let stack = headworks_local::start().await?;
//!     let kinesis = stack.kinesis();
//!     kinesis.create_stream().stream_name("orders").shard_count(2).send().await?;
//!     let put = kinesis.put_record().stream_name("orders").partition_key("42").data(b"{}".to_vec().into());
//!     assert!(put.send().await?.shard_id.starts_with("shardId-"));
//!     Ok(())
//! }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # // The same, run: the attribute leaves nothing to call.
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! #     let stack = headworks_local::start().await?;
//! #     stack.kinesis().create_stream().stream_name("orders").shard_count(2).send().await?;
//! #     let put = stack.kinesis().put_record().stream_name("orders").partition_key("42").data(b"{}".to_vec().into());
//! #     assert!(put.send().await?.shard_id.starts_with("shardId-"));
//! #     Ok(())
//! # })
//! # }
//! ```
//!
//! A program under test is told the endpoints, in its configuration or its environment: [`Stack::kinesis_endpoint`]
//! (`AWS_ENDPOINT_URL_KINESIS`), [`Stack::dynamodb_endpoint`], [`Stack::s3_endpoint`]. Kinesis alone, on a given port,
//! is [`kinesis::serve`].
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
