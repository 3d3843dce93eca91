//! A consumer's state in Prometheus' text format.
//!
//! Names are those of [`headworks_telemetry::names::metric`], in the form that OpenTelemetry's own translation
//! gives them: `_` for `.`, `_total` after counters.

use std::fmt::Write as _;

use headworks_telemetry::names::{self, metric};

use crate::config::Config;
use crate::handle::{ShardStatus, Status};
use crate::streams::StreamShard;

type OfWorker = fn(&Status) -> u64;

const COUNTERS: [(&str, &str, OfWorker); 12] = [
    (metric::RECORDS_PROCESSED, "Records whose handler finished.", |s| s.delivered),
    (metric::RECORDS_REPEATED, "Repeats that de-duplication dropped.", |s| s.repeats_dropped),
    (metric::CONSUMER_DUPLICATES, "Records left out because they were done before.", |s| {
        s.duplicates_skipped
    }),
    (metric::CONSUMER_IDENTITIES_FORGOTTEN, "Identities forgotten before the window was over.", |s| {
        s.identities_forgotten
    }),
    (metric::RECORDS_DEAD_LETTERED, "Dead letters written.", |s| s.dead_letters),
    (metric::RECORDS_DAMAGED, "Kinesis records delivered raw.", |s| s.damaged),
    (metric::AGGREGATES_SKIPPED, "Aggregates that their writer puts again.", |s| s.misplaced_skipped),
    (metric::CONSUMER_CHECKPOINTS, "Checkpoints written.", |s| s.checkpoints),
    (metric::CONSUMER_HANDLER_FAILURES, "Attempts of handlers that failed.", |s| s.handler_failures),
    (metric::CONSUMER_SHARDS_EXPIRED, "Shards that expired before they were read to their end.", |s| {
        s.shards_expired
    }),
    (metric::CONSUMER_CHECKPOINTS_TRIMMED, "Checkpoints that the trim horizon had passed.", |s| {
        s.checkpoints_trimmed
    }),
    (metric::CONSUMER_TAKE_OVERS, "Leases taken over from workers that had not released them.", |s| {
        s.take_overs
    }),
];

const GAUGES: [(&str, &str, OfWorker); 3] = [
    (metric::LEASES_HELD, "Leases that this worker reads.", |s| s.leases_held() as u64),
    (metric::LEASES_ACTIVE, "Leases of all workers that could be read.", |s| s.leases_active),
    (metric::LEASES_UNOWNED, "Leases that nobody reads although they could be.", |s| s.leases_unowned),
];

/// Nothing where it is not known.
type OfShard = fn(&ShardStatus) -> Option<u64>;

const SHARD_GAUGES: [(&str, &str, OfShard); 6] = [
    (metric::CONSUMER_BEHIND, "Milliseconds behind the newest record.", |s| s.millis_behind),
    (metric::CONSUMER_RECORDS_BEHIND, "Records behind the newest record, estimated.", |s| s.records_behind),
    (metric::CONSUMER_SHARD_RATE, "Bytes that arrived a second, lately.", |s| Some(s.bytes_per_second)),
    (
        metric::CONSUMER_SHARD_HOT,
        "1 while the shard takes nearly all that it may, or far more than others.",
        |s| Some(s.hot.into()),
    ),
    (metric::CONSUMER_SHARD_STUCK, "1 while nothing moves although there are records.", |s| {
        Some(s.stuck.into())
    }),
    (metric::CONSUMER_SHARD_POLLED, "1 while the shard is read without fan-out.", |s| Some(s.polled.into())),
];

/// Everything, as of this status.
pub(crate) fn text(config: &Config, status: &Status) -> String {
    // What is of a worker that reads several streams is of none of them.
    let stream = Some(config.stream_name()).filter(|_| config.streams.is_empty());
    let labels = labels(config, stream, None);
    let mut page = String::new();
    // Writing to a text cannot fail.
    for (name, help, value) in COUNTERS {
        let name = family(&mut page, name, "counter", help);
        let _ = writeln!(page, "{name}{{{labels}}} {}", value(status));
    }
    for (name, help, value) in GAUGES {
        let name = family(&mut page, name, "gauge", help);
        let _ = writeln!(page, "{name}{{{labels}}} {}", value(status));
    }
    for (name, help, value) in SHARD_GAUGES {
        let name = family(&mut page, name, "gauge", help);
        for shard in &status.shards {
            let Some(value) = value(shard) else { continue };
            let id = StreamShard::of(&shard.shard).shard;
            let labels = self::labels(config, Some(&shard.stream), Some(id.as_str()));
            let _ = writeln!(page, "{name}{{{labels}}} {value}");
        }
    }
    page
}

fn labels(config: &Config, stream: Option<&str>, shard: Option<&str>) -> String {
    let all = [
        (names::MESSAGING_CONSUMER_GROUP_NAME, Some(config.application.as_str())),
        (names::MESSAGING_DESTINATION_NAME, stream),
        (names::MESSAGING_CLIENT_ID, Some(config.worker_id.as_str())),
        (names::MESSAGING_DESTINATION_PARTITION_ID, shard),
    ];
    let label = |(name, value): (&str, Option<&str>)| {
        value.map(|value| format!("{}=\"{}\"", translated(name), escaped(value)))
    };
    all.into_iter().filter_map(label).collect::<Vec<_>>().join(",")
}

/// Begins a family and gives its name.
fn family(page: &mut String, name: &str, kind: &str, help: &str) -> String {
    let mut name = translated(name);
    if kind == "counter" {
        name.push_str("_total");
    }
    let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    name
}

fn translated(name: &str) -> String {
    name.replace('.', "_")
}

/// A worker's id may hold anything.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::handle::Handle;
    use crate::streams::Event;

    #[tokio::test(start_paused = true)]
    async fn every_number_has_its_name_and_labels() {
        let mut config = Config::new("app", "orders");
        config.worker_id = "a \"b\"".to_owned();
        let handle = Handle::new(Arc::new(config));
        let gauge = handle.shard(&"s".into());
        gauge.delivered(3);
        gauge.received(&Event::default(), 0);
        gauge.behind(120);
        let page = handle.metrics();
        let labels = r#"messaging_consumer_group_name="app",messaging_destination_name="orders",messaging_client_id="a \"b\"""#;
        assert!(page.contains(&format!("headworks_records_processed_total{{{labels}}} 3\n")), "{page}");
        let shard = r#"messaging_destination_partition_id="s""#;
        assert!(page.contains(&format!("headworks_consumer_behind{{{labels},{shard}}} 120\n")), "{page}");
        assert!(page.contains(&format!("headworks_consumer_shard_stuck{{{labels},{shard}}} 0\n")), "{page}");
        tokio::time::advance(std::time::Duration::from_secs(60)).await;
        assert!(
            handle.metrics().contains(&format!("headworks_consumer_shard_stuck{{{labels},{shard}}} 1\n"))
        );
        let several = Handle::new(Arc::new(Config::of_streams("app", ["orders", "clicks"])));
        several.shard(&"1:clicks:2:s".into()).received(&Event::default(), 0);
        let both = several.metrics();
        let shard = r#"messaging_destination_name="clicks","#;
        assert!(both.contains(shard) && both.contains(r#"messaging_destination_partition_id="s""#), "{both}");
        assert!(!both.contains(r#"name="orders""#), "{both}");
        let families = page.lines().filter(|line| line.starts_with("# TYPE")).count();
        assert_eq!(families, COUNTERS.len() + GAUGES.len() + SHARD_GAUGES.len());
    }
}
