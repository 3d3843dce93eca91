//! The Headworks gateway: takes records over gRPC and HTTP and puts them on inbound Kinesis streams.
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
//! - a door speaks the protocol: gRPC (`door`) has unary `Put` and pipelined `PutStream` with credit,
//!   HTTP (`http`) has `POST /v1/records`;
//! - [`Principal`] says who is at the door and what it may do;
//! - the intake (`intake`) checks each record, settles its identity and hands it to the writer;
//! - [`headworks_writer`] groups, puts and retries, and answers for each record.
//!
//! What concerns one record is an error in its result; what concerns the call, [`call::Error`], is
//! the call's status. Nothing is taken silently: every record is answered once.
//!
//! With `ack = "spool"` a stream's records are acknowledged by a log on disk ([`spool`]); fields of payloads are
//! dropped, hashed or encrypted by rules ([`protect`]).
//!
//! # HTTP
//!
//! With `http_listen` set, `POST /v1/records` takes what the `Content-Type` says:
//!
//! | Content-Type | body |
//! |---|---|
//! | `application/json` | `{"stream": "inbound", "timeout_ms": 5000, "records": [...]}`; `stream` and `timeout_ms` may be left out |
//! | `application/x-ndjson` | one record per line; blank lines are skipped |
//! | `application/cloudevents+json` | one CloudEvent 1.0 |
//! | `application/cloudevents-batch+json` | an array of them |
//! | any, with `ce-specversion` and its like among the headers | the data of one CloudEvent, in binary mode |
//!
//! `?stream=` and `?timeout_ms=` say the same for all of them. A record is
//! `{"key", "headers": {name: value}, "data" | "data_base64", "explicit_hash_key", "id", "traceparent"}`;
//! `data` is any JSON, which becomes the record's data byte for byte as it stands in the body (a text with
//! its quotes), `data_base64` is any bytes. A body that is not of its form is refused whole.
//!
//! A CloudEvent's attributes become headers, `ce-` before their names, and `datacontenttype` becomes
//! `content-type`. The key is `partitionkey`, else `subject`, else the last 256 characters of `source`, a
//! space and `id`. `source` and `id` together are the idempotent id, so sending an event again repeats its
//! identity; `traceparent` is linked.
//!
//! The answer is `{"results": [...]}`, in the order of the records, each
//! `{"shard_id", "sequence_number", "sub_sequence_number", "attempts"}` or
//! `{"error": {"code", "message", "retryable", "outcome_unknown"}}`. Its status is 200, whatever became of
//! single records; a call that fails has the status of its error and `{"error": {...}}` alone. Senders of
//! CloudEvents look at nothing but the status: there, 200 says that every event is stored, and otherwise
//! the answer has both `error`, one that is worth a retry before others, and `results`.
//!
//! | path | |
//! |---|---|
//! | `GET /healthz` | 200 while the process serves |
//! | `GET /readyz` | 200 while records are taken; 503 when it drains, or no stream can be written; `not_serving` names the streams that cannot |
//! | `GET /metrics` | counts in Prometheus' text format |
//!
//! # Security
//!
//! `gateway.example.toml` beside the crate has every setting with a comment.
//!
//! - Nothing is reachable from other machines unless callers are authenticated (`[auth]`) over encrypted connections
//!   (`[tls]`). `allow_beyond_loopback` and `allow_unencrypted` say otherwise, each by name.
//! - A call has one credential: an API key (`x-api-key`, or a bearer of `authorization`), a JWT as such a bearer,
//!   or the connection's certificate. What is shown must hold, and is checked before anything of the message is
//!   read. [`auth::keys::generate`] makes keys; the gateway keeps their hashes.
//! - Whoever is proven is a [`Principal`] by the first entry of `[[principals]]` that names it, or may do nothing. The
//!   entry says which streams and values of headers it may send, whether it may mint identities, and how much per
//!   second and in flight. Over a limit, a call is refused with `quota-exceeded` and a `PutStream` is held up.
//! - `/healthz`, `/readyz`, gRPC health and reflection are open, and tell the streams' names. `/metrics` takes a
//!   credential unless `auth.open_metrics` is set.
//! - [`Handle::reload`], which SIGHUP calls in the daemon, puts changed keys, principals, certificates and field rules
//!   in force, all or none. A `PutStream` ends when the credential that opened it expires or is taken away.
//!   A token is good until its `exp`, or until its key is gone from the issuer's set.
//! - The audit log tells of refused callers and of the configuration's changes; neither it nor any log has a
//!   credential or a payload.
#![warn(missing_docs)]

mod answer;
pub mod audit;
pub mod auth;
pub mod call;
pub mod config;
mod conn;
mod door;
mod gateway;
mod hand_over;
mod health;
mod http;
mod intake;
pub mod kinesis;
mod metrics;
mod principal;
pub mod protect;
pub mod reload;
mod shared;
pub mod spool;
mod tally;
pub mod tls;
mod unary;

pub use config::{Ack, Config, SpoolConfig, StreamConfig};
pub use gateway::{BindError, Gateway, Handle, Report, RunError};
pub use principal::Principal;
pub use reload::check;
