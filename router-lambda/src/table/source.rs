//! Reading a table's text and knowing on which line its rules stand.

use std::path::Path;

use headworks_record::Creation;
use toml::Spanned;

use super::compile::{Draft, Placed};
use super::error::Error;
use super::schema::{Document, Entries, Fallback, Rule};
use super::{RouteTable, compile};

/// In what a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// TOML.
    Toml,
    /// JSON.
    Json,
}

impl Format {
    /// By the ending of a file's or an object's name.
    pub fn of_name(name: &str) -> Option<Self> {
        match Path::new(name).extension()?.to_str()? {
            "toml" => Some(Format::Toml),
            "json" => Some(Format::Json),
            _ => None,
        }
    }

    /// By the text, where no name tells: no table in TOML begins with a brace.
    pub fn of_text(text: &str) -> Self {
        if text.trim_start().starts_with('{') { Format::Json } else { Format::Toml }
    }
}

impl RouteTable {
    /// Reads and compiles a file; its name ends in `.toml` or `.json`.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let format = Format::of_name(&name).ok_or_else(|| Error::UnknownFormat { path: path.to_owned() })?;
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text, format, name)
    }

    /// Compiles a table; `name` is what messages call it.
    pub fn parse(text: &str, format: Format, name: impl Into<String>) -> Result<Self, Error> {
        match format {
            Format::Toml => Self::named_toml(text, name.into()),
            Format::Json => Self::named_json(text, name.into()),
        }
    }

    /// Compiles a table in TOML.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        Self::named_toml(text, UNNAMED.to_owned())
    }

    /// Compiles a table in JSON.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        Self::named_json(text, UNNAMED.to_owned())
    }

    fn named_toml(text: &str, file: String) -> Result<Self, Error> {
        let document: Document<Spanned<Rule>, Spanned<Fallback>, Spanned<Entries<String>>> =
            match toml::from_str(text) {
                Ok(document) => document,
                Err(error) => {
                    let (line, column) = position(text, error.span().map_or(0, |span| span.start));
                    return Err(Error::Syntax { file, line, column, reason: error.message().to_owned() });
                }
            };
        let line = |offset| position(text, offset).0;
        compile::compile(Draft {
            file,
            fingerprint: fingerprint(text),
            mode: document.mode,
            derive: document
                .derive
                .map(|derive| Placed { line: line(derive.span().start), item: derive.into_inner() }),
            rules: document
                .rules
                .into_iter()
                .map(|rule| Placed { line: line(rule.span().start), item: rule.into_inner() })
                .collect(),
            default: document
                .default
                .map(|default| Placed { line: line(default.span().start), item: default.into_inner() }),
        })
    }

    fn named_json(text: &str, file: String) -> Result<Self, Error> {
        let document: Document<Rule, Fallback, Entries<String>> = match serde_json::from_str(text) {
            Ok(document) => document,
            Err(error) => {
                let (line, column) = (error.line().max(1), error.column().max(1));
                let shown = error.to_string();
                let place = format!(" at line {} column {}", error.line(), error.column());
                let reason = shown.strip_suffix(&place).unwrap_or(&shown).to_owned();
                return Err(Error::Syntax { file, line, column, reason });
            }
        };
        let line = |offset: Option<&usize>| offset.map_or(1, |offset| position(text, *offset).0);
        let offsets = json_offsets(text, "rules");
        compile::compile(Draft {
            file,
            fingerprint: fingerprint(text),
            mode: document.mode,
            derive: document
                .derive
                .map(|item| Placed { line: line(json_offsets(text, "derive").first()), item }),
            rules: document
                .rules
                .into_iter()
                .enumerate()
                .map(|(i, item)| Placed { line: line(offsets.get(i)), item })
                .collect(),
            default: document
                .default
                .map(|item| Placed { line: line(json_offsets(text, "default").first()), item }),
        })
    }
}

/// What tells a table's text from any other: a cryptographic hash.
pub fn fingerprint(text: &str) -> String {
    Creation::derive(&[text.as_bytes()], 0).trace_id.to_string()
}

const UNNAMED: &str = "the route table";

/// Line and column of a byte offset, both from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

/// Where the value of a top-level key begins in valid JSON: the offsets of the elements of an array, or
/// the one offset of anything else. `serde_json` does not tell the places of what it parsed.
fn json_offsets(text: &str, key: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let mut offsets = Vec::new();
    let (mut at, mut depth) = (0, 0usize);
    let mut last_string = "";
    // Whether the key's value comes next, and whether we are within its array.
    let (mut pending, mut inside) = (false, false);
    while at < bytes.len() {
        let start = at;
        at += 1;
        match bytes[start] {
            b' ' | b'\t' | b'\r' | b'\n' | b',' => continue,
            b':' => {
                pending = depth == 1 && last_string == key;
                continue;
            }
            b'[' if pending => {
                (pending, inside) = (false, true);
                depth += 1;
                continue;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                inside &= depth > 1;
                continue;
            }
            _ => {}
        }
        // A value or a key begins here.
        if pending || (inside && depth == 2) {
            offsets.push(start);
        }
        pending = false;
        match bytes[start] {
            b'{' | b'[' => depth += 1,
            b'"' => {
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                last_string = text.get(start + 1..at).unwrap_or("");
                at += 1;
            }
            _ => {
                while at < bytes.len() && !b" \t\r\n,]}".contains(&bytes[at]) {
                    at += 1;
                }
            }
        }
    }
    offsets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_places() {
        let text = "{\n \"x\": [1, {\"rules\": [9]}],\n \"rules\": [\n  {\"a\": \"}]\\\"\"},\n  {\"b\": [1]}\n ],\n \"default\": {}}";
        let lines =
            |key| json_offsets(text, key).into_iter().map(|o| position(text, o).0).collect::<Vec<_>>();
        assert_eq!(lines("rules"), [4, 5]);
        assert_eq!(lines("default"), [7]);
        assert_eq!(lines("absent"), [0usize; 0]);
    }
}
