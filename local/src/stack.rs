//! The stack: Kinesis, DynamoDB and S3 started and ended together.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::faults::Faults;
use crate::kinesis::snapshot::SnapshotError;
use crate::kinesis::store;
use crate::kinesis::{Clock, Engine, Settings, SystemClock};
use crate::{dynamodb, http, s3};

/// The access key id of every client of the stack.
pub const ACCESS_KEY: &str = "test";
/// The secret that goes with it. S3 verifies signatures by it; Kinesis and DynamoDB take any.
pub const SECRET_KEY: &str = "test";

/// How a stack is started. The default is in memory, on free ports.
#[derive(Debug, Clone)]
pub struct Config {
    /// The port of Kinesis; 0 takes any free one.
    pub kinesis_port: u16,
    /// The port of DynamoDB; 0 takes any free one.
    pub dynamodb_port: u16,
    /// The port of S3; 0 takes any free one.
    pub s3_port: u16,
    /// The port from which faults are put in force; 0 takes any free one. Default: `None`, there is no such port.
    pub faults_port: Option<u16>,
    /// Where state is kept, created when it is not there. Default: `None`, nothing is kept.
    ///
    /// Streams with their records (`kinesis.cbor` and its log), S3 objects (`s3/`) and DynamoDB tables
    /// (`dynamodb.sqlite`) are there as soon as a call has answered, and survive a process that is killed. Streams are
    /// not synced to the disk call by call: a machine that loses its power may lose the last seconds.
    pub data_dir: Option<PathBuf>,
    /// How Kinesis behaves.
    pub settings: Settings,
    /// The clock of Kinesis.
    pub clock: Arc<dyn Clock>,
    /// What goes wrong. The handle may be kept, to change it while the stack runs; see also [`Stack::faults`].
    pub faults: Faults,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kinesis_port: 0,
            dynamodb_port: 0,
            s3_port: 0,
            faults_port: None,
            data_dir: None,
            settings: Settings::default(),
            clock: Arc::new(SystemClock),
            faults: Faults::default(),
        }
    }
}

/// Why a stack did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Another program listens on a port.
    #[error(
        "port {port} for {service} is already taken on 127.0.0.1: stop the program that listens on it, or choose \
         another port (0 takes any free one)"
    )]
    PortTaken {
        /// Kinesis, DynamoDB, S3 or the faults.
        service: &'static str,
        /// The port.
        port: u16,
    },
    /// A port cannot be listened on for another reason.
    #[error("cannot listen on 127.0.0.1:{port} for {service}: {source}")]
    Listen {
        /// Kinesis, DynamoDB, S3 or the faults.
        service: &'static str,
        /// The port.
        port: u16,
        /// What the system says.
        source: io::Error,
    },
    /// A setting is out of its bounds.
    #[error("bad setting: {0}")]
    Settings(String),
    /// The data directory cannot be used.
    #[error("the data directory {path} cannot be used: {source}; choose one that can be written to")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The streams kept there cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// DynamoDB or S3 cannot open what it keeps.
    #[error("{service} cannot open its data: {reason}")]
    Data {
        /// DynamoDB or S3.
        service: &'static str,
        /// What it says.
        reason: String,
    },
}

impl StartError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::PortTaken { .. } => "address-in-use",
            Self::Listen { .. } => "listen-failed",
            Self::Settings(_) => "local-config-invalid",
            Self::DataDir { .. } => "data-dir-unusable",
            Self::Snapshot(SnapshotError::InUse { .. }) => "data-dir-in-use",
            Self::Snapshot(_) => "local-snapshot-unreadable",
            Self::Data { .. } => "local-data-unreadable",
        }
    }

    /// Whether the same start may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::PortTaken { .. } | Self::Listen { .. } | Self::Snapshot(SnapshotError::InUse { .. })
        )
    }
}

/// Why a stack did not end cleanly. Everything has stopped nevertheless.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// The streams could not be kept.
    #[error("the streams were not kept: {0}")]
    Snapshot(#[from] SnapshotError),
    /// The runtime ended while they were being written.
    #[error("the streams were not kept: the runtime has ended")]
    Interrupted,
}

impl StopError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "streams-not-kept"
    }

    /// Whether [`Stack::shutdown`] may succeed when called again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Snapshot(_))
    }
}

/// A running stack. Dropping it stops it; [`Stack::shutdown`] waits for requests under way, and leaves what it keeps
/// compact.
#[derive(Debug)]
pub struct Stack {
    engine: Arc<Engine>,
    addresses: Addresses,
    kinesis: OnceLock<aws_sdk_kinesis::Client>,
    dynamodb: OnceLock<aws_sdk_dynamodb::Client>,
    s3: OnceLock<aws_sdk_s3::Client>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    _stop: DropGuard,
    /// Where objects live when nothing is kept; removed with the stack.
    _objects: Option<TempDir>,
}

#[derive(Debug, Clone, Copy)]
struct Addresses {
    kinesis: SocketAddr,
    dynamodb: SocketAddr,
    s3: SocketAddr,
    faults: Option<SocketAddr>,
}

/// Starts a stack in memory, on free ports.
///
/// # Errors
/// See [`StartError`].
pub async fn start() -> Result<Stack, StartError> {
    Stack::start(Config::default()).await
}

impl Stack {
    /// Starts a stack on loopback. It takes connections when this returns.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.settings.validate().map_err(StartError::Settings)?;
        let kinesis = listen("Kinesis", config.kinesis_port).await?;
        let dynamodb = listen("DynamoDB", config.dynamodb_port).await?;
        let s3 = listen("S3", config.s3_port).await?;
        let tables = listen("DynamoDB", 0).await?;
        let control = match config.faults_port {
            Some(port) => Some(listen("the faults", port).await?),
            None => None,
        };
        let addresses = Addresses {
            kinesis: address("Kinesis", &kinesis)?,
            dynamodb: address("DynamoDB", &dynamodb)?,
            s3: address("S3", &s3)?,
            faults: control.as_ref().map(|control| address("the faults", control)).transpose()?,
        };

        let (root, objects) = match &config.data_dir {
            Some(dir) => (dir.join("s3"), None),
            None => {
                let objects = TempDir::with_prefix("headworks-s3-")
                    .map_err(|source| StartError::DataDir { path: std::env::temp_dir(), source })?;
                (objects.path().to_owned(), Some(objects))
            }
        };
        tokio::fs::create_dir_all(&root)
            .await
            .map_err(|source| StartError::DataDir { path: root.clone(), source })?;
        let tables_file = config.data_dir.as_ref().map(|dir| dir.join("dynamodb.sqlite"));

        let engine =
            Arc::new(Engine::with_clock(config.settings, config.clock).with_faults(config.faults.clone()));
        if let Some(dir) = &config.data_dir {
            open_store(&engine, dir).await?;
        }
        let database = dynamodb::open(tables_file.as_deref())
            .map_err(|reason| StartError::Data { service: "DynamoDB", reason })?;
        let files = s3::open(&root).map_err(|reason| StartError::Data { service: "S3", reason })?;

        let shutdown = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(crate::kinesis::server::run(Arc::clone(&engine), kinesis, shutdown.clone()));
        tasks.spawn(dynamodb::run(database, dynamodb, tables, config.faults.clone(), shutdown.clone()));
        if let Some(control) = control {
            tasks.spawn(crate::faults::control::run(config.faults.clone(), control, shutdown.clone()));
        }
        tasks.spawn(s3::run(files, s3, config.faults, shutdown.clone()));
        tasks.close();
        Ok(Self {
            engine,
            addresses,
            kinesis: OnceLock::new(),
            dynamodb: OnceLock::new(),
            s3: OnceLock::new(),
            _stop: shutdown.clone().drop_guard(),
            shutdown,
            tasks,
            _objects: objects,
        })
    }

    /// The Kinesis in this process.
    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// What goes wrong: put faults in force, take them back, and see how often each has fired.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        self.engine.faults()
    }

    /// `http://127.0.0.1:PORT` of Kinesis.
    #[must_use]
    pub fn kinesis_endpoint(&self) -> String {
        format!("http://{}", self.addresses.kinesis)
    }

    /// `http://127.0.0.1:PORT` from which faults are put in force, if there is such a port.
    #[must_use]
    pub fn faults_endpoint(&self) -> Option<String> {
        self.addresses.faults.map(|address| format!("http://{address}"))
    }

    /// `http://127.0.0.1:PORT` of DynamoDB.
    #[must_use]
    pub fn dynamodb_endpoint(&self) -> String {
        format!("http://{}", self.addresses.dynamodb)
    }

    /// `http://127.0.0.1:PORT` of S3, for path-style clients with [`ACCESS_KEY`] and [`SECRET_KEY`].
    #[must_use]
    pub fn s3_endpoint(&self) -> String {
        format!("http://{}", self.addresses.s3)
    }

    /// A client of Kinesis.
    #[must_use]
    pub fn kinesis(&self) -> aws_sdk_kinesis::Client {
        let build = || {
            let config = aws_sdk_kinesis::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(self.region())
                .credentials_provider(credentials())
                .endpoint_url(self.kinesis_endpoint());
            aws_sdk_kinesis::Client::from_conf(config.build())
        };
        self.kinesis.get_or_init(build).clone()
    }

    /// A client of DynamoDB.
    #[must_use]
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        let build = || {
            let config = aws_sdk_dynamodb::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(self.region())
                .credentials_provider(credentials())
                .endpoint_url(self.dynamodb_endpoint());
            aws_sdk_dynamodb::Client::from_conf(config.build())
        };
        self.dynamodb.get_or_init(build).clone()
    }

    /// A client of S3, path style.
    #[must_use]
    pub fn s3(&self) -> aws_sdk_s3::Client {
        let build = || {
            let config = aws_sdk_s3::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(self.region())
                .credentials_provider(credentials())
                .force_path_style(true)
                .endpoint_url(self.s3_endpoint());
            aws_sdk_s3::Client::from_conf(config.build())
        };
        self.s3.get_or_init(build).clone()
    }

    fn region(&self) -> Region {
        Region::new(self.engine.settings().region.clone())
    }

    /// Stops everything, then keeps the streams if there is a data directory. Requests under way may finish within
    /// two seconds; subscriptions end. May be called again.
    ///
    /// # Errors
    /// [`StopError`] when the streams could not be kept.
    pub async fn shutdown(&self) -> Result<(), StopError> {
        self.shutdown.cancel();
        self.tasks.wait().await;
        let engine = Arc::clone(&self.engine);
        tokio::task::spawn_blocking(move || store::close(&engine))
            .await
            .map_err(|_| StopError::Interrupted)?
            .map_err(StopError::from)
    }
}

/// Opens what `dir` keeps. A predecessor that is just ending is waited for, as long as requests under way may take.
pub(crate) async fn open_store(engine: &Engine, dir: &Path) -> Result<(), SnapshotError> {
    let deadline = tokio::time::Instant::now() + http::GRACE;
    loop {
        match store::open(engine, dir) {
            Err(SnapshotError::InUse { .. }) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            opened => return opened,
        }
    }
}

fn credentials() -> Credentials {
    Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "headworks-local")
}

pub(crate) async fn listen(service: &'static str, port: u16) -> Result<TcpListener, StartError> {
    http::bind(port).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::PortTaken { service, port },
        _ => StartError::Listen { service, port, source },
    })
}

fn address(service: &'static str, listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|source| StartError::Listen { service, port: 0, source })
}
