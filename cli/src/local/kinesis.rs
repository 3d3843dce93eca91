//! `headworks local kinesis`: Kinesis alone, where kinesis-mock or kinesalite stood.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use headworks_local::faults::{Fault, Faults};
use headworks_local::kinesis::{self, Alone, ServeError, Settings};
use headworks_local::stack::{ACCESS_KEY, SECRET_KEY, StartError};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::output::{self, Output, talk};

/// How often a server that starts is asked whether it answers.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// Which of the service's rates and limits hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Limits {
    /// Nothing is throttled; sizes and counts of requests are limited all the same.
    #[default]
    None,
    /// Shards, consumers and calls are throttled as AWS throttles them.
    Aws,
}

/// Starts a Kinesis of its own on loopback and leaves it running until Ctrl-C. Any credentials are taken.
///
/// Stdout has the settings for another terminal, as lines for a shell; stderr says the rest.
#[derive(Debug, clap::Args)]
#[command(after_help = Exit::HELP)]
pub struct Args {
    /// Port; 0 takes any free one.
    #[arg(long, value_name = "PORT", default_value_t = 4567, env = "HEADWORKS_KINESIS_PORT")]
    port: u16,
    /// Where streams are kept between runs; created if it is not there. Default: in memory, nothing is kept.
    #[arg(long, value_name = "DIR", env = "HEADWORKS_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Which of the service's rates and limits hold.
    #[arg(long, value_enum, default_value_t)]
    limits: Limits,
    /// One of its settings, such as transition=500ms, shard_limit=20 or read_limits=off; goes before --limits, and may
    /// be given several times.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// What goes wrong, such as "put-records throttle p=0.05 seed=7"; may be given several times.
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<Fault>,
    /// Port from which faults are put in force and lifted while it runs, from 1. Default: there is none.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    control_port: Option<u16>,
    /// Account that ARNs name, 12 digits.
    #[arg(long, value_name = "ID", default_value = "000000000000", env = "AWS_ACCOUNT_ID")]
    account: String,
    /// Region that ARNs name.
    #[arg(long, value_name = "REGION", default_value = "us-east-1", env = "AWS_REGION")]
    region: String,
    /// Prints the addresses as one line of JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let cancel = interrupt::token()?;
    let faults = Faults::default();
    for fault in args.faults {
        let shown = fault.to_string();
        faults.add(fault).map_err(|error| Failure::usage(error.code(), error))?;
        talk(format_args!("fault: {shown}"));
    }
    let listener = kinesis::bind(args.port).await.map_err(|error| taken(&error, "--port"))?;
    let address = listener.local_addr().map_err(|error| {
        Failure::environment("listen-failed", format_args!("the port of Kinesis is not known: {error}"))
    })?;
    if let Some(port) = args.control_port {
        // Given back at once: serving it is the server's.
        kinesis::bind(port).await.map_err(|error| match error {
            StartError::PortTaken { port, .. } => {
                taken(&StartError::PortTaken { service: "the faults", port }, "--control-port")
            }
            error => taken(&error, "--control-port"),
        })?;
    }
    let mut settings = match args.limits {
        Limits::None => Settings::default(),
        Limits::Aws => Settings::aws(),
    };
    settings.account_id = args.account;
    settings.region.clone_from(&args.region);
    for setting in &args.settings {
        settings.set(setting).map_err(|error| Failure::usage(error.code(), error))?;
    }
    let alone = Alone {
        settings,
        data_dir: args.data_dir,
        faults,
        faults_port: args.control_port,
        ..Alone::default()
    };
    let serving = kinesis::serve(listener, alone, cancel.clone());
    tokio::pin!(serving);
    let early = tokio::select! {
        biased;
        ended = &mut serving => Some(ended),
        () = answers(address) => None,
    };
    if let Some(ended) = early {
        return ended.map(|()| Exit::Ok).map_err(|error| not_served(&error));
    }
    let addresses = Addresses::new(address, args.control_port, args.region);
    let mut output = Output::stdout();
    let written = if args.json { output.json(&addresses) } else { addresses.write(&mut output) };
    let trouble = output::settled(written.and_then(|()| output.flush()));
    talk(format_args!("ready: Kinesis at {}; Ctrl-C ends it", addresses.kinesis));
    if trouble.is_err() {
        cancel.cancel();
    }
    serving.await.map_err(|error| not_served(&error))?;
    trouble.map(|()| Exit::Ok)
}

/// Returns once the server answers a request, whatever it says: the data is read by then.
async fn answers(address: SocketAddr) {
    loop {
        let asked = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
            stream.read_u8().await
        };
        if asked.await.is_ok() {
            return;
        }
        sleep(ASK_EVERY).await;
    }
}

fn taken(error: &StartError, option: &str) -> Failure {
    Failure::environment(error.code(), format_args!("{error}; the option is {option} PORT"))
}

fn not_served(error: &ServeError) -> Failure {
    match error {
        ServeError::Start(StartError::Settings(_)) => Failure::usage(error.code(), error),
        _ => Failure::environment(error.code(), error),
    }
}

/// Where it is.
#[derive(Debug, Serialize)]
struct Addresses {
    kinesis: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    faults: Option<String>,
    environment: Vec<(&'static str, String)>,
}

impl Addresses {
    fn new(address: SocketAddr, control_port: Option<u16>, region: String) -> Self {
        let kinesis = format!("http://{address}");
        let environment = vec![
            ("AWS_ENDPOINT_URL_KINESIS", kinesis.clone()),
            ("AWS_REGION", region.clone()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            // boto3 looks at no other.
            ("AWS_DEFAULT_REGION", region),
        ];
        let faults = control_port.map(|port| format!("http://127.0.0.1:{port}/faults"));
        Self { kinesis, faults, environment }
    }

    /// Lines that a shell can take in.
    fn write(&self, output: &mut Output) -> Result<(), output::Error> {
        for (name, value) in &self.environment {
            output.line(format_args!("export {name}={value}"))?;
        }
        if let Some(faults) = &self.faults {
            talk(format_args!("faults: curl -d 'put-records throttle p=0.05' {faults}"));
        }
        Ok(())
    }
}
