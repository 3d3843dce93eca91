//! Kinesis alone on a port of loopback, without DynamoDB and S3: for those who come from another local Kinesis.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Clock, Engine, Settings, SystemClock, server, store};
use crate::faults::{self, Faults};
use crate::stack::{StartError, StopError, listen, open_store};

/// How a Kinesis of its own is served. The default is in memory, with the default settings.
#[derive(Debug, Clone)]
pub struct Alone {
    /// How it behaves.
    pub settings: Settings,
    /// Where streams are kept; see [`crate::Config::data_dir`]. Default: `None`, nothing is kept.
    pub data_dir: Option<PathBuf>,
    /// Its clock.
    pub clock: Arc<dyn Clock>,
    /// What goes wrong. The handle may be kept, to change it meanwhile.
    pub faults: Faults,
    /// The port from which faults are put in force; 0 takes any free one. Default: `None`, there is no such port.
    pub faults_port: Option<u16>,
}

impl Default for Alone {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            data_dir: None,
            clock: Arc::new(SystemClock),
            faults: Faults::default(),
            faults_port: None,
        }
    }
}

/// Why a Kinesis of its own was not served, or not to a clean end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It did not end cleanly.
    #[error(transparent)]
    Stop(#[from] StopError),
}

impl ServeError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Start(error) => error.code(),
            Self::Stop(error) => error.code(),
        }
    }

    /// Whether the same may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Start(error) => error.is_retryable(),
            Self::Stop(error) => error.is_retryable(),
        }
    }
}

/// Binds a port of 127.0.0.1 for [`serve`]; 0 takes any free one.
///
/// # Errors
/// [`StartError::PortTaken`] names the port and what to do.
pub async fn bind(port: u16) -> Result<TcpListener, StartError> {
    listen("Kinesis", port).await
}

/// Serves a Kinesis on `listener` until `shutdown`; then lets requests under way finish, within two seconds, and keeps
/// the streams, if there is a data directory.
///
/// ```no_run
/// # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
/// use headworks_local::kinesis::{self, Alone};
///
/// let listener = kinesis::bind(4567).await?;
/// let shutdown = tokio_util::sync::CancellationToken::new();
/// kinesis::serve(listener, Alone::default(), shutdown).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`ServeError`]: the settings, or the data directory.
pub async fn serve(
    listener: TcpListener,
    alone: Alone,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    alone.settings.validate().map_err(StartError::Settings)?;
    let faults = alone.faults;
    let engine = Arc::new(Engine::with_clock(alone.settings, alone.clock).with_faults(faults.clone()));
    if let Some(dir) = &alone.data_dir {
        open_store(&engine, dir).await.map_err(StartError::from)?;
    }
    let control = match alone.faults_port {
        Some(port) => Some(listen("the faults", port).await?),
        None => None,
    };
    let control = async {
        if let Some(listener) = control {
            faults::control::run(faults, listener, shutdown.clone()).await;
        }
    };
    tokio::join!(server::run(Arc::clone(&engine), listener, shutdown.clone()), control);
    let kept = tokio::task::spawn_blocking(move || store::close(&engine));
    Ok(kept.await.map_err(|_| StopError::Interrupted)?.map_err(StopError::from)?)
}
