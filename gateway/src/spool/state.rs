//! What the parts of a spool, and its observers, look at together.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headworks_record::Record;
use tokio::sync::{Notify, watch};

use super::latency::Latency;

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_millis() as u64)
}

/// Records of one block that are still in memory.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) first: u64,
    pub(crate) time_ms: u64,
    pub(crate) records: Vec<Record>,
    pub(crate) bytes: usize,
}

#[derive(Debug, Default)]
struct Tail {
    blocks: VecDeque<Fresh>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Space {
    disk: u64,
    reserved: u64,
}

#[derive(Debug)]
struct Progress {
    /// By their first position: stretches that were taken and are not settled, and when they were spooled.
    open: BTreeMap<u64, u64>,
    /// The first position that was not taken.
    next: u64,
}

/// Counters and gauges of a spool.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) appended: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) syncs: Latency,
    pub(crate) poisoned: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) unreadable: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) stream: String,
    pub(crate) max_bytes: u64,
    tail_bytes: usize,
    /// The last position that is on disk.
    pub(crate) durable: watch::Sender<u64>,
    /// Every position up to this is settled: the stream has its record.
    pub(crate) settled: watch::Sender<u64>,
    /// Woken when something was removed.
    pub(crate) room: Notify,
    pub(crate) counters: Counters,
    /// The stream refuses what only an operator can mend.
    pub(crate) refusing: AtomicBool,
    /// The disk does not take what is written.
    pub(crate) failing: AtomicBool,
    /// The disk does not give back what was written.
    pub(crate) unreadable: AtomicBool,
    space: Mutex<Space>,
    tail: Mutex<Tail>,
    progress: Mutex<Progress>,
    /// Of what was found at the start and is not taken yet.
    oldest_ms: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    pub(crate) fn new(
        stream: &str,
        max_bytes: u64,
        tail_bytes: usize,
        disk: u64,
        found: &super::log::Found,
    ) -> Self {
        Self {
            stream: stream.to_owned(),
            max_bytes,
            tail_bytes,
            durable: watch::Sender::new(found.next - 1),
            settled: watch::Sender::new(found.done),
            room: Notify::new(),
            counters: Counters::default(),
            refusing: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            unreadable: AtomicBool::new(false),
            space: Mutex::new(Space { disk, reserved: 0 }),
            tail: Mutex::default(),
            progress: Mutex::new(Progress { open: BTreeMap::new(), next: found.done + 1 }),
            oldest_ms: AtomicU64::new(found.oldest_ms.unwrap_or(0)),
        }
    }

    /// Takes room on disk, if there is any.
    pub(crate) fn reserve(&self, bytes: u64) -> bool {
        let mut space = lock(&self.space);
        let fits = space.disk + space.reserved + bytes <= self.max_bytes;
        if fits {
            space.reserved += bytes;
        }
        fits
    }

    /// Gives reserved room back, now that it is used or not needed, and notes what the files take.
    pub(crate) fn used(&self, reserved: u64, disk: u64) {
        let mut space = lock(&self.space);
        space.reserved -= reserved;
        space.disk = disk;
        drop(space);
        self.room.notify_waiters();
    }

    /// Gives reserved room back.
    pub(crate) fn release(&self, reserved: u64) {
        lock(&self.space).reserved -= reserved;
        self.room.notify_waiters();
    }

    /// Bytes of the files.
    pub(crate) fn disk_bytes(&self) -> u64 {
        lock(&self.space).disk
    }

    /// Keeps records in memory for whoever puts them, if there is room; they are on disk anyway.
    pub(crate) fn keep(&self, fresh: Fresh) {
        let mut tail = lock(&self.tail);
        if tail.bytes + fresh.bytes <= self.tail_bytes {
            tail.bytes += fresh.bytes;
            tail.blocks.push_back(fresh);
        }
    }

    /// The records at a position, if memory has them.
    pub(crate) fn fresh(&self, position: u64) -> Option<Fresh> {
        let mut tail = lock(&self.tail);
        while tail.blocks.front()?.first <= position {
            let front = tail.blocks.pop_front()?;
            tail.bytes -= front.bytes;
            if front.first == position {
                return Some(front);
            }
        }
        None
    }

    /// Notes that the records from `first` up to `end` are being put.
    pub(crate) fn begin(&self, first: u64, end: u64, time_ms: u64) {
        let mut progress = lock(&self.progress);
        progress.open.insert(first, time_ms);
        progress.next = end;
    }

    /// Notes that the stretch that begins there is on the stream.
    pub(crate) fn settle(&self, first: u64) {
        let mut progress = lock(&self.progress);
        progress.open.remove(&first);
        let settled = progress.open.keys().next().copied().unwrap_or(progress.next) - 1;
        // Under the lock, so that it only grows.
        self.settled.send_if_modified(|old| {
            let changed = settled > *old;
            *old = settled.max(*old);
            changed
        });
    }

    /// Records that are acknowledged and not settled. Stretches are settled from the oldest on.
    pub(crate) fn waiting(&self) -> u64 {
        let settled = *self.settled.borrow();
        self.durable.borrow().saturating_sub(settled)
    }

    /// Notes whether the spool could be read back.
    pub(crate) fn read_back(&self, read: bool) {
        if !read {
            self.counters.unreadable.fetch_add(1, Ordering::Relaxed);
        }
        self.unreadable.store(!read, Ordering::Relaxed);
    }

    /// Whether somebody has to look.
    pub(crate) fn alarm(&self) -> bool {
        [&self.refusing, &self.failing, &self.unreadable].iter().any(|bad| bad.load(Ordering::Relaxed))
    }

    /// How long the oldest of them has waited.
    pub(crate) fn oldest_age(&self) -> Duration {
        if self.waiting() == 0 {
            return Duration::ZERO;
        }
        let open = lock(&self.progress).open.values().next().copied();
        let since = open.unwrap_or_else(|| match self.oldest_ms.load(Ordering::Relaxed) {
            0 => now_ms(),
            found => found,
        });
        Duration::from_millis(now_ms().saturating_sub(since))
    }
}
