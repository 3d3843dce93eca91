//! CloudEvents 1.0 over HTTP: binary, structured and batched mode, to records.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use axum::http::{HeaderMap, HeaderName, header};
use bytes::Bytes;
use headworks_proto::v1;
use headworks_record::key::MAX_KEY_CHARS;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::error::Error;
use super::json::{self, Bounded};

/// What the names of attributes begin with, among HTTP's headers and among a record's.
const PREFIX: &str = "ce-";
/// The one version that is spoken.
const VERSION: &str = "1.0";
/// The attributes that every event has.
const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];

/// Whether these are the headers of an event in binary mode, or of an attempt at one.
pub(super) fn is_binary(headers: &HeaderMap) -> bool {
    REQUIRED.iter().any(|name| headers.contains_key(format!("{PREFIX}{name}")))
}

/// Attributes by name, in the order in which they stand.
#[derive(Debug, Default)]
struct Attributes(Vec<(String, String)>);

impl Attributes {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| &value[..])
    }

    fn add(&mut self, name: String, value: String) -> Result<(), String> {
        let named = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        if name.is_empty() || !name.bytes().all(named) {
            let name = json::shown(&name);
            return Err(format!("the attribute name {name:?} is not of a-z and 0-9; rename it"));
        }
        if self.get(&name).is_some() {
            return Err(format!("the attribute {name:?} is set twice; remove one"));
        }
        self.0.push((name, value));
        Ok(())
    }

    /// The record. Whether its key, headers and data are within their limits is said where records of
    /// every door are checked.
    fn into_record(self, data: Bytes) -> Result<v1::Record, String> {
        for name in REQUIRED {
            if self.get(name).is_none_or(str::is_empty) {
                return Err(format!("the attribute {name:?} is missing or empty; set it"));
            }
        }
        let text = |name| self.get(name).unwrap_or_default();
        let version = text("specversion");
        if version != VERSION {
            let version = json::shown(version);
            return Err(format!("its specversion is {version:?}; send {VERSION:?}"));
        }
        let (source, id) = (text("source"), text("id"));
        let key = ["partitionkey", "subject"].into_iter().find_map(|name| self.get(name));
        let key = key.filter(|key| !key.is_empty()).map_or_else(|| derived_key(source, id), str::to_owned);
        let (id, traceparent) = (derived_id(source, id), text("traceparent").to_owned());
        let header = |(name, value): (String, String)| match &name[..] {
            "datacontenttype" => v1::Header { name: "content-type".to_owned(), value },
            _ => v1::Header { name: format!("{PREFIX}{name}"), value },
        };
        let headers = self.0.into_iter().map(header).collect();
        Ok(v1::Record { key, headers, data, id, traceparent, ..v1::Record::default() })
    }
}

/// The key of an event that names none: it spreads events, and is the same when one is sent again.
fn derived_key(source: &str, id: &str) -> String {
    let whole = format!("{source} {id}");
    // The id, which tells events apart, stands last.
    let from = whole.char_indices().rev().nth(MAX_KEY_CHARS - 1).map_or(0, |(at, _)| at);
    whole[from..].to_owned()
}

/// Source and id as one id, of a bounded size: by the specification the pair is unique.
fn derived_id(source: &str, id: &str) -> String {
    let mut hash = Sha256::new();
    // The length keeps pairs apart that would read the same when joined.
    hash.update((source.len() as u64).to_be_bytes());
    hash.update(source);
    hash.update(id);
    let mut text = PREFIX.to_owned();
    for byte in hash.finalize() {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// An event in binary mode: attributes in headers, data in the body.
pub(super) fn binary(headers: &HeaderMap, body: &Bytes) -> Result<v1::Record, Error> {
    let invalid = |reason| Error::Event { event: "the request".to_owned(), reason };
    let mut attributes = Attributes::default();
    for (name, value) in headers {
        if let Some(attribute) = attribute_name(name).map_err(invalid)? {
            let value = decode(value.as_bytes()).ok_or_else(|| {
                invalid(format!("the value of {name} is not percent-encoded UTF-8; encode it"))
            })?;
            attributes.add(attribute.to_owned(), value).map_err(invalid)?;
        }
    }
    attributes.into_record(body.clone()).map_err(invalid)
}

fn attribute_name(header: &HeaderName) -> Result<Option<&str>, String> {
    match header.as_str() {
        "ce-datacontenttype" => {
            Err("ce-datacontenttype has no place in binary mode; Content-Type says it".to_owned())
        }
        _ if header == header::CONTENT_TYPE => Ok(Some("datacontenttype")),
        name => Ok(name.strip_prefix(PREFIX)),
    }
}

/// The value of a header, as the HTTP binding encodes it: perhaps in quotes, with `%` before bytes in
/// hexadecimal.
fn decode(value: &[u8]) -> Option<String> {
    let unquoted = match value {
        [b'"', inner @ .., b'"'] => {
            let mut bytes = Vec::with_capacity(inner.len());
            let mut rest = inner.iter();
            while let Some(byte) = rest.next() {
                bytes.push(if *byte == b'\\' { *rest.next()? } else { *byte });
            }
            Cow::Owned(bytes)
        }
        value => Cow::Borrowed(value),
    };
    let mut bytes = Vec::with_capacity(unquoted.len());
    let mut rest = &unquoted[..];
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let hex = |digit: u8| char::from(digit).to_digit(16);
        let [high, low, after @ ..] = rest else { return None };
        bytes.push(u8::try_from(hex(*high)? * 16 + hex(*low)?).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// The members of a JSON object as they stand, so that none is passed over.
#[derive(Debug)]
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an event as an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

impl Members<'_> {
    fn into_record(self, body: &Bytes) -> Result<v1::Record, String> {
        let mut attributes = Attributes::default();
        let (mut json, mut base64) = (None, None);
        for (name, value) in self.0 {
            let twice = match &name[..] {
                "data" => json.replace(value).is_some(),
                "data_base64" => base64.replace(value).is_some(),
                _ => {
                    if let Some(value) = attribute(&name, value)? {
                        attributes.add(name, value)?;
                    }
                    continue;
                }
            };
            if twice {
                return Err(format!("{name} stands twice; remove one"));
            }
        }
        // A null is data in JSON, and no bytes.
        let base64 = base64.filter(|value| value.get() != "null");
        let data = match (json, base64) {
            (Some(_), Some(_)) => {
                return Err("it has both data and data_base64; leave one of them out".to_owned());
            }
            (None, None) => Bytes::new(),
            (None, Some(value)) => match json::parse::<Cow<'_, str>>(value.get().as_bytes()) {
                Ok(text) => json::base64(&text)?,
                Err(_) => return Err("its data_base64 is no text; write the bytes in base64".to_owned()),
            },
            (Some(value), None) => {
                let content_type = attributes.get("datacontenttype").map(str::to_owned);
                if content_type.is_none() {
                    attributes.add("datacontenttype".to_owned(), "application/json".to_owned())?;
                }
                // Of another type than JSON, a text is the data itself.
                match json::parse::<String>(value.get().as_bytes()) {
                    Ok(text) if content_type.as_deref().is_some_and(|given| !is_json(given)) => text.into(),
                    _ => body.slice_ref(value.get().as_bytes()),
                }
            }
        };
        attributes.into_record(data)
    }
}

/// An attribute's value as text; `None` for one that is unset.
fn attribute(name: &str, value: &RawValue) -> Result<Option<String>, String> {
    match json::parse(value.get().as_bytes()) {
        Ok(Value::String(text)) => Ok(Some(text)),
        Ok(Value::Bool(flag)) => Ok(Some(flag.to_string())),
        Ok(Value::Number(number)) if number.is_i64() => Ok(Some(number.to_string())),
        Ok(Value::Null) => Ok(None),
        _ => {
            let name = json::shown(name);
            Err(format!(
                "the attribute {name:?} is neither text nor a truth value nor an integer; make it a text"
            ))
        }
    }
}

/// Whether a media type says JSON.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}

/// An event in structured mode.
pub(super) fn structured(body: &Bytes) -> Result<v1::Record, Error> {
    let members: Members<'_> = json::parse(body).map_err(malformed)?;
    let invalid = |reason| Error::Event { event: "the body".to_owned(), reason };
    members.into_record(body).map_err(invalid)
}

/// Events in batched mode. Nothing is taken if one is wrong.
pub(super) fn batched(body: &Bytes) -> Result<Vec<v1::Record>, Error> {
    let events: Bounded<Members<'_>> = json::parse(body).map_err(malformed)?;
    let events = events.whole()?.into_iter().enumerate();
    let event = |(index, members): (usize, Members<'_>)| {
        let invalid = |reason| Error::Event { event: format!("event {index} (from 0)"), reason };
        members.into_record(body).map_err(invalid)
    };
    events.map(event).collect()
}

fn malformed(error: serde_json::Error) -> Error {
    Error::Malformed { part: "the body".to_owned(), reason: json::shown(&error.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#""specversion":"1.0","id":"1","source":"/s","type":"t""#;

    fn of(rest: &str) -> Result<v1::Record, String> {
        structured(&Bytes::from(format!("{{{EVENT}{rest}}}"))).map_err(|error| error.to_string())
    }

    fn header<'a>(record: &'a v1::Record, name: &str) -> Option<&'a str> {
        record.headers.iter().find(|header| header.name == name).map(|header| &header.value[..])
    }

    #[test]
    fn attributes_become_headers() {
        let record = of(r#","subject":"é","n":-3,"flag":true,"unset":null,"data":{"a": 1.0}"#).unwrap();
        let headers: Vec<_> = record.headers.iter().map(|h| (&h.name[..], &h.value[..])).collect();
        let expected = [
            ("ce-specversion", "1.0"),
            ("ce-id", "1"),
            ("ce-source", "/s"),
            ("ce-type", "t"),
            ("ce-subject", "é"),
            ("ce-n", "-3"),
            ("ce-flag", "true"),
            ("content-type", "application/json"),
        ];
        assert_eq!(headers, expected);
        assert_eq!((&record.key[..], &record.data[..]), ("é", &br#"{"a": 1.0}"#[..]));
    }

    #[test]
    fn the_key_is_what_comes_first() {
        assert_eq!(of("").unwrap().key, "/s 1");
        assert_eq!(of(r#","subject":"s","partitionkey":"p""#).unwrap().key, "p");
        assert_eq!(of(r#","subject":"""#).unwrap().key, "/s 1");
        let long = derived_key(&"ü".repeat(300), "id");
        assert!(long.chars().count() == MAX_KEY_CHARS && long.ends_with("ü id"), "{long}");
        assert_eq!(derived_key(&"s".repeat(253), "id"), format!("{} id", "s".repeat(253)));
    }

    #[test]
    fn the_id_is_of_source_and_id() {
        let id = |source: &str, id: &str| derived_id(source, id);
        assert_eq!(id("a", "b"), id("a", "b"));
        assert_ne!(id("a", "bc"), id("ab", "c"));
        assert!(id(&"s".repeat(2000), "i").len() <= headworks_proto::MAX_ID_BYTES);
        assert_eq!(of("").unwrap().id, id("/s", "1"));
    }

    #[test]
    fn data_by_its_type() {
        let data = |rest: &str| of(rest).unwrap().data;
        assert_eq!(data(r#","data":"x""#), "\"x\"");
        assert_eq!(data(r#","data":null"#), "null");
        assert_eq!(data(r#","data":"x","datacontenttype":"application/ld+json; a=b""#), "\"x\"");
        assert_eq!(data(r#","data":"x\n","datacontenttype":"text/plain""#), "x\n");
        assert_eq!(data(r#","data":[1],"datacontenttype":"text/plain""#), "[1]");
        assert_eq!(data(r#","data_base64":"/wA=""#), vec![0xff, 0]);
        assert_eq!(data(r#","data_base64":null"#), "");
        assert_eq!(data(""), "");
        assert_eq!(header(&of(r#","data_base64":"""#).unwrap(), "content-type"), None);
    }

    #[test]
    fn what_is_no_event_is_said() {
        for (rest, named) in [
            (r#","id":"2""#, "\"id\" is set twice"),
            (r#","some_thing":"2""#, "\"some_thing\""),
            (r#","thing":{}"#, "\"thing\""),
            (r#","thing":1.5"#, "\"thing\""),
            (r#","data":1,"data_base64":"""#, "both"),
            (r#","data":1,"data":2"#, "data stands twice"),
            (r#","data_base64":7"#, "base64"),
            (r#","data_base64":"?""#, "base64"),
        ] {
            let error = of(rest).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
        for (name, value) in [("id", "1"), ("source", "/s"), ("type", "t"), ("specversion", "1.0")] {
            let pair = format!("\"{name}\":\"{value}\"");
            for other in [format!("\"{name}\":\"\""), format!("\"{name}\":null")] {
                let body = Bytes::from(format!("{{{}}}", EVENT.replace(&pair, &other)));
                let error = structured(&body).unwrap_err();
                assert_eq!(error.code(), "cloudevent-invalid");
                assert!(error.to_string().contains(&format!("{name:?} is missing")), "{error}");
            }
        }
        let old = Bytes::from(format!("{{{}}}", EVENT.replace("1.0", "0.3")));
        assert!(structured(&old).unwrap_err().to_string().contains("0.3"));
        assert_eq!(structured(&Bytes::from_static(b"[]")).unwrap_err().code(), "request-malformed");
        let most = headworks_proto::MAX_BATCH_RECORDS;
        let many = |n: usize| Bytes::from(format!("[{}]", vec![format!("{{{EVENT}}}"); n].join(",")));
        assert_eq!(batched(&many(most)).unwrap().len(), most);
        assert_eq!(batched(&many(most + 1)).unwrap_err().code(), "batch-too-many-records");
        let batch = Bytes::from(format!("[{{{EVENT}}},{{}}]"));
        assert!(batched(&batch).unwrap_err().to_string().starts_with("event 1 "));
    }

    #[test]
    fn headers_of_binary_mode() {
        assert_eq!(decode(b"plain %41%c3%A9").unwrap(), "plain A\u{e9}");
        assert_eq!(decode(br#""a \"b\\ %20""#).unwrap(), "a \"b\\  ");
        for wrong in [&b"%"[..], b"%4", b"%zz", b"%ff", b"\xff", br#""\""#] {
            assert_eq!(decode(wrong), None, "{wrong:?}");
        }
        let headers = |more: &[(&'static str, &'static str)]| {
            let all = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];
            let all = all.iter().chain(more).map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()));
            let mut map = HeaderMap::new();
            for (name, value) in all {
                map.append::<HeaderName>(name, value);
            }
            map
        };
        let body = Bytes::from_static(b"<x/>");
        let more = [("content-type", "text/xml"), ("ce-subject", "%C3%A9"), ("accept", "*/*")];
        let record = binary(&headers(&more), &body).unwrap();
        assert_eq!((&record.key[..], &record.data[..]), ("é", &b"<x/>"[..]));
        assert_eq!((header(&record, "content-type"), record.headers.len()), (Some("text/xml"), 6));
        for (wrong, named) in [
            (("ce-id", "2"), "twice"),
            (("ce-subject", "%"), "ce-subject"),
            (("ce-a-b", "x"), "\"a-b\""),
            (("ce-datacontenttype", "x"), "Content-Type"),
        ] {
            let error = binary(&headers(&[wrong]), &body).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
