//! Keys of AWS KMS for field protection, against a KMS of the test's that speaks its protocol.
#![cfg(feature = "kms")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod daemon;
mod inbound;
mod support;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kms::{Client, Config};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use daemon::Daemon;
use headworks_consumer::protected::Revealer;
use headworks_gateway::config::{Action, Otherwise, ProtectConfig, RuleConfig};
use headworks_gateway::protect::kms::Kms;
use headworks_gateway::protect::{Envelope, Keys, Protection, envelopes};
use headworks_proto::v1::PutRequest;
use headworks_proto::v1::gateway_client::GatewayClient;
use headworks_record::Headers;
use inbound::{everything, stack};
use serde_json::{Value, json};
use support::{codes, record, soon};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;

const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/one";

/// What it was asked, by operation, and the data keys that it gave, by ciphertext blob.
#[derive(Debug, Default)]
struct Seen {
    generated: usize,
    decrypted: usize,
    given: HashMap<Vec<u8>, (Vec<u8>, Value)>,
    /// The exception that it answers everything with.
    refuses: Option<&'static str>,
}

#[derive(Debug, Clone)]
struct FakeKms {
    seen: Arc<Mutex<Seen>>,
    url: String,
}

impl FakeKms {
    async fn start() -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes =
            axum::Router::new().route("/", axum::routing::post(answer)).with_state(Arc::clone(&seen));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { seen, url }
    }

    fn refuse(&self, exception: Option<&'static str>) {
        self.seen.lock().unwrap().refuses = exception;
    }

    fn counts(&self) -> (usize, usize) {
        let seen = self.seen.lock().unwrap();
        (seen.generated, seen.decrypted)
    }

    fn client(&self) -> Client {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .retry_config(aws_sdk_kms::config::retry::RetryConfig::disabled())
            .endpoint_url(&self.url);
        Client::from_conf(config.build())
    }

    fn kms(&self) -> Kms {
        Kms::new(self.client())
    }

    fn revealer(&self, keys: Keys) -> Revealer {
        Revealer::new(self.client(), keys)
    }
}

/// The form is that of KMS's API reference, over JSON 1.1.
async fn answer(
    State(seen): State<Arc<Mutex<Seen>>>,
    headers: HeaderMap,
    body: Bytes,
) -> axum::response::Response {
    let asked: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(headers["content-type"], "application/x-amz-json-1.1");
    assert!(headers["authorization"].to_str().unwrap().contains("/kms/aws4_request"));
    let mut seen = seen.lock().unwrap();
    let refuse = |name: &str| {
        (StatusCode::BAD_REQUEST, Json(json!({ "__type": name, "message": "no" }))).into_response()
    };
    if let Some(exception) = seen.refuses {
        return refuse(exception);
    }
    if asked["KeyId"] != ARN {
        return refuse("NotFoundException");
    }
    match headers["x-amz-target"].to_str().unwrap() {
        "TrentService.GenerateDataKey" => {
            assert_eq!(asked["KeySpec"], "AES_256");
            seen.generated += 1;
            let (plain, blob) = (vec![seen.generated as u8; 32], format!("blob {}", seen.generated));
            seen.given.insert(blob.clone().into_bytes(), (plain.clone(), asked["EncryptionContext"].clone()));
            let (blob, plain) = (BASE64.encode(blob), BASE64.encode(plain));
            Json(json!({ "CiphertextBlob": blob, "Plaintext": plain, "KeyId": ARN })).into_response()
        }
        "TrentService.Decrypt" => {
            let blob = BASE64.decode(asked["CiphertextBlob"].as_str().unwrap()).unwrap();
            let given = seen.given.get(&blob).filter(|(_, context)| *context == asked["EncryptionContext"]);
            let Some(plain) = given.map(|(plain, _)| BASE64.encode(plain)) else {
                return refuse("InvalidCiphertextException");
            };
            seen.decrypted += 1;
            Json(json!({ "Plaintext": plain, "KeyId": ARN, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT" }))
                .into_response()
        }
        other => panic!("{other}"),
    }
}

fn keys(file: &Path, name: &str) {
    std::fs::write(file, format!("[[keys]]\nid = \"k\"\nuse = \"encrypt\"\nkms = \"{name}\"\n")).unwrap();
}

fn protection(file: &Path) -> Protection {
    let rule = RuleConfig {
        pointer: "/card".to_owned(),
        action: Action::Encrypt,
        key: Some("k".to_owned()),
        when: None,
        missing: Otherwise::Refuse,
    };
    let config =
        ProtectConfig { keys: Some(file.to_owned()), not_json: Otherwise::Refuse, rules: vec![rule] };
    Protection::load(&config).unwrap()
}

#[tokio::test]
async fn data_keys_are_made_used_renewed_and_unwrapped() {
    const PAYLOAD: &str = r#"{"id": 7.00, "card": {"n": "4111"}}"#;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    keys(&file, ARN);
    let fake = FakeKms::start().await;
    let kms = fake.kms();
    let keys = Keys::load(&file).unwrap();
    let service = keys.services().next().unwrap();
    kms.renew(&service).await.unwrap();
    assert!(service.is_ready() && !service.is_due());
    let seal = || {
        let text = keys.get("k").unwrap().protect("/card", br#"{"n": "4111"}"#).unwrap();
        format!("{{\"id\": 7.00, \"card\": \"{text}\"}}")
    };
    let (first, again) = (seal(), seal());
    kms.renew(&service).await.unwrap();
    let second = seal();
    let blob = |payload: &str| envelopes(payload.as_bytes()).unwrap()[0].wrapped_key().to_vec();
    assert_eq!([blob(&first), blob(&again), blob(&second)], [b"blob 1", b"blob 1", b"blob 2"]);

    // One who never saw the data keys asks for each of them once.
    let other = fake.revealer(Keys::load(&file).unwrap());
    for payload in [&first, &again, &second, &first] {
        assert_eq!(other.reveal(payload.as_bytes()).await.unwrap(), PAYLOAD.as_bytes());
    }
    assert_eq!(fake.counts(), (2, 2));
    assert!(!format!("{kms:?}").contains('1'));

    // A data key that was wrapped for another id is not given.
    let text = std::fs::read_to_string(&file).unwrap().replace("\"k\"", "\"j\"");
    std::fs::write(&file, text).unwrap();
    let renamed = Keys::load(&file).unwrap();
    let error = fake.revealer(renamed).reveal(first.as_bytes()).await.unwrap_err();
    assert_eq!(error.code(), "protection-key-unknown");
}

#[tokio::test]
async fn what_kms_says_is_told_and_a_data_key_in_use_stays() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    keys(&file, ARN);
    let fake = FakeKms::start().await;
    let (kms, keys) = (fake.kms(), Keys::load(&file).unwrap());
    let service = keys.services().next().unwrap();
    for (exception, retryable) in
        [("AccessDeniedException", false), ("DisabledException", false), ("ThrottlingException", true)]
    {
        fake.refuse(Some(exception));
        let error = kms.renew(&service).await.unwrap_err();
        assert_eq!((error.code(), error.is_retryable()), ("protection-key-unavailable", retryable));
        assert!(error.to_string().contains(exception) && error.to_string().contains(ARN), "{error}");
    }
    let refused = protection(&file).apply(&Headers::new(), r#"{"card":1}"#.into(), 1 << 20).unwrap_err();
    assert_eq!((refused.code(), refused.is_retryable()), ("protection-key-unavailable", true));
    fake.refuse(None);
    kms.renew(&service).await.unwrap();
    fake.refuse(Some("KMSInternalException"));
    assert!(kms.renew(&service).await.unwrap_err().is_retryable());
    assert!(keys.get("k").unwrap().protect("/a", b"1").is_ok());
}

#[tokio::test]
async fn a_gateway_protects_with_keys_of_kms() {
    let (stack, kinesis) = stack(1).await;
    let fake = FakeKms::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    keys(&path("keys.toml"), ARN);
    let config = format!(
        "listen = \"127.0.0.1:0\"\n[[streams]]\nname = \"inbound\"\n[streams.protect]\nkeys = {:?}\n\
         [[streams.protect.rules]]\npointer = \"/card\"\naction = \"encrypt\"\nkey = \"k\"\n",
        path("keys.toml")
    );
    std::fs::write(path("gateway.toml"), config).unwrap();
    let command = || {
        let mut command = daemon::command(&path("gateway.toml"), &stack.kinesis_endpoint());
        command.env("AWS_ENDPOINT_URL_KMS", &fake.url).env("AWS_MAX_ATTEMPTS", "1");
        command
    };

    // One that cannot protect does not start.
    fake.refuse(Some("AccessDeniedException"));
    let mut refused = command().spawn().unwrap();
    let mut lines = BufReader::new(refused.stderr.take().unwrap()).lines();
    assert!(!soon("its end", refused.wait()).await.unwrap().success());
    let mut said = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        said += &line;
    }
    assert!(said.contains("AccessDeniedException") && said.contains(ARN), "{said}");

    fake.refuse(None);
    let gateway = Daemon::spawn(command()).await;
    let mut client = GatewayClient::connect(gateway.url()).await.unwrap();
    let request = PutRequest { records: vec![record("k", r#"{"card": "4111"}"#)], ..Default::default() };
    let answer = soon("an answer", client.put(request)).await.unwrap().into_inner();
    assert_eq!(codes(&answer.results), [""]);
    let (_, payload) = everything(&kinesis).await.remove(0);
    assert!(!String::from_utf8_lossy(&payload).contains("4111"));
    assert_eq!(envelopes(&payload).unwrap().first().map(Envelope::key_id), Some("k"));
    let keys = Keys::load(&path("keys.toml")).unwrap();
    assert_eq!(fake.revealer(keys).reveal(&payload).await.unwrap(), br#"{"card": "4111"}"#);
    assert_eq!(fake.counts(), (1, 1));
    assert_eq!(gateway.terminate().await, Some(0));
}
