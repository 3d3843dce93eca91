//! The producer's settings.

use std::time::Duration;

use headworks_proto::{MAX_BATCH_RECORDS, MAX_MESSAGE_BYTES};
use headworks_telemetry::config::DEFAULT_SAMPLE_RATIO;
use headworks_telemetry::{Minter, RecordTracer, Sampler, Telemetry};

use crate::connect::ConnectError;
use crate::producer::Producer;
use crate::tls::Tls;
use crate::token::Token;

/// The most gateways of one producer.
const MAX_ENDPOINTS: usize = 64;

/// The settings as they are checked and kept.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) endpoints: Vec<String>,
    pub(crate) stream: String,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) buffer_bytes: usize,
    pub(crate) batch_records: usize,
    pub(crate) batch_bytes: usize,
    pub(crate) longest_pause: Duration,
    pub(crate) offline: bool,
    pub(crate) tls: Tls,
    pub(crate) token: Token,
}

/// Settings of a [`Producer`]; see [`Producer::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    config: Config,
    minter: Minter,
    tracer: RecordTracer,
}

impl Builder {
    pub(crate) fn new() -> Self {
        let config = Config {
            endpoints: vec!["http://127.0.0.1:4400".to_owned()],
            stream: String::new(),
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            buffer_bytes: 32 << 20,
            batch_records: 1_000,
            batch_bytes: 1 << 20,
            longest_pause: Duration::from_secs(5),
            offline: false,
            tls: Tls::default(),
            token: Token::default(),
        };
        let sampler = Sampler::ratio(DEFAULT_SAMPLE_RATIO).unwrap_or_else(|_| Sampler::never());
        Self { config, minter: Minter::new(sampler), tracer: RecordTracer::disabled() }
    }

    /// The gateway's address, `http://…` or `https://…`. Default `http://127.0.0.1:4400`.
    pub fn endpoint(self, endpoint: impl Into<String>) -> Self {
        self.endpoints([endpoint])
    }

    /// The addresses of several gateways of one stream, at most 64.
    ///
    /// Each key has a gateway, the same for all producers with the same addresses, so that aggregates
    /// fill; when one is lost, its keys go to the others, and come back with it. Order per key holds
    /// through both.
    pub fn endpoints(mut self, endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.config.endpoints = endpoints.into_iter().map(Into::into).collect();
        self
    }

    /// What is shown to the gateway: an API key, or a token (JWT) that stays valid as long as the producer
    /// lives. Default: nothing.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.config.token = Token::fixed(token.into());
        self
    }

    /// As [`Builder::token`], asked for at each connection, for tokens that change. Must not block.
    pub fn token_from(mut self, source: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.config.token = Token::from_fn(source);
        self
    }

    /// The authorities (PEM) that sign the gateway's certificate. Default: the system's.
    pub fn ca_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.config.tls.ca_certificates = Some(pem.into());
        self
    }

    /// The certificate (PEM, with its chain) and the key by which the gateway knows this producer.
    /// Default: none.
    pub fn identity(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.config.tls.identity = Some((certificate.into(), key.into()));
        self
    }

    /// The name that the gateway's certificate must bear. Default: the endpoint's host.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.config.tls.server_name = Some(name.into());
        self
    }

    /// Whether records may wait while no gateway answers. Default no.
    ///
    /// If so, [`Builder::connect`] does not wait for a gateway, and a record's time
    /// ([`Builder::timeout`]) runs only while one is connected. What waits is held in memory, within
    /// [`Builder::buffer_bytes`].
    pub fn buffer_offline(mut self, offline: bool) -> Self {
        self.config.offline = offline;
        self
    }

    /// The inbound stream's name. Default: the gateway's default stream.
    pub fn stream(mut self, stream: impl Into<String>) -> Self {
        self.config.stream = stream.into();
        self
    }

    /// How long each record may take until it is answered. Default 30 s; 1 ms to 10 min.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.config.timeout = timeout;
        self
    }

    /// How long [`Builder::connect`] tries. Default 10 s; 1 ms to 10 min.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect_timeout = timeout;
        self
    }

    /// The most bytes of unanswered records that the producer holds; [`Producer::send`] waits for
    /// room. A record counts 256 bytes beside its key, headers and data.
    /// Default 33,554,432; 1,024 to 4,294,967,295.
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.config.buffer_bytes = bytes;
        self
    }

    /// The most records of one message to the gateway. Default 1,000; 1 to 10,000.
    ///
    /// The producer does not wait for a message to fill: it sends what there is.
    pub fn batch_records(mut self, records: usize) -> Self {
        self.config.batch_records = records;
        self
    }

    /// The most bytes of one message to the gateway; a larger record goes alone.
    /// Default 1,048,576; 1,024 to 16,777,216.
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.config.batch_bytes = bytes;
        self
    }

    /// The longest pause between attempts to connect again. Default 5 s; 1 ms to 1 min.
    pub fn longest_pause(mut self, pause: Duration) -> Self {
        self.config.longest_pause = pause;
        self
    }

    /// Mints the records' identities. Default: with a sampler that samples one root in a hundred.
    pub fn minter(mut self, minter: Minter) -> Self {
        self.minter = minter;
        self
    }

    /// Tells of the records' creation. Default: nobody is told.
    pub fn tracer(mut self, tracer: RecordTracer) -> Self {
        self.tracer = tracer;
        self
    }

    /// Takes minter and tracer from the process's telemetry.
    pub fn telemetry(self, telemetry: &Telemetry) -> Self {
        self.minter(telemetry.minter()).tracer(telemetry.tracer())
    }

    /// Checks the settings and writes to a stream with no gateway between: this process aggregates, puts
    /// and retries by itself, as a gateway would. [`Builder::stream`] is the name in spans;
    /// [`Builder::buffer_bytes`], [`Builder::timeout`], the minter and the tracer apply, the settings of
    /// connections do not.
    ///
    /// The writer's service must run, and be stopped after [`Producer::close`].
    #[cfg(feature = "direct")]
    pub fn direct(self, writer: headworks_writer::Handle) -> Result<Producer, ConnectError> {
        self.config.validate()?;
        Ok(Producer::direct(self.config, self.minter, self.tracer, writer))
    }

    /// Checks the settings and connects, trying up to [`Builder::connect_timeout`].
    ///
    /// Must be called within a tokio runtime, on which the connection then lives.
    pub async fn connect(self) -> Result<Producer, ConnectError> {
        self.config.validate()?;
        Producer::connect(self.config, self.minter, self.tracer).await
    }
}

impl Config {
    pub(crate) fn validate(&self) -> Result<(), ConnectError> {
        const MINUTE: Duration = Duration::from_secs(60);
        const MILLISECOND: Duration = Duration::from_millis(1);
        check("the number of endpoints", self.endpoints.len(), 1, MAX_ENDPOINTS)?;
        check("timeout", self.timeout, MILLISECOND, MINUTE * 10)?;
        check("connect_timeout", self.connect_timeout, MILLISECOND, MINUTE * 10)?;
        check("buffer_bytes", self.buffer_bytes, 1024, u32::MAX as usize)?;
        check("batch_records", self.batch_records, 1, MAX_BATCH_RECORDS)?;
        check("batch_bytes", self.batch_bytes, 1024, MAX_MESSAGE_BYTES)?;
        check("longest_pause", self.longest_pause, MILLISECOND, MINUTE)
    }

    /// The stream's name in spans.
    pub(crate) fn stream_name(&self) -> &str {
        if self.stream.is_empty() { "(default)" } else { &self.stream }
    }
}

fn check<T: PartialOrd + std::fmt::Debug>(
    name: &'static str,
    value: T,
    min: T,
    max: T,
) -> Result<(), ConnectError> {
    if value >= min && value <= max {
        return Ok(());
    }
    let text = |value: T| format!("{value:?}");
    Err(ConnectError::OutOfBounds { name, value: text(value), min: text(min), max: text(max) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_bounds_are_named() {
        let config = Builder::new().config;
        config.validate().unwrap();
        let error = Config { timeout: Duration::ZERO, ..config.clone() }.validate().unwrap_err();
        assert_eq!(error.to_string(), "timeout is 0ns; it must be from 1ms to 600s");
        let error = Config { batch_records: 10_001, ..config.clone() }.validate().unwrap_err();
        assert_eq!(error.code(), "config-invalid");
        Config { batch_records: 10_000, ..config }.validate().unwrap();
    }
}
