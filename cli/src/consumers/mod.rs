//! `headworks consumers`: who reads what, how far behind, and moving them elsewhere.

mod lag;
mod list;
mod reset;

use std::sync::Arc;

use headworks_consumer::admin::Error;
use headworks_consumer::lease::{self, LeaseStore as _, Table};
use headworks_consumer::streams::{self, Kinesis};
use headworks_consumer::{Checkpoint, Position};
use serde::Serialize;

use crate::aws::{self, Services};
use crate::exit::{Exit, Failure};

/// Applications that read streams, by their lease tables: those of this consumer SDK, and of the KCL.
#[derive(Debug, clap::Subcommand)]
pub enum Args {
    #[command(about = "Lists applications, or the workers and shards of some")]
    List(list::Args),
    #[command(about = "Says for each shard how far an application is behind")]
    Lag(lag::Args),
    #[command(about = "Moves the checkpoints of an application that does not run")]
    Reset(reset::Args),
}

pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    match args {
        Args::List(args) => list::run(args).await,
        Args::Lag(args) => lag::run(args).await,
        Args::Reset(args) => reset::run(args).await,
    }
}

/// An application and its stream. DynamoDB is found by AWS_ENDPOINT_URL_DYNAMODB, else AWS's own for the region.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
struct Application {
    /// The application: the name of its lease table.
    application: String,
    /// The stream that it reads, by name or ARN.
    stream: String,
    /// Table of its workers' heartbeats. Default: the application's name and -workers.
    #[arg(long, value_name = "TABLE")]
    workers_table: Option<String>,
    #[command(flatten)]
    aws: aws::Args,
}

/// What an application is made of.
struct Parts {
    streams: Kinesis,
    store: Arc<Table>,
    services: Services,
}

impl Application {
    async fn open(&self) -> Result<Parts, Failure> {
        let services = self.aws.services().await?;
        Ok(Parts {
            streams: Kinesis::new(services.kinesis.client.clone(), self.stream.clone()),
            store: Arc::new(table(&services, &self.application, self.workers_table.as_deref())),
            services,
        })
    }
}

fn table(services: &Services, application: &str, workers: Option<&str>) -> Table {
    let workers = workers.map_or_else(|| format!("{application}-workers"), str::to_owned);
    Table::new(services.dynamodb(), application, workers)
}

/// The leases, or what is missing.
async fn leases(application: &str, store: &Table) -> Result<Vec<lease::Lease>, Failure> {
    store.leases().await.map_err(|error| lease_failure(application, &error))
}

/// The workers of an application; the KCL's have no table of their own.
async fn beats(application: &str, store: &Table) -> Result<Vec<lease::Beat>, Failure> {
    match store.beats().await {
        Err(error) if is_missing(&error) => Ok(Vec::new()),
        beats => beats.map_err(|error| lease_failure(application, &error)),
    }
}

fn is_missing(error: &lease::Error) -> bool {
    matches!(error, lease::Error::Refused { reason, .. } if reason.contains("ResourceNotFoundException"))
}

fn lease_failure(application: &str, error: &lease::Error) -> Failure {
    if let lease::Error::Refused { table, .. } = error
        && is_missing(error)
        && table == application
    {
        return Failure::environment(
            "application-not-found",
            format_args!(
                "there is no lease table {application:?}; headworks consumers list names the applications that there are"
            ),
        );
    }
    let remedy = match error {
        lease::Error::Unavailable { .. } => {
            "; check AWS_ENDPOINT_URL_DYNAMODB, the region and the credentials"
        }
        _ => "",
    };
    Failure::environment(error.code(), format_args!("{error}{remedy}"))
}

fn failure(application: &Application, services: &Services, error: &Error) -> Failure {
    match error {
        Error::WorkersAlive { workers } => Failure::failed(
            error.code(),
            format_args!(
                "the workers {} of {} are alive and would write their checkpoints over the new ones; stop them, or repeat with --force, which takes their leases away",
                workers.join(", "),
                application.application
            ),
        ),
        Error::Moved { .. } => Failure::failed(error.code(), error),
        Error::Lease(error) => lease_failure(&application.application, error),
        Error::Stream(error) => stream_failure(&application.stream, services, error),
        error => Failure::environment(error.code(), error),
    }
}

/// What a failed read of a stream means for a command.
pub(crate) fn stream_failure(stream: &str, services: &Services, error: &streams::Error) -> Failure {
    let place = &services.kinesis.place;
    match error {
        streams::Error::NotFound { .. } => Failure::environment(
            "stream-not-found",
            format_args!("there is no stream {stream:?} at {place}: {error}; check its name and the region"),
        ),
        streams::Error::Unavailable { .. } => Failure::environment(
            "kinesis-unreachable",
            format_args!(
                "Kinesis at {place} cannot be read: {error}; check the address, or start a stack on this machine with headworks dev"
            ),
        ),
        error => Failure::environment(error.code(), format_args!("Kinesis at {place}: {error}")),
    }
}

/// A checkpoint in words: a sentinel, or a sequence number with what is done of it.
fn shown(checkpoint: &Checkpoint) -> String {
    match checkpoint {
        Checkpoint::At(Position { sequence, sub: -1 }) => format!("before {sequence}"),
        Checkpoint::At(Position { sequence, sub: i64::MAX }) => format!("past {sequence}"),
        Checkpoint::At(Position { sequence, sub }) => format!("{sequence}:{sub}"),
        sentinel => sentinel.text().into_owned(),
    }
}

/// A checkpoint as the lease has it.
#[derive(Debug, Serialize)]
struct Place {
    checkpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub_sequence_number: Option<i64>,
}

impl Place {
    fn of(checkpoint: &Checkpoint) -> Self {
        let at = matches!(checkpoint, Checkpoint::At(_));
        Self { checkpoint: checkpoint.text().into_owned(), sub_sequence_number: at.then(|| checkpoint.sub()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headworks_consumer::SequenceNumber;

    #[test]
    fn checkpoints_are_shown_as_places() {
        let sequence = SequenceNumber::new("49").unwrap();
        for (checkpoint, text) in [
            (Checkpoint::TrimHorizon, "TRIM_HORIZON"),
            (Checkpoint::At(Position::before(sequence.clone())), "before 49"),
            (Checkpoint::At(Position::past(sequence.clone())), "past 49"),
            (Checkpoint::At(Position::new(sequence, 3)), "49:3"),
        ] {
            assert_eq!(shown(&checkpoint), text);
        }
    }
}
