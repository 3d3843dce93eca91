//! [`Environment`]: one execution environment, a process with a Runtime API of its own.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio_util::task::AbortOnDropHandle;

use super::error::FunctionError;
use super::function::Program;
use super::runtime_api::{Invocation, RuntimeApi};

/// CloudWatch Logs takes events of at most 256 KiB, so Lambda cuts lines there.
const MAX_LINE_BYTES: usize = 256 * 1024;

/// How long the output of a process that has ended may stay open: its own children may have inherited it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Of the parent's environment only these are passed on: the function must not pick up the developer's
/// credentials or endpoints and write to a real account.
const INHERITED: [&str; 5] = ["PATH", "LD_LIBRARY_PATH", "TMPDIR", "LANG", "LC_ALL"];

/// One execution environment. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct Environment {
    api: RuntimeApi,
    child: Child,
    logs: [AbortOnDropHandle<()>; 2],
}

impl Environment {
    /// Starts the process and waits until it asks for its first invocation.
    pub(super) async fn start(program: &Program, arn: &str, number: u64) -> Result<Self, FunctionError> {
        let spawn_error = |source| FunctionError::Spawn {
            program: program.path.display().to_string(),
            source: Arc::new(source),
        };
        let api = RuntimeApi::bind().await.map_err(spawn_error)?;
        let log_stream = format!("local/[{}]{number:032x}", program.version);
        let mut command = Command::new(&program.path);
        command
            .args(&program.args)
            .env_clear()
            .envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .env("TZ", ":UTC")
            .env("AWS_REGION", &program.region)
            .env("AWS_DEFAULT_REGION", &program.region)
            .env("AWS_LAMBDA_FUNCTION_NAME", &program.name)
            .env("AWS_LAMBDA_FUNCTION_VERSION", &program.version)
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", program.memory_mib.to_string())
            .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
            .env("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", program.name))
            .env("AWS_LAMBDA_LOG_STREAM_NAME", log_stream)
            .env("_HANDLER", "bootstrap")
            .envs(program.env.iter().map(|(name, value)| (name, value)))
            // Last: nobody may point the function elsewhere.
            .env("AWS_LAMBDA_RUNTIME_API", api.address().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // A group of its own: Ctrl-C in the terminal must reach us, who drain, and not the function first.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn().map_err(spawn_error)?;
        let logs = [
            forward(child.stdout.take(), program.name.clone(), "stdout"),
            forward(child.stderr.take(), program.name.clone(), "stderr"),
        ];
        tracing::debug!(function = arn, pid = child.id(), api = %api.address(), "an execution environment starts");
        let mut environment = Self { api, child, logs };
        let limit = program.init_timeout;
        let outcome = tokio::select! {
            biased;
            outcome = environment.api.initialized() => outcome,
            status = environment.child.wait() => Err(exited(status)),
            () = tokio::time::sleep(limit) => Err(FunctionError::InitTimeout { limit }),
        };
        match outcome {
            Ok(()) => Ok(environment),
            Err(error) => {
                environment.kill().await;
                Err(error)
            }
        }
    }

    /// Whether the process still runs.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Runs one invocation to its end. The environment can be used again only if the answer came from the
    /// function itself: see [`is_reusable`].
    pub(super) async fn invoke(
        &mut self,
        invocation: Invocation,
        limit: Duration,
    ) -> Result<Bytes, FunctionError> {
        let mut answer = self.api.offer(invocation);
        tokio::select! {
            // An answer that was given before the process ended counts.
            biased;
            outcome = &mut answer => outcome.unwrap_or(Err(FunctionError::Stopped)),
            status = self.child.wait() => match answer.try_recv() {
                Ok(outcome) => outcome,
                Err(_) => Err(exited(status)),
            },
            () = tokio::time::sleep(limit) => Err(FunctionError::Timeout { limit }),
        }
    }

    /// Kills the process, waits for its end and forwards what it said last.
    pub(super) async fn kill(mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::debug!(%error, "an execution environment had ended already");
        }
        let logs = futures_util::future::join_all(self.logs);
        if tokio::time::timeout(LAST_WORDS, logs).await.is_err() {
            tracing::debug!("a process that the function started keeps its output open");
        }
    }
}

/// Whether an environment survives this outcome: after a time-out or a crash Lambda replaces it.
pub(super) fn is_reusable(outcome: &Result<Bytes, FunctionError>) -> bool {
    matches!(outcome, Ok(_) | Err(FunctionError::Reported { .. } | FunctionError::ResponseTooLarge { .. }))
}

fn exited(status: std::io::Result<ExitStatus>) -> FunctionError {
    let status = match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    FunctionError::Exited { status }
}

fn forward(
    source: Option<impl AsyncRead + Unpin + Send + 'static>,
    function: String,
    stream: &'static str,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let Some(source) = source else { return };
        let mut reader = BufReader::new(source);
        let mut line = Vec::new();
        loop {
            let (taken, complete) = match reader.fill_buf().await {
                Ok([]) | Err(_) => break,
                Ok(chunk) => {
                    let room = MAX_LINE_BYTES - line.len();
                    let chunk = &chunk[..chunk.len().min(room)];
                    match chunk.iter().position(|byte| *byte == b'\n') {
                        Some(end) => {
                            line.extend_from_slice(&chunk[..end]);
                            (end + 1, true)
                        }
                        None => {
                            line.extend_from_slice(chunk);
                            (chunk.len(), line.len() == MAX_LINE_BYTES)
                        }
                    }
                }
            };
            reader.consume(taken);
            if complete {
                emit(&function, stream, &mut line);
            }
        }
        if !line.is_empty() {
            emit(&function, stream, &mut line);
        }
    }))
}

fn emit(function: &str, stream: &'static str, line: &mut Vec<u8>) {
    tracing::info!(target: "headworks_local::lambda::log", function, stream, "{}", String::from_utf8_lossy(line));
    line.clear();
}
