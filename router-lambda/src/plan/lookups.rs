//! Look-ups that a batch's records ask for, and what their answers add.

use std::collections::BTreeSet;
use std::time::Duration;

use headworks_record::Record;
use headworks_record::aggregate::Aggregate;

use super::{Plan, Slot, whole};
use crate::lookup;
use crate::table::{OnSlow, Subject, route_subject};
use crate::trouble::Trouble;

impl Plan<'_> {
    /// The keys that the batch's look-ups ask for: per look-up of the table, each once.
    pub(crate) fn wanted(&self, index: usize, aggregate: Option<&Aggregate>, keys: &mut [BTreeSet<String>]) {
        let mut look = |place: usize, mut record: Record| {
            // As it is routed: a sample looks at the identity.
            if record.headers.creation().is_none() {
                let slot = Slot { record: index, member: Some(place as u32) };
                record.headers.set_creation(self.identity(slot));
            }
            if self.table.derive(&mut record.headers, &record.data).is_err() {
                return;
            }
            let subject = Subject::from(&record);
            for destination in route_subject(&subject, self.table).iter() {
                if let Some(lookup) = destination.lookup
                    && !self.known.has(&self.event.records[index], destination.stream_index)
                    && let Some(key) = self.table.lookups()[lookup].key_of(&subject)
                {
                    keys[lookup].insert(key);
                }
            }
        };
        match aggregate {
            None => whole(&self.event.records[index]).into_iter().for_each(|record| look(0, record)),
            Some(aggregate) => {
                let members = aggregate.members().enumerate();
                members
                    .filter_map(|(place, member)| Some((place, member.to_record().ok()?)))
                    .for_each(|(place, record)| look(place, record));
            }
        }
    }

    /// Adds the headers of a look-up.
    pub(super) fn enrich(&mut self, lookup: usize, record: &mut Record) -> Result<(), Trouble> {
        let enrich = &self.table.lookups()[lookup];
        let Some(key) = enrich.key_of(&Subject::from(&*record)) else { return Ok(()) };
        match (self.answers.of(lookup, &key), enrich.on_slow) {
            (Some(Ok(found)), _) => {
                enrich.apply(found, &mut record.headers).map_err(|error| Trouble::poison(error.code(), error))
            }
            (None, OnSlow::Skip) | (Some(Err(_)), OnSlow::Skip) => {
                self.counts.unenriched += 1;
                Ok(())
            }
            (Some(Err(error)), OnSlow::DeadLetter) => Err(Trouble::poison(error.code(), error)),
            (Some(Err(error)), OnSlow::Wait) => Err(Trouble::retryable(error.code(), error)),
            (None, _) => {
                let error = lookup::Error::Slow { table: enrich.table.clone(), after: Duration::ZERO };
                Err(Trouble::retryable(error.code(), error))
            }
        }
    }
}
