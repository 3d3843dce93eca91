//! The task that owns the connections.

use std::sync::Arc;

use headworks_proto::v1::PutStreamResponse;
use headworks_proto::v1::put_stream_response::Message as Told;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::Status;
use tracing::debug;

use crate::answer;
use crate::books::Books;
use crate::builder::Config;
use crate::connect::ConnectError;
use crate::error::Error;
use crate::link::Event;
use crate::links::Links;
use crate::outbox::{Entry, Settled};
use crate::session::Failure;

/// How many commands are taken before a batch is sent: enough to fill batches under load.
pub(crate) const COMMANDS_AT_ONCE: usize = 1024;

/// What a producer asks of its task.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly every command is a record: a box for each would cost more"
)]
pub(crate) enum Command {
    Send(Entry),
    Flush(oneshot::Sender<()>),
    Close { until: Instant, done: oneshot::Sender<()> },
}

pub(crate) struct Task {
    config: Arc<Config>,
    books: Books,
    queue: mpsc::Receiver<Command>,
    links: Links,
    flushes: Vec<(u64, oneshot::Sender<()>)>,
    closes: Vec<oneshot::Sender<()>>,
    give_up: Option<Instant>,
}

impl Task {
    /// Connects to one gateway at least, trying as long as the settings say; or, where the producer may
    /// begin offline, only begins to.
    pub(crate) async fn connect(
        config: Arc<Config>,
        books: Books,
        queue: mpsc::Receiver<Command>,
    ) -> Result<Self, ConnectError> {
        let links = Links::new(&config)?;
        let mut task =
            Self { config, books, queue, links, flushes: Vec::new(), closes: Vec::new(), give_up: None };
        if task.config.offline {
            return Ok(task);
        }
        let patience = task.config.connect_timeout;
        let until = Instant::now() + patience;
        let mut nothing = Vec::new();
        while !task.links.any_connected() {
            match timeout_at(until, task.links.next(&mut nothing)).await {
                Ok((link, event)) => task.happened(link, event, &mut nothing),
                Err(_elapsed) => {
                    let (endpoint, last) = task.links.complaints();
                    return Err(ConnectError::Unreachable { endpoint, patience, last });
                }
            }
            if task.links.iter().all(|link| link.last.is_final) {
                let (endpoint, reason) = task.links.complaints();
                return Err(ConnectError::Refused { endpoint, reason });
            }
        }
        Ok(task)
    }

    /// Runs until it is closed, or every producer is dropped, and everything is answered.
    pub(crate) async fn run(mut self) {
        let mut commands = Vec::with_capacity(COMMANDS_AT_ONCE);
        let mut settled: Vec<Settled> = Vec::new();
        // A deadline that is met early is harmless: the timer is set anew. So it is set only when it
        // has rung, or something must happen sooner, and not for every record.
        let mut timer = std::pin::pin!(sleep_until(Instant::now()));
        let mut rung = true;
        loop {
            self.books.settle_all(&mut settled);
            self.links.release();
            // Letting go of the sender is the signal.
            self.flushes.retain(|(end, _)| !self.links.is_settled(*end));
            let finished = self.queue.is_closed() && self.queue.is_empty();
            if finished && self.links.is_empty() {
                break;
            }
            let wake = [self.next_deadline(), self.give_up].into_iter().flatten().min();
            if let Some(wake) = wake.filter(|wake| rung || *wake < timer.deadline()) {
                timer.as_mut().reset(wake);
                rung = false;
            }
            tokio::select! {
                taken = self.queue.recv_many(&mut commands, COMMANDS_AT_ONCE), if !finished => {
                    if taken == 0 {
                        debug!("every producer was dropped");
                    }
                    commands.drain(..).for_each(|command| self.take(command));
                }
                (link, event) = self.links.next(&mut settled) => self.happened(link, event, &mut settled),
                () = &mut timer, if !rung => {
                    rung = true;
                    let now = Instant::now();
                    if self.next_deadline().is_some() {
                        self.expire(now, &mut settled);
                    }
                    if self.give_up.is_some_and(|until| until <= now) {
                        break;
                    }
                }
            }
        }
        self.books.settle_all(&mut settled);
        self.abandon();
    }

    /// When a record's time is over; never while the producer is offline and may be.
    fn next_deadline(&self) -> Option<Instant> {
        if self.config.offline && !self.links.any_connected() {
            return None;
        }
        self.links.iter().filter_map(|link| link.outbox.next_deadline()).min()
    }

    fn expire(&mut self, now: Instant, settled: &mut Vec<Settled>) {
        let config = &self.config;
        for link in self.links.iter_mut() {
            let (address, last) = (&link.address, &link.last.reason);
            link.outbox.expire(now, |sent| timed_out(config, address, last, sent), settled);
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Send(entry) => self.links.push(entry),
            Command::Flush(done) => self.flushes.push((self.links.end(), done)),
            Command::Close { until, done } => {
                self.queue.close();
                self.closes.push(done);
                // Of two that close, the more patient one is listened to.
                self.give_up = self.give_up.max(Some(until));
            }
        }
    }

    fn happened(&mut self, link: usize, event: Event, settled: &mut Vec<Settled>) {
        match event {
            Event::Opened(Ok(session)) => {
                if self.config.offline && !self.links.any_connected() {
                    let deadline = Instant::now() + self.config.timeout;
                    self.links.iter_mut().for_each(|link| link.outbox.extend(deadline));
                }
                self.links.opened(link, session);
            }
            Event::Opened(Err(failure)) => self.links.failed(link, failure),
            Event::Settled => {}
            Event::Told(told) => self.told(link, told, settled),
        }
        let connected = self.links.get_mut(link).is_connected();
        self.books.counters.set_connected(link, connected);
    }

    fn told(
        &mut self,
        link: usize,
        told: Option<Result<PutStreamResponse, Status>>,
        settled: &mut Vec<Settled>,
    ) {
        match told {
            Some(Ok(PutStreamResponse { message: Some(Told::Results(results)) })) => {
                let number = results.number;
                let link_of = self.links.get_mut(link);
                link_of.answered();
                if !link_of.outbox.answered(number, answer::read(results), settled) {
                    let reason = format!("the gateway answered batch {number}, which was not asked");
                    self.links.disconnected(link, Failure::passing(reason));
                }
            }
            Some(Ok(PutStreamResponse { message: Some(Told::Credit(credit)) })) => {
                self.links.get_mut(link).set_credit(credit);
            }
            // A newer gateway may have more to say.
            Some(Ok(PutStreamResponse { message: None })) => {}
            None => self.links.disconnected(link, Failure::passing("the gateway ended the stream")),
            Some(Err(status)) => self.links.disconnected(link, Failure::from_status(&status)),
        }
    }

    /// Gives up what is left, and lets those know who wait.
    fn abandon(&mut self) {
        self.queue.close();
        while let Ok(command) = self.queue.try_recv() {
            self.take(command);
        }
        for entry in self.links.take_all() {
            self.books.abandon(entry);
        }
        self.flushes.clear();
        for done in self.closes.drain(..) {
            // Nobody may be left to hear it.
            let _ = done.send(());
        }
    }
}

/// What a record's time being over means.
fn timed_out(config: &Config, address: &str, last: &str, sent: bool) -> Error {
    if sent {
        let message = format!("it was sent and not answered within {:?} ({last})", config.timeout);
        return Error::OutcomeUnknown { message };
    }
    Error::Timeout { endpoint: address.to_owned(), timeout: config.timeout, last: last.to_owned() }
}
