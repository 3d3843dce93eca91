//! The telemetry of the process, as the `OTEL_…` variables of its environment say.

use std::sync::OnceLock;

use headworks_telemetry::Telemetry;
use headworks_telemetry::config::Config;
use pyo3::prelude::*;

use crate::error::Fault;
use crate::process::Here;
use crate::runtime::{end, runtime, wait};

const SERVICE: &str = "headworks-python";

static TELEMETRY: OnceLock<Here<Telemetry>> = OnceLock::new();

/// The process's telemetry, started by its first use.
pub(crate) fn telemetry() -> PyResult<&'static Telemetry> {
    if let Some(telemetry) = TELEMETRY.get() {
        return telemetry.get();
    }
    let _within = runtime()?.enter();
    let config = Config::from_env(SERVICE).map_err(Fault::from)?;
    let started = Telemetry::start(config).map_err(Fault::from)?;
    TELEMETRY.get_or_init(|| Here::new(started)).get()
}

/// Exports what waits, and lets go of the interpreter; called when it exits.
#[pyfunction]
pub(crate) fn _shutdown(py: Python<'_>) -> PyResult<()> {
    end(py);
    // In a fork of the process that started it there is nothing to export.
    if let Some(Ok(telemetry)) = TELEMETRY.get().map(Here::get) {
        wait(py, telemetry.shutdown())?;
    }
    Ok(())
}
