//! The command line, and what runs for it.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use headworks_telemetry::{Config, Telemetry};

use crate::exit::{Exit, Failure};
use crate::output::{talk, talk_error};
use crate::{consumers, demo, dev, dlq, gateway, local, replay, routes, send, simulate, tail};

/// What is logged on stderr unless HEADWORKS_LOG or RUST_LOG says otherwise: commands talk for themselves, also about
/// credentials that are missing, and the embedded DynamoDB warns of every condition that does not hold.
const LOG_FILTER: &str = "warn,aws_config=error,dynoxide=error";

/// Website events through Kinesis: a pipeline on this machine, and tools to send, read, make up and route records.
///
/// Data goes to stdout, talk to stderr. HEADWORKS_LOG sets what is logged (default warn), the OTEL_* variables where
/// spans go.
#[derive(Debug, Parser)]
#[command(name = "headworks", version, after_help = Exit::HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(about = "Starts the whole pipeline on this machine and leaves it running")]
    Dev(dev::Args),
    #[command(about = "Sends website events through the whole pipeline and proves that none is lost")]
    #[command(after_help = Exit::HELP)]
    Demo(demo::Args),
    #[command(about = "Sends records from a file or stdin")]
    Send(send::Args),
    #[command(about = "Shows the records of a stream")]
    Tail(tail::Args),
    #[command(about = "Sends made-up records")]
    Simulate(simulate::Args),
    /// Checks route tables and explains what they do.
    #[command(subcommand)]
    Routes(routes::Args),
    /// Starts single services on this machine.
    #[command(subcommand)]
    Local(local::Args),
    /// Lists, shows and redrives the router's dead letters.
    #[command(subcommand)]
    Dlq(dlq::Args),
    /// Looks after applications that read streams.
    #[command(subcommand)]
    Consumers(consumers::Args),
    #[command(about = "Shows a time range of a stream again")]
    Replay(replay::Args),
    /// Makes API keys for gateways and checks their configuration.
    #[command(subcommand)]
    Gateway(gateway::Args),
    /// Runs the router's Lambda bootstrap: `dev` and `demo` start it as the router's processes.
    #[command(hide = true)]
    RouterBootstrap,
}

/// Runs the command that the process's arguments name.
pub fn main() -> ExitCode {
    // Prints help and mistakes itself, and ends with exit code 2 for the latter.
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let failure =
                Failure::environment("runtime-unavailable", format_args!("cannot start threads: {error}"));
            talk_error(&failure);
            return failure.exit().into();
        }
    };
    let code = runtime.block_on(run(cli.command));
    // A read of stdin cannot be called off: waiting for it would hold up the end until the next line.
    runtime.shutdown_background();
    code
}

async fn run(command: Command) -> ExitCode {
    let ended = match command {
        // These set up telemetry of their own.
        Command::RouterBootstrap => return router_bootstrap().await,
        Command::Demo(args) => return demo(args).await,
        command => with_telemetry(command).await,
    };
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) => {
            talk_error(&failure);
            failure.exit().into()
        }
    }
}

async fn with_telemetry(command: Command) -> Result<Exit, Failure> {
    // The services of `dev` export spans of their own; the others' spans go where the environment says.
    let exports = matches!(command, Command::Send(_) | Command::Simulate(_));
    let telemetry = telemetry(exports)?;
    let ended = match command {
        Command::Dev(args) => dev::run(args).await,
        Command::Send(args) => send::run(args, &telemetry).await,
        Command::Simulate(args) => simulate::run(args, &telemetry).await,
        Command::Tail(args) => tail::run(args).await,
        Command::Routes(args) => routes::run(args).await,
        Command::Local(args) => local::run(args).await,
        Command::Dlq(args) => dlq::run(args).await,
        Command::Consumers(args) => consumers::run(args).await,
        Command::Replay(args) => replay::run(args).await,
        Command::Gateway(args) => gateway::run(args),
        Command::Demo(_) | Command::RouterBootstrap => Ok(Exit::Ok),
    };
    telemetry.shutdown().await;
    ended
}

fn telemetry(exports: bool) -> Result<Telemetry, Failure> {
    let bad = |error: &dyn std::fmt::Display, code| Failure::usage(code, error);
    let mut config = Config::from_env("headworks-cli").map_err(|error| bad(&error, error.code()))?;
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if !set("HEADWORKS_LOG") && !set("RUST_LOG") {
        LOG_FILTER.clone_into(&mut config.log_filter);
    }
    if !exports {
        config.otlp_endpoint = None;
    }
    let telemetry = Telemetry::start(config).map_err(|error| bad(&error, error.code()))?;
    telemetry.install().map_err(|error| bad(&error, error.code()))?;
    Ok(telemetry)
}

async fn router_bootstrap() -> ExitCode {
    match headworks_router::lambda::run().await {
        Ok(()) => Exit::Ok.into(),
        Err(error) => {
            talk(format_args!("error: {error}"));
            Exit::Environment.into()
        }
    }
}

async fn demo(args: demo::Args) -> ExitCode {
    if let Err(failure) = telemetry(false) {
        talk_error(&failure);
        return failure.exit().into();
    }
    match demo::run(args).await {
        Ok(code) => code,
        Err(error) => {
            talk_error(&Failure::failed("demo-failed", format_args!("{error:#}")));
            Exit::Failed.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_option_is_documented() {
        let cli = Cli::command();
        let mut commands: Vec<&clap::Command> = vec![&cli];
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands());
            for argument in command.get_arguments() {
                let place = format!("{} {}", command.get_name(), argument.get_id());
                assert!(argument.get_help().is_some(), "{place} has no help");
            }
        }
    }
}
