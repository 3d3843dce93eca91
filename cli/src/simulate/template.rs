//! Text with `{{...}}` in it.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::dice::Dice;
use super::function::Function;
use crate::exit::Failure;

/// A parsed template.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Call(Function),
}

/// What a template's functions know about the record that they are asked for.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    /// The record's number, from 0.
    pub(crate) number: u64,
    /// The number of its key, from 1.
    pub(crate) key_number: u64,
    /// Its key, once that is known.
    pub(crate) key: &'a str,
    /// Its headers, as far as they are known.
    pub(crate) headers: &'a [(String, String)],
    /// When it is due.
    pub(crate) time: Timestamp,
}

/// What a template may refer to; a reference to anything else is a mistake that is found at the start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known<'a> {
    /// Whether `{{key}}` is there.
    pub(crate) key: bool,
    /// The headers that are there.
    pub(crate) headers: &'a [String],
}

impl Template {
    /// Parses a text; `place` says in messages where it stands.
    pub(crate) fn parse(text: &str, place: &str, known: Known<'_>) -> Result<Self, Failure> {
        let refuse = |offset: usize, reason: &str| {
            let before = &text[..offset];
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
            Failure::usage(
                "template-invalid",
                format_args!("{place}, line {line}, column {column}: {reason}"),
            )
        };
        let mut parts = Vec::new();
        let mut at = 0;
        while let Some(open) = text[at..].find("{{").map(|found| at + found) {
            if open > at {
                parts.push(Part::Text(text[at..open].to_owned()));
            }
            let (call, end) = Function::parse(text, open + 2, known)
                .map_err(|(offset, reason)| refuse(offset.min(text.len()), &reason))?;
            parts.push(Part::Call(call));
            at = end;
        }
        if at < text.len() {
            parts.push(Part::Text(text[at..].to_owned()));
        }
        Ok(Self { parts })
    }

    /// The text for one record.
    pub(crate) fn render(&self, scene: &Scene<'_>, dice: &mut Dice) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Call(function) => function.write(&mut out, scene, dice),
            }
        }
        out
    }
}

/// Writes two words into one, for e-mail addresses.
pub(super) fn dotted(out: &mut String, first: &str, last: &str) {
    let _ = write!(out, "{}.{}@example.com", first.to_ascii_lowercase(), last.to_ascii_lowercase());
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Known<'static> = Known { key: true, headers: &[] };

    fn render(text: &str, number: u64) -> String {
        let headers = vec![("type".to_owned(), "page.view".to_owned())];
        let known = Known { key: true, headers: &["type".to_owned()] };
        let template = Template::parse(text, "the template", known).unwrap();
        let time = "2026-01-02T03:04:05.678Z".parse().unwrap();
        let scene = Scene { number, key_number: 3, key: "key-3", headers: &headers, time };
        template.render(&scene, &mut Dice::of(1, number))
    }

    #[test]
    fn text_and_calls_alternate() {
        assert_eq!(render("no calls {} } {", 0), "no calls {} } {");
        assert_eq!(render("a{{seq}}b{{ seq( 10 , 5 ) }}", 2), "a2b20");
        assert_eq!(render("{{key}} {{k}} {{header(type)}}", 0), "key-3 3 page.view");
        assert_eq!(render(r#"{{"{{"}}{{'}}'}}"#, 0), "{{}}");
        assert_eq!(
            render("{{now}} {{now(s)}} {{iso_now}}", 0),
            "1767323045678 1767323045 2026-01-02T03:04:05.678Z"
        );
    }

    #[test]
    fn random_values_are_in_their_bounds() {
        for number in 0..500 {
            let int: i64 = render("{{int(-2,2)}}", number).parse().unwrap();
            assert!((-2..=2).contains(&int));
            let float: f64 = render("{{float(1, 2, 3)}}", number).parse().unwrap();
            assert!((1.0..=2.0).contains(&float));
            assert!(["a", "b c", "d,)"].contains(&render(r#"{{choice(a, "b c", 'd,)')}}"#, number).as_str()));
            assert!(["true", "false"].contains(&render("{{bool}}", number).as_str()));
            assert_eq!(render("{{bool(0)}}", number), "false");
            assert_eq!(render("{{hex(5)}}", number).len(), 5);
            let uuid: uuid::Uuid = render("{{uuid}}", number).parse().unwrap();
            assert_eq!(uuid.get_version_num(), 4);
            assert!(render("{{email}}", number).ends_with("@example.com"));
            assert_eq!(render("{{name}}", number).split(' ').count(), 2);
            assert_eq!(render("{{words(3)}}", number).split(' ').count(), 3);
        }
        assert!(render("{{int(-9223372036854775808,9223372036854775807)}}", 1).parse::<i64>().is_ok());
    }

    #[test]
    fn weights_weigh() {
        let count =
            |value: &str| (0..2000).filter(|n| render("{{weighted(a:90, b:10, c:0)}}", *n) == value).count();
        assert!((1700..1900).contains(&count("a")), "{}", count("a"));
        assert_eq!(count("c"), 0);
    }

    #[test]
    fn the_same_seed_gives_the_same_text() {
        let text = "{{uuid}} {{int(1,1000)}} {{float(0,1)}} {{choice(a,b,c)}} {{word}} {{hex(8)}}";
        assert_eq!(render(text, 9), render(text, 9));
        assert_ne!(render(text, 9), render(text, 10));
    }

    #[test]
    fn mistakes_are_found_at_the_start_with_their_place() {
        for (text, hint) in [
            ("a\n {{nope}}", "line 2, column 4: there is no function \"nope\""),
            ("{{uuid", "not closed"),
            ("{{int(1)}}", "int(lowest, highest)"),
            ("{{int(5,1)}}", "lowest"),
            ("{{int(a,b)}}", "\"a\" is not a whole number"),
            ("{{float(0,1,99)}}", "0 to 17"),
            ("{{choice()}}", "choice"),
            ("{{weighted(a)}}", "value:weight"),
            ("{{weighted(a:0)}}", "weight"),
            ("{{weighted(a:-1)}}", "weight"),
            ("{{bool(2)}}", "0 to 1"),
            ("{{hex(0)}}", "1 to 1024"),
            ("{{header(type)}}", "no header \"type\""),
            ("{{now(h)}}", "ms or s"),
            ("{{choice('a}}", "not closed"),
            ("{{uuid uuid}}", "expected"),
            ("{{}}", "empty"),
        ] {
            let failure = Template::parse(text, "the template", ALL).unwrap_err();
            assert_eq!(failure.code(), "template-invalid");
            assert!(failure.to_string().contains(hint), "{text}: {failure}");
        }
        let no_key = Known { key: false, headers: &[] };
        let failure = Template::parse("{{key}}", "--key", no_key).unwrap_err();
        assert!(failure.to_string().contains("--key, line 1"), "{failure}");
    }
}
