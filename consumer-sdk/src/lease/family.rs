//! Which leases are missing: pure functions of the stream's shards and the leases there are.
//!
//! The rule that they uphold: a shard that has a lease has one for every parent that is not finished yet.
//! So a parent without a lease is finished, and the lease table alone tells whether a child may be read.

use std::collections::{BTreeMap, BTreeSet};

use headworks_record::ShardId;

use super::machine::Leases;
use super::model::Lease;
use crate::position::{Checkpoint, Start};
use crate::streams::ShardInfo;

/// The leases that a stream's shards should have and do not: at the first start, and where a worker
/// vanished before it was done.
///
/// - `shards`: all shards that the stream still lists.
/// - `initial`: those among them that were open at the place where the application starts.
pub(crate) fn missing(
    shards: &[ShardInfo],
    initial: &BTreeSet<ShardId>,
    start: &Start,
    leases: &Leases,
) -> Vec<Lease> {
    let listed = by_id(shards);
    let mut wanted = Vec::new();
    for shard in shards {
        if leases.contains_key(&shard.id) || has_leased_descendant(&shard.id, shards, leases) {
            // Where a descendant has a lease, the shard is finished: the KCL tidies such leases away.
            continue;
        }
        let leased_parent = shard.parents.iter().any(|parent| leases.contains_key(parent));
        let settled = |parent: &ShardId| match (leases.get(parent), listed.get(parent)) {
            (Some(lease), Some(_)) => lease.checkpoint.is_end(),
            (Some(_), None) => true, // expired: nothing of it can be read any more
            (None, Some(_)) => has_leased_descendant(parent, shards, leases),
            (None, None) => true,
        };
        if leased_parent {
            if shard.parents.iter().all(settled) {
                wanted.push(lease_of(shard, Checkpoint::TrimHorizon));
            }
        } else if initial.contains(&shard.id) && !has_leased_ancestor(&shard.id, &listed, leases) {
            wanted.push(lease_of(shard, start.checkpoint()));
        }
    }
    wanted
}

/// The leases that must exist before `ended` may be checkpointed as ended: its children's, and, where a
/// child was merged from a shard that has no lease yet because its own parents are still being read, that
/// shard's too.
pub(crate) fn successors(children: &[ShardInfo], shards: &[ShardInfo], leases: &Leases) -> Vec<Lease> {
    let listed = by_id(shards);
    let mut wanted: BTreeMap<ShardId, Lease> = BTreeMap::new();
    let mut open: Vec<&ShardInfo> = children.iter().collect();
    while let Some(shard) = open.pop() {
        if leases.contains_key(&shard.id) || wanted.contains_key(&shard.id) {
            continue;
        }
        wanted.insert(shard.id.clone(), lease_of(shard, Checkpoint::TrimHorizon));
        for parent in &shard.parents {
            let unleased = !leases.contains_key(parent);
            if let Some(parent) = listed.get(parent).filter(|_| unleased)
                && has_leased_ancestor(&parent.id, &listed, leases)
            {
                open.push(parent);
            }
        }
    }
    // Parents first: whoever reads the table in between must never see a child alone.
    let mut ordered = Vec::with_capacity(wanted.len());
    while !wanted.is_empty() {
        let ready = |lease: &Lease| !lease.parents.iter().any(|parent| wanted.contains_key(parent));
        let Some(next) = wanted.values().find(|lease| ready(lease)).map(|lease| lease.shard.clone()) else {
            break; // shards cannot be their own ancestors
        };
        ordered.extend(wanted.remove(&next));
    }
    ordered
}

/// The leases that nobody needs any more: of shards that were read to their end and are no longer listed.
///
/// As in the KCL, a lease goes only after those of its parents, and when each of its children has been begun:
/// until then it tells where a child starts, and that it may. The KCL does not wait until the shard is gone;
/// a reset of the application may still want it read again.
pub(crate) fn outlived(shards: &[ShardInfo], leases: &Leases) -> Vec<ShardId> {
    let listed = by_id(shards);
    let begun = |lease: &Lease| matches!(lease.checkpoint, Checkpoint::At(_) | Checkpoint::ShardEnd);
    let is_outlived = |lease: &&Lease| {
        let id = &lease.shard;
        let waited_for = shards.iter().filter(|child| child.parents.contains(id)).map(|child| &child.id);
        let children = leases.values().filter(|child| child.parents.contains(id));
        lease.checkpoint.is_end()
            && !listed.contains_key(id)
            && !lease.parents.iter().any(|parent| leases.contains_key(parent))
            && waited_for.into_iter().all(|child| leases.contains_key(child))
            && children.into_iter().all(begun)
    };
    leases.values().filter(is_outlived).map(|lease| lease.shard.clone()).collect()
}

fn lease_of(shard: &ShardInfo, checkpoint: Checkpoint) -> Lease {
    let mut lease = Lease::new(shard.id.clone(), checkpoint);
    lease.parents = shard.parents.clone();
    lease.parents.sort();
    lease.range = Some(shard.range);
    lease
}

fn by_id(shards: &[ShardInfo]) -> BTreeMap<&ShardId, &ShardInfo> {
    shards.iter().map(|shard| (&shard.id, shard)).collect()
}

fn has_leased_ancestor(id: &ShardId, listed: &BTreeMap<&ShardId, &ShardInfo>, leases: &Leases) -> bool {
    let mut open: Vec<&ShardId> = vec![id];
    let mut seen = BTreeSet::new();
    while let Some(shard) = open.pop().and_then(|id| listed.get(id)) {
        for parent in &shard.parents {
            if leases.contains_key(parent) {
                return true;
            }
            if seen.insert(parent) && listed.contains_key(parent) {
                open.push(parent);
            }
        }
    }
    false
}

fn has_leased_descendant(id: &ShardId, shards: &[ShardInfo], leases: &Leases) -> bool {
    let mut open = vec![id];
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        for child in shards.iter().filter(|shard| shard.parents.contains(id)) {
            if leases.contains_key(&child.id) {
                return true;
            }
            if seen.insert(&child.id) {
                open.push(&child.id);
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use headworks_record::HashRange;

    use super::*;

    fn shard(id: &str, parents: &[&str]) -> ShardInfo {
        ShardInfo {
            id: id.into(),
            parents: parents.iter().map(|parent| ShardId::from(*parent)).collect(),
            range: HashRange::ALL,
            open: true,
        }
    }

    fn leased(leases: &[(&str, bool)]) -> Leases {
        leases
            .iter()
            .map(|(id, done)| {
                let checkpoint = if *done { Checkpoint::ShardEnd } else { Checkpoint::TrimHorizon };
                (ShardId::from(*id), Lease::new((*id).into(), checkpoint))
            })
            .collect()
    }

    fn ids(leases: &[Lease]) -> Vec<&str> {
        leases.iter().map(|lease| lease.shard.as_str()).collect()
    }

    fn initial(ids: &[&str]) -> BTreeSet<ShardId> {
        ids.iter().map(|id| ShardId::from(*id)).collect()
    }

    #[test]
    fn the_first_start_takes_the_shards_that_were_open_there() {
        let shards = [shard("a", &[]), shard("b", &["a"]), shard("c", &["a"])];
        let none = Leases::new();
        let oldest = missing(&shards, &initial(&["a"]), &Start::TrimHorizon, &none);
        assert_eq!(ids(&oldest), ["a"]);
        assert_eq!(oldest[0].checkpoint, Checkpoint::TrimHorizon);
        let latest = missing(&shards, &initial(&["b", "c"]), &Start::Latest, &none);
        assert_eq!(ids(&latest), ["b", "c"]);
        assert_eq!(latest[0].checkpoint, Checkpoint::Latest);
        assert_eq!(latest[0].parents, ["a".into()]);
    }

    #[test]
    fn children_are_left_to_the_end_of_their_parents() {
        let shards = [shard("a", &[]), shard("b", &["a"]), shard("c", &["a"])];
        let again = |leases: &[(&str, bool)]| {
            let found = missing(&shards, &initial(&["b", "c"]), &Start::Latest, &leased(leases));
            found.into_iter().map(|l| (l.shard.to_string(), l.checkpoint)).collect::<Vec<_>>()
        };
        assert_eq!(again(&[("a", false)]), []);
        let horizon = |id: &str| (id.to_owned(), Checkpoint::TrimHorizon);
        assert_eq!(again(&[("a", true)]), [horizon("b"), horizon("c")], "a worker vanished in between");
        assert_eq!(again(&[("a", true), ("b", false)]), [horizon("c")]);
        assert_eq!(again(&[("b", false), ("c", false)]), [], "the parent's lease was tidied away");
    }

    #[test]
    fn children_of_an_expired_parent_are_read_from_their_beginning() {
        let shards = [shard("b", &["a"]), shard("c", &["a"])];
        let found = missing(&shards, &initial(&["b", "c"]), &Start::Latest, &leased(&[("a", false)]));
        assert_eq!(ids(&found), ["b", "c"]);
        assert!(found.iter().all(|lease| lease.checkpoint == Checkpoint::TrimHorizon));
    }

    #[test]
    fn a_merge_brings_the_other_parent_along() {
        // a was split into b and c; c was merged with d into e. d ends while a is still being read.
        let shards = [
            shard("a", &[]),
            shard("b", &["a"]),
            shard("c", &["a"]),
            shard("d", &[]),
            shard("e", &["c", "d"]),
        ];
        let leases = leased(&[("a", false), ("d", false)]);
        let wanted = successors(&shards[4..], &shards, &leases);
        assert_eq!(ids(&wanted), ["c", "e"]);
        assert_eq!(wanted[1].parents, ["c".into(), "d".into()]);
        let later = leased(&[("a", true), ("b", false), ("c", false), ("d", false)]);
        assert_eq!(ids(&successors(&shards[4..], &shards, &later)), ["e"]);
    }

    #[test]
    fn a_lease_outlives_its_shard_until_its_children_are_begun_and_its_parents_gone() {
        let shards = [shard("c", &["b"]), shard("d", &["b"])];
        let mut leases = Leases::new();
        let mut put = |id: &str, parents: &[&str], checkpoint: Checkpoint| {
            let mut lease = Lease::new(id.into(), checkpoint);
            lease.parents = parents.iter().map(|parent| ShardId::from(*parent)).collect();
            leases.insert(lease.shard.clone(), lease);
            leases.clone()
        };
        let begun = Checkpoint::parse("7", 0).unwrap();
        put("a", &[], Checkpoint::ShardEnd);
        put("b", &["a"], Checkpoint::ShardEnd);
        let alone = put("c", &["b"], begun.clone());
        let ids = |leases: &Leases| outlived(&shards, leases);
        assert_eq!(ids(&alone), [ShardId::from("a")], "d has no lease yet, and b a parent");
        let waiting = put("d", &["b"], Checkpoint::TrimHorizon);
        let without_a = |leases: &Leases| {
            let mut leases = leases.clone();
            leases.remove(&ShardId::from("a"));
            leases
        };
        assert!(ids(&without_a(&alone)).is_empty(), "d has no lease yet");
        assert!(ids(&without_a(&waiting)).is_empty(), "d is not begun");
        let all = without_a(&put("d", &["b"], begun));
        assert_eq!(ids(&all), [ShardId::from("b")]);
        assert!(outlived(&[shard("b", &[])], &all).is_empty(), "it is still listed");
    }
}
