//! Counts in Prometheus' text format.
//!
//! Names are those of [`headworks_telemetry::names::metric`], in the form that OpenTelemetry's own
//! translation gives them: `_` for `.`, the unit of bytes, `_total` after counters.

use std::fmt::{Display, Write as _};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use headworks_telemetry::names::{self, metric};
use headworks_writer::Stats;

use crate::shared::{Inbound, Shared};
use crate::spool;
use crate::spool::latency::{BOUNDS, Latency};

/// The format, as scrapers ask for it.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What becomes of records that nobody knows to be stored, or not.
const UNKNOWN: &str = "outcome-unknown";

/// One value per stream.
type OfStream = fn(&Inbound, &Stats) -> u64;

const COUNTERS: [(&str, &str, OfStream); 9] = [
    (metric::RECORDS_ACCEPTED, "Records that were taken.", |_, stats| stats.records),
    (metric::RECORDS_ACKNOWLEDGED, "Records that Kinesis has.", |_, stats| stats.stored),
    (metric::PUT_CALLS, "PutRecords calls made.", |_, stats| stats.calls),
    (metric::PUT_AGGREGATES, "Kinesis records put, retries included.", |_, stats| stats.entries),
    (metric::PUT_BYTES, "Bytes of those, partition keys included.", |_, stats| stats.entry_bytes),
    (metric::RECORDS_BYTES, "Bytes of keys, headers and data of stored records, once each.", |_, stats| {
        stats.user_bytes
    }),
    (metric::PUT_REFUSED, "Kinesis records that the service refused for the moment.", |_, stats| {
        stats.entry_failures
    }),
    (
        metric::AGGREGATES_MISPLACED,
        "Aggregates put again because another shard answered than was predicted.",
        |_, stats| stats.misplaced,
    ),
    (metric::SHARD_MAP_CHANGES, "Fresh shard maps that replaced an old one.", |_, stats| stats.map_changes),
];

const GAUGES: [(&str, &str, OfStream); 3] = [
    (
        metric::GATEWAY_STREAM_WRITABLE,
        "1 while the stream takes records, as far as is known.",
        |inbound, _| inbound.writable.get().into(),
    ),
    (metric::QUEUE_BYTES, "Bytes of records that are unanswered.", |inbound, _| {
        inbound.writer.buffered_bytes() as u64
    }),
    (metric::QUEUE_LIMIT, "Bytes of records that may be unanswered.", |inbound, _| {
        inbound.writer.config().max_buffered_bytes as u64
    }),
];

/// Everything, as of now.
pub(crate) fn text(shared: &Shared) -> String {
    let mut page = Page::default();
    let streams: Vec<(&Inbound, Stats)> =
        shared.streams.iter().map(|inbound| (&**inbound, inbound.writer.stats())).collect();
    for (counters, kind) in [(&COUNTERS[..], "counter"), (&GAUGES[..], "gauge")] {
        for (name, help, value) in counters {
            let name = page.family(name, kind, help);
            for (inbound, stats) in &streams {
                page.sample(
                    &name,
                    &[(names::MESSAGING_DESTINATION_NAME, &inbound.name)],
                    value(inbound, stats),
                );
            }
        }
    }
    spools(&mut page, shared);
    let help = "Records that were answered with an error, by its code.";
    let name = page.family(metric::RECORDS_FAILED, "counter", help);
    let mut unknown = Vec::new();
    for (inbound, _) in &streams {
        let stream = (names::MESSAGING_DESTINATION_NAME, &*inbound.name);
        let mut failures = inbound.failures.read();
        unknown.push((stream, failures.remove(UNKNOWN).unwrap_or_default()));
        for (code, count) in failures {
            page.sample(&name, &[stream, (names::ERROR_TYPE, &code)], count);
        }
    }
    let help = "Records whose deadline passed while a put was in flight.";
    let name = page.family(metric::RECORDS_OUTCOME_UNKNOWN, "counter", help);
    for (stream, count) in unknown {
        page.sample(&name, &[stream], count);
    }
    let name = page.family(
        metric::GATEWAY_CALLS,
        "counter",
        "Calls that ended, by door and code; ok if they went well, cancelled if the client went away.",
    );
    let ended = &shared.ended;
    for (door, tally) in [("put", &ended.put), ("put_stream", &ended.put_stream), ("http", &ended.http)] {
        for (code, count) in tally.read() {
            page.sample(&name, &[(names::DOOR, door), (names::ERROR_TYPE, &code)], count);
        }
    }
    let help = "Callers who were not let in, by code; tls-handshake-failed for connections.";
    let name = page.family(metric::GATEWAY_AUTH_FAILURES, "counter", help);
    for (code, count) in shared.audit.failures.read() {
        page.sample(&name, &[(names::ERROR_TYPE, &code)], count);
    }
    let help = "Batches that a principal's limit refused, or held up in a PutStream, by the limit's name.";
    let name = page.family(metric::GATEWAY_QUOTA_EXCEEDED, "counter", help);
    for (limit, count) in shared.limited.read() {
        page.sample(&name, &[(names::LIMIT, &limit)], count);
    }
    let help = "Lines that the audit log's disk did not take.";
    let name = page.family(metric::GATEWAY_AUDIT_LOST, "counter", help);
    page.sample(&name, &[], shared.audit.lost());
    let help = "Reloads of the configuration; ok, or the code for which it was refused.";
    let name = page.family(metric::GATEWAY_RELOADS, "counter", help);
    for (code, count) in shared.reloads.read() {
        page.sample(&name, &[(names::ERROR_TYPE, &code)], count);
    }
    let help = "When the configuration in force was read, in seconds since 1970.";
    let name = page.family(metric::GATEWAY_CONFIG_TIME, "gauge", help);
    page.sample(&name, &[], shared.reloaded_at.load(Relaxed));
    let name = page.family(metric::GATEWAY_DRAINING, "gauge", "1 if the gateway takes no more records.");
    page.sample(&name, &[], u64::from(shared.draining.is_cancelled()));
    page.0
}

/// One value per spool.
type OfSpool = fn(&spool::State) -> u64;

const SPOOL_COUNTERS: [(&str, &str, OfSpool); 5] = [
    (metric::SPOOL_APPENDED, "Records that the spool acknowledged.", |s| s.counters.appended.load(Relaxed)),
    (metric::SPOOL_FAILED, "Records that the spool could not write.", |s| s.counters.failed.load(Relaxed)),
    (metric::SPOOL_POISONED, "Files given up because a write or fsync failed.", |s| {
        s.counters.poisoned.load(Relaxed)
    }),
    (metric::SPOOL_REFUSED, "Refusals of spooled records that only an operator can mend.", |s| {
        s.counters.refused.load(Relaxed)
    }),
    (metric::SPOOL_UNREADABLE, "Failed attempts to read the spool back.", |s| {
        s.counters.unreadable.load(Relaxed)
    }),
];

const SPOOL_GAUGES: [(&str, &str, OfSpool); 6] = [
    (metric::SPOOL_RECORDS, "Acknowledged records that the stream does not have yet.", spool::State::waiting),
    (metric::SPOOL_BYTES, "Bytes of the spool's files.", spool::State::disk_bytes),
    (metric::SPOOL_LIMIT, "Bytes that they may have.", |s| s.max_bytes),
    (metric::SPOOL_OLDEST, "Milliseconds that the oldest of those records has waited.", |s| {
        s.oldest_age().as_millis() as u64
    }),
    (metric::SPOOL_SLOWEST_SYNC, "Microseconds of the slowest fsync so far.", |s| {
        s.counters.syncs.slowest_micros()
    }),
    (
        metric::SPOOL_ALARM,
        "1 while the stream refuses spooled records, or the disk does not write or read.",
        |s| s.alarm().into(),
    ),
];

fn spools(page: &mut Page, shared: &Shared) {
    let spools: Vec<(&str, &spool::State)> = shared
        .streams
        .iter()
        .filter_map(|inbound| Some((&*inbound.name, inbound.spool.as_ref()?.state())))
        .collect();
    if spools.is_empty() {
        return;
    }
    for (values, kind) in [(&SPOOL_COUNTERS[..], "counter"), (&SPOOL_GAUGES[..], "gauge")] {
        for (name, help, value) in values {
            let name = page.family(name, kind, help);
            for (stream, state) in &spools {
                page.sample(&name, &[(names::MESSAGING_DESTINATION_NAME, stream)], value(state));
            }
        }
    }
    let help = "How long it took to make writes durable, with one fsync each.";
    let name = page.family(&format!("{}.seconds", metric::SPOOL_SYNC_DURATION), "histogram", help);
    for (stream, state) in &spools {
        page.histogram(&name, (names::MESSAGING_DESTINATION_NAME, stream), &state.counters.syncs);
    }
}

/// The page as it is written.
#[derive(Debug, Default)]
struct Page(String);

impl Page {
    /// Begins a family and gives its name.
    fn family(&mut self, name: &str, kind: &str, help: &str) -> String {
        let mut name = translated(name);
        if kind == "counter" {
            name.push_str("_total");
        }
        // Writing to a text cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        name
    }

    fn histogram(&mut self, name: &str, label: (&str, &str), latency: &Latency) {
        let counts = latency.cumulative();
        let bounds = BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(counts) {
            self.sample(&format!("{name}_bucket"), &[label, ("le", &bound)], count);
        }
        let seconds = Duration::from_micros(latency.micros()).as_secs_f64();
        self.sample(&format!("{name}_sum"), &[label], seconds);
        self.sample(&format!("{name}_count"), &[label], counts[BOUNDS.len()]);
    }

    /// Values are names of streams, doors and codes, whose letters need no escape.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> =
            labels.iter().map(|(label, text)| format!("{}=\"{text}\"", translated(label))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

fn translated(name: &str) -> String {
    name.replace('.', "_")
}
