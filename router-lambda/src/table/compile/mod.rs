//! From rules as written to masks over rules, so that routing costs one look-up per header that counts.

mod catalogue;
mod parts;
mod place;
mod transform;

use headworks_record::headers::MAX_HEADERS;

use self::catalogue::Catalogue;
use self::parts::set_bit;
pub(super) use self::parts::{Action, CompiledRule, Derived, Sample, Slot};
use self::place::{Place, check_header, rule_place};
use super::condition::Predicate;
use super::error::Error;
use super::expr::{Expr, MAX_EXPRS};
use super::schema::{Entries, Fallback, Mode, Rule};
use super::{RouteTable, json};

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
    pub(super) fingerprint: String,
    pub(super) mode: Mode,
    pub(super) derive: Option<Placed<Entries<String>>>,
    pub(super) rules: Vec<Placed<Rule>>,
    pub(super) default: Option<Placed<Fallback>>,
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
        names.into_iter().enumerate().map(|(slot, name)| Slot::build(name, slot, &rules, words)).collect();
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
