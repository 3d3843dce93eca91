//! Which leases are missing: pure functions of the stream's shards and the leases there are.
//!
//! The rule that they uphold: a shard that has a lease has one for every parent that is not finished yet.
//! So a parent without a lease is finished, and the lease table alone tells whether a child may be read.

use std::collections::{BTreeMap, BTreeSet};

use headworks_record::ShardId;

use super::machine::Leases;
use super::model::Lease;
use crate::position::{Checkpoint, SequenceStart, Start};
use crate::streams::ShardInfo;

/// Where an application begins: the shards that were open at its start, except where it was told to begin at a
/// place in a shard.
#[derive(Debug, Default)]
pub(crate) struct Beginning {
    places: BTreeMap<ShardId, Checkpoint>,
}

impl Beginning {
    /// - `shards`: all shards that the stream still lists.
    /// - `open`: those among them that were open at the place where the application starts.
    /// - `named`: the shards that begin elsewhere.
    pub(crate) fn new(
        shards: &[ShardInfo],
        open: &BTreeSet<ShardId>,
        start: &Start,
        named: &BTreeMap<ShardId, SequenceStart>,
    ) -> Self {
        let listed = by_id(shards);
        let named = |id: &ShardId| named.get(id).filter(|_| listed.contains_key(id));
        let mut places: BTreeMap<ShardId, Checkpoint> =
            open.iter().map(|id| (id.clone(), start.checkpoint())).collect();
        // What a named shard came from is not read: what else came from that begins at its own beginning.
        let mut passed: Vec<&ShardInfo> = shards.iter().filter(|shard| named(&shard.id).is_some()).collect();
        let mut seen = BTreeSet::new();
        while let Some(parents) = passed.pop().map(|shard| &shard.parents) {
            for parent in parents.iter().filter_map(|parent| listed.get(parent)) {
                if seen.insert(&parent.id) {
                    passed.push(parent);
                }
            }
        }
        // Parents first, so that what takes a passed shard's place may be passed as well.
        for shard in elders_first(shards).into_iter().filter(|shard| seen.contains(&shard.id)) {
            if places.remove(&shard.id).is_some() {
                let children = shards.iter().filter(|child| child.parents.contains(&shard.id));
                places.extend(children.map(|child| (child.id.clone(), Checkpoint::TrimHorizon)));
            }
        }
        // And what comes from a named shard is left to its end.
        for shard in elders_first(shards) {
            if let Some(start) = named(&shard.id) {
                places.insert(shard.id.clone(), start.checkpoint());
            }
        }
        let follows = |id: &ShardId| ancestors(id, &listed).iter().any(|ancestor| named(ancestor).is_some());
        places.retain(|id, _| named(id).is_some() || !follows(id));
        Self { places }
    }
}

/// The leases that a stream's shards should have and do not: at the first start, and where a worker
/// vanished before it was done.
///
/// - `shards`: all shards that the stream still lists.
pub(crate) fn missing(shards: &[ShardInfo], beginning: &Beginning, leases: &Leases) -> Vec<Lease> {
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
        } else if let Some(place) = beginning.places.get(&shard.id)
            && !has_leased_ancestor(&shard.id, &listed, leases)
        {
            wanted.push(lease_of(shard, place.clone()));
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

/// Each shard after those that it came from.
fn elders_first(shards: &[ShardInfo]) -> Vec<&ShardInfo> {
    let listed = by_id(shards);
    let mut ordered: Vec<&ShardInfo> = shards.iter().collect();
    ordered.sort_by_key(|shard| ancestors(&shard.id, &listed).len());
    ordered
}

/// The listed shards that a shard came from, over all generations.
fn ancestors<'a>(id: &ShardId, listed: &BTreeMap<&'a ShardId, &'a ShardInfo>) -> BTreeSet<&'a ShardId> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&ShardInfo> = listed.get(id).copied().into_iter().collect();
    while let Some(shard) = open.pop() {
        for parent in shard.parents.iter().filter_map(|parent| listed.get(parent).copied()) {
            if found.insert(&parent.id) {
                open.push(parent);
            }
        }
    }
    found
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
    use crate::position::SequenceNumber;

    fn shard(id: &str, parents: &[&str]) -> ShardInfo {
        ShardInfo {
            id: id.into(),
            parents: parents.iter().map(|parent| ShardId::from(*parent)).collect(),
            range: HashRange::ALL,
            open: true,
            begins: None,
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

    fn initial(shards: &[ShardInfo], ids: &[&str], start: Start) -> Beginning {
        let open = ids.iter().map(|id| ShardId::from(*id)).collect();
        Beginning::new(shards, &open, &start, &BTreeMap::new())
    }

    #[test]
    fn the_first_start_takes_the_shards_that_were_open_there() {
        let shards = [shard("a", &[]), shard("b", &["a"]), shard("c", &["a"])];
        let none = Leases::new();
        let oldest = missing(&shards, &initial(&shards, &["a"], Start::TrimHorizon), &none);
        assert_eq!(ids(&oldest), ["a"]);
        assert_eq!(oldest[0].checkpoint, Checkpoint::TrimHorizon);
        let latest = missing(&shards, &initial(&shards, &["b", "c"], Start::Latest), &none);
        assert_eq!(ids(&latest), ["b", "c"]);
        assert_eq!(latest[0].checkpoint, Checkpoint::Latest);
        assert_eq!(latest[0].parents, ["a".into()]);
    }

    #[test]
    fn a_named_shard_begins_at_its_place_and_its_family_round_it() {
        // a was split into b and c, c into d and e; x stands alone.
        let shards = [
            shard("e", &["c"]),
            shard("x", &[]),
            shard("a", &[]),
            shard("c", &["a"]),
            shard("b", &["a"]),
            shard("d", &["c"]),
        ];
        let at = |n: &str| SequenceStart::At(SequenceNumber::new(n.to_owned()).unwrap());
        let begin = |open: &[&str], start: Start, named: &[&str]| {
            let open = open.iter().map(|id| ShardId::from(*id)).collect();
            let named = named.iter().map(|id| (ShardId::from(*id), at("7"))).collect();
            let beginning = Beginning::new(&shards, &open, &start, &named);
            let mut found = missing(&shards, &beginning, &Leases::new());
            found.sort_by(|a, b| a.shard.cmp(&b.shard));
            let line = |lease: Lease| format!("{} {}", lease.shard, lease.checkpoint.text());
            found.into_iter().map(line).collect::<Vec<_>>()
        };
        let horizon = begin(&["a", "x"], Start::TrimHorizon, &["d"]);
        assert_eq!(horizon, ["b TRIM_HORIZON", "d 7", "e TRIM_HORIZON", "x TRIM_HORIZON"]);
        let latest = begin(&["b", "d", "e", "x"], Start::Latest, &["d"]);
        assert_eq!(latest, ["b LATEST", "d 7", "e LATEST", "x LATEST"]);
        let closed = begin(&["b", "d", "e", "x"], Start::Latest, &["c"]);
        assert_eq!(closed, ["b LATEST", "c 7", "x LATEST"], "d and e come when c has ended");
        let unknown = begin(&["a", "x"], Start::TrimHorizon, &["gone"]);
        assert_eq!(unknown, ["a TRIM_HORIZON", "x TRIM_HORIZON"]);
        // A worker that vanished when it had made one of them.
        let open = BTreeSet::from(["a".into(), "x".into()]);
        let named = BTreeMap::from([("d".into(), at("7"))]);
        let beginning = Beginning::new(&shards, &open, &Start::TrimHorizon, &named);
        let mut again = missing(&shards, &beginning, &leased(&[("d", false)]));
        again.sort_by(|a, b| a.shard.cmp(&b.shard));
        assert_eq!(ids(&again), ["b", "e", "x"]);
    }

    #[test]
    fn children_are_left_to_the_end_of_their_parents() {
        let shards = [shard("a", &[]), shard("b", &["a"]), shard("c", &["a"])];
        let again = |leases: &[(&str, bool)]| {
            let found = missing(&shards, &initial(&shards, &["b", "c"], Start::Latest), &leased(leases));
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
        let begun = initial(&shards, &["b", "c"], Start::Latest);
        let found = missing(&shards, &begun, &leased(&[("a", false)]));
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
