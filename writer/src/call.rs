//! One `PutRecords` call, bounded in time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout};

use crate::schedule::{Flight, Trouble};
use crate::stream::{CallError, Entry, Fault, Stored, Stream};

/// The answers to a call's entries, and when it ran.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) results: Vec<Result<Stored, Trouble>>,
    pub(crate) started: SystemTime,
    pub(crate) ended: SystemTime,
}

/// The entries of a call and how long it may take: no longer than anybody waits for it.
pub(crate) fn prepare(flights: &[Flight], attempt_timeout: Duration, now: Instant) -> (Vec<Entry>, Duration) {
    let entries = flights.iter().map(|flight| flight.sealed.entry.clone()).collect();
    let latest = flights.iter().filter_map(|flight| flight.sealed.latest_deadline()).max();
    let patience = latest.map_or(attempt_timeout, |latest| latest.saturating_duration_since(now));
    (entries, patience.min(attempt_timeout))
}

pub(crate) async fn run(stream: Arc<dyn Stream>, entries: Vec<Entry>, patience: Duration) -> Answered {
    let started = SystemTime::now();
    let called = timeout(patience, stream.put_records(&entries)).await;
    let results = match called {
        Ok(Ok(results)) if results.len() == entries.len() => results
            .into_iter()
            .map(|result| {
                result.map_err(|error| Trouble {
                    fault: error.fault,
                    message: Arc::new(error.to_string()),
                    code: error.code,
                    shared: false,
                })
            })
            .collect(),
        Ok(Ok(results)) => {
            let message = format!("{} answers to {} entries", results.len(), entries.len());
            all(entries.len(), Fault::Ambiguous, "malformed-answer", message)
        }
        Ok(Err(CallError { fault, code, message })) => {
            all(entries.len(), fault, &code.clone(), format!("{code}: {message}"))
        }
        Err(_elapsed) => {
            let message = format!("PutRecords was not answered within {patience:?}");
            all(entries.len(), Fault::Ambiguous, "attempt-timeout", message)
        }
    };
    Answered { results, started, ended: SystemTime::now() }
}

/// The same trouble for every entry.
pub(crate) fn all(entries: usize, fault: Fault, code: &str, message: String) -> Vec<Result<Stored, Trouble>> {
    // Where the stream is gone, it is gone for each of them.
    let shared = entries > 1 && code != "ResourceNotFoundException";
    vec![Err(Trouble { fault, code: code.to_owned(), message: Arc::new(message), shared }); entries]
}
