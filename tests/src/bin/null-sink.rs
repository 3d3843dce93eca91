//! A Kinesis that keeps nothing: the sink of the benchmarks.
//!
//! It speaks the wire protocol (JSON and CBOR 1.1 over HTTP/1.1, h2c, and TLS for clients that insist on it), lists one
//! stream's shards, answers `PutRecords` with one sequence number per record, and counts. Of
//! a body it looks at the members' names and lengths, so that it costs next to nothing beside what is measured.
//!
//! `null-sink [SHARDS [LANES]]` prints one line of JSON with its addresses. `GET /counts` tells what it has seen.

use std::net::Ipv4Addr;

use anyhow::Context as _;
use headworks_tests::null_sink::{Sink, serve};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    const USAGE: &str = "usage: null-sink [SHARDS [LANES]]";
    let shards = std::env::args().nth(1).map_or(Ok(1), |shards| shards.parse());
    let lanes = std::env::args().nth(2).map_or(Ok(1), |lanes| lanes.parse());
    let sink = Sink::new(shards.context(USAGE)?, lanes.context(USAGE)?);
    let plain = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let tls = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!(r#"{{"plain":"http://{}","tls":"https://{}"}}"#, plain.local_addr()?, tls.local_addr()?);
    serve(sink, plain, Some(tls)).await
}
