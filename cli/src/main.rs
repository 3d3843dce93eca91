//! The `headworks` command; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    headworks_cli::main()
}
