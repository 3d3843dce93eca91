//! Why a record goes where it goes.

use std::fmt;

use bytestring::ByteString;
use headworks_record::Headers;
use serde::Serialize;

use super::RouteTable;
use super::duration;
use super::route::{place_of, route_subject};
use super::schema::Mode;
use super::subject::Subject;

/// Which rules were tried on a record, which matched, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The table's mode.
    pub mode: Mode,
    /// The rules in order.
    pub rules: Vec<Step>,
    /// Whether no rule matched, so that the default applies.
    pub default: bool,
    /// Whether the record goes nowhere.
    pub dropped: bool,
    /// What sends the record to the dead letters, if something does: a rule, or the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<String>,
    /// Where the record goes.
    pub destinations: Vec<Place>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Its number, from 1.
    pub rule: usize,
    /// Its name.
    pub name: Option<String>,
    /// The line on which it begins.
    pub line: usize,
    /// Whether it matched.
    pub verdict: Verdict,
    /// Its conditions; none means that it matches every record of its sample.
    pub conditions: Vec<Condition>,
    /// The expression that must hold as well, if the rule has one and was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expression: Option<Expression>,
    /// The share of the records that it is for; `None` means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<Sample>,
}

/// An expression over a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Expression {
    /// As it is written down.
    pub source: String,
    /// Whether it holds.
    pub holds: bool,
    /// Why it has no truth value, if it has none: it then does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unclear: Option<String>,
}

/// A share of all records, by identity.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// The share, from 0 to 1.
    pub share: f64,
    /// Where the record lies, from 0 to 1; `None` if it has no creation context.
    pub place: Option<f64>,
    /// Whether the record is in the share.
    pub holds: bool,
}

/// Whether a rule matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Verdict {
    /// Every condition holds.
    Matched,
    /// A condition does not hold.
    NotMatched,
    /// A rule before it had settled the matter.
    NotTried,
}

/// One condition of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// The header.
    pub header: String,
    /// What it must be.
    pub expected: String,
    /// What it is.
    pub actual: Option<String>,
    /// Whether the condition holds.
    pub holds: bool,
}

/// One destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The stream.
    pub stream: String,
    /// Headers that are set on the way.
    pub set: Vec<(String, String)>,
    /// Headers that are removed on the way.
    pub remove: Vec<String>,
    /// Headers that are renamed on the way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rename: Vec<(String, String)>,
    /// How the payload is changed on the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Fields>,
    /// The DynamoDB table that more headers come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enrich: Option<String>,
    /// After which time the record goes to the dead letters if the stream has no room for it or does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spill_after: Option<String>,
}

/// Changes to a payload; fields by JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fields {
    /// The only fields that stay, if there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<String>,
    /// Fields that go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
    /// Fields with their new names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rename: Vec<(String, String)>,
}

/// Explains what [`route`](super::route()) does with these headers.
pub fn explain(headers: &Headers, table: &RouteTable) -> Explanation {
    explain_subject(&Subject::headers(headers), table)
}

/// Explains what [`route_subject`] does with a record.
pub fn explain_subject(subject: &Subject<'_>, table: &RouteTable) -> Explanation {
    let headers = subject.headers;
    let values = table.values(headers.iter());
    let mut settled = false;
    let mut matched = false;
    let rules = table
        .rules
        .iter()
        .enumerate()
        .map(|(i, rule)| {
            let conditions: Vec<Condition> = rule
                .conditions
                .iter()
                .map(|(slot, predicate)| Condition {
                    header: table.slots[*slot].name.to_string(),
                    expected: predicate.to_string(),
                    actual: values[*slot].map(str::to_owned),
                    holds: predicate.holds(values[*slot]),
                })
                .collect();
            let sample = rule.sample.map(|sample| {
                let place = headers.creation().map(place_of);
                Sample {
                    share: sample.share,
                    place: place.map(|place| place as f64 / 2f64.powi(64)),
                    holds: place.is_some_and(|place| place < sample.below),
                }
            });
            let sampled = sample.as_ref().is_none_or(|sample| sample.holds);
            let candidate = !settled && sampled && conditions.iter().all(|condition| condition.holds);
            let expression = rule.expr.as_ref().filter(|_| candidate).map(|expr| {
                let value = expr.holds(subject);
                Expression {
                    source: expr.source().to_owned(),
                    holds: value == Ok(true),
                    unclear: value.err(),
                }
            });
            let verdict = if settled {
                Verdict::NotTried
            } else if candidate && expression.as_ref().is_none_or(|expression| expression.holds) {
                matched = true;
                settled = rule.action.ends() || table.mode == Mode::FirstMatch;
                Verdict::Matched
            } else {
                Verdict::NotMatched
            };
            let (rule, name, line) = (i + 1, rule.name.clone(), rule.line);
            Step { rule, name, line, verdict, conditions, expression, sample }
        })
        .collect();
    let destinations = route_subject(subject, table);
    Explanation {
        mode: table.mode,
        rules,
        default: !matched,
        dropped: destinations.is_dropped(),
        dead_letter: destinations.dead_letter(),
        destinations: destinations
            .iter()
            .map(|destination| {
                let transform = &destination.transform;
                let pairs = |pairs: &[(ByteString, ByteString)]| -> Vec<(String, String)> {
                    pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
                };
                Place {
                    stream: destination.stream.to_string(),
                    set: pairs(&transform.set),
                    remove: transform.remove.iter().map(ToString::to_string).collect(),
                    rename: pairs(&transform.rename),
                    payload: transform.payload.as_ref().map(|payload| Fields {
                        keep: payload.keep.clone(),
                        drop: payload.drop.clone(),
                        rename: payload.rename.clone(),
                    }),
                    enrich: destination.lookup.map(|index| {
                        let lookup = &table.lookups[index];
                        format!("{} by {}", lookup.table, lookup.key_from())
                    }),
                    spill_after: destination.spill_after.map(duration::show),
                }
            })
            .collect(),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.rules {
            let verdict = match step.verdict {
                Verdict::Matched => "matched",
                Verdict::NotMatched => "did not match",
                Verdict::NotTried => "was not tried: a rule before it decided",
            };
            write!(f, "rule {}", step.rule)?;
            if let Some(name) = &step.name {
                write!(f, " {name:?}")?;
            }
            writeln!(f, " (line {}) {verdict}", step.line)?;
            if step.verdict == Verdict::NotTried {
                continue;
            }
            if let Some(sample) = &step.sample {
                let mark = if sample.holds { "yes" } else { "no " };
                write!(f, "    {mark} in the share of {} by identity; ", sample.share)?;
                match sample.place {
                    Some(place) => writeln!(f, "it lies at {place:.6}")?,
                    None => writeln!(f, "it has no creation context")?,
                }
            }
            if let Some(Expression { source, holds, unclear }) = &step.expression {
                let mark = if *holds { "yes" } else { "no " };
                write!(f, "    {mark} {source}")?;
                match unclear {
                    Some(why) => writeln!(f, "; it has no truth value: {why}")?,
                    None => writeln!(f)?,
                }
            }
            if step.conditions.is_empty() && step.expression.is_none() && step.sample.is_none() {
                writeln!(f, "    it has no conditions")?;
            }
            for condition in &step.conditions {
                let mark = if condition.holds { "yes" } else { "no " };
                write!(f, "    {mark} {} {}; it is ", condition.header, condition.expected)?;
                match &condition.actual {
                    Some(value) => writeln!(f, "{value:?}")?,
                    None => writeln!(f, "absent")?,
                }
            }
        }
        if self.default {
            writeln!(f, "no rule matched: the default applies")?;
        }
        if self.dropped {
            return f.write_str("dropped");
        }
        if let Some(by) = &self.dead_letter {
            write!(f, "to the dead letters, by {by}")?;
            if !self.destinations.is_empty() {
                writeln!(f)?;
            }
        }
        for (i, place) in self.destinations.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "-> {}", place.stream)?;
            for (name, value) in &place.set {
                write!(f, ", set {name} = {value:?}")?;
            }
            for name in &place.remove {
                write!(f, ", remove {name}")?;
            }
            for (from, to) in &place.rename {
                write!(f, ", rename {from} to {to}")?;
            }
            if let Some(Fields { keep, drop, rename }) = &place.payload {
                for (what, fields) in [("keep", keep), ("drop", drop)] {
                    if !fields.is_empty() {
                        write!(f, ", of the payload {what} {}", fields.join(" "))?;
                    }
                }
                for (from, to) in rename {
                    write!(f, ", of the payload rename {from} to {to:?}")?;
                }
            }
            if let Some(lookup) = &place.enrich {
                write!(f, ", headers from the table {lookup}")?;
            }
            if let Some(after) = &place.spill_after {
                write!(f, ", to the dead letters if the stream has no room or does not answer for {after}")?;
            }
        }
        Ok(())
    }
}
