//! Records as Python sees them.

use std::time::Duration;

use bytes::Bytes;
use headworks_record::{HashKey, Headers, PartitionKey};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use crate::error::Fault;

/// A partition key, headers and data. Immutable.
#[pyclass(module = "headworks", frozen, subclass, eq)]
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) inner: headworks_record::Record,
}

#[pymethods]
impl Record {
    #[new]
    #[pyo3(signature = (key, data, headers = None, explicit_hash_key = None))]
    fn new(
        key: &str,
        data: &Bound<'_, PyAny>,
        headers: Option<&Bound<'_, PyDict>>,
        explicit_hash_key: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let key = PartitionKey::new(key.to_owned()).map_err(Fault::from)?;
        let explicit_hash_key = explicit_hash_key.map(hash_key).transpose()?;
        let inner = headworks_record::Record {
            key,
            explicit_hash_key,
            headers: headers.map_or_else(|| Ok(Headers::new()), headers_from)?,
            data: payload(data)?,
        };
        Ok(Self { inner })
    }

    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::new(py, self.inner.key.as_str())
    }

    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.data)
    }

    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (name, value) in self.inner.headers.iter() {
            // Where a foreign writer repeated a name, its first value stands; `header_items` has all.
            if !dict.contains(name)? {
                dict.set_item(name, value)?;
            }
        }
        Ok(dict)
    }

    fn header_items(&self) -> Vec<(&str, &str)> {
        self.inner.headers.iter().collect()
    }

    #[getter]
    fn explicit_hash_key(&self) -> Option<u128> {
        self.inner.explicit_hash_key.map(|HashKey(number)| number)
    }

    #[getter]
    fn traceparent(&self) -> Option<String> {
        self.inner.traceparent()
    }

    #[getter]
    fn created<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.inner.headers.creation().map(|creation| time(py, creation.created_ms)).transpose()
    }

    fn __repr__(&self) -> String {
        describe("Record", &self.inner)
    }
}

/// A `datetime` in UTC.
pub(crate) fn time(py: Python<'_>, ms: u64) -> PyResult<Bound<'_, PyAny>> {
    let datetime = py.import("datetime")?;
    let epoch = datetime.getattr("datetime")?.call_method1("fromtimestamp", (0, datetime.getattr("UTC")?))?;
    epoch.add(Duration::from_millis(ms))
}

/// A record in a few words: payloads and values stay out of logs.
pub(crate) fn describe(class: &str, record: &headworks_record::Record) -> String {
    let names: Vec<&str> = record.headers.iter().map(|(name, _)| name).collect();
    format!("{class}(key={:?}, data=<{} bytes>, headers={names:?})", record.key.as_str(), record.data.len())
}

fn headers_from(dict: &Bound<'_, PyDict>) -> PyResult<Headers> {
    let mut headers = Headers::new();
    for (name, value) in dict {
        headers.set(text("header name", &name)?, text("header value", &value)?).map_err(Fault::from)?;
    }
    Ok(headers)
}

fn text(what: &str, object: &Bound<'_, PyAny>) -> PyResult<String> {
    match object.cast::<PyString>() {
        Ok(text) => Ok(text.to_str()?.to_owned()),
        Err(_) => Err(PyTypeError::new_err(format!(
            "the {what} {} is {}, not str; convert it, for example with str()",
            object.repr()?,
            object.get_type().name()?
        ))),
    }
}

/// Bytes, or anything that lends them: bytearray, memoryview, array.array of bytes.
fn payload(object: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(Bytes::copy_from_slice(bytes.as_bytes()));
    }
    match PyBuffer::<u8>::get(object) {
        Ok(buffer) => Ok(buffer.to_vec(object.py())?.into()),
        Err(_) => Err(PyTypeError::new_err(format!(
            "the data is {}, not bytes; encode it, for example with str.encode() or json.dumps(...).encode()",
            object.get_type().name()?
        ))),
    }
}

/// Through its decimal text, as Kinesis writes it, so that the record crate names the bounds.
fn hash_key(object: &Bound<'_, PyAny>) -> PyResult<HashKey> {
    let text = object.str()?;
    Ok(text.to_str()?.parse::<HashKey>().map_err(Fault::from)?)
}
