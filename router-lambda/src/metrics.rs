//! Metrics of a Lambda function: one line in CloudWatch's embedded metric format after each batch.
//!
//! CloudWatch makes metrics of such lines by itself, so a function needs neither an agent nor a call (Amazon
//! CloudWatch User Guide, "Embedded metric format"). A destination has a line of its own only while it does not take
//! everything: that is its pressure.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::report::Report;

/// The metrics' namespace.
pub const NAMESPACE: &str = "Headworks";
/// Names of the router's metrics.
pub mod name {
    /// Count: puts stored.
    pub const ROUTED: &str = "headworks.records.routed";
    /// Count: puts that failed and are handed over again; by destination, too.
    pub const FAILED: &str = "headworks.records.failed";
    /// Count: dead letters written.
    pub const DEAD_LETTERED: &str = "headworks.records.dead_lettered";
    /// Count: puts given up because of a rule's `spill-after`; by destination, too.
    pub const SPILLED: &str = "headworks.records.spilled";
    /// Count: puts that went on without a slow look-up's headers.
    pub const UNENRICHED: &str = "headworks.records.unenriched";
    /// Count: records delivered raw because an aggregate was damaged.
    pub const DAMAGED: &str = "headworks.records.damaged";
    /// Count: aggregates that their writer puts again.
    pub const SKIPPED: &str = "headworks.aggregates.skipped";
    /// Milliseconds, by destination: how long the oldest record that it did not take has been on the inbound stream.
    pub const WAITING: &str = "headworks.destination.waiting";
    /// Count: route tables put in force after the first.
    pub const TABLES_LOADED: &str = "headworks.route_table.loaded";
    /// Count: route tables refused, so that the last good one stayed.
    pub const TABLES_REFUSED: &str = "headworks.route_table.refused";
}

/// The lines for one batch.
pub fn of_report(report: &Report, function: &str, stream: &str, now_ms: u64) -> Vec<Value> {
    let counts = &report.counts;
    let mut lines = vec![line(
        now_ms,
        &[("FunctionName", function), ("StreamName", stream)],
        &[
            (name::ROUTED, "Count", counts.stored),
            (name::FAILED, "Count", counts.failed),
            (name::DEAD_LETTERED, "Count", counts.dead_letters),
            (name::SPILLED, "Count", counts.spilled),
            (name::UNENRICHED, "Count", counts.unenriched),
            (name::DAMAGED, "Count", counts.damaged),
            (name::SKIPPED, "Count", counts.misplaced),
        ],
    )];
    for (destination, pressure) in &report.pressure {
        lines.push(line(
            now_ms,
            &[("FunctionName", function), ("Destination", destination)],
            &[
                (name::FAILED, "Count", pressure.failed),
                (name::SPILLED, "Count", pressure.spilled),
                (name::WAITING, "Milliseconds", pressure.waiting.as_millis() as u64),
            ],
        ));
    }
    lines
}

/// The line for a route table that was put in force or refused.
pub fn of_table(taken: bool, function: &str, now_ms: u64) -> Value {
    let metric = if taken { name::TABLES_LOADED } else { name::TABLES_REFUSED };
    line(now_ms, &[("FunctionName", function)], &[(metric, "Count", 1)])
}

/// Writes lines to standard output, which Lambda takes as a log.
pub fn write(lines: &[Value]) {
    let mut out = std::io::stdout().lock();
    for line in lines {
        // A log that cannot be written to is no reason to fail a batch.
        let _ = writeln!(out, "{line}");
    }
}

fn line(now_ms: u64, dimensions: &[(&str, &str)], metrics: &[(&str, &str, u64)]) -> Value {
    let names: Vec<&str> = dimensions.iter().map(|(name, _)| *name).collect();
    let definitions: Vec<Value> =
        metrics.iter().map(|(name, unit, _)| json!({ "Name": name, "Unit": unit })).collect();
    let mut line = json!({
        "_aws": {
            "Timestamp": now_ms,
            "CloudWatchMetrics": [{ "Namespace": NAMESPACE, "Dimensions": [names], "Metrics": definitions }],
        },
    });
    for (name, value) in dimensions {
        line[*name] = (*value).into();
    }
    for (name, _, value) in metrics {
        line[*name] = (*value).into();
    }
    line
}
