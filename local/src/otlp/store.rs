//! The spans received so far, bounded: the oldest are dropped and counted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::span::{Span, TraceId};

/// What the collector has seen since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Spans accepted.
    pub received: u64,
    /// Accepted spans dropped again because the store was full: the oldest first.
    pub dropped: u64,
    /// Spans refused because their trace or span id was missing or zero.
    pub invalid: u64,
    /// Metric export requests; their points are not kept.
    pub metric_exports: u64,
}

/// A condition on the received spans did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error(
    "no matching spans within {waited:?}: {received} received so far, {dropped} of them dropped for lack of room"
)]
pub struct Timeout {
    /// How long was waited.
    pub waited: Duration,
    /// Spans accepted since the collector started.
    pub received: u64,
    /// Spans dropped because the store was full.
    pub dropped: u64,
}

#[derive(Debug)]
pub(super) struct Store {
    max_spans: usize,
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    spans: VecDeque<Arc<Span>>,
    counts: Counts,
}

impl Store {
    pub(super) fn new(max_spans: usize) -> Self {
        Self { max_spans, inner: Mutex::default(), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, spans: Vec<Span>, invalid: u64) {
        {
            let mut inner = self.lock();
            inner.counts.received += spans.len() as u64;
            inner.counts.invalid += invalid;
            inner.spans.extend(spans.into_iter().map(Arc::new));
            let excess = inner.spans.len().saturating_sub(self.max_spans);
            inner.spans.drain(..excess);
            inner.counts.dropped += excess as u64;
        }
        self.changed.notify_waiters();
    }

    pub(super) fn add_metrics(&self) {
        self.lock().counts.metric_exports += 1;
        self.changed.notify_waiters();
    }

    pub(super) fn counts(&self) -> Counts {
        self.lock().counts
    }

    pub(super) fn clear(&self) {
        self.lock().spans.clear();
    }

    pub(super) fn spans(&self) -> Vec<Arc<Span>> {
        self.lock().spans.iter().cloned().collect()
    }

    pub(super) fn trace(&self, trace: &TraceId) -> Vec<Arc<Span>> {
        let mut spans: Vec<_> =
            self.lock().spans.iter().filter(|span| span.trace_id == *trace).cloned().collect();
        spans.sort_by_key(|span| (span.start_unix_nanos, span.end_unix_nanos));
        spans
    }

    /// Asks `look` now and after every export, until it answers or the time is up.
    pub(super) async fn wait_for<T>(
        &self,
        limit: Duration,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T, Timeout> {
        let watch = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                // Registered before the look, so that an export in between is not missed.
                changed.as_mut().enable();
                if let Some(found) = look(self) {
                    return found;
                }
                changed.await;
            }
        };
        tokio::time::timeout(limit, watch).await.map_err(|_| {
            let counts = self.counts();
            Timeout { waited: limit, received: counts.received, dropped: counts.dropped }
        })
    }
}
