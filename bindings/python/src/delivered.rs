//! Records as a consumer delivers them.

use std::sync::{Arc, Mutex, PoisonError};

use headworks_consumer::{Pending, SequenceNumber};
use headworks_record::ShardId;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::process::Here;
use crate::record::{Record, describe, time};

/// The open end of a delivered record: what acknowledges it, once. Shared by the record and by the consumer
/// that delivered it, which acknowledges it at a checkpoint and gives it back when it closes.
#[derive(Debug, Clone)]
pub(crate) struct Open(Arc<Here<Mutex<Option<Pending>>>>);

impl Open {
    fn new(pending: Pending) -> Self {
        Self(Arc::new(Here::new(Mutex::new(Some(pending)))))
    }

    /// What is open, the first time.
    pub(crate) fn take(&self) -> PyResult<Option<Pending>> {
        // A panic while the lock was held cannot have left anything half done.
        Ok(self.0.get()?.lock().unwrap_or_else(PoisonError::into_inner).take())
    }

    /// Whether the record is still neither acknowledged nor given back.
    pub(crate) fn is_open(&self) -> PyResult<bool> {
        Ok(self.0.get()?.lock().unwrap_or_else(PoisonError::into_inner).is_some())
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
    /// What becomes the Python object, and the open end for the consumer.
    pub(crate) fn new(pending: Pending) -> (PyClassInitializer<Self>, Open) {
        let base = Record { inner: pending.record.clone() };
        let (stream, shard) = (pending.stream.clone(), pending.shard.clone());
        let sequence_number = pending.sequence_number.clone();
        let (sub_sequence_number, arrival_ms) = (pending.sub_sequence_number, pending.arrival_ms);
        let open = Open::new(pending);
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
