//! Bad arguments, and endpoints that are not there.

use crate::support::{nobody, run, run_with};

#[test]
fn keys_and_headers_are_checked_before_anything_is_sent() {
    run(&["send", "--key", ""]).fails(2, &["the partition key is empty", "1 to 256", "[key-empty]"]);
    let long = "k".repeat(257);
    run(&["send", "--key", &long]).fails(2, &["257 characters, the limit is 256", "[key-too-long]"]);
    run(&["send", "--header", "novalue"]).fails(2, &["novalue", "name=value", "[header-argument-invalid]"]);
    run(&["send", "--header", "Type=x"]).fails(2, &["\"Type\"", "\"type\"", "[header-name-invalid]"]);
    run(&["send", "--header", "hw-t=x"]).fails(2, &["[header-name-reserved]"]);
    run(&["send", "--header", "a=1", "--header", "a=2"]).fails(2, &["twice", "[header-repeated]"]);
    run(&["send", "--format", "xml"]).fails(2, &["xml"]);
    run(&["send", "--gateway", "localhost"]).fails(2, &["\"localhost\"", "http://", "[config-invalid]"]);
}

#[test]
fn a_gateway_that_is_not_there_is_said() {
    let gateway = nobody();
    let ran = run_with(&["send", "--gateway", &gateway, "--connect-timeout", "300ms"], "{\"data\":1}\n");
    ran.fails(3, &["no gateway answers", &gateway, "headworks dev", "[gateway-unreachable]"]);
    assert_eq!(ran.stdout, "");
}

#[test]
fn a_kinesis_that_is_not_there_is_said() {
    let endpoint = nobody();
    run(&["tail", "orders", "--endpoint-url", &endpoint]).fails(3, &[&endpoint, "[kinesis-unreachable]"]);
    run(&["tail", "orders", "--endpoint-url", "nonsense"]).fails(2, &["nonsense", "[endpoint-url-invalid]"]);
    run(&["tail", "orders", "--since", "yesterday"])
        .fails(2, &["yesterday", "TRIM_HORIZON", "[since-invalid]"]);
}

#[test]
fn a_file_that_is_not_there_is_said() {
    run(&["send", "/no/such/file"]).fails(3, &["/no/such/file", "[input-unreadable]"]);
    run(&["simulate", "--template", "/no/such/file"]).fails(3, &["/no/such/file", "[template-unreadable]"]);
}

#[test]
fn a_port_that_is_taken_is_named_with_its_option() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let others = [
        "--kinesis-port",
        "0",
        "--dynamodb-port",
        "0",
        "--s3-port",
        "0",
        "--http-port",
        "0",
        "--otlp-port",
        "0",
    ];
    let ran = run(&[&["dev", "--gateway-port", &port], &others[..]].concat());
    ran.fails(3, &[&port, "already taken", "--gateway-port", "[address-in-use]"]);
}

#[test]
fn the_help_has_the_exit_codes() {
    for command in ["dev", "demo", "send", "tail", "simulate", "replay"] {
        let ran = run(&[command, "--help"]).succeeds();
        assert!(ran.stdout.contains("Exit codes:"), "{command}: {}", ran.stdout);
    }
    for command in [
        ["local", "kinesis"],
        ["dlq", "redrive"],
        ["consumers", "reset"],
        ["gateway", "key"],
        ["routes", "test"],
    ] {
        let ran = run(&[&command[..], &["--help"]].concat()).succeeds();
        assert!(ran.stdout.contains("Exit codes:"), "{command:?}: {}", ran.stdout);
    }
    // What a command says of itself beyond its first line.
    assert!(run(&["dlq", "redrive", "--help"]).succeeds().stdout.contains("moves each to redriven/"));
    assert!(run(&["--help"]).succeeds().stdout.contains("Shows a time range of a stream again\n"));
    assert_eq!(run(&["nonsense"]).code, Some(2));
    assert_eq!(run(&[]).code, Some(2));
}

#[test]
fn the_routers_bootstrap_says_where_it_belongs() {
    run(&["router-bootstrap"]).fails(3, &["AWS_LAMBDA_RUNTIME_API"]);
}
