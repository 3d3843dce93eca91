//! Who may write, and how they prove it.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use headworks_record::headers;
use serde::{Deserialize, Serialize};

use super::{Config, Error, check};
use crate::auth::glob;

/// Which credentials are taken. With any of them set, a call without a credential is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// The file of hashed API keys. Default: none, no API key is taken. It is read again on a reload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Signed tokens. Default: none is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtConfig>,
    /// Which name of a client's certificate is the principal; needs `tls.client_ca`. Default: none, a
    /// certificate alone lets nobody in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_name: Option<CertificateName>,
    /// Lets everybody read `/metrics`. Default false: it takes the credential of a principal.
    pub open_metrics: bool,
}

impl AuthConfig {
    /// Whether callers must prove who they are.
    pub fn is_enabled(&self) -> bool {
        self.key_file.is_some() || self.jwt.is_some() || self.certificate_name.is_some()
    }
}

/// A name within a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateName {
    /// The common name of the subject.
    SubjectCn,
    /// The first DNS name of the subject's alternative names.
    SanDns,
    /// The first URI of them, such as a SPIFFE id.
    SanUri,
}

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JwtAlgorithm {
    /// RSA, PKCS 1 v1.5, SHA-256.
    RS256,
    /// ECDSA on P-256, SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}

/// What a token must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtConfig {
    /// The file of the issuer's keys (JWKS), read again on a reload. Either this or `jwks_url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_file: Option<PathBuf>,
    /// Where the issuer's keys (JWKS) are fetched: https, or http on loopback. The last ones that were
    /// fetched stay in force while it cannot be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// The roots that the certificate of `jwks_url` may have, in PEM. Default: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_ca: Option<PathBuf>,
    /// How often the keys are fetched without need. Default 300 s; 10 to 86,400.
    #[serde(default = "refresh_s")]
    pub jwks_refresh_s: u64,
    /// The least time between two fetches, however many tokens name a key that is not known.
    /// Default 10 s; 1 to 3,600.
    #[serde(default = "refetch_s")]
    pub jwks_refetch_s: u64,
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must name one of; at least one.
    pub audience: Vec<String>,
    /// The signatures that are taken. Default: all three.
    #[serde(default = "algorithms")]
    pub algorithms: Vec<JwtAlgorithm>,
    /// How far clocks may differ when `exp` and `nbf` are checked. Default 30 s; 0 to 300.
    #[serde(default = "leeway_s")]
    pub leeway_s: u64,
    /// The claim that names the principal. Default `sub`.
    #[serde(default = "principal_claim")]
    pub principal_claim: String,
}

fn refresh_s() -> u64 {
    300
}

fn refetch_s() -> u64 {
    10
}

fn algorithms() -> Vec<JwtAlgorithm> {
    vec![JwtAlgorithm::RS256, JwtAlgorithm::ES256, JwtAlgorithm::EdDSA]
}

fn leeway_s() -> u64 {
    30
}

fn principal_claim() -> String {
    "sub".to_owned()
}

/// What a principal, or each of those that a pattern names, may do. The first entry that names one decides;
/// a principal that none names may do nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrincipalConfig {
    /// The name, 1 to 256 bytes; `*` stands for any run of letters. Where nobody is authenticated, everybody
    /// is `local`.
    pub name: String,
    /// The streams that it may write to; `*` stands for any run of letters. Default: all of the gateway's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<Vec<String>>,
    /// The values that a header may have, by its name; `*` stands for any run of letters. A header that is
    /// missing counts as one with no letters: `""` or `"*"` allows that. Default: any.
    #[serde(default)]
    pub headers: BTreeMap<String, Vec<String>>,
    /// Whether it may hand over creation contexts of its own, as the SDKs do. A forged one could make consumers take
    /// another's record for a repeat. Default false.
    #[serde(default)]
    pub may_mint: bool,
    /// Records per second, and as many at once. Default: no limit; 1 to 1,000,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records_per_s: Option<u64>,
    /// Bytes of keys, headers and data per second, and as many at once. Default: no limit; 1 to
    /// 1,000,000,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_s: Option<u64>,
    /// The most bytes of keys, headers and data that are unanswered. Default: no limit; `max_record_bytes` to
    /// 1,000,000,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight_bytes: Option<u64>,
}

impl PrincipalConfig {
    /// Everything, for principals of this name.
    pub fn unlimited(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            streams: None,
            headers: BTreeMap::new(),
            may_mint: true,
            records_per_s: None,
            bytes_per_s: None,
            in_flight_bytes: None,
        }
    }
}

impl Config {
    pub(super) fn check_auth(&self) -> Result<(), Error> {
        let auth = &self.auth;
        if let Some(jwt) = &auth.jwt {
            jwt.validate()?;
        }
        let asked = self.tls.as_ref().and_then(|tls| tls.client_ca.as_ref());
        if auth.certificate_name.is_some() && asked.is_none() {
            return Err(Error::Needs { setting: "auth.certificate_name", needs: "tls.client_ca" });
        }
        if self.tls.as_ref().is_some_and(|tls| tls.client_certificate_required) && asked.is_none() {
            return Err(Error::Needs { setting: "tls.client_certificate_required", needs: "tls.client_ca" });
        }
        if auth.is_enabled() && self.principals.is_empty() {
            return Err(Error::NoPrincipals);
        }
        let mut names = HashSet::new();
        for principal in &self.principals {
            principal.validate(self)?;
            if !names.insert(&principal.name) {
                return Err(Error::PrincipalTwice { name: principal.name.clone() });
            }
            if !auth.is_enabled() && !glob::matches(&principal.name, "local") {
                return Err(Error::NobodyIs { name: principal.name.clone() });
            }
        }
        Ok(())
    }
}

impl JwtConfig {
    fn validate(&self) -> Result<(), Error> {
        match (&self.jwks_file, &self.jwks_url) {
            (Some(_), None) => {}
            (None, Some(url)) => {
                crate::auth::check_url(url).map_err(|reason| Error::JwksUrl { url: url.clone(), reason })?
            }
            _ => return Err(Error::JwksSource),
        }
        check("auth.jwt.jwks_refresh_s", self.jwks_refresh_s, 10, 86_400)?;
        check("auth.jwt.jwks_refetch_s", self.jwks_refetch_s, 1, 3_600)?;
        check("auth.jwt.leeway_s", self.leeway_s, 0, 300)?;
        check("the number of auth.jwt.audience", self.audience.len() as u64, 1, 64)?;
        check("the number of auth.jwt.algorithms", self.algorithms.len() as u64, 1, 3)?;
        check("the length of auth.jwt.issuer", self.issuer.len() as u64, 1, 2_048)?;
        check("the length of auth.jwt.principal_claim", self.principal_claim.len() as u64, 1, 256)
    }
}

impl PrincipalConfig {
    fn validate(&self, config: &Config) -> Result<(), Error> {
        check("the length of principals.name", self.name.len() as u64, 1, 256)?;
        check("principals.records_per_s", self.records_per_s.unwrap_or(1), 1, 1_000_000_000)?;
        check("principals.bytes_per_s", self.bytes_per_s.unwrap_or(1), 1, 1_000_000_000_000)?;
        let least = config.max_record_bytes as u64;
        check("principals.in_flight_bytes", self.in_flight_bytes.unwrap_or(least), least, 1_000_000_000_000)?;
        let missing = self
            .streams
            .iter()
            .flatten()
            .find(|pattern| !config.streams.iter().any(|stream| glob::matches(pattern, &stream.name)));
        if let Some(stream) = missing {
            return Err(Error::PrincipalStream { name: self.name.clone(), stream: stream.clone() });
        }
        for (header, values) in &self.headers {
            if headers::Headers::new().set(header.as_str(), "").is_err() || values.is_empty() {
                return Err(Error::PrincipalHeader { name: self.name.clone(), header: header.clone() });
            }
        }
        Ok(())
    }
}
