//! Random tables and records.

use headworks_record::{Creation, Headers};
use headworks_router::RouteTable;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::reference::Sample;

pub(super) fn tables() -> impl Strategy<Value = Value> {
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

pub(super) fn samples() -> impl Strategy<Value = Sample> {
    (any_headers(), any::<[u8; 18]>(), payloads(), "k[0-3]").prop_map(|(mut headers, random, data, key)| {
        headers.set_creation(Creation::mint(1_790_000_000_000, random));
        Sample { key, headers, data }
    })
}

/// The table as it is written down: expression trees as CEL.
pub(super) fn written(table: &Value) -> Value {
    let mut table = table.clone();
    for rule in table["rules"].as_array_mut().unwrap() {
        if let Some(tree) = rule.as_object_mut().unwrap().remove("~expr") {
            rule["expr"] = cel(&tree).into();
        }
    }
    table
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

fn any_headers() -> impl Strategy<Value = Headers> {
    prop::collection::btree_map("[abcd]", "[ab]{0,3}", 0..4).prop_map(|pairs| {
        let mut headers = Headers::new();
        for (name, value) in pairs {
            headers.set(name, value).unwrap();
        }
        headers
    })
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
