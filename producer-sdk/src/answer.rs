//! From the gateway's results to the answers of records.

use headworks_proto::compact;
use headworks_proto::v1::put_stream_response::Results;
use headworks_proto::v1::{self, record_result};
use tracing::warn;

use crate::error::Error;
use crate::ticket::{Receipt, Stored};

/// What became of a record.
pub(crate) type Answer = Result<Receipt, Error>;

/// The answers of a message, one per record of its batch.
pub(crate) fn read(results: Results) -> Vec<Answer> {
    let Some(mut compact) = results.compact else {
        return results.results.into_iter().map(|result| outcome(result.outcome)).collect();
    };
    let items = match compact::read(&mut compact) {
        Ok(items) => items,
        // No answer for any: their records' outcomes are unknown.
        Err(error) => {
            warn!("the gateway's results cannot be read: {error}");
            return Vec::new();
        }
    };
    let places: Vec<_> = compact.places.into_iter().map(|place| Stored::at(place, 0)).collect();
    items
        .into_iter()
        .map(|item| match item {
            compact::Item::Stored { place, sub_sequence_number } => {
                Ok(Receipt::Stored(Stored { sub_sequence_number, ..places[place].clone() }))
            }
            compact::Item::Other(result) => outcome(result.outcome),
        })
        .collect()
}

fn outcome(result: Option<record_result::Outcome>) -> Answer {
    match result {
        Some(record_result::Outcome::Stored(stored)) => Ok(Receipt::Stored(stored.into())),
        Some(record_result::Outcome::Spooled(_)) => Ok(Receipt::Spooled),
        Some(record_result::Outcome::Error(error)) if error.outcome_unknown => {
            Err(Error::OutcomeUnknown { message: error.message })
        }
        Some(record_result::Outcome::Error(v1::Error { code, message, retryable, .. })) => {
            Err(Error::Refused { code, message, retryable })
        }
        None => missing(),
    }
}

/// A record that the message does not answer for.
pub(crate) fn missing() -> Answer {
    Err(Error::OutcomeUnknown { message: "the gateway's answer does not name the record".to_owned() })
}
