//! Proves who calls: API keys, signed tokens, and clients' certificates, all of which end in a
//! [`Principal`].
//!
//! A call has one credential: an API key in `x-api-key` or as a bearer of `authorization`, a token there, or the
//! connection's certificate where neither header is there. What is shown must hold: a wrong key is not passed
//! over for a good certificate.

mod certificate;
mod error;
mod fetch;
pub(crate) mod glob;
mod jwks;
mod jwt;
pub mod keys;
pub(crate) mod quota;
pub(crate) mod secret;
mod session;

use std::sync::Arc;
use std::time::SystemTime;

use axum::http::{HeaderMap, header};

pub(crate) use self::certificate::Names;
pub use self::error::Error;
pub(crate) use self::fetch::check_url;
pub use self::jwks::KeySetError;
use self::jwt::Tokens;
use self::keys::Keys;
use self::secret::Secret;
pub(crate) use self::session::Session;
use crate::config::{CertificateName, Config};
use crate::conn::Peer;
use crate::principal::{Principal, Principals};
use crate::shared::Shared;

/// The header of an API key.
pub(crate) const API_KEY: &str = "x-api-key";

/// What a call shows.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    None,
    Key(Secret),
    Token(Secret),
    Certificate(Arc<Peer>),
    /// Something that is none, with what is wrong with it.
    Unreadable(&'static str),
}

impl Credential {
    /// What the headers, or else the connection, show.
    pub(crate) fn of(headers: &HeaderMap, peer: Option<&Arc<Peer>>) -> Self {
        let mut shown =
            headers.get_all(header::AUTHORIZATION).iter().chain(headers.get_all(API_KEY)).peekable();
        let Some(first) = shown.next() else {
            return match peer.filter(|peer| peer.names.is_some()) {
                Some(peer) => Self::Certificate(Arc::clone(peer)),
                None => Self::None,
            };
        };
        if shown.next().is_some() {
            return Self::Unreadable("there are several; send one");
        }
        let first = first.as_bytes();
        if headers.contains_key(API_KEY) {
            return Self::Key(Secret::new(first));
        }
        let bearer = first.split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
        match bearer.map(|(_, text)| text.trim_ascii()) {
            None => Self::Unreadable("its scheme is not Bearer"),
            Some(text) if text.starts_with(keys::PREFIX.as_bytes()) => Self::Key(Secret::new(text)),
            Some(text) => Self::Token(Secret::new(text)),
        }
    }

    /// What it is, and what of it may be told.
    pub(crate) fn described(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::None => ("none", None),
            Self::Key(key) => ("api-key", keys::id_of(key)),
            Self::Token(_) => ("jwt", None),
            Self::Certificate(_) => ("certificate", None),
            Self::Unreadable(_) => ("unreadable", None),
        }
    }
}

/// Why the credentials of a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The API keys.
    #[error(transparent)]
    Keys(#[from] keys::FileError),
    /// The keys of the tokens' issuer.
    #[error(transparent)]
    KeySet(#[from] KeySetError),
}

impl BuildError {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            BuildError::Keys(error) => error.code(),
            BuildError::KeySet(error) => error.code(),
        }
    }

    /// Whether the same settings may work later.
    pub fn is_retryable(&self) -> bool {
        match self {
            BuildError::Keys(error) => error.is_retryable(),
            BuildError::KeySet(error) => error.is_retryable(),
        }
    }
}

/// A caller who was let in.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) principal: Arc<Principal>,
    /// When the credential ceases to be valid.
    pub(crate) expires: Option<SystemTime>,
}

/// What credentials are checked against.
#[derive(Debug)]
pub(crate) struct Auth {
    enabled: bool,
    keys: Option<Keys>,
    tokens: Option<Tokens>,
    certificate_name: Option<CertificateName>,
    principals: Principals,
}

impl Auth {
    /// Reads what the configuration names. What `former` counted and fetched stays, as far as it still applies.
    pub(crate) fn new(config: &Config, former: Option<&Self>) -> Result<Self, BuildError> {
        let auth = &config.auth;
        let principals = Principals::new(config);
        Ok(Self {
            enabled: auth.is_enabled(),
            keys: auth.key_file.as_deref().map(Keys::read).transpose()?,
            tokens: match &auth.jwt {
                Some(jwt) => Some(Tokens::new(jwt, former.and_then(|former| former.tokens.as_ref()))?),
                None => None,
            },
            certificate_name: auth.certificate_name,
            principals: match former {
                Some(former) => principals.succeeding(&former.principals),
                None => principals,
            },
        })
    }

    /// Whether callers must prove who they are.
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// How many API keys are known.
    pub(crate) fn keys(&self) -> usize {
        self.keys.as_ref().map_or(0, Keys::len)
    }

    /// Keeps the issuer's keys fresh, for as long as it is polled.
    async fn refresh(&self) {
        match &self.tokens {
            Some(tokens) => tokens.refresh().await,
            None => std::future::pending().await,
        }
    }

    /// Whom the credential lets in.
    pub(crate) async fn check(&self, credential: &Credential) -> Result<Known, Error> {
        if !self.enabled {
            return Ok(Known { principal: self.principals.local()?, expires: None });
        }
        let not_taken =
            |kind| Error::Invalid { kind, reason: format!("none is taken here; send {}", self.accepted()) };
        let (name, expires) = match credential {
            Credential::None => return Err(Error::Missing { accepted: self.accepted() }),
            Credential::Unreadable(reason) => {
                return Err(Error::Invalid { kind: "credential", reason: (*reason).to_owned() });
            }
            Credential::Key(key) => {
                let keys = self.keys.as_ref().ok_or_else(|| not_taken("API key"))?;
                let (name, expires) = keys.check(key, SystemTime::now())?;
                return Ok(Known { principal: self.principals.named(name)?, expires });
            }
            Credential::Token(token) => {
                let tokens = self.tokens.as_ref().ok_or_else(|| not_taken("token"))?;
                tokens.check(token).await?
            }
            Credential::Certificate(peer) => {
                // A certificate that nobody maps is no credential.
                let Some(which) = self.certificate_name else {
                    return Err(Error::Missing { accepted: self.accepted() });
                };
                let name =
                    peer.names.as_ref().and_then(|names| names.get(which)).ok_or_else(|| Error::Invalid {
                        kind: "certificate",
                        reason: "it has no name of the kind that auth.certificate_name says".to_owned(),
                    })?;
                (name.to_owned(), peer.expires)
            }
        };
        Ok(Known { principal: self.principals.named(&name)?, expires })
    }

    fn accepted(&self) -> String {
        let ways = [
            (self.keys.is_some(), "an API key in x-api-key"),
            (self.tokens.is_some(), "a JWT as `authorization: Bearer ...`"),
            (self.certificate_name.is_some(), "a client certificate"),
        ];
        let ways: Vec<_> = ways.iter().filter_map(|(taken, way)| taken.then_some(*way)).collect();
        ways.join(", or ")
    }
}

/// Keeps the issuer's keys fresh, also after they come from somewhere else.
pub(crate) async fn refresh(shared: Arc<Shared>) {
    let mut changes = shared.auth_changes();
    loop {
        let auth = shared.auth();
        tokio::select! {
            () = auth.refresh() => {}
            // The sender lives in `shared`.
            _ = changes.changed() => {}
        }
    }
}
