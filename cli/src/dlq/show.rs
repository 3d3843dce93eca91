//! `headworks dlq show`.

use headworks_router::dead_letter::{Letter, Position, Reason, show};
use serde::Serialize;

use super::{Place, failure};
use crate::exit::{Exit, Failure};
use crate::moment::shown_ms;
use crate::output::{self, Output};
use crate::payload::{self, Data};
use crate::tail::format::escape;

/// Shows dead letters whole: why they are here, where they come from, headers and payload.
#[derive(Debug, clap::Args)]
#[command(after_help = Exit::HELP)]
pub struct Args {
    /// Their keys, as `dlq list` says them.
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<String>,
    #[command(flatten)]
    place: Place,
    /// Prints a line of JSON per letter.
    #[arg(long, conflicts_with = "payload")]
    json: bool,
    /// Prints the payloads alone, exactly, with nothing between them.
    #[arg(long)]
    payload: bool,
}

pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let (bucket, _) = args.place.open().await?;
    let mut output = Output::stdout();
    for (place, key) in args.keys.iter().enumerate() {
        let letter = show(&bucket, key).await.map_err(|error| failure(&error))?;
        let mut write = || {
            if args.payload {
                output.bytes(&letter.data)?;
            } else if args.json {
                output.json(&line(key, &letter))?;
            } else {
                if place > 0 {
                    output.line("")?;
                }
                text(&mut output, key, &letter)?;
            }
            output.flush()
        };
        match write() {
            Ok(()) => {}
            Err(output::Error::Closed) => break,
            error => output::settled(error)?,
        }
    }
    Ok(Exit::Ok)
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    #[serde(rename = "letter")]
    object: &'a str,
    reasons: &'a [Reason],
    origin: &'a Position,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    explicit_hash_key: Option<&'a str>,
    /// Pairs: a foreign writer may repeat a name.
    headers: &'a [(String, String)],
    traceparent: &'a str,
    created: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

fn line<'a>(object: &'a str, letter: &'a Letter) -> Line<'a> {
    let (data, data_base64) = payload::fields(&letter.data);
    Line {
        object,
        reasons: &letter.reasons,
        origin: &letter.origin,
        key: &letter.partition_key,
        explicit_hash_key: letter.explicit_hash_key.as_deref(),
        headers: &letter.headers,
        traceparent: &letter.traceparent,
        created: shown_ms(letter.created_ms),
        data,
        data_base64,
    }
}

fn text(output: &mut Output, key: &str, letter: &Letter) -> Result<(), output::Error> {
    let Position { stream, shard, sequence_number, sub_sequence_number, arrival_ms } = &letter.origin;
    output.line(key)?;
    for Reason { code, message, destination } in &letter.reasons {
        let destination = destination.as_deref().map(|to| format!(", not on {to}")).unwrap_or_default();
        output.line(format_args!("  reason       {code}{destination}: {}", clean(message)))?;
    }
    let member = match sub_sequence_number {
        Some(sub) => format!(":{sub}"),
        None => " (all of the Kinesis record)".to_owned(),
    };
    output.line(format_args!("  origin       {stream} {shard} {sequence_number}{member}"))?;
    output.line(format_args!("  arrived      {}", shown_ms(*arrival_ms)))?;
    output.line(format_args!("  created      {}", shown_ms(letter.created_ms)))?;
    output.line(format_args!("  traceparent  {}", clean(&letter.traceparent)))?;
    output.line(format_args!("  key          {}", clean(&letter.partition_key)))?;
    if let Some(hash_key) = &letter.explicit_hash_key {
        output.line(format_args!("  hash key     {}", clean(hash_key)))?;
    }
    for (name, value) in &letter.headers {
        output.line(format_args!("  header       {}={}", clean(name), clean(value)))?;
    }
    output.line(format_args!("  payload      {} bytes", letter.data.len()))?;
    match std::str::from_utf8(&letter.data) {
        Ok(data) => output.line(clean(data)),
        Err(_) => {
            let (_, base64) = payload::fields(&letter.data);
            output.line(format_args!("base64:{}", base64.unwrap_or_default()))
        }
    }
}

fn clean(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    escape(text, &mut line);
    line
}
