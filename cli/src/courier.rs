//! Sends records through a producer and settles their answers in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use headworks_producer::{Error, Producer, Receipt, Ticket};
use headworks_record::Record;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::exit::{Exit, Failure};
use crate::output::{self, Output, talk};

/// Answers that are waited for; the producer bounds their bytes.
const OPEN_TICKETS: usize = 65_536;
/// Failures that are said one by one; all are counted.
const SAID_FAILURES: u64 = 10;

/// A record, and its number among its fellows: its line, or how many came before it and it.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) number: u64,
    pub(crate) record: Record,
}

/// Where records come from.
pub(crate) trait Source {
    /// What a record's number counts, for messages.
    const UNIT: &'static str;

    /// The next record; `None` at the end. Is not asked again after an error.
    async fn next(&mut self) -> Result<Option<Parcel>, Failure>;
}

/// How far it is.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    sent: AtomicU64,
    stored: AtomicU64,
    failed: AtomicU64,
    unknown: AtomicU64,
}

/// The same at one moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) stored: u64,
    pub(crate) failed: u64,
    pub(crate) unknown: u64,
}

impl Counts {
    pub(crate) fn tally(&self) -> Tally {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tally {
            sent: get(&self.sent),
            stored: get(&self.stored),
            failed: get(&self.failed),
            unknown: get(&self.unknown),
        }
    }
}

impl Tally {
    pub(crate) fn exit(&self) -> Exit {
        if self.failed + self.unknown == 0 { Exit::Ok } else { Exit::Failed }
    }

    /// The last line of a command that sends.
    pub(crate) fn summary(&self, taken: Duration) -> String {
        let rate = self.stored as f64 / taken.as_secs_f64().max(0.001);
        let mut line = format!(
            "{} records sent, {} stored, {} failed, in {:.1} s ({rate:.0}/s)",
            self.sent,
            self.stored,
            self.failed,
            taken.as_secs_f64()
        );
        if self.unknown > 0 {
            line.push_str(&format!("; of {} more nobody knows whether they are stored", self.unknown));
        }
        line
    }
}

/// What a record's answer looks like with `--json`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer<'a> {
    Stored {
        number: u64,
        key: &'a str,
        shard: &'a str,
        sequence_number: &'a str,
        sub_sequence_number: u32,
        attempts: u32,
    },
    Spooled {
        number: u64,
        key: &'a str,
        spooled: bool,
    },
    Failed {
        number: u64,
        key: &'a str,
        code: &'a str,
        message: String,
        retryable: bool,
        outcome_unknown: bool,
    },
}

impl<'a> Answer<'a> {
    fn new(number: u64, key: &'a str, answer: &'a Result<Receipt, Error>) -> Self {
        match answer {
            Ok(Receipt::Spooled) => Self::Spooled { number, key, spooled: true },
            Ok(Receipt::Stored(stored)) => Self::Stored {
                number,
                key,
                shard: &stored.shard_id,
                sequence_number: &stored.sequence_number,
                sub_sequence_number: stored.sub_sequence_number,
                attempts: stored.attempts,
            },
            Err(error) => Self::Failed {
                number,
                key,
                code: error.code(),
                message: message(error),
                retryable: error.is_retryable(),
                outcome_unknown: error.outcome_unknown(),
            },
        }
    }
}

/// The message without the code, which stands beside it.
fn message(error: &Error) -> String {
    match error {
        Error::Refused { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

/// Sends what a source gives until it ends, fails or is cancelled, and settles every answer.
///
/// With an output each answer is a line of JSON there. When its reader goes, the source is asked no more;
/// what is on its way is settled all the same. The result says what ended the source, if it was an error.
pub(crate) async fn deliver<S: Source>(
    producer: &Producer,
    source: &mut S,
    output: Option<Output>,
    counts: &Arc<Counts>,
    cancel: &CancellationToken,
) -> Result<(), Failure> {
    let stop = cancel.child_token();
    let (tickets, answers) = mpsc::channel(OPEN_TICKETS);
    let feed = feed(producer, source, tickets, counts, &stop);
    let settle = settle::<S>(answers, output, counts, &stop);
    let (fed, settled) = tokio::join!(feed, settle);
    fed.and(settled)
}

type Open = (u64, headworks_record::PartitionKey, Ticket);

async fn feed<S: Source>(
    producer: &Producer,
    source: &mut S,
    tickets: mpsc::Sender<Open>,
    counts: &Counts,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let work = async {
        while let Some(Parcel { number, record }) = source.next().await? {
            // The place for the answer first: a record is sent only if its answer will be heard.
            let Ok(place) = tickets.reserve().await else { break };
            let key = record.key.clone();
            let ticket = producer.send(record).await;
            counts.sent.fetch_add(1, Ordering::Relaxed);
            place.send((number, key, ticket));
        }
        Ok(())
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        ended = work => ended,
    }
}

async fn settle<S: Source>(
    mut answers: mpsc::Receiver<Open>,
    mut output: Option<Output>,
    counts: &Counts,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let mut trouble = Ok(());
    let mut said = 0;
    loop {
        let next = match answers.try_recv() {
            Ok(next) => Some(next),
            Err(_) => {
                write(&mut output, stop, &mut trouble, Output::flush);
                answers.recv().await
            }
        };
        let Some((number, key, mut ticket)) = next else { return trouble };
        let answer = match (&mut ticket).now_or_never() {
            Some(answer) => answer,
            None => {
                write(&mut output, stop, &mut trouble, Output::flush);
                ticket.await
            }
        };
        let counter = match &answer {
            Ok(_) => &counts.stored,
            Err(error) if error.outcome_unknown() => &counts.unknown,
            Err(_) => &counts.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = &answer {
            said += 1;
            if said <= SAID_FAILURES {
                talk(format_args!("error: {} {number}: {} [{}]", S::UNIT, message(error), error.code()));
            } else if said == SAID_FAILURES + 1 {
                talk("error: more records failed; the summary counts them, --json lists them");
            }
        }
        write(&mut output, stop, &mut trouble, |out| out.json(&Answer::new(number, key.as_str(), &answer)));
    }
}

/// Writes unless that has failed before; a failure stops the source.
fn write(
    output: &mut Option<Output>,
    stop: &CancellationToken,
    trouble: &mut Result<(), Failure>,
    what: impl FnOnce(&mut Output) -> Result<(), output::Error>,
) {
    if let Some(out) = output
        && let Err(error) = what(out)
    {
        *output = None;
        stop.cancel();
        if let Some(failure) = error.failure() {
            *trouble = Err(failure);
        }
    }
}

/// Says the last words and puts together how the command ends.
pub(crate) fn finish(
    counts: &Counts,
    begin: Instant,
    delivered: Result<(), Failure>,
) -> Result<Exit, Failure> {
    let tally = counts.tally();
    talk(tally.summary(begin.elapsed()));
    delivered.map(|()| tally.exit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_lines_of_json() {
        let stored = Ok(Receipt::Stored(headworks_producer::Stored {
            shard_id: "shardId-000000000001".into(),
            sequence_number: "49".into(),
            sub_sequence_number: 3,
            attempts: 1,
        }));
        assert_eq!(
            serde_json::to_string(&Answer::new(7, "k", &stored)).unwrap(),
            r#"{"number":7,"key":"k","shard":"shardId-000000000001","sequence_number":"49","sub_sequence_number":3,"attempts":1}"#
        );
        let refused = Err(Error::Refused {
            code: "record-too-large".into(),
            message: "too large".into(),
            retryable: false,
        });
        assert_eq!(
            serde_json::to_string(&Answer::new(7, "k", &refused)).unwrap(),
            r#"{"number":7,"key":"k","code":"record-too-large","message":"too large","retryable":false,"outcome_unknown":false}"#
        );
    }

    #[test]
    fn unknown_outcomes_fail_the_command_too() {
        let tally = Tally { sent: 3, stored: 2, failed: 0, unknown: 1 };
        assert_eq!(tally.exit(), Exit::Failed);
        assert!(tally.summary(Duration::from_secs(1)).contains("of 1 more nobody knows"));
        assert_eq!(Tally { sent: 2, stored: 2, ..Tally::default() }.exit(), Exit::Ok);
    }
}
