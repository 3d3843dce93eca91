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
/// Names of the router's metrics. All are counts but `WAITING`, which has milliseconds.
pub mod name {
    pub use headworks_telemetry::names::metric::{
        AGGREGATES_SKIPPED as SKIPPED, DESTINATION_WAITING as WAITING, RECORDS_DAMAGED as DAMAGED,
        RECORDS_DEAD_LETTERED as DEAD_LETTERED, RECORDS_FAILED as FAILED, RECORDS_ROUTED as ROUTED,
        RECORDS_SPILLED as SPILLED, RECORDS_UNENRICHED as UNENRICHED, ROUTE_TABLES_LOADED as TABLES_LOADED,
        ROUTE_TABLES_REFUSED as TABLES_REFUSED,
    };
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
