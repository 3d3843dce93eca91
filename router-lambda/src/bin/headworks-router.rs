//! The router as a process of its own: `headworks-router --stream inbound --application router`.
//!
//! Everything else is set as for the Lambda function, by environment variables
//! ([`Config`](headworks_router::Config)).

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use headworks_router::lambda::{Parts, assemble};
use headworks_router::stream::{Routing, consumer};
use headworks_router::{Config, progress};
use headworks_telemetry::Telemetry;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Routes the records of a Kinesis stream, as a process of its own.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The inbound stream: its name or ARN.
    #[arg(long)]
    stream: String,
    /// The name of the lease table, and of the fan-out consumer; processes of one name share the shards.
    #[arg(long, default_value = "headworks-router")]
    application: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let telemetry = Telemetry::start(headworks_telemetry::Config::from_env("headworks-router")?)?;
    telemetry.install()?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be received")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be received")?;
    let config = Config::from_env()?;
    let Parts { router, reloader, writers } = assemble(&config, &telemetry).await?;
    // A process remembers what its batches in hand have left: a table would only be slower.
    let router = router.with_progress(Arc::new(progress::Memory::default())).with_read_after(Duration::ZERO);
    let routing = Routing::new(Arc::new(router), Some(Arc::new(reloader)));

    let aws = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let consumer = consumer(&args.application, &args.stream)
        .kinesis(aws_sdk_kinesis::Client::new(&aws))
        .dynamodb(aws_sdk_dynamodb::Client::new(&aws))
        .tracer(telemetry.tracer())
        .build()?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let signals = tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: batches in hand are finished");
        stop.cancel();
    });
    tracing::info!(stream = args.stream, application = args.application, "the router is ready");
    let ended = consumer.run(move |_| routing.clone(), shutdown).await;
    signals.abort();
    writers.shutdown().await;
    telemetry.shutdown().await;
    ended?;
    Ok(())
}
