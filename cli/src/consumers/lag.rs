//! `headworks consumers lag`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use headworks_consumer::Checkpoint;
use headworks_consumer::admin::{Estimate, ShardLag, hot_shards, lag};
use headworks_record::ShardId;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{Application, Parts, Place, Where, failure, leases, named, shown};
use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::moment;
use crate::output::{self, Output, talk};
use crate::simulate::duration_of;

/// Time between two looks at a checkpoint that does not move: workers write theirs at least once a second by default.
const SECOND_LOOK: Duration = Duration::from_secs(2);

/// Says for each shard how far an application is behind, in time and records, and marks shards that are hot or stuck.
///
/// Each shard is read a little; nothing is changed. A hot shard gets more than 80 % of what a shard takes, or
/// more than twice the mean. A stuck one is behind and its checkpoint did not move between two looks.
#[derive(Debug, clap::Args)]
#[command(after_help = Exit::HELP)]
pub struct Args {
    #[command(flatten)]
    application: Application,
    /// Looks again and again, until Ctrl-C.
    #[arg(long, short = 'w')]
    watch: bool,
    /// Time between two looks of --watch, 1s to 366 days.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = interval, requires = "watch")]
    every: Duration,
    /// How far behind a shard must be to be called stuck.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = duration_of)]
    stuck_after: Duration,
    /// Prints a line of JSON per shard.
    #[arg(long)]
    json: bool,
}

fn interval(text: &str) -> Result<Duration, Failure> {
    duration_of(text).and_then(|time| match time >= Duration::from_secs(1) {
        true => Ok(time),
        false => Err(Failure::usage(
            "duration-invalid",
            format_args!("the time {text:?} between two looks is too short; give at least 1s"),
        )),
    })
}

pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let parts = args.application.open().await?;
    let cancel = interrupt::token()?;
    let mut watch = Watch { parts, before: BTreeMap::new(), output: Output::stdout(), args };
    loop {
        match tokio::select! {
            looked = watch.look() => looked?,
            () = cancel.cancelled() => return Ok(Exit::Ok),
        } {
            Ok(()) => {}
            Err(output::Error::Closed) => return Ok(Exit::Ok),
            error => output::settled(error)?,
        }
        if !watch.args.watch || !pause(watch.args.every, &cancel).await {
            return Ok(Exit::Ok);
        }
    }
}

/// Tells whether to go on.
async fn pause(time: Duration, cancel: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(time) => true,
        () = cancel.cancelled() => false,
    }
}

struct Watch {
    parts: Parts,
    args: Args,
    /// The checkpoints of the look before.
    before: BTreeMap<ShardId, Checkpoint>,
    output: Output,
}

impl Watch {
    async fn look(&mut self) -> Result<Result<(), output::Error>, Failure> {
        let application = &self.args.application;
        let lags = lag(self.parts.streams.as_ref(), self.parts.store.as_ref())
            .await
            .map_err(|error| failure(application, &self.parts.services, &error))?;
        let stuck = self.stuck(&lags).await?;
        let hot: BTreeSet<ShardId> = hot_shards(&lags).into_iter().map(|lag| lag.shard.clone()).collect();
        self.before = lags.iter().map(|lag| (lag.shard.clone(), lag.checkpoint.clone())).collect();
        let at = moment::shown(std::time::SystemTime::now());
        let mut write = || {
            for lag in &lags {
                let line = Line::new(&at, lag, hot.contains(&lag.shard), stuck.contains(&lag.shard));
                if self.args.json {
                    self.output.json(&line)?;
                } else {
                    self.output.line(line.text(lag))?;
                }
            }
            self.output.flush()
        };
        let written = write();
        if !self.args.json {
            talk(summary(&at, &lags, hot.len(), stuck.len()));
        }
        Ok(written)
    }

    /// The shards that are behind and whose checkpoints stand still. Without a look before, one is made after a while.
    async fn stuck(&self, lags: &[ShardLag]) -> Result<BTreeSet<ShardId>, Failure> {
        let behind = |lag: &&ShardLag| lag.behind.is_some_and(|behind| behind >= self.args.stuck_after);
        let late: Vec<&ShardLag> = lags.iter().filter(behind).collect();
        if late.is_empty() {
            return Ok(BTreeSet::new());
        }
        let other = if self.before.is_empty() {
            tokio::time::sleep(SECOND_LOOK).await;
            let leases = leases(&self.args.application.application, &self.parts.store).await?;
            &leases.into_iter().map(|lease| (lease.shard, lease.checkpoint)).collect()
        } else {
            &self.before
        };
        let stands = |lag: &&ShardLag| other.get(&lag.shard) == Some(&lag.checkpoint);
        Ok(late.into_iter().filter(stands).map(|lag| lag.shard.clone()).collect())
    }
}

fn summary(at: &str, lags: &[ShardLag], hot: usize, stuck: usize) -> String {
    let most = lags.iter().filter_map(|lag| lag.behind).max().unwrap_or_default();
    let records: u64 = lags.iter().filter_map(|lag| lag.records).map(|records| records.records()).sum();
    let seconds = most.as_secs_f64();
    format!(
        "{at}: {} shards, at most {seconds:.1} s behind, about {records} records wait; {hot} hot, {stuck} stuck",
        lags.len()
    )
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    at: &'a str,
    #[serde(flatten)]
    shard: Where,
    owner: Option<&'a str>,
    #[serde(flatten)]
    place: Place,
    behind_ms: Option<u64>,
    records: Option<u64>,
    /// exact, about or at-least.
    #[serde(skip_serializing_if = "Option::is_none")]
    estimate: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_second: Option<u64>,
    hot: bool,
    stuck: bool,
    expired: bool,
}

impl<'a> Line<'a> {
    fn new(at: &'a str, lag: &'a ShardLag, hot: bool, stuck: bool) -> Self {
        Self {
            at,
            shard: Where::of(&lag.shard),
            owner: lag.owner.as_deref(),
            place: Place::of(&lag.checkpoint),
            behind_ms: lag.behind.map(|behind| u64::try_from(behind.as_millis()).unwrap_or(u64::MAX)),
            records: lag.records.map(|records| records.records()),
            estimate: lag.records.map(|records| match records {
                Estimate::Exact(_) => "exact",
                Estimate::About(_) => "about",
                Estimate::AtLeast(_) => "at-least",
            }),
            bytes_per_second: lag.bytes_per_second.map(|rate| rate as u64),
            hot,
            stuck,
            expired: lag.expired,
        }
    }

    fn text(&self, lag: &ShardLag) -> String {
        let behind = match lag.behind {
            Some(behind) => format!("{:.1} s behind", behind.as_secs_f64()),
            None if lag.expired => "expired unread".to_owned(),
            None if lag.checkpoint.is_end() => "read to its end".to_owned(),
            None => "not begun".to_owned(),
        };
        let mut text = format!("{} {} {behind}", named(&lag.shard), self.owner.unwrap_or("nobody"));
        match lag.records {
            Some(Estimate::Exact(records)) => text.push_str(&format!(", {records} records")),
            Some(Estimate::About(records)) => text.push_str(&format!(", about {records} records")),
            Some(Estimate::AtLeast(records)) => text.push_str(&format!(", {records} or more records")),
            None => {}
        }
        text.push_str(&format!(", at {}", shown(&lag.checkpoint)));
        for (marked, mark) in [(self.hot, " HOT"), (self.stuck, " STUCK")] {
            if marked {
                text.push_str(mark);
            }
        }
        text
    }
}
