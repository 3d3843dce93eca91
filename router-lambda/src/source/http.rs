//! A table behind an HTTP endpoint on this machine, as AWS's Lambda extensions are.

use async_trait::async_trait;
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Error, MAX_TABLE_BYTES, Source, Text};
use crate::table::{self, Format};

/// The header by which the Parameters and Secrets extension knows that the function itself asks.
const TOKEN: &str = "x-aws-parameters-secrets-token";
/// The header that names a version of AppConfig.
const VERSION: &str = "configuration-version";

/// An endpoint.
#[derive(Clone)]
pub struct Endpoint {
    uri: Uri,
    url: String,
    token: Option<String>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("url", &self.url).finish_non_exhaustive()
    }
}

/// The answer of the Parameters and Secrets extension.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    parameter: Parameter,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Parameter {
    value: String,
    version: u64,
}

impl Endpoint {
    /// The endpoint at this URL; `token` is `AWS_SESSION_TOKEN`, which the Parameter Store's extension wants.
    pub fn new(url: impl Into<String>, token: Option<String>) -> Result<Self, Error> {
        let url = url.into();
        let uri = url
            .parse()
            .map_err(|error| Error::Unreadable { location: url.clone(), reason: format!("{error}") })?;
        Ok(Self { uri, url, token })
    }

    fn unreadable(&self, reason: impl ToString) -> Error {
        Error::Unreadable { location: self.url.clone(), reason: reason.to_string() }
    }
}

#[async_trait]
impl Source for Endpoint {
    async fn fetch(&self, known: Option<&str>) -> Result<Option<Text>, Error> {
        let unreadable = |error: &dyn std::fmt::Display| self.unreadable(error);
        let host = self.uri.host().unwrap_or("localhost");
        let address = (host.trim_matches(['[', ']']), self.uri.port_u16().unwrap_or(80));
        let stream = TcpStream::connect(address).await.map_err(|error| unreadable(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreadable(&e))?;
        // It ends with the sender, at the end of this function.
        tokio::spawn(connection);
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let authority = self.uri.authority().map_or("localhost", |authority| authority.as_str());
        let mut request = Request::get(path).header(http::header::HOST, authority);
        if let Some(token) = &self.token {
            request = request.header(TOKEN, token);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| unreadable(&error))?;
        let answer = sender.send_request(request).await.map_err(|error| unreadable(&error))?;
        let status = answer.status();
        let version = answer.headers().get(VERSION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        if version.is_some() && version.as_deref() == known {
            return Ok(None);
        }
        let body = Limited::new(answer.into_body(), MAX_TABLE_BYTES).collect().await;
        let body = body.map_err(|error| self.unreadable(error))?.to_bytes();
        let text = std::str::from_utf8(&body).map_err(|error| unreadable(&error))?;
        if !status.is_success() {
            let shown: String = text.chars().take(200).collect();
            return Err(self.unreadable(format!("{status}: {shown}")));
        }
        let text = match serde_json::from_str::<Answer>(text) {
            Ok(Answer { parameter: Parameter { value, version } }) => {
                Text { version: version.to_string(), format: Format::of_text(&value), text: value }
            }
            Err(_) => Text {
                version: version.unwrap_or_else(|| table::fingerprint(text)),
                format: Format::of_text(text),
                text: text.to_owned(),
            },
        };
        Ok((known != Some(&text.version)).then_some(text))
    }

    fn location(&self) -> String {
        self.url.clone()
    }
}
