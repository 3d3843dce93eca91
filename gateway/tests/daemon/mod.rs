//! The daemon as a process.
#![allow(dead_code, unreachable_pub)] // Each test file uses its part of it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::support::soon;

/// A daemon that runs.
#[derive(Debug)]
pub struct Daemon {
    pub child: Child,
    pub grpc: SocketAddr,
    pub http: Option<SocketAddr>,
}

/// A daemon that is not started yet, with a configuration file and a Kinesis.
pub fn command(config: &Path, kinesis: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headworks-gateway"));
    let variables = [
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", kinesis),
    ];
    command.env_clear().envs(variables).args(["--config".as_ref(), config.as_os_str()]);
    command.stderr(Stdio::piped()).kill_on_drop(true);
    command
}

impl Daemon {
    /// Starts it and waits until it serves.
    pub async fn start(config: &Path, kinesis: &str) -> Self {
        Self::spawn(command(config, kinesis)).await
    }

    /// The same, with a command of the test's.
    pub async fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let (grpc, http) = soon("the daemon's address", async {
            loop {
                let Some(line) = lines.next_line().await.unwrap() else { panic!("it ended: {said:#?}") };
                if line.contains("the gateway serves") {
                    let value = |name: &str| {
                        let rest = line.split_once(name)?.1;
                        rest.split([' ', ')']).next()?.parse().ok()
                    };
                    return (value(" address=").unwrap(), value("http=Some("));
                }
                said.push(line);
            }
        })
        .await;
        // A log that nobody reads must not stop the daemon.
        let loud = std::env::var_os("HEADWORKS_TEST_LOG").is_some();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if loud {
                    eprintln!("{line}");
                }
            }
        });
        Self { child, grpc, http }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// SIGKILL: it gets no word in.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM; its exit code.
    pub async fn terminate(mut self) -> Option<i32> {
        let pid = self.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        soon("the daemon's end", self.child.wait()).await.unwrap().code()
    }
}
