//! `headworks dlq`: the router's dead letters, listed, shown and put back on their way.

mod list;
mod redrive;
mod show;

use headworks_router::dead_letter::{Bucket, Error, Filter};
use jiff::Timestamp;

use crate::aws::{self, Services};
use crate::exit::{Exit, Failure};
use crate::moment::moment;

/// The router's dead letters: records that could not get through, as objects in a bucket.
#[derive(Debug, clap::Subcommand)]
pub enum Args {
    #[command(about = "Lists dead letters")]
    List(list::Args),
    #[command(
        about = "Shows dead letters whole: why they are here, where they come from, headers and payload"
    )]
    Show(show::Args),
    #[command(about = "Puts dead letters back on their way, with the identity that they had")]
    Redrive(redrive::Args),
}

pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    match args {
        Args::List(args) => list::run(args).await,
        Args::Show(args) => show::run(args).await,
        Args::Redrive(args) => redrive::run(args).await,
    }
}

/// Where the letters are. S3 is found by AWS_ENDPOINT_URL_S3, else AWS's own for the region.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
struct Place {
    /// The bucket.
    #[arg(long, value_name = "BUCKET", env = "HEADWORKS_DEAD_LETTER_BUCKET")]
    bucket: String,
    /// The bucket's name stands in the path, as S3 servers other than AWS's want it.
    #[arg(long, env = "HEADWORKS_S3_PATH_STYLE")]
    s3_path_style: bool,
    #[command(flatten)]
    aws: aws::Args,
}

impl Place {
    async fn open(&self) -> Result<(Bucket, Services), Failure> {
        let services = self.aws.services().await?;
        Ok((Bucket::new(services.s3(self.s3_path_style), self.bucket.clone()), services))
    }
}

/// Which letters; everything that is given must hold.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
struct Which {
    /// Inbound stream on which they were found.
    #[arg(long, value_name = "STREAM")]
    stream: Option<String>,
    /// Inbound shard on which they were found.
    #[arg(long, value_name = "SHARD", requires = "stream")]
    shard: Option<String>,
    /// Code of one of their reasons, such as destination-refused.
    #[arg(long, value_name = "CODE")]
    reason: Option<String>,
    /// Destination that did not get them.
    #[arg(long, value_name = "STREAM")]
    destination: Option<String>,
    /// Written at this time or later: how long ago (10m, 1h30m) or a time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Written before this time, as --since.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// Begins after this key, as an earlier run said it.
    #[arg(long, value_name = "KEY")]
    after: Option<String>,
    /// Ends after so many letters, at least 1. Default: no limit.
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

impl Which {
    fn filter(&self) -> Filter {
        Filter {
            stream: self.stream.clone(),
            shard: self.shard.clone(),
            reason: self.reason.clone(),
            destination: self.destination.clone(),
            since: self.since.map(Into::into),
            until: self.until.map(Into::into),
        }
    }

    fn limit(&self) -> usize {
        self.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
    }
}

fn failure(error: &Error) -> Failure {
    match error {
        Error::NotALetter { .. } => Failure::failed(error.code(), error),
        _ => Failure::environment(error.code(), error),
    }
}
