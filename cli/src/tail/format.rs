//! How a record is shown.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;

use jiff::Timestamp;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::decode::Found;
use crate::output::{Error, Output};
use crate::payload;

/// How a record is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// A line for a reader: place, age, key, headers, traceparent, data.
    #[default]
    Text,
    /// A line of JSON that `send` takes again.
    Json,
    /// The data alone, exactly, with nothing between records.
    Raw,
    /// The data alone, each followed by a newline.
    Payload,
}

/// Writes one record.
pub(crate) fn write<W: Write>(
    output: &mut Output<W>,
    format: Format,
    stream: &str,
    found: &Found,
    now: Timestamp,
) -> Result<(), Error> {
    match format {
        Format::Text => output.line(text(found, now)),
        Format::Json => output.json(&json(stream, found, now)),
        Format::Raw => output.bytes(&found.record.data),
        Format::Payload => {
            output.bytes(&found.record.data)?;
            output.bytes(b"\n")
        }
    }
}

/// Milliseconds since the record's creation; since its arrival where no creation is known.
fn age_ms(found: &Found, now: Timestamp) -> i64 {
    let since = created_ms(found).unwrap_or(found.arrival_ms);
    (now.as_millisecond() - since).max(0)
}

fn created_ms(found: &Found) -> Option<i64> {
    found.record.headers.creation().and_then(|creation| i64::try_from(creation.created_ms).ok())
}

fn text(found: &Found, now: Timestamp) -> String {
    let mut line = format!("{} {}:{}", found.shard, found.sequence_number, found.sub_sequence_number);
    // Writing to a string cannot fail.
    let _ = write!(line, " age={} key={}", shown_age(age_ms(found, now)), shown(found.record.key.as_str()));
    for (name, value) in found.record.headers.iter() {
        let _ = write!(line, " {name}={}", shown(value));
    }
    if let Some(traceparent) = found.record.traceparent() {
        let _ = write!(line, " traceparent={traceparent}");
    }
    line.push_str("  ");
    match std::str::from_utf8(&found.record.data) {
        Ok(data) => escape(data, &mut line),
        Err(_) => {
            let (_, base64) = payload::fields(&found.record.data);
            let _ = write!(line, "base64:{}", base64.unwrap_or_default());
        }
    }
    line
}

fn shown_age(ms: i64) -> String {
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..60_000 => format!("{:.1}s", ms as f64 / 1e3),
        60_000..3_600_000 => format!("{:.1}m", ms as f64 / 6e4),
        _ => format!("{:.1}h", ms as f64 / 3.6e6),
    }
}

/// Keys and header values stand as they are where they are one plain word, else quoted.
fn shown(text: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '"';
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { format!("{text:?}") }
}

/// What comes from a stream must not move the cursor, nor span lines.
pub(crate) fn escape(text: &str, line: &mut String) {
    for c in text.chars() {
        if c.is_control() && c != '\t' {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
}

#[derive(Debug, serde::Serialize)]
struct Json<'a> {
    stream: &'a str,
    shard: &'a str,
    sequence_number: &'a str,
    sub_sequence_number: usize,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    explicit_hash_key: Option<String>,
    headers: Headers<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    arrived: Option<String>,
    age_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<payload::Data<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

/// Headers as an object.
#[derive(Debug)]
pub(crate) struct Headers<'a>(pub(crate) &'a headworks_record::Headers);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A foreign writer may repeat a name; of such headers the first counts, as for the router.
        let mut seen = BTreeMap::new();
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.0.iter() {
            if seen.insert(name, ()).is_none() {
                map.serialize_entry(name, value)?;
            }
        }
        map.end()
    }
}

fn json<'a>(stream: &'a str, found: &'a Found, now: Timestamp) -> Json<'a> {
    let (data, data_base64) = payload::fields(&found.record.data);
    let time = |ms: i64| Timestamp::from_millisecond(ms).ok().map(|at| format!("{at:.3}"));
    Json {
        stream,
        shard: found.shard.as_str(),
        sequence_number: &found.sequence_number,
        sub_sequence_number: found.sub_sequence_number,
        key: found.record.key.as_str(),
        explicit_hash_key: found.record.explicit_hash_key.map(|key| key.to_string()),
        headers: Headers(&found.record.headers),
        traceparent: found.record.traceparent(),
        created: created_ms(found).and_then(time),
        arrived: time(found.arrival_ms),
        age_ms: age_ms(found, now),
        data,
        data_base64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headworks_record::{Creation, Record, ShardId};

    fn found(data: &'static [u8]) -> Found {
        let record = Record::builder("k 1")
            .unwrap()
            .header("type", "order.placed")
            .unwrap()
            .creation(Creation::mint(1_790_000_000_000, [5; 18]))
            .data(data)
            .build();
        let shard = ShardId::from("shardId-000000000001");
        Found {
            record,
            shard,
            sequence_number: "49".into(),
            sub_sequence_number: 2,
            arrival_ms: 1_790_000_000_040,
        }
    }

    fn show(format: Format, data: &'static [u8]) -> String {
        let now = Timestamp::from_millisecond(1_790_000_001_500).unwrap();
        let mut buffer = Vec::new();
        let mut output = Output::new(&mut buffer);
        write(&mut output, format, "orders", &found(data), now).unwrap();
        output.flush().unwrap();
        drop(output);
        String::from_utf8(buffer).unwrap()
    }

    #[test]
    fn text_is_one_line_and_harmless() {
        let line = show(Format::Text, b"a\n\x1b[2Jb");
        assert!(
            line.starts_with(
                "shardId-000000000001 49:2 age=1.5s key=\"k 1\" type=order.placed traceparent=00-"
            ),
            "{line}"
        );
        assert!(line.ends_with("  a\\n\\u{1b}[2Jb\n"), "{line}");
        assert!(show(Format::Text, b"\xff").ends_with("  base64:/w==\n"));
    }

    #[test]
    fn json_says_everything() {
        let value: serde_json::Value = serde_json::from_str(&show(Format::Json, br#"{"a":1}"#)).unwrap();
        assert_eq!(value["headers"]["type"], "order.placed");
        assert_eq!(value["data"]["a"], 1);
        assert_eq!(value["sub_sequence_number"], 2);
        assert_eq!(value["age_ms"], 1500);
        assert_eq!(value["created"], "2026-09-21T14:13:20.000Z");
        assert!(value["traceparent"].as_str().unwrap().starts_with("00-"));
        assert!(value.get("data_base64").is_none());
    }

    #[test]
    fn data_alone_is_exact() {
        assert_eq!(show(Format::Raw, b"a\nb"), "a\nb");
        assert_eq!(show(Format::Payload, b"a"), "a\n");
    }

    #[test]
    fn ages_fit_a_reader() {
        assert_eq!([5, 1_500, 90_000, 7_200_000].map(shown_age), ["5ms", "1.5s", "1.5m", "2.0h"]);
    }
}
