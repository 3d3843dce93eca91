//! From a seed and a number to a record.

use std::path::Path;

use headworks_record::{Headers, PartitionKey, Record};
use jiff::Timestamp;

use super::dice::Dice;
use super::keys::Keys;
use super::template::{Known, Scene, Template};
use crate::exit::Failure;
use crate::pair::Pair;

/// A website event, for whoever gives no template of their own.
const EVENT: &str = r#"{"id":"{{uuid}}","type":"{{header(type)}}","session":"{{key}}","customer":"{{name}}","page":"/{{word}}/{{word}}","amount":{{float(1,250)}},"at":"{{iso_now}}"}"#;
const EVENT_HEADERS: [(&str, &str); 3] = [
    ("type", "{{weighted(page.view:70, cart.add:15, order.placed:9, payment.captured:6)}}"),
    ("tenant", "{{choice(acme, globex, initech)}}"),
    ("content-type", "application/json"),
];
/// Keys of records, unless something else is asked for.
pub(crate) const KEY: &str = "key-{{k}}";

/// What records look like. A record depends on the plan, its number and its time alone.
#[derive(Debug)]
pub(crate) struct Plan {
    body: Template,
    key: Template,
    headers: Vec<(String, Template)>,
    keys: Keys,
    seed: u64,
}

/// What the command line says about records.
#[derive(Debug)]
pub(crate) struct Wishes<'a> {
    /// The template's text, and where it stands; `None` for the built-in website event.
    pub(crate) body: Option<(String, String)>,
    pub(crate) key: &'a str,
    pub(crate) headers: &'a [Pair],
    pub(crate) keys: u64,
    pub(crate) skew: f64,
    pub(crate) seed: u64,
}

impl Plan {
    /// Parses the templates and tries them on one record.
    pub(crate) fn new(wishes: Wishes<'_>) -> Result<Self, Failure> {
        let built_in = EVENT_HEADERS.map(|(name, value)| Pair { name: name.into(), value: value.into() });
        let pairs: Vec<&Pair> = match (&wishes.body, wishes.headers) {
            // The built-in event refers to its own headers: what is given replaces or adds.
            (None, given) => {
                let kept = built_in.iter().filter(|own| given.iter().all(|pair| pair.name != own.name));
                given.iter().chain(kept).collect()
            }
            (Some(_), given) => given.iter().collect(),
        };
        let key = Template::parse(wishes.key, "--key", Known { key: false, headers: &[] })?;
        let mut names: Vec<String> = Vec::new();
        let mut headers = Vec::new();
        for pair in pairs {
            if names.contains(&pair.name) {
                return Err(Failure::usage(
                    "header-repeated",
                    format_args!("the header {:?} is given twice; give it once", pair.name),
                ));
            }
            let place = format!("--header {}", pair.name);
            let value = Template::parse(&pair.value, &place, Known { key: true, headers: &names })?;
            names.push(pair.name.clone());
            headers.push((pair.name.clone(), value));
        }
        let (text, place) =
            wishes.body.unwrap_or_else(|| (EVENT.to_owned(), "the built-in template".to_owned()));
        let body = Template::parse(&text, &place, Known { key: true, headers: &names })?;
        let keys = Keys::new(wishes.keys, wishes.skew);
        let plan = Self { body, key, headers, keys, seed: wishes.seed };

        let first = plan.record(0, Timestamp::UNIX_EPOCH)?;
        let start = text.trim_start();
        let like_json = (start.starts_with('{') && !start.starts_with("{{")) || start.starts_with('[');
        if like_json && let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&first.data) {
            let shown: String = String::from_utf8_lossy(&first.data).chars().take(200).collect();
            return Err(Failure::usage(
                "template-not-json",
                format_args!(
                    "{place} begins like JSON but does not become JSON: {error} in {shown}; put quotes around {{{{...}}}} that give text"
                ),
            ));
        }
        Ok(plan)
    }

    /// The record of this number (from 0), due at this time.
    pub(crate) fn record(&self, number: u64, time: Timestamp) -> Result<Record, Failure> {
        let dice = &mut Dice::of(self.seed, number);
        let key_number = self.keys.draw(dice);
        let mut headers: Vec<(String, String)> = Vec::with_capacity(self.headers.len());
        let key = self.key.render(&Scene { number, key_number, key: "", headers: &[], time }, dice);
        for (name, template) in &self.headers {
            let value =
                template.render(&Scene { number, key_number, key: &key, headers: &headers, time }, dice);
            headers.push((name.clone(), value));
        }
        let body = self.body.render(&Scene { number, key_number, key: &key, headers: &headers, time }, dice);
        let build = || {
            let mut checked = Headers::new();
            for (name, value) in headers {
                checked.set(name, value)?;
            }
            Ok(Record {
                key: PartitionKey::new(key)?,
                explicit_hash_key: None,
                headers: checked,
                data: body.into(),
            })
        };
        build().map_err(|failure: Failure| failure.at(format_args!("record {}", number + 1)))
    }
}

/// The text of `--template`, and where it stands: what has a brace in it is the template itself, anything
/// else a file.
pub(crate) fn template_text(argument: &str) -> Result<(String, String), Failure> {
    if argument.contains('{') {
        return Ok((argument.to_owned(), "--template".to_owned()));
    }
    let text = std::fs::read_to_string(Path::new(argument)).map_err(|error| {
        Failure::environment(
            "template-unreadable",
            format_args!(
                "the template file {argument:?} cannot be read: {error}; check the path, or write the template itself, which has a brace in it"
            ),
        )
    })?;
    // Editors end files with a newline; it is no part of the record.
    Ok((text.strip_suffix('\n').unwrap_or(&text).to_owned(), argument.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes<'a>(body: Option<&str>, headers: &'a [Pair]) -> Wishes<'a> {
        let body = body.map(|text| (text.to_owned(), "--template".to_owned()));
        Wishes { body, key: KEY, headers, keys: 10, skew: 1.0, seed: 7 }
    }

    fn pairs(texts: &[&str]) -> Vec<Pair> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_built_in_event_is_json_and_says_its_type_twice() {
        let plan = Plan::new(wishes(None, &[])).unwrap();
        for number in 0..100 {
            let record = plan.record(number, Timestamp::UNIX_EPOCH).unwrap();
            let body: serde_json::Value = serde_json::from_slice(&record.data).unwrap();
            assert_eq!(body["type"].as_str(), record.headers.get("type"));
            assert_eq!(body["session"].as_str(), Some(record.key.as_str()));
        }
    }

    #[test]
    fn a_record_depends_on_seed_and_number_alone() {
        let headers = pairs(&["type={{choice(a,b)}}"]);
        let plan = |seed| Plan::new(Wishes { seed, ..wishes(Some("{{uuid}} {{seq}}"), &headers) }).unwrap();
        let time = Timestamp::UNIX_EPOCH;
        let forwards: Vec<_> = (0..50).map(|n| plan(7).record(n, time).unwrap()).collect();
        let backwards: Vec<_> = (0..50).rev().map(|n| plan(7).record(n, time).unwrap()).collect();
        assert!(forwards.iter().eq(backwards.iter().rev()));
        assert_ne!(plan(8).record(0, time).unwrap(), forwards[0]);
    }

    #[test]
    fn given_headers_replace_those_of_the_built_in_event() {
        let headers = pairs(&["type=order.placed", "x=1"]);
        let record = Plan::new(wishes(None, &headers)).unwrap().record(0, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(record.headers.get("type"), Some("order.placed"));
        assert_eq!(record.headers.len(), 4);
    }

    #[test]
    fn mistakes_are_found_before_anything_is_sent() {
        for (body, headers, key, code) in [
            (Some(r#"{"a":{{word}}}"#), vec![], KEY, "template-not-json"),
            (Some("x"), vec!["Type=x"], KEY, "header-name-invalid"),
            (Some("x"), vec!["a=1", "a=2"], KEY, "header-repeated"),
            (Some("x"), vec!["a={{header(b)}}", "b=1"], KEY, "template-invalid"),
            (Some("x"), vec![], "", "key-empty"),
            (Some("x"), vec![], "{{hex(300)}}", "key-too-long"),
        ] {
            let headers = pairs(&headers);
            let failure = Plan::new(Wishes { key, ..wishes(body, &headers) }).unwrap_err();
            assert_eq!(failure.code(), code, "{failure}");
        }
        let failure = template_text("/no/such/template").unwrap_err();
        assert_eq!(failure.code(), "template-unreadable");
    }
}
