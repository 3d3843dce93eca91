//! Fields that a gateway encrypted, revealed by a consumer, against a KMS of the test's that speaks its protocol.
#![cfg(feature = "kms")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on panics

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kms::{Client, Config};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use headworks_consumer::protected::{Error, Revealer};
use headworks_record::protected::{KMS_CONTEXT, Keys};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/one";

#[derive(Debug, Default)]
struct Seen {
    decrypted: usize,
    data_keys: HashMap<Vec<u8>, [u8; 32]>,
    refuses: Option<&'static str>,
}

/// Answers Decrypt in the form of KMS's API reference.
async fn answer(
    State(seen): State<Arc<Mutex<Seen>>>,
    headers: HeaderMap,
    body: Bytes,
) -> axum::response::Response {
    let asked: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(headers["x-amz-target"], "TrentService.Decrypt");
    assert_eq!(
        (&asked["KeyId"], &asked["EncryptionContext"]),
        (&json!(ARN), &json!({ KMS_CONTEXT: "cards" }))
    );
    let mut seen = seen.lock().unwrap();
    seen.decrypted += 1;
    let refuse = |name: &str| {
        (StatusCode::BAD_REQUEST, Json(json!({ "__type": name, "message": "no" }))).into_response()
    };
    if let Some(exception) = seen.refuses {
        return refuse(exception);
    }
    let blob = BASE64.decode(asked["CiphertextBlob"].as_str().unwrap()).unwrap();
    match seen.data_keys.get(&blob) {
        Some(plain) => Json(json!({ "Plaintext": BASE64.encode(plain), "KeyId": ARN })).into_response(),
        None => refuse("InvalidCiphertextException"),
    }
}

struct World {
    seen: Arc<Mutex<Seen>>,
    client: Client,
    folder: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = axum::Router::new().route("/", axum::routing::post(answer)).with_state(seen.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .retry_config(aws_sdk_kms::config::retry::RetryConfig::disabled())
            .endpoint_url(url);
        Self { seen, client: Client::from_conf(config.build()), folder: tempfile::tempdir().unwrap() }
    }

    fn keys(&self) -> Keys {
        let file = self.folder.path().join("keys.toml");
        std::fs::write(&file, format!("[[keys]]\nid = \"cards\"\nuse = \"encrypt\"\nkms = \"{ARN}\"\n"))
            .unwrap();
        Keys::load(&file).unwrap()
    }

    /// A payload as a gateway makes it, under the data key of this number.
    fn payload(&self, number: u8) -> Vec<u8> {
        let (keys, wrapped) = (self.keys(), format!("blob {number}").into_bytes());
        keys.services().next().unwrap().renew(&[number; 32], wrapped.clone()).unwrap();
        self.seen.lock().unwrap().data_keys.insert(wrapped, [number; 32]);
        let sealed = keys.get("cards").unwrap().protect("/card", b"\"4711\"").unwrap();
        format!(r#"{{"total": 12.50, "card": "{sealed}", "again": "{sealed}"}}"#).into_bytes()
    }

    fn revealer(&self) -> Revealer {
        Revealer::new(self.client.clone(), self.keys())
    }

    fn decrypted(&self) -> usize {
        self.seen.lock().unwrap().decrypted
    }
}

const PLAIN: &[u8] = br#"{"total": 12.50, "card": "4711", "again": "4711"}"#;

#[tokio::test]
async fn kms_is_asked_once_for_each_data_key_by_all_who_reveal() {
    let world = World::start().await;
    let revealer = Arc::new(world.revealer().max_data_keys(2).unwrap());
    let payloads: Vec<Vec<u8>> = (1..=3).map(|number| world.payload(number)).collect();
    let at_once = (0..16).map(|_| {
        let (revealer, payload) = (revealer.clone(), payloads[0].clone());
        tokio::spawn(async move { revealer.reveal(&payload).await.unwrap() })
    });
    for revealed in futures_util::future::join_all(at_once).await {
        assert_eq!(revealed.unwrap(), PLAIN);
    }
    assert_eq!(world.decrypted(), 1);
    assert_eq!(revealer.reveal(&payloads[1]).await.unwrap(), PLAIN);
    assert_eq!(revealer.reveal(&payloads[0]).await.unwrap(), PLAIN);
    assert_eq!(world.decrypted(), 2, "two are kept");
    assert_eq!(revealer.reveal(&payloads[2]).await.unwrap(), PLAIN);
    assert_eq!(revealer.reveal(&payloads[1]).await.unwrap(), PLAIN);
    assert_eq!(world.decrypted(), 3, "the oldest went");
    assert_eq!(revealer.reveal(&payloads[0]).await.unwrap(), PLAIN);
    assert_eq!(world.decrypted(), 4);
    assert_eq!(revealer.reveal(br#"{"plain": 1}"#).await.unwrap(), br#"{"plain": 1}"#);
}

#[tokio::test]
async fn data_keys_are_not_kept_for_ever_and_refusals_are_told() {
    let world = World::start().await;
    let payload = world.payload(1);
    let revealer = world.revealer().keep_for(Duration::from_secs(1)).unwrap();
    assert_eq!(revealer.reveal(&payload).await.unwrap(), PLAIN);
    world.seen.lock().unwrap().refuses = Some("AccessDeniedException");
    // Until the data key has been kept for its time.
    let refused = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            match revealer.reveal(&payload).await {
                Ok(revealed) => assert_eq!(revealed, PLAIN),
                Err(error) => return error,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let refused = refused.await.unwrap();
    assert_eq!((refused.code(), refused.is_retryable()), ("protection-key-unavailable", false));
    assert!(
        refused.to_string().contains("AccessDeniedException") && refused.to_string().contains(ARN),
        "{refused}"
    );
    world.seen.lock().unwrap().refuses = Some("ThrottlingException");
    assert!(revealer.reveal(&payload).await.unwrap_err().is_retryable());
    world.seen.lock().unwrap().refuses = None;
    let mut changed = payload.clone();
    let at = changed.windows(8).rposition(|window| window == b"\", \"agai").unwrap();
    changed[at - 2] = if changed[at - 2] == b'A' { b'B' } else { b'A' };
    let error = revealer.reveal(&changed).await.unwrap_err();
    assert!(matches!(error, Error::Reveal(_)) && !error.is_retryable(), "{error}");
    assert_eq!(revealer.reveal(b"no JSON").await.unwrap_err().code(), "payload-not-json");
    assert!(world.revealer().max_data_keys(0).unwrap_err().to_string().contains("max_data_keys"));
}
