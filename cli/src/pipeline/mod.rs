//! The whole pipeline on the embedded stack: gateway, streams, router, an OTLP receiver.
//!
//! `dev` leaves it running, `demo` sends events through it, tests start it too. Every part is the real
//! one: the gateway on its own port, the router as processes behind the Lambda Runtime API.

mod resources;
mod router;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use headworks_gateway::Gateway;
use headworks_local::Stack;
use headworks_local::lambda;
use headworks_local::otlp::{self, Collector};
use headworks_telemetry::Telemetry;
use headworks_writer::KinesisStream;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The inbound stream's name.
pub const INBOUND: &str = "inbound";
/// The outbound streams' names, as in the router's example table.
pub const OUTBOUND: [&str; 4] = ["orders", "payments", "clicks", "default"];
/// The bucket for dead letters.
pub const DEAD_LETTERS: &str = "headworks-dead-letters";

/// The table of the router's progress.
pub const PROGRESS: &str = "headworks-router-progress";

/// The ports of a pipeline; 0 takes any free one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ports {
    /// gRPC of the gateway.
    pub gateway: u16,
    /// HTTP of the gateway.
    pub http: u16,
    /// Kinesis.
    pub kinesis: u16,
    /// DynamoDB.
    pub dynamodb: u16,
    /// S3.
    pub s3: u16,
    /// OTLP over gRPC.
    pub otlp: u16,
}

/// How a pipeline is started.
#[derive(Debug, Clone)]
pub struct Config {
    /// The ports.
    pub ports: Ports,
    /// Where state is kept; see [`headworks_local::stack::Config::data_dir`]. Default: in memory.
    pub data_dir: Option<PathBuf>,
    /// The route table. Default: the router's example table.
    pub routes: Option<PathBuf>,
    /// Shards of the inbound stream, 1 to 100.
    pub inbound_shards: u32,
    /// Shards of each outbound stream, 1 to 100.
    pub outbound_shards: u32,
    /// The share of records that are traced, 0 to 1.
    pub trace_ratio: f64,
    /// Router processes at most, 1 to 100.
    pub router_concurrency: usize,
    /// What goes wrong, as [`headworks_local::faults::Fault::parse`] reads it.
    pub faults: Vec<headworks_local::faults::Fault>,
    /// The `headworks` program, which runs the router's bootstrap. Default: the running program.
    pub program: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ports: Ports::default(),
            data_dir: None,
            routes: None,
            inbound_shards: 2,
            outbound_shards: 2,
            trace_ratio: 0.01,
            router_concurrency: 4,
            faults: Vec::new(),
            program: None,
        }
    }
}

/// A running pipeline.
#[derive(Debug)]
pub struct Pipeline {
    stack: Stack,
    collector: Collector,
    gateway: headworks_gateway::Handle,
    serving: JoinHandle<Result<headworks_gateway::Report, headworks_gateway::RunError>>,
    stop_gateway: CancellationToken,
    gateway_telemetry: Telemetry,
    mapping: lambda::Handle,
    function: lambda::Function,
    outbound: Vec<String>,
    _routes: Option<TempDir>,
}

impl Pipeline {
    /// Starts everything, telling `progress` what it does.
    pub async fn start(config: Config, progress: &mut (dyn FnMut(&str) + Send)) -> anyhow::Result<Self> {
        for (name, value) in [("inbound", config.inbound_shards), ("outbound", config.outbound_shards)] {
            if !(1..=100).contains(&value) {
                bail!("the {name} stream cannot have {value} shards; it must be from 1 to 100");
            }
        }
        let stack = Stack::start(headworks_local::Config {
            kinesis_port: config.ports.kinesis,
            dynamodb_port: config.ports.dynamodb,
            s3_port: config.ports.s3,
            data_dir: config.data_dir.clone(),
            ..Default::default()
        })
        .await?;
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, config.ports.otlp));
        let collector = Collector::start(otlp::Config { listen, ..Default::default() }).await?;
        progress(&format!(
            "embedded stack: Kinesis {}, DynamoDB {}, S3 {}, OTLP {}",
            stack.kinesis_endpoint(),
            stack.dynamodb_endpoint(),
            stack.s3_endpoint(),
            collector.endpoint()
        ));

        let (routes, table, kept) = router::table(config.routes.as_deref())?;
        let outbound: Vec<String> = table.streams().iter().map(ToString::to_string).collect();
        resources::create(&stack, &config, &outbound).await?;
        progress(&format!(
            "streams: {INBOUND} ({} shards) and {} ({} shards each)",
            config.inbound_shards,
            outbound.join(", "),
            config.outbound_shards
        ));

        let gateway_telemetry = telemetry("headworks-gateway", &collector.endpoint(), config.trace_ratio)?;
        let stop_gateway = CancellationToken::new();
        let (gateway, serving) =
            start_gateway(&stack, &config, &gateway_telemetry, stop_gateway.clone()).await?;
        let http = gateway.http_addr().map(|address| format!(", HTTP http://{address}")).unwrap_or_default();
        progress(&format!("gateway: gRPC http://{}{http}", gateway.local_addr()));

        let (function, mapping) = router::start(&stack, &config, &routes, &collector.endpoint())?;
        // Last, so that what is set up here is not what fails.
        for fault in &config.faults {
            stack.faults().add(fault.clone())?;
            progress(&format!("fault: {fault}"));
        }
        progress("router: behind an event source mapping, as processes that speak the Lambda Runtime API");
        Ok(Self {
            stack,
            collector,
            gateway,
            serving,
            stop_gateway,
            gateway_telemetry,
            mapping,
            function,
            outbound,
            _routes: kept,
        })
    }

    /// `http://127.0.0.1:PORT` of the gateway.
    pub fn gateway_endpoint(&self) -> String {
        format!("http://{}", self.gateway.local_addr())
    }

    /// `http://127.0.0.1:PORT` of the gateway's HTTP door.
    pub fn http_endpoint(&self) -> String {
        self.gateway.http_addr().map(|address| format!("http://{address}")).unwrap_or_default()
    }

    /// The gateway: its settings and its writers' counts.
    pub fn gateway(&self) -> &headworks_gateway::Handle {
        &self.gateway
    }

    /// Kinesis, DynamoDB and S3.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// The OTLP receiver.
    pub fn collector(&self) -> &Collector {
        &self.collector
    }

    /// The value for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn otlp_endpoint(&self) -> String {
        self.collector.endpoint()
    }

    /// The router's event source mapping.
    pub fn mapping(&self) -> &lambda::Handle {
        &self.mapping
    }

    /// The inbound stream's name.
    pub fn inbound(&self) -> &str {
        INBOUND
    }

    /// The streams that the route table names.
    pub fn outbound(&self) -> &[String] {
        &self.outbound
    }

    /// Sends out what the gateway still holds back of its spans.
    pub async fn flush_telemetry(&self) -> anyhow::Result<()> {
        Ok(self.gateway_telemetry.flush().await?)
    }

    /// Drains from front to back: the gateway, the router, then the stack.
    pub async fn shutdown(self) -> anyhow::Result<()> {
        self.stop_gateway.cancel();
        let report = self.serving.await.context("the gateway's task")??;
        let routed = self.mapping.wait_idle();
        // What is not routed now stays on the inbound stream.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(20), routed).await;
        self.mapping.shutdown().await;
        self.function.shutdown().await;
        self.gateway_telemetry.shutdown().await;
        self.collector.shutdown().await;
        self.stack.shutdown().await?;
        if report.unanswered > 0 {
            bail!("{} records were not confirmed by the stream before the drain deadline", report.unanswered);
        }
        Ok(())
    }
}

/// Telemetry of one service of this process.
pub fn telemetry(service: &str, endpoint: &str, ratio: f64) -> anyhow::Result<Telemetry> {
    let mut config = headworks_telemetry::Config::new(service);
    config.otlp_endpoint = Some(endpoint.to_owned());
    config.sample_ratio = ratio;
    Ok(Telemetry::start(config)?)
}

async fn start_gateway(
    stack: &Stack,
    config: &Config,
    telemetry: &Telemetry,
    stop: CancellationToken,
) -> anyhow::Result<(
    headworks_gateway::Handle,
    JoinHandle<Result<headworks_gateway::Report, headworks_gateway::RunError>>,
)> {
    let mut settings = headworks_gateway::Config::for_stream(INBOUND);
    settings.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, config.ports.gateway));
    settings.http_listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, config.ports.http)));
    settings.kinesis_endpoint = Some(stack.kinesis_endpoint());
    let client = stack.kinesis();
    let streams = move |name: &str| Arc::new(KinesisStream::new(client.clone(), name)) as Arc<_>;
    let (gateway, handle) = Gateway::bind(settings, streams, telemetry.minter(), telemetry.tracer()).await?;
    Ok((handle, tokio::spawn(gateway.run(stop))))
}
