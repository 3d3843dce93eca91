//! What a table may look at of a record.

use headworks_record::{Headers, Record};

/// What a table may look at of a record. Conditions look at headers alone, expressions may look at all.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Its headers, derived ones included.
    pub headers: &'a Headers,
    /// Its partition key.
    pub key: &'a str,
    /// Its payload.
    pub data: &'a [u8],
}

impl<'a> Subject<'a> {
    /// Headers alone: the key is empty, and so is the payload.
    pub fn headers(headers: &'a Headers) -> Self {
        Self { headers, key: "", data: &[] }
    }
}

impl<'a> From<&'a Record> for Subject<'a> {
    fn from(record: &'a Record) -> Self {
        Self { headers: &record.headers, key: record.key.as_str(), data: &record.data }
    }
}
