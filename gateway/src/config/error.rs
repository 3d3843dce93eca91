//! Why a configuration is refused.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{ENV_FILE, ENV_PREFIX};

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error(
        "the configuration file {path:?} cannot be read: {source}; check the path given by --config or {ENV_FILE}"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration file {path:?} is not valid TOML: {source}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A setting is unknown or of the wrong kind.
    #[error("the configuration ({origin}) is not valid: {source}")]
    Unknown {
        /// The file, and the variables that took part.
        origin: String,
        /// Which and why.
        source: Box<toml::de::Error>,
    },
    /// A number is out of bounds.
    #[error("{name} is {value}; it must be from {min} to {max}")]
    OutOfBounds {
        /// The setting's name.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The lowest value allowed.
        min: u64,
        /// The highest value allowed.
        max: u64,
    },
    /// No stream is served.
    #[error("no stream is served; add [[streams]] with a name to the file, or set {ENV_PREFIX}STREAMS")]
    NoStreams,
    /// A stream's name is not one that Kinesis takes.
    #[error(
        "the stream name {name:?} is not 1 to 128 of a-z, A-Z, 0-9, '_', '.' and '-'; give the name alone, not an ARN"
    )]
    StreamName {
        /// The name.
        name: String,
    },
    /// A stream stands twice.
    #[error("the stream {name:?} is listed twice; remove one")]
    StreamTwice {
        /// The name.
        name: String,
    },
    /// The default stream is not served.
    #[error(
        "default_stream is {name:?}, which is not among the streams ({served}); add it or name one of these"
    )]
    DefaultStream {
        /// The name.
        name: String,
        /// The streams that are.
        served: String,
    },
    /// A stream's writer setting.
    #[error("stream {stream:?}: {source}")]
    Writer {
        /// The stream's name.
        stream: String,
        /// Which setting.
        source: headworks_writer::ConfigError,
    },
    /// A writer's own drain time.
    #[error(
        "stream {stream:?} sets writer.drain_ms, but the gateway drains all streams together: set drain_ms at the top level"
    )]
    WriterDrain {
        /// The stream's name.
        stream: String,
    },
    /// A spool without a directory.
    #[error(
        "stream {stream:?} has ack = \"spool\" and no spool.directory; name one on a disk that outlives the process, such as spool.directory = \"/var/lib/headworks\""
    )]
    SpoolDirectory {
        /// The stream's name.
        stream: String,
    },
    /// Settings of a spool that is not used.
    #[error(
        "stream {stream:?} has settings of a spool, and is not acknowledged by it; add ack = \"spool\", or remove them"
    )]
    SpoolUnused {
        /// The stream's name.
        stream: String,
    },
    /// A rule of field protection.
    #[error("stream {stream:?}, protection of {rule:?}: {reason}")]
    Protect {
        /// The stream's name.
        stream: String,
        /// The rule's pointer.
        rule: String,
        /// What is wrong.
        reason: String,
    },
    /// An origin is not one.
    #[error(
        "cors_origins has {origin:?}, which is not an origin; write the scheme, the host and any port in lower case as browsers send them, such as \"https://shop.example\", or \"*\" for all"
    )]
    Origin {
        /// What was given.
        origin: String,
    },
    /// Both listeners want one address.
    #[error(
        "listen and http_listen are both {listen}; give each its own port, or leave http_listen out for no HTTP"
    )]
    SameAddress {
        /// The address.
        listen: SocketAddr,
    },
    /// Credentials would cross the network in the clear.
    #[error(
        "{setting} is {listen}, which is reachable from other machines, and credentials would be sent there unencrypted; set [tls], or allow_unencrypted = true if something in front of the gateway encrypts"
    )]
    Unencrypted {
        /// The setting's name.
        setting: &'static str,
        /// The address.
        listen: SocketAddr,
    },
    /// A setting without another that it needs.
    #[error("{setting} is set, which needs {needs}; set it as well")]
    Needs {
        /// The setting.
        setting: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// Nobody could write.
    #[error(
        "[auth] asks callers who they are, and there are no [[principals]], so nobody could write; add one for each name, or one with name = \"*\" for all"
    )]
    NoPrincipals,
    /// A principal stands twice.
    #[error("the principal {name:?} is listed twice; remove one")]
    PrincipalTwice {
        /// The name.
        name: String,
    },
    /// A principal that nobody can be.
    #[error(
        "the principal {name:?} is nobody: where [auth] asks nobody, everybody is \"local\"; set [auth], or name the principal so"
    )]
    NobodyIs {
        /// The name.
        name: String,
    },
    /// A principal's stream is not served.
    #[error(
        "the principal {name:?} may write to {stream:?}, which fits no stream of this gateway; correct it, or leave streams out for all"
    )]
    PrincipalStream {
        /// The principal.
        name: String,
        /// The pattern.
        stream: String,
    },
    /// A principal's header cannot be one.
    #[error(
        "headers of the principal {name:?} has {header:?}, which is no name of a header or has no values; give lower-case names, and at least one value for each"
    )]
    PrincipalHeader {
        /// The principal.
        name: String,
        /// The header.
        header: String,
    },
    /// Tokens need the keys of one issuer.
    #[error("auth.jwt has both or neither of jwks_file and jwks_url; set one of them")]
    JwksSource,
    /// Keys cannot be fetched from there.
    #[error("auth.jwt.jwks_url is {url:?}: {reason}")]
    JwksUrl {
        /// What was given.
        url: String,
        /// What is wrong, and how it is put right.
        reason: String,
    },
    /// The budgets do not fit into the memory.
    #[error(
        "memory_limit_bytes is {limit}, and the budgets may take {needed} ({parts}); lower one of these, or raise the limit"
    )]
    Memory {
        /// What they add up to.
        needed: u64,
        /// The limit.
        limit: u64,
        /// What takes how much.
        parts: String,
    },
    /// It would be reachable from elsewhere, and nobody is authenticated.
    #[error(
        "{setting} is {listen}, which is reachable from other machines, and nobody is authenticated; set [auth], listen on 127.0.0.1, or set allow_beyond_loopback = true if the network itself keeps others out"
    )]
    Exposed {
        /// The setting's name.
        setting: &'static str,
        /// The address.
        listen: SocketAddr,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Exposed { .. } => "listen-exposed",
            Error::Unencrypted { .. } => "listen-unencrypted",
            _ => "config-invalid",
        }
    }

    /// Whether the same settings may be accepted later: never.
    pub fn is_retryable(&self) -> bool {
        false
    }
}
