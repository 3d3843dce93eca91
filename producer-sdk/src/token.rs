//! What a producer shows to the gateway: an API key, or a token that changes.

use std::sync::Arc;

/// Where the bearer token comes from; never shown.
#[derive(Clone, Default)]
pub(crate) struct Token(Option<Arc<dyn Fn() -> String + Send + Sync>>);

impl Token {
    pub(crate) fn fixed(token: String) -> Self {
        Self(Some(Arc::new(move || token.clone())))
    }

    pub(crate) fn from_fn(source: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(source)))
    }

    /// The token of now.
    pub(crate) fn read(&self) -> Option<String> {
        self.0.as_ref().map(|source| source())
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Token(set)" } else { "Token(none)" })
    }
}
