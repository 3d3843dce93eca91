//! Route tables: from headers to destination streams.
//!
//! A table is a TOML or JSON file of one schema:
//!
//! ```toml
//! mode = "first-match"            # or "all-matches"; "first-match" if absent
//!
//! [derive]                        # optional: headers that a JSON payload tells where the producer set none
//! type = "/event/type"            # a JSON pointer (RFC 6901)
//!
//! [[rules]]
//! name = "orders"                 # optional, for explanations
//! when.type.glob = "order.*"      # header conditions; all must hold
//! when.tenant.not.equals = "test"
//! to = ["orders"]                 # one stream or several
//! set.team = "fulfilment"         # optional: headers set and removed on the way
//! remove = ["debug"]
//! rename.src = "source"           # old name = new name
//! payload.drop = ["/card/number"] # of a JSON object: fields to keep or to drop, and to rename
//! payload.rename."/usr" = "user"
//!
//! [[rules]]
//! when.type = "heartbeat"         # a plain string means equals
//! drop = true
//!
//! [[rules]]
//! when.type.prefix = "test."
//! dead-letter = true              # kept with the dead letters
//!
//! [[rules]]
//! sample = 0.01                   # one record in a hundred, chosen by identity
//! to = "canary"
//!
//! [default]                       # required: nothing is dropped by omission
//! to = "default"
//! ```
//!
//! Conditions on a header: `equals`, `one-of`, `prefix`, `glob` (`*`, `?`, `\` escapes), `exists`, `not`.
//! Several of them on one header must all hold. `not` also holds where the header is absent; add
//! `exists = true` if it must be there.
//!
//! A sample is chosen by the record's identity: a record that comes again is in the same, and a share of 0.1 is
//! part of any share of 0.5. With `first-match`, rules with 0.1 and 0.5 in a row thus get 10 % and 40 %.
//!
//! Derived headers are set on the record and travel with it. What is no string, number or truth value is not
//! derived. A payload that a rule is to change and that is no JSON object is a dead letter for that
//! destination: to pass it on unchanged might show what the rule takes away. What is not changed keeps its
//! bytes, a large number all its digits.
//!
//! With `all-matches` every matching rule adds its destinations, in order, until a matching rule drops or
//! sends to the dead letters: that ends the walk, what earlier rules added stays. Destinations are a set, so two rules that could
//! send one record to one stream in different forms are refused.

mod compile;
mod condition;
mod editor;
mod error;
mod explain;
mod glob;
mod json;
mod route;
mod schema;
mod source;
pub mod transform;

use bytestring::ByteString;

pub use compile::{MAX_DESTINATIONS, MAX_HEADER_NAMES, MAX_RULES, MAX_STREAM_NAME};
pub use editor::json_schema;
pub use error::Error;
pub use explain::{Condition, Explanation, Fields, Place, Sample, Step, Verdict, explain};
pub use route::{Destinations, route};
pub use schema::Mode;
pub use transform::Transform;

/// A compiled route table. Immutable: a reload makes a new one.
#[derive(Debug)]
pub struct RouteTable {
    fingerprint: String,
    mode: Mode,
    derive: Vec<compile::Derived>,
    rules: Vec<compile::CompiledRule>,
    default: compile::Action,
    slots: Vec<compile::Slot>,
    /// Rules that are for a share of the records, by the end of the share.
    samples: Vec<(u64, compile::Mask)>,
    /// Words in a mask over the rules.
    words: usize,
    destinations: Vec<Destination>,
    streams: Vec<ByteString>,
}

impl RouteTable {
    /// Every stream that the table names, in order of first mention.
    pub fn streams(&self) -> &[ByteString] {
        &self.streams
    }

    /// What tells the table's text from any other.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// How many rules it has, the default not counted.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is the default only.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What a rule is called: its name, else its number. Numbers begin at 1.
    pub fn rule_name(&self, number: usize) -> String {
        let rule = number.checked_sub(1).and_then(|index| self.rules.get(index));
        rule.and_then(|rule| rule.name.clone()).unwrap_or_else(|| number.to_string())
    }

    /// Whether some rule, or the default, sends records to the dead letters.
    pub fn uses_dead_letters(&self) -> bool {
        self.default.dead_letter || self.rules.iter().any(|rule| rule.action.dead_letter)
    }

    /// How many of the matching rules apply.
    pub fn mode(&self) -> Mode {
        self.mode
    }
}

/// A stream, and what happens to a record on the way there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The stream's name.
    pub stream: ByteString,
    /// The stream's place in [`RouteTable::streams`].
    pub stream_index: usize,
    /// Changes to headers and payload.
    pub transform: Transform,
}
