//! The producers as Python classes.

use std::sync::Arc;
use std::time::Duration;

use headworks_producer::Report;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::error::Fault;
use crate::options::seconds;
use crate::process::Here;
use crate::record::Record;
use crate::runtime::{awaitable, wait};
use crate::sending::{Sending, builder, parent};

/// How long a producer that closes waits for answers, unless it is told otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the gateway answers for a record: where it is, or, of a stream with a spool, that it is on disk.
#[pyclass(module = "headworks", frozen, eq, get_all)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receipt {
    spooled: bool,
    shard: Option<String>,
    sequence_number: Option<String>,
    sub_sequence_number: Option<u32>,
    attempts: Option<u32>,
}

#[pymethods]
impl Receipt {
    fn __repr__(&self) -> String {
        match (&self.shard, &self.sequence_number, self.sub_sequence_number, self.attempts) {
            (Some(shard), Some(number), Some(sub), Some(attempts)) => format!(
                "Receipt(shard={shard:?}, sequence_number={number:?}, sub_sequence_number={sub}, attempts={attempts})"
            ),
            _ => "Receipt(spooled=True)".to_owned(),
        }
    }
}

impl From<headworks_producer::Receipt> for Receipt {
    fn from(receipt: headworks_producer::Receipt) -> Self {
        let stored = receipt.stored();
        Self {
            spooled: stored.is_none(),
            shard: stored.map(|stored| stored.shard_id.to_string()),
            sequence_number: stored.map(|stored| stored.sequence_number.to_string()),
            sub_sequence_number: stored.map(|stored| stored.sub_sequence_number),
            attempts: stored.map(|stored| stored.attempts),
        }
    }
}

/// The answers to a batch: exceptions are values here, so that one bad record hides no answer.
struct Answers(Vec<Result<headworks_producer::Receipt, headworks_producer::Error>>);

impl<'py> IntoPyObject<'py> for Answers {
    type Target = PyList;
    type Output = Bound<'py, PyList>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let answers = self.0.into_iter().map(|answer| match answer {
            Ok(receipt) => Ok(Bound::new(py, Receipt::from(receipt))?.into_any()),
            Err(error) => Fault::from(error).exception(py),
        });
        PyList::new(py, answers.collect::<PyResult<Vec<_>>>()?)
    }
}

fn records(records: &Bound<'_, PyAny>) -> PyResult<Vec<headworks_record::Record>> {
    records.try_iter()?.map(|record| Ok(record?.cast::<Record>()?.get().inner.clone())).collect()
}

fn patience(timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Duration> {
    timeout.map_or(Ok(PATIENCE), |timeout| seconds("timeout", timeout))
}

fn report(py: Python<'_>, report: Report) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("stored", report.stored)?;
    dict.set_item("failed", report.failed)?;
    dict.set_item("unknown", report.unknown)?;
    dict.set_item("abandoned", report.abandoned)?;
    Ok(dict)
}

/// Sends records to a gateway, over one connection. May be shared by threads, not with a fork.
#[pyclass(module = "headworks", frozen)]
#[derive(Debug)]
pub(crate) struct Producer {
    sending: Here<Arc<Sending>>,
}

#[pymethods]
impl Producer {
    #[new]
    #[pyo3(signature = (endpoint = None, stream = None, **options))]
    fn new(
        endpoint: Option<String>,
        stream: Option<String>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        Ok(Self { sending: Here::new(Arc::new(Sending::new(builder(endpoint, stream, options)?))) })
    }

    fn __enter__(this: Py<Self>, py: Python<'_>) -> PyResult<Py<Self>> {
        wait(py, this.get().sending.get()?.connect())??;
        Ok(this)
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) -> PyResult<()> {
        wait(py, self.sending.get()?.close(PATIENCE))?;
        Ok(())
    }

    #[pyo3(signature = (record, *, traceparent = None))]
    fn put(
        &self,
        py: Python<'_>,
        record: &Bound<'_, Record>,
        traceparent: Option<&str>,
    ) -> PyResult<Receipt> {
        let (record, parent) = (record.get().inner.clone(), parent(traceparent)?);
        Ok(wait(py, self.sending.get()?.put(record, parent))??.into())
    }

    #[pyo3(signature = (records, *, traceparent = None))]
    fn put_many<'py>(
        &self,
        py: Python<'py>,
        records: &Bound<'py, PyAny>,
        traceparent: Option<&str>,
    ) -> PyResult<Bound<'py, PyList>> {
        let (records, parent) = (self::records(records)?, parent(traceparent)?);
        Answers(wait(py, self.sending.get()?.put_many(records, parent))??).into_pyobject(py)
    }

    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        wait(py, self.sending.get()?.flush())
    }

    #[pyo3(signature = (timeout = None))]
    fn close<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let patience = patience(timeout)?;
        report(py, wait(py, self.sending.get()?.close(patience))?)
    }
}

/// Sends records to a gateway, over one connection, for asyncio.
#[pyclass(module = "headworks", frozen)]
#[derive(Debug)]
pub(crate) struct AsyncProducer {
    sending: Here<Arc<Sending>>,
}

#[pymethods]
impl AsyncProducer {
    #[new]
    #[pyo3(signature = (endpoint = None, stream = None, **options))]
    fn new(
        endpoint: Option<String>,
        stream: Option<String>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        Ok(Self { sending: Here::new(Arc::new(Sending::new(builder(endpoint, stream, options)?))) })
    }

    fn __aenter__<'py>(this: Py<Self>, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let sending = this.get().sending.get()?.clone();
        awaitable(py, async move {
            sending.connect().await?;
            Ok(this)
        })
    }

    #[pyo3(signature = (*_exception))]
    fn __aexit__<'py>(
        &self,
        py: Python<'py>,
        _exception: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let sending = self.sending.get()?.clone();
        awaitable(py, async move {
            sending.close(PATIENCE).await;
            Ok(())
        })
    }

    #[pyo3(signature = (record, *, traceparent = None))]
    fn put<'py>(
        &self,
        py: Python<'py>,
        record: &Bound<'py, Record>,
        traceparent: Option<&str>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (record, parent) = (record.get().inner.clone(), parent(traceparent)?);
        let sending = self.sending.get()?.clone();
        awaitable(py, async move { Ok(Receipt::from(sending.put(record, parent).await?)) })
    }

    #[pyo3(signature = (records, *, traceparent = None))]
    fn put_many<'py>(
        &self,
        py: Python<'py>,
        records: &Bound<'py, PyAny>,
        traceparent: Option<&str>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (records, parent) = (self::records(records)?, parent(traceparent)?);
        let sending = self.sending.get()?.clone();
        awaitable(py, async move { Ok(Answers(sending.put_many(records, parent).await?)) })
    }

    fn flush<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let sending = self.sending.get()?.clone();
        awaitable(py, async move {
            sending.flush().await;
            Ok(())
        })
    }

    #[pyo3(signature = (timeout = None))]
    fn close<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (sending, patience) = (self.sending.get()?.clone(), patience(timeout)?);
        awaitable(py, async move {
            let done = sending.close(patience).await;
            Python::attach(|py| Ok(report(py, done)?.unbind()))
        })
    }
}
