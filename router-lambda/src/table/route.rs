//! The pure function: headers and a table to destinations.

use headworks_record::Headers;
use headworks_record::aggregate::Member;

use super::compile::{DESTINATION_WORDS, MAX_HEADER_NAMES, RULE_WORDS};
use super::schema::Mode;
use super::{Destination, RouteTable};

/// Where a record with these headers goes. Allocates nothing.
///
/// Of a header that stands several times, the first one counts.
pub fn route<'t>(headers: &Headers, table: &'t RouteTable) -> Destinations<'t> {
    route_pairs(headers.iter(), table)
}

/// [`route`] for a member that still borrows from its aggregate.
pub fn route_member<'t>(member: &Member<'_>, table: &'t RouteTable) -> Destinations<'t> {
    route_pairs(member.tags(), table)
}

/// [`route`] for names and values from anywhere.
pub fn route_pairs<'h, 't>(
    pairs: impl Iterator<Item = (&'h str, &'h str)>,
    table: &'t RouteTable,
) -> Destinations<'t> {
    let values = table.values(pairs);
    let mut matching = [0u64; RULE_WORDS];
    table.matching(&values, &mut matching);
    table.apply(&matching)
}

/// The values of the headers that a table looks at, by slot.
pub(super) type Values<'h> = [Option<&'h str>; MAX_HEADER_NAMES];

impl RouteTable {
    pub(super) fn values<'h>(&self, pairs: impl Iterator<Item = (&'h str, &'h str)>) -> Values<'h> {
        let mut values: Values<'h> = [None; MAX_HEADER_NAMES];
        let mut missing = self.slots.len();
        for (name, value) in pairs {
            if missing == 0 {
                break;
            }
            if let Some(slot) = self.slots.iter().position(|slot| *slot.name == *name)
                && values[slot].is_none()
            {
                values[slot] = Some(value);
                missing -= 1;
            }
        }
        values
    }

    /// Which rules match: per header the rules that its value satisfies, intersected over the headers.
    fn matching(&self, values: &Values<'_>, out: &mut [u64; RULE_WORDS]) {
        let out = &mut out[..self.words];
        out.fill(u64::MAX);
        if let Some(last) = out.last_mut()
            && !self.rules.len().is_multiple_of(64)
        {
            *last = (1 << (self.rules.len() % 64)) - 1;
        }
        let mut satisfied = [0u64; RULE_WORDS];
        let satisfied = &mut satisfied[..self.words];
        for (slot, value) in self.slots.iter().zip(values) {
            match value {
                None => satisfied.copy_from_slice(&slot.absent),
                Some(value) => {
                    satisfied.copy_from_slice(&slot.free);
                    if let Some(mask) = slot.exact.get(*value) {
                        unite(satisfied, mask);
                    }
                    for (test, mask) in &slot.tests {
                        if test.holds(Some(value)) {
                            unite(satisfied, mask);
                        }
                    }
                }
            }
            out.iter_mut().zip(&*satisfied).for_each(|(out, word)| *out &= word);
        }
    }

    fn apply(&self, matching: &[u64; RULE_WORDS]) -> Destinations<'_> {
        let mut set = [0; DESTINATION_WORDS];
        let mut first = None;
        for index in bits(*matching) {
            let rule = &self.rules[index];
            first = first.or(Some(index));
            unite(&mut set, &rule.action.destinations);
            if rule.action.drop || self.mode == Mode::FirstMatch {
                break;
            }
        }
        if first.is_none() {
            set = self.default.destinations;
        }
        Destinations { table: self, set, first }
    }
}

fn unite(into: &mut [u64], mask: &[u64]) {
    into.iter_mut().zip(mask).for_each(|(into, word)| *into |= word);
}

/// The places of the bits that are set, in order.
pub(super) fn bits<const N: usize>(words: [u64; N]) -> impl Iterator<Item = usize> {
    words.into_iter().enumerate().flat_map(|(i, mut word)| {
        std::iter::from_fn(move || {
            let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
            word &= word - 1;
            Some(i * 64 + bit)
        })
    })
}

/// Where one record goes: a set of streams, each with the headers to change on the way.
///
/// Empty means that the table drops the record on purpose.
#[derive(Clone, Copy)]
pub struct Destinations<'t> {
    table: &'t RouteTable,
    set: [u64; DESTINATION_WORDS],
    first: Option<usize>,
}

impl<'t> Destinations<'t> {
    /// The destinations, in the order in which the table first names them; no stream twice.
    pub fn iter(&self) -> impl Iterator<Item = &'t Destination> + use<'t> {
        let table = self.table;
        bits(self.set).map(move |index| &table.destinations[index])
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.set.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether the table drops the record.
    pub fn is_empty(&self) -> bool {
        self.set == [0; DESTINATION_WORDS]
    }

    /// The first rule that matched, from 1; `None` if the default applies.
    pub fn rule(&self) -> Option<usize> {
        self.first.map(|index| index + 1)
    }

    /// The names of the streams.
    pub fn streams(&self) -> impl Iterator<Item = &'t str> + use<'t> {
        self.iter().map(|destination| &*destination.stream)
    }
}

impl std::fmt::Debug for Destinations<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.streams()).finish()
    }
}
