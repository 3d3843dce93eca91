//! Fetches a small document over HTTP, encrypted unless it comes from this machine.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use axum::http::{HeaderValue, Request, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::tls;

/// The most bytes of a document.
const MAX_BYTES: usize = 1 << 20;

/// What is fetched, and how.
pub(super) struct Target {
    uri: Uri,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.uri)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.uri)
    }
}

fn parts(url: &str) -> Result<(Uri, String, bool), String> {
    let uri: Uri = url.parse().map_err(|error| format!("it is no URL ({error})"))?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("it holds a user name or password; a JWKS is public".to_owned());
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match uri.scheme_str() {
        Some("https") if !host.is_empty() => Ok((uri, host, true)),
        Some("http") if loopback => Ok((uri, host, false)),
        Some("http") => {
            Err("it is not encrypted: whoever is in between could put in a key of theirs; use https"
                .to_owned())
        }
        _ => Err("it is neither https://host/path nor http on loopback".to_owned()),
    }
}

/// Whether keys may be fetched from there.
pub(crate) fn check_url(url: &str) -> Result<(), String> {
    parts(url).map(drop)
}

impl Target {
    pub(super) fn new(url: &str, roots: Option<&Path>) -> Result<Self, String> {
        let (uri, host, encrypted) = parts(url)?;
        let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        let tls = match encrypted {
            false => None,
            true => {
                let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
                let roots = match roots {
                    Some(path) => tls::roots(path).map_err(|error| error.to_string())?,
                    None => system_roots()?,
                };
                let config = ClientConfig::builder_with_provider(tls::provider())
                    .with_safe_default_protocol_versions()
                    .map_err(|error| error.to_string())?
                    .with_root_certificates(roots)
                    .with_no_client_auth();
                Some((TlsConnector::from(Arc::new(config)), name))
            }
        };
        Ok(Self { uri, host, port, tls })
    }
}

fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(format!(
            "the system has no root certificates ({:?}); set auth.jwt.jwks_ca",
            found.errors
        ));
    }
    Ok(roots)
}

/// Fetches it.
pub(super) async fn get(target: &Target) -> Result<Bytes, String> {
    let socket = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(|e| e.to_string())?;
    match &target.tls {
        None => ask(target, socket).await,
        Some((connector, name)) => {
            let socket = connector.connect(name.clone(), socket).await.map_err(|error| error.to_string())?;
            ask(target, socket).await
        }
    }
}

async fn ask(
    target: &Target,
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Bytes, String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(socket)).await.map_err(|error| error.to_string())?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let host = target.uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let host = HeaderValue::from_str(host).map_err(|error| error.to_string())?;
    let path = target.uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    if answer.status() != StatusCode::OK {
        return Err(format!(
            "it answers {}; give the address itself, no redirection is followed",
            answer.status()
        ));
    }
    let body =
        Limited::new(answer.into_body(), MAX_BYTES).collect().await.map_err(|error| error.to_string())?;
    Ok(body.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::check_url;

    #[test]
    fn keys_come_encrypted_or_from_this_machine() {
        for url in
            ["https://issuer.example/keys", "http://127.0.0.1:1/k", "http://[::1]/k", "http://localhost/"]
        {
            check_url(url).unwrap();
        }
        for (url, named) in [
            ("http://issuer.example/keys", "not encrypted"),
            ("https://user:secret@issuer.example/", "user name"),
            ("ftp://issuer.example/", "neither"),
            ("issuer.example", "neither"),
            ("", "no URL"),
        ] {
            let error = check_url(url).unwrap_err();
            assert!(error.contains(named), "{url}: {error}");
        }
    }
}
