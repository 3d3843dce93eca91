//! Encrypted listeners, clients' certificates, and their renewal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod http_client;
mod pki;
mod support;

use std::net::SocketAddr;
use std::time::Duration;

use headworks_gateway::config::{AuthConfig, CertificateName, PrincipalConfig, TlsConfig};
use headworks_gateway::{BindError, Config, Gateway};
use headworks_proto::v1::PutRequest;
use headworks_proto::v1::gateway_client::GatewayClient;
use headworks_telemetry::{Minter, RecordTracer, Sampler};
use http_client::{over, send};
use pki::{Authority, Client};
use support::{FakeStream, Running, config, factory, record, soon};
use tokio::net::TcpStream;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const JSON: &str = "content-type: application/json";
const BODY: &[u8] = br#"{"records":[{"key":"k"}]}"#;

fn settings(stream: &FakeStream, tls: TlsConfig) -> Config {
    Config { http_listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))), tls: Some(tls), ..config(&[stream]) }
}

async fn start(config: Config, stream: &FakeStream) -> Running {
    Running::with(config, &[stream], RecordTracer::disabled()).await
}

/// What becomes of a record over each door.
async fn both(running: &Running, client: &Client) -> [String; 2] {
    let put = PutRequest { records: vec![record("k", "x")], ..Default::default() };
    let grpc = match client.channel(running.handle.local_addr()).await {
        Err(_) => "no connection".to_owned(),
        Ok(channel) => match soon("an answer", GatewayClient::new(channel).put(put)).await {
            Ok(_) => "ok".to_owned(),
            // With TLS 1.3 a client learns after its handshake that its certificate was not taken.
            Err(status)
                if status.code() == tonic::Code::Unknown || status.code() == tonic::Code::Unavailable =>
            {
                "no connection".to_owned()
            }
            Err(status) => format!("{:?}", status.code()),
        },
    };
    let address = running.handle.http_addr().unwrap();
    let http = match client.connect(address, "http/1.1").await {
        Err(_) => "no connection".to_owned(),
        Ok(mut socket) => {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let head = format!(
                "POST /v1/records HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{JSON}\r\ncontent-length: {}\r\n\r\n",
                BODY.len()
            );
            let mut answer = Vec::new();
            let asked = socket.write_all(&[head.as_bytes(), BODY].concat()).await;
            let read = soon("an answer", socket.read_to_end(&mut answer)).await;
            match (asked, read) {
                (Ok(()), Ok(_)) if !answer.is_empty() => {
                    String::from_utf8_lossy(&answer[9..12]).into_owned().replace("200", "ok")
                }
                _ => "no connection".to_owned(),
            }
        }
    };
    [grpc, http]
}

#[tokio::test]
async fn both_listeners_are_encrypted() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path());
    let stream = FakeStream::new("inbound");
    let running = start(settings(&stream, authority.tls("gateway", false, false)), &stream).await;
    assert_eq!(both(&running, &authority.client(None)).await, ["ok", "ok"]);
    let address = running.handle.http_addr().unwrap();
    let socket = authority.client(None).connect(address, "http/1.1").await.unwrap();
    assert_eq!(over(socket, address, "GET", "/healthz", &[], b"").await.status, 200);
    // Nobody who trusts somebody else, and nobody in the clear.
    let stranger = Authority::new(directory.path()).client(None);
    assert_eq!(both(&running, &stranger).await, ["no connection", "no connection"]);
    let channel = running.channel().await;
    let put = PutRequest { records: vec![record("k", "x")], ..Default::default() };
    assert!(soon("an answer", GatewayClient::new(channel).put(put)).await.is_err());
    assert_eq!(stream.records().len(), 2);
    // A connection that says nothing holds up nobody.
    let _silent = TcpStream::connect(running.handle.local_addr()).await.unwrap();
    assert_eq!(both(&running, &authority.client(None)).await, ["ok", "ok"]);
    assert_eq!(running.stop().await.unanswered, 0);
}

#[tokio::test]
async fn a_clients_certificate_names_the_principal() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path());
    let stream = FakeStream::new("inbound");
    for (which, name) in
        [(CertificateName::SubjectCn, "shop"), (CertificateName::SanUri, "spiffe://example/shop")]
    {
        let auth = AuthConfig { certificate_name: Some(which), ..AuthConfig::default() };
        let principals = vec![PrincipalConfig::unlimited(name)];
        let tls = authority.tls("gateway", true, false);
        let running = start(Config { auth, principals, ..settings(&stream, tls) }, &stream).await;
        let shop = authority.client(Some(authority.issue("shop", "shop", "spiffe://example/shop")));
        assert_eq!(both(&running, &shop).await, ["ok", "ok"]);
        let other = authority.client(Some(authority.issue("other", "other", "spiffe://example/other")));
        assert_eq!(both(&running, &other).await, ["PermissionDenied", "403"]);
        assert_eq!(both(&running, &authority.client(None)).await, ["Unauthenticated", "401"]);
        // One that another authority signed is no certificate, whatever it says.
        let forger = Authority::new(directory.path());
        let forged = authority.client(Some(forger.issue("forged", "shop", "spiffe://example/shop")));
        assert_eq!(both(&running, &forged).await, ["no connection", "no connection"]);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_certificate_may_be_asked_of_everybody() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path());
    let stream = FakeStream::new("inbound");
    let running = start(settings(&stream, authority.tls("gateway", true, true)), &stream).await;
    assert_eq!(both(&running, &authority.client(None)).await, ["no connection", "no connection"]);
    let shop = authority.client(Some(authority.issue("shop", "shop", "urn:shop")));
    assert_eq!(both(&running, &shop).await, ["ok", "ok"]);
}

#[tokio::test]
async fn a_new_certificate_is_shown_after_a_reload_and_a_bad_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path());
    let stream = FakeStream::new("inbound");
    let config = settings(&stream, authority.tls("first", false, false));
    let running = start(config.clone(), &stream).await;
    let shown = async || {
        let client = authority.client(None);
        let socket = client.connect(running.handle.local_addr(), "h2").await.unwrap();
        let certificate = socket.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        let (_, certificate) = X509Certificate::from_der(&certificate).unwrap();
        certificate.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned()
    };
    assert_eq!(shown().await, "first");
    let mut open =
        GatewayClient::new(authority.client(None).channel(running.handle.local_addr()).await.unwrap());
    authority.tls("second", false, false);
    assert_eq!(shown().await, "first");
    running.handle.reload(Ok(config.clone())).unwrap();
    assert_eq!(shown().await, "second");
    // A key that is not the certificate's.
    let other = authority.issue("other", "other", "urn:other");
    std::fs::copy(other.1, &config.tls.as_ref().unwrap().key).unwrap();
    assert_eq!(running.handle.reload(Ok(config.clone())).unwrap_err().code(), "tls-invalid");
    assert_eq!(shown().await, "second");
    let plain = Config { tls: None, ..config };
    assert_eq!(running.handle.reload(Ok(plain)).unwrap_err().code(), "reload-needs-restart");
    // Connections that are open go on.
    let put = PutRequest { records: vec![record("k", "x")], ..Default::default() };
    open.put(put).await.unwrap();
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path());
    let stream = FakeStream::new("inbound");
    let good = authority.tls("gateway", true, false);
    let missing = directory.path().join("missing.pem");
    let cases = [
        (TlsConfig { certificate: missing.clone(), ..good.clone() }, "tls.certificate"),
        (TlsConfig { certificate: good.key.clone(), ..good.clone() }, "tls.certificate"),
        (TlsConfig { key: missing.clone(), ..good.clone() }, "tls.key"),
        (TlsConfig { key: good.certificate.clone(), ..good.clone() }, "tls.key"),
        (TlsConfig { client_ca: Some(missing), ..good.clone() }, "tls.client_ca"),
        (TlsConfig { key: authority.issue("other", "o", "urn:o").1, ..good.clone() }, "tls.key"),
    ];
    for (tls, named) in cases {
        let config = settings(&stream, tls);
        assert_eq!(headworks_gateway::check(&config).unwrap_err().code(), "tls-invalid");
        let bound = Gateway::bind(
            config,
            factory(&[&stream]),
            Minter::new(Sampler::never()),
            RecordTracer::disabled(),
        );
        let Err(error) = bound.await else { panic!("{named}") };
        assert!(matches!(error, BindError::Tls(_)), "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
    headworks_gateway::check(&settings(&stream, good)).unwrap();
}

#[tokio::test]
async fn plain_http_to_an_encrypted_port_gets_no_answer() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path());
    let stream = FakeStream::new("inbound");
    let running = start(settings(&stream, authority.tls("gateway", false, false)), &stream).await;
    let address = running.handle.http_addr().unwrap();
    let asked = tokio::spawn(async move { send(address, "GET", "/metrics", &[], b"").await });
    assert!(tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap().is_err());
    let failures = authority.client(None).connect(address, "http/1.1").await.unwrap();
    let page = over(failures, address, "GET", "/metrics", &[], b"").await;
    let page = String::from_utf8(page.body).unwrap();
    assert!(page.contains("auth_failures_total{error_type=\"tls-handshake-failed\"} 1"), "{page}");
}
