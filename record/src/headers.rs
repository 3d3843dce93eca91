//! Headers: small name-value pairs beside a record's data, and the record's creation context.

use bytestring::ByteString;

use crate::creation::Creation;

/// The most headers of one record.
pub const MAX_HEADERS: usize = 32;
/// The longest header name, in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// The longest header value, in bytes of UTF-8.
pub const MAX_VALUE_BYTES: usize = 2048;
/// The most bytes of all names and values of one record together.
pub const MAX_TOTAL_BYTES: usize = 8192;
/// Names that begin with this are Headworks' own; users cannot set them, unknown ones are kept.
pub const RESERVED_PREFIX: &str = "hw-";

/// Why a header was refused. Nothing is ever truncated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name is not a lower-case ASCII token.
    #[error(
        "the header name {name:?} is not a lower-case ASCII token of 1 to {MAX_NAME_BYTES} bytes (a-z, 0-9 and !#$%&'*+-.^_`|~); rename it, for example to {remedy:?}"
    )]
    BadName {
        /// The name that was given.
        name: String,
        /// A name that would be accepted.
        remedy: String,
    },
    /// The name begins with `hw-`.
    #[error(
        "the header name {name:?} begins with {RESERVED_PREFIX:?}, which is reserved for Headworks; choose another prefix"
    )]
    Reserved {
        /// The name that was given.
        name: String,
    },
    /// The value is too long.
    #[error(
        "the value of header {name:?} has {bytes} bytes, the limit is {MAX_VALUE_BYTES}; put long values into the data"
    )]
    ValueTooLong {
        /// The header's name.
        name: String,
        /// The value's size.
        bytes: usize,
    },
    /// Too many headers.
    #[error(
        "the record has more than {MAX_HEADERS} headers ({name:?} is one too many); put what no router needs into the data"
    )]
    TooMany {
        /// The first header over the limit.
        name: String,
    },
    /// All headers together are too large.
    #[error(
        "the headers have {bytes} bytes in all, the limit is {MAX_TOTAL_BYTES}; put long values into the data"
    )]
    TooLarge {
        /// Bytes of all names and values.
        bytes: usize,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::BadName { .. } => "header-name-invalid",
            Error::Reserved { .. } => "header-name-reserved",
            Error::ValueTooLong { .. } => "header-value-too-long",
            Error::TooMany { .. } => "headers-too-many",
            Error::TooLarge { .. } => "headers-too-large",
        }
    }

    /// Whether the same input may be accepted later: never.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// The headers of a record, in the order in which they were set, and its creation context.
///
/// A name stands at most once among headers that are set through [`Headers::set`]. What a foreign
/// writer put on the stream is kept as it is, repeated names included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    creation: Option<Creation>,
    entries: Vec<(ByteString, ByteString)>,
}

impl Headers {
    /// No headers and no creation context.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with_capacity(headers: usize) -> Self {
        Self { creation: None, entries: Vec::with_capacity(headers) }
    }

    /// Headers as they stood on the wire, for who carries on what a writer wrote: names may repeat, and those that
    /// begin with `hw-` are kept. Nothing is checked; what users set goes through [`Headers::set`].
    pub fn from_wire<N: Into<ByteString>, V: Into<ByteString>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let entries = pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { creation: None, entries }
    }

    /// The record's identity and creation time, if it has one yet.
    pub fn creation(&self) -> Option<&Creation> {
        self.creation.as_ref()
    }

    /// Gives the record its creation context. Done once, by whoever mints it.
    pub fn set_creation(&mut self, creation: Creation) {
        self.creation = Some(creation);
    }

    /// The value of the first header of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.entries.iter().find(|(n, _)| &**n == name).map(|(_, v)| &**v)
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.entries.iter().map(|(n, v)| (&**n, &**v))
    }

    /// Names and values in order, as shared text.
    pub fn entries(&self) -> &[(ByteString, ByteString)] {
        &self.entries
    }

    /// How many headers there are, the creation context not counted.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is neither a header nor a creation context.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.creation.is_none()
    }

    /// Sets a header, in place if the name is there already.
    pub fn set(&mut self, name: impl Into<ByteString>, value: impl Into<ByteString>) -> Result<(), Error> {
        let (name, value) = (name.into(), value.into());
        let place = self.entries.iter().position(|(n, _)| *n == name);
        let replaced = place.map_or(0, |i| self.entries[i].0.len() + self.entries[i].1.len());
        let others = self.entries.len() - usize::from(place.is_some());
        check_next(others, self.bytes() - replaced, &name, &value)?;
        match place {
            Some(i) => self.entries[i].1 = value,
            None => self.entries.push((name, value)),
        }
        Ok(())
    }

    /// Removes every header of this name; tells whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.entries.len();
        self.entries.retain(|(n, _)| &**n != name);
        self.entries.len() != before
    }

    /// Bytes of all names and values; the creation context not counted.
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(|(n, v)| n.len() + v.len()).sum()
    }

    /// Adds what was read from the wire, unchecked: a reader keeps what a writer wrote.
    pub(crate) fn push_wire(&mut self, name: ByteString, value: ByteString) {
        self.entries.push((name, value));
    }
}

/// Checks a header that joins `others` of so many bytes; tells how many bytes they have with it.
pub fn check_next(others: usize, bytes: usize, name: &str, value: &str) -> Result<usize, Error> {
    check_name(name)?;
    if value.len() > MAX_VALUE_BYTES {
        return Err(Error::ValueTooLong { name: name.to_owned(), bytes: value.len() });
    }
    if others >= MAX_HEADERS {
        return Err(Error::TooMany { name: name.to_owned() });
    }
    let bytes = bytes + name.len() + value.len();
    if bytes > MAX_TOTAL_BYTES {
        return Err(Error::TooLarge { bytes });
    }
    Ok(bytes)
}

fn check_name(name: &str) -> Result<(), Error> {
    let token = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9') || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(token) {
        let cleaned: String =
            name.to_ascii_lowercase().bytes().map(|b| if token(b) { b as char } else { '-' }).collect();
        let mut remedy: String = cleaned.trim_matches('-').chars().take(MAX_NAME_BYTES).collect();
        if remedy.is_empty() {
            remedy = "type".to_owned();
        }
        return Err(Error::BadName { name: name.chars().take(MAX_NAME_BYTES + 1).collect(), remedy });
    }
    if name.starts_with(RESERVED_PREFIX) {
        return Err(Error::Reserved { name: name.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_replaces_in_place_and_keeps_order() {
        let mut headers = Headers::new();
        headers.set("type", "a").unwrap();
        headers.set("tenant", "t").unwrap();
        headers.set("type", "b").unwrap();
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("type", "b"), ("tenant", "t")]);
        assert!(headers.remove("type"));
        assert!(!headers.remove("type"));
    }

    #[test]
    fn bad_names_name_a_remedy() {
        let mut headers = Headers::new();
        let error = headers.set("Content Type", "x").unwrap_err();
        assert!(error.to_string().contains("\"content-type\""), "{error}");
        assert_eq!(headers.set("", "x").unwrap_err().code(), "header-name-invalid");
        assert_eq!(headers.set("hw-t", "x").unwrap_err().code(), "header-name-reserved");
        assert!(headers.set("n".repeat(MAX_NAME_BYTES), "x").is_ok());
        assert_eq!(
            headers.set("n".repeat(MAX_NAME_BYTES + 1), "x").unwrap_err().code(),
            "header-name-invalid"
        );
    }

    #[test]
    fn what_stood_on_the_wire_is_kept_as_it_is() {
        let pairs = [("a", "1"), ("hw-x", "2"), ("a", "3"), ("Not A Token", "")];
        let headers = Headers::from_wire(pairs);
        assert_eq!(headers.iter().collect::<Vec<_>>(), pairs);
        assert_eq!((headers.get("a"), headers.creation()), (Some("1"), None));
    }

    #[test]
    fn both_sides_of_each_limit() {
        let mut headers = Headers::new();
        assert!(headers.set("v", "x".repeat(MAX_VALUE_BYTES)).is_ok());
        assert_eq!(
            headers.set("v", "x".repeat(MAX_VALUE_BYTES + 1)).unwrap_err().code(),
            "header-value-too-long"
        );

        let mut headers = Headers::new();
        for i in 0..MAX_HEADERS {
            headers.set(format!("h{i}"), "").unwrap();
        }
        assert!(headers.set("h0", "again").is_ok());
        assert_eq!(headers.set("more", "").unwrap_err().code(), "headers-too-many");

        let mut headers = Headers::new();
        for name in ["a", "b", "c"] {
            headers.set(name, "x".repeat(MAX_VALUE_BYTES)).unwrap();
        }
        let rest = MAX_TOTAL_BYTES - headers.bytes() - 1;
        assert_eq!(headers.clone().set("d", "x".repeat(rest + 1)).unwrap_err().code(), "headers-too-large");
        assert!(headers.set("d", "x".repeat(rest)).is_ok());
        assert_eq!(headers.bytes(), MAX_TOTAL_BYTES);
    }
}
