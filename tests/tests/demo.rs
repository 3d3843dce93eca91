//! The demo holds, and its check can fail.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::process::{Command, Output};

fn demo(arguments: &[&str]) -> Output {
    Command::new(headworks_tests::program("headworks").unwrap())
        .args(["demo", "--records", "3000", "--trace-ratio", "0.2"])
        .args(arguments)
        .output()
        .unwrap()
}

fn text(output: &Output) -> (String, String) {
    let utf8 = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (utf8(&output.stdout), utf8(&output.stderr))
}

#[test]
fn every_record_arrives_and_the_journey_is_drawn() {
    let output = demo(&[]);
    let (out, err) = text(&output);
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("OK: 3,000 records acknowledged, every one consumed"), "{out}");
    assert!(
        err.contains("split shardId-") && err.contains("of inbound") && err.contains("of clicks"),
        "{err}"
    );
    for span in ["create inbound", "send inbound", "route inbound", "process "] {
        assert!(out.contains(span), "no span {span:?} in the journey:\n{out}");
    }
}

#[test]
fn faults_lose_nothing() {
    let faults = [
        "put-records throttle p=0.05 seed=7",
        "put-records lost every=40",
        "put-records duplicate every=30",
        "subscribe-to-shard reset every=20",
        "dynamodb:update-item error=InternalServerError p=0.1 seed=3",
    ];
    let arguments: Vec<&str> = faults.iter().flat_map(|fault| ["--fault", *fault]).collect();
    let output = demo(&arguments);
    let (out, err) = text(&output);
    assert!(output.status.success(), "{out}{err}");
    assert!(err.contains("fault: PutRecords lost every=40"), "{err}");
}

#[test]
fn a_dropped_a_swapped_and_an_altered_record_are_caught() {
    for (tamper, offence) in
        [("drop", "LOST: record"), ("swap", "OUT OF ORDER: record"), ("alter", "ALTERED: a record")]
    {
        let output = demo(&["--tamper", tamper, "--patience", "5"]);
        let (out, err) = text(&output);
        assert_eq!(output.status.code(), Some(1), "{tamper}:\n{out}{err}");
        assert!(err.contains(offence), "{tamper}:\n{err}");
        assert!(!out.contains("OK:"), "{tamper}:\n{out}");
    }
}
