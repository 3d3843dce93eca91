//! A record's data in a line of JSON, so that exactly the same bytes can be read back.
//!
//! Data that is compact-enough JSON (an object, an array, a number, `true`, `false` or `null`, on one line,
//! with nothing around it) stands as it is; other UTF-8 text stands as a string; the rest in base64. A
//! string always means its text: data that is itself a JSON string stands as an escaped string.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;

/// What stands under `data`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Data<'a> {
    /// JSON, byte for byte.
    Json(&'a RawValue),
    /// Text.
    Text(&'a str),
}

/// The two fields of which one is there.
pub(crate) fn fields(data: &[u8]) -> (Option<Data<'_>>, Option<String>) {
    match std::str::from_utf8(data) {
        Err(_) => (None, Some(STANDARD.encode(data))),
        Ok(text) => (Some(embedded(text).map_or(Data::Text(text), Data::Json)), None),
    }
}

fn embedded(text: &str) -> Option<&RawValue> {
    let first = *text.as_bytes().first()?;
    if first == b'"' || text.bytes().any(|b| matches!(b, b'\n' | b'\r')) {
        return None;
    }
    let raw: &RawValue = serde_json::from_str(text).ok()?;
    (raw.get().len() == text.len()).then_some(raw)
}

/// The bytes that a value under `data` stands for.
pub(crate) fn from_json(raw: &RawValue) -> Result<Vec<u8>, serde_json::Error> {
    if raw.get().starts_with('"') {
        return serde_json::from_str::<String>(raw.get()).map(String::into_bytes);
    }
    Ok(raw.get().as_bytes().to_vec())
}

/// The bytes that a value under `data_base64` stands for.
pub(crate) fn from_base64(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    STANDARD.decode(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_payload_comes_back_byte_for_byte() {
        let payloads: [&[u8]; 12] = [
            b"",
            b"{\"b\":1, \"a\":1.00}",
            b"[1]",
            b"null",
            b"-1e400",
            b"\"a string\"",
            b"plain",
            b" {}",
            b"{}\n",
            b"{\n}",
            b"\xff\x00",
            "é\u{1}".as_bytes(),
        ];
        for payload in payloads {
            let (data, data_base64) = fields(payload);
            let back = match (data, data_base64) {
                (None, Some(text)) => from_base64(&text).unwrap(),
                (Some(data), None) => {
                    let json = serde_json::to_string(&data).unwrap();
                    assert!(!json.contains('\n'));
                    from_json(serde_json::from_str(&json).unwrap()).unwrap()
                }
                both => panic!("{both:?}"),
            };
            assert_eq!(back, payload);
        }
    }

    #[test]
    fn json_stands_as_it_is() {
        let (data, _) = fields(b"{\"b\":1, \"a\":1.00}");
        assert_eq!(serde_json::to_string(&data).unwrap(), "{\"b\":1, \"a\":1.00}");
    }
}
