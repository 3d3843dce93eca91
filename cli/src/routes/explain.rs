//! `headworks routes test`.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use headworks_router::table::{Explanation, RouteTable, explain_subject};
use serde::Serialize;

use super::load;
use super::subject::{Made, parse, text_or_file, traceparent};
use crate::exit::{Exit, Failure};
use crate::output::{self, Output, talk};
use crate::pair::{self, Header};
use crate::send::line::Lines;
use crate::tail::format::Headers;

/// Says which rule matches and why, for a record given by options or for lines of JSON on stdin.
///
/// A line is an object of headers, {"type": "order.placed"}, or a record as `send` takes it, `tail` shows it
/// and `simulate --dry-run` prints it: key, headers, data (or data_base64) and traceparent all count.
#[derive(Debug, clap::Args)]
#[command(after_help = Exit::HELP)]
pub struct Args {
    /// The table, .toml or .json.
    #[arg(long, value_name = "FILE", env = "HEADWORKS_ROUTES")]
    routes: PathBuf,
    /// A header of the record; repeat it for several. Without any option of the record: lines from stdin.
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<Header>,
    /// Partition key of the record. Default: empty.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Payload of the record: its text, or @FILE. Default: empty.
    #[arg(long, value_name = "TEXT|@FILE")]
    data: Option<String>,
    /// Creation context of the record, which shares (sample) go by. Default: none.
    #[arg(long, value_name = "TRACEPARENT")]
    traceparent: Option<String>,
    /// A stream that the record must go to; repeat it for several. Other streams, or none, then fail the
    /// check with exit code 1.
    #[arg(long, value_name = "STREAM")]
    expect: Vec<String>,
    /// Prints one line of JSON per record.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// The record that the options describe, if they do.
    fn record(&self) -> Result<Option<Made>, Failure> {
        if self.headers.is_empty() && self.key.is_none() && self.data.is_none() && self.traceparent.is_none()
        {
            return Ok(None);
        }
        let mut headers = pair::headers(&self.headers)?;
        if let Some(text) = &self.traceparent {
            headers.set_creation(traceparent(text)?);
        }
        let data = self.data.as_deref().map(text_or_file).transpose()?.unwrap_or_default();
        Ok(Some(Made { headers, key: self.key.clone().unwrap_or_default(), data }))
    }
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let table = load(&args.routes)?;
    let record = args.record()?;
    let output = Output::stdout();
    Tester { table, expect: args.expect, json: args.json, output, records: 0, missed: 0 }.run(record).await
}

#[derive(Serialize)]
struct Tested<'a> {
    headers: Headers<'a>,
    /// Names of the headers that the table derived from the payload.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    derived: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    key: &'a str,
    #[serde(flatten)]
    explanation: &'a Explanation,
}

struct Tester {
    table: RouteTable,
    expect: Vec<String>,
    json: bool,
    output: Output,
    records: u64,
    missed: u64,
}

impl Tester {
    async fn run(mut self, given: Option<Made>) -> Result<Exit, Failure> {
        let written = match given {
            None => self.stdin().await?,
            Some(record) => self.one(record)?,
        };
        output::settled(written.and_then(|()| self.output.flush()))?;
        if self.missed > 0 {
            let expected = self.expect.join(", ");
            talk(format_args!("{} of {} records do not go to {expected}", self.missed, self.records));
            return Ok(Exit::Failed);
        }
        Ok(Exit::Ok)
    }

    async fn stdin(&mut self) -> Result<Result<(), output::Error>, Failure> {
        if std::io::stdin().is_terminal() {
            return Err(Failure::usage(
                "headers-missing",
                "no record to test; give --header type=order.placed, or pipe lines of JSON into the command",
            ));
        }
        let mut lines = Lines::new(tokio::io::BufReader::new(tokio::io::stdin()));
        while let Some(line) = lines.next().await? {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let tested = parse(&line).and_then(|record| self.one(record));
            if let Err(error) =
                tested.map_err(|failure| failure.at(format_args!("line {}", lines.number())))?
            {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    fn one(&mut self, mut record: Made) -> Result<Result<(), output::Error>, Failure> {
        let before: Vec<String> = record.headers.iter().map(|(name, _)| name.to_owned()).collect();
        self.table.derive(&mut record.headers, &record.data)?;
        let derived: Vec<String> = record
            .headers
            .iter()
            .map(|(name, _)| name.to_owned())
            .filter(|name| !before.contains(name))
            .collect();
        let explanation = explain_subject(&record.subject(), &self.table);
        self.records += 1;
        if !self.expect.is_empty() {
            let mut streams: Vec<&str> =
                explanation.destinations.iter().map(|place| &*place.stream).collect();
            let mut expected: Vec<&str> = self.expect.iter().map(String::as_str).collect();
            streams.sort_unstable();
            expected.sort_unstable();
            self.missed += u64::from(streams != expected);
        }
        Ok(self.write(&record, &derived, &explanation))
    }

    fn write(
        &mut self,
        record: &Made,
        derived: &[String],
        explanation: &Explanation,
    ) -> Result<(), output::Error> {
        if self.json {
            let (headers, key) = (Headers(&record.headers), record.key.as_str());
            return self.output.json(&Tested { headers, derived, key, explanation });
        }
        if self.records > 1 {
            self.output.line("")?;
        }
        let mut shown: Vec<String> = Vec::new();
        for (name, value) in record.headers.iter() {
            let mark = if derived.iter().any(|derived| derived == name) { " (derived)" } else { "" };
            shown.push(format!("{name}={value:?}{mark}"));
        }
        self.output.line(if shown.is_empty() { "no headers".to_owned() } else { shown.join(" ") })?;
        self.output.line(explanation)
    }
}
