//! The demo's tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::census::Census;
use super::latency::{HOPS, Latency, Summary};
use super::ledger::Counts;

/// One line per stream: counts.
pub(super) fn counts(counts: &BTreeMap<String, Counts>, routed: &BTreeMap<String, Census>) -> String {
    let head = ["stream", "sent", "acknowledged", "routed", "consumed", "lost", "repeated", "out of order"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut sum = [0u64; 7];
    for (stream, counts) in counts {
        let routed = routed.get(stream).map_or(0, |census| census.records);
        let Counts { sent, acknowledged, consumed, lost, repeated, out_of_order } = *counts;
        let row = [sent, acknowledged, routed, consumed, lost, repeated, out_of_order];
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        rows.push(std::iter::once(stream.clone()).chain(row.map(grouped)).collect());
    }
    rows.push(std::iter::once("all".to_owned()).chain(sum.map(grouped)).collect());
    table(&rows)
}

/// One line per stream: p50 / p99 / max of each hop, in milliseconds.
pub(super) fn latencies(latencies: &mut BTreeMap<String, Latency>) -> String {
    let head = std::iter::once("latency in ms").chain(HOPS).map(str::to_owned).collect();
    let mut rows: Vec<Vec<String>> = vec![head];
    for (stream, latency) in latencies {
        let cell = |summary: Option<Summary>| match summary {
            Some(Summary { p50, p99, max }) => format!("{p50} / {p99} / {max}"),
            None => "-".to_owned(),
        };
        rows.push(std::iter::once(stream.clone()).chain(latency.summaries().map(cell)).collect());
    }
    let mut out = table(&rows);
    out.push_str("  (p50 / p99 / max; gateway: created to inbound stream, router: to outbound stream, consumer: to handler)\n");
    out
}

/// The first column to the left, the others to the right, with a line under the head.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for (number, row) in rows.iter().enumerate() {
        out.push(' ');
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let _ =
                if column == 0 { write!(out, " {cell:<width$}") } else { write!(out, "  {cell:>width$}") };
        }
        out.push('\n');
        if number == 0 {
            let line = widths.iter().sum::<usize>() + 2 * (columns.max(1) - 1);
            let _ = writeln!(out, "  {}", "─".repeat(line));
        }
    }
    out
}

/// Digits in groups of three.
pub(super) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let cases = [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")];
        for (value, text) in cases {
            assert_eq!(grouped(value), text);
        }
    }

    #[test]
    fn every_stream_has_a_line_and_there_is_a_sum() {
        let counts_of = |sent| Counts { sent, acknowledged: sent, consumed: sent, ..Counts::default() };
        let counts_by: BTreeMap<String, Counts> =
            [("clicks", 1_500), ("orders", 20)].map(|(s, n)| (s.to_owned(), counts_of(n))).into();
        let routed = BTreeMap::from([("clicks".to_owned(), Census { records: 1_500, ..Census::default() })]);
        let text = counts(&counts_by, &routed);
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(text.lines().last().unwrap().contains("1,520"), "{text}");
    }
}
