//! Thousands of schedules of whole consumers around one lease table and one stream, each from a seed:
//! crashes, restarts, processes that stand still and wake, partitions, slow and skewed clocks, splits, merges, and a DynamoDB whose answers are
//! late, lost or doubled. The consumers are the real ones; only the network below them is simulated, and time
//! is virtual, so that a run takes milliseconds and is the same again for the same seed.
//!
//! - `HEADWORKS_SIM_RUNS=5000` runs so many seeds (default 80), from `HEADWORKS_SIM_FROM` on (default 0).
//! - `HEADWORKS_SIM_SEED=17` runs one seed and prints what happened.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on panics
#![allow(unreachable_pub)] // the modules of this binary are nobody's API

mod judge;
mod run;
mod store;
mod stream;
mod trace;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use run::{Report, run};
use world::Broken;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

#[test]
fn no_schedule_breaks_a_rule() {
    if let Some(seed) = number("HEADWORKS_SIM_SEED") {
        let report = run(seed, Broken::Nothing);
        report.lines.iter().for_each(|line| println!("{line}"));
        println!("seed {seed}: hash {:016x}, {:?}", report.hash, report.violation);
        assert_eq!(report.violation, None, "seed {seed}");
        return;
    }
    let from = number("HEADWORKS_SIM_FROM").unwrap_or(0);
    let runs = number("HEADWORKS_SIM_RUNS").unwrap_or(80);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    let (began, next, done, claims) =
        (Instant::now(), AtomicU64::new(from), AtomicU64::new(0), AtomicU64::new(0));
    let failed: Mutex<Option<Report>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + runs || failed.lock().unwrap().is_some() {
                        return;
                    }
                    let report = run(seed, Broken::Nothing);
                    done.fetch_add(1, Ordering::Relaxed);
                    claims.fetch_add(u64::from(report.claims), Ordering::Relaxed);
                    if report.violation.is_some() {
                        failed.lock().unwrap().get_or_insert(report);
                    }
                }
            });
        }
        let mut told = 0;
        while done.load(Ordering::Relaxed) < runs && failed.lock().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(20));
            let seconds = began.elapsed().as_secs();
            if seconds > told {
                told = seconds;
                let done = done.load(Ordering::Relaxed);
                let rate = done as f64 / began.elapsed().as_secs_f64();
                eprintln!("sim: {done} of {runs} schedules, {rate:.0}/s");
            }
        }
    });
    if let Some(Report { seed, violation, lines, .. }) = failed.into_inner().unwrap() {
        lines.iter().rev().take(60).rev().for_each(|line| println!("{line}"));
        panic!("seed {seed}: {}\nHEADWORKS_SIM_SEED={seed} replays it", violation.unwrap_or_default());
    }
    println!("sim: {runs} schedules from seed {from} on, {claims:?} claims, in {:?}", began.elapsed());
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..6 {
        let (once, again) = (run(seed, Broken::Nothing), run(seed, Broken::Nothing));
        let different = once.lines.iter().zip(&again.lines).find(|(a, b)| a != b);
        assert_eq!(different, None, "seed {seed}");
        assert_eq!(once.hash, again.hash, "seed {seed}");
    }
}

/// Breaks one rule on purpose and runs seeds until the judge notices.
fn is_caught(broken: Broken, rules: &[&str]) {
    const SEEDS: u64 = 200;
    for seed in 0..SEEDS {
        if let Some(violation) = run(seed, broken).violation {
            println!("{broken:?} is caught by seed {seed}: {violation}");
            assert!(rules.iter().any(|rule| violation.contains(rule)), "{broken:?}: {violation}");
            return;
        }
    }
    panic!("{broken:?} was not caught by {SEEDS} seeds");
}

#[test]
fn checkpoints_without_their_condition_are_caught() {
    is_caught(Broken::CheckpointCondition, &["interleave", "moved back"]);
}

#[test]
fn claims_without_their_condition_are_caught() {
    is_caught(
        Broken::ClaimCondition,
        &["without the lease", "interleave", "moved back", "changed hands", "repeated"],
    );
}

#[test]
fn children_before_their_parents_are_caught() {
    is_caught(Broken::ParentRule, &["child before parent"]);
}

#[test]
fn checkpoints_before_the_handler_is_done_are_caught() {
    is_caught(Broken::DoneBeforeHandled, &["a record is skipped"]);
}

#[test]
fn a_fence_that_closes_after_the_take_over_is_caught() {
    is_caught(Broken::FenceTooLong, &["delivery without the lease"]);
}

#[test]
fn deaths_concluded_from_stale_reads_are_caught() {
    is_caught(Broken::StaleDeaths, &["delivery without the lease"]);
}

#[test]
fn forgotten_children_are_caught() {
    is_caught(Broken::NoChildren, &["a child is forgotten", "not well again"]);
}
