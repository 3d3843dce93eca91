//! What a compiled table is made of.

use bytestring::ByteString;
use rustc_hash::FxHashMap;

use super::{DESTINATION_WORDS, Mask};
use crate::table::condition::Predicate;
use crate::table::expr::Expr;

/// What happens to a record that a rule matches.
#[derive(Debug, Clone)]
pub(in crate::table) struct Action {
    pub(in crate::table) drop: bool,
    pub(in crate::table) dead_letter: bool,
    pub(in crate::table) destinations: [u64; DESTINATION_WORDS],
}

impl Action {
    /// Whether no later rule is tried, even if all that match apply.
    pub(in crate::table) fn ends(&self) -> bool {
        self.drop || self.dead_letter
    }
}

/// A share of all records, by identity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::table) struct Sample {
    pub(in crate::table) share: f64,
    /// Identities that lie below it are in the share.
    pub(in crate::table) below: u64,
}

/// A header that is read from the payload.
#[derive(Debug)]
pub(in crate::table) struct Derived {
    pub(in crate::table) header: ByteString,
    pub(in crate::table) pointer: Box<[Box<str>]>,
}

/// A rule as it is explained, and what it does.
#[derive(Debug)]
pub(in crate::table) struct CompiledRule {
    pub(in crate::table) name: Option<String>,
    pub(in crate::table) line: usize,
    /// Slot and condition.
    pub(in crate::table) conditions: Vec<(usize, Predicate)>,
    /// What must hold as well; looked at last, as it costs most.
    pub(in crate::table) expr: Option<Expr>,
    /// `None`: every record.
    pub(in crate::table) sample: Option<Sample>,
    pub(in crate::table) action: Action,
}

/// One header that rules look at.
#[derive(Debug)]
pub(in crate::table) struct Slot {
    pub(in crate::table) name: Box<str>,
    /// Rules that do not look at it.
    pub(in crate::table) free: Mask,
    /// Rules that hold where it is absent, the free ones included.
    pub(in crate::table) absent: Mask,
    /// Rules that hold for exactly this value.
    pub(in crate::table) exact: FxHashMap<Box<str>, Mask>,
    /// Rules whose condition must be evaluated; equal conditions are evaluated once.
    pub(in crate::table) tests: Vec<(Predicate, Mask)>,
}

impl Slot {
    /// The slot of a header, with what each rule asks of it.
    pub(super) fn build(name: Box<str>, index: usize, rules: &[CompiledRule], words: usize) -> Self {
        let empty = || -> Mask { vec![0; words].into() };
        let mut slot =
            Self { name, free: empty(), absent: empty(), exact: FxHashMap::default(), tests: Vec::new() };
        for (i, rule) in rules.iter().enumerate() {
            let Some((_, predicate)) = rule.conditions.iter().find(|(slot, _)| *slot == index) else {
                set_bit(&mut slot.free, i);
                set_bit(&mut slot.absent, i);
                continue;
            };
            if predicate.holds(None) {
                set_bit(&mut slot.absent, i);
            }
            if let Some(values) = predicate.exact_values() {
                for value in values {
                    set_bit(slot.exact.entry(value.into()).or_insert_with(empty), i);
                }
            } else if let Some((_, mask)) = slot.tests.iter_mut().find(|(test, _)| test == predicate) {
                set_bit(mask, i);
            } else {
                let mut mask = empty();
                set_bit(&mut mask, i);
                slot.tests.push((predicate.clone(), mask));
            }
        }
        slot
    }
}

pub(super) fn set_bit(mask: &mut [u64], bit: usize) {
    mask[bit / 64] |= 1 << (bit % 64);
}
