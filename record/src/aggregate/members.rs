//! The members of an aggregate that is being built, with room before them for what stands in front.

/// Their bytes, one after the other.
///
/// The tables of keys stand before the members and are known after them. Room is left for tables as long as those of
/// the last aggregate: if they fit there, the members need not be copied behind them.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Room for the head, then the members.
    bytes: Vec<u8>,
    room: usize,
    /// The length of the last aggregate that left with this memory.
    last: usize,
}

/// Room for the tables of a first aggregate.
const FIRST_ROOM: usize = 4 * 1024;

impl Members {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        let mut members = Self { last: bytes, ..Self::default() };
        members.begin(FIRST_ROOM);
        members
    }

    fn begin(&mut self, room: usize) {
        self.room = room;
        self.bytes.clear();
        self.bytes.reserve(room + self.last);
        self.bytes.resize(room, 0);
    }

    /// The tables of the next aggregate are about as long as those of this one.
    fn room_for(head: usize) -> usize {
        (head + head / 4).max(FIRST_ROOM)
    }

    /// Where the next bytes go.
    #[inline]
    pub(super) fn end(&mut self) -> &mut Vec<u8> {
        if self.bytes.is_empty() {
            self.begin(self.room.max(FIRST_ROOM));
        }
        &mut self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.room)
    }

    /// The members behind a head, and where that begins, in memory that has room for an aggregate of `len` bytes.
    ///
    /// Leaves none. Its own memory goes along if the head fits before the members and no more of it would lie idle
    /// than is used; else they are copied.
    pub(super) fn take_behind(&mut self, head: [&[u8]; 3], len: usize) -> (Vec<u8>, usize) {
        let needed: usize = head.iter().map(|part| part.len()).sum();
        let idle = self.bytes.capacity().saturating_sub(len);
        if needed <= self.room && idle <= len && !self.bytes.is_empty() {
            let start = self.room - needed;
            let mut bytes = std::mem::take(&mut self.bytes);
            let mut at = start;
            for part in head {
                bytes[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
            self.last = len;
            self.room = Self::room_for(needed);
            return (bytes, start);
        }
        let mut bytes = Vec::with_capacity(len);
        head.iter().for_each(|part| bytes.extend_from_slice(part));
        bytes.extend_from_slice(self.bytes.get(self.room..).unwrap_or_default());
        self.begin(Self::room_for(needed));
        (bytes, 0)
    }
}
