//! Commands against a running pipeline, and the pipeline that `dev` leaves running.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use headworks_cli::pipeline::{Config, Pipeline};

use crate::support::{Ran, command, finish, signal, wait};

async fn start() -> Pipeline {
    let program = Some(env!("CARGO_BIN_EXE_headworks").into());
    Pipeline::start(Config { program, ..Config::default() }, &mut |_| {}).await.unwrap()
}

async fn run(arguments: Vec<String>, input: String) -> Ran {
    let work = move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        crate::support::run_with(&arguments, input)
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn send(pipeline: &Pipeline, arguments: &[&str], input: impl Into<String>) -> Ran {
    let gateway = pipeline.gateway_endpoint();
    let all = [&["send", "--gateway", &gateway], arguments].concat();
    run(all.iter().map(ToString::to_string).collect(), input.into()).await
}

async fn tail(pipeline: &Pipeline, arguments: &[&str]) -> Ran {
    let endpoint = pipeline.stack().kinesis_endpoint();
    let all = [&["tail", "--endpoint-url", &endpoint], arguments].concat();
    run(all.iter().map(ToString::to_string).collect(), String::new()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_can_be_read() {
    let pipeline = start().await;
    let input = "{\"key\":\"s-1\",\"headers\":{\"type\":\"order.placed\"},\"data\":{\"total\": 12.50}}\n\n\
                 {\"key\":\"s-2\",\"headers\":{\"type\":\"page.view\"},\"data\":\"text\"}\n\
                 {\"data_base64\":\"/wA=\"}\n";
    let sent = send(&pipeline, &["--header", "tenant=acme", "--json"], input).await.succeeds();
    let answers = sent.json();
    let numbers: Vec<_> = answers.iter().map(|answer| answer["number"].as_u64()).collect();
    assert_eq!(numbers, [Some(1), Some(3), Some(4)]);
    assert!(answers.iter().all(|answer| answer["shard"].as_str().unwrap().starts_with("shardId-")));
    assert!(sent.stderr.contains("3 records sent, 3 stored, 0 failed"), "{}", sent.stderr);

    // The inbound stream has them as they were sent.
    let inbound = tail(&pipeline, &["inbound", "--json"]).await.succeeds().json();
    assert_eq!(inbound.len(), 3);
    let order = inbound.iter().find(|line| line["key"] == "s-1").unwrap();
    assert_eq!(order["headers"]["tenant"], "acme");
    assert_eq!(order["data"]["total"], 12.5);
    assert!(inbound.iter().any(|line| line["data_base64"] == "/wA="));

    // The router brings the order to its stream; following waits for it.
    let orders =
        tail(&pipeline, &["orders", "--since", "TRIM_HORIZON", "--follow", "--count", "1", "--json"]);
    let orders = orders.await.succeeds().json();
    assert_eq!(orders[0]["traceparent"], order["traceparent"]);
    assert_eq!(orders[0]["key"], "s-1");

    // What tail prints, send takes.
    let lines: String = inbound.iter().map(|line| format!("{line}\n")).collect();
    send(&pipeline, &[], lines).await.succeeds();
    pipeline.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_line_ends_the_input_and_loses_nothing_before_it() {
    let pipeline = start().await;
    let input = "{\"key\":\"a\",\"data\":1}\n{\"key\":\"b\",\"data\":2}\n{\"key\":\"c\",\"data\"\n{\"key\":\"d\",\"data\":4}\n";
    let sent = send(&pipeline, &["--json"], input).await;
    sent.fails(2, &["line 3", "column", "[line-malformed]"]);
    let keys: Vec<_> = sent.json().iter().map(|answer| answer["key"].to_string()).collect();
    assert_eq!(keys, ["\"a\"", "\"b\""]);
    assert_eq!(tail(&pipeline, &["inbound", "--format", "payload"]).await.stdout.lines().count(), 2);

    let long = format!("{{\"data\":1}}\n{{\"key\":\"{}\",\"data\":1}}\n", "k".repeat(257));
    send(&pipeline, &[], long).await.fails(2, &["line 2", "257 characters", "[key-too-long]"]);
    send(&pipeline, &["--stream", "nope"], "{\"data\":1}\n").await.fails(3, &["nope", "[gateway-refused]"]);

    // One record over the gateway's limit fails alone.
    let big = format!("small\n{}\nsmall\n", "x".repeat(2 << 20));
    let sent = send(&pipeline, &["--format", "lines", "--json"], big).await;
    sent.fails(1, &["line 2", "limit"]);
    assert!(sent.stderr.contains("3 records sent, 2 stored, 1 failed"), "{}", sent.stderr);
    pipeline.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_and_raw_input() {
    let pipeline = start().await;
    let key = ["--key", "k"];
    send(&pipeline, &[&key[..], &["--format", "lines"]].concat(), "one\r\n\ntwo").await.succeeds();
    send(&pipeline, &[&key[..], &["--format", "raw"]].concat(), "all\nof it\n").await.succeeds();
    let ran = tail(&pipeline, &["inbound", "--format", "json"]).await.succeeds();
    let data: Vec<String> = ran.json().iter().map(|line| line["data"].as_str().unwrap().to_owned()).collect();
    assert_eq!(data, ["one", "", "two", "all\nof it\n"]);
    pipeline.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_simulation_ends_cleanly_at_an_interrupt() {
    let pipeline = start().await;
    let gateway = pipeline.gateway_endpoint();
    let work = move || {
        let arguments = ["simulate", "--gateway", &gateway, "--rate", "1000", "--json", "--seed", "1"];
        let mut child = command(&arguments).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        signal(&child, "INT");
        let rest = std::io::read_to_string(stdout).unwrap();
        (1 + rest.lines().count(), finish(child))
    };
    let (answered, ran) = tokio::task::spawn_blocking(work).await.unwrap();
    let ran = ran.succeeds();
    let summary = format!("{answered} records sent, {answered} stored, 0 failed");
    assert!(ran.stderr.contains(&summary), "{summary}: {}", ran.stderr);
    let stored = tail(&pipeline, &["inbound", "--format", "payload"]).await.succeeds();
    assert_eq!(stored.stdout.lines().count(), answered);
    pipeline.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_does_not_lose_what_is_on_its_way() {
    let pipeline = start().await;
    let gateway = pipeline.gateway_endpoint();
    let work = move || {
        let mut child =
            command(&["send", "--gateway", &gateway, "--json"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let feeder = std::thread::spawn(move || while stdin.write_all(b"{\"data\":1}\n").is_ok() {});
        let mut first = [0];
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut first).unwrap();
        drop(stdout);
        let ran = finish(child);
        feeder.join().unwrap();
        ran
    };
    let ran = tokio::task::spawn_blocking(work).await.unwrap().succeeds();
    let sent: usize = ran.stderr.split(' ').next().unwrap().parse().unwrap();
    assert!(ran.stderr.contains(&format!("{sent} stored, 0 failed")), "{}", ran.stderr);
    pipeline.shutdown().await.unwrap();
}

#[test]
fn dev_runs_until_it_is_told_to_stop_and_keeps_its_data() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().to_str().unwrap().to_owned();
    let ports = [
        "--gateway-port",
        "0",
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
    let start = || {
        let mut child =
            command(&[&["dev", "--json", "--data-dir", &data_dir], &ports[..]].concat()).spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let addresses: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            panic!("{line:?}: {}", std::io::read_to_string(child.stderr.take().unwrap()).unwrap())
        });
        (child, addresses)
    };
    let stop = |mut child: std::process::Child| {
        signal(&child, "TERM");
        let stderr = child.stderr.take().unwrap();
        assert_eq!(wait(&mut child).code(), Some(0), "{}", std::io::read_to_string(stderr).unwrap());
    };
    let (child, addresses) = start();
    let gateway = addresses["gateway"].as_str().unwrap();
    crate::support::run_with(&["send", "--gateway", gateway], "{\"key\":\"kept\",\"data\":1}\n").succeeds();
    stop(child);
    let (child, addresses) = start();
    let kinesis = addresses["kinesis"].as_str().unwrap();
    let ran = crate::support::run(&["tail", "inbound", "--endpoint-url", kinesis, "--json"]).succeeds();
    assert_eq!(ran.json()[0]["key"], "kept");
    stop(child);
}
