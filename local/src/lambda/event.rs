//! [`EventFormat`]: the JSON event that Lambda hands a function for records of a Kinesis shard.
//!
//! Written straight into one buffer: payloads are base64-encoded in place and nothing is built in between. The
//! size of every record's text is known beforehand, exactly, so that a batch can be cut at the payload limit.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::kinesis::Record;

/// The largest event that Lambda hands a function synchronously, in bytes (6 MB, in Lambda's binary sense).
pub const MAX_EVENT_BYTES: usize = 6 * 1024 * 1024;

const HEAD: &str = "{\"Records\":[";
const TAIL: &str = "]}";
const BEFORE_KEY: &str = "{\"kinesis\":{\"kinesisSchemaVersion\":\"1.0\",\"partitionKey\":\"";
const BEFORE_SEQUENCE: &str = "\",\"sequenceNumber\":\"";
const BEFORE_DATA: &str = "\",\"data\":\"";
const BEFORE_TIME: &str = "\",\"approximateArrivalTimestamp\":";
/// A sequence number of the engine always prints so many digits.
const SEQUENCE_DIGITS: usize = 56;

/// The parts of an event that are the same for every record of a shard.
#[derive(Debug, Clone)]
pub struct EventFormat {
    /// From the end of the time to the sequence number within the event id.
    middle: String,
    /// From the end of the event id to the end of the record.
    end: String,
}

impl EventFormat {
    /// For one shard of the stream with this ARN, read under this role.
    #[must_use]
    pub fn new(shard_id: &str, stream_arn: &str, region: &str, role_arn: &str) -> Self {
        let quoted = |text: &str| {
            let mut out = Vec::with_capacity(text.len() + 2);
            write_escaped(&mut out, text);
            String::from_utf8_lossy(&out).into_owned()
        };
        Self {
            middle: format!(
                "}},\"eventSource\":\"aws:kinesis\",\"eventVersion\":\"1.0\",\"eventID\":\"{}:",
                quoted(shard_id)
            ),
            end: format!(
                "\",\"eventName\":\"aws:kinesis:record\",\"invokeIdentityArn\":\"{}\",\"awsRegion\":\"{}\",\
                 \"eventSourceARN\":\"{}\"}}",
                quoted(role_arn),
                quoted(region),
                quoted(stream_arn)
            ),
        }
    }

    /// What one record adds to an event, in bytes: its text and the comma before it.
    #[must_use]
    pub fn record_len(&self, record: &Record) -> usize {
        BEFORE_KEY.len()
            + escaped_len(&record.partition_key)
            + BEFORE_SEQUENCE.len()
            + SEQUENCE_DIGITS
            + BEFORE_DATA.len()
            + record.data.len().div_ceil(3) * 4
            + BEFORE_TIME.len()
            + time_len(record.arrival_ms)
            + self.middle.len()
            + SEQUENCE_DIGITS
            + self.end.len()
            + 1
    }

    /// The size of an event, in bytes, given the sum of its records' [`EventFormat::record_len`].
    #[must_use]
    pub fn event_len(records_len: usize) -> usize {
        // The first record has no comma.
        HEAD.len() + records_len.saturating_sub(1) + TAIL.len()
    }

    /// Writes the event.
    #[must_use]
    pub fn write<'a>(&self, records: impl Iterator<Item = &'a Record> + Clone) -> Bytes {
        use std::io::Write as _;
        let size = records.clone().map(|record| self.record_len(record)).sum();
        let mut out = Vec::with_capacity(Self::event_len(size));
        out.extend_from_slice(HEAD.as_bytes());
        for (index, record) in records.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(BEFORE_KEY.as_bytes());
            write_escaped(&mut out, &record.partition_key);
            out.extend_from_slice(BEFORE_SEQUENCE.as_bytes());
            let digits = out.len();
            // Writing into a Vec cannot fail.
            let _ = write!(out, "{}", record.sequence);
            let digits = digits..out.len();
            out.extend_from_slice(BEFORE_DATA.as_bytes());
            let start = out.len();
            let encoded = record.data.len().div_ceil(3) * 4;
            out.resize(start + encoded, 0);
            // The space is exactly what the encoding takes.
            let _ = STANDARD.encode_slice(&record.data, &mut out[start..]);
            out.extend_from_slice(BEFORE_TIME.as_bytes());
            let (seconds, millis) = split_time(record.arrival_ms);
            let _ = write!(out, "{seconds}.{millis:03}");
            out.extend_from_slice(self.middle.as_bytes());
            out.extend_from_within(digits);
            out.extend_from_slice(self.end.as_bytes());
        }
        out.extend_from_slice(TAIL.as_bytes());
        Bytes::from(out)
    }
}

/// Seconds, as Lambda writes them: a decimal number with the milliseconds behind the point.
fn split_time(unix_ms: i64) -> (u64, u64) {
    let ms = u64::try_from(unix_ms).unwrap_or(0);
    (ms / 1000, ms % 1000)
}

fn time_len(unix_ms: i64) -> usize {
    let (seconds, _) = split_time(unix_ms);
    seconds.checked_ilog10().map_or(1, |digits| digits as usize + 1) + ".000".len()
}

fn escaped_len(text: &str) -> usize {
    text.bytes()
        .map(|byte| match byte {
            b'"' | b'\\' | 0x08 | 0x09 | 0x0a | 0x0c | 0x0d => 2,
            0..0x20 => 6,
            _ => 1,
        })
        .sum()
}

fn write_escaped(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (index, byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' | b'\\' => *byte,
            0x08 => b'b',
            0x09 => b't',
            0x0a => b'n',
            0x0c => b'f',
            0x0d => b'r',
            0..0x20 => b'u',
            _ => continue,
        };
        out.extend_from_slice(&bytes[plain..index]);
        plain = index + 1;
        out.extend_from_slice(&[b'\\', short]);
        if short == b'u' {
            out.extend_from_slice(b"00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 0xf)]);
        }
    }
    out.extend_from_slice(&bytes[plain..]);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinesis::SequenceNumber;

    fn format() -> EventFormat {
        EventFormat::new(
            "shardId-000000000006",
            "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream",
            "us-east-2",
            "arn:aws:iam::123456789012:role/lambda-role",
        )
    }

    fn record(index: u64, key: &str, data: &[u8], arrival_ms: i64) -> Record {
        Record {
            sequence: SequenceNumber::compose(6, 1_542_776_258, index, 1_545_084_650),
            partition_key: key.into(),
            data: Bytes::copy_from_slice(data),
            arrival_ms,
        }
    }

    #[test]
    fn has_the_fields_that_lambda_sends() {
        let record = record(7, "1", b"Hello, this is a test.", 1_545_084_650_987);
        let sequence = record.sequence.to_string();
        let event: Value = serde_json::from_slice(&format().write([&record].into_iter())).unwrap();
        assert_eq!(
            event,
            json!({ "Records": [{
                "kinesis": {
                    "kinesisSchemaVersion": "1.0",
                    "partitionKey": "1",
                    "sequenceNumber": sequence,
                    "data": "SGVsbG8sIHRoaXMgaXMgYSB0ZXN0Lg==",
                    "approximateArrivalTimestamp": 1_545_084_650.987
                },
                "eventSource": "aws:kinesis",
                "eventVersion": "1.0",
                "eventID": format!("shardId-000000000006:{sequence}"),
                "eventName": "aws:kinesis:record",
                "invokeIdentityArn": "arn:aws:iam::123456789012:role/lambda-role",
                "awsRegion": "us-east-2",
                "eventSourceARN": "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream"
            }]})
        );
    }

    #[test]
    fn predicts_its_size_exactly_whatever_the_key_and_payload() {
        let every_control: String = (0_u8..0x20).map(char::from).collect();
        let keys = ["", "plain", "quo\"te\\", "ключ-鍵", every_control.as_str(), "\u{7f}\u{2028}"];
        let mut records = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            for len in 0..5 {
                records.push(record(
                    index as u64 * 10 + len,
                    key,
                    &vec![0xff; len as usize],
                    index as i64 * 999,
                ));
            }
        }
        let format = format();
        for count in 1..=records.len() {
            let chosen = &records[..count];
            let event = format.write(chosen.iter());
            let predicted = chosen.iter().map(|record| format.record_len(record)).sum();
            assert_eq!(event.len(), EventFormat::event_len(predicted));
            let parsed: Value = serde_json::from_slice(&event).unwrap();
            for (record, seen) in chosen.iter().zip(parsed["Records"].as_array().unwrap()) {
                assert_eq!(seen["kinesis"]["partitionKey"], *record.partition_key);
                let data = STANDARD.decode(seen["kinesis"]["data"].as_str().unwrap()).unwrap();
                assert_eq!(data, record.data);
            }
        }
    }
}
