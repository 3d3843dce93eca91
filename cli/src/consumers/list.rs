//! `headworks consumers list`.

use headworks_consumer::admin::applications;
use headworks_consumer::lease::{Beat, Lease};
use serde::Serialize;

use super::{Place, Where, beats, lease_failure, leases, named, shown, table};
use crate::aws;
use crate::exit::{Exit, Failure};
use crate::output::{self, Output, talk};

/// Lists applications with their workers and shards: who reads what, and up to where.
///
/// An application is a table that is laid out as a lease table. DynamoDB is found by AWS_ENDPOINT_URL_DYNAMODB, else
/// AWS's own for the region.
#[derive(Debug, clap::Args)]
#[command(after_help = Exit::HELP)]
pub struct Args {
    /// Applications, by the names of their lease tables. Default: all there are.
    applications: Vec<String>,
    #[command(flatten)]
    aws: aws::Args,
    /// Prints a line of JSON per application.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let services = args.aws.services().await?;
    let names = match args.applications.is_empty() {
        false => args.applications,
        true => applications(&services.dynamodb()).await.map_err(|error| match &error {
            headworks_consumer::admin::Error::Lease(error) => lease_failure("", error),
            error => Failure::environment(error.code(), error),
        })?,
    };
    let mut output = Output::stdout();
    for name in &names {
        let store = table(&services, name, None);
        let mut leases = leases(name, &store).await?;
        leases.sort_by(|a, b| a.shard.cmp(&b.shard));
        let mut beats = beats(name, &store).await?;
        beats.sort_by(|a, b| a.worker.cmp(&b.worker));
        let mut write = || {
            if args.json {
                output.json(&Line::new(name, &leases, &beats))?;
            } else {
                text(&mut output, name, &leases, &beats)?;
            }
            output.flush()
        };
        match write() {
            Ok(()) => {}
            Err(output::Error::Closed) => return Ok(Exit::Ok),
            error => output::settled(error)?,
        }
    }
    talk(format_args!("{} applications", names.len()));
    Ok(Exit::Ok)
}

/// Every worker that beats or owns a lease, with the number of its leases and its load.
fn workers(leases: &[Lease], beats: &[Beat]) -> Vec<Worker> {
    let mut names: Vec<&str> = beats.iter().map(|beat| beat.worker.as_str()).collect();
    names.extend(leases.iter().filter_map(|lease| lease.owner.as_deref()));
    names.sort_unstable();
    names.dedup();
    let worker = |name: &str| {
        let beat = beats.iter().find(|beat| beat.worker == name);
        Worker {
            worker: name.to_owned(),
            leases: leases.iter().filter(|lease| lease.owner.as_deref() == Some(name)).count(),
            bytes_per_second: beat.map(|beat| beat.load),
        }
    };
    names.into_iter().map(worker).collect()
}

fn text(output: &mut Output, name: &str, leases: &[Lease], beats: &[Beat]) -> Result<(), output::Error> {
    let workers = workers(leases, beats);
    output.line(format_args!("{name}: {} workers, {} shards", workers.len(), leases.len()))?;
    for Worker { worker, leases, bytes_per_second } in workers {
        let load = match bytes_per_second {
            Some(load) => format!(", {load} bytes/s"),
            None => ", no heartbeat".to_owned(),
        };
        output.line(format_args!("  worker {worker}: {leases} shards{load}"))?;
    }
    for lease in leases {
        let owner = lease.owner.as_deref().unwrap_or("nobody");
        output.line(format_args!("  {} {owner} {}", named(&lease.shard), shown(&lease.checkpoint)))?;
    }
    Ok(())
}

#[derive(Debug, Serialize)]
struct Worker {
    worker: String,
    leases: usize,
    /// What it says that it reads; absent for a worker without a heartbeat, such as the KCL's.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_second: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Shard<'a> {
    #[serde(flatten)]
    shard: Where,
    owner: Option<&'a str>,
    #[serde(flatten)]
    place: Place,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    application: &'a str,
    workers: Vec<Worker>,
    shards: Vec<Shard<'a>>,
}

impl<'a> Line<'a> {
    fn new(application: &'a str, leases: &'a [Lease], beats: &[Beat]) -> Self {
        let shard = |lease: &'a Lease| Shard {
            shard: Where::of(&lease.shard),
            owner: lease.owner.as_deref(),
            place: Place::of(&lease.checkpoint),
        };
        Self { application, workers: workers(leases, beats), shards: leases.iter().map(shard).collect() }
    }
}
