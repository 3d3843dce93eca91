//! The native half of the Python package `headworks`.
//!
//! It has no logic of its own: it converts arguments, forwards to the Rust SDKs, and converts what they
//! answer. What users read is in `python/headworks/_headworks.pyi`.
//!
//! - `record`, `delivered`: records, made in Python or delivered to it.
//! - `producer` over `sending`, `consumer` over `reading`: each core has a class that waits and one
//!   that is awaited.
//! - `runtime`, `process`: one tokio runtime per process, and none in a fork of it.

mod consumer;
mod delivered;
mod error;
mod options;
mod process;
mod producer;
mod reading;
mod record;
mod runtime;
mod sending;
mod telemetry;

#[pyo3::pymodule]
mod _headworks {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::consumer::{AsyncConsumer, Consumer};
    #[pymodule_export]
    use crate::delivered::Delivered;
    #[pymodule_export]
    use crate::producer::{AsyncProducer, Producer, Receipt};
    #[pymodule_export]
    use crate::record::Record;
    #[pymodule_export]
    use crate::telemetry::_shutdown;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
