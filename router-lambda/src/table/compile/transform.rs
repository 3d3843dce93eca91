//! The changes that a rule makes, checked.

use std::sync::Arc;

use bytestring::ByteString;

use super::place::{Place, check_header};
use crate::table::error::Error;
use crate::table::schema::{Does, Entries};
use crate::table::transform::{Payload, Transform};

pub(super) fn transform(place: &Place<'_>, does: Does<'_>) -> Result<Transform, Error> {
    let Does { set, remove, rename, .. } = does;
    for (name, value) in &set.0 {
        check_header(place, "set", name, value)?;
    }
    for (i, name) in remove.0.iter().enumerate() {
        check_header(place, "remove", name, "")?;
        if set.0.iter().any(|(n, _)| n == name) {
            return Err(place.invalid(
                format!("header {name:?} is both set and removed"),
                "keep it in set alone: set replaces what is there",
            ));
        }
        if remove.0[..i].contains(name) {
            return Err(place.invalid(format!("header {name:?} is removed twice"), "name it once"));
        }
    }
    for (i, (from, to)) in rename.0.iter().enumerate() {
        for name in [from, to] {
            check_header(place, "rename", name, "")?;
            if set.0.iter().any(|(n, _)| n == name) || remove.0.contains(name) {
                return Err(place.invalid(
                    format!("header {name:?} is renamed or renamed to, and set or removed as well"),
                    "keep one of them: a renamed header replaces one that has its new name",
                ));
            }
        }
        if from == to {
            return Err(place.invalid(
                format!("header {from:?} is renamed to the name that it has"),
                "remove that, or correct one of the names",
            ));
        }
        if rename.0[..i].iter().any(|(_, other)| other == to) {
            return Err(
                place.invalid(format!("two headers are renamed to {to:?}"), "give each a name of its own")
            );
        }
    }
    let payload = does
        .payload
        .map(|fields| Payload::compile(&fields.keep.0, &fields.drop.0, &fields.rename.0))
        .transpose()
        .map_err(|(reason, remedy)| place.invalid(format!("payload: {reason}"), remedy))?;
    // Sorted, so that the order in which headers are written down makes no difference between rules.
    let sorted = |entries: &Entries<String>| {
        let mut pairs: Vec<(ByteString, ByteString)> =
            entries.0.iter().map(|(a, b)| (a.as_str().into(), b.as_str().into())).collect();
        pairs.sort();
        pairs
    };
    let mut remove: Vec<ByteString> = remove.0.iter().map(|n| n.as_str().into()).collect();
    remove.sort();
    Ok(Transform { set: sorted(set), remove, rename: sorted(rename), payload: payload.map(Arc::new) })
}
