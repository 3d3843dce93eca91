//! The Headworks gateway: takes records over gRPC and puts them on inbound Kinesis streams.
//!
//! [`Config`] says where it listens and which streams it serves. [`Gateway::bind`] checks the
//! streams and takes the port; [`Gateway::run`] serves until it is told to stop, then drains:
//!
//! ```no_run
//! use headworks_gateway::{Config, Gateway};
//! use headworks_telemetry::{Minter, RecordTracer, Sampler};
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::for_stream("inbound");
//! let streams = headworks_gateway::kinesis::streams(&config).await;
//! let minter = Minter::new(Sampler::never());
//! let (gateway, handle) = Gateway::bind(config, streams, minter, RecordTracer::disabled()).await?;
//! println!("listening on {}", handle.local_addr());
//!
//! let report = gateway.run(CancellationToken::new()).await?;
//! println!("{} records were left without an answer from the stream", report.unanswered);
//! # Ok(()) }
//! ```
//!
//! A record passes through four places, each a module:
//!
//! - the door (`door`) speaks the protocol: unary `Put`, pipelined `PutStream` with credit;
//! - [`Principal`] says who is at the door and what it may do;
//! - the intake (`intake`) checks each record, settles its identity and hands it to the writer;
//! - [`headworks_writer`] groups, puts and retries, and answers for each record.
//!
//! What concerns one record is an error in its result; what concerns the call, [`call::Error`], is
//! the call's status. Nothing is taken silently: every record is answered once.
#![warn(missing_docs)]

mod answer;
pub mod call;
pub mod config;
mod door;
mod gateway;
mod intake;
pub mod kinesis;
mod principal;
mod shared;

pub use config::{Config, StreamConfig};
pub use gateway::{BindError, Gateway, Handle, Report, RunError};
pub use principal::Principal;
