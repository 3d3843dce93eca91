//! API keys from the terminal, and gateways that want them.

use std::sync::Arc;

use headworks_gateway::{Config, Gateway};
use headworks_local::Stack;
use headworks_telemetry::Telemetry;
use headworks_writer::KinesisStream;
use tokio_util::sync::CancellationToken;

use crate::support::{Ran, command, finish, nobody, run};

#[test]
fn a_key_is_shown_once_and_its_hash_is_for_the_file() {
    let ran = run(&["gateway", "key", "shop", "--expires", "720h"]).succeeds();
    let key = ran.stderr.lines().find(|line| line.starts_with("hwk_")).unwrap();
    assert!(!ran.stdout.contains(key), "{}", ran.stdout);
    for text in ["[[keys]]", "principal = \"shop\"", "sha256 = ", "expires = "] {
        assert!(ran.stdout.contains(text), "{text}: {}", ran.stdout);
    }
    let json = run(&["gateway", "key", "shop", "--json"]).succeeds();
    assert!(json.json()[0]["key"].as_str().unwrap().starts_with("hwk_"));
    assert!(!json.stderr.contains("hwk_"), "{}", json.stderr);
    run(&["gateway", "key", ""]).fails(2, &["1 to 256", "[principal-invalid]"]);
    run(&["gateway", "key", "shop", "--expires", "2020-01-01T00:00:00Z"])
        .fails(2, &["2020", "[time-invalid]"]);
}

#[test]
fn a_configuration_is_checked_with_the_files_that_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let keys = file("keys.toml", &run(&["gateway", "key", "shop"]).succeeds().stdout);
    let settings = |keys: &str| {
        format!(
            "streams = [{{ name = \"inbound\" }}]\n[auth]\nkey_file = \"{keys}\"\n[[principals]]\nname = \"shop\"\n"
        )
    };
    let good = file("good.toml", &settings(&keys));
    let ran = run(&["gateway", "check", &good]).succeeds();
    assert!(ran.stdout.contains("streams: inbound"), "{}", ran.stdout);
    let checked = run(&["gateway", "check", &good, "--json"]).succeeds().json();
    assert_eq!((&checked[0]["authenticates"], &checked[0]["streams"][0]), (&true.into(), &"inbound".into()));
    let bad = file("bad.toml", &settings("/no/such/keys.toml"));
    run(&["gateway", "check", &bad]).fails(1, &["bad.toml", "/no/such/keys.toml", "[key-file-invalid]"]);
    let unknown = file("unknown.toml", "nonsense = 1\n");
    run(&["gateway", "check", &unknown]).fails(1, &["unknown.toml", "nonsense"]);
    run(&["gateway", "check", "/no/such.toml"]).fails(3, &["/no/such.toml"]);
}

/// A gateway that takes API keys only.
async fn gateway(stack: &Stack, keys: &std::path::Path, stop: &CancellationToken) -> String {
    let mut config = Config::for_stream("inbound");
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.kinesis_endpoint = Some(stack.kinesis_endpoint());
    config.auth.key_file = Some(keys.to_owned());
    config.principals = vec![headworks_gateway::config::PrincipalConfig::unlimited("shop")];
    let client = stack.kinesis();
    let streams = move |name: &str| Arc::new(KinesisStream::new(client.clone(), name)) as Arc<_>;
    let telemetry = Telemetry::start(headworks_telemetry::Config::new("gateway")).unwrap();
    let (gateway, handle) =
        Gateway::bind(config, streams, telemetry.minter(), telemetry.tracer()).await.unwrap();
    tokio::spawn(gateway.run(stop.clone()));
    format!("http://{}", handle.local_addr())
}

async fn send(arguments: &[&str], token: Option<&str>) -> Ran {
    let mut command = command(&[&["send"], arguments].concat());
    if let Some(token) = token {
        command.env("HEADWORKS_TOKEN", token);
    }
    let input = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        &input,
        "{\"key\":\"a\",\"data\":1}\n{\"key\":\"b\",\"data\":2}\n{\"key\":\"c\",\"data\":3}\n",
    )
    .unwrap();
    command.arg(input.path());
    let child = command.spawn().unwrap();
    tokio::task::spawn_blocking(move || finish(child)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_sent_with_a_key_to_several_gateways() {
    let stack = headworks_local::start().await.unwrap();
    stack.kinesis().create_stream().stream_name("inbound").shard_count(1).send().await.unwrap();
    let made = run(&["gateway", "key", "shop"]).succeeds();
    let key = made.stderr.lines().find(|line| line.starts_with("hwk_")).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, &made.stdout).unwrap();
    let stop = CancellationToken::new();
    let (one, two) = (gateway(&stack, file.path(), &stop).await, gateway(&stack, file.path(), &stop).await);

    let both = format!("{one},{two}");
    let sent = send(&["--gateway", &both], Some(key)).await.succeeds();
    assert!(sent.stderr.contains("3 records sent, 3 stored, 0 failed"), "{}", sent.stderr);
    send(&["--gateway", &one, "--gateway", &two, "--token", key], None).await.succeeds();
    let refused = send(&["--gateway", &one], None).await;
    refused.fails(3, &[&one, "[gateway-refused]"]);
    let wrong = send(&["--gateway", &one], Some("hwk_0123456789abcdef_00")).await;
    wrong.fails(3, &[&one, "[gateway-refused]"]);
    assert!(!format!("{wrong:?}").contains("hwk_"), "{wrong:?}");
    stop.cancel();
    stack.shutdown().await.unwrap();
}

#[test]
fn files_of_certificates_are_looked_for_first() {
    let gateway = nobody();
    let send = |arguments: &[&str]| run(&[&["send", "--gateway", &gateway], arguments].concat());
    send(&["--ca", "/no/such.pem"]).fails(3, &["/no/such.pem", "--ca", "[input-unreadable]"]);
    send(&["--client-cert", "/no/c.pem", "--client-key", "/no/k.pem"])
        .fails(3, &["/no/c.pem", "[input-unreadable]"]);
    assert_eq!(send(&["--client-cert", "/no/c.pem"]).code, Some(2));
    let help = run(&["simulate", "--help"]).succeeds().stdout;
    assert!(help.contains("--token") && help.contains("--ca"), "{help}");
}
