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
//! expr = "int(headers.total) > 1000 && payload.items.exists(i, i.gift)"   # CEL, see below
//! to = "large-orders"
//! spill-after = "5m"              # see below; without it records wait for their destination
//!
//! [[rules]]
//! when.type.prefix = "cart."
//! to = "carts"
//! [rules.enrich]                  # headers from a DynamoDB table
//! table = "customers"
//! key = "id"                      # its hash key, a string
//! key-from = "customer"           # a header, or a JSON pointer into the payload
//! attributes = { tier = "customer-tier" }   # attribute = header
//! cache-ttl = "1m"                # these four have these values if absent
//! cache-entries = 10000
//! timeout = "200ms"
//! on-slow = "skip"                # or "wait", or "dead-letter"
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
//! An expression (CEL) sees `headers` (a map), `key` and `payload` (JSON, or null where it is none or has more than
//! [`MAX_EXPR_PAYLOAD`] bytes). It must hold beside the conditions, and is looked at only where they do. Where it
//! has no truth value, as when it asks for a header that is absent, it does not hold: ask `has(headers.x)` first. Its cost is
//! bounded when the table is loaded: length, nodes, depth, no loop within a loop; `map`, `filter` and `matches` are left out.
//!
//! `spill-after` is the owner's choice between waiting and going on. Without it (the default) a record that its
//! destination does not take blocks its shard until it is taken. With it, a record that has been on the
//! inbound stream for that long and that the destination has just had no room for, or not answered for, goes to the dead
//! letters for that destination, and its shard goes on: later records of its key may then be stored before it is put
//! again. It is meant for pressure and outages. Credentials, permissions and KMS keys (KMS's throttling included) are for
//! an operator to mend: until then the record blocks its shard, whatever `spill-after` says.
//!
//! A look-up adds headers before anything else is changed. An item or attribute that is not there adds none, nor does
//! a record that does not say its key. When the table does not answer in time, `skip` goes on without
//! the headers, `wait` lets the shard wait, `dead-letter` puts the record away for the destinations of that rule.
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
mod duration;
mod editor;
pub mod enrich;
mod error;
mod explain;
mod expr;
mod glob;
mod json;
mod memo;
mod route;
mod schema;
mod source;
mod subject;
pub mod transform;

use std::time::Duration;

use bytestring::ByteString;

pub use compile::{MAX_DESTINATIONS, MAX_HEADER_NAMES, MAX_RULES, MAX_STREAM_NAME};
pub use editor::json_schema;
pub use enrich::{Enrich, OnSlow};
pub use error::Error;
pub use explain::{
    Condition, Explanation, Expression, Fields, Place, Sample, Step, Verdict, explain, explain_subject,
};
pub use expr::{MAX_EXPR_CHARS, MAX_EXPR_DEPTH, MAX_EXPR_NODES, MAX_EXPR_PAYLOAD, MAX_EXPRS};
pub(crate) use memo::Memo;
pub use route::{Destinations, route, route_subject};
pub use schema::Mode;
pub use source::{Format, fingerprint};
pub use subject::Subject;
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
    lookups: Vec<Enrich>,
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

    /// Whether records may go to the dead letters because a rule, or the default, says so: at once, because their
    /// destination takes nothing for too long, or because a look-up is slow.
    pub fn uses_dead_letters(&self) -> bool {
        self.default.dead_letter
            || self.rules.iter().any(|rule| rule.action.dead_letter)
            || self.destinations.iter().any(|destination| destination.spill_after.is_some())
            || self.lookups.iter().any(|lookup| lookup.on_slow == OnSlow::DeadLetter)
    }

    /// Every look-up that rules make, each once.
    pub fn lookups(&self) -> &[Enrich] {
        &self.lookups
    }

    /// Whether records are routed by the headers that they came with, so that nothing else of them is looked at.
    pub fn by_headers_alone(&self) -> bool {
        self.derive.is_empty() && self.rules.iter().all(|rule| rule.expr.is_none())
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
    /// The look-up whose answer is added to the headers first, by its place in [`RouteTable::lookups`].
    pub lookup: Option<usize>,
    /// How long after its arrival on the inbound stream a record that this stream does not take goes to the
    /// dead letters; `None` means never: its shard waits.
    pub spill_after: Option<Duration>,
}
