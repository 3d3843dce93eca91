//! The producer as its users hold it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use headworks_record::Record;
use headworks_telemetry::{Minter, Parent, RecordTracer};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::books::Books;
use crate::builder::{Builder, Config};
use crate::connect::ConnectError;
#[cfg(feature = "direct")]
use crate::direct::Direct;
use crate::error::Error;
use crate::outbox::{Birth, Entry, MAX_WIRE_BYTES, wire_bytes};
use crate::report::{Counters, GatewayState, Report};
use crate::task::{Command, Task};
use crate::ticket::{Receipt, Ticket};

/// What a record weighs in the buffer beside its own bytes.
const OVERHEAD: usize = 256;
/// Commands on their way to the task. The buffer's bytes bound what the task holds.
const COMMANDS: usize = 1024;

/// Sends records to a gateway. Cheap to clone; clones share one connection and one order.
///
/// When the last clone is dropped, what was sent is still delivered, as long as the runtime lives;
/// [`Producer::close`] says when that is done.
#[derive(Debug, Clone)]
pub struct Producer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Arc<Config>,
    minter: Minter,
    tracer: RecordTracer,
    buffer: Arc<Semaphore>,
    commands: mpsc::Sender<Command>,
    counters: Arc<Counters>,
}

impl Producer {
    /// The settings, with their defaults.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) async fn connect(
        config: Config,
        minter: Minter,
        tracer: RecordTracer,
    ) -> Result<Self, ConnectError> {
        let config = Arc::new(config);
        let counters = Arc::new(Counters::new(&config.endpoints));
        let (commands, queue) = mpsc::channel(COMMANDS);
        let books = Books {
            stream: config.stream_name().into(),
            tracer: tracer.clone(),
            counters: Arc::clone(&counters),
        };
        let task = Task::connect(Arc::clone(&config), books, queue).await?;
        tokio::spawn(task.run());
        let buffer = Arc::new(Semaphore::new(config.buffer_bytes));
        Ok(Self { shared: Arc::new(Shared { config, minter, tracer, buffer, commands, counters }) })
    }

    #[cfg(feature = "direct")]
    pub(crate) fn direct(
        config: Config,
        minter: Minter,
        tracer: RecordTracer,
        writer: headworks_writer::Handle,
    ) -> Self {
        let config = Arc::new(config);
        let counters = Arc::new(Counters::new(&[]));
        let (commands, queue) = mpsc::channel(COMMANDS);
        let books = Books {
            stream: config.stream_name().into(),
            tracer: tracer.clone(),
            counters: Arc::clone(&counters),
        };
        tokio::spawn(Direct::new(writer, books, queue).run());
        let buffer = Arc::new(Semaphore::new(config.buffer_bytes));
        Self { shared: Arc::new(Shared { config, minter, tracer, buffer, commands, counters }) }
    }

    /// Sends a record and waits until its stream has it, or the gateway's spool where the stream has one.
    ///
    /// Dropping this future after its first suspension may or may not leave the record on its way.
    pub async fn put(&self, record: Record) -> Result<Receipt, Error> {
        self.send(record).await.await
    }

    /// Sends a record, waiting for room in the buffer, and gives back the ticket for its answer.
    ///
    /// A record without a creation context gets one here, in the caller's current span. Until this
    /// future is ready, dropping it means that the record is not sent.
    pub async fn send(&self, mut record: Record) -> Ticket {
        let shared = &*self.shared;
        let birth = match record.headers.creation() {
            Some(_) => None,
            None => {
                let parent = Parent::current();
                let creation = shared.minter.mint(parent);
                record.headers.set_creation(creation);
                let told = shared.tracer.wants(&creation);
                told.then(|| Birth { parent: parent.span_id(), start: SystemTime::now() })
            }
        };
        let weight = match self.weigh(&record) {
            Ok(weight) => weight,
            Err(error) => return self.failed(error),
        };
        let Ok(permit) = Arc::clone(&shared.buffer).acquire_many_owned(weight).await else {
            return self.failed(Error::Closed);
        };
        let (answer, waiting) = oneshot::channel();
        let deadline = Instant::now() + shared.config.timeout;
        let entry = Entry { record, birth, deadline, answer, permit, sent: false, place: 0 };
        match shared.commands.send(Command::Send(entry)).await {
            Ok(()) => Ticket::waiting(waiting),
            Err(_closed) => self.failed(Error::Closed),
        }
    }

    /// Waits until every record that was sent before is answered, well or badly.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        // A task that has ended has answered everything.
        if self.shared.commands.send(Command::Flush(done)).await.is_ok() {
            let _ = flushed.await;
        }
    }

    /// Takes no more records, waits until those that were sent are answered, but no longer than
    /// `patience`, gives up the rest, and reports on all records of this producer and its clones.
    pub async fn close(self, patience: Duration) -> Report {
        // Senders that wait for room get their answer now.
        self.shared.buffer.close();
        let (done, closed) = oneshot::channel();
        let command = Command::Close { until: Instant::now() + patience, done };
        // A task that has ended was closed by a clone.
        if self.shared.commands.send(command).await.is_ok() {
            let _ = closed.await;
        }
        self.report()
    }

    /// The gateways, and whether each is connected now. Without a gateway (`Builder::direct`): none.
    pub fn gateways(&self) -> Vec<GatewayState> {
        self.shared.counters.gateways()
    }

    /// What became of the records so far.
    pub fn report(&self) -> Report {
        self.shared.counters.read()
    }

    fn weigh(&self, record: &Record) -> Result<u32, Error> {
        let bytes = wire_bytes(record);
        if bytes > MAX_WIRE_BYTES {
            return Err(Error::TooLarge {
                bytes,
                limit: MAX_WIRE_BYTES,
                setting: "one message to the gateway",
            });
        }
        let (bytes, limit) = (record.user_bytes() + OVERHEAD, self.shared.config.buffer_bytes);
        match u32::try_from(bytes) {
            Ok(weight) if bytes <= limit => Ok(weight),
            _ => Err(Error::TooLarge { bytes, limit, setting: "Builder::buffer_bytes" }),
        }
    }

    fn failed(&self, error: Error) -> Ticket {
        self.shared.counters.count(&Err(error.clone()));
        Ticket::failed(error)
    }
}
