//! Cold start: from the process's start to its first answer, through as little of a Runtime API as it needs.

use std::fs;
use std::io::BufReader;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use crate::cpu::SINK;
use crate::sink::{Sink, answer, request};

/// What one start took.
pub struct Start {
    pub ms: f64,
    /// The most memory that the process had.
    pub peak_mib: f64,
}

/// One start, with this event.
pub fn start(sink: &Sink, event: &str) -> Start {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let event = event.to_owned();
    let api = thread::Builder::new().name(SINK.to_owned()).spawn(move || {
        let mut given = false;
        loop {
            let (connection, _) = listener.accept().unwrap();
            connection.set_nodelay(true).unwrap();
            let mut writing = connection.try_clone().unwrap();
            let mut reading = BufReader::new(connection);
            while let Some((target, body)) = request(&mut reading) {
                if target.contains("/response") {
                    let at = Instant::now();
                    assert_eq!(String::from_utf8(body).unwrap(), r#"{"batchItemFailures":[]}"#);
                    return at;
                }
                assert!(target.contains("/next") && !given, "{target} {}", String::from_utf8_lossy(&body));
                given = true;
                let headers = "lambda-runtime-aws-request-id: r-1\r\nlambda-runtime-deadline-ms: 4000000000000\r\ncontent-type: application/json\r\n";
                assert!(answer(&mut writing, headers, &event));
            }
        }
    });
    let begun = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_bootstrap"))
        .env_clear()
        .env("AWS_LAMBDA_RUNTIME_API", address)
        .env("AWS_LAMBDA_FUNCTION_NAME", "router")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "a")
        .env("AWS_SECRET_ACCESS_KEY", "b")
        .env("AWS_ENDPOINT_URL_KINESIS", format!("http://{}", sink.address))
        .env("HEADWORKS_ROUTES", concat!(env!("CARGO_MANIFEST_DIR"), "/routes.example.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let answered = api.unwrap().join().unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: f64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    Start { ms: answered.duration_since(begun).as_secs_f64() * 1e3, peak_mib: peak_kib / 1024.0 }
}
