//! Answers that were given before, for as long as they count and no more of them than a look-up allows.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::Answer;
use crate::table::Enrich;
use crate::table::enrich::Found;

/// What is known of each look-up.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<Vec<(Enrich, Known)>>);

/// The oldest answer leaves first: each counts for the same time, so it is the next to expire.
#[derive(Debug, Default)]
struct Known {
    answers: HashMap<Arc<str>, (Arc<Found>, Instant)>,
    order: VecDeque<(Arc<str>, Instant)>,
}

impl Cache {
    /// What is known of these keys, and the keys of which nothing is.
    pub(super) fn get(
        &self,
        lookup: &Enrich,
        keys: BTreeSet<String>,
    ) -> (HashMap<String, Answer>, Vec<String>) {
        let now = Instant::now();
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.iter().find(|(other, _)| other == lookup).map(|(_, known)| known);
        let mut answers = HashMap::new();
        let mut missing = Vec::new();
        for key in keys {
            match known.and_then(|known| known.answers.get(key.as_str())) {
                Some((found, until)) if *until > now => {
                    answers.insert(key, Ok(Arc::clone(found)));
                }
                _ => missing.push(key),
            }
        }
        (answers, missing)
    }

    pub(super) fn put(&self, lookup: &Enrich, key: &str, found: &Arc<Found>) {
        let until = Instant::now() + lookup.cache_ttl;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = all.iter().position(|(other, _)| other == lookup).unwrap_or_else(|| {
            all.push((lookup.clone(), Known::default()));
            all.len() - 1
        });
        let known = &mut all[place].1;
        let key: Arc<str> = key.into();
        known.answers.insert(Arc::clone(&key), (Arc::clone(found), until));
        known.order.push_back((key, until));
        // An answer that was renewed stands in the order twice; its older place is then without effect.
        while known.order.len() > lookup.cache_entries {
            let Some((key, until)) = known.order.pop_front() else { break };
            if known.answers.get(&key).is_some_and(|(_, current)| *current == until) {
                known.answers.remove(&key);
            }
        }
    }

    /// Forgets look-ups that the table in force does not make.
    pub(crate) fn keep(&self, lookups: &[Enrich]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(lookup, _)| lookups.contains(lookup));
    }
}
