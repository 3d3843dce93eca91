//! The wire itself, without an SDK: h2c, CBOR, and requests that are none.

use bytes::Bytes;
use ciborium::{Value, cbor};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::support::{FIRST, fixture};

struct Answer {
    status: StatusCode,
    content_type: String,
    body: Bytes,
}

/// One call over HTTP/2 with prior knowledge, as Node's SDK speaks to `http://`.
async fn h2c(endpoint: &str, method: Method, operation: &str, content_type: &str, body: Vec<u8>) -> Answer {
    let address = endpoint.strip_prefix("http://").unwrap();
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(endpoint)
        .header("content-type", content_type)
        .header("x-amz-target", operation)
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status();
    let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(response.headers()["x-amzn-requestid"].len(), 36);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    drop(sender);
    driver.abort();
    Answer { status, content_type, body }
}

fn encode(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

fn member<'a>(value: &'a Value, name: &str) -> &'a Value {
    let map = value.as_map().unwrap();
    map.iter().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value).unwrap()
}

#[tokio::test]
async fn cbor_over_h2c_carries_blobs_as_bytes_and_times_as_tagged_milliseconds() {
    const CBOR: &str = "application/x-amz-cbor-1.1";
    let f = fixture().await;
    f.create("s", 1).await;
    let endpoint = f.stack.kinesis_endpoint();
    let call = |operation: &'static str, value: Value| {
        let endpoint = endpoint.clone();
        async move {
            let target = format!("Kinesis_20131202.{operation}");
            let answer = h2c(&endpoint, Method::POST, &target, CBOR, encode(&value)).await;
            assert_eq!((answer.status, answer.content_type.as_str()), (StatusCode::OK, CBOR));
            ciborium::from_reader::<Value, _>(&answer.body[..]).unwrap()
        }
    };
    let data = Value::Bytes(b"\x00\xffdata".to_vec());
    let put =
        call("PutRecord", cbor!({ "StreamName" => "s", "PartitionKey" => "k", "Data" => data }).unwrap())
            .await;
    assert_eq!(member(&put, "ShardId").as_text(), Some(FIRST));

    let at = Value::Tag(1, Box::new(Value::Integer(crate::support::START_MS.into())));
    let request = cbor!({ "StreamName" => "s", "ShardId" => FIRST, "ShardIteratorType" => "AT_TIMESTAMP", "Timestamp" => at });
    let iterator = call("GetShardIterator", request.unwrap()).await;
    let iterator = member(&iterator, "ShardIterator").clone();
    let got = call("GetRecords", cbor!({ "ShardIterator" => iterator }).unwrap()).await;
    let record = &member(&got, "Records").as_array().unwrap()[0];
    assert_eq!(member(record, "Data").as_bytes().map(Vec::as_slice), Some(&b"\x00\xffdata"[..]));
    let (tag, at) = member(record, "ApproximateArrivalTimestamp").as_tag().unwrap();
    assert_eq!((tag, at), (1, &Value::Integer(crate::support::START_MS.into())));
}

#[tokio::test]
async fn what_is_no_call_is_answered_with_what_one_looks_like() {
    const JSON: &str = "application/x-amz-json-1.1";
    let f = fixture().await;
    let endpoint = f.stack.kinesis_endpoint();
    for (method, target, content_type, body, status, exception, hint) in [
        (Method::GET, "", JSON, "", 404, "UnknownOperationException", "POST"),
        (Method::POST, "Kinesis_20131202.Fly", JSON, "{}", 400, "UnknownOperationException", "Fly"),
        (
            Method::POST,
            "DynamoDB_20120810.GetItem",
            JSON,
            "{}",
            400,
            "UnknownOperationException",
            "Kinesis_20131202.",
        ),
        (
            Method::POST,
            "Kinesis_20131202.ListStreams",
            "text/plain",
            "{}",
            404,
            "UnknownOperationException",
            "json",
        ),
        (
            Method::POST,
            "Kinesis_20131202.PutRecord",
            JSON,
            "{\"Data\":\"%\"}",
            400,
            "SerializationException",
            "base64",
        ),
        (Method::POST, "Kinesis_20131202.PutRecord", JSON, "{", 400, "SerializationException", "EOF"),
    ] {
        let answer = h2c(&endpoint, method, target, content_type, body.as_bytes().to_vec()).await;
        let error: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer.status.as_u16(), status, "{target}");
        assert_eq!(error["__type"], exception, "{target}");
        assert!(error["message"].as_str().unwrap().contains(hint), "{error}");
    }
    let empty = h2c(&endpoint, Method::POST, "Kinesis_20131202.ListStreams", JSON, Vec::new()).await;
    assert_eq!(empty.status, StatusCode::OK, "a request without members may have no body");
}
