//! The function's settings, from its environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::handler::DEFAULT_MARGIN;

/// The function's settings.
///
/// | variable | default | meaning |
/// |---|---|---|
/// | `HEADWORKS_ROUTES` | `routes.toml` | the route table's path; a relative one begins at `LAMBDA_TASK_ROOT`, else at the working directory |
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
    pub routes: PathBuf,
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

const MARGIN_MS: std::ops::RangeInclusive<u64> = 100..=60_000;

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
        let routes = path("HEADWORKS_ROUTES").unwrap_or_else(|| Path::new("routes.toml").to_owned());
        // Joining an absolute path gives that path.
        let routes = path("LAMBDA_TASK_ROOT").unwrap_or_default().join(routes);
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
        let deadline_margin = match text("HEADWORKS_DEADLINE_MARGIN_MS")? {
            None => DEFAULT_MARGIN,
            Some(value) => match value.parse().ok().filter(|ms| MARGIN_MS.contains(ms)) {
                Some(ms) => Duration::from_millis(ms),
                None => {
                    let (low, high) = (MARGIN_MS.start(), MARGIN_MS.end());
                    let expected = format!("milliseconds from {low} to {high}");
                    return Err(ConfigError { name: "HEADWORKS_DEADLINE_MARGIN_MS", value, expected });
                }
            },
        };
        Ok(Self {
            routes,
            dead_letter_bucket: text("HEADWORKS_DEAD_LETTER_BUCKET")?,
            progress_table: text("HEADWORKS_PROGRESS_TABLE")?,
            deadline_margin,
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
        assert_eq!((config.routes.as_path(), config.dead_letter_bucket), (Path::new("routes.toml"), None));
        let routes = |vars: &[(&str, &str)]| with(vars).unwrap().routes;
        assert_eq!(routes(&[("LAMBDA_TASK_ROOT", "/task")]), Path::new("/task/routes.toml"));
        assert_eq!(
            routes(&[("LAMBDA_TASK_ROOT", "/task"), ("HEADWORKS_ROUTES", "/x/r.json")]),
            Path::new("/x/r.json")
        );
    }

    #[test]
    fn bad_values_are_named_with_what_they_may_be() {
        for (name, value, says) in [
            ("HEADWORKS_S3_PATH_STYLE", "yes", "true or false"),
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
