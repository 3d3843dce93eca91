//! Why a record did not reach a destination, and what that means for its shard.

use std::borrow::Cow;

/// What kind of trouble it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// It passes: credentials, permissions, keys, the router's own limits. The record is reported as failed, so its
    /// shard waits and Lambda hands it over again, for as long as that takes.
    Retryable,
    /// The destination takes nothing now: it is under pressure, out of reach, or silent. As [`Kind::Retryable`], but a
    /// rule's `spill-after` bounds how long its records wait.
    Unavailable,
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
    /// Trouble that passes, and that is waited for whatever a rule says.
    pub fn retryable(code: impl Into<Cow<'static, str>>, message: impl ToString) -> Self {
        Self { kind: Kind::Retryable, code: code.into(), message: message.to_string() }
    }

    /// Trouble of the destination that passes.
    pub fn unavailable(code: impl Into<Cow<'static, str>>, message: impl ToString) -> Self {
        Self { kind: Kind::Unavailable, code: code.into(), message: message.to_string() }
    }

    /// Trouble that stays.
    pub fn poison(code: impl Into<Cow<'static, str>>, message: impl ToString) -> Self {
        Self { kind: Kind::Poison, code: code.into(), message: message.to_string() }
    }

    /// Whether the record belongs to the dead letters.
    pub fn is_poison(&self) -> bool {
        self.kind == Kind::Poison
    }

    /// Whether a rule's `spill-after` bounds how long it is waited for.
    pub fn may_spill(&self) -> bool {
        self.kind == Kind::Unavailable
    }

    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// Whether the same record may get through later.
    pub fn is_retryable(&self) -> bool {
        !self.is_poison()
    }
}
