//! `headworks local`: single services on this machine.

mod kinesis;

use crate::exit::{Exit, Failure};

pub use kinesis::Limits;

/// Single services on this machine, for tests and for programs of one's own.
#[derive(Debug, clap::Subcommand)]
pub enum Args {
    #[command(about = "Starts a Kinesis of its own and leaves it running")]
    Kinesis(kinesis::Args),
}

pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    match args {
        Args::Kinesis(args) => kinesis::run(args).await,
    }
}
