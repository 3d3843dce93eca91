//! Runs a command beside a pipeline of its own: `with-pipeline COMMAND [ARGUMENTS]`.
//!
//! The command finds the pipeline by the `HEADWORKS_TEST_*` variables. Its exit code is passed on.

use std::process::ExitCode;

use anyhow::Context as _;
use headworks_cli::pipeline::Config;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next().context("usage: with-pipeline COMMAND [ARGUMENTS]")?;
    let pipeline = headworks_tests::pipeline(Config { trace_ratio: 1.0, ..Config::default() }).await?;
    let status = tokio::process::Command::new(&command)
        .args(arguments)
        .envs(headworks_tests::variables(&pipeline))
        .status()
        .await
        .with_context(|| format!("running {}", command.display()))?;
    pipeline.shutdown().await?;
    // A command that a signal ended has no code.
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}
