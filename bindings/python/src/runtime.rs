//! The one tokio runtime of the process, and how Python waits for what runs on it.

use std::future::Future;
use std::pin::pin;
use std::sync::OnceLock;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3_async_runtimes::tokio as bridge;
use tokio::runtime::{Builder, Runtime};

use crate::error::Fault;
use crate::process::Here;

/// How long a wait goes on before it looks for signals: Ctrl-C is answered within this time.
const SIGNALS: Duration = Duration::from_millis(100);

static RUNTIME: OnceLock<Here<Runtime>> = OnceLock::new();

/// The runtime, started by its first use.
pub(crate) fn runtime() -> PyResult<&'static Runtime> {
    if let Some(runtime) = RUNTIME.get() {
        return runtime.get();
    }
    let started = Builder::new_multi_thread()
        .enable_all()
        .thread_name("headworks")
        .build()
        .map_err(|error| Fault::runtime(&error))?;
    // Whoever comes second drops the runtime that it started in vain.
    let runtime = RUNTIME.get_or_init(|| Here::new(started)).get()?;
    let _ = bridge::init_with_runtime(runtime);
    Ok(runtime)
}

/// Waits for a future without holding the interpreter. Ctrl-C ends the wait and drops the future.
pub(crate) fn wait<F>(py: Python<'_>, future: F) -> PyResult<F::Output>
where
    F: Future + Send,
    F::Output: Send,
{
    let runtime = runtime()?;
    let mut future = pin!(future);
    loop {
        let slice =
            py.detach(|| runtime.block_on(async { tokio::time::timeout(SIGNALS, future.as_mut()).await }));
        match slice {
            Ok(output) => return Ok(output),
            Err(_) => py.check_signals()?,
        }
    }
}

/// An awaitable of the running event loop. Its cancellation drops the future.
pub(crate) fn awaitable<'py, F, T>(py: Python<'py>, future: F) -> PyResult<Bound<'py, PyAny>>
where
    F: Future<Output = PyResult<T>> + Send + 'static,
    T: for<'a> IntoPyObject<'a> + Send + 'static,
{
    runtime()?;
    bridge::future_into_py(py, future)
}
