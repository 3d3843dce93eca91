//! Sends records to a Headworks gateway.
//!
//! ```no_run
#![doc = include_str!("../examples/send.rs")]
//! ```
//!
//! A [`Producer`] keeps one connection and sends over it without waiting for answers:
//!
//! - [`Producer::put`] sends a record and waits until its stream has it;
//! - [`Producer::send`] gives back a [`Ticket`] instead, which is a future of the answer. It waits only
//!   while the producer holds its bound of unanswered bytes ([`Builder::buffer_bytes`]). Dropping the
//!   ticket does not take the record back;
//! - [`Producer::flush`] waits until everything sent before is answered;
//! - [`Producer::close`] does so up to a deadline, and reports.
//!
//! **Several gateways.** With [`Builder::endpoints`], each key has a gateway by rendezvous hashing, the same for
//! all producers. When one is lost (one attempt to connect again has failed), its records go to the others, in
//! order and with their identities; when it is back, it waits until the others have settled what they had
//! of its keys. [`Producer::gateways`] tells which are connected.
//!
//! **No gateway.** With the feature `direct`, `Builder::direct` makes a producer that embeds the gateway's
//! writer and puts on Kinesis itself: for batch jobs, and for hosts that reach AWS and no gateway.
//!
//! **Security.** `https://` endpoints are recognized by the system's authorities or
//! [`Builder::ca_certificates`]; the producer is recognized by [`Builder::token`] (an API key or a JWT) or
//! [`Builder::identity`] (a client certificate).
//!
//! **Order.** Records of one producer reach the gateway in the order of the calls to `send`, so records
//! of one key keep their order on the stream.
//!
//! **Loss of the connection.** The producer connects again, with exponential backoff and full jitter, and
//! sends again, in order, what was not answered. Each record keeps its identity, which is minted when it
//! is sent, so consumers recognize what arrives twice. A record that is not answered within its time
//! ([`Builder::timeout`]) fails: with [`Error::OutcomeUnknown`] if it had left the producer, because
//! then it may be stored.
//!
//! **Traces.** A record is created in the caller's current `tracing` span, if an OpenTelemetry layer is
//! installed; its `create` span is told when it is answered, if the builder is given a tracer.
#![warn(missing_docs)]

mod answer;
mod backoff;
mod books;
mod builder;
mod connect;
#[cfg(feature = "direct")]
mod direct;
mod error;
mod link;
mod links;
mod outbox;
mod producer;
mod report;
mod session;
mod task;
mod ticket;
mod tls;
mod token;

pub use builder::Builder;
pub use connect::ConnectError;
pub use error::Error;
pub use headworks_record::{Creation, HashKey, Headers, PartitionKey, Record, headers, key};
pub use producer::Producer;
pub use report::{GatewayState, Report};
pub use ticket::{Receipt, Stored, Ticket};

/// The crate's front page, whose example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
