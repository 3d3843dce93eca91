//! Which rule matched, and why.

use headworks_router::table::{RouteTable, Verdict, explain, route};
use serde_json::json;

use super::headers;

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
