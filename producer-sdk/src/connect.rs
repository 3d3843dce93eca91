//! Why a producer did not connect.

use std::time::Duration;

/// Why a producer did not connect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The endpoint is not an address.
    #[error(
        "the endpoint {endpoint:?} is not of the form http://host:port: {reason}; take the address that the gateway listens on, such as http://127.0.0.1:4400"
    )]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting is out of bounds.
    #[error("{name} is {value}; it must be from {min} to {max}")]
    OutOfBounds {
        /// The setting's name.
        name: &'static str,
        /// Its value.
        value: String,
        /// The lowest value allowed.
        min: String,
        /// The highest value allowed.
        max: String,
    },
    /// Nobody answers.
    #[error(
        "no gateway answers at {endpoint} within {patience:?}: {last}; check that it runs and listens there, or give more time with Builder::connect_timeout"
    )]
    Unreachable {
        /// The gateway's address.
        endpoint: String,
        /// How long it was tried.
        patience: Duration,
        /// What went wrong last.
        last: String,
    },
    /// Somebody answers, and will not serve this producer.
    #[error("the gateway at {endpoint} refuses: {reason}")]
    Refused {
        /// The gateway's address.
        endpoint: String,
        /// What it says.
        reason: String,
    },
}

impl ConnectError {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            ConnectError::Endpoint { .. } | ConnectError::OutOfBounds { .. } => "config-invalid",
            ConnectError::Unreachable { .. } => "gateway-unreachable",
            ConnectError::Refused { .. } => "gateway-refused",
        }
    }

    /// Whether the same settings may work later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, ConnectError::Unreachable { .. })
    }
}
