//! The environment's say in a configuration.

use std::ffi::OsString;
use std::time::Duration;

use super::{
    Config, DEFAULT_SAMPLE_RATIO, Error, MAX_EXPORT_DELAY, MAX_QUEUE_SPANS, check_endpoint, check_filter,
};
use crate::Sampler;

impl Config {
    /// The defaults, overridden by the process's environment.
    pub fn from_env(service_name: impl Into<String>) -> Result<Self, Error> {
        Self::from_vars(service_name, |name| std::env::var_os(name))
    }

    /// The defaults, overridden by these variables.
    pub fn from_vars(
        service_name: impl Into<String>,
        lookup: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Error> {
        let vars = Vars(lookup);
        let mut config = Self::new(service_name);
        if let Some((_, name)) = vars.get("OTEL_SERVICE_NAME")? {
            config.service_name = name;
        }
        if let Some((name, text)) = vars.get("OTEL_RESOURCE_ATTRIBUTES")? {
            config.resource = parse_resource(name, &text)?;
        }
        config.otlp_endpoint = vars.endpoint()?;
        (config.sample_ratio, config.parent_based) = vars.sampler()?;
        if let Some(spans) = vars.number("OTEL_BSP_MAX_QUEUE_SIZE", 1, MAX_QUEUE_SPANS)? {
            config.queue_spans = spans;
            config.export_spans = config.export_spans.min(spans);
        }
        if let Some(spans) = vars.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1, config.queue_spans)? {
            config.export_spans = spans;
        }
        let delay = MAX_EXPORT_DELAY.as_millis() as usize;
        if let Some(millis) = vars.number("OTEL_BSP_SCHEDULE_DELAY", 1, delay)? {
            config.export_delay = Duration::from_millis(millis as u64);
        }
        if let Some((name, text)) = vars.first(&["HEADWORKS_LOG", "RUST_LOG"])? {
            check_filter(name, &text)?;
            config.log_filter = text;
        }
        if let Some((name, text)) = vars.get("HEADWORKS_LOG_FORMAT")? {
            config.log_format = text.parse().map_err(|expected: &str| Error::new(name, &text, expected))?;
        }
        config.validate()?;
        Ok(config)
    }
}

/// The environment, or what stands for it in a test.
struct Vars<F>(F);

impl<F: Fn(&str) -> Option<OsString>> Vars<F> {
    /// An empty variable counts as absent, as OpenTelemetry's specification asks.
    fn get<'n>(&self, name: &'n str) -> Result<Option<(&'n str, String)>, Error> {
        let Some(value) = (self.0)(name) else { return Ok(None) };
        let text = value
            .into_string()
            .map_err(|raw| Error::new(name, raw.to_string_lossy(), "it must be valid UTF-8"))?;
        let text = text.trim();
        Ok((!text.is_empty()).then(|| (name, text.to_owned())))
    }

    fn first<'n>(&self, names: &[&'n str]) -> Result<Option<(&'n str, String)>, Error> {
        for name in names {
            if let Some(found) = self.get(name)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn number(&self, name: &str, min: usize, max: usize) -> Result<Option<usize>, Error> {
        let Some((_, text)) = self.get(name)? else { return Ok(None) };
        match text.parse() {
            Ok(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => Err(Error::new(name, text, format!("a whole number from {min} to {max}"))),
        }
    }

    fn endpoint(&self) -> Result<Option<String>, Error> {
        if let Some((name, text)) = self.get("OTEL_SDK_DISABLED")? {
            match text.to_ascii_lowercase().as_str() {
                "true" => return Ok(None),
                "false" => {}
                _ => return Err(Error::new(name, text, "true or false")),
            }
        }
        if let Some((name, text)) = self.get("OTEL_TRACES_EXPORTER")? {
            match text.as_str() {
                "none" => return Ok(None),
                "otlp" => {}
                _ => return Err(Error::new(name, text, "otlp or none")),
            }
        }
        let Some((name, endpoint)) =
            self.first(&["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"])?
        else {
            return Ok(None);
        };
        check_endpoint(name, &endpoint)?;
        let protocols = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
        if let Some((name, protocol)) = self.first(&protocols)?
            && protocol != "grpc"
        {
            let expected = "only grpc is spoken; name a collector's gRPC endpoint (port 4317 by custom)";
            return Err(Error::new(name, protocol, expected));
        }
        Ok(Some(endpoint))
    }

    fn sampler(&self) -> Result<(f64, bool), Error> {
        let named = self.get("OTEL_TRACES_SAMPLER")?;
        let default = if named.is_some() { 1.0 } else { DEFAULT_SAMPLE_RATIO };
        let ratio = || {
            let name = "OTEL_TRACES_SAMPLER_ARG";
            let Some((_, text)) = self.get(name)? else { return Ok(default) };
            match text.parse() {
                Ok(ratio) if Sampler::ratio(ratio).is_ok() => Ok(ratio),
                _ => Err(Error::new(name, text, "a number from 0 to 1, the share of traces to sample")),
            }
        };
        let Some((name, text)) = named else { return Ok((ratio()?, true)) };
        let (kind, parent_based) = match text.strip_prefix("parentbased_") {
            Some(kind) => (kind, true),
            None => (text.as_str(), false),
        };
        match kind {
            "always_on" => Ok((1.0, parent_based)),
            "always_off" => Ok((0.0, parent_based)),
            "traceidratio" => Ok((ratio()?, parent_based)),
            _ => {
                let expected = "one of parentbased_traceidratio, parentbased_always_on, \
                                parentbased_always_off, traceidratio, always_on, always_off";
                Err(Error::new(name, text, expected))
            }
        }
    }
}

fn parse_resource(name: &str, text: &str) -> Result<Vec<(String, String)>, Error> {
    let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
    let parse = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        let (key, value) = (percent_decoded(key.trim())?, percent_decoded(value.trim())?);
        (!key.is_empty()).then_some((key, value))
    };
    pairs
        .map(|pair| {
            parse(pair).ok_or_else(|| {
                let expected = format!(
                    "{:?} is not key=value; write pairs parted by commas, percent-encode what else they hold",
                    pair.trim()
                );
                Error::new(name, text, expected)
            })
        })
        .collect()
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let [high, low, tail @ ..] = tail else { return None };
            let nibble = |byte: u8| char::from(byte).to_digit(16);
            bytes.push((nibble(*high)? << 4 | nibble(*low)?) as u8);
            rest = tail;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LogFormat;

    fn with(vars: &[(&str, &str)]) -> Result<Config, Error> {
        Config::from_vars("headworks-test", |name| {
            vars.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn an_empty_environment_exports_nothing() {
        let config = with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", ""), ("OTEL_SERVICE_NAME", " ")]).unwrap();
        assert_eq!(config, Config::new("headworks-test"));
        assert_eq!(config.otlp_endpoint, None);
        assert_eq!(config.sample_ratio, 0.01);
    }

    #[test]
    fn the_standard_variables_are_read() {
        let config = with(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_SERVICE_NAME", "shop"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.version=1.2, team=a%2Cb%20%C3%BC"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_BSP_SCHEDULE_DELAY", "250"),
            ("RUST_LOG", "debug"),
            ("HEADWORKS_LOG", "warn,headworks_gateway=trace"),
            ("HEADWORKS_LOG_FORMAT", "json"),
        ])
        .unwrap();
        assert_eq!(config.otlp_endpoint.as_deref(), Some("http://127.0.0.1:4317"));
        assert_eq!(config.service_name, "shop");
        let pairs = [("service.version", "1.2"), ("team", "a,b ü")];
        assert_eq!(config.resource, pairs.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!((config.sample_ratio, config.parent_based), (0.5, true));
        assert_eq!((config.queue_spans, config.export_spans), (100, 100));
        assert_eq!(config.export_delay, Duration::from_millis(250));
        assert_eq!(config.log_filter, "warn,headworks_gateway=trace");
        assert_eq!(config.log_format, LogFormat::Json);
    }

    #[test]
    fn the_signals_own_endpoint_wins_and_off_is_off() {
        let endpoints = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://one:4317"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://two:4317/"),
        ];
        assert_eq!(with(&endpoints).unwrap().otlp_endpoint.as_deref(), Some("https://two:4317/"));
        for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert_eq!(with(&[endpoints[0], off]).unwrap().otlp_endpoint, None);
        }
    }

    #[test]
    fn samplers_by_name() {
        for (name, arg, ratio, parent_based) in [
            ("parentbased_traceidratio", "0.2", 0.2, true),
            ("parentbased_traceidratio", "", 1.0, true),
            ("traceidratio", "0.2", 0.2, false),
            ("always_on", "", 1.0, false),
            ("parentbased_always_on", "0.2", 1.0, true),
            ("parentbased_always_off", "", 0.0, true),
            ("always_off", "", 0.0, false),
        ] {
            let config = with(&[("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", arg)]).unwrap();
            assert_eq!((config.sample_ratio, config.parent_based), (ratio, parent_based), "{name}");
            assert_eq!(config.sampler().unwrap().follows_parent(), parent_based);
        }
    }

    #[test]
    fn bad_values_are_named_with_what_they_may_be() {
        for (name, value, hint) in [
            ("OTEL_TRACES_SAMPLER_ARG", "1.5", "from 0 to 1"),
            ("OTEL_TRACES_SAMPLER_ARG", "NaN", "from 0 to 1"),
            ("OTEL_TRACES_SAMPLER_ARG", "often", "from 0 to 1"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote", "parentbased_traceidratio"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317", "http://127.0.0.1:4317"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://", "http://127.0.0.1:4317"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://host:4318/v1/traces", "no path"),
            ("OTEL_TRACES_EXPORTER", "zipkin", "otlp or none"),
            ("OTEL_SDK_DISABLED", "maybe", "true or false"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=b,c", "\"c\" is not key=value"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=%zz", "is not key=value"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=%FF", "is not key=value"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "from 1 to 1000000"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "1000001", "from 1 to 1000000"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "9000", "from 1 to 8192"),
            ("OTEL_BSP_SCHEDULE_DELAY", "-1", "from 1 to 600000"),
            ("HEADWORKS_LOG", "info,=!=", "info,headworks_gateway=debug"),
            ("HEADWORKS_LOG_FORMAT", "xml", "text or json"),
        ] {
            let error = with(&[(name, value)]).unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with(&format!("{name}={value:?} is not valid: ")), "{text}");
            assert!(text.contains(hint), "{text}");
            assert_eq!(error.code(), "telemetry-config-invalid");
        }
    }

    #[test]
    fn only_grpc_is_spoken() {
        let vars = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ];
        let text = with(&vars).unwrap_err().to_string();
        assert!(text.contains("only grpc") && text.contains("4317"), "{text}");
        // Without an endpoint nothing is spoken, so the protocol does not matter.
        with(&vars[1..]).unwrap();
    }
}
