//! The `headworks` command as its users run it: a process with stdin, stdout, stderr and an exit code.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests, which may

mod consumers;
mod dlq;
mod gateway;
mod input;
mod local;
mod pipeline;
mod replay;
mod routes;
mod simulate;
mod support;
mod tail;
