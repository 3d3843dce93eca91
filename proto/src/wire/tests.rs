use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::{MAX_BATCH_RECORDS, v1};

fn context() -> impl Strategy<Value = v1::CreationContext> {
    (any::<Vec<u8>>(), any::<Vec<u8>>(), any::<u32>(), any::<u64>()).prop_map(
        |(trace, span, flags, created_unix_ms)| v1::CreationContext {
            trace_id: trace.into(),
            span_id: span.into(),
            flags,
            created_unix_ms,
        },
    )
}

fn record() -> impl Strategy<Value = v1::Record> {
    let text = || proptest::string::string_regex(".{0,20}").unwrap();
    let header = (text(), text()).prop_map(|(name, value)| v1::Header { name, value });
    let headers = proptest::collection::vec(header, 0..4);
    let texts = (text(), text(), text(), text());
    (texts, headers, any::<Vec<u8>>(), proptest::option::of(context())).prop_map(
        |((key, explicit_hash_key, id, traceparent), headers, data, creation)| v1::Record {
            key,
            explicit_hash_key,
            headers,
            data: data.into(),
            id,
            traceparent,
            creation,
        },
    )
}

fn records() -> impl Strategy<Value = Vec<v1::Record>> {
    proptest::collection::vec(record(), 0..6)
}

/// The generated messages of what was read.
fn generated(records: &Records) -> Vec<v1::Record> {
    let header = |(name, value): (&str, &str)| v1::Header { name: name.into(), value: value.into() };
    let copy = Bytes::copy_from_slice;
    records
        .iter()
        .map(|record| v1::Record {
            key: record.key().into(),
            explicit_hash_key: record.explicit_hash_key().into(),
            headers: record.headers().map(header).collect(),
            data: copy(record.data()),
            id: record.id().into(),
            traceparent: record.traceparent().into(),
            creation: record.creation().map(|context| v1::CreationContext {
                trace_id: copy(context.trace_id),
                span_id: copy(context.span_id),
                flags: context.flags,
                created_unix_ms: context.created_unix_ms,
            }),
        })
        .collect()
}

fn user_bytes(records: &[v1::Record]) -> usize {
    let headers = |record: &v1::Record| -> usize {
        record.headers.iter().map(|header| header.name.len() + header.value.len()).sum()
    };
    records.iter().map(|record| record.key.len() + headers(record) + record.data.len()).sum()
}

/// What both readers make of a message of a `PutStream`: the generated message, or that it is refused.
fn of_stream(bytes: Bytes) -> [Option<v1::PutStreamRequest>; 2] {
    use v1::put_stream_request::{Batch, Message as Told};
    let message = |asked| match asked {
        Asked::Open(open) => Told::Open(open),
        Asked::Batch(batch) => {
            Told::Batch(Batch { number: batch.number, records: generated(&batch.records) })
        }
    };
    let ours = PutStreamRequest::read(bytes.clone()).ok();
    let ours = ours.map(|request| v1::PutStreamRequest { message: request.message.map(message) });
    [ours, v1::PutStreamRequest::decode(bytes).ok()]
}

fn of_put(bytes: Bytes) -> [Option<v1::PutRequest>; 2] {
    let ours = PutRequest::read(bytes.clone()).ok().map(|request| v1::PutRequest {
        records: generated(&request.records),
        stream: request.stream,
        timeout: request.timeout,
    });
    [ours, v1::PutRequest::decode(bytes).ok()]
}

/// Both kinds of request, by both readers.
fn read_alike(bytes: Bytes) -> Result<(), TestCaseError> {
    let [ours, theirs] = of_stream(bytes.clone());
    prop_assert_eq!(ours, theirs);
    let [ours, theirs] = of_put(bytes);
    prop_assert_eq!(ours, theirs);
    Ok(())
}

fn batch(number: u64, records: Vec<v1::Record>) -> Vec<u8> {
    use v1::put_stream_request::{Batch, Message as Told};
    v1::PutStreamRequest { message: Some(Told::Batch(Batch { number, records })) }.encode_to_vec()
}

proptest! {
    #[test]
    fn a_batch_is_read_as_the_generated_message_is(number: u64, records in records()) {
        let [ours, theirs] = of_stream(batch(number, records.clone()).into());
        prop_assert!(ours.is_some());
        prop_assert_eq!(ours, theirs);
        let laid_out = Records::from(records.clone());
        prop_assert_eq!(laid_out.user_bytes(), user_bytes(&records));
        prop_assert_eq!(generated(&laid_out), records);
    }

    #[test]
    fn a_put_is_read_as_the_generated_message_is(stream: String, records in records(), seconds: Option<i64>) {
        let timeout = seconds.map(|seconds| prost_types::Duration { seconds, nanos: 5 });
        let bytes = v1::PutRequest { stream, records: records.clone(), timeout }.encode_to_vec();
        let read = PutRequest::read(bytes.clone().into()).unwrap();
        prop_assert_eq!(read.records.user_bytes(), user_bytes(&records));
        prop_assert_eq!(read.records.len(), records.len());
        let [ours, theirs] = of_put(bytes.into());
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn an_opening_is_read_as_the_generated_message_is(stream: String, compact_results: bool) {
        use v1::put_stream_request::{Message as Told, Open};
        let open = Open { stream, timeout: None, compact_results };
        let [ours, theirs] = of_stream(v1::PutStreamRequest { message: Some(Told::Open(open)) }.encode_to_vec().into());
        prop_assert_eq!(ours, theirs);
    }

    // Fields out of order, twice, of other types, unknown: whatever comes of a flipped byte, or of two messages in one.
    #[test]
    fn what_is_damaged_is_read_or_refused_as_the_generated_message_is(
        records in records(), more in records(), flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = batch(7, records);
        bytes.extend(batch(9, more));
        for (at, flip) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        read_alike(bytes.into())?;
    }

    #[test]
    fn any_bytes_are_read_or_refused_as_the_generated_message_is(bytes: Vec<u8>) {
        read_alike(bytes.into())?;
    }
}

#[test]
fn what_nobody_knows_is_passed_over_and_what_is_no_text_is_refused() {
    // A batch of one record: its key, an unknown field, its data.
    let record = b"\x0a\x01k\x7a\x01?\x22\x02ab";
    let message = [&[0x12, 14, 0x08, 5, 0x12, 10][..], record].concat();
    let Some(Asked::Batch(batch)) = PutStreamRequest::read(message.into()).unwrap().message else {
        panic!("no batch")
    };
    let read = batch.records.iter().next().unwrap();
    assert_eq!((batch.number, read.key(), read.data()), (5, "k", &b"ab"[..]));
    // The key, and the name of a header.
    for bad in [&b"\x0a\x02k\xff"[..], &b"\x1a\x03\x0a\x01\xff"[..]] {
        let message = [&[0x12, bad.len() as u8][..], bad].concat();
        let error = PutRequest::read(message.into()).unwrap_err();
        assert!(error.to_string().contains("UTF-8"), "{error}");
    }
}

#[test]
fn more_records_than_a_batch_may_have_are_counted_and_not_kept() {
    let record = v1::Record { key: "k".into(), data: "x".into(), ..Default::default() };
    for records in [MAX_BATCH_RECORDS, MAX_BATCH_RECORDS + 3] {
        let request = v1::PutRequest { records: vec![record.clone(); records], ..Default::default() };
        let read = PutRequest::read(request.encode_to_vec().into()).unwrap();
        assert_eq!((read.records.len(), read.records.iter().len()), (records, MAX_BATCH_RECORDS));
    }
}
