//! The log: blocks appended to segments, each durable before it counts.
//!
//! A segment whose write or fsync failed is never written to again, nor is its fsync: the system may
//! have dropped what it could not write, and say that all is well the next time. The block goes to a new
//! segment instead, whose header says how much of the old one counts.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::disk::{Disk, Output, write_full};
use super::recover::{OpenError, recover};
use super::segment::{self, HEADER, Header};

/// How many segments are tried for one block.
const ATTEMPTS: usize = 3;

/// A segment as the log knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    /// The position of its first record.
    pub(crate) first: u64,
    /// The position after its last one.
    pub(crate) end: u64,
    /// How much of the file counts.
    pub(crate) len: u64,
    /// How long the file is.
    pub(crate) file_len: u64,
}

/// The segments, for who reads them.
pub(crate) type Index = Arc<Mutex<VecDeque<Segment>>>;

/// Why a block is not durable.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub(crate) struct AppendError {
    pub(crate) source: io::Error,
    /// Whether some of it reached a file: it may turn up after a crash.
    pub(crate) written: bool,
}

#[derive(Debug)]
struct Active {
    header: Header,
    output: Box<dyn Output>,
}

/// What an append did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    /// The position of the first record.
    pub(crate) first: u64,
    /// How long the successful fsync took.
    pub(crate) synced_in: Duration,
    /// Segments that were given up on the way.
    pub(crate) poisoned: usize,
}

/// The log's settings.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) directory: PathBuf,
    /// A segment that is at least this long is followed by a new one.
    pub(crate) segment_bytes: u64,
}

/// The writing side of a spool. Blocking.
#[derive(Debug)]
pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    settings: Settings,
    index: Index,
    active: Option<Active>,
    number: u64,
    next: u64,
    /// The settled position that the newest durable block tells of.
    done: u64,
}

/// What was found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// Every position up to this is settled.
    pub(crate) done: u64,
    /// The position for the next record.
    pub(crate) next: u64,
    /// When the oldest unsettled block was written.
    pub(crate) oldest_ms: Option<u64>,
    /// Bytes at the end that were never acknowledged.
    pub(crate) torn: u64,
}

impl Log {
    /// Reads what is there. Writes go to a new segment.
    pub(crate) fn open(disk: Arc<dyn Disk>, settings: Settings) -> Result<(Self, Found), OpenError> {
        let recovered = recover(&*disk, &settings.directory)?;
        let found = Found {
            done: recovered.done,
            next: recovered.next,
            oldest_ms: recovered.oldest_ms,
            torn: recovered.torn,
        };
        let log = Self {
            disk,
            settings,
            index: Arc::new(Mutex::new(recovered.segments.into())),
            active: None,
            number: recovered.number,
            next: recovered.next,
            done: recovered.done,
        };
        Ok((log, found))
    }

    pub(crate) fn index(&self) -> Index {
        Arc::clone(&self.index)
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments().iter().map(|segment| segment.file_len).sum()
    }

    /// The settled position that survives a crash.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    /// Makes a block of records durable, together with how far everything is settled.
    pub(crate) fn append<'a>(
        &mut self,
        records: impl Iterator<Item = &'a [u8]>,
        done: u64,
        time_ms: u64,
    ) -> Result<Appended, AppendError> {
        let (block, mut bytes) = segment::encode_block(self.next, records, done, time_ms);
        let (mut written, mut poisoned) = (false, 0);
        let mut last = io::Error::other("no segment was tried");
        for _ in 0..ATTEMPTS {
            if let Err(error) = self.roll(time_ms) {
                last = error;
                poisoned += 1;
                continue;
            }
            let Some(active) = &mut self.active else { continue };
            active.header.seal(&mut bytes);
            written = true;
            let started = Instant::now();
            match write_full(&mut *active.output, &bytes).and_then(|()| active.output.sync()) {
                Ok(()) => {
                    let first = self.next;
                    self.next = block.end();
                    self.done = done;
                    if let Some(segment) = self.segments().back_mut() {
                        segment.end = block.end();
                        segment.len += block.bytes();
                        segment.file_len = segment.len;
                    }
                    return Ok(Appended { first, synced_in: started.elapsed(), poisoned });
                }
                Err(error) => {
                    last = error;
                    poisoned += 1;
                    self.active = None;
                    if let Some(segment) = self.segments().back_mut() {
                        // At most: what is there beyond its length takes room until it is removed.
                        segment.file_len = segment.len + block.bytes();
                    }
                }
            }
        }
        Err(AppendError { source: last, written })
    }

    /// Removes segments of which nothing is needed any more; tells whether there were any.
    pub(crate) fn remove_settled(&mut self) -> io::Result<bool> {
        let mut removed = false;
        loop {
            let front = self.segments().front().copied();
            let newest = self.segments().len() == 1;
            match front {
                // The newest one says how far everything is settled.
                Some(segment) if segment.end <= self.done + 1 && !newest => {
                    let path = self.settings.directory.join(segment::file_name(segment.number));
                    match self.disk.remove(&path) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                    self.segments().pop_front();
                    removed = true;
                }
                _ => break,
            }
        }
        if removed {
            self.disk.sync_directory(&self.settings.directory)?;
        }
        Ok(removed)
    }

    /// Begins a new segment if there is none to write to, or it is full.
    fn roll(&mut self, time_ms: u64) -> io::Result<()> {
        let newest = self.segments().back().copied();
        let full = newest.is_some_and(|newest| newest.len >= self.settings.segment_bytes);
        if self.active.is_some() && !full {
            return Ok(());
        }
        self.active = None;
        self.number += 1;
        let header = Header {
            number: self.number,
            first: self.next,
            previous: newest.map_or(0, |newest| newest.number),
            previous_len: newest.map_or(0, |newest| newest.len),
            done: self.done,
            salt: rand::random(),
            time_ms,
        };
        let path = self.settings.directory.join(segment::file_name(self.number));
        let begun = (|| {
            let mut output = self.disk.create(&path)?;
            write_full(&mut *output, &header.encode())?;
            output.sync()?;
            self.disk.sync_directory(&self.settings.directory)?;
            Ok(output)
        })();
        match begun {
            Ok(output) => {
                let len = HEADER as u64;
                let segment =
                    Segment { number: self.number, first: self.next, end: self.next, len, file_len: len };
                self.segments().push_back(segment);
                self.active = Some(Active { header, output });
                Ok(())
            }
            Err(error) => {
                // Nothing of it counts. If it cannot be removed either, the next start does.
                let _ = self.disk.remove(&path);
                Err(error)
            }
        }
    }

    fn segments(&self) -> std::sync::MutexGuard<'_, VecDeque<Segment>> {
        // Each change leaves the list whole.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
