//! The function's settings, from its environment.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::handler::DEFAULT_MARGIN;
use crate::source::Location;

/// The function's settings.
///
/// | variable | default | meaning |
/// |---|---|---|
/// | `HEADWORKS_ROUTES` | `routes.toml` | where the route table is: a path (a relative one begins at `LAMBDA_TASK_ROOT`, else at the working directory), `s3://bucket/key`, or `http://localhost:…`, which is how AWS's extensions for AppConfig and the Parameter Store are reached |
/// | `HEADWORKS_ROUTES_CHECK_S` | 60 | seconds between two looks for another table, at least; 0 (never) to 86,400 |
/// | `HEADWORKS_METRICS` | `emf` | `emf` writes metrics to standard output in CloudWatch's embedded metric format, `none` writes none |
/// | `HEADWORKS_DEAD_LETTER_BUCKET` | none | the bucket for dead letters; without one, a record that cannot be routed blocks its shard |
/// | `HEADWORKS_PROGRESS_TABLE` | none | the DynamoDB table in which a partial failure notes what each destination has; without one, destinations get repeats until all have everything |
/// | `HEADWORKS_DEADLINE_MARGIN_MS` | 2000 | time kept for an invocation's end; 100 to 60,000 |
/// | `HEADWORKS_S3_PATH_STYLE` | `false` | whether the bucket's name stands in the path, as S3 servers other than AWS's want it |
///
/// Endpoints and credentials are the AWS SDK's own variables (`AWS_REGION`, `AWS_ENDPOINT_URL_KINESIS` …),
/// telemetry's those of `headworks_telemetry::config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The route table.
    pub routes: Location,
    /// Time between two looks for another table, at least; zero means never.
    pub routes_check: Duration,
    /// Whether metrics are written to standard output.
    pub metrics: bool,
    /// The bucket for dead letters.
    pub dead_letter_bucket: Option<String>,
    /// The table for progress.
    pub progress_table: Option<String>,
    /// Time kept for an invocation's end.
    pub deadline_margin: Duration,
    /// Whether the bucket's name stands in the path.
    pub s3_path_style: bool,
}

/// A variable that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}={value:?} is not valid: {expected}")]
pub struct ConfigError {
    /// The variable.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// What it may be.
    pub expected: String,
}

impl ConfigError {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        "config-invalid"
    }

    /// Whether the same settings may be accepted later: never.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

const MARGIN_MS: RangeInclusive<u64> = 100..=60_000;
const CHECK_S: RangeInclusive<u64> = 0..=86_400;

impl Config {
    /// Reads the process's environment.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_vars(|name| std::env::var_os(name))
    }

    /// Reads these variables. An empty one counts as absent.
    pub fn from_vars(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let path = |name| lookup(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let text = |name: &'static str| match lookup(name).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => value.into_string().map(Some).map_err(|value| ConfigError {
                name,
                value: value.to_string_lossy().into_owned(),
                expected: "UTF-8 text".to_owned(),
            }),
        };
        let routes = match text("HEADWORKS_ROUTES")? {
            None => Location::File("routes.toml".into()),
            Some(value) => Location::parse(&value).map_err(|expected| ConfigError {
                name: "HEADWORKS_ROUTES",
                value,
                expected: expected.to_owned(),
            })?,
        };
        let routes = match routes {
            // Joining an absolute path gives that path.
            Location::File(file) => Location::File(path("LAMBDA_TASK_ROOT").unwrap_or_default().join(file)),
            other => other,
        };
        let whole = |name: &'static str, bounds: &RangeInclusive<u64>, what: &str| match text(name)? {
            None => Ok(None),
            Some(value) => match value.parse().ok().filter(|number| bounds.contains(number)) {
                Some(number) => Ok(Some(number)),
                None => {
                    let expected = format!("{what} from {} to {}", bounds.start(), bounds.end());
                    Err(ConfigError { name, value, expected })
                }
            },
        };
        let routes_check = whole("HEADWORKS_ROUTES_CHECK_S", &CHECK_S, "seconds")?.unwrap_or(60);
        let metrics = match text("HEADWORKS_METRICS")?.as_deref() {
            None | Some("emf") => true,
            Some("none") => false,
            Some(value) => {
                let expected = "emf or none".to_owned();
                return Err(ConfigError { name: "HEADWORKS_METRICS", value: value.to_owned(), expected });
            }
        };
        let s3_path_style = match text("HEADWORKS_S3_PATH_STYLE")?.as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(value) => {
                let expected = "true or false".to_owned();
                return Err(ConfigError {
                    name: "HEADWORKS_S3_PATH_STYLE",
                    value: value.to_owned(),
                    expected,
                });
            }
        };
        let deadline_margin = whole("HEADWORKS_DEADLINE_MARGIN_MS", &MARGIN_MS, "milliseconds")?;
        Ok(Self {
            routes,
            routes_check: Duration::from_secs(routes_check),
            metrics,
            dead_letter_bucket: text("HEADWORKS_DEAD_LETTER_BUCKET")?,
            progress_table: text("HEADWORKS_PROGRESS_TABLE")?,
            deadline_margin: deadline_margin.map_or(DEFAULT_MARGIN, Duration::from_millis),
            s3_path_style,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_vars(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn defaults_and_paths() {
        let config = with(&[("HEADWORKS_DEAD_LETTER_BUCKET", "")]).unwrap();
        let file = |path: &str| Location::File(path.into());
        assert_eq!((&config.routes, &config.dead_letter_bucket), (&file("routes.toml"), &None));
        assert_eq!((config.routes_check.as_secs(), config.metrics), (60, true));
        let routes = |vars: &[(&str, &str)]| with(vars).unwrap().routes;
        let task = ("LAMBDA_TASK_ROOT", "/task");
        assert_eq!(routes(&[task]), file("/task/routes.toml"));
        assert_eq!(routes(&[task, ("HEADWORKS_ROUTES", "/x/r.json")]), file("/x/r.json"));
        let object = Location::S3 { bucket: "b".into(), key: "k/r.toml".into() };
        assert_eq!(routes(&[task, ("HEADWORKS_ROUTES", "s3://b/k/r.toml")]), object);
        let url = "http://localhost:2772/applications/a/environments/e/configurations/c";
        assert_eq!(routes(&[("HEADWORKS_ROUTES", url)]), Location::Http(url.to_owned()));
    }

    #[test]
    fn bad_values_are_named_with_what_they_may_be() {
        for (name, value, says) in [
            ("HEADWORKS_S3_PATH_STYLE", "yes", "true or false"),
            ("HEADWORKS_METRICS", "otlp", "emf or none"),
            ("HEADWORKS_ROUTES_CHECK_S", "86401", "from 0 to 86400"),
            ("HEADWORKS_ROUTES", "s3://bucket", "s3://bucket/key"),
            ("HEADWORKS_ROUTES", "ftp://x", "a path"),
            ("HEADWORKS_ROUTES", "http://example.com/x", "on this machine"),
            ("HEADWORKS_DEADLINE_MARGIN_MS", "99", "from 100 to 60000"),
            ("HEADWORKS_DEADLINE_MARGIN_MS", "60001", "from 100 to 60000"),
            ("HEADWORKS_DEADLINE_MARGIN_MS", "soon", "from 100 to 60000"),
        ] {
            let text = with(&[(name, value)]).unwrap_err().to_string();
            assert!(text.starts_with(&format!("{name}={value:?}")) && text.contains(says), "{text}");
        }
        assert_eq!(
            with(&[("HEADWORKS_DEADLINE_MARGIN_MS", "100")]).unwrap().deadline_margin.as_millis(),
            100
        );
    }
}
