//! Just enough JSON to find fields and to cut them out: what is not touched keeps its bytes, so numbers
//! keep all their digits and fields their order.
//!
//! Everything but [`valid`] expects text that is valid.

use serde::de::IgnoredAny;

const BLANK: [char; 4] = [' ', '\t', '\n', '\r'];

/// The bytes as JSON text without the blanks around it, if they are one valid value.
pub(super) fn valid(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?.trim_matches(BLANK);
    serde_json::from_str::<IgnoredAny>(text).is_ok().then_some(text)
}

/// One field of an object, as it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    /// The name, with its quotation marks and escapes.
    pub(super) name: &'a str,
    pub(super) value: &'a str,
}

impl Field<'_> {
    pub(super) fn is_named(&self, name: &str) -> bool {
        if self.name.contains('\\') {
            return serde_json::from_str::<String>(self.name).is_ok_and(|own| own == name);
        }
        self.name.get(1..self.name.len() - 1) == Some(name)
    }
}

/// The fields of an object in order; `None` if the value is something else.
pub(super) fn fields<'a>(value: &'a str) -> Option<Vec<Field<'a>>> {
    let field = |part: &'a str| {
        let (name, rest) = part.split_at(string_end(part.as_bytes(), 0));
        let value = rest.trim_start_matches(BLANK);
        Field { name, value: value.strip_prefix(':').unwrap_or(value).trim_start_matches(BLANK) }
    };
    Some(parts(value.strip_prefix('{')?.strip_suffix('}')?).map(field).collect())
}

/// The value at a pointer. Of equal names in one object the last one counts, as most parsers have it.
pub(super) fn find<'a>(value: &'a str, pointer: &[Box<str>]) -> Option<&'a str> {
    pointer.iter().try_fold(value, |value, token| {
        if let Some(fields) = fields(value) {
            return fields.into_iter().rfind(|field| field.is_named(token)).map(|field| field.value);
        }
        let inner = value.strip_prefix('[')?.strip_suffix(']')?;
        // As RFC 6901 writes an index: without leading zeros or a sign.
        let index: usize = token.parse().ok().filter(|index: &usize| *index.to_string() == **token)?;
        parts(inner).nth(index)
    })
}

/// A string, number or truth value as text; `None` for null, objects and arrays.
pub(super) fn scalar(value: &str) -> Option<String> {
    match value.as_bytes().first()? {
        b'"' => serde_json::from_str(value).ok(),
        b'{' | b'[' | b'n' => None,
        _ => Some(value.to_owned()),
    }
}

/// What stands between the commas of an object or array.
fn parts(inner: &str) -> impl Iterator<Item = &str> {
    let bytes = inner.as_bytes();
    let mut start = 0;
    let mut done = inner.trim_matches(BLANK).is_empty();
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        let (mut at, mut depth) = (start, 0usize);
        while at < bytes.len() {
            match bytes[at] {
                b'"' => {
                    at = string_end(bytes, at);
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                b',' if depth == 0 => break,
                _ => {}
            }
            at += 1;
        }
        done = at >= bytes.len();
        let part = inner.get(start..at.min(bytes.len()))?;
        start = at + 1;
        Some(part.trim_matches(BLANK))
    })
}

/// Where a string that begins here ends: the place behind its closing quotation mark.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// The tokens of a JSON pointer (RFC 6901); the error says what is wrong with it.
pub(super) fn pointer(text: &str) -> Result<Box<[Box<str>]>, &'static str> {
    let Some(rest) = text.strip_prefix('/') else {
        return Err("does not begin with \"/\"");
    };
    rest.split('/')
        .map(|token| {
            let mut plain = String::with_capacity(token.len());
            let mut letters = token.chars();
            while let Some(letter) = letters.next() {
                plain.push(match letter {
                    '~' => match letters.next() {
                        Some('0') => '~',
                        Some('1') => '/',
                        _ => return Err("has a \"~\" that neither 0 nor 1 follows"),
                    },
                    letter => letter,
                });
            }
            Ok(plain.into())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_as_they_stand() {
        let text = valid(br#" {"a":1.50 , "b" : {"c\"}":[ "x,]" ,{"d":null},12345678901234567890123 ]},"b":7,"e":[],"\u0061b":true} "#).unwrap();
        let at = |path: &str| find(text, &pointer(path).unwrap());
        assert_eq!(at("/a"), Some("1.50"));
        assert_eq!(at("/b"), Some("7"), "the last of equal names");
        assert_eq!(at("/ab"), Some("true"));
        assert_eq!(at("/e"), Some("[]"));
        assert_eq!((at("/e/0"), at("/a/0"), at("/zz")), (None, None, None));
        let inner = fields(text).unwrap()[1].value;
        let at = |path: &str| find(inner, &pointer(path).unwrap());
        assert_eq!(at("/c\"}/0"), Some("\"x,]\""));
        assert_eq!(at("/c\"}/1/d"), Some("null"));
        assert_eq!(at("/c\"}/2"), Some("12345678901234567890123"));
        assert_eq!((at("/c\"}/02"), at("/c\"}/+2"), at("/c\"}/3")), (None, None, None));
    }

    #[test]
    fn scalars_are_text_and_nothing_else_is() {
        let text = |value| scalar(value);
        assert_eq!(text(r#""a\n\u00e9""#).as_deref(), Some("a\né"));
        assert_eq!(text("1e400").as_deref(), Some("1e400"));
        assert_eq!(text("false").as_deref(), Some("false"));
        assert_eq!((text("null"), text("{}"), text("[1]"), text(r#""\ud800""#)), (None, None, None, None));
    }

    #[test]
    fn pointers_and_validity() {
        assert_eq!(pointer("/a~1b/~0/").unwrap().join("|"), "a/b|~|");
        assert!(pointer("").is_err() && pointer("a").is_err() && pointer("/~2").is_err());
        assert!(valid(b"{").is_none() && valid(b"{} {}").is_none() && valid(b"\"\xff\"").is_none());
        assert_eq!(valid(b" [] \n"), Some("[]"));
    }
}
