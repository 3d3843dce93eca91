//! What a window remembers, oldest first.

use std::collections::VecDeque;

use super::index::Identity;

/// An identity, and when the record arrived that brought it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) identity: Identity,
    pub(super) arrival_ms: u64,
}

/// Entries of one block: 16 KiB.
const BLOCK: usize = 512;

/// Entries by their number, in blocks: a busy shard's memory grows without being copied, and shrinks again.
#[derive(Debug, Clone, Default)]
pub(super) struct Order {
    // The first begins with a multiple of `BLOCK`, at or before `first`.
    blocks: VecDeque<Vec<Entry>>,
    first: u64,
    len: usize,
}

impl Order {
    /// Adds an entry; returns its number.
    pub(super) fn push(&mut self, entry: Entry) -> u64 {
        let number = self.first + self.len as u64;
        match self.blocks.back_mut().filter(|_| !number.is_multiple_of(BLOCK as u64)) {
            Some(block) => block.push(entry),
            None => {
                // Most shards are quiet, and their first block is nearly empty.
                let room = if self.blocks.is_empty() { 1 } else { BLOCK };
                let mut block = Vec::with_capacity(room);
                block.push(entry);
                self.blocks.push_back(block);
            }
        }
        self.len += 1;
        number
    }

    /// Removes the oldest; returns its number.
    pub(super) fn pop(&mut self) -> Option<(u64, Entry)> {
        let oldest = *self.oldest()?;
        let number = self.first;
        self.first += 1;
        self.len -= 1;
        if self.first.is_multiple_of(BLOCK as u64) {
            self.blocks.pop_front();
        }
        Some((number, oldest))
    }

    pub(super) fn oldest(&self) -> Option<&Entry> {
        if self.len == 0 { None } else { self.get(self.first) }
    }

    /// The entry whose number has this low half; there are never more than that tells apart.
    pub(super) fn by_half(&self, half: u32) -> Option<&Entry> {
        self.get(self.first + u64::from(half.wrapping_sub(self.first as u32)))
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.blocks.iter().flatten().skip((self.first % BLOCK as u64) as usize)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn get(&self, number: u64) -> Option<&Entry> {
        let place = (number - self.first / BLOCK as u64 * BLOCK as u64) as usize;
        self.blocks.get(place / BLOCK)?.get(place % BLOCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u64) -> Entry {
        Entry { identity: Identity([n, 0, 0]), arrival_ms: n }
    }

    #[test]
    fn numbers_find_entries_across_blocks_and_past_half() {
        let begins = u64::from(u32::MAX) / BLOCK as u64 * BLOCK as u64;
        let mut order = Order { first: begins, ..Order::default() };
        let (mut next, mut oldest) = (begins, begins);
        for round in 0..40 {
            for _ in 0..3 * BLOCK / 7 + round {
                assert_eq!(order.push(entry(next)), next);
                next += 1;
            }
            for _ in 0..BLOCK / 3 {
                let (number, popped) = order.pop().unwrap();
                assert_eq!((number, popped.arrival_ms), (oldest, oldest));
                oldest += 1;
            }
            assert_eq!(order.len() as u64, next - oldest);
            assert_eq!(order.oldest().map(|entry| entry.arrival_ms), Some(oldest));
            let all = oldest..next;
            assert!(order.iter().map(|entry| entry.arrival_ms).eq(all.clone()));
            assert!(all.clone().all(|n| order.by_half(n as u32).is_some_and(|e| e.arrival_ms == n)));
            assert!(order.by_half(next as u32).is_none());
            assert!(order.blocks.len() <= order.len() / BLOCK + 2, "what is empty is given back");
        }
        assert!(next > u64::from(u32::MAX));
        while order.pop().is_some() {}
        assert_eq!((order.len(), order.push(entry(next))), (0, next));
    }
}
