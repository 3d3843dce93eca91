//! The consumers as Python classes.

use std::sync::Arc;

use headworks_consumer::Phase;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::delivered::Delivered;
use crate::options::Options;
use crate::process::Here;
use crate::reading::Reading;
use crate::runtime::{awaitable, wait};

fn reading(
    application: &str,
    stream: &str,
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<Here<Arc<Reading>>> {
    let options = Options::new(application, stream, options)?;
    Ok(Here::new(Arc::new(Reading::new(options)?)))
}

/// Reads one stream as one worker of an application; iterate over it.
#[pyclass(module = "headworks", frozen)]
#[derive(Debug)]
pub(crate) struct Consumer {
    reading: Here<Arc<Reading>>,
}

#[pymethods]
impl Consumer {
    #[new]
    #[pyo3(signature = (application, stream, **options))]
    fn new(application: &str, stream: &str, options: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        Ok(Self { reading: reading(application, stream, options)? })
    }

    fn __enter__(this: Py<Self>, py: Python<'_>) -> PyResult<Py<Self>> {
        wait(py, this.get().reading.get()?.start())??;
        Ok(this)
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.close(py, false)
    }

    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<Delivered>>> {
        let reading = self.reading.get()?;
        if reading.handle().is_none() {
            wait(py, reading.start())??;
        }
        loop {
            if let Some(record) = reading.take(py)? {
                return Ok(Some(record));
            }
            if !wait(py, reading.ready())?? {
                return Ok(None);
            }
        }
    }

    fn checkpoint(&self) -> PyResult<usize> {
        self.reading.get()?.checkpoint()
    }

    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        status(py, self.reading.get()?)
    }

    #[pyo3(signature = (*, wait_for_acks = false))]
    fn close(&self, py: Python<'_>, wait_for_acks: bool) -> PyResult<()> {
        wait(py, self.reading.get()?.close(wait_for_acks))?
    }
}

/// Reads one stream as one worker of an application, for asyncio. `headworks.AsyncConsumer` makes an
/// iterator of it.
#[pyclass(module = "headworks._headworks", frozen, subclass)]
#[derive(Debug)]
pub(crate) struct AsyncConsumer {
    reading: Here<Arc<Reading>>,
}

#[pymethods]
impl AsyncConsumer {
    #[new]
    #[pyo3(signature = (application, stream, **options))]
    fn new(application: &str, stream: &str, options: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        Ok(Self { reading: reading(application, stream, options)? })
    }

    fn __aenter__<'py>(this: Py<Self>, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let reading = this.get().reading.get()?.clone();
        awaitable(py, async move {
            reading.start().await?;
            Ok(this)
        })
    }

    #[pyo3(signature = (*_exception))]
    fn __aexit__<'py>(
        &self,
        py: Python<'py>,
        _exception: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.close(py, false)
    }

    fn _ready<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let reading = self.reading.get()?.clone();
        awaitable(py, async move {
            if reading.handle().is_none() {
                reading.start().await?;
            }
            Ok(reading.ready().await?)
        })
    }

    fn _take(&self, py: Python<'_>) -> PyResult<Option<Py<Delivered>>> {
        self.reading.get()?.take(py)
    }

    fn checkpoint(&self) -> PyResult<usize> {
        self.reading.get()?.checkpoint()
    }

    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        status(py, self.reading.get()?)
    }

    #[pyo3(signature = (*, wait_for_acks = false))]
    fn close<'py>(&self, py: Python<'py>, wait_for_acks: bool) -> PyResult<Bound<'py, PyAny>> {
        let reading = self.reading.get()?.clone();
        awaitable(py, async move { reading.close(wait_for_acks).await })
    }
}

fn status<'py>(py: Python<'py>, reading: &Reading) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let Some(handle) = reading.handle() else {
        dict.set_item("phase", "new")?;
        return Ok(dict);
    };
    let status = handle.status();
    let phase = match status.phase {
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Draining => "draining",
        Phase::Stopped => "stopped",
    };
    dict.set_item("phase", phase)?;
    dict.set_item("caught_up", status.is_caught_up())?;
    for (name, count) in [
        ("delivered", status.delivered),
        ("duplicates_skipped", status.duplicates_skipped),
        ("repeats_dropped", status.repeats_dropped),
        ("identities_forgotten", status.identities_forgotten),
        ("misplaced_skipped", status.misplaced_skipped),
        ("damaged", status.damaged),
        ("checkpoints", status.checkpoints),
        ("shards_expired", status.shards_expired),
        ("checkpoints_trimmed", status.checkpoints_trimmed),
        ("leases_active", status.leases_active),
        ("leases_unowned", status.leases_unowned),
    ] {
        dict.set_item(name, count)?;
    }
    let shards = PyDict::new(py);
    for shard in &status.shards {
        let one = PyDict::new(py);
        one.set_item("delivered", shard.delivered)?;
        one.set_item("millis_behind", shard.millis_behind)?;
        let checkpoint = shard.checkpoint.as_ref().map(|place| (place.sequence.as_str(), place.sub));
        one.set_item("checkpoint", checkpoint)?;
        shards.set_item(shard.shard.as_str(), one)?;
    }
    dict.set_item("shards", shards)?;
    Ok(dict)
}
