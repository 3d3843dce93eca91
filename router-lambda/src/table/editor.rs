//! The JSON schema of route tables, for editors that complete and check as one types.

use headworks_record::headers::{MAX_HEADERS, MAX_NAME_BYTES, MAX_VALUE_BYTES};
use serde_json::{Value, json};

use super::compile::{MAX_RULES, MAX_STREAM_NAME};
use super::enrich::MAX_CACHE_ENTRIES;
use super::expr::MAX_EXPR_CHARS;

/// The JSON schema (draft 2020-12) of route tables; `routes.schema.json` holds it.
///
/// It knows shapes, names and limits. What only the compiler can tell, such as rules that contradict
/// each other, is refused when the table is loaded.
pub fn json_schema() -> Value {
    let header = format!("^(?!hw-)[a-z0-9!#$%&'*+.^_`|~-]{{1,{MAX_NAME_BYTES}}}$");
    let stream = json!({ "type": "string", "pattern": format!("^[A-Za-z0-9_.-]{{1,{MAX_STREAM_NAME}}}$") });
    let one_or_many =
        |item: &Value| json!({ "anyOf": [item, { "type": "array", "items": item, "uniqueItems": true }] });
    let headers = |description: &str, value: Value| {
        json!({
            "description": description, "type": "object",
            "propertyNames": { "pattern": header }, "additionalProperties": value,
        })
    };
    let described = |mut schema: Value, description: &str| {
        schema["description"] = description.into();
        schema
    };
    let text = json!({ "type": "string", "maxLength": MAX_VALUE_BYTES });
    let name = json!({ "type": "string", "pattern": header });
    let header_name = name.clone();
    let flag = |description: &str| json!({ "description": description, "type": "boolean", "default": false });
    let duration = json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h)$" });
    let action = json!({
        "to": described(one_or_many(&stream), "The destination stream, or several."),
        "drop": flag("The record goes nowhere, on purpose."),
        "dead-letter": flag("The record goes to the dead letters, on purpose."),
        "set": headers("Headers to set on the way.", text.clone()),
        "remove": described(one_or_many(&name), "Headers to remove on the way."),
        "rename": headers("Headers to rename on the way: old name to new name.", name),
        "payload": { "$ref": "#/$defs/payload" },
        "enrich": { "$ref": "#/$defs/enrich" },
        "spill-after": described(
            duration.clone(),
            "How long a record waits for a destination that is under pressure or out of reach before it goes to the dead letters. Credentials, permissions and KMS are waited for whatever it says. Absent: for ever.",
        ),
    });
    let mut rule = json!({
        "name": { "description": "For explanations and messages.", "type": "string" },
        "when": headers("Conditions on headers; all must hold.", json!({ "$ref": "#/$defs/condition" })),
        "expr": {
            "description": "An expression (CEL) over headers, key and payload that must hold as well.",
            "type": "string", "minLength": 1, "maxLength": MAX_EXPR_CHARS,
        },
        "sample": {
            "description": "The share of the records that the rule is for, chosen by identity.",
            "type": "number", "exclusiveMinimum": 0, "maximum": 1,
        },
    });
    if let (Some(rule), Some(action)) = (rule.as_object_mut(), action.as_object()) {
        rule.extend(action.clone());
    }
    let pointer = json!({ "type": "string", "pattern": "^/([^~]|~[01])*$" });
    let mut derive = headers(
        "Headers that a JSON payload tells where the producer set none: header name to JSON pointer.",
        pointer.clone(),
    );
    derive["maxProperties"] = MAX_HEADERS.into();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Headworks route table",
        "type": "object",
        "additionalProperties": false,
        "required": ["default"],
        "properties": {
            "$schema": { "description": "Where editors find this schema." },
            "mode": {
                "description": "How many of the matching rules apply.",
                "enum": ["first-match", "all-matches"], "default": "first-match",
            },
            "derive": derive,
            "rules": { "type": "array", "maxItems": MAX_RULES, "items": { "$ref": "#/$defs/rule" } },
            "default": { "$ref": "#/$defs/default" },
        },
        "$defs": {
            "rule": { "type": "object", "additionalProperties": false, "properties": rule },
            "default": {
                "description": "Where records go that no rule matches.",
                "type": "object", "additionalProperties": false, "properties": action,
            },
            "payload": {
                "description": "Changes to a payload that is a JSON object. Fields are JSON pointers.",
                "type": "object", "additionalProperties": false, "minProperties": 1,
                "not": { "required": ["keep", "drop"] },
                "properties": {
                    "keep": described(one_or_many(&pointer), "The only fields that stay."),
                    "drop": described(one_or_many(&pointer), "Fields that go."),
                    "rename": {
                        "description": "Fields to rename: pointer to new name, in the same object.",
                        "type": "object", "propertyNames": pointer, "additionalProperties": { "type": "string" },
                    },
                },
            },
            "enrich": {
                "description": "Headers from a DynamoDB table.",
                "type": "object", "additionalProperties": false,
                "required": ["table", "key", "key-from", "attributes"],
                "properties": {
                    "table": { "type": "string", "pattern": "^[A-Za-z0-9_.-]{3,255}$" },
                    "key": {
                        "description": "The table's hash key, a string.",
                        "type": "string", "minLength": 1, "maxLength": 255,
                    },
                    "key-from": {
                        "description": "A header's name, or a JSON pointer into the payload.",
                        "type": "string", "minLength": 1,
                    },
                    "attributes": {
                        "description": "Attribute to header.",
                        "type": "object", "minProperties": 1, "additionalProperties": header_name,
                    },
                    "cache-ttl": described(duration.clone(), "How long an answer counts."),
                    "cache-entries": {
                        "type": "integer", "minimum": 1, "maximum": MAX_CACHE_ENTRIES, "default": 10000,
                    },
                    "timeout": described(duration, "How long the look-ups of a batch may take."),
                    "on-slow": {
                        "description": "What becomes of records when the table does not answer in time.",
                        "enum": ["skip", "wait", "dead-letter"], "default": "skip",
                    },
                },
            },
            "condition": {
                "description": "A value (meaning equals), or a table of which everything must hold.",
                "anyOf": [
                    { "type": "string" },
                    {
                        "type": "object", "additionalProperties": false, "minProperties": 1,
                        "properties": {
                            "equals": { "type": "string" },
                            "one-of": {
                                "type": "array", "items": { "type": "string" }, "minItems": 1, "uniqueItems": true,
                            },
                            "prefix": { "type": "string", "minLength": 1 },
                            "glob": {
                                "description": "* is any run of characters, ? one, \\ makes the next one literal.",
                                "type": "string", "minLength": 1,
                            },
                            "exists": { "type": "boolean" },
                            "not": { "$ref": "#/$defs/condition" },
                        },
                    },
                ],
            },
        },
    })
}
