//! What a span says: operation, stream, kind, time and outcome.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{SpanKind, Status};
use opentelemetry::{KeyValue, StringValue};

use crate::names;

/// The moment of a time in milliseconds since the Unix epoch, such as `created_ms`.
pub fn time_of(epoch_ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(epoch_ms)
}

/// One step of a record or of a batch; its span is named `{operation} {destination}`.
///
/// The constructors choose the kind by OpenTelemetry's messaging conventions: a send is CLIENT
/// because the context of the create span, not its own, travels with the record; a receive is CLIENT;
/// what works on records that another process created is CONSUMER, routing included.
#[derive(Debug, Clone)]
pub struct Step<'a> {
    /// The operation, one of [`names`] where it has one.
    pub operation: &'static str,
    /// The stream's name.
    pub destination: &'a str,
    /// The span's kind.
    pub kind: SpanKind,
    /// When the step began.
    pub start: SystemTime,
    /// When the step ended.
    pub end: SystemTime,
}

impl<'a> Step<'a> {
    /// Any step.
    pub fn new(
        operation: &'static str,
        destination: &'a str,
        kind: SpanKind,
        start: SystemTime,
        end: SystemTime,
    ) -> Self {
        Self { operation, destination, kind, start, end }
    }

    /// A record comes into being.
    pub fn create(stream: &'a str, start: SystemTime, end: SystemTime) -> Self {
        Self::new(names::CREATE, stream, kind_of(names::CREATE), start, end)
    }

    /// A batch is put on a stream.
    pub fn send(stream: &'a str, start: SystemTime, end: SystemTime) -> Self {
        Self::new(names::SEND, stream, kind_of(names::SEND), start, end)
    }

    /// A batch is read from a stream.
    pub fn receive(stream: &'a str, start: SystemTime, end: SystemTime) -> Self {
        Self::new(names::RECEIVE, stream, kind_of(names::RECEIVE), start, end)
    }

    /// The router works on a record of this inbound stream.
    pub fn route(stream: &'a str, start: SystemTime, end: SystemTime) -> Self {
        Self::new(names::ROUTE, stream, kind_of(names::ROUTE), start, end)
    }

    /// A handler works on a record of this stream.
    pub fn process(stream: &'a str, start: SystemTime, end: SystemTime) -> Self {
        Self::new(names::PROCESS, stream, kind_of(names::PROCESS), start, end)
    }

    /// A function is called with a batch of this stream.
    pub fn invoke(stream: &'a str, start: SystemTime, end: SystemTime) -> Self {
        Self::new(names::INVOKE, stream, kind_of(names::INVOKE), start, end)
    }

    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.operation, self.destination)
    }

    /// The attributes that every span of ours carries.
    pub(crate) fn push_attributes(&self, attributes: &mut Vec<KeyValue>) {
        let stream = StringValue::from(self.destination.to_owned());
        attributes.push(KeyValue::new(names::MESSAGING_SYSTEM, names::AWS_KINESIS));
        attributes.push(KeyValue::new(names::MESSAGING_OPERATION_NAME, self.operation));
        if let Some(class) = operation_type(self.operation) {
            attributes.push(KeyValue::new(names::MESSAGING_OPERATION_TYPE, class));
        }
        attributes.push(KeyValue::new(names::MESSAGING_DESTINATION_NAME, stream.clone()));
        attributes.push(KeyValue::new(names::AWS_KINESIS_STREAM_NAME, stream));
    }
}

/// The span kind of an operation.
pub(crate) fn kind_of(operation: &str) -> SpanKind {
    match operation {
        names::CREATE => SpanKind::Producer,
        names::SEND | names::RECEIVE => SpanKind::Client,
        // INTERNAL is for spans without a remote parent: a router is a consumer to its tools.
        names::ROUTE | names::PROCESS | names::INVOKE => SpanKind::Consumer,
        _ => SpanKind::Internal,
    }
}

fn operation_type(operation: &str) -> Option<&'static str> {
    match operation {
        names::CREATE => Some("create"),
        names::SEND => Some("send"),
        names::RECEIVE => Some("receive"),
        names::ROUTE | names::PROCESS | names::INVOKE => Some("process"),
        _ => None,
    }
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// It did what it should.
    Ok,
    /// It failed.
    Failed {
        /// The error's stable code, as in `docs/errors/`.
        code: &'a str,
        /// What happened, for a reader; cut after 1,024 bytes.
        message: &'a str,
    },
}

/// Bound of a message in a span: spans wait in a queue that is bounded in number.
const MAX_MESSAGE: usize = 1_024;

impl Outcome<'_> {
    /// Whether the step failed.
    pub fn is_failed(&self) -> bool {
        matches!(self, Outcome::Failed { .. })
    }

    /// The span's status; a failure also leaves its code among the attributes.
    pub(crate) fn status(&self, attributes: &mut Vec<KeyValue>) -> Status {
        match self {
            Outcome::Ok => Status::Unset,
            Outcome::Failed { code, message } => {
                attributes.push(KeyValue::new(names::ERROR_TYPE, (*code).to_owned()));
                let end = message.floor_char_boundary(MAX_MESSAGE);
                Status::error(message[..end].to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let message = "ü".repeat(1_000);
        let mut attributes = Vec::new();
        let status = Outcome::Failed { code: "c", message: &message }.status(&mut attributes);
        assert_eq!(status, Status::error("ü".repeat(512)));
        assert_eq!(attributes, [KeyValue::new(names::ERROR_TYPE, "c")]);
    }

    #[test]
    fn kinds_follow_the_conventions() {
        let now = time_of(1_000);
        let steps = [
            (Step::create("s", now, now), SpanKind::Producer),
            (Step::send("s", now, now), SpanKind::Client),
            (Step::receive("s", now, now), SpanKind::Client),
            (Step::route("s", now, now), SpanKind::Consumer),
            (Step::process("s", now, now), SpanKind::Consumer),
            (Step::invoke("s", now, now), SpanKind::Consumer),
        ];
        for (step, kind) in steps {
            assert_eq!(step.kind, kind, "{}", step.operation);
            assert_eq!(step.name(), format!("{} s", step.operation));
        }
    }
}
