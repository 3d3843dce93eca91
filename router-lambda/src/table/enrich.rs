//! What a rule looks up in a DynamoDB table, and what happens when that is slow.

use std::time::Duration;

use bytestring::ByteString;
use headworks_record::{Headers, headers};

use super::subject::Subject;
use super::{duration, json};

/// The most look-ups, different in table, key or settings, of one route table.
pub const MAX_LOOKUPS: usize = 16;
/// The longest key of an item that is looked up, in bytes (DynamoDB's limit on a hash key).
pub const MAX_LOOKUP_KEY: usize = 2048;

/// What becomes of a record whose look-up does not answer within its timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OnSlow {
    /// It goes on without the headers.
    #[default]
    Skip,
    /// It waits, and with it its shard, until the table answers.
    Wait,
    /// It goes to the dead letters.
    DeadLetter,
}

/// A look-up in a DynamoDB table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrich {
    /// The table.
    pub table: String,
    /// The attribute that is its hash key, a string.
    pub key: String,
    /// Attributes to read, and the headers that they become, sorted.
    pub attributes: Vec<(String, ByteString)>,
    /// How long an answer counts, "there is no such item" included.
    pub cache_ttl: Duration,
    /// How many answers are kept.
    pub cache_entries: usize,
    /// How long a batch's look-ups may take.
    pub timeout: Duration,
    /// What happens then.
    pub on_slow: OnSlow,
    pub(super) from: KeyFrom,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyFrom {
    Header(Box<str>),
    Pointer { text: Box<str>, tokens: Box<[Box<str>]> },
}

/// Attributes of an item as headers: what is found of [`Enrich::attributes`].
pub type Found = Vec<(ByteString, ByteString)>;

impl Enrich {
    /// The key of the item for a record; `None` if the record does not say, or says nothing that can be one.
    pub fn key_of(&self, subject: &Subject<'_>) -> Option<String> {
        let key = match &self.from {
            KeyFrom::Header(name) => subject.headers.get(name)?.to_owned(),
            KeyFrom::Pointer { tokens, .. } => json::scalar(json::find(json::valid(subject.data)?, tokens)?)?,
        };
        (!key.is_empty() && key.len() <= MAX_LOOKUP_KEY).then_some(key)
    }

    /// Sets what was found. A header that is there already is replaced.
    pub fn apply(&self, found: &Found, headers: &mut Headers) -> Result<(), headers::Error> {
        found.iter().try_for_each(|(name, value)| headers.set(name.clone(), value.clone()))
    }

    /// Where the key comes from, as it was written down.
    pub fn key_from(&self) -> &str {
        match &self.from {
            KeyFrom::Header(name) => name,
            KeyFrom::Pointer { text, .. } => text,
        }
    }
}

/// The section as it is written down.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Written {
    table: String,
    key: String,
    /// A header's name, or a JSON pointer, which begins with a slash.
    key_from: String,
    /// Attribute to header.
    attributes: super::schema::Entries<String>,
    #[serde(default = "ttl")]
    cache_ttl: String,
    #[serde(default = "entries")]
    cache_entries: usize,
    #[serde(default = "timeout")]
    timeout: String,
    #[serde(default)]
    on_slow: OnSlow,
}

fn ttl() -> String {
    "1m".to_owned()
}

fn entries() -> usize {
    10_000
}

fn timeout() -> String {
    "200ms".to_owned()
}

/// The most answers that one look-up may keep.
pub(super) const MAX_CACHE_ENTRIES: usize = 100_000;
const MAX_ATTRIBUTES: usize = 16;
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));
const TIMEOUT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(10));

impl Written {
    /// Checks and compiles the section; the error is a reason and a remedy.
    pub(super) fn compile(&self) -> Result<Enrich, (String, String)> {
        let refuse = |reason: String, remedy: &str| Err((format!("enrich: {reason}"), remedy.to_owned()));
        let named = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        if !(3..=255).contains(&self.table.len()) || !self.table.bytes().all(named) {
            return refuse(
                format!("{:?} is no table's name", self.table),
                "use 3 to 255 letters, digits, and _ . -",
            );
        }
        if self.key.is_empty() || self.key.len() > 255 {
            return refuse("key is not an attribute's name".to_owned(), "name the table's hash key");
        }
        let from = if self.key_from.starts_with('/') {
            match json::pointer(&self.key_from) {
                Ok(tokens) => KeyFrom::Pointer { text: self.key_from.as_str().into(), tokens },
                Err(why) => {
                    return refuse(
                        format!("the JSON pointer {:?} {why}", self.key_from),
                        "write it as in \"/customer/id\"",
                    );
                }
            }
        } else {
            if let Err(error) = Headers::new().set(self.key_from.as_str(), "") {
                return refuse(format!("key-from: {error}"), "name a header of producers, or a JSON pointer");
            }
            KeyFrom::Header(self.key_from.as_str().into())
        };
        let count = self.attributes.0.len();
        if !(1..=MAX_ATTRIBUTES).contains(&count) {
            return refuse(
                format!("it reads {count} attributes"),
                &format!("name from 1 to {MAX_ATTRIBUTES}"),
            );
        }
        for (i, (attribute, header)) in self.attributes.0.iter().enumerate() {
            if let Err(error) = Headers::new().set(header.as_str(), "") {
                return refuse(format!("attribute {attribute:?}: {error}"), "name a header of producers");
            }
            if self.attributes.0[..i].iter().any(|(_, other)| other == header) {
                return refuse(
                    format!("two attributes become header {header:?}"),
                    "give each a header of its own",
                );
            }
        }
        if !(1..=MAX_CACHE_ENTRIES).contains(&self.cache_entries) {
            return refuse(
                format!("cache-entries is {}", self.cache_entries),
                &format!("give from 1 to {MAX_CACHE_ENTRIES}"),
            );
        }
        let bounded = |name: &str, text: &str, (low, high): (Duration, Duration)| {
            duration::parse(text).filter(|given| (low..=high).contains(given)).ok_or_else(|| {
                let (low, high) = (duration::show(low), duration::show(high));
                (
                    format!("enrich: {name} is {text:?}"),
                    format!("give from {low} to {high}, for example \"500ms\" or \"5m\""),
                )
            })
        };
        let mut attributes: Vec<(String, ByteString)> =
            self.attributes.0.iter().map(|(a, h)| (a.clone(), h.as_str().into())).collect();
        attributes.sort();
        Ok(Enrich {
            table: self.table.clone(),
            key: self.key.clone(),
            attributes,
            cache_ttl: bounded("cache-ttl", &self.cache_ttl, TTL)?,
            cache_entries: self.cache_entries,
            timeout: bounded("timeout", &self.timeout, TIMEOUT)?,
            on_slow: self.on_slow,
            from,
        })
    }
}
