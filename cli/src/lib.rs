//! The `headworks` command: a pipeline on this machine, and tools to send, read, make up and route records.
//!
//! Data goes to stdout, talk to stderr. A closed pipe and Ctrl-C are no errors; [`exit::Exit`] lists the exit
//! codes. Each command is a module: its arguments, and what it does.

mod aws;
mod command;
mod courier;
pub mod demo;
pub mod dev;
pub mod exit;
mod gateway;
mod interrupt;
mod output;
pub mod pair;
mod payload;
pub mod pipeline;
pub mod routes;
pub mod send;
pub mod simulate;
pub mod tail;

pub use command::{Cli, Command, main};
