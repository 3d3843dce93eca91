//! The gateway daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use headworks_gateway::{Config, Gateway, Handle, Report, kinesis};
use headworks_telemetry::Telemetry;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit codes beside 0 (stopped, nothing left) and 2 (bad arguments, from clap).
const FAILED: u8 = 1;
const BAD_CONFIG: u8 = 2;
const RECORDS_LEFT: u8 = 3;
const RECORDS_SPOOLED: u8 = 4;

/// Takes records over gRPC and HTTP and puts them on inbound Kinesis streams.
///
/// Stops on SIGTERM or Ctrl-C: it takes no more records and waits for the streams' answers up to
/// drain_ms; a second signal ends it at once. On SIGHUP it reads its configuration again, and puts keys,
/// principals, quotas and certificates in force, all of them or none.
#[derive(Debug, Parser)]
#[command(
    name = "headworks-gateway",
    version,
    after_help = "Settings can also be given as HEADWORKS_GATEWAY_<NAME>, such as \
                  HEADWORKS_GATEWAY_STREAMS=inbound; OTEL_* and HEADWORKS_LOG say what is traced and logged.\n\n\
                  Exit codes: 0 stopped with nothing left; 1 did not start, or failed; 2 bad arguments or \
                  configuration; 3 stopped with records that no stream had confirmed (their senders were told); 4 stopped with acknowledged records in the spool, which the next start puts."
)]
struct Args {
    /// The configuration file (TOML).
    #[arg(long, env = "HEADWORKS_GATEWAY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Checks the configuration and the files that it names without listening, prints what is in force as TOML, and ends.
    #[arg(long)]
    check_config: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let config = match Config::load(args.config.as_deref(), std::env::vars()) {
        Ok(config) => config,
        Err(error) => return complain(&error.into(), BAD_CONFIG),
    };
    if args.check_config {
        if let Err(error) = headworks_gateway::check(&config) {
            return complain(&error.into(), BAD_CONFIG);
        }
        return match toml::to_string(&config) {
            Ok(text) => {
                // A reader that has seen enough is no error.
                let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
                ExitCode::SUCCESS
            }
            Err(error) => complain(&error.into(), FAILED),
        };
    }
    match serve(config, args.config).await {
        Ok(Report { unanswered: 0, spooled: 0, .. }) => ExitCode::SUCCESS,
        Ok(Report { unanswered: 0, .. }) => ExitCode::from(RECORDS_SPOOLED),
        Ok(_) => ExitCode::from(RECORDS_LEFT),
        Err(error) => complain(&error, FAILED),
    }
}

async fn serve(config: Config, file: Option<PathBuf>) -> anyhow::Result<Report> {
    let telemetry = Telemetry::start(headworks_telemetry::Config::from_env("headworks-gateway")?)?;
    telemetry.install()?;
    let shutdown = CancellationToken::new();
    stop_on_signals(shutdown.clone())?;
    let streams = kinesis::streams(&config).await;
    // From here on: until there is something to reload, the signal would end the process.
    let hangups = signal(SignalKind::hangup()).context("SIGHUP cannot be listened for")?;
    let (gateway, handle) = Gateway::bind(config, streams, telemetry.minter(), telemetry.tracer()).await?;
    tokio::spawn(reload_on_signals(hangups, handle, file));
    let ran = gateway.run(shutdown).await;
    // After the last span, whatever the outcome.
    telemetry.shutdown().await;
    Ok(ran?)
}

/// Each SIGHUP has the configuration read again. What becomes of it is logged, counted and audited.
async fn reload_on_signals(mut hangups: Signal, handle: Handle, file: Option<PathBuf>) {
    while hangups.recv().await.is_some() {
        let (handle, file) = (handle.clone(), file.clone());
        let reload = move || handle.reload(Config::load(file.as_deref(), std::env::vars())).is_ok();
        if let Err(error) = tokio::task::spawn_blocking(reload).await {
            tracing::error!("the configuration was not read: {error}");
        }
    }
}

/// The first signal drains, the second one ends the process.
fn stop_on_signals(shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be listened for")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be listened for")?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if shutdown.is_cancelled() {
                tracing::warn!("a second signal: ending without waiting");
                std::process::exit(i32::from(RECORDS_LEFT));
            }
            shutdown.cancel();
        }
    });
    Ok(())
}

fn complain(error: &anyhow::Error, code: u8) -> ExitCode {
    // Errors of ours tell of their sources themselves.
    eprintln!("headworks-gateway: {error}");
    ExitCode::from(code)
}
