//! What belongs to one process: threads do not survive a fork, so neither does what needs them.

use std::process;

use pyo3::PyResult;

use crate::error::Fault;

/// A value that is usable only in the process that made it.
#[derive(Debug)]
pub(crate) struct Here<T> {
    pid: u32,
    /// `Some` until it is dropped.
    value: Option<T>,
}

impl<T> Here<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { pid: process::id(), value: Some(value) }
    }

    /// The value; in a fork of the process that made it, an error that says what to do.
    pub(crate) fn get(&self) -> PyResult<&T> {
        same_process(self.pid)?;
        // It is there until it is dropped.
        self.value.as_ref().ok_or_else(|| Fault::used_after_fork(self.pid, self.pid).into())
    }
}

/// An error that says what to do, unless this is the process of that id.
pub(crate) fn same_process(pid: u32) -> PyResult<()> {
    let here = process::id();
    if here == pid { Ok(()) } else { Err(Fault::used_after_fork(pid, here).into()) }
}

impl<T> Drop for Here<T> {
    fn drop(&mut self) {
        // A thread that the fork does not have may hold one of the value's locks, for ever.
        if process::id() != self.pid {
            std::mem::forget(self.value.take());
        }
    }
}
