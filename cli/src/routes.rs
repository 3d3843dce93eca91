//! `headworks routes`: route tables, checked and explained.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use headworks_record::Headers;
use headworks_router::table::{Error, Explanation, RouteTable, explain};
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure};
use crate::output::{self, Output, talk};
use crate::pair::{self, Header};
use crate::send::input::Pairs;
use crate::send::line::Lines;

/// Checks a route table, or says where records with certain headers go and why.
#[derive(Debug, clap::Subcommand)]
pub enum Args {
    /// Compiles a route table: prints its streams, or the line and the reason why it is refused.
    #[command(after_help = Exit::HELP)]
    Check {
        /// The table, .toml or .json.
        file: PathBuf,
        /// Prints one line of JSON.
        #[arg(long)]
        json: bool,
    },
    /// Says which rule matches and why, for --header or for lines of JSON on stdin.
    ///
    /// A line is an object of headers, {"type": "order.placed"}, or a record as `send` takes it and
    /// `simulate --dry-run` prints it.
    #[command(after_help = Exit::HELP)]
    Test {
        /// The table, .toml or .json.
        #[arg(long, value_name = "FILE", env = "HEADWORKS_ROUTES")]
        routes: PathBuf,
        /// A header of the record; repeat it for several. Default: lines from stdin.
        #[arg(long = "header", value_name = "NAME=VALUE")]
        headers: Vec<Header>,
        /// A stream that the record must go to; repeat it for several. Other streams, or none, then fail the
        /// check with exit code 1.
        #[arg(long, value_name = "STREAM")]
        expect: Vec<String>,
        /// Prints one line of JSON per record.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    match args {
        Args::Check { file, json } => check(&file, json),
        Args::Test { routes, headers, expect, json } => {
            let table = RouteTable::load(&routes).map_err(|error| match error {
                Error::Unreadable { .. } => Failure::environment(error.code(), &error),
                _ => Failure::usage(error.code(), &error),
            })?;
            Tester { table, expect, json, output: Output::stdout(), records: 0, missed: 0 }
                .run(&headers)
                .await
        }
    }
}

#[derive(Serialize)]
struct Checked<'a> {
    rules: usize,
    mode: headworks_router::table::Mode,
    streams: Vec<&'a str>,
}

fn check(file: &std::path::Path, json: bool) -> Result<Exit, Failure> {
    let table = RouteTable::load(file).map_err(|error| match error {
        Error::Unreadable { .. } => Failure::environment(error.code(), &error),
        _ => Failure::failed(error.code(), &error),
    })?;
    let checked = Checked {
        rules: table.len(),
        mode: table.mode(),
        streams: table.streams().iter().map(|stream| &**stream).collect(),
    };
    let mut output = Output::stdout();
    let mut write = || {
        if json {
            output.json(&checked)?;
        } else {
            output.line(format_args!(
                "{}: {} rules, streams: {}",
                file.display(),
                checked.rules,
                checked.streams.join(", ")
            ))?;
        }
        output.flush()
    };
    finish(write()).map(|()| Exit::Ok)
}

fn finish(written: Result<(), output::Error>) -> Result<(), Failure> {
    match written.err().and_then(output::Error::failure) {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

#[derive(Serialize)]
struct Tested<'a> {
    headers: &'a serde_json::Map<String, serde_json::Value>,
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
    async fn run(mut self, given: &[Header]) -> Result<Exit, Failure> {
        let written = if given.is_empty() { self.stdin().await? } else { self.one(&pair::headers(given)?) };
        finish(written.and_then(|()| self.output.flush()))?;
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
                "no headers to test; give --header type=order.placed, or pipe lines of JSON into the command",
            ));
        }
        let mut lines = Lines::new(tokio::io::BufReader::new(tokio::io::stdin()));
        while let Some(line) = lines.next().await? {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let headers = parse(&line).map_err(|f| f.at(format_args!("line {}", lines.number())))?;
            if let Err(error) = self.one(&headers) {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    fn one(&mut self, headers: &Headers) -> Result<(), output::Error> {
        let explanation = explain(headers, &self.table);
        self.records += 1;
        if !self.expect.is_empty() {
            let mut streams: Vec<&str> =
                explanation.destinations.iter().map(|place| &*place.stream).collect();
            let mut expected: Vec<&str> = self.expect.iter().map(String::as_str).collect();
            streams.sort_unstable();
            expected.sort_unstable();
            self.missed += u64::from(streams != expected);
        }
        if self.json {
            let headers = headers.iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
            return self.output.json(&Tested { headers: &headers, explanation: &explanation });
        }
        if self.records > 1 {
            self.output.line("")?;
        }
        let shown: Vec<String> = headers.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        self.output.line(if shown.is_empty() { "no headers".to_owned() } else { shown.join(" ") })?;
        self.output.line(&explanation)
    }
}

/// The headers in a line: the line itself, or what it has under `headers`.
fn parse(line: &[u8]) -> Result<Headers, Failure> {
    #[derive(Deserialize)]
    struct Record {
        headers: Pairs,
    }
    let pairs = match serde_json::from_slice::<Pairs>(line) {
        Ok(pairs) => pairs,
        Err(error) => match serde_json::from_slice::<Record>(line) {
            Ok(record) => record.headers,
            Err(_) => {
                return Err(Failure::usage(
                    "line-malformed",
                    format_args!(
                        "{error}; a line is an object of headers such as {{\"type\": \"order.placed\"}}"
                    ),
                ));
            }
        },
    };
    let mut headers = Headers::new();
    for (name, value) in pairs.0 {
        headers.set(name, value)?;
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_headers_or_a_record() {
        for line in [r#"{"type":"a"}"#, r#"{"key":"k","headers":{"type":"a"},"data":{}}"#] {
            assert_eq!(parse(line.as_bytes()).unwrap().get("type"), Some("a"), "{line}");
        }
        assert!(parse(b"{}").unwrap().is_empty());
        for (line, code) in [
            ("x", "line-malformed"),
            (r#"{"a":1}"#, "line-malformed"),
            (r#"{"A":""}"#, "header-name-invalid"),
        ] {
            assert_eq!(parse(line.as_bytes()).unwrap_err().code(), code, "{line}");
        }
    }
}
