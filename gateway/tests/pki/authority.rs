//! Certificates that are made for a test.
#![allow(dead_code, unreachable_pub)] // Each test file uses its part of it.

use std::path::{Path, PathBuf};

use headworks_gateway::config::TlsConfig;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

/// Signs certificates, and writes what it makes into a directory.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
    directory: PathBuf,
}

impl Authority {
    pub fn new(directory: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem, directory: directory.to_owned() }
    }

    /// The root, as a file.
    pub fn root(&self, name: &str) -> PathBuf {
        let path = self.directory.join(name);
        std::fs::write(&path, &self.pem).unwrap();
        path
    }

    /// A certificate and its key, in files of this name.
    pub fn issue(&self, name: &str, common_name: &str, uri: &str) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let paths = (self.directory.join(format!("{name}.crt")), self.directory.join(format!("{name}.key")));
        std::fs::write(&paths.0, certificate.pem()).unwrap();
        std::fs::write(&paths.1, key.serialize_pem()).unwrap();
        paths
    }

    /// Settings of a gateway with a certificate of this common name.
    pub fn tls(&self, common_name: &str, clients: bool, required: bool) -> TlsConfig {
        let (certificate, key) = self.issue("server", common_name, "urn:server");
        TlsConfig {
            certificate,
            key,
            client_ca: clients.then(|| self.root("clients.pem")),
            client_certificate_required: required,
        }
    }
}
