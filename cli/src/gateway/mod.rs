//! `headworks gateway`: what an operator of gateways needs.

mod check;
mod key;

use crate::exit::{Exit, Failure};

/// What an operator of gateways needs: API keys, and a look at a configuration before it is put in force.
#[derive(Debug, clap::Subcommand)]
pub enum Args {
    #[command(about = "Makes an API key")]
    Key(key::Args),
    #[command(about = "Checks a gateway's configuration and the files that it names")]
    Check(check::Args),
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    match args {
        Args::Key(args) => key::run(args),
        Args::Check(args) => check::run(args),
    }
}
