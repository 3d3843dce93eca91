//! Why a caller is not let in.

use std::time::Duration;

use tonic::Code;

/// Why a caller is not let in. Messages tell neither the credential nor which keys there are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No credential.
    #[error("the call has no credential; send {accepted}")]
    Missing {
        /// What is taken here.
        accepted: String,
    },
    /// A credential that is not taken, or is wrong.
    #[error("the {kind} is not accepted: {reason}; use one that this gateway was configured for")]
    Invalid {
        /// What was shown.
        kind: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A credential whose time is over.
    #[error("the {kind} has expired; get a new one")]
    Expired {
        /// What was shown.
        kind: &'static str,
    },
    /// The issuer's keys are not there.
    #[error(
        "the token cannot be checked: the issuer's keys could not be fetched yet; try again in {} ms, or see that auth.jwt.jwks_url answers",
        retry_after.as_millis()
    )]
    Unverifiable {
        /// When to try again.
        retry_after: Duration,
    },
    /// A proven identity that may do nothing.
    #[error("{principal:?} may not write here; add it to [[principals]] if it is to")]
    NotAllowed {
        /// Who it is.
        principal: String,
    },
    /// More principals at a time than are kept apart.
    #[error("{limit} principals have calls or limits running, which is the most; try again in a second")]
    TooMany {
        /// The limit.
        limit: usize,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Missing { .. } => "credentials-missing",
            Error::Invalid { .. } => "credentials-invalid",
            Error::Expired { .. } => "credentials-expired",
            Error::Unverifiable { .. } => "credentials-unverifiable",
            Error::NotAllowed { .. } => "principal-not-allowed",
            Error::TooMany { .. } => "principals-too-many",
        }
    }

    /// Whether the same credential may be taken later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Unverifiable { .. } | Error::TooMany { .. })
    }

    /// When a retry is worth while.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Unverifiable { retry_after } => Some(*retry_after),
            Error::TooMany { .. } => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// The gRPC status code.
    pub fn grpc(&self) -> Code {
        match self {
            Error::Missing { .. } | Error::Invalid { .. } | Error::Expired { .. } => Code::Unauthenticated,
            Error::Unverifiable { .. } => Code::Unavailable,
            Error::NotAllowed { .. } => Code::PermissionDenied,
            Error::TooMany { .. } => Code::ResourceExhausted,
        }
    }
}
