//! `headworks dlq list`.

use headworks_router::dead_letter::{Letter, Reason, Stored, list};
use serde::Serialize;

use super::{Place, Which, failure};
use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::moment;
use crate::output::{self, Output, talk};

/// Letters that are in memory at once.
const PAGE: usize = 100;

/// Lists dead letters in the order of stream, shard and sequence number. An object that is no letter is listed with
/// what is wrong with it.
#[derive(Debug, clap::Args)]
#[command(after_help = Exit::HELP)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    which: Which,
    /// Prints a line of JSON per letter.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let (bucket, _) = args.place.open().await?;
    let cancel = interrupt::token()?;
    let mut output = Output::stdout();
    let (filter, mut left) = (args.which.filter(), args.which.limit());
    let (mut after, mut listed) = (args.which.after, 0u64);
    while left > 0 {
        let page = tokio::select! {
            page = list(&bucket, &filter, after.as_deref(), PAGE.min(left)) => page.map_err(|e| failure(&e))?,
            () = cancel.cancelled() => break,
        };
        left -= page.letters.len();
        listed += page.letters.len() as u64;
        let mut write = || {
            page.letters.iter().try_for_each(|letter| write(&mut output, letter, args.json))?;
            output.flush()
        };
        match write() {
            Ok(()) => {}
            Err(output::Error::Closed) => return Ok(Exit::Ok),
            error => output::settled(error)?,
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    talk(format_args!("{listed} dead letters in s3://{}", bucket.name()));
    if let Some(after) = after {
        talk(format_args!("there may be more: --after {after}"));
    }
    Ok(Exit::Ok)
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    key: &'a str,
    written: String,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    reasons: &'a [Reason],
    #[serde(skip_serializing_if = "Option::is_none")]
    invalid: Option<&'a str>,
}

fn write(output: &mut Output, stored: &Stored, json: bool) -> Result<(), output::Error> {
    let Stored { key, written, bytes, letter } = stored;
    let written = moment::shown(*written);
    if json {
        let letter: Result<&Letter, &String> = letter.as_ref();
        return output.json(&Line {
            key,
            written,
            bytes: *bytes,
            partition_key: letter.ok().map(|letter| letter.partition_key.as_str()),
            traceparent: letter.ok().map(|letter| letter.traceparent.as_str()),
            reasons: letter.map_or(&[], |letter| &letter.reasons),
            invalid: letter.err().map(String::as_str),
        });
    }
    match letter {
        Ok(letter) => {
            let reasons: Vec<String> = letter.reasons.iter().map(short).collect();
            output.line(format_args!("{written} {key} {}", reasons.join(", ")))
        }
        Err(error) => {
            output.line(format_args!("{written} {key} is no dead letter: {}", error.escape_debug()))
        }
    }
}

/// A reason in a few words: its code, and the stream that did not get the record.
pub(super) fn short(reason: &Reason) -> String {
    match &reason.destination {
        Some(stream) => format!("{} ({stream})", reason.code),
        None => reason.code.clone(),
    }
}
