//! What a producer did.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::Error;
use crate::ticket::Receipt;

/// What became of the records of a producer, from its first to its last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Records that their stream has.
    pub stored: u64,
    /// Records that it has not.
    pub failed: u64,
    /// Records of which nobody knows.
    pub unknown: u64,
    /// How many of the failed and unknown ones were given up because the time to close was over.
    pub abandoned: u64,
}

impl Report {
    /// Whether every record is stored.
    pub fn is_complete(&self) -> bool {
        self.failed == 0 && self.unknown == 0
    }
}

/// Counts, as records are answered.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) stored: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) abandoned: AtomicU64,
    /// By address, in the order in which they were given.
    gateways: Vec<(String, AtomicBool)>,
}

/// A gateway of a producer's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayState {
    /// Its address.
    pub endpoint: String,
    /// Whether it is connected.
    pub connected: bool,
}

impl Counters {
    pub(crate) fn new(endpoints: &[String]) -> Self {
        let gateways = endpoints.iter().map(|endpoint| (endpoint.clone(), AtomicBool::new(false)));
        Self { gateways: gateways.collect(), ..Self::default() }
    }

    pub(crate) fn set_connected(&self, gateway: usize, connected: bool) {
        if let Some((_, state)) = self.gateways.get(gateway) {
            state.store(connected, Ordering::Relaxed);
        }
    }

    pub(crate) fn gateways(&self) -> Vec<GatewayState> {
        let state = |(endpoint, connected): &(String, AtomicBool)| GatewayState {
            endpoint: endpoint.clone(),
            connected: connected.load(Ordering::Relaxed),
        };
        self.gateways.iter().map(state).collect()
    }

    pub(crate) fn count(&self, outcome: &Result<Receipt, Error>) {
        let counter = match outcome {
            Ok(_) => &self.stored,
            Err(error) if error.outcome_unknown() => &self.unknown,
            Err(_) => &self.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Report {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Report {
            stored: get(&self.stored),
            failed: get(&self.failed),
            unknown: get(&self.unknown),
            abandoned: get(&self.abandoned),
        }
    }
}
