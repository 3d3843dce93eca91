//! What the size of aggregates costs and saves: the table behind the default.

use headworks_writer::Config;

use crate::null::NullStream;
use crate::{figure, work};

const KIB: usize = 1024;

/// Bytes that are billed for a Kinesis record: 25 KiB PUT units on provisioned streams, whole KB on
/// on-demand ones (Amazon Kinesis Data Streams pricing).
fn billed(sizes: &[usize], unit: usize) -> usize {
    sizes.iter().map(|size| size.div_ceil(unit) * unit).sum()
}

pub fn tables(quick: bool) {
    let count = if quick { 2_000 } else { 200_000 };
    for bytes in [200, 1024] {
        let pool = work::records(crate::POOL, bytes);
        let records = count / (bytes / 200);
        let user =
            records * pool.iter().map(headworks_record::Record::user_bytes).sum::<usize>() / pool.len();
        eprintln!("aggregate bytes, {bytes}-byte records: CPU ns per record, unit fill, bytes per user byte");
        for size in [25 * KIB, 50 * KIB, 100 * KIB, 200 * KIB, 400 * KIB, 1000 * KIB] {
            let stream = NullStream::new(crate::SHARDS);
            let sizes = std::sync::Arc::clone(&stream.sizes);
            let cpu_ns =
                work::run(&pool, records, Config { aggregate_bytes: size, ..Config::default() }, stream);
            let sizes = sizes.lock().unwrap();
            let put: usize = sizes.iter().sum();
            let fill = put as f64 / billed(&sizes, 25 * KIB) as f64;
            let ratio = put as f64 / user as f64;
            eprintln!("{size:>9} {:>6.0} {fill:>6.3} {ratio:>6.3}  {} Kinesis records", cpu_ns, sizes.len());
            let case = format!("aggregate-{}KiB-{bytes}B-records", size / KIB);
            figure(&case, "cpu_ns_per_record", cpu_ns, "ns", None);
            figure(&case, "unit_fill", fill, "ratio", None);
            figure(&case, "bytes_ratio", ratio, "ratio", None);
        }
    }
}
