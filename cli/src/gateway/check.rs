//! `headworks gateway check`.

use std::path::PathBuf;

use headworks_gateway::Config;
use headworks_gateway::config::Error;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::{self, Output};

/// Checks a gateway's configuration and the files that it names, without listening: keys, certificates, the audit
/// log.
///
/// Variables HEADWORKS_GATEWAY_... are left aside unless --env is given.
#[derive(Debug, clap::Args)]
#[command(after_help = Exit::HELP)]
pub struct Args {
    /// The configuration, .toml.
    file: PathBuf,
    /// Lays the environment's HEADWORKS_GATEWAY_... variables over the file, as the gateway does.
    #[arg(long)]
    env: bool,
    /// Prints one line of JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Checked {
    streams: Vec<String>,
    listen: String,
    authenticates: bool,
    tls: bool,
}

pub(super) fn run(args: Args) -> Result<Exit, Failure> {
    let place = args.file.display().to_string();
    let variables = std::env::vars().filter(|_| args.env);
    let config = Config::load(Some(&args.file), variables).map_err(|error| match error {
        Error::Unreadable { .. } => Failure::environment(error.code(), &error),
        _ => Failure::failed(error.code(), chain(&error)).at(&place),
    })?;
    headworks_gateway::check(&config)
        .map_err(|error| Failure::failed(error.code(), chain(&error)).at(&place))?;
    let checked = Checked {
        streams: config.streams.iter().map(|stream| stream.name.to_string()).collect(),
        listen: config.listen.to_string(),
        authenticates: config.auth.is_enabled(),
        tls: config.tls.is_some(),
    };
    let mut output = Output::stdout();
    let mut write = || {
        if args.json {
            output.json(&checked)?;
        } else {
            let auth =
                if checked.authenticates { "callers must prove who they are" } else { "anybody may call" };
            let tls = if checked.tls { "TLS" } else { "no TLS" };
            let streams = checked.streams.join(", ");
            output.line(format_args!(
                "{place}: listens on {}, {tls}, {auth}; streams: {streams}",
                checked.listen
            ))?;
        }
        output.flush()
    };
    output::settled(write()).map(|()| Exit::Ok)
}

/// The whole chain of what is wrong: the parser says where.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
