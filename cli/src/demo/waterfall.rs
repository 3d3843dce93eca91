//! The journey of one record as a waterfall, drawn from its spans.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use headworks_local::otlp::Span;

const BAR: usize = 44;

/// The record that a waterfall is about: its creation context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    /// Its trace.
    pub(super) trace_id: [u8; 16],
    /// The span in which it was created.
    pub(super) span_id: [u8; 8],
}

/// The spans that belong to a record: those of its trace, and those that link to it, by start.
pub(super) fn journey(spans: &[Arc<Span>], record: Identity) -> Vec<Arc<Span>> {
    let belongs = |span: &Span| {
        span.trace_id == record.trace_id
            || span
                .links
                .iter()
                .any(|link| link.trace_id == record.trace_id && link.span_id == record.span_id)
    };
    let mut journey: Vec<Arc<Span>> = spans.iter().filter(|span| belongs(span)).cloned().collect();
    journey.sort_by_key(|span| (span.start_unix_nanos, std::cmp::Reverse(span.end_unix_nanos)));
    journey
}

/// How many different operations a journey shows: the fullest one is worth drawing.
pub(super) fn operations(journey: &[Arc<Span>]) -> usize {
    journey.iter().map(|span| span.name.as_str()).collect::<BTreeSet<_>>().len()
}

/// Draws a journey: a line per span, its bar on one common time scale.
pub(super) fn draw(journey: &[Arc<Span>], record: Identity) -> String {
    let mut out = String::new();
    let Some(begin) = journey.iter().map(|span| span.start_unix_nanos).min() else { return out };
    let end = journey.iter().map(|span| span.end_unix_nanos).max().unwrap_or(begin);
    let whole = (end - begin).max(1);
    let column = |nanos: u64| ((nanos - begin) as u128 * BAR as u128 / u128::from(whole)) as usize;
    for span in journey {
        let from = column(span.start_unix_nanos).min(BAR - 1);
        let to = column(span.end_unix_nanos).clamp(from + 1, BAR);
        let bar = format!("{}{}{}", " ".repeat(from), "█".repeat(to - from), " ".repeat(BAR - to));
        // What is in another trace is reached by a link, and concerns a batch.
        let mark = if span.trace_id == record.trace_id { ' ' } else { '~' };
        let _ = writeln!(
            out,
            "  {mark} {:<18} {:<20} |{bar}| {:>8.2} ms  +{:.2} ms",
            span.name,
            span.service_name,
            (span.start_unix_nanos - begin) as f64 / 1e6,
            span.duration_nanos() as f64 / 1e6,
        );
    }
    let _ = writeln!(out, "    (~: the span of a batch, in a trace of its own, that links to the record)");
    out
}
