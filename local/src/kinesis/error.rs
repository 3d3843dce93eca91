//! The service's errors: one variant per exception, with the message that a client of the service would see.
//!
//! Kinds and messages name their source where they are made. "API_…" is a page of the API reference, whose Errors say
//! the kind but no words. "Seen: …" is where the service's own words were seen: kinesalite's tests, which were run
//! against the service, or a report of its users. "Words: ours" are words of this project, which the service has
//! others for.

/// Why an operation was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request breaks a constraint of its shape.
    #[error("{0}")]
    Validation(String),
    /// A value is of the right shape but cannot be used here.
    #[error("{0}")]
    InvalidArgument(String),
    /// There is no such stream, shard or consumer.
    #[error("{0}")]
    ResourceNotFound(String),
    /// The resource is in a state that forbids the operation.
    #[error("{0}")]
    ResourceInUse(String),
    /// An account limit would be exceeded.
    #[error("{0}")]
    LimitExceeded(String),
    /// A shard iterator is older than its lifetime.
    #[error("{0}")]
    ExpiredIterator(String),
    /// A paging token is older than its lifetime.
    #[error("{0}")]
    ExpiredNextToken(String),
    /// A shard takes no more for now.
    #[error("{0}")]
    ThroughputExceeded(String),
    /// The body cannot be read as the operation's request.
    #[error("{0}")]
    Serialization(String),
    /// The target names no operation that exists here.
    #[error("{0}")]
    UnknownOperation(String),
    /// The request is not one of this protocol.
    #[error("{0}")]
    NotOfThisProtocol(String),
    /// The call would have succeeded, and was only to be tried.
    #[error("The request was rejected because the DryRun parameter was specified.")]
    DryRun,
    /// An error that a fault asked for; see [`crate::faults`].
    #[error("{message}")]
    Injected {
        /// The exception's name.
        exception: String,
        /// The HTTP status.
        status: http::StatusCode,
        /// The message.
        message: String,
    },
    /// A fault of this server.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// The exception's name on the wire.
    #[must_use]
    pub fn exception(&self) -> &str {
        match self {
            Self::Validation(_) => "ValidationException",
            Self::InvalidArgument(_) => "InvalidArgumentException",
            Self::ResourceNotFound(_) => "ResourceNotFoundException",
            Self::ResourceInUse(_) => "ResourceInUseException",
            Self::LimitExceeded(_) => "LimitExceededException",
            Self::ExpiredIterator(_) => "ExpiredIteratorException",
            Self::ExpiredNextToken(_) => "ExpiredNextTokenException",
            Self::ThroughputExceeded(_) => "ProvisionedThroughputExceededException",
            Self::Serialization(_) => "SerializationException",
            Self::UnknownOperation(_) | Self::NotOfThisProtocol(_) => "UnknownOperationException",
            Self::DryRun => "DryRunOperationException",
            Self::Injected { exception, .. } => exception,
            Self::Internal(_) => "InternalFailure",
        }
    }

    /// The stable code of this crate's own errors.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Validation(_) => "local-kinesis-validation",
            Self::InvalidArgument(_) => "local-kinesis-invalid-argument",
            Self::ResourceNotFound(_) => "local-kinesis-resource-not-found",
            Self::ResourceInUse(_) => "local-kinesis-resource-in-use",
            Self::LimitExceeded(_) => "local-kinesis-limit-exceeded",
            Self::ExpiredIterator(_) => "local-kinesis-expired-iterator",
            Self::ExpiredNextToken(_) => "local-kinesis-expired-next-token",
            Self::ThroughputExceeded(_) => "local-kinesis-throughput-exceeded",
            Self::Serialization(_) => "local-kinesis-serialization",
            Self::UnknownOperation(_) => "local-kinesis-unknown-operation",
            Self::NotOfThisProtocol(_) => "local-kinesis-not-of-this-protocol",
            Self::DryRun => "local-kinesis-dry-run",
            Self::Injected { .. } => "local-kinesis-injected",
            Self::Internal(_) => "local-kinesis-internal",
        }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::ThroughputExceeded(_)
            | Self::LimitExceeded(_)
            | Self::ResourceInUse(_)
            | Self::Internal(_) => true,
            Self::Injected { status, .. } => status.is_server_error(),
            _ => false,
        }
    }

    /// The HTTP status that carries it.
    #[must_use]
    pub fn status(&self) -> http::StatusCode {
        match self {
            Self::Internal(_) => http::StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotOfThisProtocol(_) => http::StatusCode::NOT_FOUND,
            Self::Injected { status, .. } => *status,
            _ => http::StatusCode::BAD_REQUEST,
        }
    }
}
