//! What every call looks at.

use std::sync::Arc;
use std::time::Duration;

use headworks_telemetry::{Minter, RecordTracer};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::call;
use crate::config::{Config, MAX_TIMEOUT, MIN_TIMEOUT};
use crate::tally::{Ended, Tally};

/// A stream that the gateway serves.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) name: Arc<str>,
    pub(crate) writer: headworks_writer::Handle,
    /// Records that were answered with an error, by code.
    pub(crate) failures: Tally,
}

/// One per gateway.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
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
    /// Whether records are still taken.
    pub(crate) fn check_open(&self) -> Result<(), call::Error> {
        if self.draining.is_cancelled() { Err(call::Error::Draining) } else { Ok(()) }
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
