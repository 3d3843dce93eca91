//! Why a gateway does not start, or stops.

use std::io;
use std::net::SocketAddr;

use crate::{audit, auth, config, protect, spool, tls};

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A stream cannot be written to.
    #[error("{source} (Kinesis endpoint: {endpoint})")]
    Stream {
        /// Where Kinesis was looked for.
        endpoint: String,
        /// What the writer said.
        source: headworks_writer::StartError,
    },
    /// A stream's spool cannot be opened.
    #[error("stream {stream:?}: {source}")]
    Spool {
        /// The stream's name.
        stream: String,
        /// What is wrong.
        source: spool::OpenError,
    },
    /// What credentials are checked against.
    #[error(transparent)]
    Auth(#[from] auth::BuildError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] audit::OpenError),
    /// A stream's fields cannot be protected.
    #[error("stream {stream:?}: {source}")]
    Protect {
        /// The stream's name.
        stream: String,
        /// What is wrong.
        source: protect::KeysError,
    },
    /// A key service gives no data key.
    #[cfg(feature = "kms")]
    #[error("stream {stream:?}: {source}")]
    KeyService {
        /// The stream's name.
        stream: String,
        /// What is wrong.
        source: protect::kms::Error,
    },
    /// The port is taken.
    #[error(
        "the address {address} is already in use; stop the process that listens there, or set {setting} ({}) to another port",
        config::variable(setting)
    )]
    AddressInUse {
        /// The setting that names the address.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error(
        "cannot listen on {address}: {source}; set {setting} ({}) to an address of this machine and a port that may be used",
        config::variable(setting)
    )]
    Listen {
        /// The setting that names the address.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The contract's descriptors cannot be served; a defect of the build.
    #[error("the contract's descriptors are damaged: {source}; build the gateway again")]
    Reflection {
        /// What is wrong.
        source: tonic_reflection::server::Error,
    },
}

impl BindError {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            BindError::Config(error) => error.code(),
            BindError::Stream { source, .. } => source.code(),
            BindError::Spool { source, .. } => source.code(),
            BindError::Protect { source, .. } => source.code(),
            #[cfg(feature = "kms")]
            BindError::KeyService { source, .. } => source.code(),
            BindError::Auth(error) => error.code(),
            BindError::Tls(error) => error.code(),
            BindError::Audit(error) => error.code(),
            BindError::AddressInUse { .. } => "address-in-use",
            BindError::Listen { .. } => "listen-failed",
            BindError::Reflection { .. } => "internal",
        }
    }

    /// Whether a later start may succeed with the same settings.
    pub fn is_retryable(&self) -> bool {
        match self {
            BindError::Config(error) => error.is_retryable(),
            BindError::Stream { source, .. } => source.is_retryable(),
            BindError::Spool { source, .. } => source.is_retryable(),
            BindError::Protect { source, .. } => source.is_retryable(),
            #[cfg(feature = "kms")]
            BindError::KeyService { source, .. } => source.is_retryable(),
            BindError::Auth(error) => error.is_retryable(),
            BindError::Tls(error) => error.is_retryable(),
            BindError::Audit(error) => error.is_retryable(),
            BindError::AddressInUse { .. } => true,
            BindError::Listen { .. } | BindError::Reflection { .. } => false,
        }
    }
}

/// Why a gateway stopped that nobody told to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The server failed.
    #[error("the server on {address} failed: {source}")]
    Serve {
        /// The address.
        address: SocketAddr,
        /// What happened.
        source: tonic::transport::Error,
    },
    /// A part that runs as long as the gateway ended by itself: a defect.
    #[error("the gateway's {what} stopped by itself ({reason}); restart the gateway")]
    Stopped {
        /// Which part.
        what: &'static str,
        /// What is known.
        reason: String,
    },
}

impl RunError {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            RunError::Serve { .. } => "serve-failed",
            RunError::Stopped { .. } => "internal",
        }
    }

    /// Whether a gateway that is started again may do better.
    pub fn is_retryable(&self) -> bool {
        true
    }
}
