//! Globs over header values: `*` any run of characters, `?` one character, `\` takes the next one literally.

/// A compiled glob; the whole value must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glob(Shape);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    /// `text` without a wildcard.
    Exact(Box<str>),
    /// `text*`: the common one.
    Prefix(Box<str>),
    /// `*text`.
    Suffix(Box<str>),
    /// Everything else.
    Tokens(Box<[Token]>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(Box<str>),
    One,
    Any,
}

impl Glob {
    /// Compiles a pattern; the error says what is wrong with it.
    pub(super) fn parse(pattern: &str) -> Result<Self, &'static str> {
        let mut tokens = Vec::new();
        let mut literal = String::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => literal.push(chars.next().ok_or("it ends in a backslash that escapes nothing")?),
                '*' | '?' => {
                    if !literal.is_empty() {
                        tokens.push(Token::Literal(std::mem::take(&mut literal).into()));
                    }
                    if c == '?' {
                        tokens.push(Token::One);
                    } else if tokens.last() != Some(&Token::Any) {
                        tokens.push(Token::Any);
                    }
                }
                c => literal.push(c),
            }
        }
        if !literal.is_empty() {
            tokens.push(Token::Literal(literal.into()));
        }
        Ok(Self(match &tokens[..] {
            [] => return Err("it is empty"),
            [Token::Literal(text)] => Shape::Exact(text.clone()),
            [Token::Literal(text), Token::Any] => Shape::Prefix(text.clone()),
            [Token::Any, Token::Literal(text)] => Shape::Suffix(text.clone()),
            _ => Shape::Tokens(tokens.into()),
        }))
    }

    /// Whether the whole value matches.
    pub(super) fn matches(&self, value: &str) -> bool {
        match &self.0 {
            Shape::Exact(text) => value == &**text,
            Shape::Prefix(text) => value.as_bytes().starts_with(text.as_bytes()),
            Shape::Suffix(text) => value.as_bytes().ends_with(text.as_bytes()),
            Shape::Tokens(tokens) => walk(tokens, value),
        }
    }

    /// What every matching value begins with; may be empty.
    pub(super) fn literal_prefix(&self) -> &str {
        match &self.0 {
            Shape::Exact(text) | Shape::Prefix(text) => text,
            Shape::Suffix(_) => "",
            Shape::Tokens(tokens) => match tokens.first() {
                Some(Token::Literal(text)) => text,
                _ => "",
            },
        }
    }
}

/// Matches with one point to fall back to, the latest `*`: earlier ones never need to take more.
fn walk(tokens: &[Token], value: &str) -> bool {
    let (mut at, mut rest) = (0, value);
    let mut fallback: Option<(usize, &str)> = None;
    loop {
        let next = match tokens.get(at) {
            Some(Token::Any) if at + 1 == tokens.len() => return true,
            Some(Token::Any) => {
                fallback = Some((at + 1, rest));
                Some(rest)
            }
            Some(Token::Literal(text)) => rest.strip_prefix(&**text),
            Some(Token::One) => skip_one(rest),
            None if rest.is_empty() => return true,
            None => None,
        };
        if let Some(next) = next {
            (at, rest) = (at + 1, next);
            continue;
        }
        // The latest `*` takes one character more, and what follows it is tried again.
        let Some((after, shorter)) = fallback.and_then(|(after, from)| Some((after, skip_one(from)?))) else {
            return false;
        };
        fallback = Some((after, shorter));
        (at, rest) = (after, shorter);
    }
}

fn skip_one(text: &str) -> Option<&str> {
    let mut chars = text.chars();
    chars.next()?;
    Some(chars.as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reference(pattern: &[char], value: &[char]) -> bool {
        match (pattern, value) {
            ([], []) => true,
            (['*', rest @ ..], _) => (0..=value.len()).any(|n| reference(rest, &value[n..])),
            (['?', rest @ ..], [_, value @ ..]) => reference(rest, value),
            (['\\', p, rest @ ..], [v, value @ ..]) | ([p, rest @ ..], [v, value @ ..]) => {
                p == v && reference(rest, value)
            }
            _ => false,
        }
    }

    #[test]
    fn shapes() {
        for (pattern, yes, no) in [
            ("order.*", "order.placed", "orders"),
            ("*.placed", "order.placed", "order.placed.x"),
            ("a", "a", "ab"),
            ("*", "", "\0none"),
            ("a?c", "aéc", "ac"),
            ("a*b*c", "a1b2bc", "a1c2b"),
            (r"100\*", "100*", "1000"),
        ] {
            let glob = Glob::parse(pattern).unwrap();
            assert!(glob.matches(yes), "{pattern} {yes}");
            assert!(no == "\0none" || !glob.matches(no), "{pattern} {no}");
        }
        assert!(Glob::parse("").is_err());
        assert!(Glob::parse("a\\").is_err());
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_matcher(pattern in r"([abé*?]|\\[ab*]){1,8}", value in "[abé*]{0,9}") {
            let naive = reference(
                &pattern.chars().collect::<Vec<_>>(),
                &value.chars().collect::<Vec<_>>(),
            );
            let glob = Glob::parse(&pattern).unwrap();
            prop_assert_eq!(glob.matches(&value), naive);
            prop_assert!(!naive || value.starts_with(glob.literal_prefix()));
        }
    }
}
