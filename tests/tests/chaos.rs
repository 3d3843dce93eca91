//! A short form of `make chaos`, and that its check can fail.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::process::Command;

fn chaos(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(headworks_tests::program("chaos").unwrap()).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn each_effect_is_there_exactly_once() {
    let (held, told) = chaos(&["--seconds", "20", "--kills", "8", "--reshards", "3"]);
    assert!(held && told.contains("OK, each record had its effect exactly once"), "{told}");
    assert!(told.contains("8 kills"), "{told}");
}

#[test]
fn workers_that_keep_no_identities_are_found_out() {
    let (held, told) =
        chaos(&["--careless", "--seconds", "5", "--kills", "0", "--reshards", "0", "--repeats", "0.2"]);
    assert!(!held && told.contains("FAILED: 0 without an effect"), "{told}");
}
