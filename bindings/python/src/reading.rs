//! What both consumers, the waiting and the asynchronous one, are made of.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use futures_util::FutureExt;
use headworks_consumer::{Builder, Handle, Pending, Records};
use headworks_record::ShardId;
use headworks_telemetry::RecordTracer;
use pyo3::prelude::*;
use tokio_util::sync::CancellationToken;

use crate::delivered::{Delivered, Open};
use crate::error::Fault;
use crate::options::Options;
use crate::telemetry::telemetry;

/// A consumer's stream of records, and those that were handed to Python.
#[derive(Debug)]
pub(crate) struct Reading {
    /// The process that it was made in, and is used in.
    pid: u32,
    options: Options,
    tracer: RecordTracer,
    shutdown: CancellationToken,
    handle: OnceLock<Handle>,
    stage: tokio::sync::Mutex<Stage>,
    /// Handed to Python and, from the first of each shard on, not acknowledged. The consumer's own
    /// `max_unacknowledged` bounds each queue.
    open: Mutex<HashMap<ShardId, VecDeque<Open>>>,
}

#[derive(Debug)]
enum Stage {
    New,
    Running(Box<Running>),
    Over,
}

#[derive(Debug)]
struct Running {
    records: Records,
    /// A record that was waited for and not taken yet: waits can be given up, records cannot.
    ahead: Option<Pending>,
}

impl Reading {
    /// Checks the arguments; nothing is contacted.
    pub(crate) fn new(options: Options) -> PyResult<Self> {
        Ok(Self {
            pid: std::process::id(),
            options,
            tracer: telemetry()?.tracer(),
            shutdown: CancellationToken::new(),
            handle: OnceLock::new(),
            stage: tokio::sync::Mutex::new(Stage::New),
            open: Mutex::default(),
        })
    }

    /// Starts the consumer in the background, if it has not started.
    pub(crate) async fn start(&self) -> Result<(), Fault> {
        let mut stage = self.stage.lock().await;
        if self.shutdown.is_cancelled() {
            return Err(Fault::consumer_closed());
        }
        if matches!(*stage, Stage::New) {
            let (kinesis, dynamodb) = self.options.aws.clients().await?;
            let consumer = Builder::new(self.options.config.clone())
                .kinesis(kinesis)
                .dynamodb(dynamodb)
                .tracer(self.tracer.clone())
                .build()?;
            let _ = self.handle.set(consumer.handle());
            let records = consumer.stream(self.shutdown.clone());
            *stage = Stage::Running(Box::new(Running { records, ahead: None }));
        }
        Ok(())
    }

    /// Waits until [`Reading::take`] has a record; `false` when there will be none any more. Giving the wait
    /// up loses nothing.
    pub(crate) async fn ready(&self) -> Result<bool, Fault> {
        let mut stage = self.stage.lock().await;
        let Stage::Running(running) = &mut *stage else { return Ok(false) };
        if self.shutdown.is_cancelled() {
            return Ok(false);
        }
        if running.ahead.is_none() {
            match running.records.next().await {
                Some(Ok(pending)) => running.ahead = Some(pending),
                Some(Err(error)) => {
                    *stage = Stage::Over;
                    return Err(error.into());
                }
                None => {
                    *stage = Stage::Over;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// The next record if it is there already.
    pub(crate) fn take(&self, py: Python<'_>) -> PyResult<Option<Py<Delivered>>> {
        let pending = {
            let Ok(mut stage) = self.stage.try_lock() else { return Ok(None) };
            let Stage::Running(running) = &mut *stage else { return Ok(None) };
            if self.shutdown.is_cancelled() {
                return Ok(None);
            }
            match running.ahead.take() {
                Some(pending) => pending,
                None => match running.records.next().now_or_never() {
                    Some(Some(Ok(pending))) => pending,
                    Some(Some(Err(error))) => {
                        *stage = Stage::Over;
                        return Err(Fault::from(error).into());
                    }
                    Some(None) => {
                        *stage = Stage::Over;
                        return Ok(None);
                    }
                    None => return Ok(None),
                },
            }
        };
        let shard = pending.shard.clone();
        let (record, open) = Delivered::new(pending, self.pid);
        let record = Py::new(py, record)?;
        let mut all = self.open();
        let queue = all.entry(shard).or_default();
        while let Some(first) = queue.front()
            && !first.is_open()
        {
            queue.pop_front();
        }
        queue.push_back(open);
        Ok(Some(record))
    }

    /// Acknowledges everything that was handed to Python so far; says how many records that were.
    pub(crate) fn checkpoint(&self) -> PyResult<usize> {
        self.settle(|pending| {
            pending.ack();
        })
    }

    /// Ends the consumer: writes checkpoints and gives leases up. Unless it is to wait for them, records that
    /// Python has not acknowledged are given back first: they come again.
    pub(crate) async fn close(&self, wait: bool) -> PyResult<()> {
        self.shutdown.cancel();
        if !wait {
            self.settle(drop)?;
        }
        let mut stage = self.stage.lock().await;
        let before = std::mem::replace(&mut *stage, Stage::Over);
        let Stage::Running(mut running) = before else { return Ok(()) };
        running.ahead = None;
        let mut ended = Ok(());
        while let Some(next) = running.records.next().await {
            // What nobody took is not done.
            ended = next.map(drop);
        }
        self.settle(drop)?;
        ended.map_err(|error| Fault::from(error).into())
    }

    /// Counters and states; `None` before the start.
    pub(crate) fn handle(&self) -> Option<&Handle> {
        self.handle.get()
    }

    fn settle(&self, how: impl Fn(Pending)) -> PyResult<usize> {
        let mut settled = 0;
        for queue in self.open().values_mut() {
            for open in queue.drain(..) {
                if let Some(pending) = open.take()? {
                    how(pending);
                    settled += 1;
                }
            }
        }
        Ok(settled)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<ShardId, VecDeque<Open>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
