//! Who is at the door.

use std::sync::Arc;

/// Somebody who may write, and what they may do.
///
/// A gateway that is reachable only from its own machine knows one principal,
/// [`Principal::local`]; authentication will name others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The name, which takes part in identities that are derived from a client's own id.
    pub name: Arc<str>,
    /// Whether the principal may hand over creation contexts of its own. A forged one could make
    /// consumers take another's record for a repeat.
    pub may_mint: bool,
}

impl Principal {
    /// Everybody on this machine.
    pub fn local() -> Self {
        Self { name: "local".into(), may_mint: true }
    }
}
