//! How a command ends: exit codes, and the one line that says what went wrong.

use std::fmt;
use std::process::ExitCode;

/// The exit codes of every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Everything was done; also after a broken pipe and after Ctrl-C.
    Ok = 0,
    /// Some records failed, or the check that was asked for failed.
    Failed = 1,
    /// The command line or the input is wrong.
    Usage = 2,
    /// Something cannot be reached or used: an endpoint, a port, a stream, a file.
    Environment = 3,
}

impl Exit {
    /// Shown at the end of every command's help.
    pub const HELP: &'static str = "\
Exit codes:
  0  done; a closed pipe and Ctrl-C are no errors
  1  some records failed, or the check failed
  2  the command line or the input is wrong
  3  an endpoint, a port, a stream or a file cannot be reached or used";
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why a command ended early: one line with the value, the limit and the remedy, and a stable code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    exit: Exit,
    code: &'static str,
    message: String,
}

impl Failure {
    /// The command line or the input is wrong.
    pub fn usage(code: &'static str, message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, code, message)
    }

    /// Something cannot be reached or used.
    pub fn environment(code: &'static str, message: impl fmt::Display) -> Self {
        Self::new(Exit::Environment, code, message)
    }

    /// Some records failed, or the check failed.
    pub fn failed(code: &'static str, message: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, code, message)
    }

    fn new(exit: Exit, code: &'static str, message: impl fmt::Display) -> Self {
        // One line: what libraries say may have several.
        let message = message.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        Self { exit, code, message }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The stable code, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The same failure, said to be in this place.
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.code)
    }
}

impl std::error::Error for Failure {}

impl From<headworks_record::key::Error> for Failure {
    fn from(error: headworks_record::key::Error) -> Self {
        Self::usage(error.code(), error)
    }
}

impl From<headworks_record::headers::Error> for Failure {
    fn from(error: headworks_record::headers::Error) -> Self {
        Self::usage(error.code(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line() {
        let failure = Failure::usage("x-bad", "one\n  two").at("line 3");
        assert_eq!(failure.to_string(), "line 3: one two [x-bad]");
        assert_eq!((failure.exit(), failure.code()), (Exit::Usage, "x-bad"));
    }
}
