//! Dead letters on a stream.

use async_trait::async_trait;
use aws_sdk_kinesis::primitives::Blob;
use headworks_record::aggregate::Builder;
use headworks_record::{Headers, Record};

use super::{DeadLetter, DeadLetters, Error};
use crate::streams::classify;

/// Headers that a dead letter gets beside its own, in this order; those that its own leave no room for are
/// left out.
const CODE: &str = "dead-letter-code";
const ORIGIN: &str = "dead-letter-origin";
const APPLICATION: &str = "dead-letter-application";
const ATTEMPTS: &str = "dead-letter-attempts";
const MESSAGE: &str = "dead-letter-message";

/// Puts each dead letter on a stream: the record as it was, with its identity, key, headers and data, and
/// the headers `dead-letter-code`, `-origin`, `-application`, `-attempts` and `-message`, as far as its own
/// headers leave room for them.
#[derive(Debug, Clone)]
pub struct StreamDeadLetters {
    client: aws_sdk_kinesis::Client,
    stream: String,
}

impl StreamDeadLetters {
    /// The stream with this name.
    pub fn new(client: aws_sdk_kinesis::Client, stream: impl Into<String>) -> Self {
        Self { client, stream: stream.into() }
    }

    fn record(letter: &DeadLetter) -> Record {
        let mut record = letter.delivered.record.clone();
        let notes = [
            (CODE, letter.code.clone()),
            (ORIGIN, letter.origin()),
            (APPLICATION, letter.application.clone()),
            (ATTEMPTS, letter.attempts.to_string()),
            (MESSAGE, letter.message.chars().take(500).collect()),
        ];
        for (name, value) in notes {
            // A record whose headers are full loses none of its own.
            note(&mut record.headers, name, value);
        }
        record
    }
}

fn note(headers: &mut Headers, name: &str, value: String) {
    if let Err(error) = headers.set(name.to_owned(), value) {
        tracing::debug!(name, %error, "a dead letter goes without this header");
    }
}

#[async_trait]
impl DeadLetters for StreamDeadLetters {
    async fn write(&self, letter: &DeadLetter) -> Result<(), Error> {
        let record = Self::record(letter);
        let mut aggregate = Builder::new();
        aggregate.push(&record);
        let request = self.client.put_record().stream_name(&self.stream).partition_key(record.key.as_str());
        let request = request.explicit_hash_key(record.hash_key().to_string());
        let put = request.data(Blob::new(aggregate.finish().to_vec())).send().await;
        put.map(|_| ()).map_err(|error| {
            let error = classify("PutRecord", &error);
            let (target, origin) = (format!("the stream {:?}", self.stream), letter.origin());
            let reason = error.to_string();
            match error.is_retryable() {
                true => Error::Unavailable { target, origin, reason },
                false => Error::Refused { target, origin, reason },
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use headworks_record::headers::MAX_HEADERS;

    use super::*;

    #[test]
    fn a_letter_keeps_what_the_record_had() {
        let mut letter = super::super::letter::tests::letter();
        let record = StreamDeadLetters::record(&letter);
        assert_eq!(record.headers.get("type"), Some("a"));
        assert_eq!(record.headers.get(CODE), Some("handler-failed"));
        assert_eq!(record.headers.get(ORIGIN), Some("orders/shardId-000000000001/495-3"));
        assert_eq!(record.headers.get(MESSAGE).map(str::len), Some(500));
        for i in 1..MAX_HEADERS - 1 {
            letter.delivered.record.headers.set(format!("h{i}"), "").unwrap();
        }
        let full = StreamDeadLetters::record(&letter);
        assert_eq!(full.headers.len(), MAX_HEADERS);
        assert_eq!((full.headers.get(CODE), full.headers.get(ORIGIN)), (Some("handler-failed"), None));
    }
}
