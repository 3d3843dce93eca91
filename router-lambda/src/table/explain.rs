//! Why a record goes where it goes.

use std::fmt;

use headworks_record::Headers;
use serde::Serialize;

use super::RouteTable;
use super::route::route;
use super::schema::Mode;

/// Which rules were tried on a record, which matched, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The table's mode.
    pub mode: Mode,
    /// The rules in order.
    pub rules: Vec<Step>,
    /// Whether no rule matched, so that the default applies.
    pub default: bool,
    /// Whether the record goes nowhere.
    pub dropped: bool,
    /// Where the record goes.
    pub destinations: Vec<Place>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its number, from 1.
    pub rule: usize,
    /// Its name.
    pub name: Option<String>,
    /// The line on which it begins.
    pub line: usize,
    /// Whether it matched.
    pub verdict: Verdict,
    /// Its conditions; none means that it matches every record.
    pub conditions: Vec<Condition>,
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
}

/// Explains what [`route`] does with these headers.
pub fn explain(headers: &Headers, table: &RouteTable) -> Explanation {
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
            let verdict = if settled {
                Verdict::NotTried
            } else if conditions.iter().all(|condition| condition.holds) {
                matched = true;
                settled = rule.action.drop || table.mode == Mode::FirstMatch;
                Verdict::Matched
            } else {
                Verdict::NotMatched
            };
            Step { rule: i + 1, name: rule.name.clone(), line: rule.line, verdict, conditions }
        })
        .collect();
    let destinations = route(headers, table);
    Explanation {
        mode: table.mode,
        rules,
        default: !matched,
        dropped: destinations.is_empty(),
        destinations: destinations
            .iter()
            .map(|destination| Place {
                stream: destination.stream.to_string(),
                set: destination.transform.set.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect(),
                remove: destination.transform.remove.iter().map(ToString::to_string).collect(),
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
            if step.conditions.is_empty() {
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
        }
        Ok(())
    }
}
