//! `headworks simulate`: made-up records at a rate of choice.

mod cursor;
mod dice;
mod function;
mod keys;
mod plan;
mod schedule;
mod template;
mod words;

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use headworks_record::Record;
use headworks_telemetry::Telemetry;
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::connect;
use crate::courier::{self, Counts, Parcel, Source};
use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::output::{self, Output, talk};
use crate::pair::Pair;
use crate::payload;
use crate::tail::format::Headers;
use plan::{Plan, Wishes};

pub use keys::{MAX_KEYS, MAX_SKEW};
pub(crate) use schedule::duration_of;
pub use schedule::{MAX_DURATION, MAX_RATE, Rate, Schedule};

/// Where time begins for a given seed, so that the same seed gives the same records, times included.
const SEEDED_START: &str = "2026-01-01T00:00:00Z";
/// How far behind its schedule the last record may be; less is the jitter of timers and machines.
const GRACE: Duration = Duration::from_secs(1);
/// Records between two looks at whether the command was interrupted, where nothing waits.
const YIELD_EVERY: u64 = 1024;

/// Sends made-up records: a template with random and sequence fields, a rate, keys with skew.
///
/// Without --count, --duration and --schedule it goes on until Ctrl-C.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{}\n\n{}", function::HELP, Exit::HELP))]
pub struct Args {
    #[command(flatten)]
    gateway: connect::Options,
    /// Data of the records: a file, or the template itself if it has a brace in it. What begins like JSON must
    /// become JSON. Default: a website event in JSON, with the headers type, tenant and content-type.
    #[arg(long, value_name = "FILE|TEXT", env = "HEADWORKS_TEMPLATE")]
    template: Option<String>,
    /// Partition key, a template without {{key}}.
    #[arg(long, value_name = "TEMPLATE", default_value = plan::KEY)]
    key: String,
    /// A header; its value is a template, which may refer to the key and to headers before it. Repeat it for
    /// several.
    #[arg(long = "header", value_name = "NAME=TEMPLATE")]
    headers: Vec<Pair>,
    /// How many keys {{k}} is drawn from, 1 to 1,000,000.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=MAX_KEYS))]
    keys: u64,
    /// How unevenly keys are drawn: the exponent of Zipf's law, 0 (all alike) to 10.
    #[arg(long, value_name = "EXPONENT", default_value_t = 0.0, value_parser = skew)]
    skew: f64,
    /// Records per second: 100, 100/s, 30/m; above 0, up to 10,000,000 (as many as the gateway takes).
    #[arg(long, value_name = "RATE", default_value = "10/s", conflicts_with = "schedule")]
    rate: Rate,
    /// Rates over time instead of --rate, as time:rate for steps and time:rate-rate for ramps, for example
    /// 10s:100,30s:100-1000.
    #[arg(long, value_name = "PHASES")]
    schedule: Option<Schedule>,
    /// Ends after this many records, at least 1.
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Ends after this time, above 0, up to 366 days.
    #[arg(long, value_name = "TIME", value_parser = duration_of)]
    duration: Option<Duration>,
    /// The same seed gives the same records, 0 to 2^64 - 1. Default: a random one, which is said at the end.
    #[arg(long)]
    seed: Option<u64>,
    /// What time the first record has in {{now}} and {{iso_now}}; the others follow by their rate. Default: now; with
    /// --seed 2026-01-01T00:00:00Z, so that times are the same too. `now` or RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = start)]
    start: Option<Start>,
    /// Prints the records as lines of JSON that `send` takes, without waiting between them, and sends nothing.
    #[arg(long)]
    dry_run: bool,
    /// Prints a line of JSON on stdout for each record's answer, as `send` does.
    #[arg(long, conflicts_with = "dry_run")]
    json: bool,
}

#[derive(Debug, Clone, Copy)]
enum Start {
    Now,
    At(Timestamp),
}

fn start(text: &str) -> Result<Start, Failure> {
    if text == "now" {
        return Ok(Start::Now);
    }
    text.parse().map(Start::At).map_err(|_| {
        Failure::usage(
            "start-invalid",
            format_args!("{text:?} is not a time; write now or for example 2026-01-31T12:00:00Z"),
        )
    })
}

fn skew(text: &str) -> Result<f64, Failure> {
    text.parse().ok().filter(|skew| (0.0..=MAX_SKEW).contains(skew)).ok_or_else(|| {
        Failure::usage("skew-invalid", format_args!("the skew {text:?} is not a number from 0 to {MAX_SKEW}"))
    })
}

pub(crate) async fn run(args: Args, telemetry: &Telemetry) -> Result<Exit, Failure> {
    let seed = args.seed.unwrap_or_else(rand::random);
    let body = args.template.as_deref().map(plan::template_text).transpose()?;
    let (keys, skew) = (args.keys, args.skew);
    let plan = Plan::new(Wishes { body, key: &args.key, headers: &args.headers, keys, skew, seed })?;
    let schedule = args.schedule.unwrap_or_else(|| Schedule::steady(args.rate));
    let schedule = match args.duration {
        Some(end) => schedule.cut(end),
        None => schedule,
    };
    let epoch = match (args.start, args.seed) {
        (Some(Start::At(at)), _) => at,
        (None, Some(_)) => SEEDED_START.parse().unwrap_or(Timestamp::UNIX_EPOCH),
        (Some(Start::Now), _) | (None, None) => Timestamp::now(),
    };
    let series = Series { plan, schedule, epoch, next: 0, end: args.count.unwrap_or(u64::MAX) };
    let cancel = interrupt::token()?;
    if args.dry_run {
        return dry_run(series, &cancel).await;
    }
    let producer = tokio::select! {
        connected = args.gateway.connect(telemetry) => connected?,
        () = cancel.cancelled() => return Ok(Exit::Ok),
    };
    let counts = Arc::new(Counts::default());
    let begin = Instant::now();
    let mut paced = Paced { series, begin, left_out: false };
    let output = args.json.then(Output::stdout);
    let delivered = tokio::select! {
        delivered = courier::deliver(&producer, &mut paced, output, &counts, &cancel) => delivered,
        () = progress(&counts, begin) => Ok(()),
    };
    if paced.left_out {
        talk(
            "the time was over before all records of the schedule were sent: the gateway takes fewer per second",
        );
    }
    if args.seed.is_none() {
        talk(format_args!("the same records again: --seed {seed}"));
    }
    courier::finish(&counts, begin, delivered)
}

/// Records one after the other, each with the time at which it is due.
#[derive(Debug)]
struct Series {
    plan: Plan,
    schedule: Schedule,
    epoch: Timestamp,
    next: u64,
    end: u64,
}

impl Series {
    fn next(&mut self) -> Result<Option<(u64, Duration, Record)>, Failure> {
        if self.next >= self.end {
            return Ok(None);
        }
        let Some(due) = self.schedule.due(self.next) else { return Ok(None) };
        let number = self.next;
        self.next += 1;
        let time = self.epoch.checked_add(due).map_err(|error| {
            Failure::usage(
                "start-invalid",
                format_args!("the times of records leave the calendar: {error}; choose an earlier --start"),
            )
        })?;
        Ok(Some((number, due, self.plan.record(number, time)?)))
    }
}

/// The same, each held back until it is due.
struct Paced {
    series: Series,
    begin: Instant,
    left_out: bool,
}

impl Source for Paced {
    const UNIT: &'static str = "record";

    async fn next(&mut self) -> Result<Option<Parcel>, Failure> {
        let elapsed = self.begin.elapsed();
        // A schedule is about time: what is overdue when it ends is left out, and that is said.
        let over = self.series.schedule.end().is_some_and(|end| elapsed > end + GRACE);
        let Some((number, due, record)) = self.series.next()? else { return Ok(None) };
        if over {
            self.left_out = true;
            return Ok(None);
        }
        sleep_until(self.begin + due).await;
        if number % YIELD_EVERY == 0 {
            tokio::task::yield_now().await;
        }
        Ok(Some(Parcel { number: number + 1, record }))
    }
}

#[derive(Serialize)]
struct Line<'a> {
    key: &'a str,
    headers: Headers<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<payload::Data<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

async fn dry_run(mut series: Series, cancel: &CancellationToken) -> Result<Exit, Failure> {
    let mut output = Output::stdout();
    let mut write = |record: &Record| {
        let (data, data_base64) = payload::fields(&record.data);
        output.json(&Line { key: record.key.as_str(), headers: Headers(&record.headers), data, data_base64 })
    };
    while !cancel.is_cancelled() {
        let Some((number, _, record)) = series.next()? else { break };
        if let Err(error) = write(&record) {
            return error.failure().map_or(Ok(Exit::Ok), Err);
        }
        if number % YIELD_EVERY == 0 {
            tokio::task::yield_now().await;
        }
    }
    match output.flush().map_err(output::Error::failure) {
        Err(Some(failure)) => Err(failure),
        Ok(()) | Err(None) => Ok(Exit::Ok),
    }
}

/// Tells how far it is, for ever: every second on a terminal, every ten elsewhere.
async fn progress(counts: &Counts, begin: Instant) {
    let every = Duration::from_secs(if std::io::stderr().is_terminal() { 1 } else { 10 });
    let mut ticks = interval_at(begin + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut before = 0;
    loop {
        ticks.tick().await;
        let tally = counts.tally();
        let rate = (tally.stored - before) as f64 / every.as_secs_f64();
        before = tally.stored;
        talk(format_args!(
            "{:>5.0} s: {} sent, {} stored, {} failed, {rate:.0}/s",
            begin.elapsed().as_secs_f64(),
            tally.sent,
            tally.stored,
            tally.failed + tally.unknown
        ));
    }
}
