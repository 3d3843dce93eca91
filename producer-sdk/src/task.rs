//! The task that owns the connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use futures_util::future::{BoxFuture, FutureExt as _, OptionFuture};
use headworks_proto::v1::put_stream_request::{Batch, Message as Asked};
use headworks_proto::v1::put_stream_response::Message as Told;
use headworks_proto::v1::{PutStreamRequest, PutStreamResponse};
use headworks_telemetry::{KeyValue, RecordTracer, names};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tonic::Status;
use tonic::transport::Endpoint;
use tracing::{debug, warn};

use crate::backoff::Backoff;
use crate::builder::Config;
use crate::connect::ConnectError;
use crate::error::Error;
use crate::outbox::{Entry, Outbox, Settled};
use crate::report::Counters;
use crate::session::{self, Failure, Session};
use crate::ticket::Stored;

/// How many commands are taken before a batch is sent: enough to fill batches under load.
const COMMANDS_AT_ONCE: usize = 1024;

/// The state of things where nothing is wrong with the connection.
const CONNECTED: &str = "it is connected, and has not answered in time";

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

type Connecting = BoxFuture<'static, Result<Session, Failure>>;

pub(crate) struct Task {
    config: Arc<Config>,
    endpoint: Endpoint,
    tracer: RecordTracer,
    counters: Arc<Counters>,
    queue: mpsc::Receiver<Command>,
    outbox: Outbox,
    session: Option<Session>,
    connecting: Option<Connecting>,
    backoff: Backoff,
    /// What went wrong last, for the records that run out of time.
    last: String,
    flushes: Vec<(u64, oneshot::Sender<()>)>,
    closes: Vec<oneshot::Sender<()>>,
    give_up: Option<Instant>,
}

impl Task {
    /// Connects, trying as long as the settings say.
    pub(crate) async fn connect(
        config: Arc<Config>,
        tracer: RecordTracer,
        counters: Arc<Counters>,
        queue: mpsc::Receiver<Command>,
    ) -> Result<Self, ConnectError> {
        let endpoint = session::endpoint(&config)?;
        let mut task = Self {
            backoff: Backoff::new(config.longest_pause),
            endpoint,
            tracer,
            counters,
            queue,
            outbox: Outbox::default(),
            session: None,
            connecting: None,
            last: "no attempt was finished".to_owned(),
            flushes: Vec::new(),
            closes: Vec::new(),
            give_up: None,
            config,
        };
        let patience = task.config.connect_timeout;
        let until = Instant::now() + patience;
        let mut pause = Duration::ZERO;
        loop {
            let endpoint = task.config.endpoint.clone();
            match timeout_at(until, task.open(pause)).await {
                Ok(Ok(session)) => {
                    task.session = Some(session);
                    task.last = CONNECTED.to_owned();
                    task.backoff.reset();
                    return Ok(task);
                }
                Ok(Err(Failure { reason, is_final: true })) => {
                    return Err(ConnectError::Refused { endpoint, reason });
                }
                Ok(Err(Failure { reason, .. })) => task.last = reason,
                Err(_elapsed) => {
                    return Err(ConnectError::Unreachable { endpoint, patience, last: task.last });
                }
            }
            pause = task.backoff.pause();
        }
    }

    fn open(&self, pause: Duration) -> Connecting {
        let (endpoint, stream) = (self.endpoint.clone(), self.config.stream.clone());
        let timeout = self.config.timeout;
        async move {
            sleep(pause).await;
            Session::open(endpoint, stream, timeout).await
        }
        .boxed()
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
            settled.drain(..).for_each(|(entry, outcome)| self.settle(entry, outcome));
            // Letting go of the sender is the signal.
            self.flushes.retain(|(end, _)| !self.outbox.is_settled(*end));
            let finished = self.queue.is_closed() && self.queue.is_empty();
            if finished && self.outbox.is_empty() {
                break;
            }
            if self.session.is_none() && self.connecting.is_none() {
                let pause = self.backoff.pause();
                self.connecting = Some(self.open(pause));
            }
            let wake = [self.outbox.next_deadline(), self.give_up].into_iter().flatten().min();
            if let Some(wake) = wake.filter(|wake| rung || *wake < timer.deadline()) {
                timer.as_mut().reset(wake);
                rung = false;
            }
            let (tells, asks, credit) = match &mut self.session {
                Some(Session { asks, tells, credit }) => {
                    (Some(tells), asks.clone().filter(|_| self.outbox.can_send(credit)), *credit)
                }
                None => (None, None, Default::default()),
            };
            tokio::select! {
                taken = self.queue.recv_many(&mut commands, COMMANDS_AT_ONCE), if !finished => {
                    if taken == 0 {
                        debug!("every producer was dropped");
                    }
                    commands.drain(..).for_each(|command| self.take(command));
                }
                Some(told) = OptionFuture::from(tells.map(|tells| tells.message())) => self.told(told, &mut settled),
                Some(permit) = OptionFuture::from(asks.map(mpsc::Sender::reserve_owned)) => match permit {
                    Ok(permit) => {
                        let (records, bytes) = (self.config.batch_records, self.config.batch_bytes);
                        if let Some((number, records)) = self.outbox.next_batch(&credit, records, bytes, &mut settled) {
                            let message = Some(Asked::Batch(Batch { number, records }));
                            permit.send(PutStreamRequest { message });
                        }
                    }
                    // The gateway takes no more, and its last answers may still be on their way: they
                    // end the session, not this.
                    Err(_closed) => self.session.iter_mut().for_each(|session| session.asks = None),
                },
                Some(opened) = OptionFuture::from(self.connecting.as_mut()) => {
                    self.connecting = None;
                    match opened {
                        Ok(session) => {
                            debug!(endpoint = self.config.endpoint, "connected again");
                            self.session = Some(session);
                            self.last = CONNECTED.to_owned();
                        }
                        Err(failure) => {
                            warn!(endpoint = self.config.endpoint, "no connection to the gateway: {}", failure.reason);
                            self.last = failure.reason;
                        }
                    }
                }
                () = &mut timer, if !rung => {
                    rung = true;
                    let now = Instant::now();
                    self.outbox.expire(now, |sent| timed_out(&self.config, &self.last, sent), &mut settled);
                    if self.give_up.is_some_and(|until| until <= now) {
                        break;
                    }
                }
            }
        }
        settled.drain(..).for_each(|(entry, outcome)| self.settle(entry, outcome));
        self.abandon();
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Send(entry) => self.outbox.push(entry),
            Command::Flush(done) => self.flushes.push((self.outbox.end(), done)),
            Command::Close { until, done } => {
                self.queue.close();
                self.closes.push(done);
                // Of two that close, the more patient one is listened to.
                self.give_up = self.give_up.max(Some(until));
            }
        }
    }

    fn told(&mut self, told: Result<Option<PutStreamResponse>, Status>, settled: &mut Vec<Settled>) {
        match told {
            Ok(Some(PutStreamResponse { message: Some(Told::Results(results)) })) => {
                // The gateway does work for us: the next loss of the connection is a new one.
                self.backoff.reset();
                if !self.outbox.answered(results.number, results.results, settled) {
                    self.disconnected(format!(
                        "the gateway answered batch {}, which was not asked",
                        results.number
                    ));
                }
            }
            Ok(Some(PutStreamResponse { message: Some(Told::Credit(credit)) })) => {
                if let Some(session) = &mut self.session {
                    session.credit = credit;
                }
            }
            // A newer gateway may have more to say.
            Ok(Some(PutStreamResponse { message: None })) => {}
            Ok(None) => self.disconnected("the gateway ended the stream".to_owned()),
            Err(status) => self.disconnected(Failure::from_status(&status).reason),
        }
    }

    fn disconnected(&mut self, reason: String) {
        self.session = None;
        self.outbox.disconnected();
        warn!(endpoint = self.config.endpoint, "the connection to the gateway is lost: {reason}");
        self.last = reason;
    }

    fn settle(&self, entry: Entry, outcome: Result<Stored, Error>) {
        self.counters.count(&outcome);
        self.trace(&entry, &outcome);
        let Entry { answer, permit, .. } = entry;
        drop(permit);
        // Nobody may be left to hear it.
        let _ = answer.send(outcome);
    }

    fn trace(&self, entry: &Entry, outcome: &Result<Stored, Error>) {
        let Some(creation) = entry.creation() else { return };
        let (stream, now) = (self.config.stream_name(), SystemTime::now);
        if let Some(birth) = entry.birth {
            let attributes = || outcome.as_ref().map_or_else(|_| Vec::new(), place);
            self.tracer.create(creation, birth.parent, stream, birth.start, now(), attributes);
        }
        match outcome {
            // The gateway has told of what it answers.
            Ok(_) | Err(Error::Refused { .. }) => {}
            Err(error) => {
                self.tracer.failed(creation, names::SEND, stream, now(), error.code(), &error.to_string());
            }
        }
    }

    /// Gives up what is left, and lets those know who wait.
    fn abandon(&mut self) {
        self.queue.close();
        while let Ok(command) = self.queue.try_recv() {
            self.take(command);
        }
        for entry in self.outbox.take_all() {
            self.counters.abandoned.fetch_add(1, Ordering::Relaxed);
            let error = match entry.sent {
                true => Error::OutcomeUnknown {
                    message: "the producer was closed before the answer came".to_owned(),
                },
                false => Error::Closed,
            };
            self.settle(entry, Err(error));
        }
        self.flushes.clear();
        for done in self.closes.drain(..) {
            // Nobody may be left to hear it.
            let _ = done.send(());
        }
    }
}

/// What a record's time being over means.
fn timed_out(config: &Config, last: &str, sent: bool) -> Error {
    if sent {
        let message = format!("it was sent and not answered within {:?} ({last})", config.timeout);
        return Error::OutcomeUnknown { message };
    }
    Error::Timeout { endpoint: config.endpoint.clone(), timeout: config.timeout, last: last.to_owned() }
}

fn place(stored: &Stored) -> Vec<KeyValue> {
    vec![
        KeyValue::new(names::MESSAGING_DESTINATION_PARTITION_ID, stored.shard_id.clone()),
        KeyValue::new(names::SEQUENCE_NUMBER, stored.sequence_number.clone()),
        KeyValue::new(names::SUB_SEQUENCE_NUMBER, i64::from(stored.sub_sequence_number)),
        KeyValue::new(names::ATTEMPTS, i64::from(stored.attempts)),
    ]
}
