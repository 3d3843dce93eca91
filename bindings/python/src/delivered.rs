//! Records as a consumer delivers them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use headworks_consumer::{Pending, SequenceNumber};
use headworks_record::ShardId;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::process::same_process;
use crate::record::{Record, describe, time};

/// The open end of a delivered record: what acknowledges it, once. Shared by the record and by the consumer
/// that delivered it, which acknowledges it at a checkpoint and gives it back when it closes.
#[derive(Debug, Clone)]
pub(crate) struct Open(Arc<End>);

/// As [`Here`](crate::process::Here), without asking for the process where nothing is at stake: that is a
/// system call, and there is one of these for each record.
#[derive(Debug)]
struct End {
    pid: u32,
    closed: AtomicBool,
    pending: Mutex<Option<Pending>>,
}

impl Open {
    fn new(pending: Pending, pid: u32) -> Self {
        let pending = Mutex::new(Some(pending));
        Self(Arc::new(End { pid, closed: AtomicBool::new(false), pending }))
    }

    /// What is open, the first time.
    pub(crate) fn take(&self) -> PyResult<Option<Pending>> {
        same_process(self.0.pid)?;
        // A panic while the lock was held cannot have left anything half done.
        let pending = self.0.pending.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.0.closed.store(true, Ordering::Release);
        Ok(pending)
    }

    /// Whether the record is still neither acknowledged nor given back.
    pub(crate) fn is_open(&self) -> bool {
        !self.0.closed.load(Ordering::Acquire)
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // What is open would tell threads that a fork does not have.
        if !*self.closed.get_mut() && std::process::id() != self.pid {
            std::mem::forget(self.pending.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

/// A record, where it was found, and the means to say that it is done.
#[pyclass(module = "headworks", frozen, extends = Record)]
#[derive(Debug)]
pub(crate) struct Delivered {
    stream: bytestring::ByteString,
    shard: ShardId,
    sequence_number: SequenceNumber,
    sub_sequence_number: u64,
    arrival_ms: u64,
    open: Open,
}

impl Delivered {
    /// What becomes the Python object, and the open end for the consumer, which belongs to this process.
    pub(crate) fn new(pending: Pending, pid: u32) -> (PyClassInitializer<Self>, Open) {
        let base = Record { inner: pending.record.clone() };
        let (stream, shard) = (pending.stream.clone(), pending.shard.clone());
        let sequence_number = pending.sequence_number.clone();
        let (sub_sequence_number, arrival_ms) = (pending.sub_sequence_number, pending.arrival_ms);
        let open = Open::new(pending, pid);
        let this =
            Self { stream, shard, sequence_number, sub_sequence_number, arrival_ms, open: open.clone() };
        (PyClassInitializer::from(base).add_subclass(this), open)
    }
}

#[pymethods]
impl Delivered {
    #[getter]
    fn stream<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::new(py, &self.stream)
    }

    #[getter]
    fn shard<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::new(py, self.shard.as_str())
    }

    #[getter]
    fn sequence_number<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::new(py, self.sequence_number.as_str())
    }

    #[getter]
    fn sub_sequence_number(&self) -> u64 {
        self.sub_sequence_number
    }

    #[getter]
    fn arrival<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        time(py, self.arrival_ms)
    }

    fn ack(&self) -> PyResult<bool> {
        Ok(self.open.take()?.map(Pending::ack).is_some())
    }

    fn __repr__(this: PyRef<'_, Self>) -> String {
        let record = describe("Delivered", &this.as_super().inner);
        format!(
            "{}, stream={:?}, shard={:?}, sequence_number={:?}, sub_sequence_number={})",
            record.trim_end_matches(')'),
            &*this.stream,
            this.shard.as_str(),
            this.sequence_number.as_str(),
            this.sub_sequence_number
        )
    }
}
