//! The demo's books: what was sent and acknowledged against what the consumers saw.
//!
//! A record is known by a digest of its key, headers and data, so one that was altered on the way is one
//! that was never sent.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use headworks_record::Record;
use sha2::{Digest as _, Sha256};

type Digest = [u8; 32];

/// The number of a sent record, in the order of sending.
pub(super) type Number = usize;

#[derive(Debug)]
struct Sent {
    stream: &'static str,
    key: String,
    kind: String,
    /// Its place among the records of its key on its stream.
    place: u64,
    acknowledged: bool,
    seen: u32,
}

/// Something that should not have happened. The first one is named and fails the demo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Offence {
    /// An acknowledged record that no consumer saw.
    Lost { number: Number, key: String, kind: String, stream: &'static str },
    /// A consumer saw a record that was not sent in this form.
    Altered { stream: String, key: String, shard: String, sequence_number: String, data: String },
    /// A consumer saw a record on a stream where it does not belong.
    Misrouted { number: Number, key: String, kind: String, expected: &'static str, found: String },
    /// A record came before one of its key that was sent earlier.
    OutOfOrder { number: Number, key: String, kind: String, stream: String, place: u64, after: u64 },
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Offence::Lost { number, key, kind, stream } => {
                write!(
                    f,
                    "LOST: record {number} ({kind}, key {key}) was acknowledged, but no consumer of {stream} saw it"
                )
            }
            Offence::Altered { stream, key, shard, sequence_number, data } => write!(
                f,
                "ALTERED: a record of key {key} on {stream} ({shard}, {sequence_number}) was not sent in this form: {data}"
            ),
            Offence::Misrouted { number, key, kind, expected, found } => {
                write!(
                    f,
                    "MISROUTED: record {number} ({kind}, key {key}) belongs on {expected}, but was consumed from {found}"
                )
            }
            Offence::OutOfOrder { number, key, kind, stream, place, after } => write!(
                f,
                "OUT OF ORDER: record {number} ({kind}), number {place} of key {key} on {stream}, was consumed after number {after}"
            ),
        }
    }
}

/// The counts of one stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Records handed to the producer.
    pub(super) sent: u64,
    /// Records that the gateway answered as stored.
    pub(super) acknowledged: u64,
    /// Different records that consumers saw.
    pub(super) consumed: u64,
    /// Acknowledged records that no consumer saw.
    pub(super) lost: u64,
    /// Times that a consumer saw a record again.
    pub(super) repeated: u64,
    /// Records that came before an earlier one of their key.
    pub(super) out_of_order: u64,
}

/// What was sent, and what became of it.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    sent: Vec<Sent>,
    by_digest: HashMap<Digest, Number>,
    places: HashMap<(&'static str, String), u64>,
    /// The highest place seen, by stream and key.
    newest: HashMap<(String, String), u64>,
    counts: BTreeMap<String, Counts>,
    offences: Vec<Offence>,
    /// Acknowledged records that no consumer has seen yet.
    outstanding: u64,
}

/// What a consumer saw.
#[derive(Debug, Clone)]
pub(super) struct Seen<'a> {
    /// The record.
    pub(super) record: &'a Record,
    /// Where it was read from.
    pub(super) stream: &'a str,
    /// On which shard.
    pub(super) shard: &'a str,
    /// Under which sequence number.
    pub(super) sequence_number: &'a str,
}

impl Ledger {
    /// Notes a record that is about to be sent.
    pub(super) fn sent(&mut self, record: &Record, stream: &'static str) -> Number {
        let number = self.sent.len();
        let key = record.key.as_str().to_owned();
        let place = self.places.entry((stream, key.clone())).or_default();
        let kind = record.headers.get("type").unwrap_or("?").to_owned();
        self.sent.push(Sent { stream, key, kind, place: *place, acknowledged: false, seen: 0 });
        *place += 1;
        self.by_digest.insert(digest(record), number);
        self.counts.entry(stream.to_owned()).or_default().sent += 1;
        number
    }

    /// Notes that the gateway answered it as stored.
    pub(super) fn acknowledged(&mut self, number: Number) {
        let sent = &mut self.sent[number];
        sent.acknowledged = true;
        // A consumer may see a record before its answer is noted.
        self.outstanding += u64::from(sent.seen == 0);
        self.counts.entry(sent.stream.to_owned()).or_default().acknowledged += 1;
    }

    /// Notes what a consumer saw.
    pub(super) fn seen(&mut self, seen: Seen<'_>) {
        let counts = self.counts.entry(seen.stream.to_owned()).or_default();
        let Some(&number) = self.by_digest.get(&digest(seen.record)) else {
            let data = String::from_utf8_lossy(&seen.record.data).chars().take(160).collect();
            self.offences.push(Offence::Altered {
                stream: seen.stream.to_owned(),
                key: seen.record.key.as_str().to_owned(),
                shard: seen.shard.to_owned(),
                sequence_number: seen.sequence_number.to_owned(),
                data,
            });
            return;
        };
        let sent = &mut self.sent[number];
        let (key, kind) = (sent.key.clone(), sent.kind.clone());
        if sent.stream != seen.stream {
            let found = seen.stream.to_owned();
            self.offences.push(Offence::Misrouted { number, key, kind, expected: sent.stream, found });
            return;
        }
        sent.seen += 1;
        if sent.seen > 1 {
            counts.repeated += 1;
            return;
        }
        counts.consumed += 1;
        self.outstanding -= u64::from(sent.acknowledged);
        let place = sent.place;
        let newest = self.newest.entry((seen.stream.to_owned(), key.clone())).or_insert(place);
        if *newest > place {
            counts.out_of_order += 1;
            let (stream, after) = (seen.stream.to_owned(), *newest);
            self.offences.push(Offence::OutOfOrder { number, key, kind, stream, place, after });
        } else {
            *newest = place;
        }
    }

    /// Acknowledged records that no consumer has seen yet.
    pub(super) fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// Different records that consumers have seen.
    pub(super) fn consumed(&self) -> u64 {
        self.counts.values().map(|counts| counts.consumed).sum()
    }

    /// Closes the books: what has not been seen is lost. The offences are in order of discovery.
    pub(super) fn close(mut self) -> (BTreeMap<String, Counts>, Vec<Offence>) {
        for (number, sent) in self.sent.iter().enumerate() {
            if sent.acknowledged && sent.seen == 0 {
                self.counts.entry(sent.stream.to_owned()).or_default().lost += 1;
                let (key, kind) = (sent.key.clone(), sent.kind.clone());
                self.offences.push(Offence::Lost { number, key, kind, stream: sent.stream });
            }
        }
        (self.counts, self.offences)
    }
}

/// Key, headers and data; the creation context is not the sender's to say.
fn digest(record: &Record) -> Digest {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(record.key.as_str().as_bytes());
    for (name, value) in record.headers.iter() {
        part(name.as_bytes());
        part(value.as_bytes());
    }
    part(&record.data);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, data: &str) -> Record {
        Record::builder(key.to_owned()).unwrap().header("type", "t").unwrap().data(data.to_owned()).build()
    }

    fn seen<'a>(record: &'a Record, stream: &'a str) -> Seen<'a> {
        Seen { record, stream, shard: "shardId-0", sequence_number: "1" }
    }

    fn three() -> (Ledger, Vec<Record>) {
        let mut ledger = Ledger::default();
        let records: Vec<Record> = ["a", "b", "c"].map(|data| record("k", data)).into();
        for record in &records {
            let number = ledger.sent(record, "orders");
            ledger.acknowledged(number);
        }
        (ledger, records)
    }

    #[test]
    fn a_clean_run_has_no_offence_and_counts_repeats() {
        let (mut ledger, records) = three();
        records.iter().chain(&records[1..2]).for_each(|r| ledger.seen(seen(r, "orders")));
        let (counts, offences) = ledger.close();
        assert_eq!(offences, []);
        let expected =
            Counts { sent: 3, acknowledged: 3, consumed: 3, lost: 0, repeated: 1, out_of_order: 0 };
        assert_eq!(counts["orders"], expected);
    }

    #[test]
    fn a_dropped_record_is_lost() {
        let (mut ledger, records) = three();
        ledger.seen(seen(&records[0], "orders"));
        ledger.seen(seen(&records[2], "orders"));
        let (counts, offences) = ledger.close();
        assert!(matches!(&offences[..], [Offence::Lost { number: 1, .. }]), "{offences:?}");
        assert_eq!(counts["orders"].lost, 1);
    }

    #[test]
    fn swapped_records_are_out_of_order() {
        let (mut ledger, records) = three();
        for place in [1, 0, 2] {
            ledger.seen(seen(&records[place], "orders"));
        }
        let (_, offences) = ledger.close();
        assert!(matches!(&offences[..], [Offence::OutOfOrder { place: 0, after: 1, .. }]), "{offences:?}");
    }

    #[test]
    fn an_altered_record_is_named() {
        let (mut ledger, records) = three();
        ledger.seen(seen(&records[0], "orders"));
        ledger.seen(seen(&record("k", "B"), "orders"));
        ledger.seen(seen(&records[2], "orders"));
        let (_, offences) = ledger.close();
        assert!(
            matches!(&offences[..], [Offence::Altered { data, .. }, Offence::Lost { number: 1, .. }] if data == "B")
        );
    }

    #[test]
    fn the_wrong_stream_is_named() {
        let (mut ledger, records) = three();
        ledger.seen(seen(&records[0], "clicks"));
        let (_, offences) = ledger.close();
        assert!(matches!(&offences[0], Offence::Misrouted { expected: "orders", .. }));
    }

    #[test]
    fn what_was_not_acknowledged_may_be_missing() {
        let mut ledger = Ledger::default();
        ledger.sent(&record("k", "a"), "orders");
        assert_eq!(ledger.outstanding(), 0);
        assert_eq!(ledger.close().1, []);
    }
}
