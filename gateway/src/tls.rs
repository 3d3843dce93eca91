//! Certificates: ours, and the roots of others.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsConfig;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read, or has nothing of its kind.
    #[error("{setting} {path:?} cannot be used: {reason}; it must be a PEM file with {wanted}")]
    File {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// What it must hold.
        wanted: &'static str,
    },
    /// The parts do not fit together.
    #[error(
        "tls.certificate {certificate:?} cannot be used with tls.key: {reason}; give the key of that certificate"
    )]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        "tls-invalid"
    }

    /// Whether the same files may be accepted later: never.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// The one implementation of cryptography; nothing rests on which one the process installed.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let wrong =
        |reason: String| Error::File { setting, path: path.to_owned(), reason, wanted: "certificates" };
    let read = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    let certificates: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| wrong(error.to_string()))?;
    if certificates.is_empty() { Err(wrong("it has no certificate".to_owned())) } else { Ok(certificates) }
}

/// The roots in a file.
pub(crate) fn roots(path: &Path) -> Result<RootCertStore, Error> {
    roots_of("the file of roots", path)
}

fn roots_of(setting: &'static str, path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(setting, path)? {
        roots.add(certificate).map_err(|error| Error::File {
            setting,
            path: path.to_owned(),
            reason: error.to_string(),
            wanted: "certificates",
        })?;
    }
    Ok(roots)
}

/// One setting for each protocol that is spoken above it.
#[derive(Clone)]
pub(crate) struct Acceptors {
    grpc: TlsAcceptor,
    http: TlsAcceptor,
}

impl fmt::Debug for Acceptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptors")
    }
}

impl Acceptors {
    /// Reads the files.
    pub(crate) fn read(config: &TlsConfig) -> Result<Self, Error> {
        let chain = certificates("tls.certificate", &config.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&config.key).map_err(|error| Error::File {
            setting: "tls.key",
            path: config.key.clone(),
            reason: error.to_string(),
            wanted: "a private key",
        })?;
        let mismatch = |error: rustls::Error| Error::Mismatch {
            certificate: config.certificate.clone(),
            reason: error.to_string(),
        };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(mismatch)?;
        let builder = match &config.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(roots_of("tls.client_ca", path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                let verifier = if config.client_certificate_required {
                    verifier
                } else {
                    verifier.allow_unauthenticated()
                };
                let verifier = verifier.build().map_err(|error| Error::File {
                    setting: "tls.client_ca",
                    path: path.clone(),
                    reason: error.to_string(),
                    wanted: "certificates",
                })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut grpc = builder.with_single_cert(chain, key).map_err(mismatch)?;
        let mut http = grpc.clone();
        grpc.alpn_protocols = vec![b"h2".to_vec()];
        http.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { grpc: Arc::new(grpc).into(), http: Arc::new(http).into() })
    }
}

/// Which listener a connection came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    Grpc,
    Http,
}

/// The certificates in force; connections that are open keep those of their beginning.
#[derive(Debug)]
pub(crate) struct Tls(RwLock<Arc<Acceptors>>);

impl Tls {
    pub(crate) fn new(acceptors: Acceptors) -> Self {
        Self(RwLock::new(Arc::new(acceptors)))
    }

    pub(crate) fn replace(&self, acceptors: Acceptors) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(acceptors);
    }

    pub(crate) fn acceptor(&self, port: Port) -> TlsAcceptor {
        let acceptors = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match port {
            Port::Grpc => acceptors.grpc.clone(),
            Port::Http => acceptors.http.clone(),
        }
    }
}
