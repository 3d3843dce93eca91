//! Why a fault was not taken.

/// A fault that makes no sense, or whose text cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("bad fault {fault:?}: {reason}")]
pub struct FaultError {
    /// The fault, as text.
    pub fault: String,
    /// What is wrong with it, and what it may be instead.
    pub reason: String,
}

impl FaultError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "local-fault-invalid"
    }

    /// Whether the same fault may be taken later: never.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }
}
