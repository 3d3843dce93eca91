//! HTTP by hand, so that requests can be as odd as they like.
#![allow(dead_code, unreachable_pub)] // Each test file uses its part of it.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Running, soon};

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| &value[..])
    }

    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub async fn post(running: &Running, path: &str, headers: &[&str], body: impl Into<Vec<u8>>) -> Answer {
    ask(running, "POST", path, headers, body).await
}

pub async fn ask(
    running: &Running,
    method: &str,
    path: &str,
    headers: &[&str],
    body: impl Into<Vec<u8>>,
) -> Answer {
    send(running.handle.http_addr().unwrap(), method, path, headers, &body.into()).await
}

/// Sends a request with its length.
pub async fn send(address: SocketAddr, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
    let length = format!("content-length: {}", body.len());
    exchange(address, method, path, &[headers, &[&length]].concat(), body).await
}

/// Sends a request as it stands.
pub async fn raw(running: &Running, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
    exchange(running.handle.http_addr().unwrap(), method, path, headers, body).await
}

async fn exchange(address: SocketAddr, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
    let socket = TcpStream::connect(address).await.unwrap();
    over(socket, address, method, path, headers, body).await
}

/// Sends a request as it stands over a connection of the test's own.
pub async fn over(
    mut socket: impl AsyncRead + AsyncWrite + Unpin,
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &[u8],
) -> Answer {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}\r\n");
    soon("the request", async {
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(body).await.unwrap();
    })
    .await;
    let mut answer = Vec::new();
    soon("an answer", socket.read_to_end(&mut answer)).await.unwrap();
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let (first, headers) = head.split_once("\r\n").unwrap();
    let headers: Vec<(String, String)> = headers
        .lines()
        .map(|line| line.split_once(':').unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let answer = Answer {
        status: first.split(' ').nth(1).unwrap().parse().unwrap(),
        headers,
        body: answer[end + 4..].to_vec(),
    };
    // Answers are small enough to have a length.
    if let Some(length) = answer.header("content-length") {
        assert_eq!(length, answer.body.len().to_string(), "{answer:?}");
    }
    answer
}
