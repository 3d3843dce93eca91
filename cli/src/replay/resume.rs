//! Where a replay's place is kept.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use headworks_consumer::replay::Token;

use crate::exit::Failure;

/// Time between two writes of the file, at least.
pub(super) const SAVE_EVERY: Duration = Duration::from_secs(1);

/// What a replay goes on from.
#[derive(Debug, Clone)]
pub(super) enum Resume {
    /// The file that keeps its token.
    File(PathBuf),
    /// The token itself.
    Token(Box<Token>),
}

impl FromStr for Resume {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        if text.trim_start().starts_with('{') {
            return parse(text).map(|token| Self::Token(Box::new(token)));
        }
        Ok(Self::File(PathBuf::from(text)))
    }
}

impl Resume {
    /// The token, if there is one yet. One of another stream is refused.
    pub(super) fn token(&self, stream: &str) -> Result<Option<Token>, Failure> {
        let token = match self {
            Self::Token(token) => token.as_ref().clone(),
            Self::File(file) => match std::fs::read_to_string(file) {
                Ok(text) => parse(text.trim()).map_err(|failure| failure.at(file.display()))?,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => {
                    return Err(Failure::environment(
                        "input-unreadable",
                        format_args!(
                            "the file {} cannot be read: {error}; check the path of --resume",
                            file.display()
                        ),
                    ));
                }
            },
        };
        let other =
            serde_json::to_value(&token).ok().and_then(|token| Some(token["stream"].as_str()?.to_owned()));
        match other {
            Some(other) if other != stream => Err(Failure::usage(
                "replay-token-invalid",
                format_args!(
                    "the replay to resume is of the stream {other:?}, not {stream:?}; name that stream"
                ),
            )),
            _ => Ok(Some(token)),
        }
    }

    /// Writes the token to the file, whole or not at all.
    pub(super) fn keep(&self, token: &Token) -> Result<(), Failure> {
        let Self::File(file) = self else { return Ok(()) };
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let write = || {
            let mut fresh = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
            std::io::Write::write_all(&mut fresh, format!("{token}\n").as_bytes())?;
            fresh.persist(file)?;
            Ok(())
        };
        write().map_err(|error: std::io::Error| {
            Failure::environment(
                "output-failed",
                format_args!(
                    "the replay's place cannot be kept in {}: {error}; check the path of --resume",
                    file.display()
                ),
            )
        })
    }
}

fn parse(text: &str) -> Result<Token, Failure> {
    text.parse().map_err(|error: headworks_consumer::replay::Error| Failure::usage(error.code(), error))
}
