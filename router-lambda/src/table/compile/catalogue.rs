//! The destinations, streams and look-ups that rules name, each once.

use std::time::Duration;

use bytestring::ByteString;

use super::parts::{Action, CompiledRule, set_bit};
use super::place::{Place, check_stream};
use super::transform::transform;
use super::{DESTINATION_WORDS, MAX_DESTINATIONS};
use crate::table::enrich::{Enrich, MAX_LOOKUPS, Written};
use crate::table::error::Error;
use crate::table::schema::Does;
use crate::table::{Destination, duration, route};

/// The shortest and the longest time after which records may spill into the dead letters. The longest is that
/// for which Kinesis keeps records.
const MIN_SPILL: Duration = Duration::from_secs(1);
const MAX_SPILL: Duration = Duration::from_secs(365 * 86_400);

/// The destinations and streams named so far.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    pub(super) destinations: Vec<Destination>,
    pub(super) streams: Vec<ByteString>,
    pub(super) lookups: Vec<Enrich>,
}

impl Catalogue {
    pub(super) fn action(&mut self, place: &Place<'_>, does: Does<'_>) -> Result<Action, Error> {
        let Does { to, drop, dead_letter, .. } = does;
        let mut action = Action { drop, dead_letter, destinations: [0; DESTINATION_WORDS] };
        let transform = transform(place, does)?;
        let beside = does.enrich.is_some() || does.spill_after.is_some();
        if action.ends() && (drop && dead_letter || !transform.is_identity() || beside || !to.0.is_empty()) {
            let key = if drop { "drop" } else { "dead-letter" };
            let what = if drop { "drops the record" } else { "sends the record to the dead letters" };
            return Err(place.invalid(
                format!("it {what}, and yet says what else to do with it"),
                format!("remove {key} = true, or everything else but when, expr and sample"),
            ));
        }
        if !action.ends() && to.0.is_empty() {
            return Err(place.invalid(
                "it names no destination",
                "add to = [\"a-stream\"], or drop = true, or dead-letter = true",
            ));
        }
        let spill_after = spill_after(place, does.spill_after)?;
        let lookup = does.enrich.map(|written| self.lookup(place, written)).transpose()?;
        for (i, stream) in to.0.iter().enumerate() {
            check_stream(place, stream)?;
            if to.0[..i].contains(stream) {
                return Err(place.invalid(
                    format!("it names stream {stream:?} twice; a record is put at most once on a stream"),
                    "name it once",
                ));
            }
            let known = |d: &Destination| {
                &*d.stream == stream.as_str()
                    && (&d.transform, d.lookup, d.spill_after) == (&transform, lookup, spill_after)
            };
            let index = match self.destinations.iter().position(known) {
                Some(index) => index,
                None if self.destinations.len() == MAX_DESTINATIONS => {
                    return Err(place.invalid(
                        format!("stream {stream:?} is one more than the {MAX_DESTINATIONS} destinations of a table"),
                        "route in two steps, through a stream that a second router reads",
                    ));
                }
                None => {
                    let stream_index = self.stream(stream);
                    self.destinations.push(Destination {
                        stream: self.streams[stream_index].clone(),
                        stream_index,
                        transform: transform.clone(),
                        lookup,
                        spill_after,
                    });
                    self.destinations.len() - 1
                }
            };
            set_bit(&mut action.destinations, index);
        }
        Ok(action)
    }

    fn lookup(&mut self, place: &Place<'_>, written: &Written) -> Result<usize, Error> {
        let lookup = written.compile().map_err(|(reason, remedy)| place.invalid(reason, remedy))?;
        if let Some(index) = self.lookups.iter().position(|known| *known == lookup) {
            return Ok(index);
        }
        if self.lookups.len() == MAX_LOOKUPS {
            return Err(place.invalid(
                format!("enrich: it is one more than the {MAX_LOOKUPS} look-ups that a table may have"),
                "let rules share their look-ups: equal ones count once",
            ));
        }
        self.lookups.push(lookup);
        Ok(self.lookups.len() - 1)
    }

    fn stream(&mut self, name: &str) -> usize {
        self.streams.iter().position(|stream| &**stream == name).unwrap_or_else(|| {
            self.streams.push(name.into());
            self.streams.len() - 1
        })
    }

    /// Destinations are a set: one record goes to one stream in one form, or the table is refused.
    pub(super) fn check_conflict(
        &self,
        place: &Place<'_>,
        earlier: &CompiledRule,
        later: &CompiledRule,
    ) -> Result<(), Error> {
        let of = |rule: &CompiledRule| route::bits(rule.action.destinations);
        let conflict = of(later).find_map(|a| {
            let a = &self.destinations[a];
            // Equal destinations are kept once: two with one stream differ in something.
            of(earlier).map(|b| &self.destinations[b]).find(|b| a.stream_index == b.stream_index && a != *b)
        });
        let Some(conflict) = conflict else { return Ok(()) };
        let disjoint = earlier
            .conditions
            .iter()
            .any(|(slot, a)| later.conditions.iter().any(|(other, b)| slot == other && a.excludes(b)));
        if disjoint {
            return Ok(());
        }
        Err(place.invalid(
            format!(
                "it and the rule on line {} may match the same record and would put it on stream {:?} in different forms",
                earlier.line, &*conflict.stream
            ),
            "give both the same set, remove, rename, payload, enrich and spill-after, make their conditions exclude each other, or use mode = \"first-match\"",
        ))
    }
}

fn spill_after(place: &Place<'_>, written: Option<&str>) -> Result<Option<Duration>, Error> {
    let Some(text) = written else { return Ok(None) };
    match duration::parse(text).filter(|given| (MIN_SPILL..=MAX_SPILL).contains(given)) {
        Some(given) => Ok(Some(given)),
        None => Err(place.invalid(
            format!("spill-after is {text:?}"),
            format!(
                "give from {} to {}, for example \"5m\"; without it, a record waits for its destination",
                duration::show(MIN_SPILL),
                duration::show(MAX_SPILL)
            ),
        )),
    }
}
