//! Settings as text, `NAME=VALUE`: what command lines and files have.

use std::time::Duration;

use serde_json::{Map, Value};

use super::settings::Settings;

/// A setting that is unknown, or whose value it cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad setting {setting:?}: {reason}")]
pub struct SettingError {
    /// The setting, as text.
    pub setting: String,
    /// What is wrong with it, and what it may be instead.
    pub reason: String,
}

impl SettingError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "local-config-invalid"
    }

    /// Whether the same setting may be taken later: never.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }
}

impl Settings {
    /// Sets one setting: `NAME=VALUE`, with the name of the field, of one inside a group behind a dot, and `off` for
    /// none. What belongs to a group that was off is then as on the service. Durations have a unit.
    ///
    /// ```
    /// # use headworks_local::Settings;
    /// let mut settings = Settings::aws();
    /// for setting in ["transition=500ms", "shard_limit=20", "write_limits.records_per_second=100", "read_limits=off"] {
    ///     settings.set(setting)?;
    /// }
    /// assert_eq!(settings.write_limits.unwrap().bytes_per_second, 1 << 20);
    /// assert_eq!(settings.read_limits, None);
    /// # Ok::<_, headworks_local::kinesis::SettingError>(())
    /// ```
    ///
    /// # Errors
    /// [`SettingError`]: nothing has changed then.
    pub fn set(&mut self, setting: &str) -> Result<(), SettingError> {
        let bad = |reason: String| SettingError { setting: setting.to_owned(), reason };
        let (name, value) = setting.split_once('=').ok_or_else(|| {
            bad("it must be NAME=VALUE, such as shard_limit=20 or transition=500ms".to_owned())
        })?;
        let value = match value.trim() {
            "off" => Value::Null,
            // Text stays text: an account may begin with zeros.
            text => serde_json::from_str(text)
                .ok()
                .filter(|value: &Value| {
                    value.is_boolean() || value.is_number() && name.trim() != "account_id"
                })
                .unwrap_or_else(|| Value::String(text.to_owned())),
        };
        let mut all = serde_json::to_value(&*self).map_err(|error| bad(error.to_string()))?;
        let mut at = &mut all;
        for part in name.trim().split('.') {
            if at.is_null() {
                *at = Value::Object(Map::new());
            }
            let Value::Object(fields) = at else {
                return Err(bad(format!("{name} is no group of settings")));
            };
            at = fields.entry(part).or_insert(Value::Null);
        }
        *at = value;
        let changed: Self = serde_json::from_value(all).map_err(|error| bad(error.to_string()))?;
        changed.validate().map_err(bad)?;
        *self = changed;
        Ok(())
    }
}

/// A duration as text with its unit, such as `500ms` or `5m`.
pub(crate) mod duration {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::{Duration, Value};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        // Nanoseconds: nothing is lost on the way through text.
        to.serialize_str(&format!("{}ns", value.as_nanos()))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        // A bare number is refused in the same words as any other text.
        let value = Value::deserialize(from)?;
        let read = value.as_str().and_then(|text| text.parse::<jiff::SignedDuration>().ok());
        read.and_then(|read| Duration::try_from(read).ok()).ok_or_else(|| {
            D::Error::custom(format!("{value} is no duration: it must have a unit, such as 500ms, 2s or 24h"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(settings: &mut Settings, text: &str) -> String {
        let before = settings.clone();
        let error = settings.set(text).unwrap_err();
        assert_eq!((error.code(), error.is_retryable()), ("local-config-invalid", false));
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(*settings, before, "nothing has changed");
        error.reason
    }

    #[test]
    fn every_setting_goes_through_text_and_back() {
        for settings in [Settings::default(), Settings::aws()] {
            let text = serde_json::to_value(&settings).unwrap();
            assert_eq!(serde_json::from_value::<Settings>(text).unwrap(), settings);
        }
        let mut settings = Settings::default();
        for text in [
            "account_id=000123456789",
            "region=eu-central-1",
            "transition=1h 30m",
            "subscribe_interval=0s",
            "call_rates=true",
            "fan_out_bytes_per_second=2097152",
            "max_held_bytes=67108864",
            "write_limits.records_per_second=7",
            "on_demand.split_above=0.75",
            "on_demand.period=250ms",
            "event_limits.records=5",
            "request_limits=off",
        ] {
            settings.set(text).unwrap();
        }
        assert_eq!(settings.account_id, "000123456789");
        assert_eq!(settings.transition, Duration::from_mins(90));
        assert!(settings.call_rates && settings.request_limits.is_none());
        let writes = settings.write_limits.unwrap();
        assert_eq!((writes.records_per_second, writes.bytes_per_second), (7, 1 << 20));
        let scaling = settings.on_demand.unwrap();
        assert_eq!((scaling.split_above, scaling.period), (0.75, Duration::from_millis(250)));
        assert_eq!((settings.event_limits.records, settings.event_limits.bytes), (5, 2 << 20));
        settings.set("request_limits.put_bytes=5242880").unwrap();
        let requests = settings.request_limits.unwrap();
        assert_eq!((requests.put_bytes, requests.put_records), (5 << 20, 500));
        settings.set("write_limits=off").unwrap();
        assert_eq!(settings.write_limits, None);
    }

    #[test]
    fn bad_settings_are_refused_with_what_they_may_be() {
        let mut settings = Settings::aws();
        assert!(reason(&mut settings, "shard_limit").contains("NAME=VALUE"));
        assert!(reason(&mut settings, "shards=7").contains("shard_limit"));
        assert!(reason(&mut settings, "write_limits.rate=7").contains("records_per_second"));
        assert!(reason(&mut settings, "shard_limit=many").contains("u32"));
        assert!(reason(&mut settings, "shard_limit=0").contains("at least 1"));
        assert!(reason(&mut settings, "shard_limit.open=1").contains("no group"));
        assert!(reason(&mut settings, "shard_limit=off").contains("null"));
        let said = reason(&mut settings, "transition=5");
        assert!(said.contains("unit"), "{said}");
        assert!(reason(&mut settings, "heartbeat=0s").contains("heartbeat is 0"));
        assert!(reason(&mut settings, "account_id=7").contains("12 digits"));
    }
}
