//! The processes that are killed.

use std::fs;
use std::net::TcpListener;
use std::process::Stdio;

use anyhow::Context as _;
use headworks_cli::pipeline::INBOUND;
use headworks_local::stack::{ACCESS_KEY, SECRET_KEY, Stack};
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::process::{Child, Command};

use super::config::Config;
use crate::program;

/// What was killed, how often.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kills {
    /// Gateways.
    pub gateway: u32,
    /// Workers.
    pub worker: u32,
    /// Router processes.
    pub router: u32,
}

impl Kills {
    /// All of them.
    pub fn total(self) -> u32 {
        self.gateway + self.worker + self.router
    }
}

/// The gateway and the workers.
#[derive(Debug)]
pub(super) struct Crew {
    kinesis: String,
    dynamodb: String,
    gateway_port: u16,
    careless: bool,
    gateway: Child,
    workers: Vec<Child>,
    started: u32,
    pub(super) kills: Kills,
}

impl Crew {
    pub(super) fn start(stack: &Stack, config: &Config) -> anyhow::Result<Self> {
        // Free a moment ago; the gateway must come back to the same one after it was killed.
        let gateway_port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (kinesis, dynamodb) = (stack.kinesis_endpoint(), stack.dynamodb_endpoint());
        let gateway = gateway(gateway_port, &kinesis)?;
        let mut crew = Self {
            kinesis,
            dynamodb,
            gateway_port,
            careless: config.careless,
            gateway,
            workers: Vec::new(),
            started: 0,
            kills: Kills::default(),
        };
        for _ in 0..config.workers {
            let worker = crew.worker()?;
            crew.workers.push(worker);
        }
        Ok(crew)
    }

    pub(super) fn gateway_endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.gateway_port)
    }

    /// Kills one at random and starts another in its place; says what it was.
    pub(super) async fn kill_one(&mut self, rng: &mut StdRng) -> anyhow::Result<&'static str> {
        match rng.random_range(0..4) {
            0 => {
                self.gateway.kill().await?;
                self.gateway = gateway(self.gateway_port, &self.kinesis)?;
                self.kills.gateway += 1;
                Ok("the gateway")
            }
            1 if kill_router()? => {
                self.kills.router += 1;
                Ok("a router")
            }
            _ => {
                let index = rng.random_range(0..self.workers.len());
                self.workers[index].kill().await?;
                self.workers[index] = self.worker()?;
                self.kills.worker += 1;
                Ok("a worker")
            }
        }
    }

    /// Ends everybody.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.gateway.kill().await?;
        for worker in &mut self.workers {
            worker.kill().await?;
        }
        Ok(())
    }

    fn worker(&mut self) -> anyhow::Result<Child> {
        self.started += 1;
        let mut command = Command::new(program("chaos")?);
        command
            .args(["worker", &format!("worker-{}", self.started)])
            .args(self.careless.then_some("--careless"))
            .env("AWS_ENDPOINT_URL_KINESIS", &self.kinesis)
            .env("AWS_ENDPOINT_URL_DYNAMODB", &self.dynamodb);
        spawn(command)
    }
}

fn gateway(port: u16, kinesis: &str) -> anyhow::Result<Child> {
    let mut command = Command::new(program("headworks-gateway")?);
    command
        .env("HEADWORKS_GATEWAY_LISTEN", format!("127.0.0.1:{port}"))
        .env("HEADWORKS_GATEWAY_STREAMS", INBOUND)
        .env("HEADWORKS_GATEWAY_KINESIS_ENDPOINT", kinesis);
    spawn(command)
}

fn spawn(mut command: Command) -> anyhow::Result<Child> {
    command
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .env("HEADWORKS_LOG", "error")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {command:?}"))
}

/// Kills one of the event source mapping's processes, which are children of this one; `false` if there is none.
fn kill_router() -> anyhow::Result<bool> {
    let mine = std::process::id().to_string();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        // Processes come and go while they are looked at.
        let (Ok(command), Ok(stat)) =
            (fs::read(entry.path().join("cmdline")), fs::read_to_string(entry.path().join("stat")))
        else {
            continue;
        };
        let parent = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().nth(1));
        if parent == Some(&mine) && command.split(|byte| *byte == 0).any(|word| word == b"router-bootstrap") {
            let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status()?;
            return Ok(killed.success());
        }
    }
    Ok(false)
}
