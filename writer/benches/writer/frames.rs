//! What compression gains on JSON as shops send it, and what it costs.

use headworks_record::aggregate::{Builder, Decoded, decode, zstd};
use headworks_record::{HashKey, PartitionKey, Record};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::cpu::Cpu;
use crate::figure;

const PRODUCTS: [&str; 6] = ["espresso-machine", "grinder", "kettle", "filter-paper", "cup-set", "descaler"];
const PAGES: [&str; 4] = ["/", "/checkout", "/products", "/account/orders"];

/// An order with its items: ids, prices and times differ, names and structure recur.
fn order(rng: &mut SmallRng, n: u64) -> String {
    let items: Vec<String> = (0..rng.random_range(1..5))
        .map(|_| {
            let sku = PRODUCTS[rng.random_range(0..PRODUCTS.len())];
            let (quantity, cents) = (rng.random_range(1..4), rng.random_range(199..39_999));
            format!(r#"{{"sku":"{sku}","quantity":{quantity},"unit_price_cents":{cents},"currency":"EUR"}}"#)
        })
        .collect();
    let (id, session, page) =
        (rng.random::<u64>(), rng.random::<u32>(), PAGES[rng.random_range(0..PAGES.len())]);
    format!(
        r#"{{"event":"order.placed","order_id":"{id:016x}","session":"{session:08x}","at":"2026-11-21T14:{:02}:{:02}.{:03}Z","page":"{page}","customer":{{"country":"DE","returning":{}}},"items":[{}]}}"#,
        n / 60_000 % 60,
        n / 1000 % 60,
        n % 1000,
        n.is_multiple_of(3),
        items.join(",")
    )
}

pub fn gain(quick: bool) {
    let mut rng = SmallRng::seed_from_u64(11);
    let count = if quick { 200 } else { 20_000 };
    let records: Vec<Record> = (0..count)
        .map(|n| {
            let key = format!("session-{:08x}", rng.random::<u32>());
            let builder = Record::builder(key).unwrap().header("type", "order.placed").unwrap();
            let creation = headworks_record::Creation::mint(1_790_000_000_000 + n, rng.random());
            builder.creation(creation).data(order(&mut rng, n)).build()
        })
        .collect();
    let blobs = aggregates(&records);
    let plain: usize = blobs.iter().map(bytes::Bytes::len).sum();
    let label = PartitionKey::new("hw/shardId-000000000000/0").unwrap();
    eprintln!("zstd on {} orders of {} bytes on average", count, plain / count as usize);
    for level in [1, 3, 6] {
        let cpu = Cpu::start();
        let frames: Vec<_> = blobs
            .iter()
            .map(|blob| zstd::compress(blob, &label, HashKey(0), level).unwrap_or_else(|| blob.clone()))
            .collect();
        let packing = cpu.ns_each(records.len());
        let put: usize = frames.iter().map(bytes::Bytes::len).sum();
        let cpu = Cpu::start();
        for frame in &frames {
            assert!(matches!(decode(frame), Ok(Decoded::Aggregate(_))));
        }
        let reading = cpu.ns_each(records.len());
        let ratio = put as f64 / plain as f64;
        eprintln!(
            "level {level}: {ratio:.3} of the bytes, {packing:.0} ns per record to write, {reading:.0} to read"
        );
        let case = format!("zstd-{level}-json-orders");
        figure(&case, "bytes_ratio", ratio, "ratio", None);
        figure(&case, "cpu_ns_per_record", packing, "ns", None);
    }
}

fn aggregates(records: &[Record]) -> Vec<bytes::Bytes> {
    // As the writer builds them: larger than what is put by what they shrink.
    let limit = 400 * 1024;
    let mut blobs = Vec::new();
    let mut builder = Builder::new();
    for record in records {
        if !builder.push_within(record, None, limit) {
            blobs.push(std::mem::take(&mut builder).finish());
            builder.push(record);
        }
    }
    blobs.push(builder.finish());
    blobs
}
