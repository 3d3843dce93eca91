//! The keys of a token's issuer.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::Error;
use super::fetch::{self, Target};
use crate::config::JwtConfig;

/// The most keys of one issuer.
const MAX_KEYS: usize = 100;
/// How long a fetch may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the issuer's keys are refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeySetError {
    /// They cannot be read or fetched.
    #[error("the issuer's keys cannot be read from {origin}: {reason}; check auth.jwt")]
    Unreadable {
        /// The file or the address.
        origin: String,
        /// What happened.
        reason: String,
    },
    /// They are no key set, or none of the keys can be used.
    #[error(
        "{origin} is no JWKS that can be used here: {reason}; it must hold 1 to {MAX_KEYS} public keys, each with its kid where there are several, for RS256 (2048 bits or more), ES256 or EdDSA"
    )]
    Invalid {
        /// The file or the address.
        origin: String,
        /// What is wrong.
        reason: String,
    },
}

impl KeySetError {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        "jwks-invalid"
    }

    /// Whether the same source may give better keys later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, KeySetError::Unreadable { .. })
    }
}

/// A key, and the one algorithm that it is for.
pub(super) struct Key {
    pub(super) decoding: DecodingKey,
    pub(super) algorithm: Algorithm,
}

/// The keys, by their ids.
pub(super) struct KeySet(HashMap<String, Key>);

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl KeySet {
    fn parse(origin: &str, text: &[u8]) -> Result<Self, KeySetError> {
        let invalid = |reason: String| KeySetError::Invalid { origin: origin.to_owned(), reason };
        let set: JwkSet = serde_json::from_slice(text).map_err(|error| invalid(error.to_string()))?;
        if set.keys.len() > MAX_KEYS {
            return Err(invalid(format!("it has {} keys", set.keys.len())));
        }
        let alone = set.keys.len() == 1;
        let usable = |jwk: &Jwk| {
            let signs = jwk.common.public_key_use.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature);
            let algorithm = algorithm_of(jwk).filter(|_| signs)?;
            let id = jwk.common.key_id.clone().or_else(|| alone.then(String::new))?;
            Some((id, Key { decoding: DecodingKey::from_jwk(jwk).ok()?, algorithm }))
        };
        let keys: HashMap<_, _> = set.keys.iter().filter_map(usable).collect();
        if keys.is_empty() {
            return Err(invalid(format!("none of its {} keys is usable", set.keys.len())));
        }
        Ok(Self(keys))
    }

    fn read(path: &Path) -> Result<Self, KeySetError> {
        let origin = path.display().to_string();
        let text = std::fs::read(path)
            .map_err(|error| KeySetError::Unreadable { origin: origin.clone(), reason: error.to_string() })?;
        Self::parse(&origin, &text)
    }

    /// The key of this id; the only key, where it and the token have none.
    pub(super) fn get(&self, id: Option<&str>) -> Option<&Key> {
        match id {
            Some(id) => self.0.get(id).or_else(|| self.0.get("")),
            None if self.0.len() == 1 => self.0.values().next(),
            None => None,
        }
    }
}

/// What a key is for. Symmetric keys are for nothing: a published secret is none.
fn algorithm_of(jwk: &Jwk) -> Option<Algorithm> {
    let algorithm = match &jwk.algorithm {
        // In base64url, 2048 bits take 342 letters; shorter moduli can be factored.
        AlgorithmParameters::RSA(key) if key.n.len() >= 342 => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return None,
    };
    let said = jwk.common.key_algorithm.map(|algorithm| algorithm.to_string());
    said.is_none_or(|said| said == format!("{algorithm:?}")).then_some(algorithm)
}

/// Where keys are fetched, and how often.
#[derive(Debug)]
struct Remote {
    target: Target,
    refetch: Duration,
    refresh: Duration,
    /// One fetch at a time.
    turn: Semaphore,
    tried: Mutex<Option<Instant>>,
}

/// The keys that are in force.
#[derive(Debug)]
pub(super) struct Jwks {
    origin: (Option<PathBuf>, Option<String>, Option<PathBuf>),
    keys: RwLock<Option<Arc<KeySet>>>,
    remote: Option<Remote>,
}

impl Jwks {
    /// Reads the file, or prepares to fetch; what `former` fetched from the same address stays in force.
    pub(super) fn new(config: &JwtConfig, former: Option<&Self>) -> Result<Self, KeySetError> {
        let origin = (config.jwks_file.clone(), config.jwks_url.clone(), config.jwks_ca.clone());
        let mut keys = match &config.jwks_file {
            Some(path) => Some(Arc::new(KeySet::read(path)?)),
            None => None,
        };
        let remote = match &config.jwks_url {
            Some(url) => Some(Remote {
                target: Target::new(url, config.jwks_ca.as_deref())
                    .map_err(|reason| KeySetError::Unreadable { origin: url.clone(), reason })?,
                refetch: Duration::from_secs(config.jwks_refetch_s),
                refresh: Duration::from_secs(config.jwks_refresh_s),
                turn: Semaphore::new(1),
                tried: Mutex::default(),
            }),
            None => None,
        };
        if let Some(former) = former.filter(|former| remote.is_some() && former.origin == origin) {
            keys = former.current();
        }
        Ok(Self { origin, keys: RwLock::new(keys), remote })
    }

    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keys among which this one is, if that can be: an id that is not known makes them be fetched again, unless
    /// that was tried a moment ago.
    pub(super) async fn with(&self, id: Option<&str>) -> Result<Arc<KeySet>, Error> {
        let has = |keys: &Arc<KeySet>| keys.get(id).is_some();
        if let Some(keys) = self.current().filter(has) {
            return Ok(keys);
        }
        if let Some(remote) = &self.remote {
            // Closed never: it lives as long as this.
            let _turn = remote.turn.acquire().await;
            if let Some(keys) = self.current().filter(has) {
                return Ok(keys);
            }
            self.fetch(remote).await;
        }
        self.current().ok_or(Error::Unverifiable {
            retry_after: self.remote.as_ref().map_or(Duration::from_secs(1), |remote| remote.refetch),
        })
    }

    /// Fetches now and then, for as long as it is polled.
    pub(super) async fn refresh(&self) {
        let Some(remote) = &self.remote else { return std::future::pending().await };
        loop {
            {
                let _turn = remote.turn.acquire().await;
                self.fetch(remote).await;
            }
            let missing = self.current().is_none();
            tokio::time::sleep(if missing { remote.refetch } else { remote.refresh }).await;
        }
    }

    async fn fetch(&self, remote: &Remote) {
        {
            let mut tried = remote.tried.lock().unwrap_or_else(PoisonError::into_inner);
            if tried.is_some_and(|at| at.elapsed() < remote.refetch) {
                return;
            }
            *tried = Some(Instant::now());
        }
        let origin = remote.target.to_string();
        let fetched = match timeout(PATIENCE, fetch::get(&remote.target)).await {
            Ok(fetched) => fetched,
            Err(_) => Err(format!("no answer within {PATIENCE:?}")),
        };
        let keys = fetched
            .map_err(|reason| KeySetError::Unreadable { origin: origin.clone(), reason })
            .and_then(|body| KeySet::parse(&origin, &body));
        match keys {
            Ok(keys) => {
                info!(%origin, keys = ?keys, "the issuer's keys were fetched");
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(keys));
            }
            Err(error) => warn!(code = error.code(), "{error}; those fetched before, if any, stay in force"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Result<Vec<String>, String> {
        let set = KeySet::parse("here", text.as_bytes()).map_err(|error| error.to_string())?;
        let mut ids: Vec<_> = set.0.into_keys().collect();
        ids.sort();
        Ok(ids)
    }

    #[test]
    fn only_public_keys_for_signatures_are_taken() {
        let ed = |rest: &str| {
            format!(
                r#"{{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"{rest}}}"#
            )
        };
        let good = ed(r#","kid":"a""#);
        let rsa = |letters: usize| {
            let modulus = "u".repeat(letters - 1);
            format!(r#"{{"kty":"RSA","kid":"r{letters}","e":"AQAB","n":"{modulus}A"}}"#)
        };
        let text = [
            good.clone(),
            ed(r#","kid":"b","use":"enc""#),
            ed(r#","kid":"c","alg":"HS256""#),
            ed(r#","kid":"d","alg":"EdDSA","use":"sig""#),
            ed(""),
            r#"{"kty":"oct","kid":"e","k":"c2VjcmV0"}"#.to_owned(),
            rsa(171),
            rsa(342),
        ];
        assert_eq!(ids(&format!(r#"{{"keys":[{}]}}"#, text.join(","))).unwrap(), ["a", "d", "r342"]);
        assert_eq!(ids(&format!(r#"{{"keys":[{}]}}"#, ed(""))).unwrap(), [""]);
        for wrong in ["", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","kid":"e","k":"c2VjcmV0"}]}"#] {
            assert!(ids(wrong).unwrap_err().contains("here is no JWKS"), "{wrong}");
        }
        let many = |n: usize| format!(r#"{{"keys":[{}]}}"#, vec![good.clone(); n].join(","));
        assert!(ids(&many(MAX_KEYS)).is_ok());
        assert!(ids(&many(MAX_KEYS + 1)).unwrap_err().contains("101 keys"));
    }
}
