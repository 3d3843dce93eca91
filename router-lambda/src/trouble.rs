//! Why a record did not reach a destination, and what that means for its shard.

use std::borrow::Cow;

/// What kind of trouble it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// It passes: throttling, connections, credentials, keys. The record is reported as failed, so its
    /// shard waits and Lambda hands it over again.
    Retryable,
    /// The record itself will never get through. It goes to the dead letters.
    Poison,
}

/// Why a record did not reach a destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Trouble {
    /// What kind of trouble it is.
    pub kind: Kind,
    /// The stable code, as in `docs/errors/`.
    pub code: Cow<'static, str>,
    /// What happened, for a reader.
    pub message: String,
}

impl Trouble {
    /// Trouble that passes.
    pub fn retryable(code: impl Into<Cow<'static, str>>, message: impl ToString) -> Self {
        Self { kind: Kind::Retryable, code: code.into(), message: message.to_string() }
    }

    /// Trouble that stays.
    pub fn poison(code: impl Into<Cow<'static, str>>, message: impl ToString) -> Self {
        Self { kind: Kind::Poison, code: code.into(), message: message.to_string() }
    }

    /// Whether the record belongs to the dead letters.
    pub fn is_poison(&self) -> bool {
        self.kind == Kind::Poison
    }

    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// Whether the same record may get through later.
    pub fn is_retryable(&self) -> bool {
        self.kind == Kind::Retryable
    }
}
