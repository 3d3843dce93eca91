//! From rules as written to masks over rules, so that routing costs one look-up per header that counts.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use headworks_record::headers::MAX_HEADERS;
use headworks_record::{Headers, headers};
use rustc_hash::FxHashMap;

use super::condition::Predicate;
use super::enrich::{Enrich, MAX_LOOKUPS, Written};
use super::error::Error;
use super::expr::{Expr, MAX_EXPRS};
use super::schema::{Does, Entries, Fallback, Mode, Rule};
use super::transform::{Payload, Transform};
use super::{Destination, RouteTable, duration, json};

/// The most rules of one table.
pub const MAX_RULES: usize = 1024;
/// The most distinct header names that the rules of one table look at.
pub const MAX_HEADER_NAMES: usize = 32;
/// The most distinct pairs of stream and transform in one table.
pub const MAX_DESTINATIONS: usize = 256;
/// The longest stream name, in characters (Kinesis API, `CreateStream`).
pub const MAX_STREAM_NAME: usize = 128;

/// The shortest and the longest time after which records may spill into the dead letters. The longest is that
/// for which Kinesis keeps records.
const MIN_SPILL: Duration = Duration::from_secs(1);
const MAX_SPILL: Duration = Duration::from_secs(365 * 86_400);

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
    pub(super) fingerprint: String,
    pub(super) mode: Mode,
    pub(super) derive: Option<Placed<Entries<String>>>,
    pub(super) rules: Vec<Placed<Rule>>,
    pub(super) default: Option<Placed<Fallback>>,
}

/// What happens to a record that a rule matches.
#[derive(Debug, Clone)]
pub(super) struct Action {
    pub(super) drop: bool,
    pub(super) dead_letter: bool,
    pub(super) destinations: [u64; DESTINATION_WORDS],
}

impl Action {
    /// Whether no later rule is tried, even if all that match apply.
    pub(super) fn ends(&self) -> bool {
        self.drop || self.dead_letter
    }
}

/// A share of all records, by identity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    pub(super) share: f64,
    /// Identities that lie below it are in the share.
    pub(super) below: u64,
}

/// A header that is read from the payload.
#[derive(Debug)]
pub(super) struct Derived {
    pub(super) header: ByteString,
    pub(super) pointer: Box<[Box<str>]>,
}

/// A rule as it is explained, and what it does.
#[derive(Debug)]
pub(super) struct CompiledRule {
    pub(super) name: Option<String>,
    pub(super) line: usize,
    /// Slot and condition.
    pub(super) conditions: Vec<(usize, Predicate)>,
    /// What must hold as well; looked at last, as it costs most.
    pub(super) expr: Option<Expr>,
    /// `None`: every record.
    pub(super) sample: Option<Sample>,
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
    let Draft { file, fingerprint, mode, derive, rules: drafts, default } = draft;
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

    let derive = derive.map_or(Ok(Vec::new()), |derive| {
        derived(&Place { file: &file, line: derive.line, what: "[derive]".to_owned() }, &derive.item)
    })?;
    let mut catalogue = Catalogue::default();
    let mut names: Vec<Box<str>> = Vec::new();
    let mut rules: Vec<CompiledRule> = Vec::with_capacity(drafts.len());
    let mut catch_all: Option<usize> = None;
    let mut exprs = 0;
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
        let expr = rule.item.expr.as_deref().map(Expr::compile).transpose();
        let expr = expr.map_err(|(reason, remedy)| place.invalid(reason, remedy))?;
        exprs += usize::from(expr.is_some());
        if exprs > MAX_EXPRS {
            return Err(place.invalid(
                format!("its expression is one more than the {MAX_EXPRS} that a table may have"),
                "use conditions where they suffice: they cost next to nothing",
            ));
        }
        let sample = sample(&place, rule.item.sample)?;
        let action = catalogue.action(&place, rule.item.does())?;
        let always = conditions.is_empty() && expr.is_none() && sample.is_none();
        if always && (mode == Mode::FirstMatch || action.ends()) {
            catch_all = Some(i + 1);
        }
        let name = rule.item.name.clone();
        let compiled = CompiledRule { name, line: rule.line, conditions, expr, sample, action };
        if mode == Mode::AllMatches {
            for earlier in &rules {
                catalogue.check_conflict(&place, earlier, &compiled)?;
            }
        }
        rules.push(compiled);
    }
    let place = Place { file: &file, line: default.line, what: "[default]".to_owned() };
    let default = catalogue.action(&place, default.item.does())?;

    let words = rules.len().div_ceil(64);
    let slots =
        names.into_iter().enumerate().map(|(slot, name)| build_slot(name, slot, &rules, words)).collect();
    let mut samples: Vec<(u64, Mask)> = Vec::new();
    for (i, rule) in rules.iter().enumerate() {
        let Some(Sample { below, .. }) = rule.sample else { continue };
        let place = samples.iter().position(|(other, _)| *other == below).unwrap_or_else(|| {
            samples.push((below, vec![0; words].into()));
            samples.len() - 1
        });
        set_bit(&mut samples[place].1, i);
    }
    let Catalogue { destinations, streams, lookups } = catalogue;
    Ok(RouteTable {
        fingerprint,
        mode,
        derive,
        rules,
        default,
        slots,
        samples,
        words,
        destinations,
        streams,
        lookups,
    })
}

fn sample(place: &Place<'_>, share: Option<f64>) -> Result<Option<Sample>, Error> {
    let Some(share) = share else { return Ok(None) };
    if !(share > 0.0 && share <= 1.0) {
        return Err(place.invalid(
            format!("sample = {share} is no share of the records"),
            "give a number above 0 and up to 1, for example 0.01 for one in a hundred",
        ));
    }
    // The largest product below 2^64 is exact to 53 bits; all records are no sample.
    Ok((share < 1.0).then(|| Sample { share, below: (share * 2f64.powi(64)) as u64 }))
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

fn derived(place: &Place<'_>, derive: &Entries<String>) -> Result<Vec<Derived>, Error> {
    if derive.0.len() > MAX_HEADERS {
        return Err(place.invalid(
            format!("it names {} headers, and a record has at most {MAX_HEADERS}", derive.0.len()),
            "derive those that rules look at",
        ));
    }
    let one = |(name, pointer): &(String, String)| {
        check_header(place, "derive", name, "")?;
        let tokens = json::pointer(pointer).map_err(|why| {
            place.invalid(
                format!("header {name:?}: the JSON pointer {pointer:?} {why}"),
                "write it as in \"/event/type\", with ~1 for / and ~0 for ~ in a name",
            )
        })?;
        Ok(Derived { header: name.as_str().into(), pointer: tokens })
    };
    let mut derived = derive.0.iter().map(one).collect::<Result<Vec<_>, _>>()?;
    // TOML parsers do not keep the order of keys: in both formats the same one.
    derived.sort_by(|a, b| a.header.cmp(&b.header));
    Ok(derived)
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
    lookups: Vec<Enrich>,
}

impl Catalogue {
    fn action(&mut self, place: &Place<'_>, does: Does<'_>) -> Result<Action, Error> {
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
    fn check_conflict(
        &self,
        place: &Place<'_>,
        earlier: &CompiledRule,
        later: &CompiledRule,
    ) -> Result<(), Error> {
        let of = |rule: &CompiledRule| super::route::bits(rule.action.destinations);
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

fn transform(place: &Place<'_>, does: Does<'_>) -> Result<Transform, Error> {
    let Does { set, remove, rename, .. } = does;
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
    for (i, (from, to)) in rename.0.iter().enumerate() {
        for name in [from, to] {
            check_header(place, "rename", name, "")?;
            if set.0.iter().any(|(n, _)| n == name) || remove.0.contains(name) {
                return Err(place.invalid(
                    format!("header {name:?} is renamed or renamed to, and set or removed as well"),
                    "keep one of them: a renamed header replaces one that has its new name",
                ));
            }
        }
        if from == to {
            return Err(place.invalid(
                format!("header {from:?} is renamed to the name that it has"),
                "remove that, or correct one of the names",
            ));
        }
        if rename.0[..i].iter().any(|(_, other)| other == to) {
            return Err(
                place.invalid(format!("two headers are renamed to {to:?}"), "give each a name of its own")
            );
        }
    }
    let payload = does
        .payload
        .map(|fields| Payload::compile(&fields.keep.0, &fields.drop.0, &fields.rename.0))
        .transpose()
        .map_err(|(reason, remedy)| place.invalid(format!("payload: {reason}"), remedy))?;
    // Sorted, so that the order in which headers are written down makes no difference between rules.
    let sorted = |entries: &Entries<String>| {
        let mut pairs: Vec<(ByteString, ByteString)> =
            entries.0.iter().map(|(a, b)| (a.as_str().into(), b.as_str().into())).collect();
        pairs.sort();
        pairs
    };
    let mut remove: Vec<ByteString> = remove.0.iter().map(|n| n.as_str().into()).collect();
    remove.sort();
    Ok(Transform { set: sorted(set), remove, rename: sorted(rename), payload: payload.map(Arc::new) })
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
