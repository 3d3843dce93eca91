//! Kills, reshards and repeats, and each effect exactly once: `chaos --seconds 600`.

use std::process::ExitCode;

use clap::Parser;
use headworks_tests::chaos;

#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    config: chaos::Config,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    /// One worker, which `chaos` starts and kills.
    #[command(hide = true)]
    Worker {
        /// Its name.
        name: String,
        /// Applies effects at least once.
        #[arg(long)]
        careless: bool,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    if let Some(Part::Worker { name, careless }) = cli.part {
        chaos::worker::run(&name, careless).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let verdict = chaos::run(cli.config).await?;
    println!("{verdict}");
    Ok(if verdict.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
