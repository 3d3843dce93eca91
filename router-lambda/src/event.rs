//! The event that Lambda hands a function for records of a Kinesis shard.

use std::borrow::Cow;

use base64_simd::STANDARD;
use bytes::Bytes;
use bytestring::ByteString;
use headworks_record::ShardId;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};

/// Kinesis records of one shard, in order.
///
/// Deserialized in one pass over the JSON text: payloads go from base64 straight into their own memory,
/// and what is the same for every record is kept once.
#[derive(Debug, Clone, Default)]
pub struct Event {
    /// The name of the inbound stream; empty if there are no records.
    pub stream: ByteString,
    /// The records, in the order in which the shard holds them.
    pub records: Vec<KinesisRecord>,
}

/// One Kinesis record: an aggregate, or a bare record.
#[derive(Debug, Clone)]
pub struct KinesisRecord {
    /// The shard that it was read from.
    pub shard: ShardId,
    /// Its sequence number.
    pub sequence_number: ByteString,
    /// Its partition key; that of an aggregate of ours is a lane's label.
    pub partition_key: ByteString,
    /// Its data.
    pub data: Bytes,
    /// When it arrived on the stream, in milliseconds since the Unix epoch.
    pub arrival_ms: u64,
}

impl Event {
    /// Reads the JSON text.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }
}

#[derive(serde::Deserialize)]
struct Raw<'a> {
    #[serde(borrow, rename = "Records")]
    records: Vec<RawRecord<'a>>,
}

#[derive(serde::Deserialize)]
struct RawRecord<'a> {
    #[serde(borrow)]
    kinesis: RawKinesis<'a>,
    /// `{shard id}:{sequence number}`.
    #[serde(borrow, rename = "eventID")]
    event_id: Cow<'a, str>,
    #[serde(borrow, rename = "eventSourceARN")]
    stream_arn: Cow<'a, str>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawKinesis<'a> {
    #[serde(borrow)]
    partition_key: Cow<'a, str>,
    #[serde(borrow)]
    sequence_number: Cow<'a, str>,
    #[serde(borrow)]
    data: Text<'a>,
    /// In seconds, with a fraction.
    approximate_arrival_timestamp: f64,
}

/// A JSON string of which nobody needs to know that it is UTF-8: nearly all of an event is base64, which is checked
/// as such.
struct Text<'a>(Cow<'a, [u8]>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl<'de> Visitor<'de> for Bytes {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(bytes)))
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text.as_bytes())))
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(bytes.to_vec())))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.as_bytes().to_vec())))
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Raw::deserialize(deserializer)?;
        let mut event = Event { stream: ByteString::new(), records: Vec::with_capacity(raw.records.len()) };
        let mut arn: Option<Cow<'_, str>> = None;
        for (i, record) in raw.records.into_iter().enumerate() {
            let bad = |what: &str| D::Error::custom(format_args!("record {i}: {what}"));
            if arn.as_ref() != Some(&record.stream_arn) {
                if arn.is_some() {
                    return Err(bad("it is of another stream than the records before it"));
                }
                let name = stream_name(&record.stream_arn)
                    .ok_or_else(|| bad("eventSourceARN is not that of a Kinesis stream"))?;
                event.stream = name.into();
                arn = Some(record.stream_arn);
            }
            let (shard, _) =
                record.event_id.split_once(':').ok_or_else(|| bad("eventID is not a shard and a number"))?;
            let shard = match event.records.last() {
                Some(last) if last.shard.as_str() == shard => last.shard.clone(),
                _ => shard.into(),
            };
            let data = STANDARD
                .decode_to_vec(&record.kinesis.data.0)
                .map_err(|error| bad(&format!("data is not base64: {error}")))?;
            event.records.push(KinesisRecord {
                shard,
                sequence_number: text(record.kinesis.sequence_number),
                partition_key: text(record.kinesis.partition_key),
                data: data.into(),
                arrival_ms: (record.kinesis.approximate_arrival_timestamp * 1000.0).round() as u64,
            });
        }
        Ok(event)
    }
}

fn text(text: Cow<'_, str>) -> ByteString {
    text.into_owned().into()
}

/// The name in `arn:{partition}:kinesis:{region}:{account}:stream/{name}`; a consumer of the stream adds
/// `/consumer/...`.
fn stream_name(arn: &str) -> Option<&str> {
    let name = arn.split_once(":stream/")?.1;
    let name = name.split_once('/').map_or(name, |(name, _)| name);
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(arn: &str, id: &str, data: &str) -> String {
        format!(
            r#"{{"kinesis":{{"kinesisSchemaVersion":"1.0","partitionKey":"k\u00e9","sequenceNumber":"7","data":"{data}","approximateArrivalTimestamp":1545084650.987}},"eventSource":"aws:kinesis","eventVersion":"1.0","eventID":"{id}","eventName":"aws:kinesis:record","eventSourceARN":"{arn}"}}"#
        )
    }

    const ARN: &str = "arn:aws:kinesis:us-east-2:123456789012:stream/inbound";

    #[test]
    fn a_lambda_event_is_read() {
        let one = record(ARN, "shardId-000000000006:7", r"SGVs\/A==");
        let event = Event::parse(format!(r#"{{"Records":[{one},{one}]}}"#).as_bytes()).unwrap();
        assert_eq!((&*event.stream, event.records.len()), ("inbound", 2));
        let first = &event.records[0];
        assert_eq!(first.shard.as_str(), "shardId-000000000006");
        assert_eq!(first.data, &b"Hel\xfc"[..]);
        assert_eq!((&*first.partition_key, first.arrival_ms), ("ké", 1_545_084_650_987));
        assert!(Event::parse(br#"{"Records":[]}"#).unwrap().records.is_empty());
    }

    #[test]
    fn a_consumers_arn_names_its_stream() {
        assert_eq!(stream_name(&format!("{ARN}/consumer/c:1")), Some("inbound"));
        assert_eq!(stream_name("arn:aws:sqs:us-east-2:123456789012:queue"), None);
    }

    #[test]
    fn bad_events_say_which_record_is_at_fault() {
        let good = record(ARN, "s:7", "");
        for (bad, says) in [
            (record(ARN, "s:7", "!"), "record 1: data is not base64"),
            (record(ARN, "s", ""), "record 1: eventID"),
            (record("arn:aws:kinesis:x:1:stream/other", "s:7", ""), "record 1: it is of another stream"),
        ] {
            let error = Event::parse(format!(r#"{{"Records":[{good},{bad}]}}"#).as_bytes()).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
        assert!(Event::parse(b"{}").unwrap_err().to_string().contains("Records"));
    }
}
