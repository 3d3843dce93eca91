//! The one tokio runtime of the process, and how Python waits for what runs on it.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3_async_runtimes::{TaskLocals, generic, tokio as bridge};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::task::TaskTracker;

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
    generic::future_into_py::<Answering, _, _>(py, future)
}

/// Threads that hand results to Python. They must be done before the interpreter ends: a thread that asks for it
/// then is ended by force in the middle of Rust.
static ANSWERS: LazyLock<TaskTracker> = LazyLock::new(TaskTracker::new);
static ENDING: AtomicBool = AtomicBool::new(false);
/// How long the interpreter's end waits for them.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Called when the interpreter is about to end: nothing more is handed to Python.
pub(crate) fn end(py: Python<'_>) {
    ENDING.store(true, Ordering::SeqCst);
    ANSWERS.close();
    if let Some(Ok(runtime)) = RUNTIME.get().map(Here::get) {
        py.detach(|| {
            let _ = runtime.block_on(async { tokio::time::timeout(LAST_ANSWERS, ANSWERS.wait()).await });
        });
    }
}

/// The bridge's runtime, but one that knows which threads are handing a result to Python.
struct Answering;

tokio::task_local! {
    static LOCALS: TaskLocals;
}

impl generic::Runtime for Answering {
    type JoinError = JoinError;
    type JoinHandle = JoinHandle<()>;

    fn spawn<F>(future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        bridge::get_runtime().spawn(future)
    }

    fn spawn_blocking<F>(answer: F) -> JoinHandle<()>
    where
        F: FnOnce() + Send + 'static,
    {
        // Counted before the look at ENDING, so that `end` waits for whoever did not see it.
        let token = ANSWERS.token();
        if ENDING.load(Ordering::SeqCst) {
            return bridge::get_runtime().spawn(async {});
        }
        bridge::get_runtime().spawn_blocking(move || {
            let _token = token;
            answer();
        })
    }
}

impl generic::ContextExt for Answering {
    fn scope<F, R>(locals: TaskLocals, future: F) -> Pin<Box<dyn Future<Output = R> + Send>>
    where
        F: Future<Output = R> + Send + 'static,
    {
        Box::pin(LOCALS.scope(locals, future))
    }

    fn get_task_locals() -> Option<TaskLocals> {
        LOCALS.try_with(Clone::clone).ok()
    }
}
