//! The gateway's settings: a TOML file, overridden by the environment.
//!
//! ```toml
//! listen = "127.0.0.1:4400"
//!
//! [[streams]]
//! name = "inbound"
//! writer.linger_ms = 5
//! ```
//!
//! Every setting at the top level can be set by a variable `HEADWORKS_GATEWAY_<NAME>`, such as
//! `HEADWORKS_GATEWAY_LISTEN`, which wins over the file. `HEADWORKS_GATEWAY_STREAMS` takes names
//! separated by commas, or a TOML array like the one in the file; `HEADWORKS_GATEWAY_CORS_ORIGINS` takes
//! origins separated by commas.

mod audit;
mod auth;
mod error;
mod listen;
mod load;
pub(crate) mod memory;
mod protect;
mod spool;
mod stream;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use headworks_proto::MAX_MESSAGE_BYTES;
use serde::{Deserialize, Serialize};

pub use self::audit::AuditConfig;
pub use self::auth::{AuthConfig, CertificateName, JwtAlgorithm, JwtConfig, PrincipalConfig};
pub use self::error::Error;
pub(crate) use self::load::variable;
pub use self::load::{ENV_FILE, ENV_PREFIX};
pub use self::protect::{Action, Otherwise, ProtectConfig, RuleConfig, When};
pub use self::spool::{Ack, SpoolConfig};
pub use self::stream::StreamConfig;
pub use self::tls::TlsConfig;

/// The shortest time a client may ask for.
pub const MIN_TIMEOUT: Duration = Duration::from_millis(1);
/// The longest time a client may ask for.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(600);

/// What the gateway listens on, which streams it serves, and its limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address to listen on. Default 127.0.0.1:4400; port 0 takes any free port.
    pub listen: SocketAddr,
    /// The address to listen on for HTTP: `POST /v1/records`, `/healthz`, `/readyz` and `/metrics`.
    /// Default: none, nothing is listened on; 127.0.0.1:4480 is the customary one. Port 0 takes any
    /// free port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_listen: Option<SocketAddr>,
    /// The most bytes of request bodies over HTTP that are being read or whose records are unanswered.
    /// Default 67,108,864; 16,777,216 (the largest body) to 1,073,741,824.
    pub http_buffer_bytes: usize,
    /// The most bytes of messages over gRPC that are being read or wait for room in their writer. A message beyond it
    /// is not read yet. Default 67,108,864; 16,777,216 (the largest message) to 1,073,741,824.
    pub receive_bytes: usize,
    /// The most connections of each listener; more wait. Default 1,024; 1 to 65,536.
    pub max_connections: usize,
    /// The ceiling of the process's memory. The gateway does not start with budgets (`receive_bytes`,
    /// `http_buffer_bytes`, `max_connections`, each stream's `writer.max_buffered_bytes` and `spool.pending_bytes`) that
    /// could exceed it. Default: none; what the budgets add up to is the ceiling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// The origins whose web pages may send records over HTTP, such as `https://shop.example`, or `*`
    /// for all. Default: none; a browser's request from another origin is refused.
    pub cors_origins: Vec<String>,
    /// Listens beyond loopback although nobody is authenticated. Default false.
    pub allow_beyond_loopback: bool,
    /// Takes credentials beyond loopback although nothing is encrypted, because something in front of the gateway
    /// does that. Default false.
    pub allow_unencrypted: bool,
    /// The stream of calls that name none; one of `streams`. Default: the first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_stream: Option<String>,
    /// The most bytes of key, headers and data of one record.
    /// Default 1,048,576; 1 to 10,485,760. A stream's `writer.max_record_bytes`, which counts the
    /// envelope too, applies beside it.
    pub max_record_bytes: usize,
    /// How long a record is tried where the client does not say. Default 30,000 ms; 1 to 600,000.
    pub timeout_ms: u64,
    /// The most unanswered records of one `PutStream`. Default 65,536; 1 to 1,000,000.
    pub credit_records: u32,
    /// The most unanswered bytes of one `PutStream`. Default 33,554,432; `max_record_bytes` to
    /// 1,073,741,824.
    pub credit_bytes: u64,
    /// How long a stopping gateway waits for the streams' answers. Default 20,000 ms; 0 to 600,000.
    /// It takes the place of each stream's `writer.drain_ms`.
    pub drain_ms: u64,
    /// How long nothing may be stored on a stream, although there are records for it, before the gateway says
    /// that the stream is not serving. Default 15,000 ms; 100 to 600,000.
    pub unhealthy_after_ms: u64,
    /// The Kinesis endpoint. Default: `AWS_ENDPOINT_URL_KINESIS`, else `AWS_ENDPOINT_URL`, else AWS's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kinesis_endpoint: Option<String>,
    /// The AWS region. Default: `AWS_REGION`, or what the AWS profile says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The certificate of both listeners. Default: none, nothing is encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// How callers prove who they are. Default: nobody is asked.
    pub auth: AuthConfig,
    /// Where failures to do so are written, and changes of the configuration. Default: the process's log alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditConfig>,
    /// What each principal may do; needed where callers are asked who they are.
    pub principals: Vec<PrincipalConfig>,
    /// The inbound streams; at least one.
    pub streams: Vec<StreamConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 4400)),
            http_listen: None,
            http_buffer_bytes: 64 << 20,
            receive_bytes: 64 << 20,
            max_connections: 1024,
            memory_limit_bytes: None,
            cors_origins: Vec::new(),
            allow_beyond_loopback: false,
            allow_unencrypted: false,
            default_stream: None,
            max_record_bytes: 1 << 20,
            timeout_ms: 30_000,
            credit_records: 65_536,
            credit_bytes: 32 << 20,
            drain_ms: 20_000,
            unhealthy_after_ms: 15_000,
            kinesis_endpoint: None,
            region: None,
            tls: None,
            auth: AuthConfig::default(),
            audit: None,
            principals: Vec::new(),
            streams: Vec::new(),
        }
    }
}

impl Config {
    /// The defaults, for one stream.
    pub fn for_stream(name: impl Into<String>) -> Self {
        let stream = StreamConfig::named(name);
        Self { streams: vec![stream], ..Self::default() }
    }

    /// Checks every setting against its bounds, and the settings against each other.
    pub fn validate(&self) -> Result<(), Error> {
        self.check_listeners()?;
        check("http_buffer_bytes", self.http_buffer_bytes as u64, MAX_MESSAGE_BYTES as u64, 1 << 30)?;
        check("receive_bytes", self.receive_bytes as u64, MAX_MESSAGE_BYTES as u64, 1 << 30)?;
        check("max_connections", self.max_connections as u64, 1, 65_536)?;
        self.check_origins()?;
        check("max_record_bytes", self.max_record_bytes as u64, 1, 10 << 20)?;
        check("timeout_ms", self.timeout_ms, 1, MAX_TIMEOUT.as_millis() as u64)?;
        check("credit_records", self.credit_records.into(), 1, 1_000_000)?;
        check("credit_bytes", self.credit_bytes, self.max_record_bytes as u64, 1 << 30)?;
        check("drain_ms", self.drain_ms, 0, 600_000)?;
        check("unhealthy_after_ms", self.unhealthy_after_ms, 100, 600_000)?;
        if let Some(audit) = &self.audit {
            check("audit.interval_s", audit.interval_s, 1, 3_600)?;
        }
        if self.streams.is_empty() {
            return Err(Error::NoStreams);
        }
        let mut names = HashSet::new();
        for stream in &self.streams {
            stream.validate()?;
            if !names.insert(stream.name.as_str()) {
                return Err(Error::StreamTwice { name: stream.name.clone() });
            }
        }
        self.check_auth()?;
        self.check_memory()?;
        match &self.default_stream {
            Some(name) if !names.contains(name.as_str()) => {
                let served = self.streams.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
                Err(Error::DefaultStream { name: name.clone(), served })
            }
            _ => Ok(()),
        }
    }
}

/// Checks a number against its bounds.
fn check(name: &'static str, value: u64, min: u64, max: u64) -> Result<(), Error> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(Error::OutOfBounds { name, value, min, max }) }
}
