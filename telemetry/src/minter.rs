//! Who gives a record its identity.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use headworks_record::{Creation, SpanId, TraceId};
use opentelemetry::trace::{SpanContext, TraceContextExt};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::Sampler;

/// The span, if any, in which a record is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// The record begins a trace of its own.
    None,
    /// The record joins a trace that somebody else began: another process, or the caller's own code.
    Remote {
        /// The trace that the record joins.
        trace_id: TraceId,
        /// The span that becomes the parent of the record's creation.
        span_id: SpanId,
        /// The trace flags of that span; bit 0: sampled.
        flags: u8,
    },
}

impl Parent {
    /// The span that the calling code is in: the current `tracing` span where an OpenTelemetry layer
    /// is installed, else the current OpenTelemetry context, else none.
    ///
    /// The OpenTelemetry context also answers when the innermost `tracing` span is filtered out of
    /// the layer: its nearest exported ancestor is then the parent.
    pub fn current() -> Self {
        let context = tracing::Span::current().context();
        match Self::of(context.span().span_context()) {
            Parent::None => opentelemetry::Context::map_current(|cx| Self::of(cx.span().span_context())),
            parent => parent,
        }
    }

    /// The parent that a W3C `traceparent` text names.
    pub fn from_traceparent(text: &str) -> Result<Self, headworks_record::creation::Error> {
        let (trace_id, span_id, flags) = Creation::parse_traceparent(text)?;
        Ok(Parent::Remote { trace_id, span_id, flags })
    }

    /// The parent's span id, as [`RecordTracer::create`](crate::RecordTracer::create) takes it.
    pub fn span_id(&self) -> Option<SpanId> {
        match self {
            Parent::None => None,
            Parent::Remote { span_id, .. } => Some(*span_id),
        }
    }

    fn of(context: &SpanContext) -> Self {
        if !context.is_valid() {
            return Parent::None;
        }
        Parent::Remote {
            trace_id: TraceId(context.trace_id().to_bytes()),
            span_id: SpanId(context.span_id().to_bytes()),
            flags: context.trace_flags().to_u8(),
        }
    }
}

type Clock = dyn Fn() -> u64 + Send + Sync;
type Random = dyn Fn(&mut [u8]) + Send + Sync;

struct Sources {
    clock: Box<Clock>,
    random: Box<Random>,
}

/// Mints creation contexts. Clones are cheap and independent of each other.
#[derive(Clone)]
pub struct Minter {
    sampler: Sampler,
    /// `None`: the system's clock and the thread's generator, without an indirect call.
    sources: Option<Arc<Sources>>,
}

impl Minter {
    /// Mints with the system's clock and a cryptographic generator per thread.
    pub fn new(sampler: Sampler) -> Self {
        Self { sampler, sources: None }
    }

    /// Mints with the given clock (milliseconds since the Unix epoch) and source of random bytes.
    pub fn with_sources(
        sampler: Sampler,
        clock: impl Fn() -> u64 + Send + Sync + 'static,
        random: impl Fn(&mut [u8]) + Send + Sync + 'static,
    ) -> Self {
        let sources = Sources { clock: Box::new(clock), random: Box::new(random) };
        Self { sampler, sources: Some(Arc::new(sources)) }
    }

    /// Mints the identity of a new record.
    ///
    /// Without a parent the record begins a trace and the sampler decides. With a parent it gets a
    /// new span id in the parent's trace, and the parent's decision stands (unless the sampler is
    /// told to ignore it). An invalid parent, of zeroes, counts as none.
    pub fn mint(&self, parent: Parent) -> Creation {
        match parent {
            Parent::Remote { trace_id, span_id, flags } if trace_id.0 != [0; 16] && span_id.0 != [0; 8] => {
                let creation = Creation::child_of(trace_id, flags, self.now_ms(), self.random());
                if self.sampler.follows_parent() { creation } else { self.sampled(creation) }
            }
            _ => self.sampled(Creation::mint(self.now_ms(), self.random())),
        }
    }

    /// Derives the identity of a record from the sender's own id for it, so that a repeated request
    /// gets the same identity and the same sampling decision. The caller's context is no part of
    /// it and belongs in a link.
    pub fn mint_for_id(&self, principal: &str, stream: &str, id: &str) -> Creation {
        let parts = [principal.as_bytes(), stream.as_bytes(), id.as_bytes()];
        self.sampled(Creation::derive(&parts, self.now_ms()))
    }

    /// The time that this minter stamps, in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        match &self.sources {
            None => now_ms(),
            Some(sources) => (sources.clock)(),
        }
    }

    /// The sampler that decides for new traces.
    pub fn sampler(&self) -> Sampler {
        self.sampler
    }

    fn sampled(&self, creation: Creation) -> Creation {
        creation.with_sampled(self.sampler.samples(creation.trace_id))
    }

    fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        match &self.sources {
            None => rand::fill(&mut bytes),
            Some(sources) => (sources.random)(&mut bytes),
        }
        bytes
    }
}

impl fmt::Debug for Minter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minter").field("sampler", &self.sampler).finish_non_exhaustive()
    }
}

/// Milliseconds since the Unix epoch by the system's clock; 0 before it.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt as _;

    const NOW: u64 = 1_790_000_000_123;
    const TRACE: TraceId = TraceId([5; 16]);
    const SPAN: SpanId = SpanId([6; 8]);

    fn fixed(sampler: Sampler) -> Minter {
        Minter::with_sources(sampler, || NOW, |bytes| bytes.fill(7))
    }

    #[test]
    fn a_root_carries_its_time_and_the_samplers_decision() {
        let minter = fixed(Sampler::always());
        let root = minter.mint(Parent::None);
        assert_eq!(root, Creation::mint(NOW, [7; 18]).with_sampled(true));
        assert!(root.time_is_in_trace_id());
        assert!(!fixed(Sampler::never()).mint(Parent::None).is_sampled());
    }

    #[test]
    fn a_child_keeps_the_trace_and_the_parents_decision() {
        for (sampler, flags) in
            [(Sampler::never(), 1), (Sampler::always(), 0), (Sampler::never(), 3), (Sampler::always(), 2)]
        {
            let parent = Parent::Remote { trace_id: TRACE, span_id: SPAN, flags };
            let child = fixed(sampler).mint(parent);
            assert_eq!((child.trace_id, child.flags, child.created_ms), (TRACE, flags, NOW));
            assert_eq!(child.span_id, SpanId([7; 8]));

            let own = fixed(sampler.ignoring_parent()).mint(parent);
            assert_eq!(own.is_sampled(), sampler == Sampler::always());
            assert_eq!(own.flags & !1, flags & !1);
        }
    }

    #[test]
    fn an_invalid_parent_counts_as_none() {
        for (trace_id, span_id) in [(TraceId([0; 16]), SPAN), (TRACE, SpanId([0; 8]))] {
            let minted = fixed(Sampler::always()).mint(Parent::Remote { trace_id, span_id, flags: 1 });
            assert_eq!(minted, fixed(Sampler::always()).mint(Parent::None));
        }
    }

    #[test]
    fn an_id_of_the_sender_gives_one_identity_and_one_decision() {
        let minter = Minter::new(Sampler::ratio(0.5).unwrap());
        let later = Minter::with_sources(Sampler::ratio(0.5).unwrap(), || NOW, |bytes| bytes.fill(9));
        let mut sampled = 0;
        for i in 0..200 {
            let (a, b) = (
                minter.mint_for_id("shop", "inbound", &i.to_string()),
                later.mint_for_id("shop", "inbound", &i.to_string()),
            );
            assert_eq!((a.trace_id, a.span_id, a.flags), (b.trace_id, b.span_id, b.flags));
            assert_eq!(b.created_ms, NOW);
            sampled += usize::from(a.is_sampled());
        }
        assert!((50..150).contains(&sampled), "{sampled} of 200");
        let other = minter.mint_for_id("other", "inbound", "1");
        assert_ne!(other.trace_id, minter.mint_for_id("shop", "inbound", "1").trace_id);
    }

    #[test]
    fn minted_identities_differ_and_carry_the_systems_time() {
        let minter = Minter::new(Sampler::never());
        let before = now_ms();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10_000 {
            let creation = minter.clone().mint(Parent::None);
            assert!(seen.insert((creation.trace_id, creation.span_id)));
            assert!((before..=now_ms()).contains(&creation.created_ms));
        }
    }

    #[test]
    fn the_current_span_is_the_parent() {
        assert_eq!(Parent::current(), Parent::None);
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            assert_eq!(Parent::current(), Parent::None);
            let span = tracing::info_span!("caller");
            span.in_scope(|| {
                let context = span.context();
                let expected = Parent::of(context.span().span_context());
                assert_ne!(expected, Parent::None);
                assert_eq!(Parent::current(), expected);
                assert_eq!(Parent::current().span_id(), expected.span_id());
                let minted = Minter::new(Sampler::never()).mint(Parent::current());
                assert!(minted.is_sampled(), "the caller's span is sampled");
            });
        });
    }

    #[test]
    fn a_filtered_span_answers_with_its_exported_ancestor() {
        use tracing_subscriber::Layer as _;
        use tracing_subscriber::filter::LevelFilter;

        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("test"))
            .with_filter(LevelFilter::INFO);
        let everything = tracing_subscriber::fmt::layer().with_writer(std::io::sink);
        let subscriber = tracing_subscriber::registry().with(layer).with(everything);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info_span!("exported").in_scope(|| {
                let expected = Parent::current();
                assert_ne!(expected, Parent::None);
                let inner = tracing::debug_span!("not exported");
                assert!(!inner.is_disabled());
                inner.in_scope(|| assert_eq!(Parent::current(), expected));
            });
        });
    }

    #[test]
    fn without_a_layer_there_is_no_parent() {
        let subscriber = tracing_subscriber::registry();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info_span!("caller").in_scope(|| assert_eq!(Parent::current(), Parent::None));
        });
    }

    #[test]
    fn a_traceparent_text_is_a_parent() {
        let creation = fixed(Sampler::always()).mint(Parent::None);
        let parent = Parent::from_traceparent(&creation.traceparent()).unwrap();
        assert_eq!(parent.span_id(), Some(creation.span_id));
        assert!(Parent::from_traceparent("nonsense").is_err());
    }
}
