//! Spans kept in memory, for a look at one's own traces: tests, and tools that show a journey.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};

/// Keeps the newest spans, up to a bound. Clones share what is kept.
#[derive(Debug, Clone)]
pub struct SpanStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    capacity: usize,
    spans: Mutex<VecDeque<SpanData>>,
}

impl SpanStore {
    /// Keeps the newest `capacity` spans, at least one.
    pub fn new(capacity: usize) -> Self {
        Self(Arc::new(Shared { capacity: capacity.max(1), spans: Mutex::new(VecDeque::new()) }))
    }

    /// What is kept, oldest first.
    pub fn spans(&self) -> Vec<SpanData> {
        self.lock().iter().cloned().collect()
    }

    /// Takes what is kept, oldest first.
    pub fn take(&self) -> Vec<SpanData> {
        std::mem::take(&mut *self.lock()).into()
    }

    // A panic elsewhere leaves whole spans behind: the poison says nothing about them.
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<SpanData>> {
        self.0.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SpanProcessor for SpanStore {
    fn on_start(&self, _span: &mut Span, _cx: &Context) {}

    fn on_end(&self, span: SpanData) {
        let mut spans = self.lock();
        if spans.len() == self.0.capacity {
            spans.pop_front();
        }
        spans.push_back(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}
