//! One worker of a consumer, for the interop suite: prints each record that it handles, and stops gracefully.
//!
//! Its one argument is JSON, see [`Options`]. A line is `record TAB shard TAB sequence TAB sub-sequence TAB key TAB
//! data`, as the suite's KCL worker prints it. Endpoints and credentials come from the environment
//! (`AWS_ENDPOINT_URL_KINESIS`, `AWS_ENDPOINT_URL_DYNAMODB`).

use std::time::Duration;

use anyhow::{Context as _, bail};
use aws_config::BehaviorVersion;
use headworks_consumer::{Consumer, Foreign, Start};
use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Options {
    stream: String,
    application: String,
    /// Stops after this many records.
    stop_after: u64,
    /// How long to go on after them, in ms. With 0 exactly `stop-after` records are printed and acknowledged.
    #[serde(default)]
    linger: u64,
    /// TRIM_HORIZON or LATEST.
    #[serde(default)]
    start: Option<String>,
    /// Seconds after which too few records are an error.
    #[serde(default = "deadline")]
    deadline: u64,
    /// Whether aggregates of other writers follow the KCL's rule.
    #[serde(default)]
    kcl_rule: bool,
}

fn deadline() -> u64 {
    90
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    let text = std::env::args().nth(1).context("usage: interop-consumer '{\"stream\": …}'")?;
    let options: Options = serde_json::from_str(&text).context("reading the options")?;
    let start = match options.start.as_deref() {
        None | Some("TRIM_HORIZON") => Start::TrimHorizon,
        Some("LATEST") => Start::Latest,
        Some(other) => bail!("start is {other:?}; it is TRIM_HORIZON or LATEST"),
    };
    let aws = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let consumer = Consumer::builder(&options.application, &options.stream)
        .kinesis(aws_sdk_kinesis::Client::new(&aws))
        .dynamodb(aws_sdk_dynamodb::Client::new(&aws))
        .start(start)
        .checkpoint_interval(Duration::ZERO)
        // Records in hand are never acknowledged after the stop.
        .configure(|config| {
            config.drain_timeout = Duration::from_secs(2);
            config.shard_sync_interval = Duration::from_secs(2);
            if options.kcl_rule {
                config.foreign = Foreign::Skip;
            }
        })
        .build()?;
    let stop = CancellationToken::new();
    let mut records = consumer.stream(stop.clone());
    let mut until = Instant::now() + Duration::from_secs(options.deadline);
    let linger = Duration::from_millis(options.linger);
    let mut printed = 0;
    if options.stop_after == 0 {
        until = Instant::now() + linger;
    }
    let enough = loop {
        let next = tokio::select! {
            next = records.next() => next.context("the consumer ended by itself")??,
            () = tokio::time::sleep_until(until) => break printed >= options.stop_after,
        };
        let data = String::from_utf8_lossy(&next.record.data);
        println!(
            "record\t{}\t{}\t{}\t{}\t{data}",
            next.shard, next.sequence_number, next.sub_sequence_number, next.record.key
        );
        next.ack();
        printed += 1;
        if printed == options.stop_after {
            if linger.is_zero() {
                break true;
            }
            until = Instant::now() + linger;
        }
    };
    stop.cancel();
    while let Some(left) = records.next().await {
        // Not acknowledged: it is for whoever goes on.
        drop(left?);
    }
    println!("stopped\tgraceful\t{printed}");
    if !enough {
        bail!("only {printed} of {} records came within {} s", options.stop_after, options.deadline);
    }
    Ok(())
}
