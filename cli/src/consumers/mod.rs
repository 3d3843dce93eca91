//! `headworks consumers`: who reads what, how far behind, and moving them elsewhere.

mod lag;
mod list;
mod reset;

use std::collections::BTreeSet;
use std::sync::Arc;

use headworks_consumer::admin::Error;
use headworks_consumer::lease::{self, LeaseStore as _, Table};
use headworks_consumer::streams::{self, Kinesis, Several, Streams};
use headworks_consumer::{Checkpoint, Position, StreamIdentifier, StreamShard};
use headworks_record::ShardId;
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
    /// The stream that it reads, by name or ARN. Of an application of several streams, the one that is meant; all of
    /// them if none is given.
    stream: Option<String>,
    /// Table of its workers' heartbeats. Default: the application's name and -workers.
    #[arg(long, value_name = "TABLE")]
    workers_table: Option<String>,
    #[command(flatten)]
    aws: aws::Args,
}

/// What an application is made of.
struct Parts {
    streams: Arc<dyn Streams>,
    store: Arc<Table>,
    services: Services,
    /// Those of the streams that are meant.
    leases: Vec<lease::Lease>,
}

impl Application {
    async fn open(&self) -> Result<Parts, Failure> {
        let services = self.aws.services().await?;
        let store = Arc::new(table(&services, &self.application, self.workers_table.as_deref()));
        let mut leases = leases(&self.application, &store).await?;
        let streams = self.streams(&services, &leases)?;
        leases.retain(|lease| streams.has(&lease.shard));
        Ok(Parts { streams, store, services, leases })
    }

    /// The stream, or the streams that the leases name.
    fn streams(&self, services: &Services, leases: &[lease::Lease]) -> Result<Arc<dyn Streams>, Failure> {
        let kinesis = |stream: &str| Kinesis::new(services.kinesis.client.clone(), stream);
        let several: BTreeSet<StreamIdentifier> =
            leases.iter().filter_map(|lease| StreamShard::of(&lease.shard).stream).collect();
        if several.is_empty() {
            let stream = self.stream.as_deref().ok_or_else(|| {
                Failure::usage(
                    "stream-missing",
                    format_args!(
                        "the leases of {} do not say which stream it reads; name it behind the application",
                        self.application
                    ),
                )
            })?;
            return Ok(Arc::new(kinesis(stream)));
        }
        let wanted = self.stream.as_deref().map(|stream| stream.rsplit('/').next().unwrap_or(stream));
        let is_meant = |stream: &&StreamIdentifier| {
            wanted.is_none_or(|wanted| wanted == &**stream.name() || wanted == stream.as_str())
        };
        let meant: Vec<_> = several.iter().filter(is_meant).cloned().collect();
        if let (Some(wanted), true) = (wanted, meant.is_empty()) {
            let known: Vec<&str> = several.iter().map(|stream| &**stream.name()).collect();
            return Err(Failure::environment(
                "stream-not-read",
                format_args!("{} does not read {wanted:?}; it reads {}", self.application, known.join(", ")),
            ));
        }
        let source = |stream: StreamIdentifier| {
            let streams: Arc<dyn Streams> = Arc::new(kinesis(stream.name()));
            (stream, streams)
        };
        Ok(Arc::new(Several::new(meant.into_iter().map(source))))
    }

    /// The streams, for a message.
    fn streams_text(&self) -> &str {
        self.stream.as_deref().unwrap_or("of the application")
    }
}

/// A shard as people name it: with its stream in front where there are several.
fn named(key: &ShardId) -> String {
    match StreamShard::of(key) {
        StreamShard { stream: Some(stream), shard } => format!("{}/{shard}", stream.name()),
        StreamShard { stream: None, shard } => shard.to_string(),
    }
}

/// A shard as the lines of JSON name it.
#[derive(Debug, Serialize)]
struct Where {
    /// Absent where there is one stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    shard: String,
}

impl Where {
    fn of(key: &ShardId) -> Self {
        let StreamShard { stream, shard } = StreamShard::of(key);
        Self { stream: stream.map(|stream| stream.name().to_string()), shard: shard.to_string() }
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
    matches!(error, lease::Error::NoTable { .. })
}

fn lease_failure(application: &str, error: &lease::Error) -> Failure {
    if let lease::Error::NoTable { table, .. } = error
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
        Error::Stream(error) => stream_failure(application.streams_text(), services, error),
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
    fn shards_are_named_with_their_stream_where_there_are_several() {
        assert_eq!(named(&"shardId-000000000001".into()), "shardId-000000000001");
        let key = "123456789012:orders:1700000000:shardId-000000000001".into();
        assert_eq!(named(&key), "orders/shardId-000000000001");
        let json = serde_json::to_string(&Where::of(&key)).unwrap();
        assert_eq!(json, r#"{"stream":"orders","shard":"shardId-000000000001"}"#);
    }

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
