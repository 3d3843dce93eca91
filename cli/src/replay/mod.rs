//! `headworks replay`: a time range of a stream, read again.

mod resume;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headworks_consumer::replay::{Error, Replay, Token};
use headworks_consumer::streams::Kinesis;
use headworks_consumer::{Batch, Delivered, HandlerError, Undecodable};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::aws::{self, Services};
use crate::consumers::stream_failure;
use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::moment::moment;
use crate::output::{self, Output, talk};
use crate::pair::Pair;
use crate::tail::decode::Found;
use crate::tail::format::{self, Format};
use crate::tail::passes;
use resume::{Resume, SAVE_EVERY};

/// Shows the records of a stream that arrived within a time range, as `tail` shows them: beside the consumers that
/// run, without leases.
///
/// Each shard is in order, parents before children. A replay that was stopped goes on where it was: at worst the
/// records of the last moment are shown again.
#[derive(Debug, clap::Args)]
#[command(after_help = Exit::HELP)]
pub struct Args {
    /// The stream's name or ARN.
    stream: String,
    #[command(flatten)]
    aws: aws::Args,
    /// First arrival: how long ago (10m, 1h30m) or a time (RFC 3339). Needed unless there is something to resume.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Option<Timestamp>,
    /// Arrivals before this time, as --from. Default: now.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to: Option<Timestamp>,
    /// Keeps in this file how far it is, and goes on from there if the file is there; or the token itself that an
    /// earlier replay printed.
    #[arg(long, value_name = "FILE|TOKEN")]
    resume: Option<Resume>,
    /// Shows only records with this header; repeat it for several, which must all hold.
    #[arg(long = "filter", value_name = "HEADER=VALUE")]
    filters: Vec<Pair>,
    /// Shows the whole of a Kinesis record that cannot be taken apart. Default: the replay stops there.
    #[arg(long)]
    undecodable_raw: bool,
    /// Shards that are read at the same time, 1 to 1,000.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    shards_at_once: u16,
    /// How records are shown.
    #[arg(long, value_enum, default_value_t, env = "HEADWORKS_FORMAT")]
    format: Format,
    /// Short for --format json.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let token = args.resume.as_ref().map(|resume| resume.token(&args.stream)).transpose()?.flatten();
    if let Some(token) = &token
        && token.is_done()
    {
        talk(format_args!("the replay is done: {} records were shown", token.records()));
        return Ok(Exit::Ok);
    }
    let services = args.aws.services().await?;
    let streams = Arc::new(Kinesis::new(services.kinesis.client.clone(), args.stream.clone()));
    let replay = match (token, args.from) {
        (Some(token), from) => {
            if from.or(args.to).is_some() {
                talk("going on with the range of the replay that is resumed, not with --from and --to");
            }
            Replay::resume(streams, token)
        }
        (None, Some(from)) => {
            let to = args.to.unwrap_or_else(Timestamp::now);
            Replay::new(streams, args.stream.clone(), from.into(), to.into())
        }
        (None, None) => {
            return Err(Failure::usage(
                "from-missing",
                "there is nothing to resume and no beginning; give --from 1h or --from 2026-01-31T12:00:00Z",
            ));
        }
    };
    let replay = replay
        .shards_at_once(usize::from(args.shards_at_once))
        .undecodable(if args.undecodable_raw { Undecodable::DeliverRaw } else { Undecodable::Stop });
    let cancel = interrupt::token()?;
    let place = Place { resume: args.resume, last: None, saved: Instant::now(), said: Instant::now() };
    let printer = Printer {
        output: Mutex::new(Output::stdout()),
        trouble: Mutex::new(None),
        place: Mutex::new(place),
        stream: args.stream.clone(),
        filters: args.filters,
        format: if args.json { Format::Json } else { args.format },
    };
    let shown = |batch: Batch| std::future::ready(printer.batch(&batch));
    let ended = replay.run(shown, |token| printer.reached(token), cancel).await;
    let kept = printer.keep();
    if let Some(trouble) = lock(&printer.trouble).take() {
        return trouble.failure().map_or(Ok(Exit::Ok), Err);
    }
    ended.map_err(|error| failure(&args.stream, &services, &error))?;
    kept.map(|()| Exit::Ok)
}

fn failure(stream: &str, services: &Services, error: &Error) -> Failure {
    match error {
        Error::Stream(error) => stream_failure(stream, services, error),
        Error::BadRange { from_ms, to_ms } => Failure::usage(
            error.code(),
            format_args!(
                "--to {} lies in front of --from {}; swap them",
                crate::moment::shown_ms(*to_ms),
                crate::moment::shown_ms(*from_ms)
            ),
        ),
        Error::BadToken { .. } => Failure::usage(error.code(), error),
        Error::Record(_) => Failure::failed(
            error.code(),
            format_args!("{error}; --undecodable-raw shows such records whole and goes on"),
        ),
        error => Failure::environment(error.code(), error),
    }
}

/// How far it is, and when that was last kept and said.
struct Place {
    resume: Option<Resume>,
    last: Option<Token>,
    saved: Instant,
    said: Instant,
}

struct Printer {
    output: Mutex<Output>,
    trouble: Mutex<Option<output::Error>>,
    place: Mutex<Place>,
    stream: String,
    filters: Vec<Pair>,
    format: Format,
}

impl Printer {
    /// Shows a batch. It is flushed before the place behind it is kept.
    fn batch(&self, batch: &Batch) -> Result<(), HandlerError> {
        let now = Timestamp::now();
        let mut output = lock(&self.output);
        let mut write = || {
            for delivered in batch {
                if passes(&self.filters, &delivered.record.headers) {
                    format::write(&mut output, self.format, &self.stream, &found(delivered), now)?;
                }
            }
            output.flush()
        };
        write().map_err(|error| {
            *lock(&self.trouble) = Some(error);
            HandlerError::permanent("stdout cannot be written to")
        })
    }

    fn reached(&self, token: &Token) {
        let place = &mut *lock(&self.place);
        place.last = Some(token.clone());
        if place.said.elapsed() >= SAVE_EVERY {
            place.said = Instant::now();
            talk(format_args!("{} records, {} shards done", token.records(), token.shards_done()));
        }
        if place.saved.elapsed() >= SAVE_EVERY
            && let Some(resume) = &place.resume
        {
            place.saved = Instant::now();
            if let Err(failure) = resume.keep(token) {
                talk(format_args!("warning: {failure}"));
            }
        }
    }

    /// Keeps the last place, and says how it ended.
    fn keep(&self) -> Result<(), Failure> {
        let place = lock(&self.place);
        let Some(token) = &place.last else { return Ok(()) };
        let (records, shards) = (token.records(), token.shards_done());
        let done = if token.is_done() { "done" } else { "not done" };
        talk(format_args!("{records} records of {}, {shards} shards; {done}", self.stream));
        let kept = match &place.resume {
            Some(resume) => resume.keep(token),
            None => Ok(()),
        };
        if !token.is_done() {
            match &place.resume {
                Some(Resume::File(file)) if kept.is_ok() => {
                    talk(format_args!("to go on: --resume {}", file.display()));
                }
                _ => talk(format_args!("to go on: --resume '{token}'")),
            }
        }
        kept
    }
}

fn found(delivered: &Delivered) -> Found {
    Found {
        record: delivered.record.clone(),
        shard: delivered.shard.clone(),
        sequence_number: delivered.sequence_number.to_string(),
        sub_sequence_number: usize::try_from(delivered.sub_sequence_number).unwrap_or(usize::MAX),
        arrival_ms: i64::try_from(delivered.arrival_ms).unwrap_or(i64::MAX),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
