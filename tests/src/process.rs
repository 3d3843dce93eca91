//! What the kernel says of a process (Linux).

use std::fs;
use std::time::Duration;

use anyhow::Context as _;

/// The length of the kernel's tick in `/proc/…/stat`, which is fixed for programs (USER_HZ).
const TICK: Duration = Duration::from_millis(10);

/// The CPU time that a process has used, with all its threads.
pub fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
    // The second field is a name that may hold anything; what follows its bracket is numbers.
    let (_, fields) = stat.rsplit_once(')').with_context(|| format!("{path} has no name"))?;
    // utime and stime: the fields 14 and 15 of the line.
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
    let ticks: u32 = ticks.sum::<Result<u32, _>>().with_context(|| format!("{path} has no times"))?;
    Ok(TICK * ticks)
}

/// The most memory that a process has had resident, in MiB.
pub fn peak_rss_mib(pid: u32) -> anyhow::Result<f64> {
    kib(pid, "VmHWM:")
}

/// The memory that a process has resident, in MiB.
pub fn rss_mib(pid: u32) -> anyhow::Result<f64> {
    kib(pid, "VmRSS:")
}

fn kib(pid: u32, name: &str) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib =
        line.and_then(|line| line.split_whitespace().next()).with_context(|| format!("{path}: no {name}"))?;
    Ok(kib.parse::<f64>()? / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_uses_time() {
        let pid = std::process::id();
        assert!(rss_mib(pid).unwrap() > 0.5);
        assert!(peak_rss_mib(pid).unwrap() >= rss_mib(pid).unwrap() * 0.5);
        let before = cpu_time(pid).unwrap();
        let mut spins = 0_u64;
        while cpu_time(pid).unwrap() < before + TICK * 2 {
            spins = std::hint::black_box(spins + 1);
        }
        assert!(spins > 0);
    }
}
