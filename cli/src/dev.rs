//! `headworks dev`: the whole pipeline on this machine, left running.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use headworks_local::faults::Fault;
use headworks_local::stack::{ACCESS_KEY, SECRET_KEY};
use serde::Serialize;
use tokio::net::TcpListener;

use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::output::{self, Output, talk};
use crate::pipeline::{Config, Pipeline, Ports};

/// Starts the whole pipeline on loopback and leaves it running until Ctrl-C, which drains it: gateway, Kinesis,
/// DynamoDB, S3, router, and a receiver of traces.
///
/// Stdout has the settings for another terminal, as lines for a shell; stderr says the rest.
#[derive(Debug, clap::Args)]
#[command(after_help = Exit::HELP)]
pub struct Args {
    /// Where state is kept between runs: streams, tables and objects; created if it is not there. Default: in
    /// memory, nothing is kept.
    #[arg(long, value_name = "DIR", env = "HEADWORKS_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// The route table, .toml or .json; each stream that it names is created. Default: the streams orders,
    /// payments, clicks and default, by the header type.
    #[arg(long, value_name = "FILE", env = "HEADWORKS_ROUTES")]
    routes: Option<PathBuf>,
    /// Port of the gateway (gRPC); 0 takes any free one.
    #[arg(long, value_name = "PORT", default_value_t = 4400, env = "HEADWORKS_GATEWAY_PORT")]
    gateway_port: u16,
    /// Port of the gateway's HTTP door; 0 takes any free one.
    #[arg(long, value_name = "PORT", default_value_t = 4480, env = "HEADWORKS_HTTP_PORT")]
    http_port: u16,
    /// Port of Kinesis; 0 takes any free one.
    #[arg(long, value_name = "PORT", default_value_t = 4567, env = "HEADWORKS_KINESIS_PORT")]
    kinesis_port: u16,
    /// Port of DynamoDB; 0 takes any free one.
    #[arg(long, value_name = "PORT", default_value_t = 8000, env = "HEADWORKS_DYNAMODB_PORT")]
    dynamodb_port: u16,
    /// Port of S3; 0 takes any free one.
    #[arg(long, value_name = "PORT", default_value_t = 9000, env = "HEADWORKS_S3_PORT")]
    s3_port: u16,
    /// Port of the receiver of traces (OTLP over gRPC); 0 takes any free one.
    #[arg(long, value_name = "PORT", default_value_t = 4317, env = "HEADWORKS_OTLP_PORT")]
    otlp_port: u16,
    /// Shards of the inbound stream, 1 to 100.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    inbound_shards: u32,
    /// Shards of each outbound stream, 1 to 100.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    outbound_shards: u32,
    /// Share of records that the gateway traces, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, value_parser = share)]
    trace_ratio: f64,
    /// What goes wrong, such as "put-records throttle p=0.05 seed=7" or "s3:put-object error=AccessDenied times=3";
    /// may be given several times.
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<Fault>,
    /// Prints the addresses as one line of JSON.
    #[arg(long)]
    json: bool,
}

fn share(text: &str) -> Result<f64, Failure> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| {
        Failure::usage(
            "sampling-ratio-invalid",
            format_args!("the share {text:?} is not a number from 0 to 1"),
        )
    })
}

pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let cancel = interrupt::token()?;
    let ports = Ports {
        gateway: args.gateway_port,
        http: args.http_port,
        kinesis: args.kinesis_port,
        dynamodb: args.dynamodb_port,
        s3: args.s3_port,
        otlp: args.otlp_port,
    };
    check_ports(&ports).await?;
    let config = Config {
        ports,
        data_dir: args.data_dir,
        routes: args.routes,
        inbound_shards: args.inbound_shards,
        outbound_shards: args.outbound_shards,
        trace_ratio: args.trace_ratio,
        faults: args.faults,
        ..Config::default()
    };
    let mut say = |line: &str| talk(line);
    let pipeline = tokio::select! {
        started = Pipeline::start(config, &mut say) => started.map_err(|error| start_failure(&error))?,
        () = cancel.cancelled() => return Ok(Exit::Ok),
    };
    let addresses = Addresses::of(&pipeline);
    let mut output = Output::stdout();
    let written = if args.json { output.json(&addresses) } else { addresses.write(&mut output) };
    // The stack runs on for whoever uses it, even if nobody reads the list.
    let trouble = written.and_then(|()| output.flush()).err().and_then(output::Error::failure);
    talk(addresses.example());
    if trouble.is_none() {
        cancel.cancelled().await;
    }
    talk("draining");
    let ended = pipeline.shutdown().await;
    if let Some(failure) = trouble {
        return Err(failure);
    }
    match ended {
        Ok(()) => Ok(Exit::Ok),
        Err(error) => Err(Failure::failed("drain-incomplete", format_args!("{error:#}"))),
    }
}

/// Finds taken ports before anything is started, and names the option of each.
async fn check_ports(ports: &Ports) -> Result<(), Failure> {
    let all = [
        ("the gateway", "--gateway-port", ports.gateway),
        ("the gateway's HTTP door", "--http-port", ports.http),
        ("Kinesis", "--kinesis-port", ports.kinesis),
        ("DynamoDB", "--dynamodb-port", ports.dynamodb),
        ("S3", "--s3-port", ports.s3),
        ("the receiver of traces", "--otlp-port", ports.otlp),
    ];
    // Held until all are checked, so that two options with the same port are found too.
    let mut held = Vec::new();
    for (service, option, port) in all {
        match TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await {
            Ok(listener) => held.push(listener),
            Err(error) => {
                let (code, what) = match error.kind() {
                    std::io::ErrorKind::AddrInUse => ("address-in-use", "is already taken".to_owned()),
                    _ => ("listen-failed", format!("cannot be listened on: {error}")),
                };
                return Err(Failure::environment(
                    code,
                    format_args!(
                        "port {port} for {service} {what} on 127.0.0.1; stop the program that has it, or choose another with {option} PORT (0 takes any free one)"
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// Sorts what a start failed with.
fn start_failure(error: &anyhow::Error) -> Failure {
    let text = format!("{error:#}");
    if let Some(cause) = error.downcast_ref::<headworks_router::table::Error>() {
        return Failure::usage(cause.code(), text);
    }
    let code = if let Some(cause) = error.downcast_ref::<headworks_local::StartError>() {
        cause.code()
    } else if let Some(cause) = error.downcast_ref::<headworks_gateway::BindError>() {
        cause.code()
    } else {
        "start-failed"
    };
    Failure::environment(code, text)
}

/// Where everything is.
#[derive(Debug, Serialize)]
struct Addresses {
    gateway: String,
    http: String,
    kinesis: String,
    dynamodb: String,
    s3: String,
    otlp: String,
    inbound: String,
    outbound: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

impl Addresses {
    fn of(pipeline: &Pipeline) -> Self {
        let stack = pipeline.stack();
        let (gateway, http, otlp) =
            (pipeline.gateway_endpoint(), pipeline.http_endpoint(), pipeline.otlp_endpoint());
        let (kinesis, dynamodb, s3) =
            (stack.kinesis_endpoint(), stack.dynamodb_endpoint(), stack.s3_endpoint());
        let environment = vec![
            ("HEADWORKS_GATEWAY", gateway.clone()),
            ("HEADWORKS_HTTP", http.clone()),
            ("AWS_ENDPOINT_URL_KINESIS", kinesis.clone()),
            ("AWS_ENDPOINT_URL_DYNAMODB", dynamodb.clone()),
            ("AWS_ENDPOINT_URL_S3", s3.clone()),
            ("AWS_REGION", stack.engine().settings().region.clone()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.clone()),
            // boto3 looks at no other.
            ("AWS_DEFAULT_REGION", stack.engine().settings().region.clone()),
        ];
        let inbound = pipeline.inbound().to_owned();
        let outbound = pipeline.outbound().to_vec();
        Self { gateway, http, kinesis, dynamodb, s3, otlp, inbound, outbound, environment }
    }

    /// Lines that a shell can take in.
    fn write<W: std::io::Write>(&self, output: &mut Output<W>) -> Result<(), output::Error> {
        for (name, value) in &self.environment {
            output.line(format_args!("export {name}={value}"))?;
        }
        Ok(())
    }

    fn example(&self) -> String {
        let stream = self.outbound.first().map_or(self.inbound.as_str(), String::as_str);
        let data =
            "'{\"key\":\"session-1\",\"headers\":{\"type\":\"order.placed\"},\"data\":{\"total\":12}}'";
        format!(
            "ready: records go to {} and from there to {}; Ctrl-C drains\n\
             in another terminal, after pasting the export lines:\n\
             \x20 echo {data} | headworks send\n\
             \x20 headworks tail {stream} --since TRIM_HORIZON --follow",
            self.inbound,
            self.outbound.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_with_its_option() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let failure = check_ports(&Ports { s3: port, ..Ports::default() }).await.unwrap_err();
        assert_eq!((failure.code(), failure.exit()), ("address-in-use", Exit::Environment));
        let text = failure.to_string();
        assert!(text.contains(&port.to_string()) && text.contains("--s3-port"), "{text}");
        drop(taken);
        check_ports(&Ports { s3: port, ..Ports::default() }).await.unwrap();
        let twice = Ports { s3: port, otlp: port, ..Ports::default() };
        assert!(check_ports(&twice).await.unwrap_err().to_string().contains("--otlp-port"));
    }

    #[test]
    fn a_bad_route_table_is_bad_input() {
        let error = headworks_router::RouteTable::from_toml("x").unwrap_err();
        let failure = start_failure(&anyhow::Error::new(error).context("starting"));
        assert_eq!((failure.code(), failure.exit()), ("route-table-syntax", Exit::Usage));
    }
}
