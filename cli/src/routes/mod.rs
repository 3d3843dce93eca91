//! `headworks routes`: route tables, checked and explained.

mod explain;
mod subject;

use std::path::{Path, PathBuf};

use headworks_router::table::{Error, Mode, RouteTable};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::{self, Output};

/// Checks a route table, or says where certain records go and why.
#[derive(Debug, clap::Subcommand)]
pub enum Args {
    /// Compiles a route table: prints its streams, or the line and the reason why it is refused.
    #[command(after_help = Exit::HELP)]
    Check {
        /// The table, .toml or .json.
        file: PathBuf,
        /// Prints one line of JSON.
        #[arg(long)]
        json: bool,
    },
    #[command(about = "Says which rule a record matches and why")]
    Test(explain::Args),
}

pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    match args {
        Args::Check { file, json } => check(&file, json),
        Args::Test(args) => explain::run(args).await,
    }
}

/// A table that another command needs.
pub(crate) fn load(file: &Path) -> Result<RouteTable, Failure> {
    RouteTable::load(file).map_err(|error| match error {
        Error::Unreadable { .. } => Failure::environment(error.code(), &error),
        _ => Failure::usage(error.code(), &error),
    })
}

#[derive(Serialize)]
struct Checked<'a> {
    rules: usize,
    mode: Mode,
    streams: Vec<&'a str>,
}

fn check(file: &Path, json: bool) -> Result<Exit, Failure> {
    let table = RouteTable::load(file).map_err(|error| match error {
        Error::Unreadable { .. } => Failure::environment(error.code(), &error),
        _ => Failure::failed(error.code(), &error),
    })?;
    let checked = Checked {
        rules: table.len(),
        mode: table.mode(),
        streams: table.streams().iter().map(|stream| &**stream).collect(),
    };
    let mut output = Output::stdout();
    let mut write = || {
        if json {
            output.json(&checked)?;
        } else {
            output.line(format_args!(
                "{}: {} rules, streams: {}",
                file.display(),
                checked.rules,
                checked.streams.join(", ")
            ))?;
        }
        output.flush()
    };
    output::settled(write()).map(|()| Exit::Ok)
}
