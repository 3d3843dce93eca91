//! Route tables: exact against a naive interpreter; bad ones refused with line, reason and remedy.

use std::collections::BTreeSet;

use headworks_record::Headers;
use headworks_router::table::{self, RouteTable, Verdict, explain, route};
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
    destination.transform.apply(&mut headers).unwrap();
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

type Sent = BTreeSet<(String, String)>;

fn interpret(table: &Value, headers: &Headers) -> Sent {
    let mut sent = Sent::new();
    let add = |sent: &mut Sent, action: &Value| {
        for stream in action["to"].as_array().into_iter().flatten() {
            sent.insert((stream.as_str().unwrap().to_owned(), action["set"].to_string()));
        }
    };
    let mut matched = false;
    for rule in table["rules"].as_array().unwrap() {
        let when = rule["when"].as_object().unwrap();
        if !when.iter().all(|(name, condition)| holds(condition, headers.get(name))) {
            continue;
        }
        matched = true;
        add(&mut sent, rule);
        if table["mode"] == "first-match" || rule["drop"] == true {
            break;
        }
    }
    if !matched {
        add(&mut sent, &table["default"]);
    }
    sent
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
    prop_oneof![
        1 => Just(json!({ "drop": true })),
        6 => prop::collection::btree_set("s[1-4]", 1..3).prop_map(|to| json!({ "to": to })),
        2 => ("t[1-3]", "[xy]").prop_map(|(to, v)| json!({ "to": [to], "set": { "z": v } })),
    ]
}

fn tables() -> impl Strategy<Value = Value> {
    let rule = (prop::collection::btree_map("[abc]", condition(), 1..3), action())
        .prop_map(|(when, mut rule)| {
            rule["when"] = json!(when);
            rule
        })
        .boxed();
    // More than 64 rules now and then: the masks then have several words.
    let rules = prop_oneof![
        9 => prop::collection::vec(rule.clone(), 0..8),
        1 => prop::collection::vec(rule, 60..140),
    ];
    (prop_oneof![Just("first-match"), Just("all-matches")], rules, action())
        .prop_map(|(mode, rules, default)| json!({ "mode": mode, "rules": rules, "default": default }))
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
        table in tables(), records in prop::collection::vec(any_headers(), 1..20),
    ) {
        let compiled = match RouteTable::from_json(&table.to_string()) {
            Ok(compiled) => compiled,
            Err(error) => {
                // Only what design says is refused: one stream, two forms.
                prop_assert!(error.to_string().contains("with different headers"), "{}", error);
                prop_assert_eq!(&table["mode"], "all-matches");
                return Ok(());
            }
        };
        let from_toml = RouteTable::from_toml(&toml::to_string(&table).unwrap()).unwrap();
        for headers in records {
            let expected = interpret(&table, &headers);
            for compiled in [&compiled, &from_toml] {
                let destinations = route(&headers, compiled);
                let sent: Sent = destinations.iter().map(|d| {
                    let mut changed = Headers::new();
                    d.transform.apply(&mut changed).unwrap();
                    let set = changed.get("z").map_or(Value::Null, |v| json!({ "z": v }));
                    (d.stream.to_string(), set.to_string())
                }).collect();
                prop_assert_eq!(&sent, &expected);
                let distinct: BTreeSet<&str> = destinations.streams().collect();
                prop_assert_eq!(distinct.len(), destinations.len());
                let explanation = explain(&headers, compiled);
                prop_assert_eq!(explanation.destinations.len(), destinations.len());
                prop_assert_eq!(explanation.default, destinations.rule().is_none());
            }
        }
    }
}
