//! Why a route table is refused.

use std::path::PathBuf;

/// Why a route table is refused. The table in force, if there is one, stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("the route table {} cannot be read: {source}; check the path and its permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file's name does not tell its format.
    #[error("the route table {} is neither .toml nor .json; rename it to one of them", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// The text is not of the schema.
    #[error("{file}, line {line}, column {column}: {reason}")]
    Syntax {
        /// The file's name, or what stands for it.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// The table makes no sense.
    #[error("{file}, line {line}: {place}: {reason}; {remedy}")]
    Invalid {
        /// The file's name, or what stands for it.
        file: String,
        /// The line where the rule begins, from 1.
        line: usize,
        /// The rule, by number and name.
        place: String,
        /// What is wrong.
        reason: String,
        /// What to do.
        remedy: String,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Unreadable { .. } => "route-table-unreadable",
            Error::UnknownFormat { .. } => "route-table-format-unknown",
            Error::Syntax { .. } => "route-table-syntax",
            Error::Invalid { .. } => "route-table-invalid",
        }
    }

    /// Whether the same input may be accepted later: only a file that could not be read.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Unreadable { .. })
    }

    /// The line that is at fault, where there is one.
    pub fn line(&self) -> Option<usize> {
        match self {
            Error::Syntax { line, .. } | Error::Invalid { line, .. } => Some(*line),
            Error::Unreadable { .. } | Error::UnknownFormat { .. } => None,
        }
    }
}
