//! The gateway as a whole: what it starts, how it stops.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime};

use futures_util::future::{OptionFuture, join, join_all};
use headworks_telemetry::{Minter, RecordTracer};
use headworks_writer::{Stream, Writer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::server::HealthReporter;
use tracing::{error, info, warn};

use crate::audit::{self, Audit};
use crate::auth::{self, Auth};
use crate::config::{self, Config, StreamConfig};
use crate::conn;
use crate::door::Door;
use crate::health::{self, Writable};
use crate::http;
use crate::kinesis;
use crate::protect;
use crate::reload;
use crate::shared::{Inbound, Shared};
use crate::spool::{self, Spool, Steadfast};
use crate::tally::{Ended, Tally};
use crate::tls::{self, Acceptors, Port, Tls};

/// How often an idle connection is asked whether it lives, and how long it may take to say so.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// How long connections have, after the last answer, to carry it out.
const LAST_WORDS: Duration = Duration::from_secs(1);

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

/// What was left when a gateway stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Records that were taken and that no stream had confirmed at the drain deadline. Each was
    /// answered with a retryable error or as of unknown outcome, never as stored.
    pub unanswered: usize,
    /// Records that were acknowledged by a spool and that no stream has yet. They are on disk; a
    /// gateway that is started with the same directory puts them.
    pub spooled: u64,
    /// Bytes of the spools' files, where there are such records.
    pub spooled_bytes: u64,
}

/// A gateway that has its port and its streams, and does not serve yet.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    writers: Vec<(Writer, Option<Spool>)>,
    listener: TcpListener,
    address: SocketAddr,
    http: Option<TcpListener>,
    routes: Routes,
    health: HealthReporter,
    /// What tells whether a stream can be written, in the order of the configuration.
    targets: Vec<Arc<dyn Stream>>,
    auditing: audit::Writing,
}

/// A gateway as others see it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    address: SocketAddr,
    http: Option<SocketAddr>,
}

impl Handle {
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The address that it listens on for gRPC.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The address that it listens on for HTTP, if `http_listen` is set.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http
    }

    /// The settings that it was started with.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Whether it has stopped taking records.
    pub fn is_draining(&self) -> bool {
        self.shared.draining.is_cancelled()
    }

    /// The writer of a stream: its counts, and what it holds.
    pub fn writer(&self, stream: &str) -> Option<&headworks_writer::Handle> {
        self.shared.inbound(stream).ok().map(|inbound| &inbound.writer)
    }
}

impl Gateway {
    /// Checks the configuration and each stream, and takes the port. `streams` gives the stream of a
    /// name, such as [`kinesis::streams`].
    ///
    /// `minter` gives an identity to records that bring none; `tracer` tells of their creation, and
    /// of the puts.
    pub async fn bind(
        config: Config,
        streams: impl Fn(&str) -> Arc<dyn Stream>,
        minter: Minter,
        tracer: RecordTracer,
    ) -> Result<(Gateway, Handle), BindError> {
        config.validate()?;
        let auth = Auth::new(&config, None)?;
        let acceptors = config.tls.as_ref().map(Acceptors::read).transpose()?;
        // The ports first: they are the cheaper check, and a second gateway must not touch the streams.
        let (listener, address) = listen("listen", config.listen).await?;
        let (http, http_address) = match config.http_listen {
            Some(address) => listen("http_listen", address).await.map(|(l, a)| (Some(l), Some(a)))?,
            None => (None, None),
        };
        let (audit, auditing) = Audit::start(config.audit.as_ref())?;
        let (mut writers, mut inbound, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for stream in &config.streams {
            // The gateway keeps the deadline for all streams together.
            let settings = headworks_writer::Config { drain_ms: 0, ..stream.writer.clone() };
            let protection = protect::load(stream)
                .map_err(|source| BindError::Protect { stream: stream.name.clone(), source })?;
            let mut target = streams(&stream.name);
            targets.push(Arc::clone(&target));
            let mut spool = None;
            if let Some((opened, handle)) = open_spool(stream).await? {
                let directory = opened.directory();
                target = Arc::new(Steadfast::new(target, Arc::clone(opened.state()), directory));
                spool = Some((opened, handle));
            }
            let (spool, spool_handle) = spool.unzip();
            let (writer, handle) =
                Writer::start_shared(settings, target, tracer.clone()).await.map_err(|source| {
                    BindError::Stream {
                        endpoint: kinesis::endpoint(&config).unwrap_or_else(|| "AWS's own".to_owned()),
                        source,
                    }
                })?;
            writers.push((writer, spool));
            inbound.push(Arc::new(Inbound {
                name: stream.name.as_str().into(),
                writer: handle,
                spool: spool_handle,
                protection: RwLock::new(protection),
                failures: Tally::default(),
                writable: Writable::default(),
            }));
        }
        audit.configured(
            "configuration-loaded",
            serde_json::json!({
                "in_force": reload::digest(&config), "api_keys": auth.keys(),
            }),
        );
        let shared = Arc::new(Shared {
            current: Mutex::new(config.clone()),
            config,
            auth: watch::Sender::new(Arc::new(auth)),
            tls: acceptors.map(|acceptors| Arc::new(Tls::new(acceptors))),
            audit,
            parts: reload::parts(),
            reloads: Tally::default(),
            reloaded_at: AtomicU64::new(unix_seconds()),
            limited: Tally::default(),
            streams: inbound,
            minter,
            tracer,
            draining: CancellationToken::new(),
            calls: TaskTracker::new(),
            ended: Ended::default(),
        });
        let (health, health_service) = tonic_health::server::health_reporter();
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(headworks_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|source| BindError::Reflection { source })?;
        let routes = Routes::new(Door::service(Arc::clone(&shared)))
            .add_service(health_service)
            .add_service(reflection);
        let handle = Handle { shared: Arc::clone(&shared), address, http: http_address };
        Ok((Gateway { shared, writers, listener, address, http, routes, health, targets, auditing }, handle))
    }

    /// Serves until `shutdown` is cancelled, then drains: takes nothing more, waits for the streams'
    /// answers up to the drain deadline, answers what is left, and says how much that was.
    pub async fn run(self, shutdown: CancellationToken) -> Result<Report, RunError> {
        let Gateway { shared, writers, listener, address, http, routes, mut health, targets, auditing } =
            self;
        let (stop_serving, stop_writers) = (CancellationToken::new(), CancellationToken::new());
        let stop_spools = CancellationToken::new();
        let mut writing: JoinSet<usize> = JoinSet::new();
        let mut spooling: JoinSet<spool::Left> = JoinSet::new();
        for ((writer, spool), inbound) in writers.into_iter().zip(&shared.streams) {
            let spooled = spool.is_some();
            let written = writer.run(stop_writers.clone());
            // What the writer of a spool leaves was acknowledged, and is on disk.
            writing.spawn(async move { written.await.unanswered * usize::from(!spooled) });
            if let Some(spool) = spool {
                spooling.spawn(spool.run(inbound.writer.clone(), stop_spools.clone()));
            }
        }
        health::tell(&shared, &health).await;
        // Until the very end: what happens while it drains is audited too.
        let stop_audit = CancellationToken::new();
        let audited = {
            let (shared, stop) = (Arc::clone(&shared), stop_audit.clone());
            AbortOnDropHandle::new(tokio::spawn(async move { shared.audit.run(auditing, stop).await }))
        };
        let _watching: Vec<_> = shared
            .streams
            .iter()
            .zip(targets)
            .map(|(inbound, target)| {
                let (shared, inbound) = (Arc::clone(&shared), Arc::clone(inbound));
                let stop = shared.draining.clone();
                AbortOnDropHandle::new(tokio::spawn(health::watch(
                    shared,
                    inbound,
                    target,
                    health.clone(),
                    stop,
                )))
            })
            .collect();
        let _refreshing = {
            let shared = Arc::clone(&shared);
            AbortOnDropHandle::new(tokio::spawn(auth::refresh(shared)))
        };
        let accept = |listener, port| {
            conn::accept(listener, port, shared.tls.clone(), Arc::clone(&shared), stop_serving.clone())
        };
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE.0))
            .http2_keepalive_timeout(Some(KEEPALIVE.1))
            .add_routes(routes)
            .serve_with_incoming_shutdown(
                ReceiverStream::new(accept(listener, Port::Grpc)).map(Ok::<_, io::Error>),
                stop_serving.clone().cancelled_owned(),
            );
        // A task of its own, so that it goes on while the rest drains.
        let mut server = AbortOnDropHandle::new(tokio::spawn(server));
        let http_address = http.as_ref().and_then(|listener| listener.local_addr().ok());
        let mut http = http.map(|listener| {
            let incoming = http::Incoming {
                address: http_address.unwrap_or(address),
                conns: accept(listener, Port::Http),
            };
            let serving = http::serve(incoming, Arc::clone(&shared), stop_serving.clone());
            AbortOnDropHandle::new(tokio::spawn(serving))
        });
        let streams: Vec<&str> = shared.streams.iter().map(|stream| &*stream.name).collect();
        let (encrypted, authenticated) = (shared.tls.is_some(), shared.auth().is_enabled());
        info!(%address, http = ?http_address, ?streams, encrypted, authenticated, "the gateway serves");

        let failure = tokio::select! {
            () = shutdown.cancelled() => None,
            served = &mut server => Some(match served {
                Ok(Err(source)) => RunError::Serve { address, source },
                Ok(Ok(())) => RunError::Stopped { what: "server", reason: "it returned".to_owned() },
                Err(error) => RunError::Stopped { what: "server", reason: error.to_string() },
            }),
            Some(served) = OptionFuture::from(http.as_mut()) => Some(RunError::Stopped {
                what: "HTTP server",
                reason: match served {
                    Ok(Ok(())) => "it returned".to_owned(),
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => error.to_string(),
                },
            }),
            Some(ended) = writing.join_next() => {
                let reason = ended.err().map_or_else(|| "it returned".to_owned(), |error| error.to_string());
                Some(RunError::Stopped { what: "writer", reason })
            }
            Some(ended) = spooling.join_next() => {
                let reason = ended.err().map_or_else(|| "it returned".to_owned(), |error| error.to_string());
                Some(RunError::Stopped { what: "spool", reason })
            }
        };

        // Meanwhile the door stays open to say that nothing more is taken: a load balancer sees it, and
        // clients are told to go elsewhere instead of being cut off.
        let unanswered = drain(&shared, &health, stop_writers, writing).await;
        let left = close_spools(stop_spools, spooling).await;
        let report = Report { unanswered, spooled: left.records, spooled_bytes: left.bytes };
        stop_serving.cancel();
        health::close_watches(&mut health, &shared).await;
        // One that has ended is not asked again.
        let grpc = (!server.is_finished()).then_some(&mut server);
        let http = http.as_mut().filter(|http| !http.is_finished());
        let closed = join(OptionFuture::from(grpc), OptionFuture::from(http));
        if timeout(LAST_WORDS, closed).await.is_err() {
            info!("some clients keep their connections; they are closed");
        }
        stop_audit.cancel();
        let _ = timeout(LAST_WORDS, audited).await;
        match failure {
            Some(failure) => {
                error!(code = failure.code(), "{failure}");
                Err(failure)
            }
            None => Ok(report),
        }
    }
}

async fn listen(setting: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let refused = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::AddressInUse { setting, address },
        _ => BindError::Listen { setting, address, source },
    };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

/// Takes nothing more, and waits for what is open, up to the deadline.
async fn drain(
    shared: &Shared,
    health: &HealthReporter,
    stop_writers: CancellationToken,
    mut writing: JoinSet<usize>,
) -> usize {
    let patience = Duration::from_millis(shared.config.drain_ms);
    info!(?patience, "the gateway drains");
    shared.draining.cancel();
    health::tell(shared, health).await;
    shared.calls.close();
    let settled = async {
        // Lanes send without lingering while they drain.
        join_all(shared.streams.iter().map(|stream| stream.drain())).await;
        shared.calls.wait().await;
    };
    let in_time = timeout(patience, settled).await.is_ok();
    // The writers have no patience of their own: they answer what is left, at once.
    stop_writers.cancel();
    let mut unanswered = 0;
    while let Some(ended) = writing.join_next().await {
        match ended {
            Ok(left) => unanswered += left,
            Err(error) => error!("a writer was lost: {error}"),
        }
    }
    if unanswered > 0 {
        warn!(
            unanswered,
            "records were not stored, or nobody knows, when the drain deadline passed; their senders were told"
        );
    } else if !in_time {
        warn!("every record was answered, but clients have not read all of the answers");
    } else {
        info!("nothing was left");
    }
    // Those answers are carried out while the clients listen.
    let _ = timeout(LAST_WORDS, shared.calls.wait()).await;
    unanswered
}

/// Opens the spool of a stream that has one.
async fn open_spool(stream: &StreamConfig) -> Result<Option<(Spool, spool::Handle)>, BindError> {
    let Some(config) = stream.spool.clone() else { return Ok(None) };
    let name = stream.name.clone();
    // It may have to read a lot.
    let opened = tokio::task::spawn_blocking(move || Spool::open(&config, &name)).await;
    let lost = |error: tokio::task::JoinError| spool::OpenError::Unusable {
        path: stream.name.clone().into(),
        source: io::Error::other(error),
    };
    opened
        .map_err(lost)
        .and_then(|opened| opened)
        .map(Some)
        .map_err(|source| BindError::Spool { stream: stream.name.clone(), source })
}

/// Ends the spools, once the writers have ended, and says what is in them.
async fn close_spools(stop: CancellationToken, mut spooling: JoinSet<spool::Left>) -> spool::Left {
    stop.cancel();
    let mut left = spool::Left::default();
    let closed = async {
        while let Some(ended) = spooling.join_next().await {
            match ended {
                Ok(spool::Left { records: 0, .. }) => {}
                Ok(spool) => {
                    left.records += spool.records;
                    left.bytes += spool.bytes;
                }
                Err(error) => error!("a spool was lost: {error}"),
            }
        }
    };
    if timeout(LAST_WORDS, closed).await.is_err() {
        error!("the spool's disk does not answer; what it acknowledged is put after the next start");
    }
    if left.records > 0 {
        warn!(
            records = left.records,
            bytes = left.bytes,
            "acknowledged records are still in the spool; start a gateway with the same directory to put them"
        );
    }
    left
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
