//! The producer over TLS, and what it shows to the gateway.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../gateway/tests/pki/authority.rs"]
mod pki;
#[path = "../../gateway/tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use headworks_gateway::Config;
use headworks_gateway::auth::keys;
use headworks_gateway::config::{AuthConfig, CertificateName, PrincipalConfig, TlsConfig};
use headworks_producer::{Builder, ConnectError, Producer, Record};
use headworks_telemetry::RecordTracer;
use pki::Authority;
use support::{FakeStream, Running, config, soon};

fn record(key: &str) -> Record {
    Record::builder(key).unwrap().data("x").build()
}

async fn start(stream: &FakeStream, tls: TlsConfig, auth: AuthConfig) -> Running {
    let principals = auth.is_enabled().then(|| PrincipalConfig::unlimited("shop")).into_iter().collect();
    let config = Config { tls: Some(tls), auth, principals, ..config(&[stream]) };
    Running::with(config, &[stream], RecordTracer::disabled()).await
}

/// A producer of a gateway whose certificate is for `localhost`.
fn builder(gateway: &Running, authority: &Authority) -> Builder {
    let url = format!("https://localhost:{}", gateway.handle.local_addr().port());
    let builder = Producer::builder().endpoint(url).connect_timeout(Duration::from_secs(20));
    builder.ca_certificates(authority.pem.as_str())
}

async fn refusal(builder: Builder) -> ConnectError {
    soon("a refusal", builder.connect()).await.unwrap_err()
}

/// An API key of `shop`, and the file that the gateway reads.
fn api_key(file: &Path) -> String {
    let made = keys::generate("shop", None).unwrap();
    std::fs::write(file, made.toml()).unwrap();
    made.key
}

#[tokio::test]
async fn an_api_key_over_tls_lets_it_in() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path());
    let stream = FakeStream::new("inbound");
    let file = folder.path().join("keys.toml");
    let key = api_key(&file);
    let auth = AuthConfig { key_file: Some(file), ..AuthConfig::default() };
    let gateway = start(&stream, authority.tls("gateway", false, false), auth).await;

    let producer = builder(&gateway, &authority).token(key.as_str()).connect().await.unwrap();
    for _ in 0..100 {
        soon("an answer", producer.put(record("k"))).await.unwrap();
    }
    assert_eq!(stream.of_key("k").len(), 100);
    assert!(!format!("{producer:?}").contains(&key), "a key is never shown");
    assert_eq!(producer.close(Duration::from_secs(10)).await.stored, 100);

    // The key is asked for at each connection.
    let asked = Arc::new(AtomicUsize::new(0));
    let source = {
        let (asked, key) = (Arc::clone(&asked), key.clone());
        move || {
            asked.fetch_add(1, Ordering::Relaxed);
            key.clone()
        }
    };
    let producer = builder(&gateway, &authority).token_from(source).connect().await.unwrap();
    soon("an answer", producer.put(record("k"))).await.unwrap();
    assert!(asked.load(Ordering::Relaxed) > 0);

    for refused in [builder(&gateway, &authority), builder(&gateway, &authority).token(format!("{key}x"))] {
        let error = refusal(refused).await;
        assert_eq!((error.code(), error.is_retryable()), ("gateway-refused", false), "{error}");
        assert!(!error.to_string().contains(&key), "{error}");
    }
    assert_eq!(stream.records().len(), 101);
}

#[tokio::test]
async fn a_certificate_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path());
    let stream = FakeStream::new("inbound");
    let auth = AuthConfig { certificate_name: Some(CertificateName::SubjectCn), ..AuthConfig::default() };
    let gateway = start(&stream, authority.tls("gateway", true, true), auth).await;
    let identity = |of: &Authority, name: &str| {
        let (certificate, key) = of.issue(name, name, "urn:test");
        (std::fs::read(certificate).unwrap(), std::fs::read(key).unwrap())
    };

    let (certificate, key) = identity(&authority, "shop");
    let producer = builder(&gateway, &authority).identity(certificate, key).connect().await.unwrap();
    soon("an answer", producer.put(record("k"))).await.unwrap();
    assert!(producer.close(Duration::from_secs(10)).await.is_complete());

    // The gateway knows nobody of that name.
    let (certificate, key) = identity(&authority, "other");
    let error = refusal(builder(&gateway, &authority).identity(certificate, key)).await;
    assert_eq!(error.code(), "gateway-refused", "{error}");
    // What the gateway does not trust ends in the handshake, as does showing nothing.
    let (certificate, key) = identity(&Authority::new(folder.path()), "shop");
    let short = Duration::from_millis(500);
    for unknown in [builder(&gateway, &authority).identity(certificate, key), builder(&gateway, &authority)] {
        let error = refusal(unknown.connect_timeout(short)).await;
        assert_eq!(error.code(), "gateway-unreachable", "{error}");
    }
    assert_eq!(stream.records().len(), 1);
}

#[tokio::test]
async fn only_the_right_gateway_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path());
    let stream = FakeStream::new("inbound");
    let gateway = start(&stream, authority.tls("gateway", false, false), AuthConfig::default()).await;
    // Long enough for a handshake to be over.
    let short = Duration::from_secs(2);
    let stranger = Authority::new(folder.path());
    let by_address = format!("https://{}", gateway.handle.local_addr());
    for wrong in [
        builder(&gateway, &stranger),
        builder(&gateway, &authority).server_name("elsewhere.example"),
        builder(&gateway, &authority).endpoint(by_address.as_str()),
    ] {
        let error = refusal(wrong.connect_timeout(short)).await;
        assert_eq!((error.code(), error.is_retryable()), ("gateway-unreachable", true), "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    // An address is as good as a name if the name to look for is given.
    let producer = builder(&gateway, &authority).endpoint(by_address).server_name("localhost");
    let producer = producer.connect().await.unwrap();
    soon("an answer", producer.put(record("k"))).await.unwrap();

    let nonsense = builder(&gateway, &authority).ca_certificates("nonsense");
    let error = refusal(nonsense.connect_timeout(short)).await;
    assert!(["config-invalid", "gateway-unreachable"].contains(&error.code()), "{error}");
}
