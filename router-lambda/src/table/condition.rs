//! Conditions on one header: compiled, evaluated, compared.

use std::fmt;

use rustc_hash::FxHashSet;

use super::glob::Glob;
use super::schema::Condition;

/// A compiled condition: every test must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Predicate(Box<[Test]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Equals(Box<str>),
    OneOf { values: FxHashSet<Box<str>>, shown: Box<[String]> },
    Prefix(Box<str>),
    Glob { glob: Glob, pattern: Box<str> },
    Exists(bool),
    Not(Predicate),
}

impl Predicate {
    /// Compiles a condition; the error is a reason and a remedy.
    pub(super) fn compile(condition: &Condition) -> Result<Self, (String, String)> {
        let refuse = |reason: String, remedy: &str| Err((reason, remedy.to_owned()));
        let mut tests = Vec::new();
        if let Some(value) = &condition.equals {
            tests.push(Test::Equals(value.as_str().into()));
        }
        if let Some(values) = &condition.one_of {
            let set: FxHashSet<Box<str>> = values.iter().map(|value| value.as_str().into()).collect();
            if values.is_empty() {
                return refuse("one-of is empty, so it never holds".into(), "name at least one value");
            }
            if let Some(twice) = values.iter().enumerate().find(|(i, v)| values[..*i].contains(v)) {
                return refuse(format!("one-of names {:?} twice", twice.1), "name each value once");
            }
            tests.push(Test::OneOf { values: set, shown: values.as_slice().into() });
        }
        if let Some(prefix) = &condition.prefix {
            if prefix.is_empty() {
                return refuse("prefix is empty, so any value has it".into(), "use exists = true");
            }
            tests.push(Test::Prefix(prefix.as_str().into()));
        }
        if let Some(pattern) = &condition.glob {
            match Glob::parse(pattern) {
                Ok(glob) => tests.push(Test::Glob { glob, pattern: pattern.as_str().into() }),
                Err(reason) => {
                    return refuse(
                        format!("the glob {pattern:?} is refused: {reason}"),
                        "use * for any run of characters, ? for one, and \\ before a literal * ? or \\",
                    );
                }
            }
        }
        if condition.exists == Some(false) && !tests.is_empty() {
            return refuse(
                "exists = false contradicts a condition on the value, so it never holds".into(),
                "remove one of the two",
            );
        }
        if let Some(exists) = condition.exists {
            tests.push(Test::Exists(exists));
        }
        if let Some(inner) = &condition.not {
            tests.push(Test::Not(Self::compile(inner)?));
        }
        if tests.is_empty() {
            return refuse(
                "the condition is empty".into(),
                "give equals, one-of, prefix, glob, exists or not",
            );
        }
        Ok(Self(tests.into()))
    }

    /// Whether the condition holds for a header's value, or for its absence.
    pub(super) fn holds(&self, value: Option<&str>) -> bool {
        self.0.iter().all(|test| match (test, value) {
            (Test::Exists(expected), value) => value.is_some() == *expected,
            (Test::Not(inner), value) => !inner.holds(value),
            (_, None) => false,
            (Test::Equals(text), Some(value)) => value == &**text,
            (Test::OneOf { values, .. }, Some(value)) => values.contains(value),
            (Test::Prefix(text), Some(value)) => value.as_bytes().starts_with(text.as_bytes()),
            (Test::Glob { glob, .. }, Some(value)) => glob.matches(value),
        })
    }

    /// The values for which the condition holds, if it consists of them alone: a hash look-up decides it.
    pub(super) fn exact_values(&self) -> Option<Vec<&str>> {
        match &*self.0 {
            [Test::Equals(text)] => Some(vec![text]),
            [Test::OneOf { values, .. }] => Some(values.iter().map(|value| &**value).collect()),
            _ => None,
        }
    }

    /// Whether provably no header value (nor its absence) satisfies both. `false` may mean "not proven".
    pub(super) fn excludes(&self, other: &Self) -> bool {
        self.excludes_one_way(other) || other.excludes_one_way(self) || self.prefixes_differ(other)
    }

    fn excludes_one_way(&self, other: &Self) -> bool {
        self.0.iter().any(|test| match test {
            Test::Equals(text) => !other.holds(Some(text)),
            Test::OneOf { values, .. } => {
                values.iter().all(|value| !self.holds(Some(value)) || !other.holds(Some(value)))
            }
            Test::Exists(false) => !other.holds(None),
            // "Not x" against "x and perhaps more".
            Test::Not(inner) => inner.0.iter().all(|test| other.0.contains(test)),
            Test::Prefix(_) | Test::Glob { .. } | Test::Exists(true) => false,
        })
    }

    fn prefixes_differ(&self, other: &Self) -> bool {
        self.literal_prefixes()
            .any(|a| other.literal_prefixes().any(|b| !a.starts_with(b) && !b.starts_with(a)))
    }

    fn literal_prefixes(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|test| match test {
            Test::Prefix(text) => Some(&**text),
            Test::Glob { glob, .. } => Some(glob.literal_prefix()),
            _ => None,
        })
    }
}

impl fmt::Display for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, test) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(" and ")?;
            }
            match test {
                Test::Equals(text) => write!(f, "equals {text:?}")?,
                Test::OneOf { shown, .. } => write!(f, "is one of {shown:?}")?,
                Test::Prefix(text) => write!(f, "begins with {text:?}")?,
                Test::Glob { pattern, .. } => write!(f, "matches the glob {pattern:?}")?,
                Test::Exists(true) => f.write_str("is present")?,
                Test::Exists(false) => f.write_str("is absent")?,
                Test::Not(inner) => write!(f, "not ({inner})")?,
            }
        }
        Ok(())
    }
}
