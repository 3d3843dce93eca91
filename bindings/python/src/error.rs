//! From the errors of the Rust crates to the exceptions of `headworks.errors`.

use headworks_record::{creation, headers, key};
use pyo3::prelude::*;

/// What an exception says. Texts, codes and verdicts come from the crates; only the class is chosen here.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    code: String,
    message: String,
    retryable: bool,
    outcome_unknown: bool,
}

/// The exception class of a code. Codes are stable (`docs/errors/`); one that is not listed is a fault of
/// Headworks itself, or comes from a newer gateway, and is raised as the base class. The class says what a
/// caller can do, which the gRPC status of a code does not: what a batch or a stream of puts breaks between
/// producer and gateway has `INVALID_ARGUMENT`, but is no input of the caller's.
fn class(code: &str) -> &'static str {
    match code {
        "key-empty"
        | "key-too-long"
        | "hash-key-invalid"
        | "header-name-invalid"
        | "header-name-reserved"
        | "header-value-too-long"
        | "header-repeated"
        | "headers-too-many"
        | "headers-too-large"
        | "creation-context-invalid"
        | "identity-ambiguous"
        | "id-too-long"
        | "record-too-large"
        | "batch-empty"
        | "batch-too-many-records"
        | "batch-too-large"
        | "message-too-large"
        | "config-invalid"
        | "consumer-config-invalid"
        | "telemetry-config-invalid"
        | "telemetry-exporter-invalid"
        | "sampling-ratio-invalid"
        | "timeout-invalid"
        | "payload-not-json"
        | "protected-field-missing"
        | "argument-invalid" => "InvalidInput",
        "stream-unknown" | "kinesis-not-found" => "NotFound",
        "creation-not-allowed"
        | "credentials-missing"
        | "credentials-invalid"
        | "credentials-expired"
        | "principal-not-allowed"
        | "stream-not-allowed"
        | "header-not-allowed"
        | "gateway-refused"
        | "put-stream-protocol"
        | "batch-number-repeated"
        | "credit-exceeded"
        | "stream-refused"
        | "kinesis-refused"
        | "lease-table-refused"
        | "lease-table-invalid"
        | "worker-id-taken" => "Refused",
        "deadline-exceeded"
        | "gateway-draining"
        | "gateway-unreachable"
        | "writer-stopped"
        | "shard-map-incomplete"
        | "consumer-not-active"
        | "kinesis-in-use"
        | "kinesis-iterator-expired"
        | "kinesis-unavailable"
        | "lease-table-unavailable"
        | "credentials-unverifiable"
        | "spool-failed"
        | "lease-lost" => "Unavailable",
        "writer-full"
        | "spool-full"
        | "quota-exceeded"
        | "principals-too-many"
        | "kinesis-throttled"
        | "runtime-not-started" => "Overloaded",
        "outcome-unknown" => "OutcomeUnknown",
        "aggregate-index-out-of-range"
        | "aggregate-inflates-too-far"
        | "aggregate-version-unsupported"
        | "aggregate-member-invalid"
        | "lease-item-invalid" => "Undecodable",
        // Records are given back unacknowledged by closing the consumer, and in no other way.
        "producer-closed" | "consumer-closed" | "records-unacknowledged" => "Closed",
        "used-after-fork" => "UsedAfterFork",
        _ => "HeadworksError",
    }
}

impl Fault {
    fn new(code: &str, message: impl ToString, retryable: bool) -> Self {
        Self { code: code.to_owned(), message: message.to_string(), retryable, outcome_unknown: false }
    }

    /// An argument that the crates never get to see.
    pub(crate) fn argument(message: impl ToString) -> Self {
        Self::new("argument-invalid", message, false)
    }

    pub(crate) fn producer_closed() -> Self {
        Self::new(
            "producer-closed",
            "the producer is closed and takes no more records; make a new one",
            false,
        )
    }

    pub(crate) fn consumer_closed() -> Self {
        Self::new("consumer-closed", "the consumer is closed and cannot start again; make a new one", false)
    }

    pub(crate) fn runtime(error: &std::io::Error) -> Self {
        let message =
            format!("the threads of headworks cannot be started: {error}; check the limit of threads");
        Self::new("runtime-not-started", message, true)
    }

    pub(crate) fn used_after_fork(parent: u32, here: u32) -> Self {
        let message = format!(
            "process {here} was forked from process {parent} after headworks had started its threads there, \
             and a fork has no threads; start processes with multiprocessing's \"spawn\" or \"forkserver\", \
             or use headworks in the children only"
        );
        Self::new("used-after-fork", message, false)
    }

    /// The exception itself, not raised.
    pub(crate) fn exception<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let class = py.import("headworks.errors")?.getattr(class(&self.code))?;
        class.call1((&self.message, &self.code, self.retryable, self.outcome_unknown))
    }
}

impl From<Fault> for PyErr {
    fn from(fault: Fault) -> Self {
        Python::attach(|py| fault.exception(py).map_or_else(|error| error, PyErr::from_value))
    }
}

impl From<headworks_producer::Error> for Fault {
    fn from(error: headworks_producer::Error) -> Self {
        let outcome_unknown = error.outcome_unknown();
        Self { outcome_unknown, ..Self::new(error.code(), &error, error.is_retryable()) }
    }
}

macro_rules! faults {
    ($($error:ty),*) => {$(
        impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                Self::new(error.code(), &error, error.is_retryable())
            }
        }
    )*};
}
faults!(
    key::Error,
    headers::Error,
    creation::Error,
    headworks_producer::ConnectError,
    headworks_consumer::ConfigError,
    headworks_consumer::Error,
    headworks_telemetry::config::Error,
    headworks_telemetry::setup::Error
);
