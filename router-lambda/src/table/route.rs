//! The pure function: headers and a table to destinations.

use headworks_record::{Creation, Headers, headers};

use super::compile::{DESTINATION_WORDS, MAX_HEADER_NAMES, RULE_WORDS};
use super::schema::Mode;
use super::subject::Subject;
use super::{Destination, RouteTable, json};

/// Where a record with these headers goes. Allocates nothing, unless an expression must be evaluated.
///
/// Of a header that stands several times, the first one counts. The creation context decides whether the
/// record is in a rule's sample; without one it is in none. To expressions the key is empty and the payload null.
pub fn route<'t>(headers: &Headers, table: &'t RouteTable) -> Destinations<'t> {
    route_subject(&Subject::headers(headers), table)
}

/// Where a record goes, expressions over its key and payload included.
pub fn route_subject<'t>(subject: &Subject<'_>, table: &'t RouteTable) -> Destinations<'t> {
    let values = table.values(subject.headers.iter());
    table.route_values(&values, subject.headers.creation(), subject)
}

/// Where an identity lies among all that there can be. The same for every rule, table and version of
/// this program, so a smaller share is part of a larger one, and a record that comes again is in the same.
pub(super) fn place_of(creation: &Creation) -> u64 {
    // Trace ids begin with a time or were chosen by others: only mixed they are spread evenly. The
    // constants are those of SplitMix64.
    let ids = creation.trace_id.0.iter().chain(&creation.span_id.0);
    let mut words = [0u64; 3];
    ids.enumerate().for_each(|(i, byte)| words[i / 8] = words[i / 8] << 8 | u64::from(*byte));
    words.into_iter().fold(0, |state: u64, word| {
        let mut mixed = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

/// The values of the headers that a table looks at, by slot.
pub(super) type Values<'h> = [Option<&'h str>; MAX_HEADER_NAMES];

impl RouteTable {
    /// The place of a header among those that the table looks at.
    pub(super) fn slot_of(&self, name: &[u8]) -> Option<usize> {
        self.slots.iter().position(|slot| slot.name.as_bytes() == name)
    }

    pub(super) fn values<'h>(&self, pairs: impl Iterator<Item = (&'h str, &'h str)>) -> Values<'h> {
        let mut values: Values<'h> = [None; MAX_HEADER_NAMES];
        let mut missing = self.slots.len();
        for (name, value) in pairs {
            if missing == 0 {
                break;
            }
            if let Some(slot) = self.slot_of(name.as_bytes())
                && values[slot].is_none()
            {
                values[slot] = Some(value);
                missing -= 1;
            }
        }
        values
    }

    /// Where a record goes whose headers have these values, by slot.
    pub(super) fn route_values(
        &self,
        values: &[Option<&str>],
        creation: Option<&Creation>,
        subject: &Subject<'_>,
    ) -> Destinations<'_> {
        let mut matching = [0u64; RULE_WORDS];
        self.matching(values, &mut matching);
        self.sample(creation, &mut matching);
        self.apply(&matching, subject)
    }

    /// Which rules match: per header the rules that its value satisfies, intersected over the headers.
    fn matching(&self, values: &[Option<&str>], out: &mut [u64; RULE_WORDS]) {
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

    /// Leaves out the rules whose sample the record is not in.
    fn sample(&self, creation: Option<&Creation>, out: &mut [u64; RULE_WORDS]) {
        if self.samples.is_empty() {
            return;
        }
        let place = creation.map(place_of);
        for (below, mask) in &self.samples {
            if place.is_none_or(|place| place >= *below) {
                out.iter_mut().zip(mask).for_each(|(out, word)| *out &= !word);
            }
        }
    }

    fn apply(&self, matching: &[u64; RULE_WORDS], subject: &Subject<'_>) -> Destinations<'_> {
        let mut set = [0; DESTINATION_WORDS];
        let mut first = None;
        let mut buried = None;
        for index in bits(*matching) {
            let rule = &self.rules[index];
            if rule.expr.as_ref().is_some_and(|expr| !expr.holds(subject).unwrap_or(false)) {
                continue;
            }
            first = first.or(Some(index));
            unite(&mut set, &rule.action.destinations);
            if rule.action.dead_letter {
                buried = Some(Some(index));
            }
            if rule.action.ends() || self.mode == Mode::FirstMatch {
                break;
            }
        }
        if first.is_none() {
            set = self.default.destinations;
            if self.default.dead_letter {
                buried = Some(None);
            }
        }
        Destinations { table: self, set, first, buried }
    }

    /// Adds the headers that the table derives from the payload and that the record does not have. Nothing is
    /// derived from what is not JSON, nor from null, objects and arrays. Refused if the record would then
    /// exceed the limits of headers.
    pub fn derive(&self, headers: &mut Headers, data: &[u8]) -> Result<(), headers::Error> {
        if self.derive.iter().all(|derived| headers.get(&derived.header).is_some()) {
            return Ok(());
        }
        // Looked at first, as it is cheap: a pointer leads into objects and arrays only.
        let begins = data.iter().find(|byte| !byte.is_ascii_whitespace());
        if !matches!(begins, Some(b'{' | b'[')) {
            return Ok(());
        }
        let Some(text) = json::valid(data) else { return Ok(()) };
        for derived in &self.derive {
            if headers.get(&derived.header).is_none()
                && let Some(value) = json::find(text, &derived.pointer).and_then(json::scalar)
            {
                headers.set(derived.header.clone(), value)?;
            }
        }
        Ok(())
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
/// Empty means that the table drops the record on purpose, or sends it to the dead letters.
#[derive(Clone, Copy)]
pub struct Destinations<'t> {
    table: &'t RouteTable,
    set: [u64; DESTINATION_WORDS],
    first: Option<usize>,
    /// The rule that sends it to the dead letters; within, `None` is the default.
    buried: Option<Option<usize>>,
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

    /// Whether the table drops the record, on purpose and for good.
    pub fn is_dropped(&self) -> bool {
        self.is_empty() && self.buried.is_none()
    }

    /// What sends the record to the dead letters, if the table does: `rule 3 "name"` or `the default`.
    pub fn dead_letter(&self) -> Option<String> {
        self.buried.map(|rule| match rule {
            None => "the default".to_owned(),
            Some(index) => match self.table.rules.get(index).and_then(|rule| rule.name.as_deref()) {
                Some(name) => format!("rule {} {name:?}", index + 1),
                None => format!("rule {}", index + 1),
            },
        })
    }

    /// Whether the record goes to no stream.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_an_identity_never_changes() {
        let mut random = [0; 18];
        random[17] = 1;
        let creation = Creation::mint(1_790_000_000_000, random);
        assert_eq!(place_of(&creation), PINNED);
        let other = Creation { flags: 1, created_ms: 1, ..creation };
        assert_eq!(place_of(&other), PINNED, "the ids alone count");
    }

    /// Whoever changes this changes which records are in every sample.
    const PINNED: u64 = 16_362_089_635_308_260_560;
}
