//! The Lambda function's executable; Lambda's custom runtimes start a file of this name.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match headworks_router::lambda::run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not through the log: it may be what could not be set up.
            eprintln!("{}: {error}", error.code());
            ExitCode::FAILURE
        }
    }
}
