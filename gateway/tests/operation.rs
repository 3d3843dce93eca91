//! What operators see of a daemon: its reloads, its logs, its audit log, and its health.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod daemon;
mod http_client;
mod support;

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use headworks_gateway::{Config, auth};
use headworks_proto::v1::PutRequest;
use headworks_proto::v1::gateway_client::GatewayClient;
use headworks_telemetry::RecordTracer;
use http_client::ask;
use serde_json::Value;
use support::{FakeStream, Mode, Running, config, record, soon};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::watch;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

#[tokio::test]
async fn health_and_readiness_follow_the_stream_and_recover() {
    let (stream, other) = (FakeStream::new("inbound"), FakeStream::new("other"));
    let settings = Config {
        http_listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        unhealthy_after_ms: 200,
        timeout_ms: 1_000,
        ..config(&[&stream, &other])
    };
    let running = Running::with(settings, &[&stream, &other], RecordTracer::disabled()).await;
    let mut health = HealthClient::new(running.channel().await);
    let mut asking = async |service: &str| {
        let asking = HealthCheckRequest { service: service.to_owned() };
        health.watch(asking).await.unwrap().into_inner()
    };
    let (mut inbound, mut all) = (asking("inbound").await, asking("").await);
    // The same status may be told again.
    let next = async |watch: &mut tonic::Streaming<tonic_health::pb::HealthCheckResponse>, wanted| {
        soon("a status", async { while watch.message().await.unwrap().unwrap().status() != wanted {} }).await;
    };
    next(&mut inbound, ServingStatus::Serving).await;
    next(&mut all, ServingStatus::Serving).await;
    let ready = async || {
        let answer = ask(&running, "GET", "/readyz", &[], "").await;
        (answer.status, answer.json()["not_serving"].to_string())
    };
    assert_eq!(ready().await, (200, "[]".to_owned()));

    let put = |stream: &str| {
        let put = PutRequest { stream: stream.into(), records: vec![record("k", "x")], ..Default::default() };
        let url = running.url();
        tokio::spawn(async move { GatewayClient::connect(url).await.unwrap().put(put).await })
    };
    stream.set(Mode::Shut);
    let waiting = put("inbound");
    next(&mut inbound, ServingStatus::NotServing).await;
    // The gateway serves while any of its streams does.
    assert_eq!(ready().await, (200, "[\"inbound\"]".to_owned()));
    let page = String::from_utf8(ask(&running, "GET", "/metrics", &[], "").await.body).unwrap();
    assert!(page.contains("stream_writable{messaging_destination_name=\"inbound\"} 0\n"), "{page}");
    other.set(Mode::Shut);
    let also = put("other");
    next(&mut all, ServingStatus::NotServing).await;
    assert_eq!(ready().await, (503, "[\"inbound\",\"other\"]".to_owned()));

    // As soon as something is stored.
    stream.set(Mode::Open);
    next(&mut inbound, ServingStatus::Serving).await;
    next(&mut all, ServingStatus::Serving).await;
    soon("an answer", waiting).await.unwrap().unwrap();
    // Also where nobody sends any more: the stream that cannot be written at first is asked for its shards.
    soon("an answer", also).await.unwrap().unwrap();
    other.set(Mode::Open);
    soon("the other stream", async {
        while ready().await.1 != "[]" {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A Kinesis of one stream on the embedded stack, a daemon over it, and everything that it logs.
#[tokio::test]
async fn a_daemon_reloads_on_sighup_and_never_logs_a_secret() {
    let stack = headworks_local::start().await.unwrap();
    stack.kinesis().create_stream().stream_name("inbound").shard_count(1).send().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (one, two) =
        (auth::keys::generate("shop", None).unwrap(), auth::keys::generate("shop", None).unwrap());
    std::fs::write(path("keys.toml"), one.toml()).unwrap();
    let text = |limit: &str| {
        format!(
            "listen = \"127.0.0.1:0\"\nhttp_listen = \"127.0.0.1:0\"\n[auth]\nkey_file = {:?}\n[audit]\nfile = {:?}\n\
             [[principals]]\nname = \"shop\"\n{limit}\n[[streams]]\nname = \"inbound\"\n",
            path("keys.toml"),
            path("audit.jsonl")
        )
    };
    std::fs::write(path("gateway.toml"), text("")).unwrap();
    let mut command = daemon::command(&path("gateway.toml"), &stack.kinesis_endpoint());
    command.env("HEADWORKS_LOG", "trace").env("HEADWORKS_LOG_FORMAT", "json").stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (log, mut logged) = watch::channel(Vec::<String>::new());
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            log.send_modify(|log| log.push(line));
        }
    });
    let mut said = async |text: &str, times: usize| {
        let count = |log: &Vec<String>| log.iter().filter(|line| line.contains(text)).count();
        soon(text, logged.wait_for(|log| count(log) >= times)).await.unwrap().clone()
    };
    let log = said("the gateway serves", 1).await;
    let serves: Value = log
        .iter()
        .find(|line| line.contains("the gateway serves"))
        .map(|line| serde_json::from_str(line).expect("a JSON object a line"))
        .unwrap();
    let address = serves.to_string();
    let address = address.split("address\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let put = async |key: &str| {
        let mut client = GatewayClient::connect(format!("http://{address}")).await.unwrap();
        let mut put =
            Request::new(PutRequest { records: vec![record("k", "hunter2")], ..Default::default() });
        put.metadata_mut().insert("x-api-key", key.parse().unwrap());
        client.put(put).await.map_or_else(|status| status.code(), |_| Code::Ok)
    };
    let pid = child.id().unwrap().to_string();
    let signal = |name: &str| assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    assert_eq!(put(&one.key).await, Code::Ok);
    assert_eq!(put(&two.key).await, Code::Unauthenticated);

    std::fs::write(path("keys.toml"), two.toml()).unwrap();
    signal("-HUP");
    said("configuration-reloaded", 1).await;
    assert_eq!((put(&one.key).await, put(&two.key).await), (Code::Unauthenticated, Code::Ok));
    // What is bad is refused as a whole, and the last good configuration stays.
    std::fs::write(path("gateway.toml"), text("records_per_s = 0")).unwrap();
    std::fs::write(path("keys.toml"), one.toml()).unwrap();
    signal("-HUP");
    said("configuration-refused", 1).await;
    assert_eq!((put(&one.key).await, put(&two.key).await), (Code::Unauthenticated, Code::Ok));
    std::fs::write(path("gateway.toml"), text("records_per_s = 1")).unwrap();
    signal("-HUP");
    said("configuration-reloaded", 2).await;
    assert_eq!((put(&one.key).await, put(&one.key).await), (Code::Ok, Code::ResourceExhausted));

    signal("-TERM");
    assert_eq!(soon("the end", child.wait()).await.unwrap().code(), Some(0));
    let log = said("nothing was left", 1).await.join("\n");
    let audit = std::fs::read_to_string(path("audit.jsonl")).unwrap();
    for secret in [&one.key, &two.key, "hunter2"] {
        assert!(!log.contains(secret) && !audit.contains(secret), "{secret} was told");
    }
    let events: Vec<String> = audit
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].as_str().unwrap().to_owned())
        .collect();
    for (event, count) in
        [("configuration-loaded", 1), ("configuration-reloaded", 2), ("configuration-refused", 1)]
    {
        assert_eq!(events.iter().filter(|told| *told == event).count(), count, "{audit}");
    }
    assert!(audit.contains("credentials-invalid") && audit.contains("records_per_s"), "{audit}");
}
