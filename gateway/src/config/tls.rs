//! Encryption of both listeners.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The certificate that both listeners show, and what they ask of their clients. The files are read again on
/// a reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate and those between it and its root, in PEM, its own first.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// The roots of clients' certificates, in PEM. Default: none, no client is asked for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    /// Whether every client must show a certificate; needs `client_ca`. Default false: one that is shown is
    /// checked, and clients without one need another credential. `/healthz` and `/readyz` are behind it too.
    #[serde(default)]
    pub client_certificate_required: bool,
}
