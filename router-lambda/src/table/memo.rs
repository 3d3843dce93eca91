//! Members of one aggregate are much alike: where the last ones went need not be found out again.

use std::hash::{Hash as _, Hasher as _};

use headworks_record::aggregate::Member;
use headworks_record::{Creation, Headers};
use rustc_hash::FxHasher;

use super::route::Destinations;
use super::{RouteTable, Subject};

/// How many sets of values are remembered; a further one takes the place of one before.
const ENTRIES: usize = 16;

/// Routes members that are not decoded, and remembers which values led where. Only for tables that
/// [route by headers alone](RouteTable::by_headers_alone).
pub(crate) struct Memo<'t, 'm> {
    table: &'t RouteTable,
    /// The values of the member that is routed, one for each header that the table looks at.
    values: Vec<Option<&'m str>>,
    entries: [Option<Entry<'t, 'm>>; ENTRIES],
}

struct Entry<'t, 'm> {
    values: Vec<Option<&'m str>>,
    destinations: Destinations<'t>,
}

impl<'t, 'm> Memo<'t, 'm> {
    pub(crate) fn new(table: &'t RouteTable) -> Self {
        Self { table, values: vec![None; table.slots.len()], entries: [const { None }; ENTRIES] }
    }

    /// Where the member goes.
    pub(crate) fn route(&mut self, member: &Member<'m>, creation: &Creation) -> Destinations<'t> {
        self.values.fill(None);
        member.header_values(|name| self.table.slot_of(name), &mut self.values);
        let table = self.table;
        let find = |values: &[Option<&str>]| {
            table.route_values(values, Some(creation), &Subject::headers(&Headers::new()))
        };
        // Who is in a sample is told by the identity, which no two records share.
        if !table.samples.is_empty() {
            return find(&self.values);
        }
        let mut hasher = FxHasher::default();
        self.values.iter().flatten().for_each(|value| value.hash(&mut hasher));
        let entry = &mut self.entries[hasher.finish() as usize % ENTRIES];
        match entry {
            Some(entry) if entry.values == self.values => entry.destinations,
            _ => {
                let destinations = find(&self.values);
                *entry = Some(Entry { values: self.values.clone(), destinations });
                destinations
            }
        }
    }
}
