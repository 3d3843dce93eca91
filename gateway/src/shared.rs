//! What every call looks at.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use headworks_telemetry::{Minter, RecordTracer};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::Audit;
use crate::auth::Auth;
use crate::call;
use crate::config::{Config, MAX_TIMEOUT, MIN_TIMEOUT};
use crate::health::Writable;
use crate::principal::Principal;
use crate::protect::Protection;
use crate::reload::Part;
use crate::spool;
use crate::tally::{Ended, Tally};
use crate::tls::Tls;

/// A stream that the gateway serves.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) name: Arc<str>,
    pub(crate) writer: headworks_writer::Handle,
    /// Where records are acknowledged, if not by the stream.
    pub(crate) spool: Option<spool::Handle>,
    /// What is done with fields of payloads now.
    pub(crate) protection: RwLock<Arc<Protection>>,
    /// Records that were answered with an error, by code.
    pub(crate) failures: Tally,
    /// Whether the stream takes records, as far as is known.
    pub(crate) writable: Writable,
}

impl Inbound {
    /// What is done with fields of payloads now.
    pub(crate) fn protection(&self) -> Arc<Protection> {
        Arc::clone(&self.protection.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One per gateway.
#[derive(Debug)]
pub(crate) struct Shared {
    /// As of the start.
    pub(crate) config: Config,
    /// With what was reloaded since.
    pub(crate) current: Mutex<Config>,
    pub(crate) auth: watch::Sender<Arc<Auth>>,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) audit: Audit,
    /// What a reload changes.
    pub(crate) parts: Vec<Box<dyn Part>>,
    /// Reloads, by how they ended.
    pub(crate) reloads: Tally,
    /// When the configuration was put in force, in seconds since 1970.
    pub(crate) reloaded_at: AtomicU64,
    /// Batches that were held up or refused for a principal's limit, by its name.
    pub(crate) limited: Tally,
    /// Room for messages that are being read.
    pub(crate) receiving: Arc<Semaphore>,
    /// In the order of the configuration.
    pub(crate) streams: Vec<Arc<Inbound>>,
    pub(crate) minter: Minter,
    pub(crate) tracer: RecordTracer,
    /// Cancelled when the gateway stops taking records.
    pub(crate) draining: CancellationToken,
    /// The calls whose records are not all answered.
    pub(crate) calls: TaskTracker,
    /// Calls that ended, by door and code.
    pub(crate) ended: Ended,
}

impl Shared {
    /// What credentials are checked against now.
    pub(crate) fn auth(&self) -> Arc<Auth> {
        Arc::clone(&self.auth.borrow())
    }

    pub(crate) fn set_auth(&self, auth: Auth) {
        self.auth.send_replace(Arc::new(auth));
    }

    /// Tells when that changes.
    pub(crate) fn auth_changes(&self) -> watch::Receiver<Arc<Auth>> {
        self.auth.subscribe()
    }

    /// Whether records are still taken.
    pub(crate) fn check_open(&self) -> Result<(), call::Error> {
        if self.draining.is_cancelled() { Err(call::Error::Draining) } else { Ok(()) }
    }

    /// Whether the principal may write to the stream.
    pub(crate) fn check_stream(&self, principal: &Principal, inbound: &Inbound) -> Result<(), call::Error> {
        if principal.may_write(&inbound.name) {
            return Ok(());
        }
        Err(call::Error::StreamNotAllowed {
            principal: principal.name.to_string(),
            stream: inbound.name.to_string(),
        })
    }

    /// The stream of this name; the default one if it is empty.
    pub(crate) fn inbound(&self, name: &str) -> Result<&Arc<Inbound>, call::Error> {
        let wanted = match name {
            "" => self.config.default_stream.as_deref(),
            name => Some(name),
        };
        let found = match wanted {
            None => self.streams.first(),
            Some(wanted) => self.streams.iter().find(|stream| *stream.name == *wanted),
        };
        found.ok_or_else(|| call::Error::UnknownStream {
            name: name.chars().take(128).collect(),
            served: self.streams.iter().map(|stream| &*stream.name).collect::<Vec<_>>().join(", "),
        })
    }

    /// The time that a client asks for, within its bounds; the default if it does not ask.
    pub(crate) fn timeout(
        &self,
        asked: Option<impl TryInto<Duration> + std::fmt::Debug + Copy>,
    ) -> Result<Duration, call::Error> {
        let Some(asked) = asked else { return Ok(Duration::from_millis(self.config.timeout_ms)) };
        match asked.try_into() {
            Ok(timeout) if (MIN_TIMEOUT..=MAX_TIMEOUT).contains(&timeout) => Ok(timeout),
            Ok(timeout) => Err(call::Error::Timeout { given: format!("{timeout:?}") }),
            Err(_) => Err(call::Error::Timeout { given: format!("{asked:?}") }),
        }
    }
}
