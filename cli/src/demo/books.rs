//! What the demo's consumers write down: the ledger, the latencies, and records whose journey is traced.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headworks_consumer::Delivered;
use headworks_telemetry::now_ms;

use super::latency::{Latency, Times};
use super::ledger::{Ledger, Seen};
use super::tamper::{Tamper, Tampering};
use super::waterfall::Identity;

/// How many traced records are kept as candidates for the waterfall.
const CANDIDATES: usize = 400;

/// A traced record that was consumed.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// Its creation context.
    pub(super) identity: Identity,
    /// What it was, for the headline.
    pub(super) title: String,
}

/// Shared by all consumers of the demo.
#[derive(Debug, Clone)]
pub(super) struct Books(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    ledger: Ledger,
    latencies: BTreeMap<String, Latency>,
    candidates: Vec<Candidate>,
    tampering: Tampering,
}

/// Everything, when the books are closed.
#[derive(Debug)]
pub(super) struct Closed {
    /// What was sent, and what became of it.
    pub(super) ledger: Ledger,
    /// Samples by stream.
    pub(super) latencies: BTreeMap<String, Latency>,
    /// Traced records.
    pub(super) candidates: Vec<Candidate>,
}

impl Books {
    /// Empty books. With `tamper`, one record is dropped, swapped or altered before it is written down.
    pub(super) fn new(tamper: Option<Tamper>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            ledger: Ledger::default(),
            latencies: BTreeMap::new(),
            candidates: Vec::new(),
            tampering: Tampering::new(tamper),
        })))
    }

    /// Works on the ledger.
    pub(super) fn ledger<T>(&self, work: impl FnOnce(&mut Ledger) -> T) -> T {
        work(&mut self.lock().ledger)
    }

    /// Notes what a handler got.
    pub(super) fn handled(&self, records: &[Delivered]) {
        let now = now_ms();
        let mut inner = self.lock();
        for delivered in records {
            inner.measure(delivered, now);
            for delivered in inner.tampering.pass(delivered.clone()) {
                inner.ledger.seen(Seen {
                    record: &delivered.record,
                    stream: &delivered.stream,
                    shard: delivered.shard.as_str(),
                    sequence_number: delivered.sequence_number.as_str(),
                });
            }
        }
    }

    /// Takes everything out.
    pub(super) fn close(&self) -> Closed {
        let mut inner = self.lock();
        Closed {
            ledger: std::mem::take(&mut inner.ledger),
            latencies: std::mem::take(&mut inner.latencies),
            candidates: std::mem::take(&mut inner.candidates),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn measure(&mut self, delivered: &Delivered, now: u64) {
        let Some(creation) = delivered.record.headers.creation() else { return };
        if let Some(origin) = &delivered.origin {
            self.latencies.entry(delivered.stream.to_string()).or_default().add(Times {
                created: creation.created_ms,
                inbound: origin.arrival_ms,
                outbound: delivered.arrival_ms,
                handled: now,
            });
        }
        if creation.is_sampled() && self.candidates.len() < CANDIDATES {
            let kind = delivered.record.headers.get("type").unwrap_or("record");
            self.candidates.push(Candidate {
                identity: Identity { trace_id: creation.trace_id.0, span_id: creation.span_id.0 },
                title: format!("{kind} of {}, traceparent {}", delivered.record.key, creation.traceparent()),
            });
        }
    }
}
