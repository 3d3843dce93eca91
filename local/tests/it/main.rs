//! The embedded stack, driven with the real SDK clients over real sockets.

// Helpers of tests are tests, which clippy.toml's exemption does not see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod alone;
mod control;
mod dry_run;
mod engine;
mod errors;
mod extras;
mod faults;
mod faults_three_ways;
mod iterators;
mod limits;
mod ondemand;
mod protocol;
mod records;
mod reshard;
mod shards;
mod stack;
mod store;
mod subscribe;
mod support;
mod tags;
