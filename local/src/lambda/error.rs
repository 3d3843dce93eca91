//! [`FunctionError`]: why an invocation gave no response, and [`ConfigError`]: why a configuration is refused.

use std::sync::Arc;
use std::time::Duration;

/// Why an invocation gave no response.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FunctionError {
    /// The function answered with an error.
    #[error("the function reported {error_type}: {message}")]
    Reported {
        /// The error's type, as the function named it.
        error_type: String,
        /// The error's message.
        message: String,
    },
    /// The program reported that it could not initialize.
    #[error("the function could not initialize: {error_type}: {message}")]
    Init {
        /// The error's type, as the function named it.
        error_type: String,
        /// The error's message.
        message: String,
    },
    /// The program did not ask for its first invocation in time.
    #[error(
        "the function did not initialize within {limit:?}: it must ask the Runtime API for an invocation"
    )]
    InitTimeout {
        /// The time allowed.
        limit: Duration,
    },
    /// The program could not be started.
    #[error("cannot start {program:?}: {source}; check that the file exists and is executable")]
    Spawn {
        /// The program.
        program: String,
        /// The operating system's answer.
        source: Arc<std::io::Error>,
    },
    /// The process ended before it answered.
    #[error("the function's process ended before it answered ({status})")]
    Exited {
        /// How it ended.
        status: String,
    },
    /// The function did not answer in time; its process was killed.
    #[error("the function did not answer within {limit:?} and was stopped")]
    Timeout {
        /// The time allowed.
        limit: Duration,
    },
    /// The closure panicked.
    #[error("the function panicked: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },
    /// The response is larger than Lambda takes.
    #[error("the response is larger than {limit} bytes, the most that Lambda takes; return less")]
    ResponseTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The function has been shut down.
    #[error("the function has been shut down")]
    Stopped,
}

impl FunctionError {
    /// An error that a function reports itself.
    pub fn reported(error_type: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Reported { error_type: error_type.into(), message: message.into() }
    }

    /// Whether the same payload may succeed when sent again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Stopped)
    }

    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Reported { .. } => "function-reported-error",
            Self::Init { .. } => "function-init-failed",
            Self::InitTimeout { .. } => "function-init-timeout",
            Self::Spawn { .. } => "function-not-started",
            Self::Exited { .. } => "function-exited",
            Self::Timeout { .. } => "function-timeout",
            Self::Panicked { .. } => "function-panicked",
            Self::ResponseTooLarge { .. } => "function-response-too-large",
            Self::Stopped => "function-stopped",
        }
    }
}

/// A configuration value that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}: {remedy}")]
pub struct ConfigError {
    /// The field's name.
    pub field: &'static str,
    /// The value given.
    pub value: String,
    /// The limit, and what to do.
    pub remedy: String,
}

impl ConfigError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "lambda-config-invalid"
    }

    pub(super) fn new(field: &'static str, value: impl ToString, remedy: impl Into<String>) -> Self {
        Self { field, value: value.to_string(), remedy: remedy.into() }
    }

    pub(super) fn check<T: PartialOrd + std::fmt::Display>(
        field: &'static str,
        value: T,
        range: std::ops::RangeInclusive<T>,
    ) -> Result<(), Self> {
        if range.contains(&value) {
            return Ok(());
        }
        let remedy = format!("choose a value from {} to {}", range.start(), range.end());
        Err(Self::new(field, value, remedy))
    }

    pub(super) fn check_duration(
        field: &'static str,
        value: Duration,
        range: std::ops::RangeInclusive<Duration>,
    ) -> Result<(), Self> {
        if range.contains(&value) {
            return Ok(());
        }
        let remedy = format!("choose a duration from {:?} to {:?}", range.start(), range.end());
        Err(Self::new(field, format!("{value:?}"), remedy))
    }
}
