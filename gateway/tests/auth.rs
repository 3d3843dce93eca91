//! Who is let in, with what, and what they may do, through both doors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod http_client;
mod pki;
mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use headworks_gateway::call::{ERROR_CODE, RETRY_AFTER_MS};
use headworks_gateway::config::{AuditConfig, AuthConfig, JwtConfig, PrincipalConfig};
use headworks_gateway::{Config, auth};
use headworks_proto::v1::gateway_client::GatewayClient;
use headworks_proto::v1::put_stream_request::{Batch, Message as Asked, Open};
use headworks_proto::v1::{self, CreationContext, Header, PutRequest, PutStreamRequest};
use headworks_telemetry::RecordTracer;
use http_client::{Answer, ask, post};
use jsonwebtoken::Algorithm;
use pki::{Authority, Signer, jwks};
use serde_json::{Value, json};
use support::{FakeStream, Mode, Running, codes, config, record, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::{Code, Request, Status};

const JSON: &str = "content-type: application/json";

fn settings(stream: &FakeStream) -> Config {
    Config { http_listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))), ..config(&[stream]) }
}

/// A gateway that takes API keys from this file.
fn with_keys(stream: &FakeStream, file: &Path, principals: &[PrincipalConfig]) -> Config {
    let auth = AuthConfig { key_file: Some(file.to_owned()), ..AuthConfig::default() };
    Config { auth, principals: principals.to_vec(), ..settings(stream) }
}

async fn start(config: Config, stream: &FakeStream) -> Running {
    Running::with(config, &[stream], RecordTracer::disabled()).await
}

fn asking<T>(message: T, headers: &[(&'static str, &str)]) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in headers {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }
    request
}

fn put(records: Vec<v1::Record>) -> PutRequest {
    PutRequest { records, ..Default::default() }
}

fn refusal(status: &Status) -> (Code, &str) {
    (status.code(), status.metadata().get(ERROR_CODE).unwrap().to_str().unwrap())
}

/// The outcome of a call of one record over each door; "ok" if it was taken.
async fn both(running: &Running, headers: &[(&'static str, &str)]) -> [String; 2] {
    let mut client = running.client().await;
    let grpc = match client.put(asking(put(vec![record("k", "x")]), headers)).await {
        Ok(_) => "ok".to_owned(),
        Err(status) => format!("{:?} {}", status.code(), refusal(&status).1),
    };
    let lines: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let lines: Vec<&str> = lines.iter().map(|line| &line[..]).chain([JSON]).collect();
    let answer = post(running, "/v1/records", &lines, r#"{"records":[{"key":"k"}]}"#).await;
    [grpc, outcome(&answer)]
}

fn outcome(answer: &Answer) -> String {
    match answer.status {
        200 => "ok".to_owned(),
        status => format!("{status} {}", answer.json()["error"]["code"].as_str().unwrap()),
    }
}

#[tokio::test]
async fn api_keys_let_in_by_name_and_nothing_else_does() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.toml");
    let soon_over = "2001-01-01T00:00:00Z".parse().unwrap();
    let (one, two) =
        (auth::keys::generate("shop", None).unwrap(), auth::keys::generate("shop", None).unwrap());
    let over = auth::keys::generate("shop", Some(soon_over)).unwrap();
    let nobody = auth::keys::generate("unlisted", None).unwrap();
    let entries = [&one, &two, &over, &nobody].map(|key| key.toml()).concat();
    std::fs::write(&file, entries).unwrap();
    let stream = FakeStream::new("inbound");
    let running = start(with_keys(&stream, &file, &[PrincipalConfig::unlimited("shop")]), &stream).await;

    for key in [&one.key, &two.key] {
        let bearer = format!("Bearer {key}");
        assert_eq!(both(&running, &[("authorization", &bearer)]).await, ["ok", "ok"]);
        assert_eq!(both(&running, &[("x-api-key", key)]).await, ["ok", "ok"]);
    }
    let bearer = format!("bearer {}", one.key);
    let basic = "Basic aHVudGVyMg==";
    let forged = format!("{}{}", &one.key[..one.key.len() - 64], &two.key[two.key.len() - 64..]);
    let cases: [(&[(&'static str, &str)], &str); 8] = [
        (&[], "credentials-missing"),
        (&[("authorization", basic)], "credentials-invalid"),
        (&[("authorization", "Bearer x.y.z")], "credentials-invalid"),
        (&[("x-api-key", &forged)], "credentials-invalid"),
        (&[("x-api-key", "")], "credentials-invalid"),
        (&[("x-api-key", &one.key), ("authorization", &bearer)], "credentials-invalid"),
        (&[("x-api-key", &one.key), ("x-api-key", &one.key)], "credentials-invalid"),
        (&[("x-api-key", &over.key)], "credentials-expired"),
    ];
    for (headers, code) in cases {
        let expected = [format!("Unauthenticated {code}"), format!("401 {code}")];
        assert_eq!(both(&running, headers).await, expected, "{headers:?}");
    }
    let expected = ["PermissionDenied principal-not-allowed", "403 principal-not-allowed"];
    assert_eq!(both(&running, &[("x-api-key", &nobody.key)]).await, expected);
    assert_eq!(stream.records().len(), 8);

    // A stranger learns what is taken, and not what is there.
    let answer = post(&running, "/v1/records", &[JSON], "{}").await;
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("x-api-key"));
    assert_eq!(ask(&running, "GET", "/healthz", &[], "").await.status, 200);
    assert_eq!(ask(&running, "GET", "/readyz", &[], "").await.status, 200);
    assert_eq!(ask(&running, "GET", "/metrics", &[], "").await.status, 401);
    let key = format!("x-api-key: {}", one.key);
    let page = ask(&running, "GET", "/metrics", &[&key], "").await;
    let page = String::from_utf8(page.body).unwrap();
    assert!(
        page.contains("headworks_gateway_auth_failures_total{error_type=\"credentials-expired\"} 2\n"),
        "{page}"
    );
}

#[tokio::test]
async fn a_stranger_is_refused_before_its_message_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.toml");
    std::fs::write(&file, auth::keys::generate("shop", None).unwrap().toml()).unwrap();
    let stream = FakeStream::new("inbound");
    let running = start(with_keys(&stream, &file, &[PrincipalConfig::unlimited("*")]), &stream).await;
    // A PutStream that never sends a message.
    let mut client = running.client().await;
    let silent = tokio_stream::pending::<PutStreamRequest>();
    let status = soon("an answer", client.put_stream(silent)).await.unwrap_err();
    assert_eq!(refusal(&status), (Code::Unauthenticated, "credentials-missing"));
    // A request whose body never comes.
    let mut socket = tokio::net::TcpStream::connect(running.handle.http_addr().unwrap()).await.unwrap();
    let head = format!(
        "POST /v1/records HTTP/1.1\r\nhost: x\r\n{JSON}\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    soon("an answer", socket.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 401");
}

#[tokio::test]
async fn what_a_principal_may_do_is_held_to() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.toml");
    let (shop, other) =
        (auth::keys::generate("shop", None).unwrap(), auth::keys::generate("other", None).unwrap());
    std::fs::write(&file, shop.toml() + &other.toml()).unwrap();
    let headers = [("type".to_owned(), vec!["order.*".to_owned()])].into();
    let principals = [
        PrincipalConfig { headers, may_mint: false, ..PrincipalConfig::unlimited("shop") },
        PrincipalConfig { streams: Some(vec!["o*".into()]), ..PrincipalConfig::unlimited("other") },
    ];
    let (stream, second) = (FakeStream::new("inbound"), FakeStream::new("orders"));
    let mut settings = with_keys(&stream, &file, &principals);
    settings.streams.extend(Config::for_stream("orders").streams);
    let running = Running::with(settings, &[&stream, &second], RecordTracer::disabled()).await;
    let mut client = running.client().await;

    let typed = |value: &str| v1::Record {
        headers: vec![Header { name: "type".into(), value: value.into() }],
        ..record("k", "x")
    };
    let creation = CreationContext {
        trace_id: vec![1; 16].into(),
        span_id: vec![2; 8].into(),
        flags: 1,
        created_unix_ms: 1_790_000_000_000,
    };
    let records = vec![
        typed("order.placed"),
        typed("click"),
        record("k", "no type"),
        v1::Record { creation: Some(creation), ..typed("order.placed") },
    ];
    let answer = client.put(asking(put(records), &[("x-api-key", &shop.key)])).await.unwrap().into_inner();
    assert_eq!(
        codes(&answer.results),
        ["", "header-not-allowed", "header-not-allowed", "creation-not-allowed"]
    );
    let message = &support::error(&answer.results[1]).unwrap().message;
    assert!(message.contains("\"click\"") && message.contains("order.*"), "{message}");

    let key = [("x-api-key", &other.key[..])];
    let expected = ["PermissionDenied stream-not-allowed", "403 stream-not-allowed"];
    assert_eq!(both(&running, &key).await, expected);
    let request = PutRequest { stream: "orders".into(), ..put(vec![record("k", "x")]) };
    client.put(asking(request, &key)).await.unwrap();
    let open = PutStreamRequest { message: Some(Asked::Open(Open::default())) };
    let mut answers = client.put_stream(asking(tokio_stream::iter([open]), &key)).await.unwrap().into_inner();
    let status = soon("an answer", answers.message()).await.unwrap_err();
    assert_eq!(refusal(&status), (Code::PermissionDenied, "stream-not-allowed"));
}

#[tokio::test]
async fn each_limit_says_its_name_and_when_to_come_back() {
    let stream = FakeStream::new("inbound");
    let limits: [(&str, PrincipalConfig, usize); 2] = [
        (
            "records_per_s",
            PrincipalConfig { records_per_s: Some(3), ..PrincipalConfig::unlimited("local") },
            3,
        ),
        // The key and two bytes of data each.
        ("bytes_per_s", PrincipalConfig { bytes_per_s: Some(9), ..PrincipalConfig::unlimited("local") }, 3),
    ];
    for (name, limit, fits) in limits {
        let running = start(Config { principals: vec![limit], ..settings(&stream) }, &stream).await;
        let mut client = running.client().await;
        client.put(put(vec![record("k", "xx"); fits])).await.unwrap();
        let status = client.put(put(vec![record("k", "xx"); fits])).await.unwrap_err();
        assert_eq!(refusal(&status), (Code::ResourceExhausted, "quota-exceeded"));
        assert!(status.message().contains(name), "{status:?}");
        let delay: u64 = status.metadata().get(RETRY_AFTER_MS).unwrap().to_str().unwrap().parse().unwrap();
        assert!((1..=1_000).contains(&delay), "{delay}");
        let body = json!({ "records": vec![json!({"key": "k", "data": 10}); fits] }).to_string();
        let answer = post(&running, "/v1/records", &[JSON], body).await;
        assert_eq!(outcome(&answer), "429 quota-exceeded");
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert!(answer.json()["error"]["message"].as_str().unwrap().contains(name));
        let page = String::from_utf8(ask(&running, "GET", "/metrics", &[], "").await.body).unwrap();
        assert!(page.contains(&format!("quota_exceeded_total{{headworks_limit=\"{name}\"}} 2")), "{page}");
        running.stop().await;
    }
}

#[tokio::test]
async fn bytes_in_flight_are_bounded_and_come_back() {
    let stream = FakeStream::new("inbound");
    let limit = PrincipalConfig { in_flight_bytes: Some(1_000), ..PrincipalConfig::unlimited("local") };
    let config = Config { max_record_bytes: 1_000, principals: vec![limit], ..settings(&stream) };
    let running = start(config, &stream).await;
    stream.set(Mode::Shut);
    let mut client = running.client().await;
    let mut first = running.client().await;
    let first = tokio::spawn(async move { first.put(put(vec![record("k", vec![b'x'; 899])])).await });
    stream.called(1).await;
    let status = client.put(put(vec![record("k", vec![b'x'; 100])])).await.unwrap_err();
    assert_eq!(refusal(&status), (Code::ResourceExhausted, "quota-exceeded"));
    assert!(status.message().contains("in_flight_bytes of 1000"), "{status:?}");
    // What just fits is taken, and waits like the other.
    let mut second = running.client().await;
    let second = tokio::spawn(async move { second.put(put(vec![record("j", vec![b'x'; 99])])).await });
    // A PutStream is held up instead.
    let open = PutStreamRequest { message: Some(Asked::Open(Open::default())) };
    let batch = Batch { number: 1, records: vec![record("k", vec![b'x'; 999])] };
    let batch = PutStreamRequest { message: Some(Asked::Batch(batch)) };
    let mut answers = client.put_stream(tokio_stream::iter([open, batch])).await.unwrap().into_inner();
    soon("the credit", answers.message()).await.unwrap().unwrap();
    stream.set(Mode::Open);
    soon("an answer", first).await.unwrap().unwrap();
    soon("an answer", second).await.unwrap().unwrap();
    let told = soon("an answer", answers.message()).await.unwrap().unwrap();
    let Some(v1::put_stream_response::Message::Results(results)) = told.message else { panic!("{told:?}") };
    assert_eq!(codes(&results.results), [""]);
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

fn claims(change: impl FnOnce(&mut Value)) -> Value {
    let mut claims = json!({
        "sub": "shop", "iss": "https://issuer.example", "aud": "headworks", "exp": now() + 600, "nbf": now() - 600,
    });
    change(&mut claims);
    claims
}

fn jwt(file: Option<&Path>, url: Option<String>) -> JwtConfig {
    let text = "issuer = \"https://issuer.example\"\naudience = [\"headworks\", \"other\"]\nleeway_s = 5";
    let defaults: JwtConfig = toml::from_str(text).unwrap();
    JwtConfig { jwks_file: file.map(Path::to_owned), jwks_url: url, jwks_refetch_s: 1, ..defaults }
}

#[tokio::test]
async fn tokens_must_be_signed_and_meant_for_this_gateway() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("jwks.json");
    let signers = [("r", Algorithm::RS256), ("e", Algorithm::ES256), ("d", Algorithm::EdDSA)]
        .map(|(id, algorithm)| Signer::new(id, algorithm));
    std::fs::write(&file, jwks(&[&signers[0], &signers[1], &signers[2]])).unwrap();
    let stream = FakeStream::new("inbound");
    let auth = AuthConfig { jwt: Some(jwt(Some(&file), None)), ..AuthConfig::default() };
    let principals = vec![PrincipalConfig::unlimited("shop")];
    let running = start(Config { auth, principals, ..settings(&stream) }, &stream).await;
    let check = async |token: String| {
        let bearer = format!("Bearer {token}");
        let [grpc, http] = both(&running, &[("authorization", &bearer)]).await;
        assert_eq!(grpc.rsplit(' ').next(), http.rsplit(' ').next(), "{grpc} {http}");
        grpc
    };
    for signer in &signers {
        assert_eq!(check(signer.token(&claims(|_| ()))).await, "ok", "{:?}", signer.algorithm);
        let stranger = Signer::new(&signer.id, signer.algorithm);
        assert_eq!(check(stranger.token(&claims(|_| ()))).await, "Unauthenticated credentials-invalid");
    }
    let signer = &signers[2];
    let cases: Vec<(&str, Value)> = vec![
        ("ok", claims(|c| c["aud"] = json!(["x", "other"]))),
        ("ok", claims(|c| c["exp"] = json!(now() - 2))),
        ("ok", claims(|c| c["nbf"] = json!(now() + 2))),
        ("Unauthenticated credentials-expired", claims(|c| c["exp"] = json!(now() - 60))),
        ("Unauthenticated credentials-invalid", claims(|c| c["nbf"] = json!(now() + 60))),
        ("Unauthenticated credentials-invalid", claims(|c| c["aud"] = json!("elsewhere"))),
        ("Unauthenticated credentials-invalid", claims(|c| c["iss"] = json!("https://other.example"))),
        ("Unauthenticated credentials-invalid", claims(|c| drop(c.as_object_mut().unwrap().remove("exp")))),
        ("Unauthenticated credentials-invalid", claims(|c| drop(c.as_object_mut().unwrap().remove("aud")))),
        ("Unauthenticated credentials-invalid", claims(|c| drop(c.as_object_mut().unwrap().remove("iss")))),
        ("Unauthenticated credentials-invalid", claims(|c| drop(c.as_object_mut().unwrap().remove("sub")))),
        ("Unauthenticated credentials-invalid", claims(|c| c["sub"] = json!(7))),
        ("PermissionDenied principal-not-allowed", claims(|c| c["sub"] = json!("stranger"))),
    ];
    for (expected, claims) in cases {
        assert_eq!(check(signer.token(&claims)).await, expected, "{claims}");
    }
    // A token that says it needs no signature, and one that names the key of another algorithm.
    let token = signer.token(&claims(|_| ()));
    let body = token.split('.').nth(1).unwrap();
    let unsigned = format!("eyJhbGciOiJub25lIn0.{body}.");
    assert_eq!(check(unsigned).await, "Unauthenticated credentials-invalid");
    let mut crossed = Signer::new("d", Algorithm::EdDSA);
    crossed.id = "e".to_owned();
    assert_eq!(check(crossed.token(&claims(|_| ()))).await, "Unauthenticated credentials-invalid");
}

/// Serves a key set, and counts how often it is asked.
async fn issuer(set: watch::Receiver<String>) -> (String, watch::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let (count, counted) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            count.send_modify(|count| *count += 1);
            let body = set.borrow().clone();
            let mut request = vec![0; 4_096];
            let _ = socket.read(&mut request).await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = socket.write_all((head + &body).as_bytes()).await;
        }
    });
    (url, counted)
}

#[tokio::test]
async fn a_new_key_of_the_issuer_is_fetched_and_an_old_one_forgotten() {
    let (old, new) = (Signer::new("old", Algorithm::EdDSA), Signer::new("new", Algorithm::ES256));
    let (set, serving) = watch::channel(jwks(&[&old]));
    let (url, mut counted) = issuer(serving).await;
    let stream = FakeStream::new("inbound");
    let auth = AuthConfig { jwt: Some(jwt(None, Some(url))), ..AuthConfig::default() };
    let principals = vec![PrincipalConfig::unlimited("*")];
    let running = start(Config { auth, principals, ..settings(&stream) }, &stream).await;
    let check = async |signer: &Signer| {
        let bearer = format!("Bearer {}", signer.token(&claims(|_| ())));
        both(&running, &[("authorization", &bearer)]).await
    };
    soon("the keys", counted.wait_for(|count| *count == 1)).await.unwrap();
    let refused = ["Unauthenticated credentials-invalid", "401 credentials-invalid"];
    soon("the keys", async {
        while check(&old).await != ["ok", "ok"] {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Unknown keys are looked for at a bounded rate.
    let begun = std::time::Instant::now();
    for _ in 0..50 {
        assert_eq!(check(&new).await, refused);
    }
    let allowed = 2 + begun.elapsed().as_secs() as usize;
    assert!(*counted.borrow() <= allowed, "{} fetches", *counted.borrow());
    set.send_replace(jwks(&[&new]));
    soon("the rotation", async {
        while check(&new).await != ["ok", "ok"] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(check(&old).await, refused);
}

#[tokio::test]
async fn a_key_set_is_fetched_over_an_encrypted_connection() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path());
    let signer = Signer::new("a", Algorithm::EdDSA);
    // A gateway's own HTTP port shows the certificate; a proxy before it gives the keys.
    let tls = authority.tls("issuer", false, false);
    let (url, _tasks) = encrypted_issuer(&tls, jwks(&[&signer])).await;
    let bearer = format!("Bearer {}", signer.token(&claims(|_| ())));
    let stream = FakeStream::new("inbound");
    let outcome = async |root: std::path::PathBuf| {
        let config = JwtConfig { jwks_ca: Some(root), ..jwt(None, Some(url.clone())) };
        let auth = AuthConfig { jwt: Some(config), ..AuthConfig::default() };
        let principals = vec![PrincipalConfig::unlimited("*")];
        let running = start(Config { auth, principals, ..settings(&stream) }, &stream).await;
        both(&running, &[("authorization", &bearer)]).await
    };
    assert_eq!(outcome(authority.root("root.pem")).await, ["ok", "ok"]);
    let stranger = Authority::new(directory.path());
    let expected = ["Unavailable credentials-unverifiable", "503 credentials-unverifiable"];
    assert_eq!(outcome(stranger.root("stranger.pem")).await, expected);
}

async fn encrypted_issuer(
    tls: &headworks_gateway::config::TlsConfig,
    body: String,
) -> (String, tokio::task::JoinHandle<()>) {
    use rustls::pki_types::pem::PemObject as _;
    let chain = vec![rustls::pki_types::CertificateDer::from_pem_file(&tls.certificate).unwrap()];
    let key = rustls::pki_types::PrivateKeyDer::from_pem_file(&tls.key).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/keys", listener.local_addr().unwrap().port());
    let task = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(mut socket) = acceptor.accept(socket).await else { continue };
            let mut request = vec![0; 4_096];
            let _ = socket.read(&mut request).await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = socket.write_all((head + &body).as_bytes()).await;
        }
    });
    (url, task)
}

#[tokio::test]
async fn a_reload_takes_keys_away_also_from_streams_that_are_open() {
    let directory = tempfile::tempdir().unwrap();
    let (file, log) = (directory.path().join("keys.toml"), directory.path().join("audit.jsonl"));
    let (one, two) =
        (auth::keys::generate("shop", None).unwrap(), auth::keys::generate("shop", None).unwrap());
    std::fs::write(&file, one.toml()).unwrap();
    let stream = FakeStream::new("inbound");
    let mut config = with_keys(&stream, &file, &[PrincipalConfig::unlimited("shop")]);
    config.audit = Some(AuditConfig { file: log.clone(), interval_s: 10 });
    let running = start(config.clone(), &stream).await;
    let reload = async |config: Config| {
        let handle = running.handle.clone();
        tokio::task::spawn_blocking(move || handle.reload(Ok(config)))
            .await
            .unwrap()
            .map_err(|error| error.code())
    };
    let mut client = GatewayClient::new(running.channel().await);
    let (asks, asked) = tokio::sync::mpsc::channel(4);
    let ask = async |message| asks.send(PutStreamRequest { message: Some(message) }).await.unwrap();
    ask(Asked::Open(Open::default())).await;
    let requests = tokio_stream::wrappers::ReceiverStream::new(asked);
    let key = [("x-api-key", &one.key[..])];
    let mut answers = client.put_stream(asking(requests, &key)).await.unwrap().into_inner();
    soon("the credit", answers.message()).await.unwrap().unwrap();

    // Refused: the last good one stays.
    std::fs::write(&file, "[[keys]]\nid = 7").unwrap();
    assert_eq!(reload(config.clone()).await, Err("key-file-invalid"));
    let other = Config { drain_ms: 1, ..config.clone() };
    assert_eq!(reload(other).await, Err("reload-needs-restart"));
    std::fs::write(&file, one.toml()).unwrap();
    assert_eq!(reload(Config { principals: Vec::new(), ..config.clone() }).await, Err("config-invalid"));
    assert_eq!(reload(Config { auth: AuthConfig::default(), ..config.clone() }).await, Err("config-invalid"));
    ask(Asked::Batch(Batch { number: 1, records: vec![record("k", "x")] })).await;
    soon("an answer", answers.message()).await.unwrap().unwrap();
    assert_eq!(both(&running, &key).await, ["ok", "ok"]);

    std::fs::write(&file, two.toml()).unwrap();
    assert_eq!(reload(config.clone()).await, Ok(vec![]));
    assert_eq!(
        both(&running, &key).await,
        ["Unauthenticated credentials-invalid", "401 credentials-invalid"]
    );
    assert_eq!(both(&running, &[("x-api-key", &two.key)]).await, ["ok", "ok"]);
    ask(Asked::Batch(Batch { number: 2, records: vec![record("k", "y")] })).await;
    let status = soon("an answer", answers.message()).await.unwrap_err();
    assert_eq!(refusal(&status), (Code::Unauthenticated, "credentials-invalid"));

    // Quotas change as well.
    let limited = PrincipalConfig { records_per_s: Some(1), ..PrincipalConfig::unlimited("shop") };
    let changed = reload(Config { principals: vec![limited], ..config }).await;
    assert_eq!(changed, Ok(vec!["principals".to_owned()]));
    assert_eq!(both(&running, &[("x-api-key", &two.key)]).await, ["ok", "429 quota-exceeded"]);

    let secrets = [one.key.clone(), two.key.clone()];
    running.stop().await;
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(secrets.iter().all(|secret| !text.contains(secret)), "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(
        events[..5],
        ["configuration-loaded"; 1].into_iter().chain(["configuration-refused"; 4]).collect::<Vec<_>>()
    );
    assert_eq!(events.iter().filter(|event| **event == "configuration-reloaded").count(), 2, "{text}");
    let failed: Vec<&Value> = lines.iter().filter(|line| line["event"] == "authentication-failed").collect();
    assert!(
        failed.iter().any(|line| line["key_id"] == one.entry.id.as_str() && line["door"] == "put_stream"),
        "{text}"
    );
    assert!(failed.iter().all(|line| line["source"] == "127.0.0.1"), "{text}");
}
