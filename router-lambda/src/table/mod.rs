//! Route tables: from headers to destination streams.
//!
//! A table is a TOML or JSON file of one schema:
//!
//! ```toml
//! mode = "first-match"            # or "all-matches"; "first-match" if absent
//!
//! [[rules]]
//! name = "orders"                 # optional, for explanations
//! when.type.glob = "order.*"      # header conditions; all must hold
//! when.tenant.not.equals = "test"
//! to = ["orders"]                 # one stream or several
//! set.team = "fulfilment"         # optional: headers set and removed on the way
//! remove = ["debug"]
//!
//! [[rules]]
//! when.type = "heartbeat"         # a plain string means equals
//! drop = true
//!
//! [default]                       # required: nothing is dropped by omission
//! to = "default"
//! ```
//!
//! Conditions on a header: `equals`, `one-of`, `prefix`, `glob` (`*`, `?`, `\` escapes), `exists`, `not`.
//! Several of them on one header must all hold. `not` also holds where the header is absent; add
//! `exists = true` if it must be there.
//!
//! With `all-matches` every matching rule adds its destinations, in order, until a matching rule drops:
//! that ends the walk, what earlier rules added stays. Destinations are a set, so two rules that could
//! send one record to one stream with different headers are refused.

mod compile;
mod condition;
mod error;
mod explain;
mod glob;
mod route;
mod schema;
mod source;

use bytestring::ByteString;
use headworks_record::{Headers, headers};

pub use compile::{MAX_DESTINATIONS, MAX_HEADER_NAMES, MAX_RULES, MAX_STREAM_NAME};
pub use error::Error;
pub use explain::{Condition, Explanation, Place, Step, Verdict, explain};
pub use route::{Destinations, route, route_member, route_pairs};
pub use schema::Mode;

/// A compiled route table. Immutable: a reload makes a new one.
#[derive(Debug)]
pub struct RouteTable {
    mode: Mode,
    rules: Vec<compile::CompiledRule>,
    default: compile::Action,
    slots: Vec<compile::Slot>,
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

    /// How many of the matching rules apply.
    pub fn mode(&self) -> Mode {
        self.mode
    }
}

/// A stream, and what happens to a record's headers on the way there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The stream's name.
    pub stream: ByteString,
    /// The stream's place in [`RouteTable::streams`].
    pub stream_index: usize,
    /// Header changes.
    pub transform: Transform,
}

/// Header changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transform {
    set: Vec<(ByteString, ByteString)>,
    remove: Vec<ByteString>,
}

impl Transform {
    /// Whether headers stay as they are.
    pub fn is_identity(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }

    /// Changes the headers; refused if the record would then exceed the limits of headers.
    pub fn apply(&self, headers: &mut Headers) -> Result<(), headers::Error> {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.set(name.clone(), value.clone())?;
        }
        Ok(())
    }
}
