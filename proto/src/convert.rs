//! From the wire to records and back, with every check that does not need the gateway's configuration.

use headworks_record::{
    Creation, HashKey, PartitionKey, Record, RecordRef, SpanId, TraceId, creation, headers, key,
};

use crate::{MAX_ID_BYTES, v1, wire};

/// Why a record on the wire is not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The partition key or the explicit hash key.
    #[error(transparent)]
    Key(#[from] key::Error),
    /// A header.
    #[error(transparent)]
    Header(#[from] headers::Error),
    /// A name stands twice.
    #[error(
        "the header {name:?} is set twice; a record has each header at most once: join the values or rename one"
    )]
    RepeatedHeader {
        /// The name.
        name: String,
    },
    /// The traceparent.
    #[error(transparent)]
    Traceparent(#[from] creation::Error),
    /// The creation context.
    #[error(
        "the creation context has {what}; it needs a trace id of 16 bytes and a span id of 8, not all zero, and flags below 256: leave it out and the gateway mints one"
    )]
    Creation {
        /// What is wrong with it.
        what: String,
    },
    /// The id is too long.
    #[error("the id has {bytes} bytes, the limit is {MAX_ID_BYTES}; use a shorter id or a hash of it")]
    IdTooLong {
        /// Its size.
        bytes: usize,
    },
    /// Both an id and a creation context.
    #[error("the record has both an id and a creation context, and each is an identity; send one of them")]
    TwoIdentities,
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Key(error) => error.code(),
            Error::Header(error) => error.code(),
            Error::RepeatedHeader { .. } => "header-repeated",
            Error::Traceparent(error) => error.code(),
            Error::Creation { .. } => "creation-context-invalid",
            Error::IdTooLong { .. } => "id-too-long",
            Error::TwoIdentities => "identity-ambiguous",
        }
    }

    /// Whether the same input may be accepted later: never.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// What a client says about a record's identity; the gateway decides what to make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity<'r> {
    /// Nothing: the gateway mints a root, or a child of the call's own context.
    None,
    /// The client's context is the parent.
    Parent {
        /// The client's trace.
        trace_id: TraceId,
        /// The client's span.
        span_id: SpanId,
        /// W3C trace flags.
        flags: u8,
    },
    /// Derived from the id; the client's context, if any, becomes a link.
    Id(&'r str),
    /// Minted by one of our SDKs.
    Minted(Creation),
}

/// Checks a record of a request. It has no creation context yet: that is what the identity is for.
///
/// `headers` is where its names and values are put down, whatever was there before.
pub fn check<'h, 'r: 'h>(
    wire: wire::Record<'r>,
    headers: &'h mut Vec<(&'r str, &'r str)>,
) -> Result<(RecordRef<'h>, Identity<'r>), Error> {
    let identity = identity(&wire)?;
    headers.clear();
    let mut bytes = 0;
    for (name, value) in wire.headers() {
        if headers.iter().any(|(before, _)| *before == name) {
            return Err(Error::RepeatedHeader { name: name.to_owned() });
        }
        bytes = headers::check_next(headers.len(), bytes, name, value)?;
        headers.push((name, value));
    }
    let explicit_hash_key = match wire.explicit_hash_key() {
        "" => None,
        text => Some(text.parse::<HashKey>()?),
    };
    let key = wire.key();
    PartitionKey::check(key)?;
    Ok((RecordRef { key, explicit_hash_key, creation: None, headers, data: wire.data() }, identity))
}

/// The record of a message, with the creation context that one of our SDKs has given it, if any.
pub fn from_wire(message: v1::Record) -> Result<Record, Error> {
    let records = wire::Records::from(vec![message]);
    let mut headers = Vec::new();
    // There is one; none would have no key either.
    let record = records.iter().next().ok_or(key::Error::Empty)?;
    let (record, identity) = check(record, &mut headers)?;
    let creation = match identity {
        Identity::Minted(creation) => Some(creation),
        Identity::None | Identity::Parent { .. } | Identity::Id(_) => None,
    };
    Ok(RecordRef { creation, ..record }.to_record()?)
}

fn identity<'r>(wire: &wire::Record<'r>) -> Result<Identity<'r>, Error> {
    let id = wire.id();
    if id.len() > MAX_ID_BYTES {
        return Err(Error::IdTooLong { bytes: id.len() });
    }
    if let Some(creation) = wire.creation() {
        if !id.is_empty() {
            return Err(Error::TwoIdentities);
        }
        return Ok(Identity::Minted(minted(creation)?));
    }
    if !id.is_empty() {
        return Ok(Identity::Id(id));
    }
    if wire.traceparent().is_empty() {
        return Ok(Identity::None);
    }
    let (trace_id, span_id, flags) = Creation::parse_traceparent(wire.traceparent())?;
    Ok(Identity::Parent { trace_id, span_id, flags })
}

fn minted(context: wire::Context<'_>) -> Result<Creation, Error> {
    let wire::Context { trace_id, span_id, flags, created_unix_ms } = context;
    let bad = |what: String| Error::Creation { what };
    let trace_id: [u8; 16] =
        trace_id.try_into().map_err(|_| bad(format!("a trace id of {} bytes", trace_id.len())))?;
    let span_id: [u8; 8] =
        span_id.try_into().map_err(|_| bad(format!("a span id of {} bytes", span_id.len())))?;
    if trace_id == [0; 16] || span_id == [0; 8] {
        return Err(bad("an id that is all zero".to_owned()));
    }
    let flags = u8::try_from(flags).map_err(|_| bad(format!("flags of {flags}")))?;
    Ok(Creation { trace_id: TraceId(trace_id), span_id: SpanId(span_id), flags, created_ms: created_unix_ms })
}

/// A record as our SDKs send it: its creation context goes into its own field.
pub fn to_wire(record: &Record) -> v1::Record {
    v1::Record {
        key: record.key.as_str().to_owned(),
        explicit_hash_key: record.explicit_hash_key.map(|h| h.to_string()).unwrap_or_default(),
        headers: record
            .headers
            .iter()
            .map(|(name, value)| v1::Header { name: name.to_owned(), value: value.to_owned() })
            .collect(),
        data: record.data.clone(),
        id: String::new(),
        traceparent: String::new(),
        creation: record.headers.creation().map(|creation| v1::CreationContext {
            trace_id: creation.trace_id.0.to_vec().into(),
            span_id: creation.span_id.0.to_vec().into(),
            flags: creation.flags.into(),
            created_unix_ms: creation.created_ms,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(key: &str) -> v1::Record {
        v1::Record { key: key.to_owned(), ..Default::default() }
    }

    #[test]
    fn our_records_round_trip() {
        let record = Record::builder("k")
            .unwrap()
            .header("type", "x")
            .unwrap()
            .explicit_hash_key(HashKey(7))
            .creation(Creation::mint(1_790_000_000_000, [5; 18]))
            .data("payload")
            .build();
        assert_eq!(from_wire(to_wire(&record)).unwrap(), record);
    }

    #[test]
    fn bad_input_has_a_code() {
        let code = |wire: v1::Record| from_wire(wire).unwrap_err().code();
        assert_eq!(code(wire("")), "key-empty");
        assert_eq!(code(wire(&"k".repeat(257))), "key-too-long");
        assert_eq!(code(v1::Record { explicit_hash_key: "-1".into(), ..wire("k") }), "hash-key-invalid");
        assert_eq!(code(v1::Record { traceparent: "00-x".into(), ..wire("k") }), "creation-context-invalid");
        assert_eq!(code(v1::Record { id: "i".repeat(MAX_ID_BYTES + 1), ..wire("k") }), "id-too-long");
        let header = v1::Header { name: "type".into(), value: "x".into() };
        assert_eq!(
            code(v1::Record { headers: vec![header.clone(), header], ..wire("k") }),
            "header-repeated"
        );
        let creation = v1::CreationContext {
            trace_id: vec![1; 16].into(),
            span_id: vec![1; 7].into(),
            ..Default::default()
        };
        assert_eq!(
            code(v1::Record { creation: Some(creation.clone()), ..wire("k") }),
            "creation-context-invalid"
        );
        assert_eq!(
            code(v1::Record { creation: Some(creation), id: "i".into(), ..wire("k") }),
            "identity-ambiguous"
        );
    }
}
