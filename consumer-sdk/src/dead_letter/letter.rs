//! One dead letter.

#[cfg(any(feature = "s3", test))]
use base64::Engine as _;
use headworks_record::Creation;

use crate::delivered::Delivered;

/// The version of the JSON form.
pub const LETTER_VERSION: u32 = 1;

/// The longest message that is kept, in characters.
const MAX_MESSAGE_CHARS: usize = 1_000;

/// A record that could not be handled, and why.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The application whose handler failed.
    pub application: String,
    /// The stable code of what happened, as in `docs/errors/`: `handler-failed`, or what is wrong with the
    /// Kinesis record.
    pub code: String,
    /// What happened, for a reader; cut to 1,000 characters.
    pub message: String,
    /// How often the record was tried; 0 if it could not be taken apart.
    pub attempts: u32,
    /// The record. Of a Kinesis record that cannot be taken apart, the data is all of its bytes.
    pub delivered: Delivered,
    /// Whether `delivered` stands for a whole Kinesis record that could not be taken apart.
    pub whole: bool,
}

impl DeadLetter {
    pub(crate) fn new(
        application: &str,
        code: &str,
        message: &str,
        attempts: u32,
        delivered: Delivered,
        whole: bool,
    ) -> Self {
        let message = message.chars().take(MAX_MESSAGE_CHARS).collect();
        Self {
            application: application.to_owned(),
            code: code.to_owned(),
            message,
            attempts,
            delivered,
            whole,
        }
    }

    /// Where the record was found: stream, shard, sequence number, and the place in its aggregate.
    pub fn origin(&self) -> String {
        let Delivered { stream, shard, sequence_number, sub_sequence_number, .. } = &self.delivered;
        match self.whole {
            true => format!("{stream}/{shard}/{sequence_number}-all"),
            false => format!("{stream}/{shard}/{sequence_number}-{sub_sequence_number}"),
        }
    }

    /// The record's creation context; where it has none, one that is derived from its place.
    pub fn creation(&self) -> Creation {
        let found = &self.delivered;
        found.record.headers.creation().copied().unwrap_or_else(|| {
            let place = u32::try_from(found.sub_sequence_number).unwrap_or(u32::MAX).to_be_bytes();
            let parts: [&[u8]; 4] = [
                found.stream.as_bytes(),
                found.shard.as_str().as_bytes(),
                found.sequence_number.as_str().as_bytes(),
                &place,
            ];
            Creation::derive(&parts, found.arrival_ms)
        })
    }

    /// The object's key in a bucket: the same record of the same application has the same key, so that a
    /// letter that is written again replaces itself.
    pub fn key(&self) -> String {
        format!("consumers/{}/{}.json", self.application, self.origin())
    }

    /// The JSON form, field for field as the router writes its own, with `application` and `attempts`
    /// beside them.
    #[cfg(any(feature = "s3", test))]
    pub fn to_json(&self) -> serde_json::Value {
        let found = &self.delivered;
        let creation = self.creation();
        let mut origin = serde_json::json!({
            "stream": &*found.stream,
            "shard": found.shard.as_str(),
            "sequence_number": found.sequence_number.as_str(),
            "arrival_ms": found.arrival_ms,
        });
        if !self.whole {
            origin["sub_sequence_number"] = found.sub_sequence_number.into();
        }
        let mut letter = serde_json::json!({
            "version": LETTER_VERSION,
            "application": self.application,
            "attempts": self.attempts,
            "reasons": [{ "code": self.code, "message": self.message }],
            "origin": origin,
            "partition_key": found.record.key.as_str(),
            "traceparent": creation.traceparent(),
            "created_ms": creation.created_ms,
            "headers": found.record.headers.iter().collect::<Vec<_>>(),
            "data": base64::engine::general_purpose::STANDARD.encode(&found.record.data),
        });
        if let Some(hash) = &found.record.explicit_hash_key {
            letter["explicit_hash_key"] = hash.to_string().into();
        }
        letter
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use headworks_record::Record;

    use super::*;
    use crate::position::SequenceNumber;

    pub(crate) fn letter() -> DeadLetter {
        let record = Record::builder("k").unwrap().header("type", "a").unwrap().data(b"\xff\x00".to_vec());
        let delivered = Delivered {
            record: record.build(),
            stream: "orders".into(),
            shard: "shardId-000000000001".into(),
            sequence_number: SequenceNumber::new("495").unwrap(),
            sub_sequence_number: 3,
            arrival_ms: 5,
            received: std::time::UNIX_EPOCH,
            origin: None,
        };
        DeadLetter::new("app", "handler-failed", &"x".repeat(2_000), 5, delivered, false)
    }

    #[test]
    fn its_json_is_the_routers() {
        let mut letter = letter();
        let json = letter.to_json();
        assert_eq!(json["data"], "/wA=");
        assert_eq!(json["headers"], serde_json::json!([["type", "a"]]));
        assert_eq!(json["origin"]["sub_sequence_number"], 3);
        assert_eq!(json["reasons"][0]["code"], "handler-failed");
        assert_eq!(json["reasons"][0]["message"].as_str().unwrap().len(), 1_000);
        assert_eq!(letter.key(), "consumers/app/orders/shardId-000000000001/495-3.json");
        letter.whole = true;
        assert!(letter.to_json()["origin"].get("sub_sequence_number").is_none());
        assert_eq!(letter.key(), "consumers/app/orders/shardId-000000000001/495-all.json");
    }
}
