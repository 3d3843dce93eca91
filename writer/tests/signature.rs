//! The signature of a call whose body is sent in parts, against one that is computed here on what arrived
//! (Signature Version 4: IAM User Guide, "Create a signed AWS API request").
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::HashMap;
use std::fmt::Write as _;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Config, Credentials, Region};
use bytes::Bytes;
use headworks_writer::{Entry, KinesisStream, Stream};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

struct Request {
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

/// Reads one request and refuses it.
async fn receive(socket: TcpStream) -> Request {
    let mut socket = BufReader::new(socket);
    let mut headers = HashMap::new();
    let mut line = String::new();
    while socket.read_line(&mut line).await.unwrap() > 2 {
        if let Some((name, value)) = line.split_once(": ") {
            headers.insert(name.to_ascii_lowercase(), value.trim_end().to_owned());
        }
        line.clear();
    }
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    socket.read_exact(&mut body).await.unwrap();
    let refusal =
        b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/x-amz-cbor-1.1\r\ncontent-length: 0\r\n\r\n";
    socket.write_all(refusal).await.unwrap();
    Request { headers, body }
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// RFC 2104, for keys that are no longer than a block.
fn hmac(key: impl AsRef<[u8]>, text: &str) -> Vec<u8> {
    let padded = |pad: u8| {
        let mut block = [pad; 64];
        block.iter_mut().zip(key.as_ref()).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().to_vec()
}

fn signature(request: &Request, scope: &str, signed: &str) -> String {
    let mut canonical = "POST\n/\n\n".to_owned();
    for name in signed.split(';') {
        writeln!(canonical, "{name}:{}", request.headers[name]).unwrap();
    }
    write!(canonical, "\n{signed}\n{}", hex(Sha256::digest(&request.body))).unwrap();
    let date = &request.headers["x-amz-date"];
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(Sha256::digest(canonical)));
    let key = scope.split('/').fold(format!("AWS4{SECRET}").into_bytes(), hmac);
    hex(hmac(key, &text))
}

#[tokio::test]
async fn a_body_in_parts_is_signed_like_a_whole_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("AKIDEXAMPLE", SECRET, None, None, "test"))
        .endpoint_url(format!("http://{}", listener.local_addr().unwrap()))
        .build();
    let stream = KinesisStream::new(Client::from_conf(config), "inbound");
    let large: Bytes = (0..=255).cycle().take(100_000).collect();
    let entry =
        |length| Entry { partition_key: "k".into(), explicit_hash_key: None, data: large.slice(..length) };
    // None large, one large, and several.
    for lengths in [vec![10, 20], vec![10, 100_000], vec![100_000, 4_096, 4_095, 50_000]] {
        let entries: Vec<Entry> = lengths.iter().copied().map(entry).collect();
        let (accepted, refused) = tokio::join!(
            async { receive(listener.accept().await.unwrap().0).await },
            stream.put_records(&entries)
        );
        refused.unwrap_err();
        assert!(accepted.body.len() > lengths.iter().sum());
        let authorization = &accepted.headers["authorization"];
        let field = |name: &str| authorization.split_once(name).unwrap().1.split(',').next().unwrap();
        let (_, scope) = field("Credential=").split_once('/').unwrap();
        assert_eq!(field("Signature="), signature(&accepted, scope, field("SignedHeaders=")), "{lengths:?}");
        assert!(field("SignedHeaders=").contains("host;x-amz-date"), "{authorization}");
    }
}
