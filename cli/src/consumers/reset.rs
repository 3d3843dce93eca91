//! `headworks consumers reset`.

use std::str::FromStr;
use std::sync::Arc;

use headworks_consumer::admin::{Change, Target, plan_reset};
use headworks_consumer::lease::{Lease, LeaseStore};
use headworks_consumer::{SequenceNumber, StreamShard};
use headworks_record::ShardId;
use serde::Serialize;

use super::{Application, Parts, Place, Where, failure, named, shown};
use crate::ask;
use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::moment::moment;
use crate::output::{self, Output, talk};

/// Moves the checkpoints of an application that does not run, after it has said what will change.
///
/// While workers are alive it refuses: they would write their own checkpoints over the new ones.
#[derive(Debug, clap::Args)]
#[command(after_help = Exit::HELP)]
pub struct Args {
    #[command(flatten)]
    application: Application,
    /// Where to: trim-horizon, latest, a time (how long ago, or RFC 3339), or for one --shard the sequence number of a
    /// record, with after: in front of it to begin behind that record.
    #[arg(long, value_name = "PLACE")]
    to: To,
    /// Shard to move, of several streams as stream/shard; repeat it for several. Default: all.
    #[arg(long = "shard", value_name = "SHARD")]
    shards: Vec<String>,
    /// Says what would change and does nothing.
    #[arg(long)]
    dry_run: bool,
    /// Takes the leases away from workers that are alive; what they write later is refused.
    #[arg(long)]
    force: bool,
    /// Does not ask.
    #[arg(long, short = 'y')]
    yes: bool,
    /// Prints a line of JSON per shard.
    #[arg(long)]
    json: bool,
}

/// A place to go to.
#[derive(Debug, Clone)]
struct To(Target);

impl FromStr for To {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        match text.to_ascii_lowercase().replace('_', "-").as_str() {
            "trim-horizon" => return Ok(Self(Target::TrimHorizon)),
            "latest" => return Ok(Self(Target::Latest)),
            _ => {}
        }
        if let Some(sequence) = SequenceNumber::new(text.to_owned()) {
            return Ok(Self(Target::Sequence(sequence)));
        }
        let after = text.strip_prefix("after:").map(str::to_owned);
        if let Some(sequence) = after.and_then(SequenceNumber::new) {
            return Ok(Self(Target::AfterSequence(sequence)));
        }
        moment(text).map(|at| Self(Target::Timestamp(at.into()))).map_err(|_| {
            Failure::usage(
                "place-invalid",
                format_args!(
                    "{text:?} is not a place; write trim-horizon, latest, how long ago (10m), a time (2026-01-31T12:00:00Z), a sequence number or after: and one"
                ),
            )
        })
    }
}

pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    if matches!(args.to.0, Target::Sequence(_) | Target::AfterSequence(_)) && args.shards.len() != 1 {
        return Err(Failure::usage(
            "shard-missing",
            format_args!(
                "a sequence number is a place in one shard, and {} are named; give --shard once",
                args.shards.len()
            ),
        ));
    }
    let Parts { streams, store, services, leases } = args.application.open().await?;
    let cancel = interrupt::token()?;
    let failed = |error| failure(&args.application, &services, &error);
    let found = args.shards.iter().map(|shard| key_of(shard, &leases, &args.application.application));
    let shards = found.collect::<Result<Vec<ShardId>, Failure>>()?;
    let store: Arc<dyn LeaseStore> = store;
    let reset = tokio::select! {
        reset = plan_reset(streams.as_ref(), store, &args.to.0, &shards) => reset.map_err(failed)?,
        () = cancel.cancelled() => return Ok(Exit::Ok),
    };
    if reset.changes().is_empty() {
        talk("every checkpoint is there already: nothing changes");
        return Ok(Exit::Ok);
    }
    if args.dry_run {
        return written(reset.changes(), args.json).map(|()| Exit::Ok);
    }
    // Said before the question; with --json stdout has only what was changed.
    for change in reset.changes() {
        talk(line(change));
    }
    let question = format!(
        "{} checkpoints of {} will be moved as said above.",
        reset.changes().len(),
        args.application.application
    );
    if !ask::confirmed(&question, args.yes).await? {
        return Ok(Exit::Ok);
    }
    if !args.force {
        talk("looking whether workers are alive, for some seconds");
    }
    let idle = reset.owners().await.map_err(failed)?;
    if !idle.is_empty() && !args.force {
        talk(format_args!(
            "warning: {} own leases and have no heartbeat, as workers of the KCL; make sure that they have ended",
            idle.join(", ")
        ));
    }
    // Not called off in the middle: each lease is claimed, written and given up.
    let changed = reset.apply(args.force).await.map_err(failed)?;
    written(&changed, args.json)?;
    talk(format_args!("{} checkpoints were moved", changed.len()));
    Ok(Exit::Ok)
}

/// The lease of a shard, which is named alone, with its stream, or as its lease key.
fn key_of(shard: &str, leases: &[Lease], application: &str) -> Result<ShardId, Failure> {
    let is_meant = |key: &ShardId| {
        shard == key.as_str() || shard == named(key) || shard == StreamShard::of(key).shard.as_str()
    };
    let found: Vec<&ShardId> = leases.iter().map(|lease| &lease.shard).filter(|key| is_meant(key)).collect();
    match found[..] {
        [key] => Ok(key.clone()),
        [] => Err(Failure::environment(
            "lease-not-found",
            format_args!(
                "{application} has no lease of the shard {shard}; headworks consumers list {application} names those that there are"
            ),
        )),
        _ => Err(Failure::usage(
            "shard-ambiguous",
            format_args!(
                "{application} reads {} shards of the name {shard}; write stream/shard, such as {}",
                found.len(),
                named(found[0])
            ),
        )),
    }
}

#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    shard: Where,
    before: Place,
    after: Place,
}

fn written(changes: &[Change], json: bool) -> Result<(), Failure> {
    let mut output = Output::stdout();
    let mut write = || {
        for change in changes {
            if json {
                let Change { shard, before, after } = change;
                let (before, after) = (Place::of(before), Place::of(after));
                output.json(&Line { shard: Where::of(shard), before, after })?;
            } else {
                output.line(line(change))?;
            }
        }
        output.flush()
    };
    output::settled(write())
}

fn line(Change { shard, before, after }: &Change) -> String {
    format!("{}: {} -> {}", named(shard), shown(before), shown(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_a_form() {
        let to = |text: &str| text.parse::<To>().unwrap().0;
        assert_eq!(to("trim-horizon"), Target::TrimHorizon);
        assert_eq!(to("TRIM_HORIZON"), Target::TrimHorizon);
        assert_eq!(to("Latest"), Target::Latest);
        assert_eq!(to("123"), Target::Sequence(SequenceNumber::new("123").unwrap()));
        assert_eq!(to("after:123"), Target::AfterSequence(SequenceNumber::new("123").unwrap()));
        assert!(matches!(to("10m"), Target::Timestamp(_)));
        assert!(matches!(to("2026-01-31T12:00:00Z"), Target::Timestamp(_)));
        for bad in ["", "here", "-1", "after:", "after:x", "2026-01-31"] {
            assert_eq!(bad.parse::<To>().unwrap_err().code(), "place-invalid", "{bad}");
        }
    }
}
