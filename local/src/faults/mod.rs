//! Faults on demand: what AWS does on its bad days, when a test or a developer asks for it.
//!
//! A [`Fault`] says where (service, operation, stream, shard, partition key), when (always, on the n-th occasion,
//! with a probability and a seed) and what ([`Action`]). [`Faults`] is the handle through which they come and go
//! while the stack runs, and which counts how often each has fired.
//!
//! ```
//! use headworks_local::faults::{Action, Fault, Faults};
//!
//! let faults = Faults::default();
//! let lost = faults.add(Fault::on("PutRecords", Action::Lost).nth(3))?;
//! let throttled = faults.add("put-records throttle p=0.05 seed=7".parse()?)?;
//! assert_eq!(faults.fired(lost) + faults.fired(throttled), 0);
//! # Ok::<(), headworks_local::faults::FaultError>(())
//! ```
//!
//! From elsewhere, faults come and go over the control port ([`crate::Config::faults_port`]): `POST /faults` with a
//! fault as text, `GET /faults`, `DELETE /faults/ID`.
//!
//! Faults are injected at the ports, where clients meet the services. The event source mapping reads in process and
//! meets those of `GetRecords` all the same, on each read that would find something; another caller of the engine in
//! the same process meets only those that concern single entries of a put. Delays and stalls take real time, whatever clock the
//! engine has.

pub(crate) mod control;
mod error;
mod fault;
mod plan;
mod rules;
mod text;

pub use error::FaultError;
pub use fault::{Action, Fault, Service, When};
pub use rules::{FaultId, Faults, Fired};

pub(crate) use plan::{Injected, MESSAGE, Target};
pub(crate) use rules::{EventFault, pause};
