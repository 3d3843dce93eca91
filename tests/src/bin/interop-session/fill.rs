//! Inputs with their variables and templates filled in.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_kinesis::primitives::{Blob, DateTime};
use serde_json::{Map, Value, json};

/// What earlier answers were saved as.
pub(crate) type Names = HashMap<String, Value>;

/// Fills in variables; `$bytes`, `$fill` and `$at` stay what they are, for [`blob`] and [`time`].
pub(crate) fn fill(value: &Value, names: &Names) -> Value {
    match value {
        Value::String(text) => filled_text(text, names),
        Value::Array(items) => items.iter().map(|item| fill(item, names)).collect(),
        Value::Object(map) => {
            if let Some(length) = map.get("$word").and_then(Value::as_u64) {
                return "x".repeat(length as usize).into();
            }
            if let Some([count, template]) = map.get("$times").and_then(Value::as_array).map(Vec::as_slice) {
                let each = |number: u64| {
                    let mut names = names.clone();
                    names.insert("i".to_owned(), json!(number));
                    fill(template, &names)
                };
                return (0..count.as_u64().unwrap_or(0)).map(each).collect();
            }
            Value::Object(map.iter().map(|(key, item)| (key.clone(), fill(item, names))).collect())
        }
        other => other.clone(),
    }
}

fn filled_text(text: &str, names: &Names) -> Value {
    let whole = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    if let Some(name) = whole.filter(|name| !name.contains('$')) {
        return names.get(name).cloned().unwrap_or(Value::Null);
    }
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, tail) = after.split_once('}').unwrap_or((after, ""));
        filled.push_str(before);
        match names.get(name) {
            Some(Value::String(text)) => filled.push_str(text),
            Some(other) => filled.push_str(&other.to_string()),
            None => filled.push_str("None"),
        }
        rest = tail;
    }
    filled.push_str(rest);
    filled.into()
}

/// The input of one call.
pub(crate) struct Given<'a>(pub(crate) &'a Map<String, Value>);

impl Given<'_> {
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.0.get(name)?.as_str().map(str::to_owned)
    }

    pub(crate) fn int(&self, name: &str) -> Option<i32> {
        i32::try_from(self.0.get(name)?.as_i64()?).ok()
    }

    pub(crate) fn number(&self, name: &str) -> f64 {
        self.0.get(name).and_then(Value::as_f64).unwrap_or(0.0)
    }

    pub(crate) fn blob(&self, name: &str) -> Option<Blob> {
        let value = self.0.get(name)?;
        if let Some(length) = value.get("$fill").and_then(Value::as_u64) {
            return Some(Blob::new(vec![b'x'; length as usize]));
        }
        Some(Blob::new(value.get("$bytes")?.as_str()?))
    }

    pub(crate) fn time(&self, name: &str) -> Option<DateTime> {
        let at = self.0.get(name)?.get("$at")?.as_f64()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = if at <= 0.0 { now.as_secs_f64() + at } else { at };
        Some(DateTime::from(UNIX_EPOCH + Duration::from_secs_f64(at)))
    }

    pub(crate) fn list(&self, name: &str) -> Option<Vec<Given<'_>>> {
        let items = self.0.get(name)?.as_array()?;
        Some(items.iter().filter_map(Value::as_object).map(Given).collect())
    }

    pub(crate) fn texts(&self, name: &str) -> Option<Vec<String>> {
        let items = self.0.get(name)?.as_array()?;
        Some(items.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    pub(crate) fn within(&self, name: &str) -> Option<Given<'_>> {
        self.0.get(name)?.as_object().map(Given)
    }

    pub(crate) fn map(&self, name: &str) -> Option<HashMap<String, String>> {
        let map = self.0.get(name)?.as_object()?;
        Some(map.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect())
    }
}
