//! [`Collector`]: the running OTLP server and the questions one can ask it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::MetricsServiceServer;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::TraceServiceServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::service::Receiver;
use super::span::{Span, TraceId};
use super::store::{Counts, Store, Timeout};

/// The largest export request taken, in bytes: well above what batch exporters send.
const MAX_REQUEST_BYTES: usize = 64 << 20;

/// How the collector listens and how much it keeps.
#[derive(Debug, Clone)]
pub struct Config {
    /// The loopback address to listen on. Default `127.0.0.1:0`: any free port.
    pub listen: SocketAddr,
    /// How many spans are kept, 1 to 10,000,000; beyond it the oldest are dropped and counted. Default 200,000
    /// (about 1 KB each with a handful of attributes).
    pub max_spans: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), max_spans: 200_000 }
    }
}

impl Config {
    fn validate(&self) -> Result<(), ConfigError> {
        if !self.listen.ip().is_loopback() {
            return Err(ConfigError::NotLoopback { address: self.listen });
        }
        if !(1..=10_000_000).contains(&self.max_spans) {
            return Err(ConfigError::MaxSpans { value: self.max_spans });
        }
        Ok(())
    }
}

/// A configuration that the collector refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The collector has no authentication, so it serves this machine only.
    #[error("the OTLP collector listens on loopback only, not on {address}; use 127.0.0.1 or ::1")]
    NotLoopback {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The bound on kept spans is out of range.
    #[error("max_spans is {value}; it must lie between 1 and 10,000,000")]
    MaxSpans {
        /// The value given.
        value: usize,
    },
}

/// Why the collector did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The port could not be taken.
    #[error(
        "the OTLP collector cannot listen on {address}: {source}; choose another port, or 0 for any free one"
    )]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// The operating system's answer.
        source: io::Error,
    },
}

impl StartError {
    /// Whether the same call may succeed later: only when a port was taken.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
    }

    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "otlp-config-invalid",
            Self::Listen { .. } => "otlp-listen-failed",
        }
    }
}

/// A running in-memory OTLP collector. Clones share it; the last one dropped stops the server.
#[derive(Debug, Clone)]
pub struct Collector {
    store: Arc<Store>,
    server: Arc<Running>,
}

#[derive(Debug)]
struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Collector {
    /// Listens and serves in the background of the current runtime; ready when this returns.
    ///
    /// # Errors
    /// [`StartError`] when the configuration is not valid or the port is taken.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.validate()?;
        let refused = |source| StartError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let store = Arc::new(Store::new(config.max_spans));
        let receiver = Receiver(Arc::clone(&store));
        let server = Server::builder()
            .add_service(
                TraceServiceServer::new(receiver.clone())
                    .accept_compressed(CompressionEncoding::Gzip)
                    .max_decoding_message_size(MAX_REQUEST_BYTES),
            )
            .add_service(
                MetricsServiceServer::new(receiver)
                    .accept_compressed(CompressionEncoding::Gzip)
                    .max_decoding_message_size(MAX_REQUEST_BYTES),
            );
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let stopped = stop.clone().cancelled_owned();
        tasks.spawn(async move {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            if let Err(error) = server.serve_with_incoming_shutdown(incoming, stopped).await {
                tracing::error!(%error, "the OTLP collector stopped");
            }
        });
        tasks.close();
        Ok(Self { store, server: Arc::new(Running { address, stop, tasks }) })
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// The value for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// Every kept span, in order of arrival.
    #[must_use]
    pub fn spans(&self) -> Vec<Arc<Span>> {
        self.store.spans()
    }

    /// The kept spans of one trace, in order of their start.
    #[must_use]
    pub fn trace(&self, trace: TraceId) -> Vec<Arc<Span>> {
        self.store.trace(&trace)
    }

    /// Counters since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.store.counts()
    }

    /// Forgets the kept spans; the counters go on.
    pub fn clear(&self) {
        self.store.clear();
    }

    /// Waits until the kept spans satisfy `predicate`, which is asked now and after every export.
    ///
    /// # Errors
    /// [`Timeout`] when that has not happened within `limit`.
    pub async fn wait_for(
        &self,
        limit: Duration,
        mut predicate: impl FnMut(&[Arc<Span>]) -> bool,
    ) -> Result<Vec<Arc<Span>>, Timeout> {
        self.store
            .wait_for(limit, |store| {
                let spans = store.spans();
                predicate(&spans).then_some(spans)
            })
            .await
    }

    /// Waits until the kept spans of one trace satisfy `predicate`; cheaper than [`Collector::wait_for`].
    ///
    /// # Errors
    /// [`Timeout`] when that has not happened within `limit`.
    pub async fn wait_for_trace(
        &self,
        trace: TraceId,
        limit: Duration,
        mut predicate: impl FnMut(&[Arc<Span>]) -> bool,
    ) -> Result<Vec<Arc<Span>>, Timeout> {
        self.store
            .wait_for(limit, |store| {
                let spans = store.trace(&trace);
                predicate(&spans).then_some(spans)
            })
            .await
    }

    /// Stops listening and returns when the server has ended; what was received stays readable.
    pub async fn shutdown(&self) {
        self.server.stop.cancel();
        self.server.tasks.wait().await;
    }
}
