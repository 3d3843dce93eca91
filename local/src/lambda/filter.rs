//! [`FilterCriteria`]: which records a mapping hands to its function, in Lambda's pattern language.
//!
//! A pattern is a JSON object. Its key `data` is matched against the payload, read as JSON; other keys against the
//! record's metadata (`partitionKey`, `sequenceNumber`, `approximateArrivalTimestamp`, `eventSourceARN` and so on). A
//! record is handed over when one of the patterns matches; else it is finished at once, and the position moves.
//!
//! Sources: Lambda's guide, pages `invocation-eventfiltering` (the operators) and `with-kinesis-filtering` (what
//! becomes of payloads that are no JSON). The second promises `data` only: patterns on metadata may be refused there.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::ConfigError;
use crate::kinesis::{Record, ShardReader};

/// The guide: five for each mapping, ten on request.
const MAX_FILTERS: usize = 10;
/// API_Filter.
const MAX_PATTERN: usize = 4_096;

/// The filters of a mapping. The default has none, and lets every record through.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FilterCriteria(Vec<Pattern>);

/// Fields that must all match, and, for each `$or`, alternatives of which one must.
#[derive(Debug, Clone, PartialEq)]
struct Pattern {
    fields: Vec<(String, Node)>,
    alternatives: Vec<Vec<Pattern>>,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Object(Pattern),
    /// One of them must match.
    Leaf(Vec<Rule>),
}

#[derive(Debug, Clone, PartialEq)]
enum Rule {
    Equals(Value),
    EqualsIgnoreCase(String),
    Prefix(String),
    Suffix(String),
    Exists(bool),
    AnythingBut(Vec<Value>),
    Numeric(Vec<(Comparison, f64)>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// As `CreateEventSourceMapping` spells it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Criteria {
    filters: Vec<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Filter {
    pattern: String,
}

impl FilterCriteria {
    /// Reads patterns, each the text of a JSON object, such as `{"data": {"type": ["order"]}}`.
    ///
    /// # Errors
    /// [`ConfigError`], with the place in the pattern and what it may be.
    pub fn new<T: AsRef<str>>(patterns: impl IntoIterator<Item = T>) -> Result<Self, ConfigError> {
        let patterns: Result<Vec<_>, _> =
            patterns.into_iter().map(|pattern| read_pattern(pattern.as_ref())).collect();
        let patterns = patterns?;
        if patterns.len() > MAX_FILTERS {
            let remedy = format!("a mapping has at most {MAX_FILTERS} filters; join some by listing values");
            return Err(ConfigError::new("filters", patterns.len(), remedy));
        }
        Ok(Self(patterns))
    }

    /// Reads the `FilterCriteria` of an event source mapping: `{"Filters": [{"Pattern": "{...}"}]}`.
    ///
    /// # Errors
    /// As [`FilterCriteria::new`].
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let criteria: Criteria = serde_json::from_str(text)
            .map_err(|error| ConfigError::new("filters", text, error.to_string()))?;
        Self::new(criteria.filters.iter().map(|filter| &filter.pattern))
    }

    /// Whether there is no filter at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a record is handed to the function. The order of checks: metadata is at hand, payloads are parsed only
    /// where a pattern asks for them.
    pub(super) fn admits(&self, record: &Record, of: &Source) -> bool {
        if self.is_empty() {
            return true;
        }
        let event = of.describe(record, self.0.iter().any(Pattern::asks_for_data));
        self.0.iter().any(|pattern| pattern.matches(Some(&event)))
    }
}

/// What every record of a shard has in common, as patterns see it.
#[derive(Debug)]
pub(super) struct Source {
    constant: Map<String, Value>,
    shard_id: String,
}

impl Source {
    pub(super) fn new(reader: &ShardReader, stream_arn: &str, region: &str, role_arn: &str) -> Self {
        let constant = [
            ("kinesisSchemaVersion", "1.0"),
            ("eventSource", "aws:kinesis"),
            ("eventVersion", "1.0"),
            ("eventName", "aws:kinesis:record"),
            ("invokeIdentityArn", role_arn),
            ("awsRegion", region),
            ("eventSourceARN", stream_arn),
        ];
        let constant = constant.map(|(name, value)| (name.to_owned(), Value::from(value)));
        Self { constant: constant.into_iter().collect(), shard_id: reader.shard_id() }
    }

    fn describe(&self, record: &Record, with_data: bool) -> Value {
        let mut event = self.constant.clone();
        let sequence = record.sequence.to_string();
        event.insert("eventID".to_owned(), format!("{}:{sequence}", self.shard_id).into());
        event.insert("sequenceNumber".to_owned(), sequence.into());
        event.insert("partitionKey".to_owned(), Value::from(&*record.partition_key));
        event.insert("approximateArrivalTimestamp".to_owned(), (record.arrival_ms as f64 / 1_000.0).into());
        if with_data {
            // A payload that is no JSON object is a plain string; a pattern that looks into it does not match.
            let data = match serde_json::from_slice(&record.data) {
                Ok(data @ (Value::Object(_) | Value::Array(_))) => data,
                _ => String::from_utf8_lossy(&record.data).into(),
            };
            event.insert("data".to_owned(), data);
        }
        Value::Object(event)
    }
}

fn read_pattern(text: &str) -> Result<Pattern, ConfigError> {
    let refuse = |reason: String| ConfigError::new("filters", text, reason);
    if text.len() > MAX_PATTERN {
        return Err(refuse(format!("a pattern has at most {MAX_PATTERN} characters")));
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => read_object(&object, "the pattern").map_err(refuse),
        Ok(_) => {
            Err(refuse("a pattern is a JSON object, such as {\"data\": {\"type\": [\"order\"]}}".to_owned()))
        }
        Err(error) => Err(refuse(format!("a pattern is a JSON object: {error}"))),
    }
}

fn read_object(object: &Map<String, Value>, at: &str) -> Result<Pattern, String> {
    if object.is_empty() {
        return Err(format!("{at} is empty: name a field, and its values in a list"));
    }
    let mut pattern = Pattern { fields: Vec::new(), alternatives: Vec::new() };
    for (name, value) in object {
        match value {
            Value::Array(list) if name == "$or" => {
                let read = |entry: &Value| match entry {
                    Value::Object(object) => read_object(object, "an entry of $or"),
                    _ => Err(format!("$or in {at} lists objects")),
                };
                let alternatives = list.iter().map(read).collect::<Result<Vec<_>, _>>()?;
                if alternatives.len() < 2 {
                    return Err(format!("$or in {at} lists two objects or more"));
                }
                pattern.alternatives.push(alternatives);
            }
            Value::Array(list) if !list.is_empty() => {
                let rules = list.iter().map(|rule| read_rule(rule, name)).collect::<Result<Vec<_>, _>>()?;
                pattern.fields.push((name.clone(), Node::Leaf(rules)));
            }
            Value::Object(object) => {
                pattern.fields.push((name.clone(), Node::Object(read_object(object, name)?)));
            }
            _ => return Err(format!("{name} is followed by a list of values or an object, not by {value}")),
        }
    }
    Ok(pattern)
}

fn read_rule(rule: &Value, field: &str) -> Result<Rule, String> {
    let object = match rule {
        Value::Object(object) => object,
        Value::Array(_) => return Err(format!("{field} lists values, not lists")),
        value => return Ok(Rule::Equals(value.clone())),
    };
    let mut entries = object.iter();
    let (Some((operator, operand)), None) = (entries.next(), entries.next()) else {
        return Err(format!("a rule of {field} has one operator"));
    };
    let text = || match operand {
        Value::String(text) => Ok(text.clone()),
        other => Err(format!("{operator} of {field} takes a string, not {other}")),
    };
    Ok(match operator.as_str() {
        "prefix" => Rule::Prefix(text()?),
        "suffix" => Rule::Suffix(text()?),
        "equals-ignore-case" => Rule::EqualsIgnoreCase(text()?),
        "exists" => match operand {
            Value::Bool(wanted) => Rule::Exists(*wanted),
            other => return Err(format!("exists of {field} takes true or false, not {other}")),
        },
        "anything-but" => {
            let values = match operand {
                Value::Array(values) if !values.is_empty() => values.clone(),
                value @ (Value::String(_) | Value::Number(_)) => vec![value.clone()],
                other => return Err(format!("anything-but of {field} takes values, not {other}")),
            };
            if !values.iter().all(|value| value.is_string() || value.is_number()) {
                return Err(format!("anything-but of {field} takes strings and numbers"));
            }
            Rule::AnythingBut(values)
        }
        "numeric" => Rule::Numeric(read_numeric(operand, field)?),
        other => {
            return Err(format!(
                "{other} of {field} is no operator: prefix, suffix, equals-ignore-case, exists, anything-but or numeric"
            ));
        }
    })
}

fn read_numeric(operand: &Value, field: &str) -> Result<Vec<(Comparison, f64)>, String> {
    let wrong = || {
        format!(
            "numeric of {field} takes comparisons and numbers, such as [\">\", 0, \"<=\", 100], not {operand}"
        )
    };
    let list = operand.as_array().filter(|list| matches!(list.len(), 2 | 4)).ok_or_else(wrong)?;
    list.chunks_exact(2)
        .map(|pair| {
            let comparison = match pair[0].as_str() {
                Some("=") => Comparison::Equal,
                Some("<") => Comparison::Less,
                Some("<=") => Comparison::LessOrEqual,
                Some(">") => Comparison::Greater,
                Some(">=") => Comparison::GreaterOrEqual,
                _ => return Err(wrong()),
            };
            Ok((comparison, pair[1].as_f64().ok_or_else(wrong)?))
        })
        .collect()
}

impl Pattern {
    fn asks_for_data(&self) -> bool {
        self.fields.iter().any(|(name, _)| name == "data")
            || self.alternatives.iter().flatten().any(Self::asks_for_data)
    }

    fn matches(&self, value: Option<&Value>) -> bool {
        // One of several objects is enough.
        if let Some(Value::Array(list)) = value {
            return list.iter().any(|element| self.matches(Some(element)));
        }
        let field =
            |name: &str| value.and_then(|value| value.as_object()).and_then(|object| object.get(name));
        let fields = self.fields.iter().all(|(name, node)| match node {
            Node::Object(pattern) => pattern.matches(field(name)),
            Node::Leaf(rules) => rules.iter().any(|rule| rule.matches(field(name))),
        });
        fields && self.alternatives.iter().all(|any| any.iter().any(|pattern| pattern.matches(value)))
    }
}

impl Rule {
    fn matches(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            // Of leaves only: an object is not one.
            (Self::Exists(wanted), value) => value.is_some_and(|value| !value.is_object()) == *wanted,
            (_, None) => false,
            (Self::AnythingBut(values), Some(Value::Array(list))) => {
                !list.iter().any(|element| values.contains(element))
            }
            (_, Some(Value::Array(list))) => list.iter().any(|element| self.matches(Some(element))),
            (Self::Equals(wanted), Some(value)) => wanted == value,
            (Self::AnythingBut(values), Some(value)) => !value.is_object() && !values.contains(value),
            (Self::Numeric(all), Some(value)) => {
                value.as_f64().is_some_and(|number| all.iter().all(|(how, than)| how.holds(number, *than)))
            }
            (Self::Prefix(part), Some(Value::String(text))) => text.starts_with(part.as_str()),
            (Self::Suffix(part), Some(Value::String(text))) => text.ends_with(part.as_str()),
            (Self::EqualsIgnoreCase(wanted), Some(Value::String(text))) => {
                text.to_lowercase() == wanted.to_lowercase()
            }
            _ => false,
        }
    }
}

impl Comparison {
    fn holds(self, number: f64, than: f64) -> bool {
        match self {
            Self::Equal => number == than,
            Self::Less => number < than,
            Self::LessOrEqual => number <= than,
            Self::Greater => number > than,
            Self::GreaterOrEqual => number >= than,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(pattern: Value, event: Value) -> bool {
        read_pattern(&pattern.to_string()).unwrap().matches(Some(&event))
    }

    /// The table of the guide, page `invocation-eventfiltering`.
    #[test]
    fn the_operators_of_the_guide() {
        for (pattern, yes, no) in [
            (json!({"UserID": [null]}), json!({"UserID": null}), json!({"UserID": "x"})),
            (json!({"LastName": [""]}), json!({"LastName": ""}), json!({"LastName": " "})),
            (json!({"Name": ["Alice"]}), json!({"Name": "Alice"}), json!({"Name": "alice"})),
            (json!({"Ok": [true]}), json!({"Ok": true}), json!({"Ok": false})),
            (
                json!({"Name": [{"equals-ignore-case": "alice"}]}),
                json!({"Name": "ALICE"}),
                json!({"Name": "Alic"}),
            ),
            (
                json!({"Location": ["New York"], "Day": ["Monday"]}),
                json!({"Location": "New York", "Day": "Monday"}),
                json!({"Location": "New York"}),
            ),
            (
                json!({"PaymentType": ["Credit", "Debit"]}),
                json!({"PaymentType": "Debit"}),
                json!({"PaymentType": "Cash"}),
            ),
            (
                json!({"$or": [{"Location": ["New York"]}, {"Day": ["Monday"]}]}),
                json!({"Location": "Berlin", "Day": "Monday"}),
                json!({"Location": "Berlin", "Day": "Sunday"}),
            ),
            (
                json!({"Weather": [{"anything-but": ["Raining"]}]}),
                json!({"Weather": "Sunny"}),
                json!({"Weather": "Raining"}),
            ),
            (json!({"Weather": [{"anything-but": "Raining"}]}), json!({"Weather": 1}), json!({"Other": 1})),
            (json!({"Price": [{"numeric": ["=", 100]}]}), json!({"Price": 100.0}), json!({"Price": "100"})),
            (
                json!({"Price": [{"numeric": [">", 10, "<=", 20]}]}),
                json!({"Price": 20}),
                json!({"Price": 10}),
            ),
            (json!({"Name": [{"exists": true}]}), json!({"Name": null}), json!({"Other": 1})),
            (json!({"Name": [{"exists": false}]}), json!({"Other": 1}), json!({"Name": "x"})),
            (
                json!({"Region": [{"prefix": "us-"}]}),
                json!({"Region": "us-east-1"}),
                json!({"Region": "eu-us-"}),
            ),
            (json!({"File": [{"suffix": ".png"}]}), json!({"File": "a.png"}), json!({"File": "a.pngx"})),
            (
                json!({"data": {"order": {"type": ["buy"]}}}),
                json!({"data": {"order": {"type": "buy", "more": 1}}}),
                json!({"data": "order"}),
            ),
            (json!({"Tags": ["a"]}), json!({"Tags": ["b", "a"]}), json!({"Tags": ["b"]})),
            (json!({"Tags": [{"anything-but": ["a"]}]}), json!({"Tags": ["b"]}), json!({"Tags": ["b", "a"]})),
            (
                json!({"Lines": {"sku": ["x"]}}),
                json!({"Lines": [{"sku": "y"}, {"sku": "x"}]}),
                json!({"Lines": [{"sku": "y"}]}),
            ),
        ] {
            assert!(matches(pattern.clone(), yes.clone()), "{pattern} takes {yes}");
            assert!(!matches(pattern.clone(), no.clone()), "{pattern} refuses {no}");
        }
    }

    #[test]
    fn bad_patterns_are_refused_with_what_they_may_be() {
        for (pattern, reason) in [
            ("", "a pattern is a JSON object"),
            ("[1]", "a pattern is a JSON object"),
            ("{}", "is empty"),
            (r#"{"a": 1}"#, "a is followed by a list"),
            (r#"{"a": []}"#, "a is followed by a list"),
            (r#"{"a": [[1]]}"#, "not lists"),
            (r#"{"a": [{"like": "x"}]}"#, "is no operator: prefix"),
            (r#"{"a": [{"prefix": 1}]}"#, "takes a string"),
            (r#"{"a": [{"exists": 1}]}"#, "true or false"),
            (r#"{"a": [{"numeric": [">"]}]}"#, "comparisons and numbers"),
            (r#"{"a": [{"numeric": ["!", 1]}]}"#, "comparisons and numbers"),
            (r#"{"a": [{"anything-but": []}]}"#, "takes values"),
            (r#"{"a": [{"anything-but": {"prefix": "x"}}]}"#, "takes values"),
            (r#"{"a": [{"prefix": "x", "suffix": "y"}]}"#, "one operator"),
            (r#"{"$or": [{"a": [1]}]}"#, "two objects or more"),
        ] {
            let error = FilterCriteria::new([pattern]).unwrap_err();
            assert!(error.to_string().contains(reason), "{pattern}: {error}");
        }
        let error = FilterCriteria::new(std::iter::repeat_n(r#"{"a": [1]}"#, 11)).unwrap_err();
        assert!(error.to_string().contains("at most 10"), "{error}");
        assert!(FilterCriteria::from_json("{}").is_err());
        let read = FilterCriteria::from_json(r#"{"Filters": [{"Pattern": "{\"a\": [1]}"}]}"#).unwrap();
        assert_eq!(read, FilterCriteria::new([r#"{"a": [1]}"#]).unwrap());
    }
}
