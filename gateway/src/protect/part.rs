//! Putting rules in force, at the start and at a reload.

use std::sync::{Arc, PoisonError};

use super::KeysError;
use super::rule::Protection;
use crate::config::{Config, StreamConfig};
use crate::reload::{self, Commit, Part};
use crate::shared::Shared;

/// The protection that a stream's settings ask for, in place of another one. Blocking.
pub(crate) fn load(stream: &StreamConfig, before: &Protection) -> Result<Arc<Protection>, KeysError> {
    let protection = stream.protect.as_ref().map(|config| Protection::load_after(config, before));
    let protection = protection.transpose()?.unwrap_or_default();
    match protection.services().first() {
        Some(key) if !cfg!(feature = "kms") => Err(KeysError::Key {
            id: key.id().to_owned(),
            reason: "it is a key of KMS, and this gateway was built without the feature `kms`",
        }),
        _ => Ok(Arc::new(protection)),
    }
}

/// The same at a reload, or to check a configuration.
pub(crate) fn reload(stream: &StreamConfig, before: &Protection) -> Result<Arc<Protection>, reload::Error> {
    load(stream, before).map_err(|error| reload::Error::Stream {
        stream: stream.name.clone(),
        code: error.code(),
        reason: error.to_string(),
    })
}

/// The rules and keys of every stream.
#[derive(Debug)]
pub(crate) struct Fields;

impl Part for Fields {
    fn prepare<'a>(&'a self, shared: &'a Shared, config: &'a Config) -> Result<Commit<'a>, reload::Error> {
        let mut loaded = Vec::new();
        for stream in &config.streams {
            let inbound = shared.streams.iter().find(|inbound| *inbound.name == *stream.name);
            let before = inbound.map(|inbound| inbound.protection()).unwrap_or_default();
            let protection = reload(stream, &before)?;
            loaded.extend(inbound.map(|inbound| (inbound, protection)));
        }
        Ok(Box::new(move || {
            for (inbound, protection) in loaded {
                *inbound.protection.write().unwrap_or_else(PoisonError::into_inner) = protection;
            }
        }))
    }
}
