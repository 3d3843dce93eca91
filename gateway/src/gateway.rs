//! The gateway as a whole: what it starts, how it stops.

mod drain;
mod error;
mod open;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime};

use futures_util::future::{OptionFuture, join};
use headworks_telemetry::{Minter, RecordTracer};
use headworks_writer::{Stream, Writer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::server::HealthReporter;
use tracing::{error, info};

use crate::audit::{self, Audit};
use crate::auth::{self, Auth};
use crate::config::{Config, memory};
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
use crate::tls::{Acceptors, Port, Tls};

use self::drain::{close_spools, drain};
pub use self::error::{BindError, RunError};
use self::open::{listen, open_spool};

/// How often an idle connection is asked whether it lives, and how long it may take to say so.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// How long connections have, after the last answer, to carry it out.
const LAST_WORDS: Duration = Duration::from_secs(1);

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
    #[cfg(feature = "kms")]
    keys: protect::KeyService,
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
        #[cfg(feature = "kms")]
        let keys = protect::KeyService::default();
        let (mut writers, mut inbound, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for stream in &config.streams {
            // The gateway keeps the deadline for all streams together.
            let settings = headworks_writer::Config { drain_ms: 0, ..stream.writer.clone() };
            let protection = protect::load(stream, &Default::default())
                .map_err(|source| BindError::Protect { stream: stream.name.clone(), source })?;
            #[cfg(feature = "kms")]
            keys.prepare(&config, &protection)
                .await
                .map_err(|source| BindError::KeyService { stream: stream.name.clone(), source })?;
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
            receiving: Arc::new(Semaphore::new(config.receive_bytes)),
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
        let gateway = Gateway {
            shared,
            writers,
            listener,
            address,
            http,
            routes,
            health,
            targets,
            auditing,
            #[cfg(feature = "kms")]
            keys,
        };
        Ok((gateway, handle))
    }

    /// Serves until `shutdown` is cancelled, then drains: takes nothing more, waits for the streams'
    /// answers up to the drain deadline, answers what is left, and says how much that was.
    pub async fn run(self, shutdown: CancellationToken) -> Result<Report, RunError> {
        #[cfg(feature = "kms")]
        let _renewing = AbortOnDropHandle::new(tokio::spawn(self.keys.run(Arc::clone(&self.shared))));
        let Gateway {
            shared, writers, listener, address, http, routes, mut health, targets, auditing, ..
        } = self;
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
            .max_concurrent_streams(memory::CALLS_PER_CONNECTION)
            .max_frame_size(memory::FRAME)
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

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
