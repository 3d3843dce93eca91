use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::log::{Log, Settings};
use super::read::Reader;
use super::recover::OpenError;
use super::sim::Sim;

fn settings(segment_bytes: u64) -> Settings {
    Settings { directory: PathBuf::from("/spool"), segment_bytes }
}

fn open(sim: &Sim, segment_bytes: u64) -> (Log, super::log::Found) {
    Log::open(Arc::new(sim.clone()), settings(segment_bytes)).unwrap()
}

fn append(log: &mut Log, payloads: &[&str], done: u64) -> u64 {
    log.append(payloads.iter().map(|p| p.as_bytes()), done, 7).unwrap().first
}

/// Everything from a position on.
pub(super) fn read_all(sim: &Sim, log: &Log, from: u64, next: u64) -> BTreeMap<u64, Vec<u8>> {
    let mut reader = Reader::new(Arc::new(sim.clone()), PathBuf::from("/spool"), log.index());
    let (mut at, mut all) = (from, BTreeMap::new());
    while at < next {
        let stretch = reader.read(at).unwrap();
        assert_eq!(stretch.first, at);
        for record in stretch.records {
            all.insert(at, record.to_vec());
            at += 1;
        }
    }
    all
}

fn texts(sim: &Sim, log: &Log, found: &super::log::Found) -> Vec<String> {
    let all = read_all(sim, log, found.done + 1, found.next);
    all.into_values().map(|bytes| String::from_utf8(bytes).unwrap()).collect()
}

#[test]
fn what_is_appended_is_found_again_in_order() {
    let sim = Sim::new(1);
    let (mut log, found) = open(&sim, 100);
    assert_eq!((found.done, found.next), (0, 1));
    assert_eq!(append(&mut log, &["a", "b"], 0), 1);
    assert_eq!(append(&mut log, &["c"], 1), 3);
    assert_eq!(append(&mut log, &["", "d"], 1), 4);
    sim.power_loss();
    let (log, found) = open(&sim, 100);
    assert_eq!((found.done, found.next, found.torn, found.oldest_ms), (1, 6, 0, Some(7)));
    assert_eq!(texts(&sim, &log, &found), ["b", "c", "", "d"]);
}

#[test]
fn settled_segments_go_and_the_rest_stays() {
    let sim = Sim::new(1);
    let (mut log, _) = open(&sim, 1);
    for n in 0..10 {
        append(&mut log, &[&n.to_string()], 0);
    }
    assert_eq!(sim.files().len(), 10);
    append(&mut log, &[], 7);
    assert!(log.remove_settled().unwrap());
    assert_eq!(sim.files().len(), 4);
    assert_eq!(log.bytes() as usize, sim.files().iter().map(|(_, len)| len).sum::<usize>());
    sim.power_loss();
    let (mut log, found) = open(&sim, 1);
    assert_eq!(texts(&sim, &log, &found), ["7", "8", "9"]);
    append(&mut log, &[], 10);
    log.remove_settled().unwrap();
    assert_eq!(sim.files().len(), 1);
    sim.power_loss();
    let (_, found) = open(&sim, 1);
    assert_eq!((found.done, found.next), (10, 11));
}

#[test]
fn damage_before_what_was_acknowledged_is_refused() {
    // A block in the middle of the newest segment, one in an older segment, and the end of that.
    for (name, at) in [(3, 130), (3, 72), (3, 10), (2, 130), (1, 250), (1, 10)] {
        let sim = Sim::new(1);
        let (mut log, _) = open(&sim, 300);
        let filler = "x".repeat(100);
        for _ in 0..6 {
            append(&mut log, &[&filler], 0);
        }
        assert_eq!(sim.files().len(), 3);
        let name = format!("{name:016x}.spool");
        sim.rot(&name, at);
        let error = Log::open(Arc::new(sim.clone()), settings(300)).unwrap_err();
        assert!(matches!(&error, OpenError::Damaged { path, .. } if path.ends_with(&name)), "{error}");
        assert_eq!((error.code(), error.is_retryable()), ("spool-damaged", false));
    }
    let sim = Sim::new(1);
    let (mut log, _) = open(&sim, 1);
    for _ in 0..3 {
        append(&mut log, &["x"], 0);
    }
    let lost = "0000000000000001.spool";
    sim.lose(lost);
    let error = Log::open(Arc::new(sim.clone()), settings(1)).unwrap_err();
    assert!(matches!(&error, OpenError::Missing { name, .. } if name == lost), "{error}");
}

#[test]
fn the_last_block_may_be_torn() {
    let sim = Sim::new(1);
    let (mut log, _) = open(&sim, 1 << 20);
    append(&mut log, &["a"], 0);
    append(&mut log, &["b"], 0);
    let (name, len) = sim.files().pop().unwrap();
    sim.rot(&name, len - 1);
    let (mut log, found) = open(&sim, 1 << 20);
    assert_eq!((texts(&sim, &log, &found), found.torn), (vec!["a".to_owned()], 44 + 5));
    // What follows goes elsewhere, and the torn end does not come back.
    append(&mut log, &["c"], 0);
    let (log, found) = open(&sim, 1 << 20);
    assert_eq!(texts(&sim, &log, &found), ["a", "c"]);
}

/// A block that is read back as payload must not pass for a block.
#[test]
fn payloads_cannot_pass_for_blocks() {
    let sim = Sim::new(1);
    let (mut log, _) = open(&sim, 1 << 20);
    let (_, forged) = super::segment::encode_block(1, [&b"x"[..]].into_iter(), 0, 0);
    log.append([&forged[..]].into_iter(), 0, 0).unwrap();
    let name = sim.files()[0].0.clone();
    sim.rot(&name, 72 + 20);
    assert_eq!(open(&sim, 1 << 20).1.next, 1);
}

/// Random work on a disk that fails, then a power loss at a random operation, many times over.
#[test]
fn acknowledged_records_survive_any_power_loss() {
    let seeds = std::env::var("HEADWORKS_SPOOL_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(400);
    let (mut recovered, mut failed, mut torn) = (0, 0, 0);
    for seed in 0..seeds {
        let mut rng = SmallRng::seed_from_u64(seed);
        let sim = Sim::new(seed ^ 0x5eed);
        let segment_bytes = [1, 300, 2000, 100_000][rng.random_range(0..4)];
        // By position: what was acknowledged, and what else may be there.
        let mut acknowledged: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut possible: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
        let mut settled = 0;
        for life in 0..8 {
            let (mut log, found) = match Log::open(Arc::new(sim.clone()), settings(segment_bytes)) {
                Ok(opened) => opened,
                Err(error) => panic!("seed {seed}, life {life}: {error}"),
            };
            torn += u64::from(found.torn > 0);
            assert!(found.done <= settled, "seed {seed}: {found:?} but only {settled} are settled");
            let there = read_all(&sim, &log, found.done + 1, found.next);
            for (position, payload) in acknowledged.range(found.done + 1..) {
                assert_eq!(there.get(position), Some(payload), "seed {seed}, life {life}, {position}");
                recovered += 1;
            }
            for (position, payload) in there {
                if acknowledged.contains_key(&position) {
                    continue;
                }
                // Never acknowledged, and never anything else than what was given.
                assert!(possible[&position].contains(&payload), "seed {seed}, life {life}, {position}");
                acknowledged.insert(position, payload);
            }
            assert!(found.next > acknowledged.keys().last().copied().unwrap_or(0), "seed {seed}");
            possible.clear();
            let mut next = found.next;

            let trouble = if rng.random_bool(0.5) { 0.0 } else { 0.15 };
            sim.set(trouble, rng.random::<f64>() * 0.5, Some(rng.random_range(0..60)));
            while !sim.is_dead() {
                let records: Vec<Vec<u8>> = (0..rng.random_range(0..6))
                    .map(|_| {
                        let len = [0, 3, 40, 700, 3000][rng.random_range(0..5)];
                        (0..len).map(|_| rng.random()).collect()
                    })
                    .collect();
                if rng.random_bool(0.7) {
                    settled = rng.random_range(settled..=next - 1);
                }
                for (position, record) in (next..).zip(&records) {
                    possible.entry(position).or_default().push(record.clone());
                }
                match log.append(records.iter().map(|r| &r[..]), settled, 1) {
                    Ok(appended) => {
                        assert_eq!(appended.first, next);
                        acknowledged.extend((next..).zip(records));
                        next = acknowledged.keys().last().map_or(next, |last| next.max(last + 1));
                        // Nobody minds if that fails: it is tried again.
                        let _ = log.remove_settled();
                    }
                    Err(error) => {
                        failed += 1;
                        assert!(!error.to_string().is_empty());
                    }
                }
            }
            sim.power_loss();
        }
    }
    assert!(recovered > 10 * seeds && failed > 0 && torn > 0, "{recovered} {failed} {torn}");
}

#[test]
fn a_failed_write_does_not_stop_the_next() {
    let sim = Sim::new(3);
    let (mut log, _) = open(&sim, 1 << 20);
    append(&mut log, &["a"], 0);
    sim.set(1.0, 0.0, None);
    let before = sim.operations();
    assert!(log.append([&b"b"[..]].into_iter(), 0, 0).unwrap_err().written);
    assert!(sim.operations() > before);
    assert!(!log.append([&b"b"[..]].into_iter(), 0, 0).unwrap_err().written);
    sim.set(0.0, 0.0, None);
    assert_eq!(append(&mut log, &["c"], 0), 2);
    sim.power_loss();
    let (log, found) = open(&sim, 1 << 20);
    assert_eq!(texts(&sim, &log, &found), ["a", "c"]);
}
