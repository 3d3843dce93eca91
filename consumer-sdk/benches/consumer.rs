//! What a consumer costs and how late it is.
//!
//! - CPU per record, taken apart and handled, against the floor that the format forces on anyone: one MD5 of
//!   each aggregate, computed in the same run on the same bytes, one after the other. (The consumer takes those of
//!   an event side by side, so it may cost less than that.) The whole way of a consumer is in it
//!   (fetcher, reader, de-duplication, handler, checkpoints); only the stream and the lease table are in memory.
//! - The delay from a put to the handler, against a bare `SubscribeToShard` on the same stream at the same time.
//! - The time from a worker's crash to the first record that another one handles of its shard.
//!
//! Prints one JSON object per figure and line on stdout, and talks on stderr.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark that cannot go on panics"
)]

#[path = "consumer/delay.rs"]
mod delay;
#[path = "consumer/feed.rs"]
mod feed;
#[path = "consumer/handled.rs"]
mod handled;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "consumer/takeover.rs"]
mod takeover;

use serde_json::json;

fn main() {
    // `cargo test --benches` runs this too, to see that it works.
    let quick = std::env::args().any(|arg| arg == "--test") || !std::env::args().any(|arg| arg == "--bench");
    // Anything else that is named runs alone.
    let only: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let wanted = |part: &str| only.is_empty() || only.iter().any(|name| name == part);
    // So does one case of it: `handled 200B`.
    let cases = only.iter().any(|name| name.starts_with(|first: char| first.is_ascii_digit()));
    let runs = std::env::args().find_map(|arg| arg.strip_prefix("--runs=")?.parse().ok());
    if wanted("handled") {
        handled::measure(quick, |case| !cases || only.iter().any(|name| name == case), runs);
    }
    if wanted("delay") {
        delay::measure(quick);
    }
    if wanted("takeover") {
        takeover::measure(quick);
    }
}

/// One figure, beside another one where there is one.
pub fn figure(case: &str, metric: &str, value: f64, unit: &str, against: Option<(&str, f64)>) {
    let line = json!({
        "part": "consumer", "case": case, "metric": metric, "value": value, "unit": unit,
        "against": against.map(|(name, _)| name), "against_value": against.map(|(_, value)| value),
        "ratio": against.map(|(_, other)| value / other),
    });
    println!("{line}");
}
