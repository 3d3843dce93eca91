//! The `headworks` command: a pipeline on this machine, and tools to send, read, make up and route records,
//! and to look after what runs.
//!
//! Data goes to stdout, talk to stderr. A closed pipe and Ctrl-C are no errors; [`exit::Exit`] lists the exit
//! codes. Each command is a module: its arguments, and what it does.

mod ask;
mod aws;
mod command;
mod connect;
pub mod consumers;
mod courier;
pub mod demo;
pub mod dev;
pub mod dlq;
pub mod exit;
pub mod gateway;
mod interrupt;
pub mod local;
mod moment;
mod output;
pub mod pair;
mod payload;
pub mod pipeline;
pub mod replay;
pub mod routes;
pub mod send;
pub mod simulate;
pub mod tail;

pub use command::{Cli, Command, main};
