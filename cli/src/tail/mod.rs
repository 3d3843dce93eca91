//! `headworks tail`: shows the records of a stream.

pub(crate) mod decode;
pub(crate) mod format;
mod reader;
mod shards;
mod since;

use headworks_record::Headers;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::aws::{self, Kinesis};
use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::output::{self, Output, talk};
use crate::pair::Pair;
use decode::{Oddities, Raw, take_apart};
use reader::{Event, Reader};
use shards::Family;

pub use format::Format;
pub use since::Since;

/// Pages that readers may be ahead of what is printed; a page has up to 10 MiB.
const PAGES_AHEAD: usize = 4;

/// Shows the records of a stream: all shards, parents before children, without leases.
#[derive(Debug, clap::Args)]
#[command(after_help = Exit::HELP)]
pub struct Args {
    /// The stream's name or ARN.
    stream: String,
    #[command(flatten)]
    aws: aws::Args,
    /// Where to begin: TRIM_HORIZON (the oldest record), LATEST (behind the newest), how long ago (10m, 1h30m)
    /// or a time (RFC 3339). Default: TRIM_HORIZON, with --follow LATEST.
    #[arg(long, value_name = "PLACE", env = "HEADWORKS_SINCE")]
    since: Option<Since>,
    /// Goes on with new records until Ctrl-C. Without it the command ends when it has caught up.
    #[arg(long, short = 'f')]
    follow: bool,
    /// Shows only records with this header; repeat it for several, which must all hold.
    #[arg(long = "filter", value_name = "HEADER=VALUE")]
    filters: Vec<Pair>,
    /// How records are shown.
    #[arg(long, value_enum, default_value_t, env = "HEADWORKS_FORMAT")]
    format: Format,
    /// Short for --format json.
    #[arg(long)]
    json: bool,
    /// Ends after this many shown records, at least 1. Default: no limit.
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let kinesis = args.aws.kinesis().await?;
    let now = Timestamp::now();
    let start =
        args.since.unwrap_or(if args.follow { Since::Latest } else { Since::TrimHorizon }).start(now)?;
    let cancel = interrupt::token()?;
    let listed = tokio::select! {
        listed = shards::list(&kinesis, &args.stream) => listed?,
        () = cancel.cancelled() => return Ok(Exit::Ok),
    };
    let (events, inbox) = mpsc::channel(PAGES_AHEAD);
    let mut tail = Tail {
        family: Family::new(listed, start),
        format: if args.json { Format::Json } else { args.format },
        filters: args.filters,
        left: args.count.unwrap_or(u64::MAX),
        stream: args.stream,
        follow: args.follow,
        kinesis,
        output: Output::stdout(),
        oddities: Oddities::default(),
        shown: 0,
        readers: JoinSet::new(),
        events,
    };
    let result = tail.pump(inbox, &cancel).await;
    tail.readers.shutdown().await;
    tail.summary();
    result?;
    Ok(if tail.oddities.undecodable > 0 { Exit::Failed } else { Exit::Ok })
}

struct Tail {
    kinesis: Kinesis,
    stream: String,
    follow: bool,
    filters: Vec<Pair>,
    format: Format,
    left: u64,
    family: Family,
    output: Output,
    oddities: Oddities,
    shown: u64,
    readers: JoinSet<()>,
    events: mpsc::Sender<Event>,
}

/// Whether to go on.
type Flow = std::ops::ControlFlow<()>;

impl Tail {
    async fn pump(
        &mut self,
        mut inbox: mpsc::Receiver<Event>,
        cancel: &CancellationToken,
    ) -> Result<(), Failure> {
        let mut reading = self.start_ready();
        while reading > 0 {
            let event = tokio::select! {
                event = inbox.recv() => event,
                () = cancel.cancelled() => None,
            };
            match event {
                None => break,
                Some(Event::Page { shard, records }) => {
                    let range = self.family.range(&shard);
                    let shown = self.page(&shard, &range, &records);
                    match shown.map_err(output::Error::failure) {
                        Ok(Flow::Continue(())) => {}
                        Ok(Flow::Break(())) | Err(None) => break,
                        Err(Some(failure)) => return Err(failure),
                    }
                }
                Some(Event::End { shard }) => {
                    self.family.done(&shard);
                    let listed = shards::list(&self.kinesis, &self.stream).await?;
                    self.family.grow(listed);
                    reading = reading - 1 + self.start_ready();
                }
                Some(Event::CaughtUp) => reading -= 1,
                Some(Event::Failed(failure)) => return Err(failure),
            }
        }
        Ok(())
    }

    fn start_ready(&mut self) -> usize {
        let ready = self.family.ready();
        let many = ready.len();
        for (shard, start) in ready {
            let reader = Reader {
                kinesis: self.kinesis.clone(),
                stream: self.stream.clone(),
                shard: shard.id,
                start,
                follow: self.follow,
                events: self.events.clone(),
            };
            self.readers.spawn(reader.run());
        }
        many
    }

    fn page(
        &mut self,
        shard: &headworks_record::ShardId,
        range: &headworks_record::HashRange,
        records: &[Raw],
    ) -> Result<Flow, output::Error> {
        let now = Timestamp::now();
        for raw in records {
            for found in take_apart(raw, shard, range, &mut self.oddities, &mut |line| talk(line)) {
                if !passes(&self.filters, &found.record.headers) {
                    continue;
                }
                format::write(&mut self.output, self.format, &self.stream, &found, now)?;
                self.shown += 1;
                self.left -= 1;
                if self.left == 0 {
                    self.output.flush()?;
                    return Ok(Flow::Break(()));
                }
            }
        }
        // Whoever follows waits for these.
        self.output.flush()?;
        Ok(Flow::Continue(()))
    }

    fn summary(&self) {
        let Oddities { misplaced, damaged, undecodable } = self.oddities;
        let mut line = format!("{} records of {} at {}", self.shown, self.stream, self.kinesis.place);
        for (count, what) in [
            (misplaced, "misplaced aggregates skipped, their writer puts them again"),
            (damaged, "damaged aggregates shown as they are"),
            (undecodable, "Kinesis records that cannot be shown"),
        ] {
            if count > 0 {
                line.push_str(&format!("; {count} {what}"));
            }
        }
        talk(line);
    }
}

pub(crate) fn passes(filters: &[Pair], headers: &Headers) -> bool {
    filters.iter().all(|filter| headers.get(&filter.name) == Some(&filter.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_must_hold() {
        let mut headers = Headers::new();
        headers.set("type", "a").unwrap();
        headers.set("tenant", "x").unwrap();
        let passes = |texts: &[&str]| {
            let filters: Vec<Pair> = texts.iter().map(|text| text.parse().unwrap()).collect();
            super::passes(&filters, &headers)
        };
        assert!(passes(&[]) && passes(&["type=a"]) && passes(&["type=a", "tenant=x"]));
        assert!(!passes(&["type=b"]) && !passes(&["type=a", "absent="]));
    }
}
