//! Made-up records without a gateway.

use std::io::{BufRead, BufReader};

use crate::support::{command, finish, run, wait};

#[test]
fn the_same_seed_gives_the_same_records() {
    let arguments = |seed| ["simulate", "--dry-run", "--count", "500", "--skew", "1.1", "--seed", seed];
    let first = run(&arguments("42")).succeeds();
    assert_eq!(first.stdout, run(&arguments("42")).succeeds().stdout);
    assert_ne!(first.stdout, run(&arguments("43")).succeeds().stdout);
    let lines = first.json();
    assert_eq!(lines.len(), 500);
    for line in lines {
        assert_eq!(line["data"]["type"], line["headers"]["type"]);
        assert_eq!(line["data"]["session"], line["key"]);
    }
}

#[test]
fn templates_schedules_and_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("event.json");
    std::fs::write(&file, "{\"n\": {{seq(1)}},\n \"at\": \"{{iso_now}}\"}\n").unwrap();
    let start = "2026-02-01T00:00:00Z";
    let ran = run(&[
        "simulate",
        "--dry-run",
        "--template",
        file.to_str().unwrap(),
        "--key",
        "fixed",
        "--header",
        "kind={{choice(a)}}",
        "--schedule",
        "1s:2,2s:1",
        "--start",
        start,
    ])
    .succeeds();
    let lines = ran.json();
    let texts: Vec<&str> = lines.iter().map(|line| line["data"].as_str().unwrap()).collect();
    let expected = ["00:00:00.000", "00:00:00.500", "00:00:01.000", "00:00:02.000"];
    assert_eq!(texts.len(), 4);
    for (i, (text, time)) in texts.iter().zip(expected).enumerate() {
        assert_eq!(*text, format!("{{\"n\": {},\n \"at\": \"2026-02-01T{time}Z\"}}", i + 1));
    }
    assert_eq!(lines[0]["headers"]["kind"], "a");
    assert_eq!(lines[0]["key"], "fixed");
}

#[test]
fn mistakes_are_named() {
    let simulate =
        |arguments: &[&str]| run(&[&["simulate", "--dry-run", "--count", "1"], arguments].concat());
    simulate(&["--template", "{\"a\": {{nope}}}"])
        .fails(2, &["\"nope\"", "line 1, column 9", "[template-invalid]"]);
    simulate(&["--template", "{\"a\": {{word}}}"]).fails(2, &["does not become JSON", "[template-not-json]"]);
    simulate(&["--rate", "fast"]).fails(2, &["fast", "[rate-invalid]"]);
    simulate(&["--schedule", "10s"]).fails(2, &["10s", "[schedule-invalid]"]);
    simulate(&["--skew", "11"]).fails(2, &["11", "[skew-invalid]"]);
    simulate(&["--key", ""]).fails(2, &["record 1", "[key-empty]"]);
    assert_eq!(simulate(&["--keys", "0"]).code, Some(2));
}

#[test]
fn a_closed_pipe_is_no_error() {
    // Endless: only the reader's going ends it.
    let mut child = command(&["simulate", "--dry-run"]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    serde_json::from_str::<serde_json::Value>(&line).unwrap();
    drop(stdout);
    let ran = finish(child);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
}

#[test]
fn an_interrupt_is_no_error() {
    let mut child = command(&["simulate", "--dry-run"]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    crate::support::signal(&child, "INT");
    // Everything that was written is whole lines.
    let rest = std::io::read_to_string(stdout).unwrap();
    assert!(rest.is_empty() || rest.ends_with('\n'));
    assert_eq!(wait(&mut child).code(), Some(0));
}
