//! The rules that must hold at every moment of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use headworks_consumer::{Checkpoint, Position};
use headworks_record::ShardId;

/// One life of one worker.
pub type Life = (String, u32);

#[derive(Debug, Default)]
struct Shard {
    /// Every record by its sequence number, and how often a handler finished it.
    records: BTreeMap<u64, u32>,
    parents: Vec<ShardId>,
    open: bool,
    owner: Option<Life>,
    checkpoint: Option<Checkpoint>,
    claims: u32,
    ended: Option<Duration>,
}

/// Watches everything and remembers the first broken rule.
#[derive(Debug, Default)]
pub struct Judge {
    shards: BTreeMap<ShardId, Shard>,
    leased: BTreeSet<ShardId>,
    pub violation: Option<String>,
    pub repeats: u32,
    pub claims: u32,
    pub last_claim: Duration,
}

pub fn number(position: &Position) -> u64 {
    position.sequence.as_str().parse().unwrap()
}

impl Judge {
    pub fn shard(&mut self, shard: &ShardId, parents: &[ShardId]) {
        let entry = self.shards.entry(shard.clone()).or_default();
        (entry.parents, entry.open) = (parents.to_vec(), true);
    }

    pub fn closed(&mut self, shard: &ShardId) {
        self.shards.get_mut(shard).unwrap().open = false;
    }

    pub fn put(&mut self, shard: &ShardId, sequence: u64) {
        self.shards.get_mut(shard).unwrap().records.insert(sequence, 0);
    }

    fn broken(&mut self, rule: &str, what: String) {
        self.violation.get_or_insert_with(|| format!("{rule}: {what}"));
    }

    pub fn created(&mut self, shard: &ShardId) {
        self.leased.insert(shard.clone());
    }

    pub fn claimed(&mut self, shard: &ShardId, life: &Life, at: Duration) {
        let entry = self.shards.get_mut(shard).unwrap();
        entry.owner = Some(life.clone());
        entry.claims += 1;
        self.claims += 1;
        self.last_claim = at;
    }

    /// A counter was raised.
    pub fn renewed(&mut self, life: &Life, shard: &ShardId) {
        let owner = self.shards[shard].owner.clone();
        if owner.as_ref() != Some(life) {
            self.broken(
                "renewal without the lease",
                format!("{life:?} of {shard}, which belongs to {owner:?}"),
            );
        }
    }

    /// A lease was removed.
    pub fn removed(&mut self, shard: &ShardId) {
        if self.shards[shard].checkpoint != Some(Checkpoint::ShardEnd) {
            return self.broken("an unfinished shard is forgotten", shard.to_string());
        }
        let mut children = self.shards.iter().filter(|(_, other)| other.parents.contains(shard));
        let unbegun = children.find(|(_, child)| child.checkpoint.is_none()).map(|(id, _)| id.clone());
        if let Some(child) = unbegun {
            self.broken("an unfinished shard is forgotten", format!("{shard}, before {child} is begun"));
        }
    }

    /// When the shard's end was checkpointed.
    pub fn ended(&self, shard: &ShardId) -> Option<Duration> {
        self.shards[shard].ended
    }

    pub fn is_of_a_later_life(&self, shard: &ShardId, life: &Life) -> bool {
        self.shards[shard].owner.as_ref().is_some_and(|owner| owner.0 == life.0 && owner.1 > life.1)
    }

    pub fn released(&mut self, shard: &ShardId) {
        self.shards.get_mut(shard).unwrap().owner = None;
    }

    /// A handler is about to be called.
    pub fn begins(&mut self, life: &Life, shard: &ShardId, records: &[u64]) {
        let entry = &self.shards[shard];
        let owner = entry.owner.clone();
        let unfinished = entry.parents.iter().find(|parent| {
            let parent = &self.shards[*parent];
            parent.checkpoint != Some(Checkpoint::ShardEnd)
        });
        if let Some(parent) = unfinished {
            let what = format!("{shard} is delivered while its parent {parent} is not done");
            return self.broken("child before parent", what);
        }
        if owner.as_ref() != Some(life) {
            let what = format!("{life:?} delivers {records:?} of {shard}, which belongs to {owner:?}");
            return self.broken("delivery without the lease", what);
        }
        if !records.is_sorted() {
            self.broken("order", format!("{shard} delivered {records:?}"));
        }
    }

    /// A handler has finished.
    pub fn finished(&mut self, shard: &ShardId, records: &[u64]) {
        let entry = self.shards.get_mut(shard).unwrap();
        for record in records {
            match entry.records.get_mut(record) {
                Some(times) => {
                    self.repeats += u32::from(*times > 0);
                    *times += 1;
                }
                None => {
                    let what = format!("{shard} delivered {record}, which nobody put there");
                    return self.broken("invention", what);
                }
            }
        }
    }

    /// A checkpoint was committed to the table.
    pub fn checkpointed(&mut self, life: &Life, shard: &ShardId, checkpoint: &Checkpoint, at: Duration) {
        let entry = &self.shards[shard];
        if entry.owner.as_ref() != Some(life) {
            let what =
                format!("{life:?} wrote {checkpoint:?} of {shard}, which belongs to {:?}", entry.owner);
            return self.broken("checkpoints of two owners interleave", what);
        }
        let rank = |checkpoint: &Checkpoint| match checkpoint {
            Checkpoint::At(position) => (1, Some(position.clone())),
            Checkpoint::ShardEnd => (2, None),
            _ => (0, None),
        };
        if let Some(before) = entry.checkpoint.as_ref().filter(|before| rank(before) > rank(checkpoint)) {
            let what = format!("{shard} from {before:?} to {checkpoint:?}");
            return self.broken("a checkpoint moved back", what);
        }
        let end = match checkpoint {
            Checkpoint::At(position) if position.sub < 0 => number(position) - 1,
            Checkpoint::At(position) => number(position),
            Checkpoint::ShardEnd => u64::MAX,
            _ => 0,
        };
        let skipped = entry.records.range(..=end).find(|(_, times)| **times == 0);
        if let Some((record, _)) = skipped {
            let what = format!("{checkpoint:?} of {shard} is past {record}, which nobody finished");
            return self.broken("a record is skipped", what);
        }
        if checkpoint.is_end() {
            if entry.open {
                return self.broken("end of an open shard", shard.to_string());
            }
            let mut children = self.shards.iter().filter(|(_, other)| other.parents.contains(shard));
            let orphan = children.find(|(child, _)| !self.leased.contains(*child));
            if let Some((child, _)) = orphan {
                let what = format!("{shard} ended and its child {child} has no lease");
                return self.broken("a child is forgotten", what);
            }
        }
        let entry = self.shards.get_mut(shard).unwrap();
        entry.checkpoint = Some(checkpoint.clone());
        entry.ended = checkpoint.is_end().then(|| entry.ended.unwrap_or(at));
    }

    /// What is still to be done: `None` when every record is finished and every shard rightly held.
    pub fn unfinished(&self, alive: &BTreeSet<Life>) -> Option<String> {
        for (id, shard) in &self.shards {
            if let Some((record, _)) = shard.records.iter().find(|(_, times)| **times == 0) {
                return Some(format!("record {record} of {id} was never finished"));
            }
            match (&shard.owner, shard.open) {
                (Some(owner), true) if alive.contains(owner) => {}
                (owner, true) => return Some(format!("{id} is open and belongs to {owner:?}")),
                (_, false) if shard.checkpoint == Some(Checkpoint::ShardEnd) => {}
                (_, false) => return Some(format!("{id} is closed and its end was not checkpointed")),
            }
        }
        None
    }

    /// How many open shards each of these has.
    pub fn held(&self, alive: &BTreeSet<Life>) -> Vec<usize> {
        let open = || self.shards.values().filter(|shard| shard.open);
        alive.iter().map(|life| open().filter(|shard| shard.owner.as_ref() == Some(life)).count()).collect()
    }
}
