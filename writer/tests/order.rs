//! Order per key and completeness, whatever the stream does: fails at random, answers late, commits
//! without answering, splits and merges.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;

use common::{MemoryStream, Misbehaviour, Rule, first_occurrences, numbered};
use headworks_record::Record;
use headworks_record::aggregate::{Builder, Decoded, decode};
use headworks_writer::{Config, Encoded, Parcel, Put, Writer};
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone)]
enum Step {
    /// A batch of records; or an aggregate, whole or in part, which is carried on.
    Send {
        keys: Vec<u8>,
        as_aggregate: bool,
        but_for: u8,
    },
    Split(usize),
    Merge(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (proptest::collection::vec(0u8..12, 1..40), any::<bool>(), 0u8..24)
            .prop_map(|(keys, as_aggregate, but_for)| Step::Send { keys, as_aggregate, but_for }),
        1 => (0usize..8).prop_map(Step::Split),
        1 => (0usize..8).prop_map(Step::Merge),
        2 => (0u64..60).prop_map(Step::Wait),
    ]
}

fn misbehaviour() -> impl Strategy<Value = Misbehaviour> {
    (0.0..0.3, 0.0..0.15, 0.0..0.2, 0.0..0.15, 0u64..80).prop_map(
        |(throttle_entry, fail_entry_ambiguously, refuse_call, commit_without_answer, answer_late_ms)| {
            Misbehaviour {
                throttle_entry,
                fail_entry_ambiguously,
                refuse_call,
                commit_without_answer,
                answer_late_ms,
            }
        },
    )
}

fn config() -> Config {
    Config {
        aggregate_bytes: 1024,
        deadline_ms: 86_400_000,
        max_backoff_ms: 200,
        concurrency: 3,
        ..Config::default()
    }
}

/// The records as an aggregate that is carried on, but for those of one key, which stand among its members
/// as records of their own.
fn parcels(records: &[Record], but_for: &str) -> Vec<Parcel> {
    let mut builder = Builder::new();
    records.iter().for_each(|record| builder.push(record));
    let Decoded::Aggregate(aggregate) = decode(&builder.finish()).unwrap() else { panic!("an aggregate") };
    let aggregate = Arc::new(aggregate);
    if records.iter().all(|record| record.key.as_str() != but_for) {
        return vec![Encoded::whole(aggregate).unwrap().into()];
    }
    let mut parcels = Vec::new();
    let mut run = Vec::new();
    for (place, record) in records.iter().enumerate() {
        if record.key.as_str() != but_for {
            run.push(place as u32);
            continue;
        }
        let places = std::mem::take(&mut run);
        parcels.push(Encoded::members_at(Arc::clone(&aggregate), places).unwrap().into());
        parcels.push(Put::new(record.clone()).into());
    }
    parcels.push(Encoded::members_at(aggregate, run).unwrap().into());
    parcels
}

async fn play(steps: Vec<Step>, wrong: Misbehaviour, seed: u64, lanes: u16, zstd_level: Option<i32>) {
    let stream = MemoryStream::new(3, seed);
    stream.with(|state| {
        state.misbehaviour = wrong;
        state.lanes = lanes;
    });
    let (service, writer) =
        Writer::start(Config { zstd_level, ..config() }, stream.clone(), Default::default()).await.unwrap();
    let shutdown = CancellationToken::new();
    let service = tokio::spawn(service.run(shutdown.clone()));
    let mut sent = [0u32; 12];
    let mut tickets = Vec::new();
    for step in steps {
        match step {
            Step::Send { keys, as_aggregate, but_for } => {
                let records: Vec<Record> = keys
                    .iter()
                    .map(|key| {
                        let place = usize::from(*key);
                        sent[place] += 1;
                        numbered(&format!("key-{key}"), sent[place] - 1)
                    })
                    .collect();
                let parcels = if as_aggregate {
                    parcels(&records, &format!("key-{but_for}"))
                } else {
                    records.into_iter().map(|record| Put::new(record).into()).collect()
                };
                tickets.push(writer.put_parcels(parcels).await.unwrap());
            }
            Step::Split(nth) => stream.split(nth),
            Step::Merge(nth) => stream.merge(nth),
            Step::Wait(ms) => tokio::time::sleep(std::time::Duration::from_millis(ms)).await,
        }
    }
    for ticket in tickets {
        for outcome in ticket.await {
            outcome.unwrap();
        }
    }
    shutdown.cancel();
    assert_eq!(service.await.unwrap().unanswered, 0);
    for rule in [Rule::Ours, Rule::Kcl, Rule::LabelsSideBySide] {
        let delivered = stream.read(rule);
        for (key, count) in sent.iter().enumerate() {
            let records = delivered.get(&format!("key-{key}")).map(Vec::as_slice).unwrap_or_default();
            let expected: Vec<u32> = (0..*count).collect();
            assert_eq!(first_occurrences(records), expected, "key-{key} by {rule:?}, seed {seed}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_acknowledged_record_is_read_in_order_by_every_reader(
        steps in proptest::collection::vec(step(), 1..40),
        wrong in misbehaviour(),
        seed: u64,
        lanes in prop_oneof![Just(1u16), Just(4)],
        zstd_level in prop_oneof![3 => Just(None), 1 => Just(Some(1))],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(play(steps, wrong, seed, lanes, zstd_level));
    }
}
