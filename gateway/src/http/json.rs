//! Records in JSON: a batch in one object, or a record per line.

use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use headworks_proto::{MAX_BATCH_RECORDS, v1};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;

use super::error::Error;
use crate::call;

/// The most characters of what a parser says: it may quote the input.
const MOST_SHOWN: usize = 200;

pub(super) fn shown(reason: &str) -> String {
    reason.chars().take(MOST_SHOWN).collect()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordBody<'a> {
    key: Option<String>,
    headers: Option<HeaderList>,
    #[serde(borrow, default, deserialize_with = "as_it_stands")]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
    explicit_hash_key: Option<String>,
    id: Option<String>,
    traceparent: Option<String>,
}

/// `null` is data as well.
fn as_it_stands<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl RecordBody<'_> {
    /// The record; its data is a part of `body`, which it was read from. What is wrong with its values is
    /// said where records of every door are checked.
    fn into_wire(self, body: &Bytes) -> Result<v1::Record, String> {
        let data = match (self.data, self.data_base64) {
            (Some(_), Some(_)) => {
                return Err("it has both data and data_base64; leave one of them out".to_owned());
            }
            (Some(json), None) => body.slice_ref(json.get().as_bytes()),
            (None, Some(text)) => base64(&text)?,
            (None, None) => Bytes::new(),
        };
        Ok(v1::Record {
            key: self.key.unwrap_or_default(),
            explicit_hash_key: self.explicit_hash_key.unwrap_or_default(),
            headers: self.headers.map(|list| list.0).unwrap_or_default(),
            data,
            id: self.id.unwrap_or_default(),
            traceparent: self.traceparent.unwrap_or_default(),
            ..v1::Record::default()
        })
    }
}

pub(super) fn base64(text: &str) -> Result<Bytes, String> {
    let wrong = |error| format!("its data_base64 is not padded base64 of the standard alphabet ({error})");
    STANDARD.decode(text).map(Bytes::from).map_err(wrong)
}

/// Headers as they stand, so that one that stands twice is seen.
#[derive(Debug)]
struct HeaderList(Vec<v1::Header>);

impl<'de> Deserialize<'de> for HeaderList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = HeaderList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of header names and text values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HeaderList, A::Error> {
                let mut headers = Vec::new();
                while let Some((name, value)) = map.next_entry()? {
                    headers.push(v1::Header { name, value });
                }
                Ok(HeaderList(headers))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// What stands as an object. Derived code would take an array of the fields' values as well.
#[derive(Debug)]
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// A list of which no more is kept than a batch may have. A few bytes of text can become many of memory.
#[derive(Debug)]
pub(super) struct Bounded<T> {
    pub(super) kept: Vec<T>,
    count: usize,
}

impl<T> Bounded<T> {
    pub(super) fn whole(self) -> Result<Vec<T>, call::Error> {
        if self.count > MAX_BATCH_RECORDS {
            return Err(call::Error::TooManyRecords { records: self.count });
        }
        Ok(self.kept)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = Bounded<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Bounded<T>, A::Error> {
                let mut kept = Vec::new();
                while kept.len() < MAX_BATCH_RECORDS {
                    match seq.next_element()? {
                        Some(item) => kept.push(item),
                        None => return Ok(Bounded { count: kept.len(), kept }),
                    }
                }
                let mut count = kept.len();
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Bounded { kept, count })
            }
        }
        deserializer.deserialize_seq(Items(PhantomData))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchBody<'a> {
    stream: Option<String>,
    timeout_ms: Option<u64>,
    #[serde(borrow)]
    records: Bounded<Object<RecordBody<'a>>>,
}

type Batch = (Option<String>, Option<u64>, Vec<v1::Record>);

/// A batch: stream, time and records.
pub(super) fn batch(body: &Bytes) -> Result<Batch, Error> {
    let malformed = |part: String, reason: String| Error::Malformed { part, reason };
    let Object(batch): Object<BatchBody<'_>> =
        parse(body).map_err(|error| malformed("the body".into(), shown(&error.to_string())))?;
    let records = batch.records.whole()?.into_iter().enumerate();
    let records = records.map(|(index, Object(record))| {
        record.into_wire(body).map_err(|reason| malformed(format!("records[{index}]"), reason))
    });
    Ok((batch.stream, batch.timeout_ms, records.collect::<Result<_, _>>()?))
}

/// A record per line. Nothing is taken if a line is wrong.
pub(super) fn lines(body: &Bytes) -> Result<Vec<v1::Record>, Error> {
    let numbered = || {
        let lines = body.split(|byte| *byte == b'\n').enumerate();
        lines.filter(|(_, line)| !line.trim_ascii().is_empty())
    };
    let count = numbered().count();
    if count > MAX_BATCH_RECORDS {
        return Err(call::Error::TooManyRecords { records: count }.into());
    }
    let mut records = Vec::with_capacity(count);
    for (index, line) in numbered() {
        let malformed = |column: Option<usize>, reason: String| {
            let column = column.map(|column| format!(", column {column}")).unwrap_or_default();
            Error::Malformed { part: format!("line {}{column}", index + 1), reason }
        };
        let Object(record): Object<RecordBody<'_>> = parse(line).map_err(|error| {
            let text = error.to_string();
            // The parser counts lines from the start of this one.
            let reason = text.rsplit_once(" at line ").map_or(&text[..], |(reason, _)| reason);
            malformed(Some(error.column()), shown(reason))
        })?;
        records.push(record.into_wire(body).map_err(|reason| malformed(None, reason))?);
    }
    Ok(records)
}

pub(super) fn parse<'de, T: de::Deserialize<'de>>(text: &'de [u8]) -> serde_json::Result<T> {
    serde_json::from_slice(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<v1::Record, String> {
        let body = Bytes::from(text.to_owned());
        lines(&body).map(|mut records| records.remove(0)).map_err(|error| error.to_string())
    }

    #[test]
    fn data_is_kept_as_it_stands() {
        for text in [
            r#"{ "b": 1.0, "a":12345678901234567890123, "b": 2 }"#,
            r#""text \u00e9""#,
            "null",
            "-0.0e+10",
            "[ ]",
        ] {
            let record = line(&format!(r#"{{"key":"k","data": {text} }}"#)).unwrap();
            assert_eq!(record.data, text.as_bytes());
        }
        // However deep.
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(line(&format!(r#"{{"data":{deep}}}"#)).unwrap().data, deep.as_bytes());
        assert_eq!(line(r#"{"key":"k"}"#).unwrap().data, "");
        assert_eq!(line(r#"{"key":"k","data_base64":"/wA="}"#).unwrap().data, vec![0xff, 0]);
    }

    #[test]
    fn every_field_is_carried() {
        let record = line(
            r#"{"key":"k","headers":{"b":"1","a":"2","b":"3"},"explicit_hash_key":"7","id":"i","traceparent":"t"}"#,
        )
        .unwrap();
        let headers: Vec<_> = record.headers.iter().map(|h| (&h.name[..], &h.value[..])).collect();
        assert_eq!(headers, [("b", "1"), ("a", "2"), ("b", "3")]);
        assert_eq!((&record.explicit_hash_key[..], &record.id[..], &record.traceparent[..]), ("7", "i", "t"));
        let none =
            line(r#"{"key":null,"headers":null,"explicit_hash_key":null,"id":null,"traceparent":null}"#);
        assert_eq!(none.unwrap(), v1::Record::default());
    }

    #[test]
    fn what_is_wrong_with_a_line_is_told_with_its_number() {
        let good = r#"{"key":"k"}"#;
        for (wrong, named) in [
            ("{", "EOF"),
            ("[]", "object"),
            (r#"{"kye":"k"}"#, "kye"),
            (r#"{"key":7}"#, "integer"),
            (r#"{"key":"k","headers":{"a":1}}"#, "integer"),
            (r#"{"key":"k","data":1,"data_base64":""}"#, "both"),
            (r#"{"key":"k","data_base64":"*"}"#, "base64"),
            (r#"{"key":"k"} {}"#, "trailing"),
        ] {
            let error = line(&format!("{good}\r\n\n  \n{wrong}\n{good}")).unwrap_err();
            assert!(error.starts_with("line 4") && !error.contains("line 1"), "{error}");
            assert!(error.to_lowercase().contains(&named.to_lowercase()), "{named}: {error}");
        }
        let invalid = Bytes::from_static(b"{\"key\":\"\xff\"}");
        assert!(lines(&invalid).unwrap_err().to_string().starts_with("line 1, column"));
        let long = format!(r#"{{"key":{{"{}":1}}}}"#, "x".repeat(10_000));
        assert!(line(&long).unwrap_err().len() < 300);
    }

    #[test]
    fn a_batch_says_where_it_is_wrong() {
        let of = |text: &str| batch(&Bytes::from(text.to_owned())).map_err(|error| error.to_string());
        let (stream, timeout, records) =
            of(r#"{"records":[{"key":"k","data":1}],"timeout_ms":5,"stream":"s"}"#).unwrap();
        assert_eq!((stream.as_deref(), timeout, records.len()), (Some("s"), Some(5), 1));
        assert!(of(r#"{"records":[["k"]]}"#).unwrap_err().contains("object"));
        assert!(of("[null,null,[]]").unwrap_err().contains("object"));
        assert!(of("{}").unwrap_err().contains("records"));
        assert!(of("{\"records\":[\n{\"key\":1}]}").unwrap_err().contains("line 2"));
        assert!(of(r#"{"records":[{},{"data_base64":"="}]}"#).unwrap_err().starts_with("records[1]"));
        assert!(of(r#"{"records":[],"recods":1}"#).unwrap_err().contains("recods"));
    }

    #[test]
    fn too_many_are_counted_and_not_kept() {
        let of = |n: usize| Bytes::from(format!(r#"{{"records":[{}]}}"#, vec!["{}"; n].join(",")));
        assert_eq!(batch(&of(MAX_BATCH_RECORDS)).unwrap().2.len(), MAX_BATCH_RECORDS);
        let many = batch(&of(MAX_BATCH_RECORDS + 2)).unwrap_err();
        assert_eq!(many, call::Error::TooManyRecords { records: MAX_BATCH_RECORDS + 2 }.into());
        let of = |n: usize| Bytes::from("{}\n".repeat(n));
        assert_eq!(lines(&of(MAX_BATCH_RECORDS)).unwrap().len(), MAX_BATCH_RECORDS);
        let many = lines(&of(MAX_BATCH_RECORDS + 1)).unwrap_err();
        assert_eq!(many, call::Error::TooManyRecords { records: MAX_BATCH_RECORDS + 1 }.into());
    }
}
