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
        let here = process::id();
        match &self.value {
            Some(value) if here == self.pid => Ok(value),
            _ => Err(Fault::used_after_fork(self.pid, here).into()),
        }
    }
}

impl<T> Drop for Here<T> {
    fn drop(&mut self) {
        // A thread that the fork does not have may hold one of the value's locks, for ever.
        if process::id() != self.pid {
            std::mem::forget(self.value.take());
        }
    }
}
