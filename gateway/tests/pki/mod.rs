//! Certificates and tokens that are made for a test.
#![allow(dead_code, unreachable_pub)] // Each test file uses its part of it.

mod authority;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::Uri;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hyper_util::rt::TokioIo;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};

pub use self::authority::Authority;

impl Authority {
    /// A client that trusts it, and shows this certificate.
    pub fn client(&self, shown: Option<(PathBuf, PathBuf)>) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Client(match shown {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
            }
        })
    }
}

/// Opens encrypted connections.
#[derive(Clone)]
pub struct Client(ClientConfig);

impl Client {
    pub async fn connect(
        &self,
        address: std::net::SocketAddr,
        alpn: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut config = self.0.clone();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let socket = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), socket).await
    }

    /// A gRPC channel; each of its connections is a new handshake.
    pub async fn channel(&self, address: std::net::SocketAddr) -> Result<Channel, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        endpoint.connect_with_connector(Connector { client: self.clone(), address }).await
    }
}

#[derive(Clone)]
struct Connector {
    client: Client,
    address: std::net::SocketAddr,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let Connector { client, address } = self.clone();
        Box::pin(async move { client.connect(address, "h2").await.map(TokioIo::new) })
    }
}

/// A key that signs tokens.
pub struct Signer {
    pub id: String,
    pub algorithm: Algorithm,
    key: EncodingKey,
    jwk: Value,
}

impl Signer {
    pub fn new(id: &str, algorithm: Algorithm) -> Self {
        let (key, mut jwk) = match algorithm {
            Algorithm::ES256 => {
                let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
                let point = pair.public_key_raw();
                let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
                let jwk = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y });
                (EncodingKey::from_ec_der(&pair.serialize_der()), jwk)
            }
            Algorithm::EdDSA => {
                let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
                let jwk =
                    json!({ "kty": "OKP", "crv": "Ed25519", "x": BASE64.encode(pair.public_key_raw()) });
                (EncodingKey::from_ed_der(&pair.serialize_der()), jwk)
            }
            _ => {
                let pair =
                    KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
                // PKCS 8 is PKCS 1 with 26 bytes before it.
                let key = EncodingKey::from_rsa_der(&pair.serialize_der()[26..]);
                let jwk =
                    serde_json::to_value(Jwk::from_encoding_key(&key, Algorithm::RS256).unwrap()).unwrap();
                (key, jwk)
            }
        };
        jwk["kid"] = id.into();
        Self { id: id.to_owned(), algorithm, key, jwk }
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.clone()), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.key).unwrap()
    }
}

/// The public keys of these signers.
pub fn jwks(signers: &[&Signer]) -> String {
    json!({ "keys": signers.iter().map(|signer| &signer.jwk).collect::<Vec<_>>() }).to_string()
}
