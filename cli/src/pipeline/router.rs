//! The router behind its event source mapping, as a pool of processes.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use headworks_local::Stack;
use headworks_local::lambda::{self, Function, Mapping, Program};
use headworks_local::stack::{ACCESS_KEY, SECRET_KEY};
use headworks_router::RouteTable;
use tempfile::TempDir;

use super::{Config, DEAD_LETTERS, INBOUND, PROGRESS};

/// The route table's file, the table, and the folder that holds the file if it is not the user's.
pub(super) fn table(path: Option<&Path>) -> anyhow::Result<(PathBuf, RouteTable, Option<TempDir>)> {
    let (path, kept) = match path {
        Some(path) => (path.to_owned(), None),
        None => {
            let folder = TempDir::with_prefix("headworks-routes-")?;
            let path = folder.path().join("routes.toml");
            std::fs::write(&path, headworks_router::EXAMPLE_ROUTES)?;
            (path, Some(folder))
        }
    };
    let table = RouteTable::load(&path)?;
    let path = path.canonicalize().with_context(|| format!("the route table {}", path.display()))?;
    Ok((path, table, kept))
}

pub(super) fn start(
    stack: &Stack,
    config: &Config,
    routes: &Path,
    otlp: &str,
) -> anyhow::Result<(Function, lambda::Handle)> {
    // This very program runs the router's bootstrap when it is told to: nothing else needs to be installed.
    let path = config.program.clone().map_or_else(std::env::current_exe, Ok)?;
    let mut program = Program::new("headworks-router", path);
    program.args = vec!["router-bootstrap".to_owned()];
    program.concurrency = config.router_concurrency;
    program.env = [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ("AWS_ENDPOINT_URL_KINESIS", stack.kinesis_endpoint()),
        ("AWS_ENDPOINT_URL_S3", stack.s3_endpoint()),
        ("AWS_ENDPOINT_URL_DYNAMODB", stack.dynamodb_endpoint()),
        ("HEADWORKS_PROGRESS_TABLE", PROGRESS.to_owned()),
        ("HEADWORKS_S3_PATH_STYLE", "true".to_owned()),
        ("HEADWORKS_ROUTES", routes.display().to_string()),
        ("HEADWORKS_DEAD_LETTER_BUCKET", DEAD_LETTERS.to_owned()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.to_owned()),
        ("OTEL_TRACES_SAMPLER_ARG", config.trace_ratio.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let function = Function::program(program)?;
    let mut mapping = lambda::Config::new(INBOUND);
    mapping.parallelization_factor = 2;
    mapping.report_batch_item_failures = true;
    mapping.on_failure = Some(lambda::Destination::s3(stack.s3(), DEAD_LETTERS));
    let handle = Mapping::start(std::sync::Arc::clone(stack.engine()), function.clone(), mapping)?;
    Ok((function, handle))
}
