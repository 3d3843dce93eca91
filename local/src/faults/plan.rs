//! What becomes of one call, once every fault in force has been asked.

use std::time::Duration;

use http::StatusCode;

use super::fault::{Action, Fault, Service};

/// What a call is about, as far as faults ask.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) service: Service,
    pub(crate) operation: String,
    pub(crate) resource: Option<String>,
    /// The shards that it touches, where it names any or its keys do.
    pub(crate) shards: Vec<String>,
    pub(crate) keys: Vec<String>,
}

impl Target {
    pub(crate) fn matches(&self, fault: &Fault) -> bool {
        let shard = fault.shard.is_none() || self.shards.iter().any(|shard| fault.takes_shard(shard));
        let key = fault.key.is_none() || self.keys.iter().any(|key| fault.takes_key(key));
        shard && key
    }
}

/// An error that a fault asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Injected {
    Throttled,
    ExpiredIterator,
    Coded { code: String, status: u16 },
}

impl Injected {
    pub(crate) fn coded(code: &str, status: Option<u16>) -> Self {
        let usual = || match code {
            "InternalFailure" | "InternalError" | "InternalServerError" | "InternalFailureException" => 500,
            "ServiceUnavailable" | "ServiceUnavailableException" | "SlowDown" => 503,
            "AccessDenied" => 403,
            "NoSuchBucket" | "NoSuchKey" => 404,
            _ => 400,
        };
        Self::Coded { code: code.to_owned(), status: status.unwrap_or_else(usual) }
    }

    /// The exception and the status, given what throttling is called here.
    pub(crate) fn name(self, throttled: &str) -> (String, StatusCode) {
        let (code, status) = match self {
            Self::Throttled if throttled == "SlowDown" => (throttled.to_owned(), 503),
            Self::Throttled => (throttled.to_owned(), 400),
            Self::ExpiredIterator => ("ExpiredIteratorException".to_owned(), 400),
            Self::Coded { code, status } => (code, status),
        };
        // Between 400 and 599, as faults are validated.
        (code, StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST))
    }
}

/// The message of every injected error, so that nobody takes it for a bug of the stack.
pub(crate) const MESSAGE: &str = "Injected by a fault of the embedded stack.";

/// What becomes of one call. The default: nothing unusual.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) delay: Duration,
    /// The connection closes before anything happens.
    pub(crate) reset: bool,
    pub(crate) refuse: Option<Injected>,
    pub(crate) duplicate: bool,
    pub(crate) delay_after: Duration,
    /// The connection closes when everything has happened.
    pub(crate) lost: bool,
    pub(crate) refuse_after: Option<Injected>,
}

impl Plan {
    /// Adds what a fault asks for; of several errors the first one counts.
    pub(crate) fn add(&mut self, action: &Action, target: &Target) {
        tracing::debug!(operation = %target.operation, ?action, "a fault fires");
        match action {
            Action::Throttle | Action::ThrottleCall => {
                self.refuse.get_or_insert(Injected::Throttled);
            }
            Action::Error { code, status } => {
                self.refuse.get_or_insert_with(|| Injected::coded(code, *status));
            }
            Action::ErrorAfterCommit { code, status } => {
                self.refuse_after.get_or_insert_with(|| Injected::coded(code, *status));
            }
            Action::Delay(time) => self.delay += *time,
            Action::DelayAfterCommit(time) => self.delay_after += *time,
            Action::Lost => self.lost = true,
            Action::Duplicate => self.duplicate = true,
            Action::Reset => self.reset = true,
            Action::ExpireIterator => {
                self.refuse.get_or_insert(Injected::ExpiredIterator);
            }
            Action::Outage => {
                self.refuse.get_or_insert_with(|| Injected::coded("InternalFailure", None));
            }
            // Of events, never of a call.
            Action::Stall => {}
        }
    }
}
