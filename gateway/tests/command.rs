//! The daemon as a process: its configuration, its signals, its exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use headworks_proto::v1::PutRequest;
use headworks_proto::v1::gateway_client::GatewayClient;
use support::{error, record, soon};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;
use tokio::sync::mpsc;

/// A Kinesis with one stream of one shard that takes records and never answers for them. Tells of each
/// `PutRecords`.
async fn silent_kinesis() -> (String, mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (puts, told) = mpsc::channel(100);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, puts.clone()));
        }
    });
    (endpoint, told)
}

async fn serve(socket: TcpStream, puts: mpsc::Sender<()>) {
    const SHARDS: &str = r#"{"Shards":[{"ShardId":"shardId-000000000000","HashKeyRange":{"StartingHashKey":"0",
        "EndingHashKey":"340282366920938463463374607431768211455"},"SequenceNumberRange":{"StartingSequenceNumber":"1"}}]}"#;
    let mut socket = BufReader::new(socket);
    loop {
        let (mut action, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if socket.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim().to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("x-amz-target", target)) => action = target.to_owned(),
                Some(("content-length", text)) => length = text.parse().unwrap(),
                _ if line.is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await.unwrap();
        let answer = match action.as_str() {
            "kinesis_20131202.listshards" => SHARDS,
            "kinesis_20131202.listtagsforstream" => r#"{"Tags":[],"HasMoreTags":false}"#,
            "kinesis_20131202.putrecords" => {
                puts.send(()).await.unwrap();
                std::future::pending().await
            }
            other => panic!("{other}"),
        };
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length:";
        socket.write_all(format!("{head} {}\r\n\r\n{answer}", answer.len()).as_bytes()).await.unwrap();
    }
}

fn daemon(variables: &[(&str, &str)]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_headworks-gateway"));
    let aws = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_REGION", "local")];
    let ours = [("HEADWORKS_GATEWAY_LISTEN", "127.0.0.1:0"), ("HEADWORKS_GATEWAY_STREAMS", "inbound")];
    command.env_clear().envs(aws).envs(ours).envs(variables.iter().copied());
    command.stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Starts a daemon and waits until it says where it listens.
async fn start(variables: &[(&str, &str)]) -> (Child, SocketAddr) {
    let mut child = daemon(variables).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = soon("the address", async {
        loop {
            let line = lines.next_line().await.unwrap().unwrap();
            if let Some((_, rest)) = line.split_once("address=") {
                return rest.split_whitespace().next().unwrap().parse().unwrap();
            }
        }
    })
    .await;
    // A log that nobody reads must not stop the daemon.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, address)
}

fn terminate(child: &Child) {
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
}

#[tokio::test]
async fn sigterm_drains_and_the_exit_code_tells() {
    let (endpoint, mut puts) = silent_kinesis().await;
    let variables = [("AWS_ENDPOINT_URL", &endpoint[..]), ("HEADWORKS_GATEWAY_DRAIN_MS", "50")];

    let (mut idle, _) = start(&variables).await;
    terminate(&idle);
    assert_eq!(soon("the end", idle.wait()).await.unwrap().code(), Some(0));

    let (mut busy, address) = start(&variables).await;
    let mut client = GatewayClient::connect(format!("http://{address}")).await.unwrap();
    let put = PutRequest { records: vec![record("k", "x")], ..Default::default() };
    let answered = tokio::spawn(async move { client.put(put).await });
    soon("a put", puts.recv()).await.unwrap();
    terminate(&busy);
    let results = soon("an answer", answered).await.unwrap().unwrap().into_inner().results;
    assert!(error(&results[0]).unwrap().outcome_unknown, "{results:?}");
    assert_eq!(soon("the end", busy.wait()).await.unwrap().code(), Some(3));
}

#[tokio::test]
async fn a_start_that_fails_says_why() {
    let (endpoint, _puts) = silent_kinesis().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let cases = [
        ([("AWS_ENDPOINT_URL", &endpoint[..]), ("HEADWORKS_GATEWAY_LISTEN", &address[..])], &address[..]),
        ([("AWS_ENDPOINT_URL", &gone[..]), ("HEADWORKS_LOG", "info")], &gone[..]),
    ];
    for (variables, named) in cases {
        let output = soon("the end", daemon(&variables).output()).await.unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.lines().last().unwrap().contains(named), "{text}");
    }
}

fn command(variables: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headworks-gateway"));
    let output = command.args(arguments).env_clear().envs(variables.iter().copied()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_checks_its_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.toml");
    std::fs::write(&file, "timeout_ms = 7000\n[[streams]]\nname = \"inbound\"\n").unwrap();
    let file = file.to_str().unwrap();

    let (code, out, err) =
        command(&[("HEADWORKS_GATEWAY_DRAIN_MS", "5")], &["--check-config", "--config", file]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("timeout_ms = 7000") && out.contains("drain_ms = 5"), "{out}");
    std::fs::write(directory.path().join("printed.toml"), &out).unwrap();
    let printed = directory.path().join("printed.toml");
    let (code, again, err) = command(&[], &["--check-config", "--config", printed.to_str().unwrap()]);
    assert_eq!((code, again), (Some(0), out), "{err}");

    let (code, out, err) =
        command(&[("HEADWORKS_GATEWAY_CONFIG", file), ("HEADWORKS_GATEWAY_TIMEOUT_MS", "0")], &[]);
    assert_eq!((code, &out[..]), (Some(2), ""));
    assert!(err.contains("timeout_ms is 0; it must be from 1 to 600000"), "{err}");

    // The files that it names are read too, and nothing is listened on or written.
    let audit = directory.path().join("audit.jsonl");
    let keys = directory.path().join("keys.toml");
    let text = format!(
        "[auth]\nkey_file = {keys:?}\n[audit]\nfile = {audit:?}\n[[principals]]\nname = \"*\"\n[[streams]]\nname = \"a\"\n"
    );
    std::fs::write(file, text).unwrap();
    let (code, out, err) = command(&[], &["--check-config", "--config", file]);
    assert_eq!((code, &out[..]), (Some(2), ""));
    assert!(err.contains("keys.toml") && err.contains("auth.key_file"), "{err}");
    std::fs::write(&keys, headworks_gateway::auth::keys::generate("shop", None).unwrap().toml()).unwrap();
    let (code, out, err) = command(&[], &["--check-config", "--config", file]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("[[principals]]") && !audit.exists(), "{out}");
}
