//! `headworks send`: records from a file or stdin to a gateway.

pub(crate) mod input;
pub(crate) mod line;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytestring::ByteString;
use headworks_record::PartitionKey;
use headworks_telemetry::{Minter, Telemetry};
use tokio::io::{AsyncRead, BufReader};
use tokio::time::Instant;

use crate::connect;
use crate::courier::{self, Counts, Parcel, Source};
use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::output::{Output, talk};
use crate::pair::{self, Header};
use input::{Defaults, Item};
use line::Lines;

/// How the gateway calls a client on its own machine; it takes part in identities derived from an id.
const PRINCIPAL: &str = "local";

/// What the input holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// A JSON object per line: key, headers, data (any JSON, or a string for text) or data_base64,
    /// explicit_hash_key, id; all but the data may be left out. Blank lines are passed over.
    #[default]
    Jsonl,
    /// Each line is the data of one record, blank ones too.
    Lines,
    /// The whole input is the data of one record.
    Raw,
}

/// Sends records from a file or stdin to a gateway.
///
/// The input is read as it comes and sent without waiting for answers. A malformed line ends the command
/// with its number; what stood before it is sent and answered.
#[derive(Debug, clap::Args)]
#[command(after_help = Exit::HELP)]
pub struct Args {
    /// The input; - or nothing for stdin. A line has at most 16,777,216 bytes.
    file: Option<PathBuf>,
    #[command(flatten)]
    gateway: connect::Options,
    /// Partition key of records that do not name one, 1 to 256 characters. Default: such records take turns
    /// with 256 random keys, so they have no order among each other.
    #[arg(long, value_parser = key)]
    key: Option<PartitionKey>,
    /// Header of every record; repeat it for several. A line's own headers win.
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<Header>,
    /// What the input holds.
    #[arg(long, value_enum, default_value_t, env = "HEADWORKS_INPUT_FORMAT")]
    format: Format,
    /// Prints a line of JSON on stdout for each record, in their order: number, key, and shard,
    /// sequence_number, sub_sequence_number, attempts, or code, message, retryable, outcome_unknown.
    #[arg(long)]
    json: bool,
}

fn key(text: &str) -> Result<PartitionKey, Failure> {
    Ok(PartitionKey::new(ByteString::from(text))?)
}

pub(crate) async fn run(args: Args, telemetry: &Telemetry) -> Result<Exit, Failure> {
    let defaults = Defaults::new(args.key, pair::headers(&args.headers)?);
    let input: Box<dyn AsyncRead + Send + Unpin> = match args.file.filter(|file| file.as_os_str() != "-") {
        Some(file) => Box::new(tokio::fs::File::open(&file).await.map_err(|error| {
            Failure::environment(
                "input-unreadable",
                format_args!("the file {} cannot be read: {error}; check the path", file.display()),
            )
        })?),
        None => {
            if std::io::stdin().is_terminal() {
                talk("reading records from the terminal; end with Ctrl-D");
            }
            Box::new(tokio::io::stdin())
        }
    };
    let cancel = interrupt::token()?;
    let producer = tokio::select! {
        connected = args.gateway.connect(telemetry) => connected?,
        () = cancel.cancelled() => return Ok(Exit::Ok),
    };
    let begin = Instant::now();
    let counts = Arc::new(Counts::default());
    let mut records = Records {
        lines: Lines::new(BufReader::with_capacity(256 * 1024, input)),
        format: args.format,
        defaults,
        minter: telemetry.minter(),
        stream: args.gateway.stream,
        done: false,
    };
    let output = args.json.then(Output::stdout);
    let delivered = courier::deliver(&producer, &mut records, output, &counts, &cancel).await;
    courier::finish(&counts, begin, delivered)
}

/// The records of an input.
struct Records {
    lines: Lines<BufReader<Box<dyn AsyncRead + Send + Unpin>>>,
    format: Format,
    defaults: Defaults,
    minter: Minter,
    stream: String,
    done: bool,
}

impl Source for Records {
    const UNIT: &'static str = "line";

    async fn next(&mut self) -> Result<Option<Parcel>, Failure> {
        if self.format == Format::Raw {
            if std::mem::replace(&mut self.done, true) {
                return Ok(None);
            }
            let data = self.lines.rest().await?;
            return Ok(Some(Parcel { number: 1, record: self.defaults.plain(data)?.record }));
        }
        loop {
            let Some(line) = self.lines.next().await? else { return Ok(None) };
            let number = self.lines.number();
            let item = match self.format {
                Format::Jsonl if line.iter().all(u8::is_ascii_whitespace) => continue,
                Format::Jsonl => self.defaults.json(&line),
                _ => self.defaults.plain(line),
            };
            let Item { mut record, id } =
                item.map_err(|failure| failure.at(format_args!("line {number}")))?;
            if let Some(id) = id {
                record.headers.set_creation(self.minter.mint_for_id(PRINCIPAL, &self.stream, &id));
            }
            return Ok(Some(Parcel { number, record }));
        }
    }
}
