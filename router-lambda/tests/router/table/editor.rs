//! The schema for editors.

use std::collections::BTreeSet;

use headworks_router::table::{self, RouteTable};
use serde_json::{Value, json};

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
