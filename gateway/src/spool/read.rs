//! The reading side: blocks that no memory holds any more.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;

use super::disk::{Disk, Input, read_full};
use super::log::{Index, Segment};
use super::segment::{self, BLOCK_HEADER, HEADER, Header};

/// Why a block cannot be read back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("{path:?}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path:?} is damaged at byte {offset}")]
    Damaged { path: PathBuf, offset: u64 },
    #[error("no file has the position {position}")]
    Nowhere { position: u64 },
}

/// Records of one block.
#[derive(Debug)]
pub(crate) struct Stretch {
    /// The position of the first.
    pub(crate) first: u64,
    pub(crate) time_ms: u64,
    pub(crate) records: Vec<Bytes>,
}

#[derive(Debug)]
struct Open {
    header: Header,
    input: Box<dyn Input>,
    path: PathBuf,
    /// Where the next block is.
    offset: u64,
    /// The position of its first record.
    next: u64,
}

/// Reads durable blocks in order. Blocking.
#[derive(Debug)]
pub(crate) struct Reader {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    index: Index,
    open: Option<Open>,
}

impl Reader {
    pub(crate) fn new(disk: Arc<dyn Disk>, directory: PathBuf, index: Index) -> Self {
        Self { disk, directory, index, open: None }
    }

    /// Another reader of the same files.
    pub(crate) fn another(&self) -> Self {
        Self::new(Arc::clone(&self.disk), self.directory.clone(), Arc::clone(&self.index))
    }

    /// The records from a position on, up to the end of the block that holds it. The position must be
    /// durable and not settled.
    pub(crate) fn read(&mut self, position: u64) -> Result<Stretch, ReadError> {
        let segment = self.locate(position).ok_or(ReadError::Nowhere { position })?;
        let stays = self
            .open
            .as_ref()
            .is_some_and(|open| open.header.number == segment.number && open.next <= position);
        if !stays {
            self.open = Some(self.begin(&segment)?);
        }
        let Some(open) = &mut self.open else { return Err(ReadError::Nowhere { position }) };
        let found = read(open, &segment, position);
        if found.is_err() {
            self.open = None;
        }
        found
    }

    fn locate(&self, position: u64) -> Option<Segment> {
        let segments: std::sync::MutexGuard<'_, VecDeque<Segment>> =
            self.index.lock().unwrap_or_else(PoisonError::into_inner);
        segments.iter().find(|segment| (segment.first..segment.end).contains(&position)).copied()
    }

    fn begin(&self, segment: &Segment) -> Result<Open, ReadError> {
        let path = self.directory.join(segment::file_name(segment.number));
        let mut bytes = [0; HEADER];
        let opened = self.disk.open(&path).and_then(|input| {
            let read = read_full(&*input, &mut bytes, 0)?;
            Ok((input, read))
        });
        match opened {
            Err(source) => Err(ReadError::Io { path, source }),
            Ok((input, read)) => match Header::decode(&bytes[..read]) {
                Some(header) => Ok(Open { header, input, path, offset: HEADER as u64, next: header.first }),
                None => Err(ReadError::Damaged { path, offset: 0 }),
            },
        }
    }
}

fn read(open: &mut Open, segment: &Segment, position: u64) -> Result<Stretch, ReadError> {
    let mut buffer = Vec::new();
    while open.offset < segment.len {
        let io = |source| ReadError::Io { path: open.path.clone(), source };
        let damaged = || ReadError::Damaged { path: open.path.clone(), offset: open.offset };
        let mut head = [0; BLOCK_HEADER];
        let read = read_full(&*open.input, &mut head, open.offset).map_err(io)?;
        let block = segment::peek(&head[..read]).ok_or_else(damaged)?;
        if block.end() > position {
            buffer.clear();
            let block = segment::read_block(&*open.input, &open.header, open.offset, &mut buffer)
                .map_err(io)?
                .ok_or_else(damaged)?;
            let whole = Bytes::from(buffer);
            let mut records = segment::records(&block, &whole).ok_or_else(damaged)?;
            records.drain(..(position - block.first) as usize);
            open.offset += block.bytes();
            open.next = block.end();
            return Ok(Stretch { first: position, time_ms: block.time_ms, records });
        }
        open.offset += block.bytes();
        open.next = block.end();
    }
    Err(ReadError::Nowhere { position })
}
