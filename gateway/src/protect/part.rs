//! Putting rules in force, at the start and at a reload.

use std::sync::{Arc, PoisonError};

use super::keys::KeysError;
use super::rule::Protection;
use crate::config::{Config, StreamConfig};
use crate::reload::{self, Commit, Part};
use crate::shared::Shared;

/// The protection that a stream's settings ask for. Blocking.
pub(crate) fn load(stream: &StreamConfig) -> Result<Arc<Protection>, KeysError> {
    let protection = stream.protect.as_ref().map(Protection::load).transpose()?;
    Ok(Arc::new(protection.unwrap_or_default()))
}

/// The rules and keys of every stream.
#[derive(Debug)]
pub(crate) struct Fields;

impl Part for Fields {
    fn prepare<'a>(&'a self, shared: &'a Shared, config: &'a Config) -> Result<Commit<'a>, reload::Error> {
        let mut loaded = Vec::new();
        for stream in &config.streams {
            let protection = load(stream).map_err(|error| reload::Error::Stream {
                stream: stream.name.clone(),
                code: error.code(),
                reason: error.to_string(),
            })?;
            loaded.extend(
                shared.streams.iter().find(|inbound| *inbound.name == *stream.name).map(|i| (i, protection)),
            );
        }
        Ok(Box::new(move || {
            for (inbound, protection) in loaded {
                *inbound.protection.write().unwrap_or_else(PoisonError::into_inner) = protection;
            }
        }))
    }
}
