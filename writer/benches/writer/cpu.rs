//! CPU time of this process, the sink's threads left out.

use std::fs;

/// The name of threads that are not counted.
pub const SINK: &str = "sink";

pub struct Cpu(u64);

impl Cpu {
    pub fn start() -> Self {
        Self(now())
    }

    pub fn ns_each(&self, records: usize) -> f64 {
        (now() - self.0) as f64 / records as f64
    }
}

/// The scheduler counts in nanoseconds, per thread. Threads must outlive what is measured: one that ended is
/// not counted.
fn now() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").expect("the process's threads");
    tasks
        .filter_map(|task| {
            let path = task.ok()?.path();
            let name = fs::read_to_string(path.join("comm")).ok()?;
            let counted = !name.trim().starts_with(SINK);
            let text = fs::read_to_string(path.join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok().filter(|_| counted)
        })
        .sum()
}
