//! The one queue of spans of a process, and what became of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor,
};

use crate::Config;

/// What became of a process's spans.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Spans that were handed over for export.
    pub submitted: u64,
    /// Spans that the receiver took.
    pub exported: u64,
    /// Spans that the receiver did not take: it was not reachable, too slow, or refused them.
    pub failed: u64,
    /// Spans that came while the queue was full, or after the end, or that the end found waiting.
    pub dropped: u64,
}

impl Report {
    /// Spans that nobody will ever see.
    pub fn lost(&self) -> u64 {
        self.failed + self.dropped
    }
}

/// The SDK counts what it drops but tells nobody in its default build, so spans are counted on both
/// sides of its queue.
#[derive(Debug, Default)]
struct Counts {
    submitted: AtomicU64,
    exported: AtomicU64,
    failed: AtomicU64,
}

/// A batch processor that the tracer provider and the record tracer share.
#[derive(Debug, Clone)]
pub(crate) struct Pipeline(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    processor: BatchSpanProcessor,
    counts: Arc<Counts>,
    closed: AtomicBool,
}

impl Pipeline {
    /// Starts the thread that exports.
    pub(crate) fn start<E>(exporter: E, endpoint: &str, resource: &Resource, config: &Config) -> Self
    where
        E: SpanExporter + 'static,
    {
        let counts = Arc::new(Counts::default());
        let counting = Counting {
            exporter,
            counts: counts.clone(),
            endpoint: endpoint.to_owned(),
            failing: AtomicBool::new(false),
        };
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(config.queue_spans)
            .with_max_export_batch_size(config.export_spans)
            .with_scheduled_delay(config.export_delay)
            .build();
        let mut processor = BatchSpanProcessor::new(counting, batches);
        // Here, because a provider could not set it through the shared handle.
        processor.set_resource(resource);
        Self(Arc::new(Inner { processor, counts, closed: AtomicBool::new(false) }))
    }

    /// What became of the spans so far; those that still wait count as dropped only at the end.
    pub(crate) fn report(&self) -> Report {
        let Inner { counts, closed, .. } = &*self.0;
        let exported = counts.exported.load(Ordering::Acquire);
        let failed = counts.failed.load(Ordering::Acquire);
        let submitted = counts.submitted.load(Ordering::Acquire);
        let open = submitted.saturating_sub(exported + failed);
        let dropped = if closed.load(Ordering::Acquire) { open } else { 0 };
        Report { submitted, exported, failed, dropped }
    }
}

impl SpanProcessor for Pipeline {
    fn on_start(&self, _span: &mut Span, _cx: &Context) {}

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        self.0.counts.submitted.fetch_add(1, Ordering::AcqRel);
        if !self.0.closed.load(Ordering::Acquire) {
            self.0.processor.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.processor.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        if self.0.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.0.processor.shutdown_with_timeout(timeout)
    }
}

/// Counts what an exporter achieves and says when it begins to fail and when it recovers.
#[derive(Debug)]
struct Counting<E> {
    exporter: E,
    counts: Arc<Counts>,
    endpoint: String,
    failing: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Counting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let result = self.exporter.export(batch).await;
        match &result {
            Ok(()) => {
                self.counts.exported.fetch_add(spans, Ordering::AcqRel);
                if self.failing.swap(false, Ordering::AcqRel) {
                    let lost = self.counts.failed.load(Ordering::Acquire);
                    tracing::info!(endpoint = self.endpoint, lost, "spans are exported again");
                }
            }
            Err(error) => {
                self.counts.failed.fetch_add(spans, Ordering::AcqRel);
                if !self.failing.swap(true, Ordering::AcqRel) {
                    tracing::warn!(
                        endpoint = self.endpoint,
                        lost = spans,
                        %error,
                        "spans cannot be exported and are lost until the receiver answers; records are not affected"
                    );
                }
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Minter, Outcome, Parent, RecordTracer, Sampler, Step, time_of};
    use opentelemetry::trace::{Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::error::OTelSdkError;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    /// Answers each export by what the test sends; a closed channel refuses.
    #[derive(Debug)]
    struct Scripted {
        started: SyncSender<Vec<SpanData>>,
        answers: Mutex<Receiver<bool>>,
    }

    impl SpanExporter for Scripted {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.started.send(batch).unwrap();
            match self.answers.lock().unwrap().recv() {
                Ok(true) => Ok(()),
                _ => Err(OTelSdkError::InternalFailure("no".into())),
            }
        }
    }

    fn start(config: &Config) -> (Pipeline, Receiver<Vec<SpanData>>, SyncSender<bool>) {
        let (started, batches) = sync_channel(64);
        let (answer, answers) = sync_channel(64);
        let exporter = Scripted { started, answers: Mutex::new(answers) };
        let resource = Resource::builder_empty().build();
        (Pipeline::start(exporter, "http://test", &resource, config), batches, answer)
    }

    fn emit(tracer: &RecordTracer, n: usize) {
        let minter = Minter::new(Sampler::always());
        for _ in 0..n {
            let creation = minter.mint(Parent::None);
            let at = time_of(creation.created_ms);
            tracer.child(&creation, Step::process("s", at, at), Vec::new, Outcome::Ok);
        }
    }

    #[test]
    fn what_a_full_queue_drops_is_counted() {
        let mut config = Config::new("test");
        (config.queue_spans, config.export_spans) = (4, 4);
        config.export_delay = Duration::from_secs(600);
        let (pipeline, batches, answer) = start(&config);
        let tracer = RecordTracer::new(pipeline.clone());
        emit(&tracer, 4);
        // The exporter now holds the first batch and the queue is empty: of ten more, four fit.
        assert_eq!(batches.recv_timeout(Duration::from_secs(10)).unwrap().len(), 4);
        emit(&tracer, 10);
        answer.send(true).unwrap();
        answer.send(false).unwrap();
        pipeline.shutdown_with_timeout(Duration::from_secs(10)).unwrap();
        emit(&tracer, 3);
        assert_eq!(pipeline.report(), Report { submitted: 17, exported: 4, failed: 4, dropped: 9 });
        assert_eq!(pipeline.report().lost(), 13);
    }

    #[test]
    fn an_unsampled_span_is_not_exported() {
        let (pipeline, _batches, answer) = start(&Config::new("test"));
        let provider = SdkTracerProvider::builder()
            .with_span_processor(pipeline.clone())
            .with_sampler(opentelemetry_sdk::trace::Sampler::AlwaysOff)
            .build();
        provider.tracer("t").in_span("x", |_| {});
        drop(answer);
        pipeline.shutdown_with_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(pipeline.report(), Report::default());
    }
}
