use std::sync::Arc;

use tokio::sync::Semaphore;

use super::*;
use crate::ticket::Receipt;

const CREDIT: Credit = Credit { records: 100, bytes: 100_000 };

struct Desk {
    outbox: Outbox,
    settled: Vec<Settled>,
    now: Instant,
}

impl Desk {
    fn new() -> Self {
        Self { outbox: Outbox::default(), settled: Vec::new(), now: Instant::now() }
    }

    /// Pushes records with the numbers as their data, each a second later than the one before.
    fn push(&mut self, numbers: std::ops::Range<u64>) {
        let buffer = Arc::new(Semaphore::new(1_000_000));
        for number in numbers {
            let record = Record::builder("k").unwrap().data(number.to_string()).build();
            let permit = Arc::clone(&buffer).try_acquire_owned().unwrap();
            let deadline = self.now + Duration::from_secs(number);
            let (answer, _) = oneshot::channel();
            self.outbox.push(Entry {
                record,
                birth: None,
                deadline,
                answer,
                permit,
                sent: false,
                place: number,
            });
        }
    }

    /// The next batch: its number, and the data of its records.
    fn batch(&mut self, credit: &Credit, records: usize, bytes: usize) -> Option<(u64, Vec<String>)> {
        let (number, wire) = self.outbox.next_batch(credit, records, bytes, &mut self.settled)?;
        Some((number, wire.iter().map(|r| String::from_utf8(r.data.to_vec()).unwrap()).collect()))
    }

    fn answer(&mut self, batch: u64, records: usize) {
        let stored = Receipt::Stored(v1::Stored::default().into());
        let answers = (0..records).map(|_| Ok(stored.clone())).collect();
        assert!(self.outbox.answered(batch, answers, &mut self.settled));
    }

    fn expire(&mut self, seconds: u64) {
        let error =
            |sent| if sent { Error::OutcomeUnknown { message: String::new() } } else { Error::Closed };
        self.outbox.expire(self.now + Duration::from_secs(seconds), error, &mut self.settled);
    }

    /// What was settled since the last look: the data, and the code of the error.
    fn settled(&mut self) -> Vec<(String, String)> {
        self.settled
            .drain(..)
            .map(|(entry, outcome)| {
                let code = outcome.map_or_else(|error| error.code().to_owned(), |_| String::new());
                (String::from_utf8(entry.record.data.to_vec()).unwrap(), code)
            })
            .collect()
    }
}

fn data(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

#[test]
fn batches_follow_the_order_and_the_limits() {
    let mut desk = Desk::new();
    desk.push(10..25);
    assert_eq!(desk.batch(&CREDIT, 10, 1 << 20), Some((0, data(10..20))));
    // A record of three bytes takes at most 163 on the wire.
    assert_eq!(desk.batch(&CREDIT, 10, 2 * 163), Some((1, data(20..22))));
    assert_eq!(desk.batch(&CREDIT, 10, 1), Some((2, data(22..23))), "at least one record");
    assert_eq!(desk.batch(&CREDIT, 10, 1 << 20), Some((3, data(23..25))));
    assert_eq!(desk.batch(&CREDIT, 10, 1 << 20), None);
}

#[test]
fn the_credit_is_kept_to() {
    let mut desk = Desk::new();
    desk.push(10..20);
    let by_records = Credit { records: 3, ..CREDIT };
    assert_eq!(desk.batch(&by_records, 10, 1 << 20), Some((0, data(10..13))));
    assert!(!desk.outbox.can_send(&by_records));
    assert_eq!(desk.batch(&by_records, 10, 1 << 20), None);
    desk.answer(0, 3);
    assert!(desk.outbox.can_send(&by_records));
    // Records of three bytes.
    let by_bytes = Credit { bytes: 8, ..CREDIT };
    assert_eq!(desk.batch(&by_bytes, 10, 1 << 20), Some((1, data(13..15))));
    assert!(!desk.outbox.can_send(&by_bytes));
    desk.outbox.disconnected();
    assert!(desk.outbox.can_send(&by_bytes), "a new connection owes nothing");
}

#[test]
fn what_no_credit_has_room_for_does_not_block() {
    let mut desk = Desk::new();
    desk.push(99..102);
    let tiny = Credit { records: 100, bytes: 3 };
    assert!(desk.outbox.can_send(&tiny));
    assert_eq!(desk.batch(&tiny, 10, 1 << 20), Some((0, data(99..100))));
    desk.answer(0, 1);
    assert_eq!(desk.batch(&tiny, 10, 1 << 20), None);
    let codes = desk.settled();
    assert_eq!(codes[0].1, "");
    assert_eq!(
        codes[1..],
        [("100".into(), "record-too-large".into()), ("101".into(), "record-too-large".into())]
    );
    assert!(desk.outbox.is_empty());
}

#[test]
fn what_was_not_answered_is_sent_again_in_order() {
    let mut desk = Desk::new();
    desk.push(0..12);
    for number in 0..3 {
        assert_eq!(desk.batch(&CREDIT, 3, 1 << 20).unwrap().0, number);
    }
    desk.answer(1, 3);
    assert_eq!(desk.settled().len(), 3);
    desk.outbox.disconnected();
    let mut expected = data(0..3);
    expected.extend(data(6..12));
    assert_eq!(desk.batch(&CREDIT, 100, 1 << 20), Some((3, expected)));
    assert!(!desk.outbox.answered(0, vec![], &mut desk.settled), "the old number is gone");
    desk.answer(3, 9);
    assert!(desk.outbox.is_empty());
}

#[test]
fn a_flush_waits_for_what_came_before_it_only() {
    let mut desk = Desk::new();
    assert!(desk.outbox.is_settled(0) && desk.outbox.is_settled(100));
    desk.push(0..3);
    let end = 3;
    desk.push(3..6);
    desk.batch(&CREDIT, 3, 1 << 20);
    desk.batch(&CREDIT, 3, 1 << 20);
    desk.answer(1, 3);
    desk.outbox.disconnected();
    assert!(!desk.outbox.is_settled(end));
    let (number, _) = desk.batch(&CREDIT, 3, 1 << 20).unwrap();
    desk.push(6..7);
    desk.answer(number, 3);
    assert!(desk.outbox.is_settled(end));
    assert!(!desk.outbox.is_settled(7));
}

#[test]
fn time_runs_out_in_order_and_says_whether_it_was_sent() {
    let mut desk = Desk::new();
    desk.push(1..7);
    desk.batch(&CREDIT, 3, 1 << 20);
    assert_eq!(desk.outbox.next_deadline(), Some(desk.now + Duration::from_secs(1) + ANSWER_GRACE));
    desk.expire(1);
    assert!(desk.settled().is_empty(), "the answer has its grace");
    desk.expire(3);
    assert_eq!(
        desk.settled(),
        [("1", "outcome-unknown"), ("2", "outcome-unknown")].map(|(d, c)| (d.into(), c.into()))
    );
    desk.expire(4);
    assert_eq!(
        desk.settled(),
        [("3", "outcome-unknown"), ("4", "producer-closed")].map(|(d, c)| (d.into(), c.into()))
    );
    // The late answer settles nothing twice.
    desk.answer(0, 3);
    assert!(desk.settled().is_empty());

    desk.batch(&CREDIT, 1, 1 << 20);
    desk.outbox.disconnected();
    desk.expire(6);
    assert_eq!(
        desk.settled(),
        [("5", "outcome-unknown"), ("6", "producer-closed")].map(|(d, c)| (d.into(), c.into()))
    );
    assert!(desk.outbox.is_empty() && desk.outbox.next_deadline().is_none());
}

#[test]
fn an_answer_that_is_too_short_is_no_confirmation() {
    let mut desk = Desk::new();
    desk.push(0..2);
    desk.batch(&CREDIT, 2, 1 << 20);
    desk.answer(0, 1);
    assert_eq!(desk.settled(), [("0", ""), ("1", "outcome-unknown")].map(|(d, c)| (d.into(), c.into())));
}

#[test]
fn the_bound_on_the_wire_holds() {
    use headworks_proto::v1::put_stream_request::{Batch, Message};
    use headworks_record::HashKey;

    let mut builder = Record::builder("k".repeat(256)).unwrap().explicit_hash_key(HashKey::MAX);
    for i in 0..32 {
        builder = builder.header(format!("h{i}"), "v".repeat(200)).unwrap();
    }
    for data in [0, 1, 200, 20_000, 3_000_000] {
        let record = builder
            .clone()
            .creation(Creation { created_ms: u64::MAX, ..Creation::mint(u64::MAX, [255; 18]) })
            .data(vec![0; data])
            .build();
        let batch = Batch { number: u64::MAX, records: vec![convert::to_wire(&record)] };
        let message = v1::PutStreamRequest { message: Some(Message::Batch(batch)) };
        let size = prost::Message::encoded_len(&message);
        assert!(size <= wire_bytes(&record) + MESSAGE_OVERHEAD, "{size}");
    }
}

#[test]
fn what_comes_from_another_outbox_goes_where_its_place_puts_it() {
    let (mut desk, mut other) = (Desk::new(), Desk::new());
    other.push(0..2);
    other.push(4..6);
    other.batch(&CREDIT, 1, 1 << 20);
    desk.push(2..4);
    desk.push(6..8);
    desk.batch(&CREDIT, 1, 1 << 20);
    desk.outbox.absorb(other.outbox.take_all());
    assert!(desk.outbox.is_settled(0) && !desk.outbox.is_settled(1));
    // The one that is on its way stays so; what follows is in order.
    let mut expected = data(0..2);
    expected.extend(data(3..8));
    assert_eq!(desk.batch(&CREDIT, 100, 1 << 20), Some((1, expected)));
    desk.answer(1, 7);
    assert!(desk.outbox.is_settled(2) && !desk.outbox.is_settled(3), "record 2 went before record 0");
}
