//! The file's shape: one schema for TOML and JSON. Unknown keys are refused, so are repeated ones.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::enrich::Written;

/// How many of the matching rules apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Mode {
    /// The first rule that matches decides alone.
    #[default]
    FirstMatch,
    /// Every rule that matches adds its destinations, in order, until a matching rule drops.
    AllMatches,
}

/// The whole file. `R` is [`Rule`], or a rule with its place where the format can tell it; likewise `D`
/// ([`Fallback`]) and `E` (the derived headers).
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Document<R, D, E> {
    /// Where editors find the schema. It means nothing here.
    #[serde(default, rename = "$schema")]
    pub(super) _schema: Option<IgnoredAny>,
    #[serde(default)]
    pub(super) mode: Mode,
    /// Header name to JSON pointer into the payload.
    #[serde(default = "none")]
    pub(super) derive: Option<E>,
    #[serde(default = "Vec::new")]
    pub(super) rules: Vec<R>,
    #[serde(default = "none")]
    pub(super) default: Option<D>,
}

fn none<T>() -> Option<T> {
    None
}

/// One rule.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Rule {
    /// For explanations and messages.
    pub(super) name: Option<String>,
    /// Header name to condition; all must hold.
    #[serde(default)]
    pub(super) when: Entries<Condition>,
    /// An expression that must hold as well.
    pub(super) expr: Option<String>,
    /// The share of the records, by identity, that it matches.
    pub(super) sample: Option<f64>,
    /// Destination streams.
    #[serde(default)]
    pub(super) to: Names,
    /// The record goes nowhere, on purpose.
    #[serde(default)]
    pub(super) drop: bool,
    /// The record goes to the dead letters, on purpose.
    #[serde(default)]
    pub(super) dead_letter: bool,
    /// Headers to set on the way.
    #[serde(default)]
    pub(super) set: Entries<String>,
    /// Headers to remove on the way.
    #[serde(default)]
    pub(super) remove: Names,
    /// Headers to rename on the way: old name to new name.
    #[serde(default)]
    pub(super) rename: Entries<String>,
    /// Changes to the payload on the way.
    pub(super) payload: Option<Fields>,
    /// Headers that a DynamoDB table knows.
    pub(super) enrich: Option<Written>,
    /// How old a record may get before it goes to the dead letters, when its destination takes nothing.
    pub(super) spill_after: Option<String>,
}

/// Where records go that no rule matches.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Fallback {
    #[serde(default)]
    pub(super) to: Names,
    #[serde(default)]
    pub(super) drop: bool,
    #[serde(default)]
    pub(super) dead_letter: bool,
    #[serde(default)]
    pub(super) set: Entries<String>,
    #[serde(default)]
    pub(super) remove: Names,
    #[serde(default)]
    pub(super) rename: Entries<String>,
    pub(super) payload: Option<Fields>,
    pub(super) enrich: Option<Written>,
    pub(super) spill_after: Option<String>,
}

/// Changes to a payload that is a JSON object. Fields are named by JSON pointers.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Fields {
    /// The only fields that stay.
    #[serde(default)]
    pub(super) keep: Names,
    /// Fields that go.
    #[serde(default)]
    pub(super) drop: Names,
    /// Pointer to new name, within the same object.
    #[serde(default)]
    pub(super) rename: Entries<String>,
}

/// What a rule or the default does with a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Does<'a> {
    pub(super) to: &'a Names,
    pub(super) drop: bool,
    pub(super) dead_letter: bool,
    pub(super) set: &'a Entries<String>,
    pub(super) remove: &'a Names,
    pub(super) rename: &'a Entries<String>,
    pub(super) payload: Option<&'a Fields>,
    pub(super) enrich: Option<&'a Written>,
    pub(super) spill_after: Option<&'a str>,
}

impl Rule {
    pub(super) fn does(&self) -> Does<'_> {
        let Self { to, drop, dead_letter, set, remove, rename, payload, enrich, spill_after, .. } = self;
        let (drop, dead_letter, payload) = (*drop, *dead_letter, payload.as_ref());
        let (enrich, spill_after) = (enrich.as_ref(), spill_after.as_deref());
        Does { to, drop, dead_letter, set, remove, rename, payload, enrich, spill_after }
    }
}

impl Fallback {
    pub(super) fn does(&self) -> Does<'_> {
        let Self { to, drop, dead_letter, set, remove, rename, payload, enrich, spill_after } = self;
        let (drop, dead_letter, payload) = (*drop, *dead_letter, payload.as_ref());
        let (enrich, spill_after) = (enrich.as_ref(), spill_after.as_deref());
        Does { to, drop, dead_letter, set, remove, rename, payload, enrich, spill_after }
    }
}

/// What a header's value must be. Everything that is given must hold. A plain string means `equals`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) equals: Option<String>,
    pub(super) one_of: Option<Vec<String>>,
    pub(super) prefix: Option<String>,
    pub(super) glob: Option<String>,
    pub(super) exists: Option<bool>,
    pub(super) not: Option<Box<Condition>>,
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        struct Parts {
            equals: Option<String>,
            one_of: Option<Vec<String>>,
            prefix: Option<String>,
            glob: Option<String>,
            exists: Option<bool>,
            not: Option<Box<Condition>>,
        }

        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Condition;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a value (meaning equals) or a table of equals, one-of, prefix, glob, exists, not",
                )
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Condition, E> {
                Ok(Condition { equals: Some(value.to_owned()), ..Condition::default() })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Condition, A::Error> {
                let Parts { equals, one_of, prefix, glob, exists, not } =
                    Parts::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Condition { equals, one_of, prefix, glob, exists, not })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// One name or several.
#[derive(Debug, Default)]
pub(super) struct Names(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or a list of names")
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Names, E> {
                Ok(Names(vec![value.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

/// A table from names to values, in order. JSON parsers silently keep the last of two equal keys: this
/// refuses them.
#[derive(Debug)]
pub(super) struct Entries<V>(pub(super) Vec<(String, V)>);

impl<V> Default for Entries<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Entries<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Pairs<V> {
            type Value = Entries<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table from names to values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<V>, A::Error> {
                let mut entries: Vec<(String, V)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, V>()? {
                    if entries.iter().any(|(n, _)| *n == name) {
                        return Err(A::Error::custom(format_args!(
                            "{name:?} stands here twice; keep one of them"
                        )));
                    }
                    entries.push((name, value));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Pairs(PhantomData))
    }
}
