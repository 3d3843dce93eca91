//! What the formats force on anyone who puts aggregates on Kinesis: an MD5 of each partition key, an MD5 of
//! each aggregate, and a SHA-256 of each signed body. The same code computes them as in the products.

use std::hint::black_box;
use std::time::{Duration, Instant};

use md5::Md5;
use sha2::{Digest as _, Sha256};

/// What hashing costs on this machine.
#[derive(Debug, Clone, Copy)]
pub struct Floor {
    ns_per_key: f64,
    md5_ns_per_byte: f64,
    sha256_ns_per_byte: f64,
}

impl Floor {
    /// Measures it, about a second long.
    pub fn measure() -> Self {
        let key = b"session-0123";
        let aggregate = vec![0xa5; 100 * 1024];
        let body = vec![0x5a; 1 << 20];
        Self {
            ns_per_key: ns(|| {
                black_box(Md5::digest(black_box(key)));
            }),
            md5_ns_per_byte: ns(|| {
                black_box(Md5::digest(black_box(&aggregate)));
            }) / aggregate.len() as f64,
            sha256_ns_per_byte: ns(|| {
                black_box(Sha256::digest(black_box(&body)));
            }) / body.len() as f64,
        }
    }

    /// For so many records, bytes of aggregates, and bytes of signed bodies.
    pub fn ns(&self, records: u64, aggregate_bytes: u64, body_bytes: u64) -> f64 {
        self.ns_per_key * records as f64
            + self.md5_ns_per_byte * aggregate_bytes as f64
            + self.sha256_ns_per_byte * body_bytes as f64
    }
}

/// Calls between two looks at the clock.
const CALLS_A_LOOK: u32 = 16;

/// The time of one call: the best of several rounds, since the machine does other things too.
fn ns(mut call: impl FnMut()) -> f64 {
    let round = Duration::from_millis(60);
    let rounds = (0..5).map(|_| {
        let (begin, mut calls) = (Instant::now(), 0_u32);
        while begin.elapsed() < round {
            // Reading the clock costs a good part of a short call.
            for _ in 0..CALLS_A_LOOK {
                call();
            }
            calls += CALLS_A_LOOK;
        }
        begin.elapsed().as_nanos() as f64 / f64::from(calls)
    });
    rounds.fold(f64::INFINITY, f64::min)
}
