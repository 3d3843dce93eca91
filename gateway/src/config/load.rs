//! From the file and the environment to the settings.

use std::path::Path;

use super::{Config, Error};

/// The prefix of environment variables that override settings.
pub const ENV_PREFIX: &str = "HEADWORKS_GATEWAY_";
/// The variable that names the configuration file; it is no setting.
pub const ENV_FILE: &str = "HEADWORKS_GATEWAY_CONFIG";

impl Config {
    /// Reads the file, if any, lays the environment's variables over it, and checks the result.
    pub fn load(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        let mut table = match file {
            None => toml::Table::new(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|source| Error::Unreadable { path: path.to_owned(), source })?
                .parse()
                .map_err(|source| Error::Malformed { path: path.to_owned(), source: Box::new(source) })?,
        };
        let mut origin = file.map_or_else(|| "no file".to_owned(), |path| path.display().to_string());
        for (variable, text) in variables {
            let Some(name) = variable.strip_prefix(ENV_PREFIX).filter(|_| variable != ENV_FILE) else {
                continue;
            };
            let name = name.to_ascii_lowercase();
            origin.push_str(", ");
            origin.push_str(&variable);
            let value = from_variable(&name, text);
            table.insert(name, value);
        }
        let config: Self =
            table.try_into().map_err(|source| Error::Unknown { origin, source: Box::new(source) })?;
        config.validate()?;
        Ok(config)
    }
}

/// The variable that sets this.
pub(crate) fn variable(setting: &str) -> String {
    format!("{ENV_PREFIX}{}", setting.to_ascii_uppercase())
}

/// A variable's text is a TOML value where it parses as one, and plain text otherwise.
fn from_variable(name: &str, text: String) -> toml::Value {
    let names = || text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let parsed = format!("value = {text}").parse::<toml::Table>().ok().and_then(|mut t| t.remove("value"));
    match parsed {
        // A stream may be called `7`, but no setting that takes text takes numbers as well.
        Some(value) if !matches!(name, "streams" | "cors_origins") || value.is_array() => value,
        _ if name == "cors_origins" => names().map(toml::Value::from).collect::<Vec<_>>().into(),
        _ if name == "streams" => names()
            .map(|name| toml::Value::Table([("name".to_owned(), name.into())].into_iter().collect()))
            .collect::<Vec<_>>()
            .into(),
        _ => text.into(),
    }
}
