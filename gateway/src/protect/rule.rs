//! Rules, ready to be applied.

use std::ops::Range;

use bytes::Bytes;
use headworks_record::Headers;
use headworks_record::protected::json::{self, Step, Visitor};
use headworks_record::protected::{Key, Keys, KeysError, SealError, ServiceKey, Use};

use crate::config::{Action, Otherwise, ProtectConfig, RuleConfig, When};

/// Why a record is refused. Nothing of its payload is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The payload is no JSON.
    #[error(
        "the payload is not JSON from byte {at} on, and fields of it are to be protected; send JSON in UTF-8, or set protect.not_json = \"pass\""
    )]
    NotJson {
        /// Where it ceases to be.
        at: usize,
    },
    /// A value that is to be protected is not there.
    #[error(
        "the payload has nothing at {pointer:?}, which is to be protected; send it, or set missing = \"pass\" in that rule"
    )]
    Missing {
        /// The rule's pointer.
        pointer: String,
    },
    /// Protecting it takes too much.
    #[error(
        "protecting the payload takes more than {limit} bytes for the values alone; protect larger parts of it at once, or send smaller ones"
    )]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// A value cannot be protected now.
    #[error("the value at {pointer:?}: {source}")]
    Seal {
        /// The rule's pointer.
        pointer: String,
        /// Why.
        source: SealError,
    },
}

impl Refused {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Refused::NotJson { .. } => "payload-not-json",
            Refused::Missing { .. } => "protected-field-missing",
            Refused::TooLarge { .. } => "record-too-large",
            Refused::Seal { source, .. } => source.code(),
        }
    }

    /// Whether the same record may be taken later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Refused::Seal { source, .. } if source.is_retryable())
    }
}

#[derive(Debug)]
enum Token {
    Any,
    Name(String, Option<usize>),
}

#[derive(Debug)]
struct Rule {
    pointer: String,
    tokens: Vec<Token>,
    how: How,
    when: Option<When>,
    missing: Otherwise,
}

#[derive(Debug)]
enum How {
    Drop,
    With(Key),
}

/// The protection of one stream.
#[derive(Debug, Default)]
pub struct Protection {
    keys: Keys,
    rules: Vec<Rule>,
    not_json: Otherwise,
}

impl Protection {
    /// Reads the keys and makes the rules ready. Blocking.
    pub fn load(config: &ProtectConfig) -> Result<Self, KeysError> {
        Self::load_after(config, &Self::default())
    }

    /// As [`Protection::load`], in place of another protection, whose data keys of a key service stay in use.
    pub(crate) fn load_after(config: &ProtectConfig, before: &Self) -> Result<Self, KeysError> {
        let mut keys = config.keys.as_deref().map(Keys::load).transpose()?.unwrap_or_default();
        keys.adopt(&before.keys);
        let rules = config.rules.iter().map(|rule| Rule::new(rule, &keys)).collect::<Result<_, _>>()?;
        Ok(Self { keys, rules, not_json: config.not_json })
    }

    /// The keys that rules use and whose data keys a key service makes.
    pub(crate) fn services(&self) -> Vec<ServiceKey> {
        let used =
            |id: &str| self.rules.iter().any(|rule| matches!(&rule.how, How::With(key) if key.id() == id));
        self.keys.services().filter(|key| used(key.id())).collect()
    }

    /// Whether there are rules.
    pub(crate) fn concerns_anything(&self) -> bool {
        !self.rules.is_empty()
    }

    /// The payload as it may leave the gateway. What no rule names stays byte for byte. What takes the place of
    /// values may have `limit` bytes in all.
    pub fn apply(&self, headers: &Headers, data: Bytes, limit: usize) -> Result<Bytes, Refused> {
        let rules: Vec<&Rule> = self.rules.iter().filter(|rule| rule.concerns(headers)).collect();
        if rules.is_empty() {
            return Ok(data);
        }
        let mut search = Search {
            found: vec![false; rules.len()],
            rules: &rules,
            parts: Vec::new(),
            grown: 0,
            limit,
            failed: None,
        };
        if let Err(json::NotJson(at)) = json::scan(&data, &mut search.over(&data)) {
            return match self.not_json {
                Otherwise::Pass => Ok(data),
                Otherwise::Refuse => Err(Refused::NotJson { at }),
            };
        }
        let Search { found, parts, failed, .. } = search;
        let missing =
            rules.iter().zip(found).find(|(rule, found)| !found && rule.missing == Otherwise::Refuse);
        let missing = missing.map(|(rule, _)| Refused::Missing { pointer: rule.pointer.clone() });
        if let Some(refused) = failed.or(missing) {
            return Err(refused);
        }
        if parts.is_empty() { Ok(data) } else { Ok(json::splice(&data, parts).into()) }
    }
}

impl Rule {
    fn new(config: &RuleConfig, keys: &Keys) -> Result<Self, KeysError> {
        let tokens = config.pointer.split('/').skip(1).map(|token| match token {
            "*" => Token::Any,
            text => {
                let name = text.replace("~1", "/").replace("~0", "~");
                let canonical = name == "0" || !(name.starts_with('0') || name.starts_with('+'));
                let index = name.parse().ok().filter(|_: &usize| canonical);
                Token::Name(name, index)
            }
        });
        let how = match (config.action, config.key.as_deref()) {
            (Action::Drop, _) => How::Drop,
            (action, id) => {
                let id = id.unwrap_or_default();
                let bad = |reason| KeysError::Key { id: id.to_owned(), reason };
                let Some(key) = keys.get(id) else {
                    return Err(bad("a rule names it, and it is not in the file of keys"));
                };
                match (action, key.usage()) {
                    (Action::Hash, Use::Hash) | (Action::Encrypt, Use::Encrypt) => How::With(key.clone()),
                    _ => return Err(bad("a rule uses it for something else than its `use` says")),
                }
            }
        };
        Ok(Self {
            pointer: config.pointer.clone(),
            tokens: tokens.collect(),
            how,
            when: config.when.clone(),
            missing: config.missing,
        })
    }

    fn concerns(&self, headers: &Headers) -> bool {
        self.when.as_ref().is_none_or(|When { header, one_of }| {
            headers
                .get(header)
                .is_some_and(|value| one_of.is_empty() || one_of.iter().any(|one| one == value))
        })
    }

    fn names(&self, path: &[Step<'_>]) -> bool {
        self.tokens.len() == path.len()
            && self.tokens.iter().zip(path).all(|(token, step)| match (token, step) {
                (Token::Any, Step::Element(_)) => true,
                (Token::Any, Step::Member(name)) => name == "*",
                (Token::Name(wanted, _), Step::Member(name)) => wanted == name,
                (Token::Name(_, index), Step::Element(at)) => *index == Some(*at),
            })
    }

    /// The text in place of a value.
    fn replacement(&self, value: &[u8]) -> Result<Vec<u8>, SealError> {
        match &self.how {
            How::Drop => Ok(b"null".to_vec()),
            How::With(key) => Ok(format!("\"{}\"", key.protect(&self.pointer, value)?).into_bytes()),
        }
    }
}

struct Search<'r> {
    rules: &'r [&'r Rule],
    found: Vec<bool>,
    parts: Vec<(Range<usize>, Vec<u8>)>,
    /// Bytes of the replacements, those that outer values made needless included.
    grown: usize,
    limit: usize,
    failed: Option<Refused>,
}

impl<'r> Search<'r> {
    fn over<'s, 't>(&'s mut self, text: &'t [u8]) -> Over<'s, 'r, 't> {
        Over { search: self, text, dropped: Vec::new() }
    }
}

struct Over<'s, 'r, 't> {
    search: &'s mut Search<'r>,
    text: &'t [u8],
    /// Ends of members' values that are to go, in objects that have not ended.
    dropped: Vec<usize>,
}

impl Over<'_, '_, '_> {
    fn replace(&mut self, rule: &Rule, range: Range<usize>) {
        let search = &mut *self.search;
        // What lies inside was visited since the value began: the rule of the outer one decides.
        while search.parts.last().is_some_and(|(part, _)| part.start >= range.start) {
            search.parts.pop();
        }
        if search.failed.is_some() {
            return;
        }
        match rule.replacement(&self.text[range.clone()]) {
            Ok(with) => {
                search.grown += with.len();
                if search.grown > search.limit {
                    search.failed = Some(Refused::TooLarge { limit: search.limit });
                }
                search.parts.push((range, with));
            }
            Err(source) => search.failed = Some(Refused::Seal { pointer: rule.pointer.clone(), source }),
        }
    }
}

impl<'t> Visitor<'t> for Over<'_, '_, 't> {
    fn value(&mut self, path: &[Step<'t>], value: Range<usize>) {
        let rules = self.search.rules;
        let mut first = None;
        for (index, rule) in rules.iter().enumerate() {
            if rule.names(path) {
                self.search.found[index] = true;
                first = first.or(Some(*rule));
            }
        }
        match (first, path.last()) {
            (None, _) => {}
            (Some(Rule { how: How::Drop, .. }), Some(Step::Member(_))) => self.dropped.push(value.end),
            (Some(rule), _) => self.replace(rule, value),
        }
    }

    fn object(&mut self, members: &[Range<usize>], commas: &[usize]) {
        let Some(start) = members.first().map(|member| member.start) else { return };
        // Those of objects inside are gone; those of this one stand in its members' order.
        let own = self.dropped.iter().rposition(|end| *end < start).map_or(0, |last| last + 1);
        let mut dropped = self.dropped.drain(own..).peekable();
        let (mut kept, mut gone) = (false, Vec::new());
        for (index, member) in members.iter().enumerate() {
            if dropped.next_if_eq(&member.end).is_none() {
                kept = true;
                continue;
            }
            // One comma goes along: the one before, once a member is kept, else the one after.
            gone.push(match (kept, index.checked_sub(1), commas.get(index)) {
                (true, Some(before), _) => commas[before]..member.end,
                (_, _, Some(after)) => member.start..after + 1,
                _ => member.clone(),
            });
        }
        drop(dropped);
        if gone.is_empty() {
            return;
        }
        let parts = &mut self.search.parts;
        let own = parts.iter().rposition(|(part, _)| part.start < start).map_or(0, |last| last + 1);
        let inside: Vec<_> = parts.drain(own..).collect();
        parts.extend(inside.into_iter().filter(|(part, _)| {
            let next = gone.partition_point(|gone| gone.end <= part.start);
            gone.get(next).is_none_or(|gone| part.start < gone.start)
        }));
        parts.extend(gone.into_iter().map(|range| (range, Vec::new())));
    }
}
