//! From a line of input to a record.

use std::fmt;

use headworks_proto::{MAX_ID_BYTES, convert};
use headworks_record::{HashKey, Headers, PartitionKey, Record};
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;

use crate::exit::Failure;
use crate::payload;

/// How many keys records without a key take turns with: enough to spread them over many shards, few enough
/// that an aggregate names each key once for several records.
pub(crate) const ROTATING_KEYS: u64 = 256;

/// A record to send, and its sender's own id if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// The record.
    pub(crate) record: Record,
    /// Makes a retry idempotent.
    pub(crate) id: Option<String>,
}

/// What a line does not say itself.
#[derive(Debug)]
pub(crate) struct Defaults {
    /// `None`: keys rotate.
    pub(crate) key: Option<PartitionKey>,
    /// A line's own headers win.
    pub(crate) headers: Headers,
    rotation: u64,
    prefix: String,
}

impl Defaults {
    pub(crate) fn new(key: Option<PartitionKey>, headers: Headers) -> Self {
        Self { key, headers, rotation: 0, prefix: format!("{:08x}", rand::random::<u32>()) }
    }

    fn key(&mut self) -> Result<PartitionKey, Failure> {
        if let Some(key) = &self.key {
            return Ok(key.clone());
        }
        let number = self.rotation % ROTATING_KEYS;
        self.rotation += 1;
        Ok(PartitionKey::new(format!("{}-{number:02x}", self.prefix))?)
    }

    /// A record of this data alone.
    pub(crate) fn plain(&mut self, data: Vec<u8>) -> Result<Item, Failure> {
        let key = self.key()?;
        let headers = self.headers.clone();
        Ok(Item { record: Record { key, explicit_hash_key: None, headers, data: data.into() }, id: None })
    }

    /// The record that a line of JSON describes.
    pub(crate) fn json(&mut self, line: &[u8]) -> Result<Item, Failure> {
        let line: Line<'_> = serde_json::from_slice(line).map_err(malformed)?;
        let data = match (line.data, line.data_base64) {
            (Some(raw), None) => payload::from_json(raw).map_err(malformed)?,
            (None, Some(text)) => payload::from_base64(&text).map_err(|error| {
                Failure::usage(
                    "base64-invalid",
                    format_args!("data_base64 is not base64 with padding: {error}"),
                )
            })?,
            (Some(_), Some(_)) => {
                return Err(Failure::usage(
                    "line-ambiguous",
                    "the record has both data and data_base64; give one of them",
                ));
            }
            (None, None) => {
                return Err(Failure::usage(
                    "line-without-data",
                    "the record has neither data nor data_base64; write \"data\": \"\" for a record without data",
                ));
            }
        };
        let key = match line.key {
            Some(key) => PartitionKey::new(key)?,
            None => self.key()?,
        };
        let mut headers = self.headers.clone();
        for (name, value) in line.headers.0 {
            headers.set(name, value)?;
        }
        let explicit_hash_key = line.explicit_hash_key.map(|text| text.parse::<HashKey>()).transpose()?;
        let id = line.id.filter(|id| !id.is_empty());
        if let Some(id) = id.as_ref().filter(|id| id.len() > MAX_ID_BYTES) {
            let error = convert::Error::IdTooLong { bytes: id.len() };
            return Err(Failure::usage(error.code(), error));
        }
        Ok(Item { record: Record { key, explicit_hash_key, headers, data: data.into() }, id })
    }
}

fn malformed(error: serde_json::Error) -> Failure {
    // A line is parsed alone, so its own place is always line 1: only the column says something.
    let shown = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let reason = shown.strip_suffix(&place).unwrap_or(&shown);
    Failure::usage(
        "line-malformed",
        format_args!(
            "column {}: {reason}; a line is a JSON object such as {{\"key\": \"k\", \"headers\": {{\"type\": \"t\"}}, \"data\": {{}}}}",
            error.column()
        ),
    )
}

/// A line of JSON. What `tail --format json` prints is taken as well: what it says beyond the record
/// (where and when the record was found) is known by name and left aside.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    key: Option<String>,
    #[serde(default)]
    headers: Pairs,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
    explicit_hash_key: Option<String>,
    id: Option<String>,
    #[serde(default, rename = "stream")]
    _stream: de::IgnoredAny,
    #[serde(default, rename = "shard")]
    _shard: de::IgnoredAny,
    #[serde(default, rename = "sequence_number")]
    _sequence_number: de::IgnoredAny,
    #[serde(default, rename = "sub_sequence_number")]
    _sub_sequence_number: de::IgnoredAny,
    #[serde(default, rename = "traceparent")]
    _traceparent: de::IgnoredAny,
    #[serde(default, rename = "created")]
    _created: de::IgnoredAny,
    #[serde(default, rename = "arrived")]
    _arrived: de::IgnoredAny,
    #[serde(default, rename = "age_ms")]
    _age_ms: de::IgnoredAny,
}

/// `null` is data too; an `Option` alone would take it for absence.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Names and values in order; JSON parsers silently keep the last of two equal names, this refuses them.
#[derive(Debug, Default)]
pub(crate) struct Pairs(pub(crate) Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of header names and their values, which are strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs: Vec<(String, String)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    if pairs.iter().any(|(n, _)| *n == name) {
                        return Err(A::Error::custom(format_args!("the header {name:?} stands here twice")));
                    }
                    pairs.push((name, value));
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Defaults {
        let mut headers = Headers::new();
        headers.set("tenant", "shop").unwrap();
        headers.set("type", "default").unwrap();
        Defaults::new(Some(PartitionKey::new("k").unwrap()), headers)
    }

    fn refused(line: &str) -> Failure {
        defaults().json(line.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_full_line() {
        let line = r#"{"key":"s-1","headers":{"type":"order"},"data":{"b":1.0, "a":2},"explicit_hash_key":"7","id":"o-1"}"#;
        let item = defaults().json(line.as_bytes()).unwrap();
        assert_eq!(item.record.key.as_str(), "s-1");
        assert_eq!(item.record.headers.iter().collect::<Vec<_>>(), [("tenant", "shop"), ("type", "order")]);
        assert_eq!(&item.record.data[..], br#"{"b":1.0, "a":2}"#);
        assert_eq!(item.record.explicit_hash_key, Some(HashKey(7)));
        assert_eq!(item.id.as_deref(), Some("o-1"));
    }

    #[test]
    fn data_is_text_json_or_base64() {
        for (field, bytes) in [
            (r#""data":"a\nb""#, &b"a\nb"[..]),
            (r#""data":null"#, b"null"),
            (r#""data":[1, 2]"#, b"[1, 2]"),
            (r#""data_base64":"/wA=""#, b"\xff\x00"),
            (r#""data":"""#, b""),
        ] {
            let item = defaults().json(format!("{{{field}}}").as_bytes()).unwrap();
            assert_eq!((&item.record.data[..], item.record.key.as_str()), (bytes, "k"), "{field}");
        }
    }

    #[test]
    fn every_mistake_has_a_code_and_a_remedy() {
        for (line, code, hint) in [
            ("{\"key\":\"a\"", "line-malformed", "column 10"),
            ("[]", "line-malformed", "JSON object"),
            (r#"{"kee":"a","data":1}"#, "line-malformed", "unknown field `kee`"),
            (r#"{"data":1,"headers":{"a":1}}"#, "line-malformed", "a string"),
            (r#"{"data":1,"headers":{"a":"1","a":"2"}}"#, "line-malformed", "twice"),
            (r#"{"key":"a"}"#, "line-without-data", "\"data\": \"\""),
            (r#"{"data":1,"data_base64":""}"#, "line-ambiguous", "one of them"),
            (r#"{"data_base64":"*"}"#, "base64-invalid", "base64"),
            (r#"{"key":"","data":1}"#, "key-empty", "1 to 256"),
            (r#"{"data":1,"headers":{"hw-t":"x"}}"#, "header-name-reserved", "hw-"),
            (r#"{"data":1,"explicit_hash_key":"-1"}"#, "hash-key-invalid", "decimal"),
        ] {
            let failure = refused(line);
            assert_eq!(failure.code(), code, "{line}: {failure}");
            assert!(failure.to_string().contains(hint), "{line}: {failure}");
        }
        let long = format!("{{\"id\":\"{}\",\"data\":1}}", "x".repeat(257));
        assert_eq!(refused(&long).code(), "id-too-long");
        let long = format!("{{\"key\":\"{}\",\"data\":1}}", "x".repeat(257));
        assert!(refused(&long).to_string().contains("257 characters, the limit is 256"));
    }

    #[test]
    fn what_tail_prints_is_taken() {
        let line = r#"{"stream":"s","shard":"shardId-000000000000","sequence_number":"1","sub_sequence_number":0,
            "key":"a","headers":{},"traceparent":"00-..","created":"x","arrived":"y","age_ms":3,"data":1}"#;
        assert_eq!(defaults().json(line.as_bytes()).unwrap().record.key.as_str(), "a");
    }

    #[test]
    fn keys_rotate_where_none_is_given() {
        let mut defaults = Defaults::new(None, Headers::new());
        let keys: Vec<String> = (0..=ROTATING_KEYS)
            .map(|_| defaults.plain(vec![]).unwrap().record.key.as_str().to_owned())
            .collect();
        assert_eq!(keys[0], keys[ROTATING_KEYS as usize]);
        let mut distinct = keys.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len() as u64, ROTATING_KEYS);
    }
}
