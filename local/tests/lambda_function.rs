//! Functions: closures, and real processes behind the Runtime API. The process is this test binary, started again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic, its helpers included"
)]

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headworks_local::kinesis::{CreateStream, PutEntry};
use headworks_local::lambda::{Config, Function, FunctionError, Mapping, Program};
use headworks_local::{Engine, Settings};

const MODE: &str = "HEADWORKS_TEST_FUNCTION";

/// Not a test when the variable is set: then this is the function's process.
#[test]
fn function_process() {
    match std::env::var(MODE).as_deref() {
        Ok("serve") => serve(),
        Ok("init-error") => {
            let error = r#"{"errorType":"Config.Missing","errorMessage":"no route table"}"#;
            assert_eq!(call("POST", "init/error", error.as_bytes()).0, 202);
            std::process::exit(1);
        }
        Ok("exit") => std::process::exit(3),
        Ok("silent") => std::thread::sleep(Duration::from_secs(600)),
        _ => {}
    }
}

fn serve() {
    loop {
        let (status, headers, payload) = call("GET", "invocation/next", b"");
        assert_eq!(status, 200);
        let id = &headers["lambda-runtime-aws-request-id"];
        let (response, error) = (format!("invocation/{id}/response"), format!("invocation/{id}/error"));
        match std::str::from_utf8(&payload).unwrap() {
            "crash" => std::process::exit(7),
            "hang" => std::thread::sleep(Duration::from_secs(600)),
            "error" => {
                let body = br#"{"errorType":"Order.Bad","errorMessage":"no such order"}"#;
                assert_eq!(call("POST", &error, body).0, 202);
            }
            "large" => assert_eq!(call("POST", &response, &vec![b'x'; 6 * 1024 * 1024 + 1]).0, 413),
            "headers" => {
                let mut names: Vec<_> =
                    headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                names.sort();
                assert_eq!(call("POST", &response, names.join("\n").as_bytes()).0, 202);
            }
            "environment" => {
                let mut all: Vec<_> =
                    std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
                all.sort();
                assert_eq!(call("POST", &response, all.join("\n").as_bytes()).0, 202);
            }
            "protocol" => {
                // Each of these is refused, and none disturbs the invocation in hand.
                let statuses = [
                    call("GET", "invocation/next", b"").0,
                    call("POST", "invocation/another/response", b"{}").0,
                    call("PUT", &response, b"{}").0,
                    call("GET", "elsewhere", b"").0,
                ];
                assert_eq!(call("POST", &response, format!("{statuses:?}").as_bytes()).0, 202);
            }
            "pid" => {
                assert_eq!(call("POST", &response, std::process::id().to_string().as_bytes()).0, 202);
            }
            // A Kinesis event: the first process to get it dies over it.
            event if event.starts_with("{\"Records\"") => {
                let mark = std::env::var("MARK").unwrap();
                if std::fs::File::create_new(mark).is_ok() {
                    eprintln!("giving up");
                    std::process::abort();
                }
                assert_eq!(call("POST", &response, b"{\"batchItemFailures\":[]}").0, 202);
            }
            other => assert_eq!(call("POST", &response, other.to_uppercase().as_bytes()).0, 202),
        }
    }
}

/// One HTTP/1.1 request to the Runtime API.
fn call(method: &str, path: &str, body: &[u8]) -> (u16, HashMap<String, String>, Vec<u8>) {
    let address = std::env::var("AWS_LAMBDA_RUNTIME_API").unwrap();
    let mut socket = TcpStream::connect(&address).unwrap();
    let head = format!(
        "{method} /2018-06-01/runtime/{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).unwrap();
    // A refused body may be cut off by the other side.
    let _ = socket.write_all(body);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("an HTTP answer");
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    (status, headers, answer[end + 4..].to_vec())
}

fn program(mode: &str) -> Program {
    Program {
        args: ["--exact", "function_process", "--nocapture"].map(str::to_owned).to_vec(),
        env: vec![(MODE.to_owned(), mode.to_owned()), ("TABLE".to_owned(), "routes".to_owned())],
        concurrency: 2,
        init_timeout: Duration::from_secs(60),
        ..Program::new("shout", std::env::current_exe().unwrap())
    }
}

async fn text(function: &Function, payload: &'static str) -> String {
    let response = function.invoke(Bytes::from_static(payload.as_bytes())).await.unwrap();
    String::from_utf8(response.to_vec()).unwrap()
}

#[tokio::test]
async fn a_process_answers_and_is_reused() {
    let function = Function::program(program("serve")).unwrap();
    assert_eq!(text(&function, "hello").await, "HELLO");
    let pid = text(&function, "pid").await;
    assert_eq!(text(&function, "pid").await, pid);
    assert_eq!(text(&function, "protocol").await, "[403, 400, 405, 404]");
    let error = function.invoke(Bytes::from_static(b"error")).await.unwrap_err();
    assert!(
        matches!(&error, FunctionError::Reported { error_type, message }
            if error_type == "Order.Bad" && message == "no such order"),
        "{error}"
    );
    let error = function.invoke(Bytes::from_static(b"large")).await.unwrap_err();
    assert_eq!(error.code(), "function-response-too-large");
    assert_eq!(
        text(&function, "pid").await,
        pid,
        "an error that the function reports does not cost its process"
    );
    let counts = function.counts();
    assert_eq!((counts.environments_started, counts.environments_lost), (1, 0));
    assert_eq!((counts.invocations, counts.errors), (7, 2));
    function.shutdown().await;
    assert_eq!(function.invoke(Bytes::new()).await.unwrap_err().code(), "function-stopped");
}

#[tokio::test]
async fn a_process_sees_what_lambda_shows_it_and_nothing_of_its_parent() {
    let function = Function::program(program("serve")).unwrap();
    let environment = text(&function, "environment").await;
    for expected in [
        "AWS_LAMBDA_FUNCTION_NAME=shout",
        "AWS_LAMBDA_FUNCTION_VERSION=$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=512",
        "AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/shout",
        "AWS_LAMBDA_LOG_STREAM_NAME=local/[$LATEST]",
        "AWS_LAMBDA_RUNTIME_API=127.0.0.1:",
        "AWS_REGION=us-east-1",
        "TABLE=routes",
    ] {
        assert!(environment.lines().any(|line| line.starts_with(expected)), "{expected} in\n{environment}");
    }
    // Cargo sets this one for the test.
    assert!(std::env::var("CARGO_MANIFEST_DIR").is_ok());
    assert!(!environment.contains("CARGO_MANIFEST_DIR"), "{environment}");
    let headers = text(&function, "headers").await;
    for expected in [
        "lambda-runtime-aws-request-id: ",
        "lambda-runtime-deadline-ms: 1",
        "lambda-runtime-invoked-function-arn: arn:aws:lambda:us-east-1:000000000000:function:shout",
        "lambda-runtime-trace-id: Root=1-",
    ] {
        assert!(headers.lines().any(|line| line.starts_with(expected)), "{expected} in\n{headers}");
    }
    function.shutdown().await;
}

#[tokio::test]
async fn a_crash_and_a_timeout_fail_their_invocation_and_the_process_is_replaced() {
    let mut program = program("serve");
    program.timeout = Duration::from_secs(2);
    let function = Function::program(program).unwrap();
    let first = text(&function, "pid").await;
    let error = function.invoke(Bytes::from_static(b"crash")).await.unwrap_err();
    assert_eq!(error.code(), "function-exited");
    assert!(error.to_string().contains('7'), "{error}");
    let second = text(&function, "pid").await;
    assert_ne!(second, first);
    assert_eq!(function.invoke(Bytes::from_static(b"hang")).await.unwrap_err().code(), "function-timeout");
    assert_ne!(text(&function, "pid").await, second);
    let counts = function.counts();
    assert_eq!((counts.environments_started, counts.environments_lost), (3, 2));
    function.shutdown().await;
}

#[tokio::test]
async fn a_mapping_hands_the_event_of_a_crashed_process_to_its_successor() {
    let engine = Arc::new(Engine::new(Settings::default()));
    engine
        .create_stream(CreateStream { name: "inbound".to_owned(), shards: 1, ..CreateStream::default() })
        .unwrap();
    for index in 0..3 {
        engine.put("inbound", PutEntry::new(format!("key-{index}"), format!("order {index}"))).unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let mut program = program("serve");
    program.env.push(("MARK".to_owned(), directory.path().join("mark").display().to_string()));
    let function = Function::program(program).unwrap();
    let config = Config { report_batch_item_failures: true, ..Config::new("inbound") };
    let mapping = Mapping::start(engine, function.clone(), config).unwrap();
    tokio::time::timeout(Duration::from_secs(60), mapping.wait_idle()).await.unwrap().unwrap();
    let counters = mapping.counters();
    assert_eq!((counters.records, counters.invocations, counters.failures, counters.retries), (3, 2, 1, 1));
    assert_eq!(function.counts().environments_lost, 1);
    mapping.shutdown().await;
    function.shutdown().await;
}

#[tokio::test]
async fn processes_are_started_on_demand_up_to_the_concurrency() {
    let function = Function::program(program("serve")).unwrap();
    let calls = (0..6).map(|_| text(&function, "x"));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(|answer| answer == "X"));
    assert_eq!(function.counts().environments_started, 2);
    function.shutdown().await;
}

#[tokio::test]
async fn a_process_that_cannot_start_says_why() {
    for (mode, code) in [("init-error", "function-init-failed"), ("exit", "function-exited")] {
        let function = Function::program(program(mode)).unwrap();
        let error = function.invoke(Bytes::new()).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }
    let silent = Program { init_timeout: Duration::from_millis(200), ..program("silent") };
    let error = Function::program(silent).unwrap().invoke(Bytes::new()).await.unwrap_err();
    assert_eq!(error.code(), "function-init-timeout");
    let missing = Function::program(Program::new("missing", "no/such/bootstrap")).unwrap();
    let error = missing.invoke(Bytes::new()).await.unwrap_err();
    assert_eq!(error.code(), "function-not-started");
    assert!(error.to_string().contains("no/such/bootstrap"), "{error}");
}

#[tokio::test]
async fn a_closure_answers_reports_errors_and_may_panic() {
    let function = Function::from_fn("shout", |payload: Bytes| async move {
        match &payload[..] {
            b"error" => Err(FunctionError::reported("Order.Bad", "no such order")),
            b"panic" => panic!("out of orders"),
            other => Ok(Bytes::from(other.to_ascii_uppercase())),
        }
    })
    .unwrap();
    assert_eq!(function.invoke(Bytes::from_static(b"hello")).await.unwrap(), "HELLO");
    let error = function.invoke(Bytes::from_static(b"error")).await.unwrap_err();
    assert_eq!(error.to_string(), "the function reported Order.Bad: no such order");
    let error = function.invoke(Bytes::from_static(b"panic")).await.unwrap_err();
    assert_eq!(error.to_string(), "the function panicked: out of orders");
    assert_eq!(function.invoke(Bytes::from_static(b"again")).await.unwrap(), "AGAIN");
}

#[test]
fn bad_configuration_is_named() {
    let cases: [(&str, Program); 5] = [
        ("name", Program::new("two words", "x")),
        ("concurrency", Program { concurrency: 0, ..Program::new("f", "x") }),
        ("memory_mib", Program { memory_mib: 64, ..Program::new("f", "x") }),
        ("timeout", Program { timeout: Duration::from_secs(901), ..Program::new("f", "x") }),
        ("env", Program { env: vec![("A=B".to_owned(), String::new())], ..Program::new("f", "x") }),
    ];
    for (field, program) in cases {
        let error = Function::program(program).unwrap_err();
        assert_eq!(error.field, field, "{error}");
    }
}
