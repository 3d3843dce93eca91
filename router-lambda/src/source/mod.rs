//! Where the route table comes from, and how another one takes its place without a deployment.
//!
//! Three places are understood: a file, an object in S3 (`s3://bucket/key`), and an HTTP endpoint on this machine. The
//! last one is how Lambda functions reach AppConfig and the Parameter Store without an SDK of their own: through AWS's
//! extensions, which are processes beside the function:
//!
//! - AppConfig: `http://localhost:2772/applications/{a}/environments/{e}/configurations/{c}` (AWS AppConfig User
//!   Guide, "AppConfig Agent Lambda extension"); the version is in the answer's `Configuration-Version` header;
//! - Parameter Store: `http://localhost:2773/systemsmanager/parameters/get?name={n}` with the session token in
//!   `X-Aws-Parameters-Secrets-Token` (AWS Systems Manager User Guide, "Parameters and Secrets Lambda Extension"); the answer is
//!   JSON with `Parameter.Value` and `Parameter.Version`.

mod http;
mod reload;
mod s3;

use std::path::PathBuf;

use async_trait::async_trait;

use crate::table::{self, Format, RouteTable};

pub use http::Endpoint;
pub use reload::{Reload, Reloader};
pub use s3::Object;

/// The largest text of a table, in bytes.
pub const MAX_TABLE_BYTES: usize = 1 << 20;

/// Where a table is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// A file.
    File(PathBuf),
    /// An object in S3.
    S3 {
        /// The bucket.
        bucket: String,
        /// The object's key.
        key: String,
    },
    /// An HTTP endpoint.
    Http(String),
}

impl Location {
    /// Reads a path, `s3://bucket/key` or `http://…`; the error says what may be given.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(rest) = text.strip_prefix("s3://") {
            return match rest.split_once('/') {
                Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => {
                    Ok(Location::S3 { bucket: bucket.to_owned(), key: key.to_owned() })
                }
                _ => Err("an object is named as in s3://bucket/key"),
            };
        }
        if text.starts_with("http://") {
            let host = text.parse::<::http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
            let local = host.is_some_and(|host| ["localhost", "127.0.0.1", "[::1]"].contains(&&*host));
            return if local {
                Ok(Location::Http(text.to_owned()))
            } else {
                Err("an HTTP endpoint must be on this machine: it is not encrypted and not authenticated")
            };
        }
        if text.contains("://") {
            return Err("a path, s3://bucket/key or http://localhost:port/…");
        }
        Ok(Location::File(text.into()))
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Location::File(path) => write!(f, "{}", path.display()),
            Location::S3 { bucket, key } => write!(f, "s3://{bucket}/{key}"),
            Location::Http(url) => f.write_str(url),
        }
    }
}

/// A table's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// What tells it from other texts of the same place: an ETag, a version, a fingerprint.
    pub version: String,
    /// The text.
    pub text: String,
    /// In what it is written.
    pub format: Format,
}

/// Why a table could not be loaded. The one in force stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The place did not give a text.
    #[error("the route table {location} cannot be read: {reason}")]
    Unreadable {
        /// Where it is.
        location: String,
        /// What was said.
        reason: String,
    },
    /// The text is too long.
    #[error("the route table {location} is larger than {MAX_TABLE_BYTES} bytes; use fewer rules")]
    TooLarge {
        /// Where it is.
        location: String,
    },
    /// The text is no good table.
    #[error(transparent)]
    Table(#[from] table::Error),
    /// The table sends records to the dead letters, and there is no place for them.
    #[error(
        "the route table {location} may send records to the dead letters (dead-letter, spill-after or on-slow), and no dead-letter bucket is configured; set HEADWORKS_DEAD_LETTER_BUCKET"
    )]
    NoDeadLetters {
        /// Where it is.
        location: String,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Unreadable { .. } => "route-table-unreadable",
            Error::TooLarge { .. } => "route-table-too-large",
            Error::Table(error) => error.code(),
            Error::NoDeadLetters { .. } => "dead-letters-not-configured",
        }
    }

    /// Whether the same place may give a good table later without being changed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Unreadable { .. } => true,
            Error::Table(error) => error.is_retryable(),
            Error::TooLarge { .. } | Error::NoDeadLetters { .. } => false,
        }
    }
}

/// Gives a table's text.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// The text, or `None` if it is still the one of this version.
    async fn fetch(&self, known: Option<&str>) -> Result<Option<Text>, Error>;

    /// Where it comes from, for messages.
    fn location(&self) -> String;
}

/// A file.
#[derive(Debug, Clone)]
pub struct File(pub PathBuf);

#[async_trait]
impl Source for File {
    async fn fetch(&self, known: Option<&str>) -> Result<Option<Text>, Error> {
        let path = &self.0;
        let name = path.display().to_string();
        let format =
            Format::of_name(&name).ok_or_else(|| table::Error::UnknownFormat { path: path.clone() })?;
        let text = tokio::fs::read_to_string(path)
            .await
            .map_err(|source| table::Error::Unreadable { path: path.clone(), source })?;
        let version = table::fingerprint(&text);
        Ok((known != Some(&version)).then_some(Text { version, text, format }))
    }

    fn location(&self) -> String {
        self.0.display().to_string()
    }
}

/// Compiles a text that a source gave.
fn compile(text: &Text, location: String, dead_letters: bool) -> Result<RouteTable, Error> {
    if text.text.len() > MAX_TABLE_BYTES {
        return Err(Error::TooLarge { location });
    }
    let table = RouteTable::parse(&text.text, text.format, location.clone())?;
    if table.uses_dead_letters() && !dead_letters {
        return Err(Error::NoDeadLetters { location });
    }
    Ok(table)
}
