//! The answer of `PutRecords`, written straight into the body: it has as many entries as the call has records.

use bytes::Bytes;

use super::super::Error;
use super::super::codec::Codec;
use super::super::record::{Put, ShardName};

/// An entry of a stored record, with its punctuation, takes no more.
const ENTRY: usize = 130;

#[derive(Debug)]
pub(crate) struct PutRecordsAnswer {
    pub(crate) records: Vec<Result<Put, Error>>,
    pub(crate) encryption_type: &'static str,
}

impl PutRecordsAnswer {
    pub(crate) fn encode(&self, codec: Codec) -> Result<Bytes, Error> {
        let mut body = Vec::with_capacity(ENTRY * (self.records.len() + 1));
        match codec {
            Codec::Json => self.json(&mut body).map_err(|error| Error::Internal(error.to_string()))?,
            Codec::Cbor => self.cbor(&mut body),
        }
        Ok(body.into())
    }

    fn failed(&self) -> usize {
        self.records.iter().filter(|answer| answer.is_err()).count()
    }

    fn json(&self, body: &mut Vec<u8>) -> serde_json::Result<()> {
        body.extend_from_slice(b"{\"FailedRecordCount\":");
        body.extend_from_slice(self.failed().to_string().as_bytes());
        body.extend_from_slice(b",\"Records\":[");
        for (at, answer) in self.records.iter().enumerate() {
            if at > 0 {
                body.push(b',');
            }
            match answer {
                // Nothing in either that would have to be escaped.
                Ok(put) => {
                    body.extend_from_slice(b"{\"SequenceNumber\":\"");
                    body.extend_from_slice(put.sequence.digits().as_bytes());
                    body.extend_from_slice(b"\",\"ShardId\":\"");
                    body.extend_from_slice(ShardName::new(put.shard_index).as_bytes());
                    body.extend_from_slice(b"\"}");
                }
                Err(error) => {
                    body.extend_from_slice(b"{\"ErrorCode\":");
                    serde_json::to_writer(&mut *body, error.exception())?;
                    body.extend_from_slice(b",\"ErrorMessage\":");
                    serde_json::to_writer(&mut *body, &error.to_string())?;
                    body.push(b'}');
                }
            }
        }
        body.extend_from_slice(b"],\"EncryptionType\":");
        serde_json::to_writer(&mut *body, self.encryption_type)?;
        body.push(b'}');
        Ok(())
    }

    fn cbor(&self, body: &mut Vec<u8>) {
        head(body, MAP, 3);
        text(body, b"FailedRecordCount");
        head(body, UNSIGNED, self.failed());
        text(body, b"Records");
        head(body, ARRAY, self.records.len());
        for answer in &self.records {
            head(body, MAP, 2);
            match answer {
                Ok(put) => {
                    text(body, b"SequenceNumber");
                    text(body, put.sequence.digits().as_bytes());
                    text(body, b"ShardId");
                    text(body, ShardName::new(put.shard_index).as_bytes());
                }
                Err(error) => {
                    text(body, b"ErrorCode");
                    text(body, error.exception().as_bytes());
                    text(body, b"ErrorMessage");
                    text(body, error.to_string().as_bytes());
                }
            }
        }
        text(body, b"EncryptionType");
        text(body, self.encryption_type.as_bytes());
    }
}

/// Major types of CBOR.
const UNSIGNED: u8 = 0;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;

/// The shortest head of a kind and a number.
fn head(body: &mut Vec<u8>, kind: u8, number: usize) {
    let kind = kind << 5;
    match number {
        0..=23 => body.push(kind | number as u8),
        24..=0xff => body.extend_from_slice(&[kind | 24, number as u8]),
        0x100..=0xffff => {
            body.push(kind | 25);
            body.extend_from_slice(&(number as u16).to_be_bytes());
        }
        _ => {
            body.push(kind | 27);
            body.extend_from_slice(&(number as u64).to_be_bytes());
        }
    }
}

fn text(body: &mut Vec<u8>, text: &[u8]) {
    head(body, TEXT, text.len());
    body.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::SequenceNumber;
    use super::*;

    #[test]
    fn both_encodings_say_the_same() {
        let sequence = SequenceNumber::compose(3, 1_700_000_000, 42, 1_700_000_001);
        let long = "x".repeat(300);
        let message = format!("a \"quote\", ü and\n{long}");
        for stored in [0, 1, 30, 498] {
            let mut records = vec![Ok(Put { shard_index: 3, sequence }); stored];
            records.push(Err(Error::ThroughputExceeded(message.clone())));
            let answer = PutRecordsAnswer { records, encryption_type: "NONE" };
            let good = json!({ "SequenceNumber": sequence.to_string(), "ShardId": "shardId-000000000003" });
            let mut expected = vec![good; stored];
            expected.push(json!({
                "ErrorCode": "ProvisionedThroughputExceededException",
                "ErrorMessage": message,
            }));
            let expected = json!({ "FailedRecordCount": 1, "Records": expected, "EncryptionType": "NONE" });
            for codec in [Codec::Json, Codec::Cbor] {
                let body = answer.encode(codec).unwrap();
                let read: Value = codec.decode(&body).unwrap();
                assert_eq!(read, expected, "{codec:?} {stored}");
            }
        }
    }
}
