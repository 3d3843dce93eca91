//! `headworks dlq redrive`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use headworks_router::dead_letter::{
    Bucket, Error, Options, Outcome, Reason, Redriven, Summary, Target, list, redrive,
};
use headworks_router::lookup::DynamoItems;
use headworks_router::{RouteTable, Writers, writer_config};
use headworks_telemetry::RecordTracer;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::list::short;
use super::{Place, Which, failure};
use crate::ask;
use crate::aws::Services;
use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::output::{self, Output, talk};
use crate::routes;
use crate::simulate::duration_of;

/// Letters of one go: Ctrl-C ends a run between two of them.
const AT_ONCE: usize = 32;
/// Letters that are counted before the question; more are only said to be more.
const MOST_COUNTED: u64 = 1_000;
/// Time between two lines that say how far it is.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// Puts dead letters back on their way, with the identity that they had, and moves each to redriven/ once its record
/// is stored.
///
/// A run that was stopped is resumed by the same command: what went is gone from the letters. Letters that stay
/// are named with the reason, and exit code 1 says that there are some.
#[derive(Debug, clap::Args)]
#[command(after_help = Exit::HELP)]
#[command(group(clap::ArgGroup::new("target").required(true).args(["routes", "to"])))]
pub struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    which: Which,
    /// To the destinations that did not get them, in the form that this route table gives them.
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// On this stream, as they were found. On the inbound stream they are routed anew, so that destinations that had
    /// them get them again.
    #[arg(long, value_name = "STREAM")]
    to: Option<String>,
    /// How long the letters of one go are tried, 1ms to 10m.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration_of)]
    patience: Duration,
    /// Says what would be done and does nothing.
    #[arg(long)]
    dry_run: bool,
    /// Does not ask.
    #[arg(long, short = 'y')]
    yes: bool,
    /// Prints a line of JSON per letter.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let target = match (&args.to, &args.routes) {
        (Some(stream), _) => Target::Stream(stream.clone()),
        (None, Some(file)) => Target::Destinations(Arc::new(routes::load(file)?)),
        (None, None) => return Err(Failure::usage("target-missing", "give --routes FILE or --to STREAM")),
    };
    let (bucket, services) = args.place.open().await?;
    let cancel = interrupt::token()?;
    if !args.dry_run {
        let question = tokio::select! {
            question = question(&bucket, &args, &target) => question?,
            () = cancel.cancelled() => return Ok(Exit::Ok),
        };
        let Some(question) = question else {
            talk(format_args!("no such dead letters in s3://{}", bucket.name()));
            return Ok(Exit::Ok);
        };
        if !ask::confirmed(&question, args.yes).await? {
            return Ok(Exit::Ok);
        }
    }
    let mut options = Options::new(target);
    options.filter = args.which.filter();
    options.after.clone_from(&args.which.after);
    options.patience = args.patience;
    options.dry_run = args.dry_run;
    if let Target::Destinations(table) = &options.target
        && looks_up(table)
    {
        options.items = Some(Arc::new(DynamoItems::new(services.dynamodb())));
    }
    let mut run = Run {
        options,
        left: args.which.limit(),
        json: args.json,
        output: Some(Output::stdout()),
        trouble: Ok(()),
        total: Summary::default(),
    };
    let ended = run.all(&bucket, &services, &cancel).await;
    run.say(&cancel);
    ended?;
    run.trouble?;
    Ok(if run.total.partly + run.total.left == 0 { Exit::Ok } else { Exit::Failed })
}

fn looks_up(table: &RouteTable) -> bool {
    !table.lookups().is_empty()
}

/// How many letters there are and where they would go; `None` if there are none.
async fn question(bucket: &Bucket, args: &Args, target: &Target) -> Result<Option<String>, Failure> {
    let (filter, limit) = (args.which.filter(), args.which.limit() as u64);
    let (mut after, mut count) = (args.which.after.clone(), 0u64);
    loop {
        let page = list(bucket, &filter, after.as_deref(), 100).await.map_err(|error| failure(&error))?;
        count += page.letters.len() as u64;
        after = page.next;
        if after.is_none() || count >= limit.min(MOST_COUNTED) {
            break;
        }
    }
    let many = match count.min(limit) {
        0 => return Ok(None),
        _ if after.is_some() && limit > count => format!("{count} or more dead letters"),
        1 => "1 dead letter".to_owned(),
        many => format!("{many} dead letters"),
    };
    let place = match target {
        Target::Stream(stream) => format!("on the stream {stream}"),
        Target::Destinations(_) => "on their destinations".to_owned(),
    };
    Ok(Some(format!("{many} of s3://{} will be put {place}.", bucket.name())))
}

struct Run {
    options: Options,
    left: usize,
    json: bool,
    output: Option<Output>,
    trouble: Result<(), Failure>,
    total: Summary,
}

impl Run {
    async fn all(
        &mut self,
        bucket: &Bucket,
        services: &Services,
        cancel: &CancellationToken,
    ) -> Result<(), Failure> {
        let writers =
            Writers::new(services.kinesis.client.clone(), writer_config(), RecordTracer::disabled())
                .map_err(|error| Failure::usage(error.code(), error))?;
        let ended = self.gos(bucket, &writers, cancel).await;
        writers.shutdown().await;
        ended.map_err(|error| failure(&error))
    }

    async fn gos(
        &mut self,
        bucket: &Bucket,
        writers: &Writers,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let mut said = Instant::now();
        while self.left > 0 && !self.total.finished && !cancel.is_cancelled() && self.output.is_some() {
            self.options.limit = Some(AT_ONCE.min(self.left));
            let options = self.options.clone();
            let went = redrive(bucket, writers, &options, &mut |redriven| self.letter(redriven)).await;
            let Summary { done, partly, left, last, finished } = went?;
            self.left -= usize::try_from(done + partly + left).unwrap_or(usize::MAX).min(self.left);
            self.total.done += done;
            self.total.partly += partly;
            self.total.left += left;
            self.total.finished = finished;
            self.options.after = last;
            if said.elapsed() >= SAY_EVERY && !finished {
                said = Instant::now();
                talk(format_args!(
                    "{} dead letters so far",
                    self.total.done + self.total.partly + self.total.left
                ));
            }
        }
        Ok(())
    }

    fn letter(&mut self, redriven: &Redriven) {
        let Some(output) = &mut self.output else { return };
        let line = Line::of(redriven);
        let written = if self.json { output.json(&line) } else { output.line(line.text()) };
        if let Err(error) = written.and_then(|()| output.flush()) {
            self.output = None;
            self.trouble = output::settled(Err(error));
        }
    }

    fn say(&self, cancel: &CancellationToken) {
        let Summary { done, partly, left, finished, .. } = &self.total;
        let went = if self.options.dry_run { "would go" } else { "went" };
        let mut line = format!("{done} dead letters {went}");
        for (count, what) in [(partly, "in part"), (left, "stay as they are")] {
            if *count > 0 {
                line.push_str(&format!(", {count} {what}"));
            }
        }
        talk(line);
        if !finished
            && (cancel.is_cancelled() || self.left == 0)
            && let Some(last) = &self.options.after
        {
            talk(format_args!(
                "there may be more: the same command goes on, with --after {last} without what stayed"
            ));
        }
    }
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    key: &'a str,
    outcome: &'static str,
    streams: &'a [String],
    reasons: &'a [Reason],
}

impl<'a> Line<'a> {
    fn of(redriven: &'a Redriven) -> Self {
        let (outcome, streams, reasons): (_, &[String], &[Reason]) = match &redriven.outcome {
            Outcome::Done { streams } => ("done", streams, &[]),
            Outcome::Partly { streams, reasons } => ("partly", streams, reasons),
            Outcome::Left { reasons } => ("left", &[], reasons),
            _ => ("unknown", &[], &[]),
        };
        Self { key: &redriven.key, outcome, streams, reasons }
    }

    fn text(&self) -> String {
        let mut text = format!("{} {}", self.outcome, self.key);
        if !self.streams.is_empty() {
            text.push_str(&format!(" -> {}", self.streams.join(", ")));
        }
        for reason in self.reasons {
            text.push_str(&format!("; {}: {}", short(reason), reason.message.escape_debug()));
        }
        text
    }
}
