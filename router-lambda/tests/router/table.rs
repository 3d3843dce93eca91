//! Route tables: exact against a naive interpreter; bad ones refused with line, reason and remedy.

use std::collections::BTreeSet;

use std::sync::Arc;

use bytes::Bytes;
use headworks_record::{Creation, Headers, PartitionKey, Record};
use headworks_router::Router;
use headworks_router::table::{
    self, RouteTable, Subject, Verdict, explain, explain_subject, route, route_subject,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn headers(pairs: &[(&str, &str)]) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in pairs {
        headers.set(*name, *value).unwrap();
    }
    headers
}

fn streams<'t>(table: &'t RouteTable, pairs: &[(&str, &str)]) -> Vec<&'t str> {
    route(&headers(pairs), table).streams().collect()
}

#[test]
fn the_example_routes_website_events() {
    let table = RouteTable::load(concat!(env!("CARGO_MANIFEST_DIR"), "/routes.example.toml")).unwrap();
    for (kind, stream) in [
        ("order.placed", "orders"),
        ("payment.failed", "payments"),
        ("page.view", "clicks"),
        ("cart.add", "clicks"),
        ("click", "clicks"),
        ("click.banner", "clicks"),
        ("orders", "default"),
        ("login", "default"),
    ] {
        assert_eq!(streams(&table, &[("type", kind)]), [stream], "{kind}");
    }
    assert_eq!(streams(&table, &[]), ["default"]);
    assert_eq!(table.streams(), ["orders", "payments", "clicks", "default"]);
}

#[test]
fn all_matches_is_a_set_and_a_drop_ends_the_walk() {
    let table = RouteTable::from_toml(
        r#"
        mode = "all-matches"
        [[rules]]
        to = ["archive"]
        [[rules]]
        when.debug = "true"
        drop = true
        [[rules]]
        when.type.one-of = ["a", "b"]
        to = ["ab", "archive"]
        [[rules]]
        when.type.not.equals = "a"
        to = ["ab"]
        [default]
        drop = true
        "#,
    )
    .unwrap();
    assert_eq!(streams(&table, &[("type", "a")]), ["archive", "ab"]);
    assert_eq!(streams(&table, &[("type", "b")]), ["archive", "ab"]);
    assert_eq!(streams(&table, &[]), ["archive", "ab"]);
    assert_eq!(streams(&table, &[("type", "b"), ("debug", "true")]), ["archive"]);
}

#[test]
fn transforms_change_headers() {
    let table = RouteTable::from_json(
        r#"{"rules": [{"when": {"type": "a"}, "to": "s", "set": {"team": "x"}, "remove": "debug"}],
            "default": {"to": "d"}}"#,
    )
    .unwrap();
    let mut headers = headers(&[("type", "a"), ("debug", "1"), ("team", "y")]);
    let destination = route(&headers, &table).iter().next().unwrap();
    assert!(!destination.transform.is_identity());
    destination.transform.apply(&mut headers, &mut Bytes::new()).unwrap();
    assert_eq!(headers.iter().collect::<Vec<_>>(), [("type", "a"), ("team", "x")]);
}

#[test]
fn an_explanation_says_what_was_tried_and_why() {
    let table = RouteTable::from_toml(
        r#"
[[rules]]
name = "gold"
when.tier = "gold"
when.type.glob = "order.*"
to = "gold"

[[rules]]
when.type.prefix = "order"
to = "orders"

[[rules]]
when.type = "late"
drop = true

[default]
to = "default"
"#,
    )
    .unwrap();
    let explanation = explain(&headers(&[("type", "order.placed")]), &table);
    let verdicts: Vec<Verdict> = explanation.rules.iter().map(|step| step.verdict).collect();
    assert_eq!(verdicts, [Verdict::NotMatched, Verdict::Matched, Verdict::NotTried]);
    assert_eq!(explanation.rules.iter().map(|step| step.line).collect::<Vec<_>>(), [2, 8, 12]);
    assert_eq!(
        explanation.to_string(),
        "rule 1 \"gold\" (line 2) did not match
    no  tier equals \"gold\"; it is absent
    yes type matches the glob \"order.*\"; it is \"order.placed\"
rule 2 (line 8) matched
    yes type begins with \"order\"; it is \"order.placed\"
rule 3 (line 12) was not tried: a rule before it decided
-> orders"
    );
    let dropped = explain(&headers(&[("type", "late")]), &table);
    assert!(dropped.dropped && !dropped.default);
    let value = serde_json::to_value(explain(&headers(&[]), &table)).unwrap();
    assert_eq!((&value["default"], &value["destinations"][0]["stream"]), (&json!(true), &json!("default")));
    assert_eq!(value["rules"][0]["verdict"], json!("not-matched"));
}

#[test]
fn bad_tables_are_refused_with_line_reason_and_remedy() {
    let default = "[default]\nto = \"d\"\n";
    for (text, line, says) in [
        ("mode = \"some\"\n", 1, "all-matches"),
        ("\n\nrulez = 1\n", 3, "rulez"),
        ("rules = [\n", 1, ""),
        ("[[rules]]\nwhen.type = \"a\"\nto = \"s\"\n", 1, "add [default]"),
        ("\n[[rules]]\nwhen.type.like = \"a\"\nto = \"s\"\n", 3, "like"),
        ("\n[[rules]]\nwhen.type.glob = \"\"\nto = \"s\"\n", 2, "the glob \"\" is refused: it is empty"),
        ("\n[[rules]]\nwhen.type.prefix = \"\"\nto = \"s\"\n", 2, "use exists = true"),
        ("\n[[rules]]\nwhen.type.one-of = []\nto = \"s\"\n", 2, "never holds"),
        ("\n[[rules]]\nwhen.type.one-of = [\"a\", \"a\"]\nto = \"s\"\n", 2, "\"a\" twice"),
        ("\n[[rules]]\nwhen.type = {}\nto = \"s\"\n", 2, "the condition is empty"),
        ("\n[[rules]]\nwhen.type = { exists = false, equals = \"a\" }\nto = \"s\"\n", 2, "contradicts"),
        ("\n[[rules]]\nwhen.Type = \"a\"\nto = \"s\"\n", 2, "for example to \"type\""),
        ("\n[[rules]]\nwhen.hw-t = \"a\"\nto = \"s\"\n", 2, "reserved"),
        ("\n[[rules]]\nwhen.type = \"a\"\n", 2, "it names no destination"),
        ("\n[[rules]]\nwhen.type = \"a\"\nto = \"s\"\ndrop = true\n", 2, "remove drop = true"),
        ("\n[[rules]]\nwhen.type = \"a\"\nto = \"s\"\ndead-letter = true\n", 2, "remove dead-letter = true"),
        ("\n[[rules]]\nwhen.type = \"a\"\ndrop = true\ndead-letter = true\n", 2, "what else to do"),
        ("\n[[rules]]\nwhen.type = \"a\"\nrename.a = \"b\"\ndrop = true\n", 2, "what else to do"),
        ("\n[[rules]]\nsample = 0\nto = \"s\"\n", 2, "sample = 0 is no share"),
        ("\n[[rules]]\nsample = 1.5\nto = \"s\"\n", 2, "above 0 and up to 1"),
        ("\n[[rules]]\nsample = nan\nto = \"s\"\n", 2, "sample = NaN"),
        ("[[rules]]\nsample = 1\nto = \"s\"\n[[rules]]\nto = \"s\"\n", 4, "it is never reached"),
        ("\n[[rules]]\nto = \"s\"\nrename.a = \"a\"\n", 2, "to the name that it has"),
        (
            "\n[[rules]]\nto = \"s\"\nrename.a = \"c\"\nrename.b = \"c\"\n",
            2,
            "two headers are renamed to \"c\"",
        ),
        ("\n[[rules]]\nto = \"s\"\nrename.a = \"c\"\nset.c = \"c\"\n", 2, "and set or removed as well"),
        ("\n[[rules]]\nto = \"s\"\nrename.a = \"c\"\nremove = \"a\"\n", 2, "and set or removed as well"),
        ("\n[[rules]]\nto = \"s\"\nrename.a = \"hw-c\"\n", 2, "reserved"),
        ("\n[[rules]]\nto = \"s\"\npayload = {}\n", 2, "payload is empty"),
        ("\n[[rules]]\nto = \"s\"\npayload.keep = \"a\"\n", 2, "does not begin with \"/\""),
        (
            "\n[[rules]]\nto = \"s\"\npayload.keep = \"/a\"\npayload.drop = \"/b\"\n",
            2,
            "both keeps and drops",
        ),
        ("\n[[rules]]\nto = \"s\"\npayload.drop = [\"/a/b\", \"/a\"]\n", 2, "lies within the other"),
        (
            "\n[[rules]]\nto = \"s\"\npayload.drop = \"/a\"\npayload.rename.\"/a/b\" = \"c\"\n",
            2,
            "it is not kept",
        ),
        (
            "\n[[rules]]\nto = \"s\"\npayload.keep = \"/a\"\npayload.rename.\"/b\" = \"c\"\n",
            2,
            "it is not kept",
        ),
        (
            "\n[[rules]]\nto = \"s\"\npayload.rename = { \"/a\" = \"c\", \"/b\" = \"c\" }\n",
            2,
            "two fields of one object",
        ),
        ("\n[[rules]]\nto = \"s\"\npayload.rename.\"/a/c\" = \"c\"\n", 2, "to the name that it has"),
        ("\n[[rules]]\nto = \"s\"\nspill-after = \"5\"\n", 2, "spill-after is \"5\""),
        ("\n[[rules]]\ndrop = true\nspill-after = \"5m\"\n", 2, "what else to do"),
        (
            "\n[[rules]]\nexpr = \"ky == 'a'\"\nto = \"s\"\n",
            2,
            "an expression knows headers, key and payload",
        ),
        ("\n[[rules]]\nexpr = \"\"\nto = \"s\"\n", 2, "its expression is not understood"),
        (
            "\n[[rules]]\nto = \"s\"\nenrich = { table = \"ab\", key = \"k\", key-from = \"h\", attributes = { a = \"b\" } }\n",
            2,
            "is no table's name",
        ),
        (
            "\n[[rules]]\nto = \"s\"\nenrich = { table = \"abc\", key = \"k\", key-from = \"/~\", attributes = { a = \"b\" } }\n",
            2,
            "the JSON pointer",
        ),
        (
            "\n[[rules]]\nto = \"s\"\nenrich = { table = \"abc\", key = \"k\", key-from = \"h\", attributes = { a = \"hw-b\" } }\n",
            2,
            "reserved",
        ),
        (
            "\n[[rules]]\nto = \"s\"\nenrich = { table = \"abc\", key = \"k\", key-from = \"h\", attributes = { a = \"b\" }, timeout = \"1h\" }\n",
            2,
            "give from 10ms to 10s",
        ),
        ("\n\n[derive]\nType = \"/a\"\n", 3, "for example to \"type\""),
        ("\n\n[derive]\ntype = \"/~a\"\n", 3, "neither 0 nor 1"),
        ("\n[[rules]]\nwhen.type = \"a\"\nto = \"s p\"\n", 2, "\"s p\" is no stream name"),
        ("\n[[rules]]\nwhen.type = \"a\"\nto = [\"s\", \"s\"]\n", 2, "\"s\" twice"),
        ("\n[[rules]]\nwhen.type = \"a\"\nto = \"s\"\nset.hw-x = \"1\"\n", 2, "reserved"),
        (
            "\n[[rules]]\nwhen.type = \"a\"\nto = \"s\"\nset.x = \"1\"\nremove = [\"x\"]\n",
            2,
            "both set and removed",
        ),
        (
            "[[rules]]\nto = \"s\"\n\n[[rules]]\nname = \"late\"\nto = \"s\"\n",
            4,
            "rule 2 \"late\": it is never reached",
        ),
    ] {
        let text = if says == "add [default]" || says.is_empty() {
            text.to_owned()
        } else {
            format!("{text}{default}")
        };
        let error = RouteTable::from_toml(&text).unwrap_err();
        assert_eq!(error.line(), Some(line), "{text}: {error}");
        assert!(error.to_string().contains(says), "{text}: {error}");
        assert!(error.to_string().starts_with(&format!("the route table, line {line}")), "{error}");
    }
    let error = RouteTable::from_json(
        "{\n \"rules\": [\n  {\"to\": \"s\"},\n  {\"to\": \"s\"}],\n\"default\": {\"to\": \"d\"}}",
    );
    assert_eq!(error.unwrap_err().line(), Some(4));
    let error = RouteTable::from_json("{\n \"rulez\": []}").unwrap_err();
    assert!(
        matches!(&error, table::Error::Syntax { line: 2, reason, .. } if reason.contains("rulez") && !reason.contains("line")),
        "{error}"
    );
    let error =
        RouteTable::from_json(r#"{"rules": [{"when": {"a": "1", "a": "2"}, "to": "s"}]}"#).unwrap_err();
    assert!(error.to_string().contains("\"a\" stands here twice"), "{error}");
    assert_eq!(RouteTable::load("/nowhere/routes.toml").unwrap_err().code(), "route-table-unreadable");
    assert_eq!(RouteTable::load("routes.yaml").unwrap_err().code(), "route-table-format-unknown");
}

#[test]
fn one_record_never_goes_to_one_stream_in_two_forms() {
    let table = |first: &str, second: &str| {
        RouteTable::from_toml(&format!(
            "mode = \"all-matches\"\n[[rules]]\n{first}\nto = \"s\"\nset.x = \"1\"\n[[rules]]\n{second}\nto = \"s\"\n[default]\nto = \"d\"\n"
        ))
    };
    for (first, second) in [
        ("when.a = \"1\"", "when.b = \"1\""),
        ("when.a.prefix = \"x\"", "when.a.glob = \"x*\""),
        ("when.a.glob = \"*x\"", "when.a.glob = \"y*\""),
        ("when.a.not.equals = \"1\"", "when.a.not.equals = \"2\""),
        ("", "when.a = \"1\""),
    ] {
        let error = table(first, second).unwrap_err();
        assert_eq!(error.line(), Some(6), "{error}");
        assert!(error.to_string().contains("line 2 may match the same record"), "{error}");
        assert!(error.to_string().contains("first-match"), "{error}");
    }
    for (first, second) in [
        ("when.a = \"1\"", "when.a = \"2\""),
        ("when.a.one-of = [\"1\", \"2\"]", "when.a.glob = \"3*\""),
        ("when.a.prefix = \"order.\"", "when.a.glob = \"payment.*\""),
        ("when.a.exists = false", "when.a.prefix = \"x\""),
        ("when.a.glob = \"x*\"", "when.a.not.glob = \"x*\""),
        ("when.a = { prefix = \"x\", not = { equals = \"xy\" } }", "when.a = \"xy\""),
    ] {
        assert!(table(first, second).is_ok(), "{first} {second}");
    }
}

#[test]
fn headers_are_renamed_all_at_once() {
    let table = RouteTable::from_toml(
        "[default]\nto = \"d\"\nremove = \"x\"\nset.z = \"1\"\nrename = { a = \"b\", b = \"a\", c = \"e\", f = \"g\" }\n",
    )
    .unwrap();
    let mut headers = headers(&[("e", "old"), ("a", "1"), ("b", "2"), ("c", "3"), ("g", "4"), ("x", "5")]);
    let destination = route(&headers, &table).iter().next().unwrap();
    destination.transform.apply(&mut headers, &mut Bytes::new()).unwrap();
    let mut pairs: Vec<_> = headers.iter().collect();
    pairs.sort();
    assert_eq!(pairs, [("a", "2"), ("b", "1"), ("e", "3"), ("g", "4"), ("z", "1")]);
}

#[test]
fn headers_come_from_the_payload_where_the_producer_set_none() {
    let table = RouteTable::from_toml(
        r#"
        [derive]
        type = "/event/type"
        first = "/list/0"
        big = "/big"
        none = "/event"
        [[rules]]
        when.type = "a"
        to = "a"
        [default]
        to = "d"
        "#,
    )
    .unwrap();
    let derive = |given: &[(&str, &str)], data: &[u8]| {
        let mut headers = headers(given);
        table.derive(&mut headers, data).map(|()| {
            let pairs = headers.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(" ");
            (pairs, route(&headers, &table).streams().next().unwrap())
        })
    };
    let data = br#"{"event": {"type": "a"}, "list": [true], "big": 12345678901234567890123.0}"#;
    assert_eq!(
        derive(&[], data).unwrap(),
        ("big=12345678901234567890123.0 first=true type=a".to_owned(), "a")
    );
    assert_eq!(derive(&[("type", "b")], data).unwrap().1, "d", "the producer's header stands");
    for data in [&b""[..], b"\xff{", b"{\"event\":{\"type\":\"a\"}", b"\"a\"", b"[]", b"null"] {
        assert_eq!(derive(&[], data).unwrap(), (String::new(), "d"));
    }
    let long = format!(r#"{{"event":{{"type":"{}"}}}}"#, "x".repeat(3000));
    assert_eq!(derive(&[], long.as_bytes()).unwrap_err().code(), "header-value-too-long");
}

#[test]
fn a_payload_that_cannot_be_changed_is_refused() {
    let table = RouteTable::from_toml("[default]\nto = \"d\"\npayload.drop = \"/secret\"\n").unwrap();
    let transform = &route(&Headers::new(), &table).iter().next().unwrap().transform;
    for data in [&b"secret"[..], b"[{\"secret\":1}]", b"{\"secret\":1} x", b""] {
        let mut bytes = Bytes::from_static(data);
        let error = transform.apply(&mut Headers::new(), &mut bytes).unwrap_err();
        assert_eq!((error.code(), &bytes[..]), ("payload-not-an-object", data));
    }
}

#[test]
fn dead_letters_by_rule_and_samples_are_explained() {
    let table = RouteTable::from_toml(
        r#"
mode = "all-matches"
[[rules]]
sample = 0.5
to = "half"
[[rules]]
name = "tests"
when.type = "test"
dead-letter = true
[[rules]]
to = "all"
rename.a = "b"
payload.keep = ["/x", "/y"]
[default]
dead-letter = true
"#,
    )
    .unwrap();
    assert!(table.uses_dead_letters());
    let destinations = route(&headers(&[("type", "test")]), &table);
    assert_eq!(destinations.dead_letter().as_deref(), Some("rule 2 \"tests\""));
    assert!(destinations.is_empty() && !destinations.is_dropped());
    assert_eq!(
        explain(&headers(&[("type", "test")]), &table).to_string(),
        "rule 1 (line 3) did not match
    no  in the share of 0.5 by identity; it has no creation context
rule 2 \"tests\" (line 6) matched
    yes type equals \"test\"; it is \"test\"
rule 3 (line 10) was not tried: a rule before it decided
to the dead letters, by rule 2 \"tests\""
    );
    let text = explain(&headers(&[]), &table).to_string();
    assert!(text.ends_with("-> all, rename a to b, of the payload keep /x /y"), "{text}");
    let table = RouteTable::from_toml("[default]\ndead-letter = true\n").unwrap();
    assert_eq!(route(&headers(&[]), &table).dead_letter().as_deref(), Some("the default"));
}

#[test]
fn a_share_is_as_large_as_it_says_and_part_of_every_larger_one() {
    let table = |share: f64| {
        let text = format!("[[rules]]\nsample = {share}\nto = \"in\"\n[default]\nto = \"out\"\n");
        RouteTable::from_toml(&text).unwrap()
    };
    let shares = [0.001, 0.1, 0.5, 1.0].map(|share| (share, table(share)));
    let mut counts = [0u32; 4];
    let total = 20_000u32;
    for i in 0..total {
        // Ids that somebody else chose, one after the other.
        let mut headers = Headers::new();
        let trace = headworks_record::TraceId(u128::from(i + 1).to_be_bytes());
        headers.set_creation(Creation::child_of(trace, 0, 5, [7; 8]));
        let inside = shares.each_ref().map(|(_, table)| route(&headers, table).streams().eq(["in"]));
        assert!(inside.is_sorted(), "{inside:?}");
        counts.iter_mut().zip(inside).for_each(|(count, inside)| *count += u32::from(inside));
    }
    for ((share, _), count) in shares.iter().zip(counts) {
        let expected = share * f64::from(total);
        assert!((f64::from(count) - expected).abs() <= 5.0 * expected.sqrt(), "{share}: {count}");
    }
}

#[test]
fn the_schema_for_editors_is_up_to_date_and_knows_every_key() {
    let schema = table::json_schema();
    let text = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/routes.schema.json");
    // HEADWORKS_UPDATE=1 cargo test -p headworks-router
    if std::env::var_os("HEADWORKS_UPDATE").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), text, "run the tests with HEADWORKS_UPDATE=1");

    // The parser names the keys that it knows when it finds one that it does not.
    for (table, place) in [
        (json!({ "?": 1 }), "/properties"),
        (json!({ "rules": [{ "?": 1 }] }), "/$defs/rule/properties"),
        (json!({ "default": { "?": 1 } }), "/$defs/default/properties"),
        (json!({ "default": { "payload": { "?": 1 } } }), "/$defs/payload/properties"),
        (json!({ "default": { "enrich": { "?": 1 } } }), "/$defs/enrich/properties"),
        (json!({ "rules": [{ "when": { "a": { "?": 1 } } }] }), "/$defs/condition/anyOf/1/properties"),
    ] {
        let error = RouteTable::from_json(&table.to_string()).unwrap_err().to_string();
        let known: BTreeSet<&str> = error.split('`').skip(3).step_by(2).collect();
        let listed = schema.pointer(place).and_then(Value::as_object).unwrap();
        assert_eq!(listed.keys().map(String::as_str).collect::<BTreeSet<_>>(), known, "{error}");
    }
    let table = r#"{"$schema": "routes.schema.json", "default": {"drop": true}}"#;
    assert!(RouteTable::from_json(table).is_ok());
}

// ---------------------------------------------------------------------------------------------
// The reference: the table as JSON, interpreted rule by rule, condition by condition.

fn holds(condition: &Value, value: Option<&str>) -> bool {
    if let Some(text) = condition.as_str() {
        return value == Some(text);
    }
    condition.as_object().unwrap().iter().all(|(kind, expected)| match kind.as_str() {
        "equals" => value == expected.as_str(),
        "one-of" => value.is_some_and(|v| expected.as_array().unwrap().contains(&json!(v))),
        "prefix" => value.is_some_and(|v| v.starts_with(expected.as_str().unwrap())),
        "glob" => value.is_some_and(|v| glob(expected.as_str().unwrap(), v)),
        "exists" => value.is_some() == expected.as_bool().unwrap(),
        "not" => !holds(expected, value),
        other => panic!("{other}"),
    })
}

fn glob(pattern: &str, value: &str) -> bool {
    match pattern.chars().next() {
        None => value.is_empty(),
        Some('*') => {
            (0..=value.len()).filter(|n| value.is_char_boundary(*n)).any(|n| glob(&pattern[1..], &value[n..]))
        }
        Some('?') => value.chars().next().is_some_and(|c| glob(&pattern[1..], &value[c.len_utf8()..])),
        Some(p) => value.starts_with(p) && glob(&pattern[p.len_utf8()..], &value[p.len_utf8()..]),
    }
}

/// Stream, headers sorted by name, payload.
type Sent = BTreeSet<(String, Vec<(String, String)>, String)>;

#[derive(Debug, Clone)]
struct Sample {
    key: String,
    headers: Headers,
    data: String,
}

/// The share of an identity, reckoned the long way.
fn place(headers: &Headers) -> f64 {
    let creation = headers.creation().unwrap();
    let ids = [&creation.trace_id.0[..8], &creation.trace_id.0[8..], &creation.span_id.0[..]];
    let modulus = 1u128 << 64;
    let place = ids.iter().fold(0u128, |state, id| {
        let word = u64::from_be_bytes((*id).try_into().unwrap());
        let mut z = ((state ^ u128::from(word)) + 0x9e37_79b9_7f4a_7c15) % modulus;
        z = ((z ^ (z >> 30)) * 0xbf58_476d_1ce4_e5b9) % modulus;
        z = ((z ^ (z >> 27)) * 0x94d0_49bb_1331_11eb) % modulus;
        z ^ (z >> 31)
    });
    place as f64 / modulus as f64
}

/// Where a record goes and in which form; whether it is a dead letter; derived headers included.
fn interpret(table: &Value, sample: &Sample) -> (Sent, bool) {
    let parsed: Option<Value> = serde_json::from_str(&sample.data).ok();
    let mut headers = sample.headers.clone();
    for (name, pointer) in table["derive"].as_object().into_iter().flatten() {
        let found = parsed.as_ref().and_then(|value| value.pointer(pointer.as_str().unwrap()));
        let text = match found {
            Some(Value::String(text)) => text.clone(),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
            _ => continue,
        };
        if headers.get(name).is_none() {
            headers.set(name.clone(), text).unwrap();
        }
    }
    let (mut sent, mut buried, mut matched) = (Sent::new(), false, false);
    let mut add = |action: &Value| {
        buried |= action["dead-letter"] == true;
        for stream in action["to"].as_array().into_iter().flatten() {
            let mut pairs: Vec<(String, String)> = Vec::new();
            for (name, value) in headers.iter() {
                if !strings(&action["remove"]).contains(&name.to_owned()) {
                    let renamed = action["rename"].get(name).and_then(Value::as_str);
                    let taken = |n: &str| {
                        let of = |(a, b): (&String, &Value)| b == n && headers.get(a).is_some();
                        action["rename"].as_object().is_some_and(|map| map.iter().any(of))
                    };
                    if renamed.is_some() || !taken(name) {
                        pairs.push((renamed.unwrap_or(name).to_owned(), value.to_owned()));
                    }
                }
            }
            for (name, value) in action["set"].as_object().into_iter().flatten() {
                pairs.retain(|(n, _)| n != name);
                pairs.push((name.clone(), value.as_str().unwrap().to_owned()));
            }
            pairs.sort();
            let data = match action.get("payload") {
                None => sample.data.clone(),
                Some(fields) => match &parsed {
                    Some(Value::Object(object)) => change(fields, object),
                    _ => "refused".to_owned(),
                },
            };
            sent.insert((stream.as_str().unwrap().to_owned(), pairs, data));
        }
    };
    for rule in table["rules"].as_array().unwrap() {
        let when = rule["when"].as_object().unwrap();
        let sampled = rule["sample"].as_f64().is_none_or(|share| place(&headers) < share);
        if rule
            .get("~expr")
            .is_some_and(|tree| truth(tree, &headers, &sample.key, parsed.as_ref()) != Some(true))
        {
            continue;
        }
        if !sampled || !when.iter().all(|(name, condition)| holds(condition, headers.get(name))) {
            continue;
        }
        matched = true;
        add(rule);
        if table["mode"] == "first-match" || rule["drop"] == true || rule["dead-letter"] == true {
            break;
        }
    }
    if !matched {
        add(&table["default"]);
    }
    (sent, buried)
}

/// What an expression tree says of a record; `None`: it has no truth value.
fn truth(tree: &Value, headers: &Headers, key: &str, payload: Option<&Value>) -> Option<bool> {
    let text = |place: usize| tree[place].as_str().unwrap();
    let of = |place: usize| truth(&tree[place], headers, key, payload);
    match text(0) {
        "has" => Some(headers.get(text(1)).is_some()),
        "is" => headers.get(text(1)).map(|value| value == text(2)),
        "key" => Some(key.starts_with(text(1))),
        "longer" => headers.get(text(1)).map(|value| value.len() as u64 > tree[2].as_u64().unwrap()),
        // A field of what is no object, or of no JSON at all, has no value.
        "field" => match payload? {
            Value::Object(object) => object.get(text(1)).map(|value| *value == tree[2]),
            _ => None,
        },
        "not" => of(1).map(|value| !value),
        // The side that decides makes up for one that has no value, whichever comes first.
        "and" => match (of(1), of(2)) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (a, b) => a.zip(b).map(|(a, b)| a && b),
        },
        _ => match (of(1), of(2)) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (a, b) => a.zip(b).map(|(a, b)| a || b),
        },
    }
}

/// An expression tree as CEL.
fn cel(tree: &Value) -> String {
    let text = |place: usize| tree[place].as_str().unwrap();
    match text(0) {
        "has" => format!("has(headers.{})", text(1)),
        "is" => format!("headers.{} == '{}'", text(1), text(2)),
        "key" => format!("key.startsWith('{}')", text(1)),
        "longer" => format!("size(headers.{}) > {}", text(1), tree[2]),
        "field" => format!("payload.{} == {}", text(1), tree[2]),
        "not" => format!("!({})", cel(&tree[1])),
        "and" => format!("({} && {})", cel(&tree[1]), cel(&tree[2])),
        _ => format!("({} || {})", cel(&tree[1]), cel(&tree[2])),
    }
}

fn trees() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        "[abc]".prop_map(|name| json!(["has", name])),
        ("[abc]", "[ab]{0,2}").prop_map(|(name, value)| json!(["is", name, value])),
        "k[0-2]".prop_map(|start| json!(["key", start])),
        ("[abc]", 0..3u8).prop_map(|(name, size)| json!(["longer", name, size])),
        ("[pq]", prop_oneof![(0..20i64).prop_map(|v| json!(v)), Just(json!(true)), Just(json!("a"))])
            .prop_map(|(name, value)| json!(["field", name, value])),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|tree| json!(["not", tree])),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| json!(["and", a, b])),
            (inner.clone(), inner).prop_map(|(a, b)| json!(["or", a, b])),
        ]
    })
}

/// The table as it is written down: expression trees as CEL.
fn written(table: &Value) -> Value {
    let mut table = table.clone();
    for rule in table["rules"].as_array_mut().unwrap() {
        if let Some(tree) = rule.as_object_mut().unwrap().remove("~expr") {
            rule["expr"] = cel(&tree).into();
        }
    }
    table
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|v| v.as_str().unwrap().to_owned()).collect()
}

/// The payload with each pointer looked at on its own.
fn change(fields: &Value, object: &serde_json::Map<String, Value>) -> String {
    type Path = Vec<String>;
    fn leaves(path: &Path, value: &Value, out: &mut Vec<(Path, Value)>) {
        match value {
            Value::Object(object) => {
                out.push((path.clone(), json!({})));
                for (name, value) in object {
                    leaves(&[&path[..], std::slice::from_ref(name)].concat(), value, out);
                }
            }
            value => out.push((path.clone(), value.clone())),
        }
    }
    let pointer = |text: &String| -> Path { text[1..].split('/').map(str::to_owned).collect() };
    let mut all = Vec::new();
    leaves(&Path::new(), &Value::Object(object.clone()), &mut all);
    let keep: Vec<Path> = strings(&fields["keep"]).iter().map(pointer).collect();
    let drop: Vec<Path> = strings(&fields["drop"]).iter().map(pointer).collect();
    let stays = |path: &Path, value: &Value| {
        !drop.iter().any(|p| path.starts_with(p))
            && (keep.is_empty()
                || keep.iter().any(|p| path.starts_with(p) || (p.starts_with(path) && value.is_object())))
    };
    all.retain(|(path, value)| stays(path, value));
    let renames: Vec<(Path, String)> = fields["rename"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(p, name)| (pointer(p), name.as_str().unwrap().to_owned()))
        .collect();
    let present: BTreeSet<Path> = all.iter().map(|(path, _)| path.clone()).collect();
    let renamed = |path: &Path| renames.iter().find(|(p, _)| p == path).map(|(_, name)| name);
    // A field that a renamed one replaces goes, with all below it.
    let replaced = |path: &Path| {
        let (name, parent) = path.split_last().unwrap();
        renamed(path).is_none()
            && renames
                .iter()
                .any(|(p, new)| new == name && present.contains(p) && p[..p.len() - 1] == *parent)
    };
    let mut result = json!({});
    for (path, value) in &all {
        if (1..=path.len()).any(|n| replaced(&path[..n].to_vec())) || path.is_empty() {
            continue;
        }
        let mut place = &mut result;
        for n in 1..=path.len() {
            let name = renamed(&path[..n].to_vec()).unwrap_or(&path[n - 1]);
            place = place.as_object_mut().unwrap().entry(name.clone()).or_insert_with(|| json!({}));
        }
        *place = value.clone();
    }
    result.to_string()
}

fn condition() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        "[ab]{0,2}".prop_map(|v| json!(v)),
        "[ab]{0,2}".prop_map(|v| json!({ "equals": v })),
        prop::collection::btree_set("[ab]{0,2}", 1..4).prop_map(|v| json!({ "one-of": v })),
        "[ab]{1,2}".prop_map(|v| json!({ "prefix": v })),
        "[ab*?]{1,3}".prop_map(|v| json!({ "glob": v })),
        any::<bool>().prop_map(|v| json!({ "exists": v })),
        ("[ab]{1,2}", "[ab*?]{1,3}").prop_map(|(p, g)| json!({ "prefix": p, "glob": g, "exists": true })),
    ];
    leaf.prop_recursive(2, 4, 1, |inner| {
        (inner, prop::option::of("[ab]{1,1}")).prop_map(|(inner, prefix)| match prefix {
            Some(prefix) => json!({ "not": inner, "prefix": prefix }),
            None => json!({ "not": inner }),
        })
    })
}

fn action() -> impl Strategy<Value = Value> {
    let pointers = prop::collection::btree_set("/[pq](/[pq]){0,2}", 1..3);
    let renames = prop::collection::btree_map("/[pq](/[pq]){0,1}", "[pqr]", 0..2);
    let payload = (any::<bool>(), pointers, renames).prop_map(
        |(keep, fields, rename)| json!({ if keep { "keep" } else { "drop" }: fields, "rename": rename }),
    );
    prop_oneof![
        1 => Just(json!({ "drop": true })),
        1 => Just(json!({ "dead-letter": true })),
        6 => prop::collection::btree_set("s[1-4]", 1..3).prop_map(|to| json!({ "to": to })),
        2 => ("t[1-3]", "[xy]").prop_map(|(to, v)| json!({ "to": [to], "set": { "z": v }, "remove": ["d"] })),
        2 => ("u[1-3]", prop::collection::btree_map("[abc]", "[abce]", 1..3))
            .prop_map(|(to, rename)| json!({ "to": [to], "rename": rename })),
        2 => ("v[1-3]", payload).prop_map(|(to, payload)| json!({ "to": [to], "payload": payload })),
    ]
}

fn tables() -> impl Strategy<Value = Value> {
    let sample = prop::option::weighted(0.2, prop_oneof![Just(0.25), Just(0.5), Just(1.0)]);
    let expr = prop::option::weighted(0.15, trees());
    let rule = (prop::collection::btree_map("[abc]", condition(), 1..3), expr, sample, action())
        .prop_map(|(when, expr, sample, mut rule)| {
            rule["when"] = json!(when);
            if let Some(tree) = expr {
                rule["~expr"] = tree;
            }
            if let Some(sample) = sample {
                rule["sample"] = json!(sample);
            }
            rule
        })
        .boxed();
    // More than 64 rules now and then: the masks then have several words.
    let rules = prop_oneof![
        9 => prop::collection::vec(rule.clone(), 0..8),
        1 => prop::collection::vec(rule, 60..140),
    ];
    let derive = prop::collection::btree_map("[abc]", "/[pq](/[pq01]){0,1}", 0..3);
    (prop_oneof![Just("first-match"), Just("all-matches")], derive, rules, action()).prop_map(
        |(mode, derive, rules, default)| {
            json!({ "mode": mode, "derive": derive, "rules": rules, "default": default })
        },
    )
}

fn payloads() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[ab]{0,2}".prop_map(|v| json!(v)),
        (0..20i64).prop_map(|v| json!(v)),
        any::<bool>().prop_map(|v| json!(v)),
        Just(Value::Null),
    ];
    let value = leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            4 => prop::collection::btree_map("[pqr]", inner.clone(), 0..4).prop_map(|v| json!(v)),
            1 => prop::collection::vec(inner, 0..3).prop_map(|v| json!(v)),
        ]
    });
    prop_oneof![1 => Just("no JSON".to_owned()), 9 => value.prop_map(|value| value.to_string())]
}

fn samples() -> impl Strategy<Value = Sample> {
    (any_headers(), any::<[u8; 18]>(), payloads(), "k[0-3]").prop_map(|(mut headers, random, data, key)| {
        headers.set_creation(Creation::mint(1_790_000_000_000, random));
        Sample { key, headers, data }
    })
}

fn any_headers() -> impl Strategy<Value = Headers> {
    prop::collection::btree_map("[abcd]", "[ab]{0,3}", 0..4).prop_map(|pairs| {
        let mut headers = Headers::new();
        for (name, value) in pairs {
            headers.set(name, value).unwrap();
        }
        headers
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_record_goes_precisely_where_the_table_says(
        table in tables(), records in prop::collection::vec(samples(), 1..20),
    ) {
        let text = written(&table);
        let compiled = match RouteTable::from_json(&text.to_string()) {
            Ok(compiled) => compiled,
            Err(error) => {
                // Only what the documentation says is refused.
                let text = error.to_string();
                let known = ["in different forms", "lies within the other", "it is not kept",
                    "the name that it has", "are renamed to", "nodes", "opening brackets"];
                prop_assert!(known.iter().any(|reason| text.contains(reason)), "{}", text);
                return Ok(());
            }
        };
        let from_toml = RouteTable::from_toml(&toml::to_string(&text).unwrap()).unwrap();
        let mut everywhere: Vec<(String, Sample)> = Vec::new();
        let mut letters = 0;
        for sample in &records {
            let (expected, buried) = interpret(&table, sample);
            letters += usize::from(buried || expected.iter().any(|(_, _, data)| data == "refused"));
            for (stream, pairs, data) in expected.iter().filter(|(_, _, data)| data != "refused") {
                let mut headers = Headers::new();
                headers.set_creation(*sample.headers.creation().unwrap());
                pairs.iter().for_each(|(name, value)| headers.set(name.clone(), value.clone()).unwrap());
                everywhere.push((stream.clone(), Sample { key: sample.key.clone(), headers, data: data.clone() }));
            }
            for compiled in [&compiled, &from_toml] {
                let mut headers = sample.headers.clone();
                compiled.derive(&mut headers, sample.data.as_bytes()).unwrap();
                let subject = Subject { headers: &headers, key: &sample.key, data: sample.data.as_bytes() };
                let destinations = route_subject(&subject, compiled);
                let sent: Sent = destinations.iter().map(|d| {
                    let (mut changed, mut data) = (headers.clone(), Bytes::from(sample.data.clone()));
                    let text = match d.transform.apply(&mut changed, &mut data) {
                        Ok(()) => String::from_utf8(data.to_vec()).unwrap(),
                        Err(_) => "refused".to_owned(),
                    };
                    prop_assert_eq!(changed.creation(), sample.headers.creation());
                    let mut pairs: Vec<(String, String)> =
                        changed.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
                    pairs.sort();
                    // Fields keep their order, the reference's are sorted.
                    let reordered = d.transform.is_identity() || text == "refused" || !text.starts_with('{');
                    let text = if reordered {
                        text
                    } else {
                        serde_json::from_str::<Value>(&text).unwrap().to_string()
                    };
                    Ok((d.stream.to_string(), pairs, text))
                }).collect::<Result<_, TestCaseError>>()?;
                prop_assert_eq!(&sent, &expected);
                prop_assert_eq!(destinations.dead_letter().is_some(), buried);
                prop_assert_eq!(destinations.is_dropped(), expected.is_empty() && !buried);
                let distinct: BTreeSet<&str> = destinations.streams().collect();
                prop_assert_eq!(distinct.len(), destinations.len());
                let explanation = explain_subject(&subject, compiled);
                prop_assert_eq!(explanation.destinations.len(), destinations.len());
                prop_assert_eq!(explanation.default, destinations.rule().is_none());
                prop_assert_eq!(explanation.dead_letter.is_some(), buried);
                prop_assert_eq!(explanation.dropped, destinations.is_dropped());
            }
        }
        handled(&text.to_string(), &records, everywhere, letters)?;
    }
}

/// One invocation over all the records, in aggregates of three: each destination gets each record precisely once,
/// in order, in its form, and what can go nowhere is in the dead letters.
fn handled(
    text: &str,
    records: &[Sample],
    expected: Vec<(String, Sample)>,
    letters: usize,
) -> Result<(), TestCaseError> {
    let all: Vec<Record> = records
        .iter()
        .map(|sample| Record {
            key: PartitionKey::new(sample.key.clone()).unwrap(),
            explicit_hash_key: None,
            headers: sample.headers.clone(),
            data: sample.data.clone().into(),
        })
        .collect();
    let event = crate::common::event(all.chunks(3).map(crate::common::aggregate).collect());
    let streams = Arc::new(crate::common::Streams::new(|_, _| Ok(())));
    let dead = Arc::new(crate::common::Letters::default());
    let table = Arc::new(RouteTable::from_json(text).unwrap());
    let router =
        Router::new(table, streams.clone(), dead.clone(), Arc::new(crate::common::Shards::default()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let report =
        runtime.block_on(async { router.handle(&event, &crate::common::invocation()).await }).unwrap();
    prop_assert_eq!(report.failed, None);
    prop_assert_eq!(dead.keys().len(), letters);
    let form = |key: &str, headers: &Headers, data: &[u8]| {
        let mut pairs: Vec<String> = headers.iter().map(|(n, v)| format!("{n}={v}")).collect();
        pairs.sort();
        // Where a payload is changed its fields keep their order, the reference's are sorted.
        let unsorted = std::str::from_utf8(data).unwrap();
        let sorted = serde_json::from_slice::<Value>(data).map_or(unsorted.to_owned(), |v| v.to_string());
        (key.to_owned(), *headers.creation().unwrap(), pairs, sorted)
    };
    let mut streams_seen = BTreeSet::new();
    for (stream, _) in &expected {
        if !streams_seen.insert(stream.clone()) {
            continue;
        }
        let wanted: Vec<_> = expected
            .iter()
            .filter(|(name, _)| name == stream)
            .map(|(_, sample)| form(&sample.key, &sample.headers, sample.data.as_bytes()))
            .collect();
        let found: Vec<_> =
            streams.records(stream).iter().map(|r| form(r.key.as_str(), &r.headers, &r.data)).collect();
        prop_assert_eq!(found, wanted, "{}", stream);
    }
    let stored: usize = streams.stored.lock().unwrap().values().map(Vec::len).sum();
    prop_assert_eq!(stored, expected.len(), "nothing else is put anywhere");
    // Where the record's payload is not for the rule to change, it is the very same bytes.
    for (record, _) in
        streams.stored.lock().unwrap().iter().flat_map(|(name, all)| match name.starts_with('v') {
            true => &[][..],
            false => &all[..],
        })
    {
        let source = records.iter().find(|sample| sample.headers.creation() == record.headers.creation());
        prop_assert_eq!(&record.data[..], source.unwrap().data.as_bytes());
    }
    Ok(())
}

#[test]
fn the_random_tables_are_worth_comparing() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut accepted: Vec<String> = Vec::new();
    for _ in 0..400 {
        let text = written(&tables().new_tree(&mut runner).unwrap().current()).to_string();
        accepted.extend(RouteTable::from_json(&text).is_ok().then_some(text));
    }
    assert!(accepted.len() > 150, "{} of 400 are accepted", accepted.len());
    for key in
        ["derive", "expr", "sample", "rename", "payload", "keep", "drop", "dead-letter", "set", "all-matches"]
    {
        let count = accepted.iter().filter(|text| text.contains(&format!("\"{key}\""))).count();
        assert!(count > 20, "{key}: {count} of {}", accepted.len());
    }
}
