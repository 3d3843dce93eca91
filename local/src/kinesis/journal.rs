//! The log beside the snapshot: every change, in order, each entry sealed with a checksum.
//!
//! An entry is handed to the system (`write`) before the call that caused it is answered, and before readers see its
//! records. So a process that is killed loses nothing that it has acknowledged or shown. It is not synced to the
//! disk: a machine that loses its power may lose the last seconds, as long as the system's own cache holds them. A
//! stack for laptops and tests is killed daily, and a sync for each call would cost it a hundredfold.
//!
//! Calls that wait at the same time are written together. Entries of one shard are appended under its lock, so the
//! log is never ahead of itself: whatever prefix of it survives is a state that the engine was in.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::sync::lock;

/// Length and checksum of the payload, four bytes each.
const HEAD: usize = 8;
/// Nothing that is written is larger; a length beyond it is damage.
const MAX_ENTRY: usize = 256 << 20;
/// A buffer that has grown beyond this is given back.
const KEPT_BUFFER: usize = 16 << 20;

/// How far the log must be written for a call to be kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark(u64);

/// The log being written.
#[derive(Debug)]
pub(crate) struct Journal {
    dir: PathBuf,
    buffer: Mutex<Buffer>,
    file: Mutex<LogFile>,
    is_broken: AtomicBool,
}

#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// All bytes ever appended.
    end: u64,
}

#[derive(Debug)]
struct LogFile {
    file: File,
    generation: u64,
    /// Of all bytes ever appended, how many have been written.
    written: u64,
    /// The size of this file.
    length: u64,
    broken: Option<String>,
}

/// The file of a generation.
pub(crate) fn path_of(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("kinesis.{generation}.log"))
}

impl Journal {
    /// Goes on with the log of `generation`, whose first `length` bytes are good.
    pub(crate) fn open(dir: &Path, generation: u64, length: u64) -> io::Result<Self> {
        let file = open_at(&path_of(dir, generation), length)?;
        Ok(Self {
            dir: dir.to_owned(),
            buffer: Mutex::default(),
            file: Mutex::new(LogFile { file, generation, written: 0, length, broken: None }),
            is_broken: AtomicBool::new(false),
        })
    }

    /// Appends an entry, made of `parts`. It is kept once [`Journal::flush`] has reached the mark.
    pub(crate) fn append(&self, parts: &[&[u8]]) -> Mark {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut sum = crc32fast::Hasher::new();
        parts.iter().for_each(|part| sum.update(part));
        let mut buffer = lock(&self.buffer);
        buffer.bytes.reserve(HEAD + length);
        // Payloads are bounded far below 4 GiB by the size of requests.
        buffer.bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        buffer.bytes.extend_from_slice(&sum.finalize().to_le_bytes());
        for part in parts {
            buffer.bytes.extend_from_slice(part);
        }
        buffer.end += (HEAD + length) as u64;
        Mark(buffer.end)
    }

    /// Writes everything up to `mark`, if no other call has done so meanwhile.
    ///
    /// # Errors
    /// What the system says. From then on every call fails with it: behind a torn entry nothing would be found.
    pub(crate) fn flush(&self, mark: Mark) -> Result<(), String> {
        let mut log = lock(&self.file);
        if log.written >= mark.0 {
            return Ok(());
        }
        self.write(&mut log)
    }

    fn write(&self, log: &mut LogFile) -> Result<(), String> {
        if let Some(reason) = &log.broken {
            return Err(reason.clone());
        }
        let (mut bytes, end) = {
            let mut buffer = lock(&self.buffer);
            (std::mem::take(&mut buffer.bytes), buffer.end)
        };
        if let Err(error) = log.file.write_all(&bytes) {
            let path = path_of(&self.dir, log.generation);
            let reason = format!(
                "the log {} cannot be written: {error}; make room for it and start again",
                path.display()
            );
            tracing::error!(path = %path.display(), %error, "nothing more is kept, and nothing more is taken");
            log.broken = Some(reason.clone());
            self.is_broken.store(true, Ordering::Release);
            return Err(reason);
        }
        log.written = end;
        log.length += bytes.len() as u64;
        let mut buffer = lock(&self.buffer);
        if buffer.bytes.capacity() == 0 && bytes.capacity() <= KEPT_BUFFER {
            bytes.clear();
            buffer.bytes = bytes;
        }
        Ok(())
    }

    /// Refuses once nothing can be written any more, before anything is stored in vain.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.is_broken.load(Ordering::Acquire) {
            true => Err(lock(&self.file).broken.clone().unwrap_or_default()),
            false => Ok(()),
        }
    }

    /// Writes no more, as if nothing could be written.
    pub(crate) fn close(&self, reason: &str) {
        let mut log = lock(&self.file);
        log.broken.get_or_insert_with(|| reason.to_owned());
        self.is_broken.store(true, Ordering::Release);
    }

    /// The size of the log in bytes.
    pub(crate) fn length(&self) -> u64 {
        lock(&self.file).length
    }

    /// Begins the log of the next generation, and returns its number: what is appended from now on is in it.
    ///
    /// # Errors
    /// What the system says; the log is then the old one still.
    pub(crate) fn rotate(&self) -> io::Result<u64> {
        let mut log = lock(&self.file);
        self.write(&mut log).map_err(io::Error::other)?;
        let generation = log.generation + 1;
        log.file = open_at(&path_of(&self.dir, generation), 0)?;
        (log.generation, log.length) = (generation, 0);
        Ok(generation)
    }
}

/// Opens a log to append to, behind its first `length` bytes.
fn open_at(path: &Path, length: u64) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    file.set_len(length)?;
    Ok(file)
}

/// What reading a log has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// The bytes that are good.
    pub(crate) good: u64,
    /// The bytes behind them, torn or damaged.
    pub(crate) torn: u64,
}

/// Gives every good entry to `apply`, in order, up to the first that is torn. `None`: there is no such log.
pub(crate) fn replay(
    path: &Path,
    mut apply: impl FnMut(&[u8]) -> Result<(), String>,
) -> io::Result<Option<Found>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let total = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut payload = Vec::new();
    let mut good = 0;
    while good + HEAD as u64 <= total {
        let mut head = [0; HEAD];
        reader.read_exact(&mut head)?;
        let [a, b, c, d, e, f, g, h] = head;
        let (length, sum) = (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes([e, f, g, h]));
        let end = good + (HEAD + length) as u64;
        if length > MAX_ENTRY || end > total {
            break;
        }
        payload.resize(length, 0);
        reader.read_exact(&mut payload)?;
        if crc32fast::hash(&payload) != sum {
            break;
        }
        apply(&payload).map_err(io::Error::other)?;
        good = end;
    }
    Ok(Some(Found { good, torn: total - good }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(path: &Path) -> (Vec<Vec<u8>>, Found) {
        let mut all = Vec::new();
        let found = replay(path, |entry| {
            all.push(entry.to_vec());
            Ok(())
        });
        (all, found.unwrap().unwrap())
    }

    #[test]
    fn what_is_flushed_is_found_again_up_to_a_torn_entry() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), 0, 0).unwrap();
        journal.append(&[b"fi", b"rst"]);
        let mark = journal.append(&[b"second"]);
        journal.flush(mark).unwrap();
        journal.append(&[b"never flushed"]);
        let path = path_of(dir.path(), 0);
        let (all, found) = entries(&path);
        assert_eq!(all, [b"first".to_vec(), b"second".to_vec()]);
        assert_eq!((found.torn, found.good), (0, journal.length()));

        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (all, found) = entries(&path);
            assert_eq!(all.len(), usize::from(cut >= 13), "{cut}");
            assert_eq!(found.good + found.torn, cut as u64);
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(entries(&path).0.len(), usize::from(at >= 13), "{at}");
        }
        assert_eq!(replay(&path_of(dir.path(), 9), |_| Ok(())).unwrap(), None);
    }

    #[test]
    fn a_log_goes_on_behind_its_good_part_and_in_the_next_generation() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(path_of(dir.path(), 3), b"torn").unwrap();
        let journal = Journal::open(dir.path(), 3, 0).unwrap();
        journal.append(&[b"a"]);
        assert_eq!(journal.rotate().unwrap(), 4);
        let mark = journal.append(&[b"b"]);
        journal.flush(mark).unwrap();
        assert_eq!(entries(&path_of(dir.path(), 3)).0, [b"a"]);
        assert_eq!(entries(&path_of(dir.path(), 4)).0, [b"b"]);
    }
}
