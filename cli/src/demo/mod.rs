//! `headworks demo`: sends website events through the whole pipeline and proves that none is lost.

mod books;
mod census;
mod consumers;
mod latency;
mod ledger;
mod report;
mod reshard;
mod sender;
mod tamper;
mod traffic;
mod waterfall;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::pipeline::{self, INBOUND, Pipeline};
use books::Books;
use consumers::Consumers;
use report::grouped;
use sender::{Sender, Sending};

pub use tamper::Tamper;

/// The most offences that are listed; all are counted.
const LISTED: usize = 10;

/// Starts the whole pipeline on the embedded stack, sends website events through it while shards are split,
/// and checks that every acknowledged record was consumed on the right stream, byte for byte and in order.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How many events are sent, 1 to 10,000,000.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub records: u64,
    /// Events per second; 0 sends as fast as they are acknowledged.
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// Sessions under way at a time, 1 to 100,000.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub sessions: u32,
    /// The same seed gives the same events.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The share of records that are traced, 0 to 1.
    #[arg(long, default_value_t = 0.01)]
    pub trace_ratio: f64,
    /// How long the demo waits without any progress before it closes the books, in seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub patience: u64,
    /// What goes wrong, such as "put-records throttle p=0.05 seed=7" or "put-records lost every=50"; may be given
    /// several times. The check must hold all the same.
    #[arg(long = "fault", value_name = "FAULT")]
    pub faults: Vec<headworks_local::faults::Fault>,
    /// Drops, swaps or alters one record on its way into the books: the check must fail.
    #[arg(long, value_enum)]
    pub tamper: Option<Tamper>,
}

/// Runs the demo; the code is 0 only if the check holds.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let begin = Instant::now();
    let mut say = |line: &str| eprintln!("[{:>6.1} s] {line}", begin.elapsed().as_secs_f64());
    let config =
        pipeline::Config { trace_ratio: args.trace_ratio, faults: args.faults.clone(), ..Default::default() };
    let pipeline = Pipeline::start(config, &mut say).await?;
    let books = Books::new(args.tamper);
    let consumers = Consumers::start(&pipeline, &books, args.trace_ratio).await?;
    say("consumers: one per outbound stream, with enhanced fan-out, leases and checkpoints in DynamoDB");

    let sender = Sender::start(&pipeline, &books, &args).await?;
    watch(&pipeline, &books, sender, &args, &mut say).await?;

    say("everything is quiet: counting what is on the streams");
    let mut routed = BTreeMap::new();
    for stream in pipeline.outbound() {
        routed.insert(stream.clone(), census::take(&pipeline.stack().kinesis(), stream).await?);
    }
    let inbound = census::take(&pipeline.stack().kinesis(), INBOUND).await?;
    let summaries = consumers.stop().await?;
    pipeline.flush_telemetry().await?;
    let spans = pipeline.collector().spans();
    let mut closed = books.close();
    let (counts, offences) = closed.ledger.close();

    println!("\n{}", report::counts(&counts, &routed));
    println!("{}", report::latencies(&mut closed.latencies));
    println!(
        "  {INBOUND}: {} records in {} Kinesis records on {} shards, {} misplaced by a split and put again",
        grouped(inbound.records),
        grouped(inbound.kinesis_records),
        inbound.shards,
        grouped(inbound.misplaced),
    );
    for (stream, census) in &routed {
        let consumer = summaries.get(stream);
        println!(
            "  {stream}: {} Kinesis records on {} shards, {} misplaced; its consumer dropped {} repeats",
            grouped(census.kinesis_records),
            census.shards,
            grouped(census.misplaced),
            grouped(consumer.map_or(0, |status| status.repeats_dropped)),
        );
    }
    print_journey(&closed.candidates, &spans);
    pipeline.shutdown().await?;

    let acknowledged: u64 = counts.values().map(|counts| counts.acknowledged).sum();
    let misrouted = routed.iter().find(|(stream, census)| {
        counts.get(*stream).is_some_and(|counts| census.records < counts.acknowledged)
    });
    if let Some((stream, census)) = misrouted.filter(|_| offences.is_empty()) {
        bail!("{stream} holds {} records, fewer than were acknowledged for it", census.records);
    }
    if acknowledged < args.records {
        eprintln!(
            "error: only {} of {} records were acknowledged",
            grouped(acknowledged),
            grouped(args.records)
        );
        return Ok(ExitCode::FAILURE);
    }
    if let Some(first) = offences.first() {
        eprintln!("FAILED: {} offences, the first of them:", grouped(offences.len() as u64));
        eprintln!("  {first}");
        offences.iter().skip(1).take(LISTED - 1).for_each(|offence| eprintln!("  {offence}"));
        return Ok(ExitCode::FAILURE);
    }
    println!(
        "\nOK: {} records acknowledged, every one consumed on the right stream, byte for byte, in order per key ({:.1} s).",
        grouped(acknowledged),
        begin.elapsed().as_secs_f64()
    );
    Ok(ExitCode::SUCCESS)
}

/// Shows progress, splits a shard of each kind on the way, and returns when everything that was acknowledged has
/// been consumed, or when nothing has moved for longer than the patience.
async fn watch(
    pipeline: &Pipeline,
    books: &Books,
    sender: Sender,
    args: &Args,
    say: &mut (dyn FnMut(&str) + Send),
) -> anyhow::Result<()> {
    let kinesis = pipeline.stack().kinesis();
    let mut splits = vec![(args.records * 2 / 3, "clicks"), (args.records / 3, INBOUND)];
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let mut said = Instant::now();
    let mut moved = (Instant::now(), (0, 0));
    loop {
        ticks.tick().await;
        let Sending { sent, answered, failed, .. } = sender.status();
        if let Some((_, stream)) = splits.pop_if(|(at, _)| sent >= *at) {
            let shard = reshard::split_widest(&kinesis, stream).await?;
            say(&format!("split {shard} of {stream} after {} records", grouped(sent)));
        }
        let (consumed, outstanding) = books.ledger(|ledger| (ledger.consumed(), ledger.outstanding()));
        let finished = sender.is_finished();
        let done = finished && outstanding == 0;
        if said.elapsed() >= Duration::from_secs(1) || done {
            said = Instant::now();
            let routed = pipeline.mapping().counters().records;
            say(&format!(
                "sent {:>9}   acknowledged {:>9}   Kinesis records routed {:>7}   consumed {:>9}",
                grouped(sent),
                grouped(answered - failed),
                grouped(routed),
                grouped(consumed)
            ));
        }
        if moved.1 != (answered, consumed) {
            moved = (Instant::now(), (answered, consumed));
        }
        if done {
            return sender.finish().await;
        }
        if moved.0.elapsed() > Duration::from_secs(args.patience) {
            say(&format!("nothing has moved for {} s: closing the books", args.patience));
            return if finished { sender.finish().await } else { Ok(()) };
        }
    }
}

/// Draws the journey of the traced record that shows most.
fn print_journey(candidates: &[books::Candidate], spans: &[std::sync::Arc<headworks_local::otlp::Span>]) {
    let journeys =
        candidates.iter().map(|candidate| (candidate, waterfall::journey(spans, candidate.identity)));
    // Of equally full journeys the first: `max_by_key` would take the last.
    let fullest = journeys.reduce(|best, next| {
        if waterfall::operations(&next.1) > waterfall::operations(&best.1) { next } else { best }
    });
    match fullest.filter(|(_, journey)| !journey.is_empty()) {
        Some((candidate, journey)) => {
            println!("\n  The journey of one record: {}", candidate.title);
            print!("{}", waterfall::draw(&journey, candidate.identity));
        }
        None => println!("\n  No record was traced; --trace-ratio decides how many are."),
    }
}
