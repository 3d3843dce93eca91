//! What both producers, the waiting and the asynchronous one, are made of.

use std::future::Future;
use std::time::Duration;

use headworks_producer::{Builder, Error, Producer, Receipt, Report, Ticket};
use headworks_record::Record;
use headworks_telemetry::Parent;
use opentelemetry::trace::{
    FutureExt as _, SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use tokio::sync::{Mutex, OnceCell};

use crate::error::Fault;
use crate::options::{seconds, typed};
use crate::telemetry::telemetry;

/// A producer that connects when it is first used.
#[derive(Debug)]
pub(crate) struct Sending {
    builder: Builder,
    producer: OnceCell<Producer>,
    closed: Mutex<bool>,
}

impl Sending {
    pub(crate) fn new(builder: Builder) -> Self {
        Self { builder, producer: OnceCell::new(), closed: Mutex::new(false) }
    }

    /// Connects, if that has not been done.
    pub(crate) async fn connect(&self) -> Result<&Producer, Fault> {
        // Held while connecting, so that a producer cannot be closed and connected at once.
        let closed = self.closed.lock().await;
        if *closed {
            return Err(Fault::producer_closed());
        }
        Ok(self.producer.get_or_try_init(|| self.builder.clone().connect()).await?)
    }

    pub(crate) async fn put(&self, record: Record, parent: Parent) -> Result<Receipt, Fault> {
        let ticket = self.send(record, parent).await?;
        Ok(ticket.await?)
    }

    /// Sends all, then waits for all answers, in the order of the records.
    pub(crate) async fn put_many(
        &self,
        records: Vec<Record>,
        parent: Parent,
    ) -> Result<Vec<Result<Receipt, Error>>, Fault> {
        let mut tickets = Vec::with_capacity(records.len());
        for record in records {
            tickets.push(self.send(record, parent).await?);
        }
        let mut answers = Vec::with_capacity(tickets.len());
        for ticket in tickets {
            answers.push(ticket.await);
        }
        Ok(answers)
    }

    async fn send(&self, record: Record, parent: Parent) -> Result<Ticket, Fault> {
        let producer = match self.producer.get() {
            Some(producer) => producer,
            None => self.connect().await?,
        };
        Ok(within(parent, producer.send(record)).await)
    }

    pub(crate) async fn flush(&self) {
        if let Some(producer) = self.producer.get() {
            producer.flush().await;
        }
    }

    /// Waits for the answers to what was sent, up to the given time.
    pub(crate) async fn close(&self, patience: Duration) -> Report {
        *self.closed.lock().await = true;
        match self.producer.get() {
            Some(producer) => producer.clone().close(patience).await,
            None => Report::default(),
        }
    }
}

/// Runs a future in the trace that the caller named: the producer takes the parent from the context.
async fn within<F: Future>(parent: Parent, future: F) -> F::Output {
    match parent {
        Parent::None => future.await,
        Parent::Remote { trace_id, span_id, flags } => {
            let context = SpanContext::new(
                TraceId::from_bytes(trace_id.0),
                SpanId::from_bytes(span_id.0),
                TraceFlags::new(flags),
                true,
                TraceState::NONE,
            );
            let context = opentelemetry::Context::new().with_remote_span_context(context);
            future.with_context(context).await
        }
    }
}

/// The caller's span, as a W3C `traceparent`.
pub(crate) fn parent(traceparent: Option<&str>) -> PyResult<Parent> {
    match traceparent {
        None => Ok(Parent::None),
        Some(text) => Ok(Parent::from_traceparent(text).map_err(Fault::from)?),
    }
}

/// The keyword arguments of a producer. The producer SDK checks the bounds when it connects.
pub(crate) fn builder(
    endpoint: Option<String>,
    stream: Option<String>,
    keywords: Option<&Bound<'_, PyDict>>,
) -> PyResult<Builder> {
    let mut builder = Producer::builder().telemetry(telemetry()?);
    if let Some(endpoint) = endpoint {
        builder = builder.endpoint(endpoint);
    }
    if let Some(stream) = stream {
        builder = builder.stream(stream);
    }
    for (name, value) in keywords.into_iter().flatten() {
        let name = name.cast::<PyString>()?.to_str()?;
        // None is the same as leaving the argument out.
        if value.is_none() {
            continue;
        }
        builder = match name {
            "timeout" => builder.timeout(seconds(name, &value)?),
            "connect_timeout" => builder.connect_timeout(seconds(name, &value)?),
            "longest_pause" => builder.longest_pause(seconds(name, &value)?),
            "endpoints" => builder.endpoints(typed::<Vec<String>>(name, &value)?),
            "token" => builder.token(typed::<String>(name, &value)?),
            "ca_certificates" => builder.ca_certificates(typed::<Vec<u8>>(name, &value)?),
            "buffer_offline" => builder.buffer_offline(typed(name, &value)?),
            "buffer_bytes" => builder.buffer_bytes(typed(name, &value)?),
            "batch_records" => builder.batch_records(typed(name, &value)?),
            "batch_bytes" => builder.batch_bytes(typed(name, &value)?),
            _ => {
                return Err(PyTypeError::new_err(format!(
                    "a producer has no argument {name:?}; known are endpoint, stream, endpoints, token, \
                     ca_certificates, timeout, connect_timeout, longest_pause, buffer_offline, buffer_bytes, \
                     batch_records, batch_bytes"
                )));
            }
        };
    }
    Ok(builder)
}
