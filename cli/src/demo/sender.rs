//! The website: sends events through the producer SDK and notes the answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use headworks_producer::{Producer, Ticket};
use headworks_telemetry::Telemetry;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Args;
use super::books::Books;
use super::ledger::Number;
use super::traffic::Traffic;
use crate::pipeline::{Pipeline, telemetry};

/// Tickets whose answers are not noted yet.
const OPEN_TICKETS: usize = 50_000;
/// How long the last answers may take.
const CLOSE: Duration = Duration::from_secs(60);

/// How far the sending is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sending {
    /// Events handed to the producer.
    pub(super) sent: u64,
    /// Answers, failures included.
    pub(super) answered: u64,
    /// Events that were answered with an error.
    pub(super) failed: u64,
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
}

/// Sends in the background.
#[derive(Debug)]
pub(super) struct Sender {
    counters: Arc<Counters>,
    sending: JoinHandle<anyhow::Result<()>>,
    noting: JoinHandle<()>,
    telemetry: Telemetry,
}

impl Sender {
    /// Connects to the gateway and begins.
    pub(super) async fn start(pipeline: &Pipeline, books: &Books, args: &Args) -> anyhow::Result<Self> {
        let telemetry = telemetry("website", &pipeline.otlp_endpoint(), args.trace_ratio)?;
        let producer = Producer::builder()
            .endpoint(pipeline.gateway_endpoint())
            .stream(pipeline.inbound())
            .minter(telemetry.minter())
            .tracer(telemetry.tracer())
            .connect()
            .await?;
        let counters = Arc::new(Counters::default());
        let (tickets, answers) = mpsc::channel(OPEN_TICKETS);
        let noting = tokio::spawn(note(answers, books.clone(), Arc::clone(&counters)));
        let sending =
            tokio::spawn(send(producer, tickets, books.clone(), Arc::clone(&counters), args.clone()));
        Ok(Self { counters, sending, noting, telemetry })
    }

    /// How far it is.
    pub(super) fn status(&self) -> Sending {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { sent, answered, failed } = &*self.counters;
        Sending { sent: get(sent), answered: get(answered), failed: get(failed) }
    }

    /// Whether every event was sent and answered.
    pub(super) fn is_finished(&self) -> bool {
        self.sending.is_finished() && self.noting.is_finished()
    }

    /// What went wrong with the sending itself, if anything did.
    pub(super) async fn finish(self) -> anyhow::Result<()> {
        self.sending.await.context("the sending task")??;
        self.noting.await.context("the task that notes answers")?;
        self.telemetry.shutdown().await;
        Ok(())
    }
}

async fn send(
    producer: Producer,
    tickets: mpsc::Sender<(Number, Ticket)>,
    books: Books,
    counters: Arc<Counters>,
    args: Args,
) -> anyhow::Result<()> {
    let mut traffic = Traffic::new(args.seed, args.sessions as usize);
    let begin = tokio::time::Instant::now();
    for number in 0..args.records {
        if let Some(seconds) = number.checked_div(args.rate) {
            let rest = number % args.rate;
            let due =
                Duration::from_secs(seconds) + Duration::from_secs(1).mul_f64(rest as f64 / args.rate as f64);
            tokio::time::sleep_until(begin + due).await;
        }
        let event = traffic.next_event()?;
        let number = books.ledger(|ledger| ledger.sent(&event.record, event.stream));
        let ticket = producer.send(event.record).await;
        counters.sent.fetch_add(1, Ordering::Relaxed);
        tickets.send((number, ticket)).await.context("nobody notes the answers")?;
    }
    producer.flush().await;
    drop(tickets);
    producer.close(CLOSE).await;
    Ok(())
}

async fn note(mut answers: mpsc::Receiver<(Number, Ticket)>, books: Books, counters: Arc<Counters>) {
    while let Some((number, ticket)) = answers.recv().await {
        match ticket.await {
            Ok(_) => books.ledger(|ledger| ledger.acknowledged(number)),
            Err(error) => {
                // The first failure says what is wrong; the count says how much.
                if counters.failed.fetch_add(1, Ordering::Relaxed) == 0 {
                    eprintln!("error: record {number}: {error}");
                }
            }
        }
        counters.answered.fetch_add(1, Ordering::Relaxed);
    }
}
