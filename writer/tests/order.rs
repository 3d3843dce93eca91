//! Order per key and completeness, whatever the stream does: fails at random, answers late, commits
//! without answering, splits and merges.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use common::{MemoryStream, Misbehaviour, Rule, first_occurrences, numbered};
use headworks_writer::{Config, Put, Writer};
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone)]
enum Step {
    Send { keys: Vec<u8> },
    Split(usize),
    Merge(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::collection::vec(0u8..12, 1..40).prop_map(|keys| Step::Send { keys }),
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

async fn play(steps: Vec<Step>, wrong: Misbehaviour, seed: u64, lanes: u16) {
    let stream = MemoryStream::new(3, seed);
    stream.with(|state| {
        state.misbehaviour = wrong;
        state.lanes = lanes;
    });
    let (service, writer) = Writer::start(config(), stream.clone(), Default::default()).await.unwrap();
    let shutdown = CancellationToken::new();
    let service = tokio::spawn(service.run(shutdown.clone()));
    let mut sent = [0u32; 12];
    let mut tickets = Vec::new();
    for step in steps {
        match step {
            Step::Send { keys } => {
                let puts = keys.iter().map(|key| {
                    let place = usize::from(*key);
                    sent[place] += 1;
                    Put::new(numbered(&format!("key-{key}"), sent[place] - 1))
                });
                tickets.push(writer.put(puts.collect()).await.unwrap());
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
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(play(steps, wrong, seed, lanes));
    }
}
