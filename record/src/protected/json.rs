//! Where things stand in a JSON text, so that parts of it can be replaced and the rest stays as it is.
//!
//! The scanner takes RFC 8259 and nothing else. It compares names as a parser would, escapes
//! resolved, and finds every member of a name that stands twice: different parsers believe different ones.

use std::borrow::Cow;
use std::ops::Range;

/// As deep as most parsers go.
const MAX_DEPTH: usize = 128;

/// A text is not JSON, from this byte on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotJson(pub usize);

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<'a> {
    /// To the member of this name, escapes resolved.
    Member(Cow<'a, str>),
    /// To the element at this place.
    Element(usize),
}

/// Told of each value, the inner ones first.
pub trait Visitor<'a> {
    /// `path` leads to the value at `value`.
    fn value(&mut self, path: &[Step<'a>], value: Range<usize>);

    /// An object ends: the members' ranges, key and value, and the commas between them. Its values were told of
    /// before, in this order.
    fn object(&mut self, _members: &[Range<usize>], _commas: &[usize]) {}
}

struct Scanner<'a, 'v, V> {
    text: &'a [u8],
    at: usize,
    path: Vec<Step<'a>>,
    visitor: &'v mut V,
}

/// Walks through a whole text.
pub fn scan<'a, V: Visitor<'a>>(text: &'a [u8], visitor: &mut V) -> Result<(), NotJson> {
    if let Err(error) = std::str::from_utf8(text) {
        return Err(NotJson(error.valid_up_to()));
    }
    let mut scanner = Scanner { text, at: 0, path: Vec::new(), visitor };
    scanner.space();
    scanner.value()?;
    scanner.space();
    if scanner.at < text.len() { Err(NotJson(scanner.at)) } else { Ok(()) }
}

impl<'a, V: Visitor<'a>> Scanner<'a, '_, V> {
    fn bad<T>(&self) -> Result<T, NotJson> {
        Err(NotJson(self.at))
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), NotJson> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            self.bad()
        }
    }

    fn value(&mut self) -> Result<(), NotJson> {
        let start = self.at;
        match self.peek() {
            Some(b'{') => self.object()?,
            Some(b'[') => self.array()?,
            Some(b'"') => drop(self.string()?),
            Some(b't') => self.literal("true")?,
            Some(b'f') => self.literal("false")?,
            Some(b'n') => self.literal("null")?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => return self.bad(),
        }
        self.visitor.value(&self.path, start..self.at);
        Ok(())
    }

    fn object(&mut self) -> Result<(), NotJson> {
        let (mut members, mut commas) = (Vec::new(), Vec::new());
        self.enter()?;
        self.space();
        if self.peek() != Some(b'}') {
            loop {
                self.space();
                let start = self.at;
                let name = self.string()?;
                self.space();
                self.expect(b':')?;
                self.space();
                self.path.push(Step::Member(name));
                self.value()?;
                self.path.pop();
                members.push(start..self.at);
                self.space();
                if self.peek() != Some(b',') {
                    break;
                }
                commas.push(self.at);
                self.at += 1;
            }
        }
        self.expect(b'}')?;
        self.visitor.object(&members, &commas);
        Ok(())
    }

    fn array(&mut self) -> Result<(), NotJson> {
        self.enter()?;
        self.space();
        if self.peek() != Some(b']') {
            for index in 0.. {
                self.space();
                self.path.push(Step::Element(index));
                self.value()?;
                self.path.pop();
                self.space();
                if self.peek() != Some(b',') {
                    break;
                }
                self.at += 1;
            }
        }
        self.expect(b']')
    }

    fn enter(&mut self) -> Result<(), NotJson> {
        // The bracket itself.
        self.at += 1;
        if self.path.len() >= MAX_DEPTH { self.bad() } else { Ok(()) }
    }

    fn literal(&mut self, word: &str) -> Result<(), NotJson> {
        if self.text[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else {
            self.bad()
        }
    }

    fn digits(&mut self) -> Result<(), NotJson> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { self.bad() } else { Ok(()) }
    }

    fn number(&mut self) -> Result<(), NotJson> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<Cow<'a, str>, NotJson> {
        self.expect(b'"')?;
        let start = self.at;
        let mut plain: Option<String> = None;
        let mut from = start;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    let before = self.slice(from..self.at)?;
                    let mut text = plain.take().unwrap_or_default();
                    text.push_str(before);
                    self.at += 1;
                    text.push(self.escape()?);
                    plain = Some(text);
                    from = self.at;
                }
                Some(0..0x20) | None => return self.bad(),
                Some(_) => self.at += 1,
            }
        }
        let rest = self.slice(from..self.at)?;
        self.at += 1;
        Ok(match plain {
            None => Cow::Borrowed(rest),
            Some(text) => Cow::Owned(text + rest),
        })
    }

    fn slice(&self, range: Range<usize>) -> Result<&'a str, NotJson> {
        std::str::from_utf8(&self.text[range]).map_err(|_| NotJson(self.at))
    }

    fn escape(&mut self) -> Result<char, NotJson> {
        let Some(byte) = self.peek() else { return self.bad() };
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => byte as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.unit()?;
                let code = if (0xd800..0xdc00).contains(&first) {
                    self.expect(b'\\')?;
                    self.expect(b'u')?;
                    let second = self.unit()?;
                    if !(0xdc00..0xe000).contains(&second) {
                        return self.bad();
                    }
                    0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                } else {
                    first
                };
                // Half a pair is no character.
                match char::from_u32(code) {
                    Some(character) => character,
                    None => return self.bad(),
                }
            }
            _ => return self.bad(),
        })
    }

    fn unit(&mut self) -> Result<u32, NotJson> {
        let digits = self.text.get(self.at..self.at + 4).unwrap_or_default();
        if digits.len() < 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return self.bad();
        }
        let code = std::str::from_utf8(digits).ok().and_then(|text| u32::from_str_radix(text, 16).ok());
        self.at += 4;
        code.map_or_else(|| self.bad(), Ok)
    }
}

/// The text of a JSON string, escapes resolved; `None` if it is not one.
pub fn unquote(value: &[u8]) -> Option<Cow<'_, str>> {
    struct Nothing;
    impl Visitor<'_> for Nothing {
        fn value(&mut self, _: &[Step<'_>], _: Range<usize>) {}
    }
    let mut scanner = Scanner { text: value, at: 0, path: Vec::new(), visitor: &mut Nothing };
    let text = scanner.string().ok()?;
    (scanner.at == value.len()).then_some(text)
}

/// Replaces parts of a text. The ranges must not overlap; their order does not matter.
pub fn splice(text: &[u8], mut parts: Vec<(Range<usize>, Vec<u8>)>) -> Vec<u8> {
    parts.sort_by_key(|(range, _)| range.start);
    let grown: usize = parts.iter().map(|(_, with)| with.len()).sum();
    let mut out = Vec::with_capacity(text.len() + grown);
    let mut from = 0;
    for (range, with) in parts {
        out.extend_from_slice(&text[from..range.start]);
        out.extend_from_slice(&with);
        from = range.end;
    }
    out.extend_from_slice(&text[from..]);
    out
}
