//! Records, and a run of them through a writer.

use std::collections::VecDeque;
use std::sync::Arc;

use headworks_record::{Creation, Record};
use headworks_writer::{Config, Put, Stream, Writer};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::cpu::Cpu;

/// Records per hand-over, and hand-overs that wait for their answer: as a busy `PutStream` brings them.
const BATCH: usize = 100;
const PIPELINE: usize = 128;

pub fn records(count: usize, bytes: usize) -> Vec<Record> {
    let mut rng = SmallRng::seed_from_u64(7);
    (0..count)
        .map(|_| {
            let mut data = vec![0; bytes];
            rng.fill(&mut data[..]);
            let key = format!("session-{:08x}", rng.random::<u32>());
            let builder = Record::builder(key).unwrap().header("type", "order.placed").unwrap();
            let builder = builder.header("tenant", "acme-shop").unwrap();
            builder.creation(Creation::mint(1_790_000_000_000, rng.random())).data(data).build()
        })
        .collect()
}

/// Puts this many records as fast as the writer takes them, and waits for every answer: CPU ns per record.
///
/// The records come from a pool that fits into the cache, as a gateway's come fresh from its decoder. What
/// making and dropping the copies costs without a writer is taken off.
pub fn run(pool: &[Record], count: usize, config: Config, stream: impl Stream) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let pool: Arc<[Record]> = pool.into();
    let batch = |pool: &[Record], n: usize| -> Vec<Put> {
        let at = n * BATCH % (pool.len() - BATCH + 1);
        pool[at..at + BATCH].iter().cloned().map(Put::new).collect()
    };
    let batches = count.div_ceil(BATCH);
    runtime.block_on(async {
        let (service, writer) = Writer::start(config, stream, Default::default()).await.unwrap();
        tokio::spawn(service.run(Default::default()));
        let work = tokio::spawn(async move {
            let cpu = Cpu::start();
            for n in 0..batches {
                std::hint::black_box(batch(&pool, n));
            }
            let copying = cpu.ns_each(batches * BATCH);
            let cpu = Cpu::start();
            let mut tickets = VecDeque::new();
            for n in 0..batches {
                tickets.push_back(writer.put(batch(&pool, n)).await.unwrap());
                if tickets.len() == PIPELINE {
                    let ticket = tickets.pop_front().unwrap();
                    assert!(ticket.await.iter().all(Result::is_ok));
                }
            }
            for ticket in tickets {
                assert!(ticket.await.iter().all(Result::is_ok));
            }
            cpu.ns_each(batches * BATCH) - copying
        });
        work.await.unwrap()
    })
}
