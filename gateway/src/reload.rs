//! Puts a changed configuration in force while the gateway runs: all of it, or nothing.
//!
//! A part is what can be changed so. Each is prepared first, which reads and checks everything; only when all are,
//! each is put in force, which cannot fail.

use std::fmt::Debug;
use std::sync::PoisonError;
use std::time::SystemTime;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::audit;
use crate::auth::{self, Auth};
use crate::config::{self, Config};
use crate::gateway::Handle;
use crate::protect::{self, Protection};
use crate::shared::Shared;
use crate::tls::{self, Acceptors};

/// The settings that a reload puts in force; any other needs a start.
const SETTINGS: [&str; 4] = ["auth", "principals", "tls", "audit"];

/// Why a configuration was not put in force. The one before it stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is not valid.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// It changes what only a start can change.
    #[error(
        "{} changed, which needs a restart; start the gateway again, or change back and reload",
        settings.join(", ")
    )]
    NeedsRestart {
        /// The settings.
        settings: Vec<String>,
    },
    /// What credentials are checked against.
    #[error(transparent)]
    Auth(#[from] auth::BuildError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] audit::OpenError),
    /// A part of a stream's settings.
    #[error("stream {stream:?}: {reason}")]
    Stream {
        /// The stream's name.
        stream: String,
        /// The stable code of the error.
        code: &'static str,
        /// What is wrong, and how it is put right.
        reason: String,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Config(error) => error.code(),
            Error::NeedsRestart { .. } => "reload-needs-restart",
            Error::Auth(error) => error.code(),
            Error::Tls(error) => error.code(),
            Error::Audit(error) => error.code(),
            Error::Stream { code, .. } => code,
        }
    }

    /// Whether the same configuration may be accepted later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Auth(error) => error.is_retryable(),
            _ => false,
        }
    }
}

/// Reads and checks every file that a configuration names, and touches nothing else: what `--check-config` does
/// beside [`Config::validate`].
pub fn check(config: &Config) -> Result<(), Error> {
    config.validate()?;
    Auth::new(config, None)?;
    config.tls.as_ref().map(Acceptors::read).transpose()?;
    config.audit.as_ref().map(|audit| audit::check(&audit.file)).transpose()?;
    config.streams.iter().try_for_each(|stream| protect::reload(stream, &Protection::default()).map(drop))
}

/// What puts a prepared part in force.
pub(crate) type Commit<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Something that a reload changes.
pub(crate) trait Part: Debug + Send + Sync {
    /// Reads and checks what the configuration says of it. What is returned puts it in force.
    fn prepare<'a>(&'a self, shared: &'a Shared, config: &'a Config) -> Result<Commit<'a>, Error>;
}

/// Every part, in the order in which they are put in force.
pub(crate) fn parts() -> Vec<Box<dyn Part>> {
    vec![Box::new(Credentials), Box::new(Certificates), Box::new(Log), Box::new(crate::protect::Fields)]
}

/// Keys, tokens, principals and their quotas.
#[derive(Debug)]
struct Credentials;

impl Part for Credentials {
    fn prepare<'a>(&'a self, shared: &'a Shared, config: &'a Config) -> Result<Commit<'a>, Error> {
        let auth = Auth::new(config, Some(&shared.auth()))?;
        Ok(Box::new(|| shared.set_auth(auth)))
    }
}

#[derive(Debug)]
struct Certificates;

impl Part for Certificates {
    fn prepare<'a>(&'a self, shared: &'a Shared, config: &'a Config) -> Result<Commit<'a>, Error> {
        match (&shared.tls, &config.tls) {
            (Some(tls), Some(config)) => {
                let acceptors = Acceptors::read(config)?;
                Ok(Box::new(|| tls.replace(acceptors)))
            }
            (None, None) => Ok(Box::new(|| ())),
            _ => Err(Error::NeedsRestart { settings: vec!["whether there is tls".to_owned()] }),
        }
    }
}

/// The audit log, which may have been moved away.
#[derive(Debug)]
struct Log;

impl Part for Log {
    fn prepare<'a>(&'a self, shared: &'a Shared, config: &'a Config) -> Result<Commit<'a>, Error> {
        match (&shared.config.audit, &config.audit) {
            (Some(before), Some(after)) if before.interval_s == after.interval_s => {
                let file = audit::open(&after.file)?;
                Ok(Box::new(|| shared.audit.reopened(file)))
            }
            (before, after) if before == after => Ok(Box::new(|| ())),
            _ => Err(Error::NeedsRestart { settings: vec!["audit".to_owned()] }),
        }
    }
}

/// A short name of a configuration, which tells nothing of it.
pub(crate) fn digest(config: &Config) -> String {
    let text = toml::to_string(config).unwrap_or_default();
    let digest = Sha256::digest(text.as_bytes());
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The settings that differ, at the top level.
fn changed(before: &Config, after: &Config) -> Vec<String> {
    let table = |config| toml::Table::try_from(config).unwrap_or_default();
    let (before, after) = (table(before), table(after));
    let mut names: Vec<_> = before.keys().chain(after.keys()).cloned().collect();
    names.sort();
    names.dedup();
    names.retain(|name| before.get(name) != after.get(name));
    names
}

impl Handle {
    /// Puts a configuration in force as far as that can be done while the gateway runs: credentials, principals and
    /// their quotas, certificates and the audit log's file, all of which are read again even if nothing else
    /// changed. It is all or nothing; what happened is counted, logged and audited. It reads files: keep it from
    /// threads that must not wait.
    ///
    /// `config` may be what [`Config::load`] gave, also where that is an error. Returns the settings that changed.
    pub fn reload(&self, config: Result<Config, config::Error>) -> Result<Vec<String>, Error> {
        let shared = self.shared();
        // One at a time; a panic elsewhere leaves whole what is guarded.
        let mut current = shared.current.lock().unwrap_or_else(PoisonError::into_inner);
        let reloaded = config.map_err(Error::from).and_then(|config| {
            config.validate()?;
            let changed = changed(&current, &config);
            let fixed: Vec<_> =
                changed.iter().filter(|name| !shared.can_reload(name, &current, &config)).cloned().collect();
            if !fixed.is_empty() {
                return Err(Error::NeedsRestart { settings: fixed });
            }
            let prepared = shared
                .parts
                .iter()
                .map(|part| part.prepare(shared, &config))
                .collect::<Result<Vec<_>, _>>()?;
            prepared.into_iter().for_each(|commit| commit());
            Ok((config, changed))
        });
        match reloaded {
            Ok((config, changed)) => {
                let told = json!({
                    "before": digest(&current), "after": digest(&config), "changed": changed,
                    "api_keys": shared.auth().keys(),
                });
                shared.audit.configured("configuration-reloaded", told);
                shared.reloads.count(crate::tally::OK);
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                shared.reloaded_at.store(now.as_secs(), std::sync::atomic::Ordering::Relaxed);
                *current = config;
                Ok(changed)
            }
            Err(error) => {
                let told = json!({ "in_force": digest(&current), "code": error.code(), "reason": error.to_string() });
                shared.audit.configured("configuration-refused", told);
                shared.reloads.count(error.code());
                tracing::error!(code = error.code(), "the configuration is not put in force: {error}");
                Err(error)
            }
        }
    }
}

impl Shared {
    /// Whether a change of this setting can be put in force.
    fn can_reload(&self, setting: &str, before: &Config, after: &Config) -> bool {
        SETTINGS.contains(&setting)
            || (setting == "streams"
                && config::StreamConfig::differ_in_parts(&before.streams, &after.streams))
    }
}
