//! The reference: a table as JSON, interpreted rule by rule, condition by condition.

use std::collections::BTreeSet;

use headworks_record::Headers;
use serde_json::{Value, json};

/// Stream, headers sorted by name, payload.
pub(super) type Sent = BTreeSet<(String, Vec<(String, String)>, String)>;

#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) key: String,
    pub(super) headers: Headers,
    pub(super) data: String,
}

/// Where a record goes and in which form; whether it is a dead letter; derived headers included.
pub(super) fn interpret(table: &Value, sample: &Sample) -> (Sent, bool) {
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
