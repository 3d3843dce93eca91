//! What a record costs the writer, against the floor that the formats force on anyone.
//!
//! Prints one JSON object per figure and line on stdout, and talks on stderr. CPU time is that of every
//! thread of the process but the sink's; the floor is computed on the bytes that were put, in the same run.
#![allow(
    unreachable_pub,
    missing_debug_implementations,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a bench fails by panicking"
)]

#[path = "writer/cpu.rs"]
mod cpu;
#[path = "writer/fill.rs"]
mod fill;
#[path = "writer/frames.rs"]
mod frames;
#[path = "writer/null.rs"]
mod null;
#[path = "writer/sink.rs"]
mod sink;
#[path = "writer/work.rs"]
mod work;

use std::sync::Arc;

use headworks_record::Record;
use headworks_record::aggregate::{Builder, MAGIC};
use headworks_writer::{Config, KinesisStream};
use md5::{Digest, Md5};
use serde_json::json;
use sha2::Sha256;

use crate::cpu::Cpu;
use crate::null::NullStream;
use crate::sink::Sink;

const RECORDS: usize = 500_000;
/// Records to choose from: they fit into the cache.
const POOL: usize = 4_000;
const SHARDS: u128 = 4;

fn main() {
    // `cargo test --benches` runs this too, to see that it works.
    let quick = std::env::args().any(|arg| arg == "--test") || !std::env::args().any(|arg| arg == "--bench");
    let count = if quick { 4_000 } else { RECORDS };
    let pool = work::records(POOL, 200);
    eprintln!("{count} records of 200 bytes of data, two headers and a creation context");

    let (bodies, put) = kinesis(&pool, count);
    let keys = floor_of_keys(&pool, count);
    let aggregates = floor_of_aggregates(&put, count);
    let signed = floor_of_bodies(&bodies, count);
    eprintln!("floor per record: key {keys:.0} ns, aggregate {aggregates:.0} ns, signed body {signed:.0} ns");
    let hashes = keys + aggregates;
    let floor = hashes + signed;
    figure("floor", "cpu_ns_per_record", floor, "ns", None);
    figure("codec", "cpu_ns_per_record", codec(&pool, count), "ns", Some(hashes));
    let null = work::run(&pool, count, Config::default(), NullStream::new(SHARDS));
    figure("writer-null-stream", "cpu_ns_per_record", null, "ns", Some(hashes));
    let sent = Sink::start(SHARDS);
    let stream = KinesisStream::new(sent.client(), "bench");
    let whole = work::run(&pool, count, Config::default(), stream);
    figure("writer-kinesis-sink", "cpu_ns_per_record", whole, "ns", Some(floor));
    figure("writer-kinesis-sink", "records_per_s_per_core", 1e9 / whole, "records/s", None);
    fill::tables(quick);
    frames::gain(quick);
}

fn figure(case: &str, metric: &str, value: f64, unit: &str, floor: Option<f64>) {
    let against = floor.map(|_| "floor");
    let ratio = floor.map(|floor| value / floor);
    let line = json!({
        "part": "gateway", "case": case, "metric": metric, "value": value, "unit": unit,
        "against": against, "against_value": floor, "ratio": ratio,
    });
    println!("{line}");
}

/// The request bodies and the aggregates of a run, to compute the floor on.
fn kinesis(pool: &[Record], count: usize) -> (Vec<Vec<u8>>, Vec<bytes::Bytes>) {
    let sink = Sink::keeping(SHARDS);
    let stream = null::Recording::new(KinesisStream::new(sink.client(), "bench"));
    let kept = Arc::clone(&stream.entries);
    work::run(pool, count, Config::default(), stream);
    let entries = std::mem::take(&mut *kept.lock().unwrap());
    (sink.bodies(), entries)
}

fn floor_of_keys(pool: &[Record], count: usize) -> f64 {
    let cpu = Cpu::start();
    for record in pool.iter().cycle().take(count) {
        std::hint::black_box(record.hash_key());
    }
    cpu.ns_each(count)
}

fn floor_of_aggregates(put: &[bytes::Bytes], records: usize) -> f64 {
    let cpu = Cpu::start();
    for blob in put {
        std::hint::black_box(Md5::digest(&blob[MAGIC.len()..blob.len() - 16]));
    }
    cpu.ns_each(records)
}

fn floor_of_bodies(bodies: &[Vec<u8>], records: usize) -> f64 {
    let cpu = Cpu::start();
    for body in bodies {
        std::hint::black_box(Sha256::digest(body));
    }
    cpu.ns_each(records)
}

/// Hashing keys and building aggregates, with nothing round it.
fn codec(pool: &[Record], count: usize) -> f64 {
    let limit = Config::default().aggregate_bytes;
    let cpu = Cpu::start();
    let mut builder = Builder::with_capacity(limit);
    for record in pool.iter().cycle().take(count) {
        std::hint::black_box(record.hash_key());
        if !builder.push_within(record, None, limit) {
            std::hint::black_box(std::mem::replace(&mut builder, Builder::with_capacity(limit)).finish());
            builder.push(record);
        }
    }
    std::hint::black_box(builder.finish());
    cpu.ns_each(count)
}
