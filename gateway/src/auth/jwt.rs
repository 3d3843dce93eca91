//! Signed tokens.

use std::time::{Duration, SystemTime};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde_json::{Map, Value};

use super::Error;
use super::jwks::{Jwks, KeySetError};
use super::secret::Secret;
use crate::config::{JwtAlgorithm, JwtConfig};

/// What a caller is told to have shown.
const KIND: &str = "token";
/// The longest token, in bytes.
const MAX_BYTES: usize = 8 << 10;

/// Checks tokens of one issuer.
#[derive(Debug)]
pub(super) struct Tokens {
    keys: Jwks,
    algorithms: Vec<Algorithm>,
    validation: Validation,
    claim: String,
}

impl Tokens {
    pub(super) fn new(config: &JwtConfig, former: Option<&Self>) -> Result<Self, KeySetError> {
        let algorithms: Vec<_> = config
            .algorithms
            .iter()
            .map(|algorithm| match algorithm {
                JwtAlgorithm::RS256 => Algorithm::RS256,
                JwtAlgorithm::ES256 => Algorithm::ES256,
                JwtAlgorithm::EdDSA => Algorithm::EdDSA,
            })
            .collect();
        let mut validation = Validation::default();
        validation.set_audience(&config.audience);
        validation.set_issuer(&[&config.issuer]);
        // Without this a token that does not say for whom it is, or by whom, would pass.
        validation.set_required_spec_claims(&["exp", "aud", "iss"]);
        validation.validate_nbf = true;
        validation.leeway = config.leeway_s;
        Ok(Self {
            keys: Jwks::new(config, former.map(|former| &former.keys))?,
            algorithms,
            validation,
            claim: config.principal_claim.clone(),
        })
    }

    pub(super) async fn refresh(&self) {
        self.keys.refresh().await;
    }

    /// Whom the token names, and until when.
    pub(super) async fn check(&self, token: &Secret) -> Result<(String, Option<SystemTime>), Error> {
        let invalid = |reason: &str| Error::Invalid { kind: KIND, reason: reason.to_owned() };
        let token = token.expose();
        if token.len() > MAX_BYTES {
            return Err(invalid("it has more than 8192 bytes"));
        }
        let header = decode_header(token).map_err(|_| invalid("it is neither an API key nor a JWT"))?;
        if !self.algorithms.contains(&header.alg) {
            return Err(invalid("its algorithm is not among those of auth.jwt.algorithms"));
        }
        let keys = self.keys.with(header.kid.as_deref()).await?;
        let key = keys
            .get(header.kid.as_deref())
            // A key is for one algorithm, whatever the token says.
            .filter(|key| key.algorithm == header.alg)
            .ok_or_else(|| invalid("the issuer has no such key"))?;
        let mut validation = self.validation.clone();
        validation.algorithms = vec![key.algorithm];
        let claims: Map<String, Value> =
            decode(token, &key.decoding, &validation).map_err(|error| refused(error.kind()))?.claims;
        let name =
            claims.get(&self.claim).and_then(Value::as_str).filter(|name| (1..=256).contains(&name.len()));
        let name = name.ok_or_else(|| {
            invalid("its claim for the principal is missing or not a text of 1 to 256 bytes")
        })?;
        let leeway = self.validation.leeway as f64;
        let expires = claims.get("exp").and_then(Value::as_f64).and_then(|at| {
            let since = Duration::try_from_secs_f64((at + leeway).max(0.0)).ok()?;
            SystemTime::UNIX_EPOCH.checked_add(since)
        });
        Ok((name.to_owned(), expires))
    }
}

fn refused(kind: &ErrorKind) -> Error {
    let reason = match kind {
        ErrorKind::ExpiredSignature => return Error::Expired { kind: KIND },
        ErrorKind::ImmatureSignature => "it is not valid yet".to_owned(),
        ErrorKind::InvalidAudience => "it is for another audience".to_owned(),
        ErrorKind::InvalidIssuer => "it is from another issuer".to_owned(),
        ErrorKind::MissingRequiredClaim(claim) => format!("its claim {claim:?} is missing"),
        ErrorKind::InvalidSignature => "its signature is wrong".to_owned(),
        _ => "it cannot be read".to_owned(),
    };
    Error::Invalid { kind: KIND, reason }
}
