//! Why a record is not known to be stored.

use std::time::Duration;

/// Why a record is not known to be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The gateway says that the record is not stored.
    #[error("{message} ({code})")]
    Refused {
        /// The gateway's stable code, as in `docs/errors/`.
        code: String,
        /// What is wrong, with the value, the limit and the remedy.
        message: String,
        /// Whether the same record may be stored later.
        retryable: bool,
    },
    /// Nobody knows whether the record is stored: sending it again can repeat it.
    #[error("the record may be stored, or not: {message}")]
    OutcomeUnknown {
        /// What is known.
        message: String,
    },
    /// The record's time passed before it could be sent. It is not stored.
    #[error(
        "not sent to the gateway at {endpoint} within {timeout:?}: {last}; check that it runs and keeps up, or give more time with Builder::timeout"
    )]
    Timeout {
        /// The gateway's address.
        endpoint: String,
        /// The time that records have.
        timeout: Duration,
        /// What went wrong last.
        last: String,
    },
    /// The record can never be sent.
    #[error(
        "the record takes {bytes} bytes, the limit is {limit} ({setting}); shrink its data, or store it elsewhere and send a reference"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
        /// Whose limit it is.
        setting: &'static str,
    },
    /// The producer was closed before the record left it. It is not stored.
    #[error(
        "the producer is closed, and the record was not sent; send before Producer::close, or give it more time"
    )]
    Closed,
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &str {
        match self {
            Error::Refused { code, .. } => code,
            Error::OutcomeUnknown { .. } => "outcome-unknown",
            Error::Timeout { .. } => "deadline-exceeded",
            Error::TooLarge { .. } => "record-too-large",
            Error::Closed => "producer-closed",
        }
    }

    /// Whether the same record may be stored later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Refused { retryable, .. } => *retryable,
            Error::OutcomeUnknown { .. } | Error::Timeout { .. } => true,
            Error::TooLarge { .. } | Error::Closed => false,
        }
    }

    /// Whether the record may be stored all the same.
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Error::OutcomeUnknown { .. })
    }
}
