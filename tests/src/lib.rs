//! The harness of the end-to-end tests.
//!
//! Parts are the real ones: the `headworks` program, the AWS SDK over sockets, the router behind the
//! Runtime API. What is built by `cargo build --workspace --bins` is found beside the test's own program.

pub mod chaos;
pub mod figure;
pub mod floor;
pub mod null_sink;
pub mod process;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use headworks_cli::pipeline::{Config, Pipeline};

/// A program of the workspace, such as `headworks`.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    // target/debug/deps/test-… or target/debug/program
    let folder = test.ancestors().skip(1).find(|folder| folder.join(name).is_file());
    let found = folder.map(|folder| folder.join(name));
    found.with_context(|| format!("{name} is not built; run `cargo build --workspace --bins` first"))
}

/// The repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(1).unwrap_or(Path::new(".")).to_owned()
}

/// A file of the test virtualenv, which `tests/python/venv.sh` makes.
pub fn python() -> anyhow::Result<PathBuf> {
    let venv = match std::env::var_os("HEADWORKS_VENV") {
        Some(venv) => PathBuf::from(venv),
        None => repository().join("target/venv"),
    };
    let python = venv.join("bin/python");
    ensure!(python.is_file(), "{} is not there; run tests/python/venv.sh or `make test`", python.display());
    Ok(python)
}

/// A whole pipeline in memory on free ports.
pub async fn pipeline(config: Config) -> anyhow::Result<Pipeline> {
    let config = Config { program: Some(program("headworks")?), ..config };
    Pipeline::start(config, &mut |_| {}).await
}

/// The variables by which tests in other languages find a pipeline.
pub fn variables(pipeline: &Pipeline) -> Vec<(&'static str, String)> {
    let gateway = pipeline.gateway_endpoint();
    vec![
        ("HEADWORKS_TEST_GATEWAY", gateway.trim_start_matches("http://").to_owned()),
        ("HEADWORKS_TEST_KINESIS", pipeline.stack().kinesis_endpoint()),
        ("HEADWORKS_TEST_DYNAMODB", pipeline.stack().dynamodb_endpoint()),
        ("HEADWORKS_TEST_S3", pipeline.stack().s3_endpoint()),
        ("HEADWORKS_TEST_OTLP", pipeline.otlp_endpoint()),
        ("HEADWORKS_TEST_STREAM", pipeline.inbound().to_owned()),
        ("AWS_ACCESS_KEY_ID", headworks_local::stack::ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", headworks_local::stack::SECRET_KEY.to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_DEFAULT_REGION", "us-east-1".to_owned()),
    ]
}
