//! A consumer's state in Prometheus' text format.
//!
//! Names are those of [`headworks_telemetry::names::metric`], in the form that OpenTelemetry's own translation
//! gives them: `_` for `.`, `_total` after counters.

use std::fmt::Write as _;

use headworks_telemetry::names::{self, metric};

use crate::config::Config;
use crate::handle::{ShardStatus, Status};

/// Names that no other part has.
const DUPLICATES: &str = "headworks.consumer.duplicates";
const FORGOTTEN: &str = "headworks.consumer.identities.forgotten";
const CHECKPOINTS: &str = "headworks.consumer.checkpoints";
const HANDLER_FAILURES: &str = "headworks.consumer.handler.failures";
const EXPIRED: &str = "headworks.consumer.shards.expired";
const TRIMMED: &str = "headworks.consumer.checkpoints.trimmed";
const TAKE_OVERS: &str = "headworks.consumer.take_overs";
const LEASES_ACTIVE: &str = "headworks.leases.active";
const LEASES_UNOWNED: &str = "headworks.leases.unowned";
const RECORDS_BEHIND: &str = "headworks.consumer.records.behind";
const BYTES_PER_SECOND: &str = "headworks.consumer.shard.bytes_per_second";
const HOT: &str = "headworks.consumer.shard.hot";
const STUCK: &str = "headworks.consumer.shard.stuck";
const POLLED: &str = "headworks.consumer.shard.polled";

type OfWorker = fn(&Status) -> u64;

const COUNTERS: [(&str, &str, OfWorker); 12] = [
    (metric::RECORDS_PROCESSED, "Records whose handler finished.", |s| s.delivered),
    (metric::RECORDS_REPEATED, "Repeats that de-duplication dropped.", |s| s.repeats_dropped),
    (DUPLICATES, "Records left out because they were done before.", |s| s.duplicates_skipped),
    (FORGOTTEN, "Identities forgotten before the window was over.", |s| s.identities_forgotten),
    (metric::RECORDS_DEAD_LETTERED, "Dead letters written.", |s| s.dead_letters),
    (metric::RECORDS_DAMAGED, "Kinesis records delivered raw.", |s| s.damaged),
    (metric::AGGREGATES_SKIPPED, "Aggregates that their writer puts again.", |s| s.misplaced_skipped),
    (CHECKPOINTS, "Checkpoints written.", |s| s.checkpoints),
    (HANDLER_FAILURES, "Attempts of handlers that failed.", |s| s.handler_failures),
    (EXPIRED, "Shards that expired before they were read to their end.", |s| s.shards_expired),
    (TRIMMED, "Checkpoints that the trim horizon had passed.", |s| s.checkpoints_trimmed),
    (TAKE_OVERS, "Leases taken over from workers that had not released them.", |s| s.take_overs),
];

const GAUGES: [(&str, &str, OfWorker); 3] = [
    (metric::LEASES_HELD, "Leases that this worker reads.", |s| s.leases_held() as u64),
    (LEASES_ACTIVE, "Leases of all workers that could be read.", |s| s.leases_active),
    (LEASES_UNOWNED, "Leases that nobody reads although they could be.", |s| s.leases_unowned),
];

/// Nothing where it is not known.
type OfShard = fn(&ShardStatus) -> Option<u64>;

const SHARD_GAUGES: [(&str, &str, OfShard); 6] = [
    (metric::CONSUMER_BEHIND, "Milliseconds behind the newest record.", |s| s.millis_behind),
    (RECORDS_BEHIND, "Records behind the newest record, estimated.", |s| s.records_behind),
    (BYTES_PER_SECOND, "Bytes that arrived a second, lately.", |s| Some(s.bytes_per_second)),
    (HOT, "1 while the shard takes nearly all that it may, or far more than others.", |s| Some(s.hot.into())),
    (STUCK, "1 while nothing moves although there are records.", |s| Some(s.stuck.into())),
    (POLLED, "1 while the shard is read without fan-out.", |s| Some(s.polled.into())),
];

/// Everything, as of this status.
pub(crate) fn text(config: &Config, status: &Status) -> String {
    let labels = format!(
        "{}=\"{}\",{}=\"{}\",{}=\"{}\"",
        translated(names::MESSAGING_CONSUMER_GROUP_NAME),
        escaped(&config.application),
        translated(names::MESSAGING_DESTINATION_NAME),
        escaped(config.stream_name()),
        translated(names::MESSAGING_CLIENT_ID),
        escaped(&config.worker_id),
    );
    let shard_label = translated(names::MESSAGING_DESTINATION_PARTITION_ID);
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
            let id = escaped(shard.shard.as_str());
            let _ = writeln!(page, "{name}{{{labels},{shard_label}=\"{id}\"}} {value}");
        }
    }
    page
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
        let families = page.lines().filter(|line| line.starts_with("# TYPE")).count();
        assert_eq!(families, COUNTERS.len() + GAUGES.len() + SHARD_GAUGES.len());
    }
}
