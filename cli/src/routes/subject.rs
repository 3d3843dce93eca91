//! The record that `headworks routes test` asks about.

use headworks_record::{Creation, Headers};
use headworks_router::table::Subject;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::exit::Failure;
use crate::payload;
use crate::send::input::Pairs;

/// A record as far as a table looks at it; what was not given is empty.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) headers: Headers,
    pub(super) key: String,
    pub(super) data: Vec<u8>,
}

impl Made {
    pub(super) fn subject(&self) -> Subject<'_> {
        Subject { headers: &self.headers, key: &self.key, data: &self.data }
    }
}

/// A creation context of this text; its time is now, at which no table looks.
pub(super) fn traceparent(text: &str) -> Result<Creation, Failure> {
    let (trace_id, span_id, flags) =
        Creation::parse_traceparent(text).map_err(|error| Failure::usage(error.code(), error))?;
    let created_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
    Ok(Creation { trace_id, span_id, flags, created_ms })
}

/// The payload that stands there, or in the file behind an `@`.
pub(super) fn text_or_file(text: &str) -> Result<Vec<u8>, Failure> {
    let Some(file) = text.strip_prefix('@') else { return Ok(text.as_bytes().to_vec()) };
    std::fs::read(file).map_err(|error| {
        Failure::environment(
            "input-unreadable",
            format_args!("the file {file} of --data cannot be read: {error}; check the path behind the @"),
        )
    })
}

/// The record in a line: an object of headers, or a record as `send` takes it.
pub(super) fn parse(line: &[u8]) -> Result<Made, Failure> {
    #[derive(Deserialize)]
    struct Record<'a> {
        #[serde(default)]
        headers: Option<Pairs>,
        #[serde(default)]
        key: String,
        #[serde(borrow, default)]
        data: Option<&'a RawValue>,
        data_base64: Option<String>,
        traceparent: Option<String>,
    }
    let malformed = |error: serde_json::Error| {
        Failure::usage(
            "line-malformed",
            format_args!("{error}; a line is an object of headers such as {{\"type\": \"order.placed\"}}"),
        )
    };
    let mut made = Made::default();
    let pairs = match serde_json::from_slice::<Pairs>(line) {
        Ok(pairs) => pairs,
        Err(error) => {
            let record = serde_json::from_slice::<Record<'_>>(line).ok();
            // An object of other things is no record.
            let record = record.filter(|record| record.headers.is_some() || record.data.is_some());
            let Some(Record { headers, key, data, data_base64, traceparent: context }) = record else {
                return Err(malformed(error));
            };
            made.key = key;
            made.data = match (data, data_base64) {
                (Some(raw), _) => payload::from_json(raw).map_err(malformed)?,
                (None, Some(text)) => payload::from_base64(&text).map_err(|error| {
                    Failure::usage(
                        "base64-invalid",
                        format_args!("data_base64 is not base64 with padding: {error}"),
                    )
                })?,
                (None, None) => Vec::new(),
            };
            if let Some(text) = context {
                made.headers.set_creation(traceparent(&text)?);
            }
            headers.unwrap_or_default()
        }
    };
    for (name, value) in pairs.0 {
        made.headers.set(name, value)?;
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_headers_or_a_record() {
        for line in [r#"{"type":"a"}"#, r#"{"key":"k","headers":{"type":"a"},"data":{}}"#] {
            assert_eq!(parse(line.as_bytes()).unwrap().headers.get("type"), Some("a"), "{line}");
        }
        assert!(parse(b"{}").unwrap().headers.is_empty());
        for (line, code) in [
            ("x", "line-malformed"),
            (r#"{"a":1}"#, "line-malformed"),
            (r#"{"A":""}"#, "header-name-invalid"),
            (r#"{"headers":{},"data_base64":"*"}"#, "base64-invalid"),
            (r#"{"headers":{},"traceparent":"x"}"#, "creation-context-invalid"),
        ] {
            assert_eq!(parse(line.as_bytes()).unwrap_err().code(), code, "{line}");
        }
    }

    #[test]
    fn key_payload_and_creation_count() {
        let context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let line = format!(r#"{{"key":"k","headers":{{}},"data":{{"a": 1}},"traceparent":"{context}"}}"#);
        let made = parse(line.as_bytes()).unwrap();
        assert_eq!((made.key.as_str(), &made.data[..]), ("k", &br#"{"a": 1}"#[..]));
        assert!(made.headers.creation().is_some());
        assert_eq!(parse(br#"{"key":"k","data":{}}"#).unwrap().data, b"{}");
        let text = parse(br#"{"headers":{},"data":"text"}"#).unwrap();
        assert_eq!(text.data, b"text");
    }
}
