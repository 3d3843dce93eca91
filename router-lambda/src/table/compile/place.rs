//! Where in a table something stands, so that a refusal can say it; and checks of names.

use headworks_record::{Headers, headers};

use super::{MAX_STREAM_NAME, Placed};
use crate::table::error::Error;
use crate::table::schema::Rule;

pub(super) struct Place<'a> {
    pub(super) file: &'a str,
    pub(super) line: usize,
    pub(super) what: String,
}

impl Place<'_> {
    pub(super) fn invalid(&self, reason: impl Into<String>, remedy: impl Into<String>) -> Error {
        Error::Invalid {
            file: self.file.to_owned(),
            line: self.line,
            place: self.what.clone(),
            reason: reason.into(),
            remedy: remedy.into(),
        }
    }
}

pub(super) fn rule_place<'a>(file: &'a str, number: usize, rule: &Placed<Rule>) -> Place<'a> {
    let what = match &rule.item.name {
        Some(name) => format!("rule {number} {name:?}"),
        None => format!("rule {number}"),
    };
    Place { file, line: rule.line, what }
}

pub(super) fn check_header(place: &Place<'_>, key: &str, name: &str, value: &str) -> Result<(), Error> {
    Headers::new().set(name, value).map_err(|error| {
        let remedy = match error {
            headers::Error::Reserved { .. } => "rules see and change the headers of producers only",
            _ => "correct it",
        };
        place.invalid(format!("{key}: {error}"), remedy)
    })
}

pub(super) fn check_stream(place: &Place<'_>, name: &str) -> Result<(), Error> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if name.is_empty() || name.len() > MAX_STREAM_NAME || !name.bytes().all(allowed) {
        return Err(place.invalid(
            format!("{name:?} is no stream name"),
            format!("use 1 to {MAX_STREAM_NAME} letters, digits, and _ . -"),
        ));
    }
    Ok(())
}
