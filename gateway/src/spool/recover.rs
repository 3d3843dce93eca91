//! What a spool finds when it is opened.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::{Disk, Input, read_full};
use super::log::Segment;
use super::segment::{self, HEADER, Header};

/// Why a spool was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory cannot be used.
    #[error(
        "the spool at {path:?} cannot be used: {source}; check that the directory exists, that the gateway may write there, and that the disk is sound"
    )]
    Unusable {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "the spool at {path:?} is in use by another process; give each gateway a directory of its own, or stop the other one"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// What was acknowledged is damaged.
    #[error(
        "the spool's file {path:?} is damaged at byte {offset}, before records that were acknowledged: {reason}; restore the file from a copy of the disk, or move the whole directory {directory:?} away to start without its records, and keep it: `headworks` never drops acknowledged records by itself"
    )]
    Damaged {
        /// The spool's directory.
        directory: PathBuf,
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A file with acknowledged records is gone.
    #[error(
        "the spool at {directory:?} lacks its file {name:?}, which has acknowledged records; restore it, or move the whole directory away to start without its records"
    )]
    Missing {
        /// The spool's directory.
        directory: PathBuf,
        /// The file's name.
        name: String,
    },
}

impl OpenError {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            OpenError::Unusable { .. } => "spool-unusable",
            OpenError::InUse { .. } => "spool-in-use",
            OpenError::Damaged { .. } | OpenError::Missing { .. } => "spool-damaged",
        }
    }

    /// Whether a later start may succeed with nothing done about it.
    pub fn is_retryable(&self) -> bool {
        matches!(self, OpenError::InUse { .. })
    }
}

/// What is in the files.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// Oldest first.
    pub(crate) segments: Vec<Segment>,
    /// The position for the next record.
    pub(crate) next: u64,
    /// Every position up to this is settled.
    pub(crate) done: u64,
    /// The highest number of any file.
    pub(crate) number: u64,
    /// When the oldest unsettled block was written.
    pub(crate) oldest_ms: Option<u64>,
    /// Bytes at the end that were never acknowledged.
    pub(crate) torn: u64,
}

struct Found {
    header: Header,
    input: Box<dyn Input>,
    len: u64,
}

/// Reads every segment that counts, and removes files that do not.
pub(crate) fn recover(disk: &dyn Disk, directory: &Path) -> Result<Recovered, OpenError> {
    let unusable = |source| OpenError::Unusable { path: directory.to_owned(), source };
    let names = disk.list(directory).map_err(unusable)?;
    let mut numbers: BTreeSet<u64> = names.iter().filter_map(|name| segment::number_of(name)).collect();
    let mut recovered =
        Recovered { next: 1, number: numbers.last().copied().unwrap_or(0), ..Default::default() };

    // The newest segment that was begun. A file without a whole header that is no longer than one was
    // never written to: the header is made durable first.
    let mut newest = None;
    while let Some(number) = numbers.last().copied() {
        let found = look(disk, directory, number)?;
        if found.is_some() {
            newest = found;
            break;
        }
        numbers.pop_last();
        remove(disk, directory, number)?;
    }
    let Some(newest) = newest else { return Ok(recovered) };

    // The chain of its predecessors: others were given up when a write to them failed.
    let mut chain: Vec<(Found, Option<u64>)> = Vec::new();
    let (mut next, mut limit) = (Some(newest), None);
    while let Some(found) = next.take() {
        let Header { previous, previous_len, .. } = found.header;
        numbers.remove(&found.header.number);
        chain.push((found, limit));
        if previous != 0 && numbers.contains(&previous) {
            next = look(disk, directory, previous)?;
            limit = Some(previous_len);
        }
    }
    for number in numbers {
        remove(disk, directory, number)?;
    }

    let mut blocks = Vec::new();
    let oldest = chain.last().map(|(found, _)| found.header);
    for (found, limit) in chain.into_iter().rev() {
        let segment = scan(directory, &found, limit, &mut recovered, &mut blocks)?;
        recovered.segments.push(segment);
    }
    // What precedes the oldest segment was removed because it was settled, or it is missing.
    if let Some(oldest) = oldest.filter(|oldest| oldest.first > recovered.done + 1) {
        return Err(OpenError::Missing {
            directory: directory.to_owned(),
            name: segment::file_name(oldest.previous),
        });
    }
    recovered.oldest_ms =
        blocks.into_iter().find(|(end, _)| *end > recovered.done + 1).map(|(_, time_ms)| time_ms);
    Ok(recovered)
}

fn remove(disk: &dyn Disk, directory: &Path, number: u64) -> Result<(), OpenError> {
    let path = directory.join(segment::file_name(number));
    disk.remove(&path).map_err(|source| OpenError::Unusable { path, source })
}

fn look(disk: &dyn Disk, directory: &Path, number: u64) -> Result<Option<Found>, OpenError> {
    let path = directory.join(segment::file_name(number));
    let looked = (|| {
        let input = disk.open(&path)?;
        let len = input.len()?;
        let mut bytes = [0; HEADER];
        let read = read_full(&*input, &mut bytes, 0)?;
        Ok((Header::decode(&bytes[..read]), input, len))
    })();
    let damaged = |reason| OpenError::Damaged {
        directory: directory.to_owned(),
        path: path.clone(),
        offset: 0,
        reason,
    };
    match looked {
        Err(source) => Err(OpenError::Unusable { path, source }),
        Ok((Some(header), ..)) if header.number != number => Err(damaged("it bears another file's number")),
        Ok((Some(header), input, len)) => Ok(Some(Found { header, input, len })),
        Ok((None, _, len)) if len <= HEADER as u64 => Ok(None),
        Ok((None, ..)) => Err(damaged("its header is not whole")),
    }
}

/// Reads all of a segment; `limit` is how much of it its successor says that counts.
fn scan(
    directory: &Path,
    found: &Found,
    limit: Option<u64>,
    recovered: &mut Recovered,
    blocks: &mut Vec<(u64, u64)>,
) -> Result<Segment, OpenError> {
    let Found { header, input, len } = found;
    let path = directory.join(segment::file_name(header.number));
    let damaged = |offset, reason| OpenError::Damaged {
        directory: directory.to_owned(),
        path: path.clone(),
        offset,
        reason,
    };
    let unusable = |source| OpenError::Unusable { path: path.clone(), source };
    let end = limit.unwrap_or(*len);
    if end > *len {
        return Err(damaged(*len, "it is shorter than it was"));
    }
    if !recovered.segments.is_empty() && header.first != recovered.next {
        return Err(damaged(0, "its records do not follow those before"));
    }
    recovered.done = recovered.done.max(header.done);
    let (mut offset, mut next) = (HEADER as u64, header.first);
    let mut buffer = Vec::new();
    while offset < end {
        match segment::read_block(&**input, header, offset, &mut buffer).map_err(unusable)? {
            Some(block) if offset + block.bytes() <= end => {
                if block.first != next {
                    return Err(damaged(offset, "its records do not follow those before"));
                }
                offset += block.bytes();
                next = block.end();
                recovered.done = recovered.done.max(block.done);
                if block.count > 0 {
                    blocks.push((block.end(), block.time_ms));
                }
            }
            _ if limit.is_some() => return Err(damaged(offset, "a block's checksum does not fit")),
            _ => {
                // Only the last block may be torn: one that follows it would prove that it was durable.
                let mut rest = vec![0; (*len - offset) as usize];
                let read = read_full(&**input, &mut rest, offset).map_err(unusable)?;
                if segment::find_block(header, &rest[..read]).is_some() {
                    return Err(damaged(offset, "a block's checksum does not fit"));
                }
                recovered.torn = *len - offset;
                break;
            }
        }
    }
    recovered.next = next;
    Ok(Segment { number: header.number, first: header.first, end: next, len: offset, file_len: *len })
}
