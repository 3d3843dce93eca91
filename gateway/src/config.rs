//! The gateway's settings: a TOML file, overridden by the environment.
//!
//! ```toml
//! listen = "127.0.0.1:4400"
//!
//! [[streams]]
//! name = "inbound"
//! writer.linger_ms = 5
//! ```
//!
//! Every setting at the top level can be set by a variable `HEADWORKS_GATEWAY_<NAME>`, such as
//! `HEADWORKS_GATEWAY_LISTEN`, which wins over the file. `HEADWORKS_GATEWAY_STREAMS` takes names
//! separated by commas, or a TOML array like the one in the file; `HEADWORKS_GATEWAY_CORS_ORIGINS` takes
//! origins separated by commas.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use headworks_proto::MAX_MESSAGE_BYTES;
use serde::{Deserialize, Serialize};

/// The prefix of environment variables that override settings.
pub const ENV_PREFIX: &str = "HEADWORKS_GATEWAY_";
/// The variable that names the configuration file; it is no setting.
pub const ENV_FILE: &str = "HEADWORKS_GATEWAY_CONFIG";

/// The shortest time a client may ask for.
pub const MIN_TIMEOUT: Duration = Duration::from_millis(1);
/// The longest time a client may ask for.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(600);

/// What the gateway listens on, which streams it serves, and its limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address to listen on. Default 127.0.0.1:4400; port 0 takes any free port.
    pub listen: SocketAddr,
    /// The address to listen on for HTTP: `POST /v1/records`, `/healthz`, `/readyz` and `/metrics`.
    /// Default: none, nothing is listened on; 127.0.0.1:4480 is the customary one. Port 0 takes any
    /// free port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_listen: Option<SocketAddr>,
    /// The most bytes of request bodies over HTTP that are being read or whose records are unanswered.
    /// Default 67,108,864; 16,777,216 (the largest body) to 1,073,741,824.
    pub http_buffer_bytes: usize,
    /// The origins whose web pages may send records over HTTP, such as `https://shop.example`, or `*`
    /// for all. Default: none; a browser's request from another origin is refused.
    pub cors_origins: Vec<String>,
    /// Listens beyond loopback although nobody is authenticated. Default false.
    pub allow_beyond_loopback: bool,
    /// The stream of calls that name none; one of `streams`. Default: the first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_stream: Option<String>,
    /// The most bytes of key, headers and data of one record.
    /// Default 1,048,576; 1 to 10,485,760. A stream's `writer.max_record_bytes`, which counts the
    /// envelope too, applies beside it.
    pub max_record_bytes: usize,
    /// How long a record is tried where the client does not say. Default 30,000 ms; 1 to 600,000.
    pub timeout_ms: u64,
    /// The most unanswered records of one `PutStream`. Default 65,536; 1 to 1,000,000.
    pub credit_records: u32,
    /// The most unanswered bytes of one `PutStream`. Default 33,554,432; `max_record_bytes` to
    /// 1,073,741,824.
    pub credit_bytes: u64,
    /// How long a stopping gateway waits for the streams' answers. Default 20,000 ms; 0 to 600,000.
    /// It takes the place of each stream's `writer.drain_ms`.
    pub drain_ms: u64,
    /// The Kinesis endpoint. Default: `AWS_ENDPOINT_URL_KINESIS`, else `AWS_ENDPOINT_URL`, else AWS's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kinesis_endpoint: Option<String>,
    /// The AWS region. Default: `AWS_REGION`, or what the AWS profile says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The inbound streams; at least one.
    pub streams: Vec<StreamConfig>,
}

/// One inbound stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamConfig {
    /// The stream's name: 1 to 128 of a-z, A-Z, 0-9, `_`, `.` and `-`.
    pub name: String,
    /// How records are grouped, sent and retried.
    #[serde(default)]
    pub writer: headworks_writer::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 4400)),
            http_listen: None,
            http_buffer_bytes: 64 << 20,
            cors_origins: Vec::new(),
            allow_beyond_loopback: false,
            default_stream: None,
            max_record_bytes: 1 << 20,
            timeout_ms: 30_000,
            credit_records: 65_536,
            credit_bytes: 32 << 20,
            drain_ms: 20_000,
            kinesis_endpoint: None,
            region: None,
            streams: Vec::new(),
        }
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error(
        "the configuration file {path:?} cannot be read: {source}; check the path given by --config or {ENV_FILE}"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration file {path:?} is not valid TOML: {source}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A setting is unknown or of the wrong kind.
    #[error("the configuration ({origin}) is not valid: {source}")]
    Unknown {
        /// The file, and the variables that took part.
        origin: String,
        /// Which and why.
        source: Box<toml::de::Error>,
    },
    /// A number is out of bounds.
    #[error("{name} is {value}; it must be from {min} to {max}")]
    OutOfBounds {
        /// The setting's name.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The lowest value allowed.
        min: u64,
        /// The highest value allowed.
        max: u64,
    },
    /// No stream is served.
    #[error("no stream is served; add [[streams]] with a name to the file, or set {ENV_PREFIX}STREAMS")]
    NoStreams,
    /// A stream's name is not one that Kinesis takes.
    #[error(
        "the stream name {name:?} is not 1 to 128 of a-z, A-Z, 0-9, '_', '.' and '-'; give the name alone, not an ARN"
    )]
    StreamName {
        /// The name.
        name: String,
    },
    /// A stream stands twice.
    #[error("the stream {name:?} is listed twice; remove one")]
    StreamTwice {
        /// The name.
        name: String,
    },
    /// The default stream is not served.
    #[error(
        "default_stream is {name:?}, which is not among the streams ({served}); add it or name one of these"
    )]
    DefaultStream {
        /// The name.
        name: String,
        /// The streams that are.
        served: String,
    },
    /// A stream's writer setting.
    #[error("stream {stream:?}: {source}")]
    Writer {
        /// The stream's name.
        stream: String,
        /// Which setting.
        source: headworks_writer::ConfigError,
    },
    /// A writer's own drain time.
    #[error(
        "stream {stream:?} sets writer.drain_ms, but the gateway drains all streams together: set drain_ms at the top level"
    )]
    WriterDrain {
        /// The stream's name.
        stream: String,
    },
    /// An origin is not one.
    #[error(
        "cors_origins has {origin:?}, which is not an origin; write the scheme, the host and any port in lower case as browsers send them, such as \"https://shop.example\", or \"*\" for all"
    )]
    Origin {
        /// What was given.
        origin: String,
    },
    /// Both listeners want one address.
    #[error(
        "listen and http_listen are both {listen}; give each its own port, or leave http_listen out for no HTTP"
    )]
    SameAddress {
        /// The address.
        listen: SocketAddr,
    },
    /// It would be reachable from elsewhere, and nobody is authenticated.
    #[error(
        "{setting} is {listen}, which is reachable from other machines, and nobody is authenticated; listen on 127.0.0.1, or set allow_beyond_loopback = true if the network itself keeps others out"
    )]
    Exposed {
        /// The setting's name.
        setting: &'static str,
        /// The address.
        listen: SocketAddr,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Exposed { .. } => "listen-exposed",
            _ => "config-invalid",
        }
    }

    /// Whether the same settings may be accepted later: never.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

impl Config {
    /// The defaults, for one stream.
    pub fn for_stream(name: impl Into<String>) -> Self {
        let stream = StreamConfig { name: name.into(), writer: headworks_writer::Config::default() };
        Self { streams: vec![stream], ..Self::default() }
    }

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

    /// Checks every setting against its bounds, and the settings against each other.
    pub fn validate(&self) -> Result<(), Error> {
        let check = |name, value: u64, min: u64, max: u64| {
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err(Error::OutOfBounds { name, value, min, max })
            }
        };
        for (setting, listen) in [("listen", Some(self.listen)), ("http_listen", self.http_listen)] {
            match listen {
                Some(listen) if !listen.ip().to_canonical().is_loopback() && !self.allow_beyond_loopback => {
                    return Err(Error::Exposed { setting, listen });
                }
                _ => {}
            }
        }
        if self.http_listen == Some(self.listen) && self.listen.port() != 0 {
            return Err(Error::SameAddress { listen: self.listen });
        }
        check("http_buffer_bytes", self.http_buffer_bytes as u64, MAX_MESSAGE_BYTES as u64, 1 << 30)?;
        if let Some(origin) = self.cors_origins.iter().find(|origin| !is_origin(origin)) {
            return Err(Error::Origin { origin: origin.clone() });
        }
        check("max_record_bytes", self.max_record_bytes as u64, 1, 10 << 20)?;
        check("timeout_ms", self.timeout_ms, 1, MAX_TIMEOUT.as_millis() as u64)?;
        check("credit_records", self.credit_records.into(), 1, 1_000_000)?;
        check("credit_bytes", self.credit_bytes, self.max_record_bytes as u64, 1 << 30)?;
        check("drain_ms", self.drain_ms, 0, 600_000)?;
        if self.streams.is_empty() {
            return Err(Error::NoStreams);
        }
        let mut names = HashSet::new();
        for StreamConfig { name, writer } in &self.streams {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
            if name.is_empty() || name.len() > 128 || !name.bytes().all(allowed) {
                return Err(Error::StreamName { name: name.clone() });
            }
            if !names.insert(name.as_str()) {
                return Err(Error::StreamTwice { name: name.clone() });
            }
            writer.validate().map_err(|source| Error::Writer { stream: name.clone(), source })?;
            if writer.drain_ms != headworks_writer::Config::default().drain_ms {
                return Err(Error::WriterDrain { stream: name.clone() });
            }
        }
        match &self.default_stream {
            Some(name) if !names.contains(name.as_str()) => {
                let served = self.streams.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
                Err(Error::DefaultStream { name: name.clone(), served })
            }
            _ => Ok(()),
        }
    }
}

/// The variable that sets this.
pub(crate) fn variable(setting: &str) -> String {
    format!("{ENV_PREFIX}{}", setting.to_ascii_uppercase())
}

/// Whether a browser could send this as `Origin`; or `*`.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.:[]".contains(&b);
    text == "*" || host.is_some_and(|host| !host.is_empty() && host.bytes().all(allowed))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, variables: &[(&str, &str)]) -> Result<Config, Error> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.toml");
        std::fs::write(&path, file).unwrap();
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Config::load(Some(&path), variables)
    }

    #[test]
    fn a_file_and_the_environment_over_it() {
        let file =
            "listen = \"127.0.0.1:1\"\ntimeout_ms = 5\n[[streams]]\nname = \"a\"\nwriter.linger_ms = 3\n";
        let config = load(file, &[]).unwrap();
        assert_eq!(config.streams[0].writer.linger_ms, 3);
        let config = load(
            file,
            &[
                ("HEADWORKS_GATEWAY_LISTEN", "127.0.0.1:2"),
                ("HEADWORKS_GATEWAY_TIMEOUT_MS", "6"),
                ("HEADWORKS_GATEWAY_STREAMS", "b, c"),
                ("HEADWORKS_GATEWAY_CONFIG", "ignored"),
                ("UNRELATED", "x"),
            ],
        )
        .unwrap();
        assert_eq!((config.listen.port(), config.timeout_ms), (2, 6));
        assert_eq!(config.streams.iter().map(|s| &s.name[..]).collect::<Vec<_>>(), ["b", "c"]);
        let config = Config::load(None, [("HEADWORKS_GATEWAY_STREAMS".into(), "7".into())]).unwrap();
        assert_eq!(config.streams[0].name, "7");
    }

    #[test]
    fn what_is_printed_can_be_read_back() {
        let config = Config { default_stream: Some("inbound".into()), ..Config::for_stream("inbound") };
        assert_eq!(load(&toml::to_string(&config).unwrap(), &[]).unwrap(), config);
    }

    #[test]
    fn mistakes_are_named() {
        let stream = "[[streams]]\nname = \"a\"\n";
        let error = |file: &str, variables: &[(&str, &str)]| load(file, variables).unwrap_err().to_string();
        assert!(error("", &[]).contains("HEADWORKS_GATEWAY_STREAMS"));
        assert!(error(&format!("lisen = 1\n{stream}"), &[]).contains("lisen"));
        assert!(error("=", &[]).contains("not valid TOML"));
        let unknown = error(stream, &[("HEADWORKS_GATEWAY_LISEN", "1")]);
        assert!(unknown.contains("HEADWORKS_GATEWAY_LISEN") && unknown.contains("lisen"), "{unknown}");
        assert!(error("[[streams]]\nname = \"a:b\"", &[]).contains("\"a:b\""));
        assert!(error(&format!("{stream}{stream}"), &[]).contains("twice"));
        assert!(error(&format!("default_stream = \"z\"\n{stream}"), &[]).contains("\"z\""));
        assert!(error(&format!("{stream}writer.linger_ms = 10001"), &[]).contains("linger_ms"));
        assert!(error(&format!("{stream}writer.drain_ms = 1"), &[]).contains("top level"));
        assert!(error(&format!("timeout_ms = 0\n{stream}"), &[]).contains("from 1 to 600000"));
        assert!(error(&format!("credit_bytes = 1048575\n{stream}"), &[]).contains("from 1048576"));
        assert!(error(&format!("http_listen = \"127.0.0.1:4400\"\n{stream}"), &[]).contains("both"));
        assert!(error(&format!("http_buffer_bytes = 16777215\n{stream}"), &[]).contains("from 16777216"));
        for origin in
            ["shop.example", "https://", "https://Shop.example", "https://shop.example/", "null", ""]
        {
            let text = error(&format!("cors_origins = [\"{origin}\"]\n{stream}"), &[]);
            assert!(text.contains("cors_origins") && text.contains(&format!("{origin:?}")), "{text}");
        }
        let missing = Config::load(Some(Path::new("/nowhere/gateway.toml")), []).unwrap_err();
        assert!(missing.to_string().contains("/nowhere/gateway.toml"));
    }

    #[test]
    fn settings_of_http() {
        let stream = "[[streams]]\nname = \"a\"\n";
        let config = load(stream, &[]).unwrap();
        assert_eq!((config.http_listen, config.cors_origins.len()), (None, 0));
        let variables = [
            ("HEADWORKS_GATEWAY_HTTP_LISTEN", "127.0.0.1:4480"),
            ("HEADWORKS_GATEWAY_CORS_ORIGINS", "https://shop.example, http://[::1]:3000"),
            ("HEADWORKS_GATEWAY_HTTP_BUFFER_BYTES", "16777216"),
        ];
        let config = load(stream, &variables).unwrap();
        assert_eq!(config.http_listen.unwrap().port(), 4480);
        assert_eq!(config.cors_origins, ["https://shop.example", "http://[::1]:3000"]);
        assert_eq!(load(&toml::to_string(&config).unwrap(), &[]).unwrap(), config);
        let every = [("HEADWORKS_GATEWAY_CORS_ORIGINS", "*")];
        assert_eq!(load(stream, &every).unwrap().cors_origins, ["*"]);
    }

    #[test]
    fn nothing_beyond_loopback_unless_told() {
        let mut config = Config::for_stream("a");
        for loopback in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            config.listen = loopback.parse().unwrap();
            config.validate().unwrap();
        }
        for beyond in ["0.0.0.0:1", "10.0.0.1:1", "[::]:1"] {
            config.listen = beyond.parse().unwrap();
            assert_eq!(config.validate().unwrap_err().code(), "listen-exposed", "{beyond}");
        }
        config.listen = Config::default().listen;
        config.http_listen = Some("0.0.0.0:1".parse().unwrap());
        let error = config.validate().unwrap_err();
        assert_eq!(error.code(), "listen-exposed");
        assert!(error.to_string().starts_with("http_listen is 0.0.0.0:1"), "{error}");
        config.listen = "10.0.0.1:1".parse().unwrap();
        config.allow_beyond_loopback = true;
        config.validate().unwrap();
    }
}
