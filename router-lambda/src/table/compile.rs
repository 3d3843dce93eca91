//! From rules as written to masks over rules, so that routing costs one look-up per header that counts.

use bytestring::ByteString;
use headworks_record::{Headers, headers};
use rustc_hash::FxHashMap;

use super::condition::Predicate;
use super::error::Error;
use super::schema::{Entries, Fallback, Mode, Names, Rule};
use super::{Destination, RouteTable, Transform};

/// The most rules of one table.
pub const MAX_RULES: usize = 1024;
/// The most distinct header names that the rules of one table look at.
pub const MAX_HEADER_NAMES: usize = 32;
/// The most distinct pairs of stream and transform in one table.
pub const MAX_DESTINATIONS: usize = 256;
/// The longest stream name, in characters (Kinesis API, `CreateStream`).
pub const MAX_STREAM_NAME: usize = 128;

pub(super) const RULE_WORDS: usize = MAX_RULES.div_ceil(64);
pub(super) const DESTINATION_WORDS: usize = MAX_DESTINATIONS.div_ceil(64);

/// A set of rules, one bit each.
pub(super) type Mask = Box<[u64]>;

/// A rule or default, with the line on which it begins.
#[derive(Debug)]
pub(super) struct Placed<T> {
    pub(super) line: usize,
    pub(super) item: T,
}

/// A parsed table that makes sense to a parser only.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) file: String,
    pub(super) mode: Mode,
    pub(super) rules: Vec<Placed<Rule>>,
    pub(super) default: Option<Placed<Fallback>>,
}

/// What happens to a record that a rule matches.
#[derive(Debug, Clone)]
pub(super) struct Action {
    pub(super) drop: bool,
    pub(super) destinations: [u64; DESTINATION_WORDS],
}

/// A rule as it is explained, and what it does.
#[derive(Debug)]
pub(super) struct CompiledRule {
    pub(super) name: Option<String>,
    pub(super) line: usize,
    /// Slot and condition.
    pub(super) conditions: Vec<(usize, Predicate)>,
    pub(super) action: Action,
}

/// One header that rules look at.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: Box<str>,
    /// Rules that do not look at it.
    pub(super) free: Mask,
    /// Rules that hold where it is absent, the free ones included.
    pub(super) absent: Mask,
    /// Rules that hold for exactly this value.
    pub(super) exact: FxHashMap<Box<str>, Mask>,
    /// Rules whose condition must be evaluated; equal conditions are evaluated once.
    pub(super) tests: Vec<(Predicate, Mask)>,
}

struct Place<'a> {
    file: &'a str,
    line: usize,
    what: String,
}

impl Place<'_> {
    fn invalid(&self, reason: impl Into<String>, remedy: impl Into<String>) -> Error {
        Error::Invalid {
            file: self.file.to_owned(),
            line: self.line,
            place: self.what.clone(),
            reason: reason.into(),
            remedy: remedy.into(),
        }
    }
}

fn rule_place<'a>(file: &'a str, number: usize, rule: &Placed<Rule>) -> Place<'a> {
    let what = match &rule.item.name {
        Some(name) => format!("rule {number} {name:?}"),
        None => format!("rule {number}"),
    };
    Place { file, line: rule.line, what }
}

pub(super) fn compile(draft: Draft) -> Result<RouteTable, Error> {
    let Draft { file, mode, rules: drafts, default } = draft;
    let whole = |line| Place { file: &file, line, what: "the table".to_owned() };
    if drafts.len() > MAX_RULES {
        return Err(whole(drafts[MAX_RULES].line).invalid(
            format!("it has {} rules, the limit is {MAX_RULES}", drafts.len()),
            "gather values that go to one place into one rule with one-of or glob",
        ));
    }
    let Some(default) = default else {
        return Err(whole(1).invalid(
            "it has no default, so records that no rule matches would have no place to go",
            "add [default] with to = [\"a-stream\"], or with drop = true if they are to be dropped",
        ));
    };

    let mut catalogue = Catalogue::default();
    let mut names: Vec<Box<str>> = Vec::new();
    let mut rules: Vec<CompiledRule> = Vec::with_capacity(drafts.len());
    let mut catch_all: Option<usize> = None;
    for (i, rule) in drafts.iter().enumerate() {
        let place = rule_place(&file, i + 1, rule);
        if let Some(earlier) = catch_all {
            return Err(place.invalid(
                format!("it is never reached, because rule {earlier} matches every record"),
                "move it up, or give the earlier rule a condition",
            ));
        }
        let mut conditions = Vec::new();
        for (name, condition) in &rule.item.when.0 {
            check_header(&place, "when", name, "")?;
            let predicate = Predicate::compile(condition)
                .map_err(|(reason, remedy)| place.invalid(format!("header {name:?}: {reason}"), remedy))?;
            let slot = names.iter().position(|n| **n == **name).unwrap_or(names.len());
            if slot == MAX_HEADER_NAMES {
                return Err(place.invalid(
                    format!(
                        "header {name:?} is one more than the {MAX_HEADER_NAMES} that a table may look at"
                    ),
                    "let producers set one header that says where records belong",
                ));
            }
            if slot == names.len() {
                names.push(name.as_str().into());
            }
            conditions.push((slot, predicate));
        }
        let Rule { to, drop, set, remove, .. } = &rule.item;
        let action = catalogue.action(&place, to, *drop, set, remove)?;
        if conditions.is_empty() && (mode == Mode::FirstMatch || action.drop) {
            catch_all = Some(i + 1);
        }
        let compiled = CompiledRule { name: rule.item.name.clone(), line: rule.line, conditions, action };
        if mode == Mode::AllMatches {
            for earlier in &rules {
                catalogue.check_conflict(&place, earlier, &compiled)?;
            }
        }
        rules.push(compiled);
    }
    let place = Place { file: &file, line: default.line, what: "[default]".to_owned() };
    let Fallback { to, drop, set, remove } = &default.item;
    let default = catalogue.action(&place, to, *drop, set, remove)?;

    let words = rules.len().div_ceil(64);
    let slots =
        names.into_iter().enumerate().map(|(slot, name)| build_slot(name, slot, &rules, words)).collect();
    let Catalogue { destinations, streams } = catalogue;
    Ok(RouteTable { mode, rules, default, slots, words, destinations, streams })
}

fn build_slot(name: Box<str>, index: usize, rules: &[CompiledRule], words: usize) -> Slot {
    let empty = || -> Mask { vec![0; words].into() };
    let mut slot =
        Slot { name, free: empty(), absent: empty(), exact: FxHashMap::default(), tests: Vec::new() };
    for (i, rule) in rules.iter().enumerate() {
        let Some((_, predicate)) = rule.conditions.iter().find(|(slot, _)| *slot == index) else {
            set_bit(&mut slot.free, i);
            set_bit(&mut slot.absent, i);
            continue;
        };
        if predicate.holds(None) {
            set_bit(&mut slot.absent, i);
        }
        if let Some(values) = predicate.exact_values() {
            for value in values {
                set_bit(slot.exact.entry(value.into()).or_insert_with(empty), i);
            }
        } else if let Some((_, mask)) = slot.tests.iter_mut().find(|(test, _)| test == predicate) {
            set_bit(mask, i);
        } else {
            let mut mask = empty();
            set_bit(&mut mask, i);
            slot.tests.push((predicate.clone(), mask));
        }
    }
    slot
}

fn set_bit(mask: &mut [u64], bit: usize) {
    mask[bit / 64] |= 1 << (bit % 64);
}

/// The destinations and streams named so far.
#[derive(Debug, Default)]
struct Catalogue {
    destinations: Vec<Destination>,
    streams: Vec<ByteString>,
}

impl Catalogue {
    fn action(
        &mut self,
        place: &Place<'_>,
        to: &Names,
        drop: bool,
        set: &Entries<String>,
        remove: &Names,
    ) -> Result<Action, Error> {
        let mut action = Action { drop, destinations: [0; DESTINATION_WORDS] };
        let transforms = !set.0.is_empty() || !remove.0.is_empty();
        if drop && (transforms || !to.0.is_empty()) {
            return Err(place.invalid(
                "it drops the record, and yet says what to do with it",
                "remove drop = true, or remove to, set and remove",
            ));
        }
        if !drop && to.0.is_empty() {
            return Err(place.invalid("it names no destination", "add to = [\"a-stream\"], or drop = true"));
        }
        let transform = transform(place, set, remove)?;
        for (i, stream) in to.0.iter().enumerate() {
            check_stream(place, stream)?;
            if to.0[..i].contains(stream) {
                return Err(place.invalid(
                    format!("it names stream {stream:?} twice; a record is put at most once on a stream"),
                    "name it once",
                ));
            }
            let known = |d: &Destination| &*d.stream == stream.as_str() && d.transform == transform;
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
                    });
                    self.destinations.len() - 1
                }
            };
            set_bit(&mut action.destinations, index);
        }
        Ok(action)
    }

    fn stream(&mut self, name: &str) -> usize {
        self.streams.iter().position(|stream| &**stream == name).unwrap_or_else(|| {
            self.streams.push(name.into());
            self.streams.len() - 1
        })
    }

    /// Destinations are a set: one record goes to one stream in one form, or the table is refused.
    fn check_conflict(
        &self,
        place: &Place<'_>,
        earlier: &CompiledRule,
        later: &CompiledRule,
    ) -> Result<(), Error> {
        let of = |rule: &CompiledRule| super::route::bits(rule.action.destinations);
        let conflict = of(later).find_map(|a| {
            let a = &self.destinations[a];
            of(earlier)
                .map(|b| &self.destinations[b])
                .find(|b| a.stream_index == b.stream_index && a.transform != b.transform)
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
                "it and the rule on line {} may match the same record and would put it on stream {:?} with different headers",
                earlier.line, &*conflict.stream
            ),
            "give both the same set and remove, make their conditions exclude each other, or use mode = \"first-match\"",
        ))
    }
}

fn transform(place: &Place<'_>, set: &Entries<String>, remove: &Names) -> Result<Transform, Error> {
    for (name, value) in &set.0 {
        check_header(place, "set", name, value)?;
    }
    for (i, name) in remove.0.iter().enumerate() {
        check_header(place, "remove", name, "")?;
        if set.0.iter().any(|(n, _)| n == name) {
            return Err(place.invalid(
                format!("header {name:?} is both set and removed"),
                "keep it in set alone: set replaces what is there",
            ));
        }
        if remove.0[..i].contains(name) {
            return Err(place.invalid(format!("header {name:?} is removed twice"), "name it once"));
        }
    }
    // Sorted, so that the order in which headers are written down makes no difference between rules.
    let mut set: Vec<(ByteString, ByteString)> =
        set.0.iter().map(|(n, v)| (n.as_str().into(), v.as_str().into())).collect();
    set.sort();
    let mut remove: Vec<ByteString> = remove.0.iter().map(|n| n.as_str().into()).collect();
    remove.sort();
    Ok(Transform { set, remove })
}

fn check_header(place: &Place<'_>, key: &str, name: &str, value: &str) -> Result<(), Error> {
    Headers::new().set(name, value).map_err(|error| {
        let remedy = match error {
            headers::Error::Reserved { .. } => "rules see and change the headers of producers only",
            _ => "correct it",
        };
        place.invalid(format!("{key}: {error}"), remedy)
    })
}

fn check_stream(place: &Place<'_>, name: &str) -> Result<(), Error> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if name.is_empty() || name.len() > MAX_STREAM_NAME || !name.bytes().all(allowed) {
        return Err(place.invalid(
            format!("{name:?} is no stream name"),
            format!("use 1 to {MAX_STREAM_NAME} letters, digits, and _ . -"),
        ));
    }
    Ok(())
}
