//! Fields of payloads are protected before anything leaves the gateway.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::Path;

use headworks_gateway::config::{Action, Otherwise, ProtectConfig, RuleConfig};
use headworks_gateway::protect::{Keys, reveal};
use headworks_gateway::{Ack, SpoolConfig};
use headworks_proto::v1::{self, PutRequest};
use headworks_telemetry::RecordTracer;
use support::{FakeStream, Mode, Running, codes, config, record};

const PAYLOAD: &str = r#"{"id": 7.00, "mail": "ada@example.org", "card": {"n": "4111"}, "pin": 1234}"#;

fn keys(folder: &Path, name: &str, secret: &str) -> std::path::PathBuf {
    let file = folder.join(name);
    let key = |id, r#use| format!("[[keys]]\nid = \"{id}\"\nuse = \"{use}\"\nsecret = \"{secret}\"\n");
    std::fs::write(&file, key("h", "hash") + &key("e", "encrypt")).unwrap();
    file
}

fn protect(keys: &Path) -> ProtectConfig {
    let rule = |pointer: &str, action, key: Option<&str>| RuleConfig {
        pointer: pointer.to_owned(),
        action,
        key: key.map(str::to_owned),
        when: None,
        missing: Otherwise::Refuse,
    };
    ProtectConfig {
        keys: Some(keys.to_owned()),
        not_json: Otherwise::Refuse,
        rules: vec![
            rule("/mail", Action::Hash, Some("h")),
            rule("/card", Action::Encrypt, Some("e")),
            rule("/pin", Action::Drop, None),
        ],
    }
}

/// Whether any file below has this text.
fn holds(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, text);
        }
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

async fn put(gateway: &Running, payload: &'static str) -> v1::RecordResult {
    let request = PutRequest { records: vec![record("k", payload)], ..Default::default() };
    gateway.client().await.put(request).await.unwrap().into_inner().results.remove(0)
}

#[tokio::test]
async fn neither_stream_nor_spool_sees_what_is_protected() {
    const FIRST: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    const SECOND: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";
    let folder = tempfile::tempdir().unwrap();
    let stream = FakeStream::new("inbound");
    stream.set(Mode::Shut);
    let first = keys(folder.path(), "first.toml", FIRST);
    let mut settings = config(&[&stream]);
    settings.streams[0].ack = Ack::Spool;
    let directory = folder.path().join("spools");
    settings.streams[0].spool = Some(SpoolConfig { directory: directory.clone(), ..Default::default() });
    settings.streams[0].protect = Some(protect(&first));
    let gateway = Running::with(settings.clone(), &[&stream], RecordTracer::disabled()).await;

    assert_eq!(codes(&[put(&gateway, PAYLOAD).await]), [""]);
    assert!(holds(&directory, "7.00"));
    for secret in ["ada@example.org", "4111", "1234"] {
        assert!(!holds(&directory, secret), "{secret} is on disk");
    }
    assert_eq!(codes(&[put(&gateway, "{\"mail\":\"x\"}").await]), ["protected-field-missing"]);
    assert_eq!(codes(&[put(&gateway, "ada@example.org").await]), ["payload-not-json"]);

    // Other keys are put in force at a reload; ones that do not fit are not.
    let second = keys(folder.path(), "second.toml", SECOND);
    settings.streams[0].protect = Some(protect(&second));
    gateway.handle.reload(Ok(settings.clone())).unwrap();
    assert_eq!(codes(&[put(&gateway, PAYLOAD).await]), [""]);
    settings.streams[0].protect = Some(protect(&folder.path().join("nowhere.toml")));
    assert_eq!(headworks_gateway::check(&settings).unwrap_err().code(), "protection-keys-invalid");
    let error = gateway.handle.reload(Ok(settings)).unwrap_err();
    assert_eq!(error.code(), "protection-keys-invalid");
    assert!(error.to_string().contains("nowhere.toml"), "{error}");
    assert_eq!(codes(&[put(&gateway, PAYLOAD).await]), [""]);

    stream.set(Mode::Open);
    stream.stored(3).await;
    gateway.stop().await;
    let payloads = stream.of_key("k");
    let hash = |payload: &str| payload.split("hwhash1:h:").nth(1).unwrap()[..43].to_owned();
    assert_ne!(hash(&payloads[0]), hash(&payloads[1]));
    assert_eq!(hash(&payloads[1]), hash(&payloads[2]));
    for (payload, file) in payloads.iter().zip([&first, &second, &second]) {
        assert!(payload.starts_with("{\"id\": 7.00, \"mail\": \"hwhash1:h:"), "{payload}");
        let revealed =
            String::from_utf8(reveal(payload.as_bytes(), &Keys::load(file).unwrap()).unwrap()).unwrap();
        assert!(revealed.ends_with("\", \"card\": {\"n\": \"4111\"}}"), "{revealed}");
    }
    assert_eq!(
        reveal(payloads[0].as_bytes(), &Keys::load(&second).unwrap()).unwrap_err().code(),
        "protection-key-unknown"
    );
}
