//! [`Function`]: something that can be invoked, a program behind the Runtime API or a closure.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use super::environment::{Environment, is_reusable};
use super::error::{ConfigError, FunctionError};
use super::runtime_api::Invocation;

/// A program that speaks the Lambda Runtime API, such as a Rust `bootstrap`.
#[derive(Debug, Clone)]
pub struct Program {
    /// The function's name: 1 to 64 letters, digits, hyphens or underscores.
    pub name: String,
    /// The executable.
    pub path: PathBuf,
    /// Its arguments. Default none, as on Lambda.
    pub args: Vec<String>,
    /// The function's environment variables. Of the parent's environment the process sees only `PATH`,
    /// `LD_LIBRARY_PATH`, `TMPDIR`, `LANG` and `LC_ALL`; name here what else it needs (endpoints, credentials).
    pub env: Vec<(String, String)>,
    /// How many processes may run at once, 1 to 1,000. Default 10.
    pub concurrency: usize,
    /// How long one invocation may take, above zero, at most 900 s. Default 60 s.
    pub timeout: Duration,
    /// How long a process may take to ask for its first invocation. Default 10 s, as on Lambda.
    pub init_timeout: Duration,
    /// The memory size announced to the function, 128 to 10,240 MiB; not enforced. Default 512.
    pub memory_mib: u32,
    /// The version announced to the function. Default `$LATEST`.
    pub version: String,
    /// The region announced to the function. Default `us-east-1`.
    pub region: String,
    /// The account in the function's ARN. Default `000000000000`.
    pub account: String,
}

impl Program {
    /// A program with the defaults.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            args: Vec::new(),
            env: Vec::new(),
            concurrency: 10,
            timeout: Duration::from_secs(60),
            init_timeout: Duration::from_secs(10),
            memory_mib: 512,
            version: "$LATEST".to_owned(),
            region: "us-east-1".to_owned(),
            account: "000000000000".to_owned(),
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        check_name(&self.name)?;
        const LONGEST: Duration = Duration::from_secs(900);
        let shortest = Duration::from_millis(1);
        ConfigError::check("concurrency", self.concurrency, 1..=1_000)?;
        ConfigError::check("memory_mib", self.memory_mib, 128..=10_240)?;
        ConfigError::check_duration("timeout", self.timeout, shortest..=LONGEST)?;
        ConfigError::check_duration("init_timeout", self.init_timeout, shortest..=LONGEST)?;
        for (field, value) in
            [("region", &self.region), ("account", &self.account), ("version", &self.version)]
        {
            if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(ConfigError::new(
                    field,
                    format!("{value:?}"),
                    "use visible ASCII characters only",
                ));
            }
        }
        for (name, value) in &self.env {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(ConfigError::new(
                    "env",
                    format!("{name:?}"),
                    "a variable's name is not empty and has no '=', and neither name nor value has a NUL",
                ));
            }
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), ConfigError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if (1..=64).contains(&name.len()) && name.bytes().all(legal) {
        return Ok(());
    }
    let remedy = "a function's name has 1 to 64 letters, digits, hyphens or underscores";
    Err(ConfigError::new("name", format!("{name:?}"), remedy))
}

type Closure = Box<dyn Fn(Bytes) -> BoxFuture<'static, Result<Bytes, FunctionError>> + Send + Sync>;

/// What happened to a function so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FunctionCounts {
    /// Invocations that ended, well or badly.
    pub invocations: u64,
    /// Invocations that ended badly.
    pub errors: u64,
    /// Processes started (cold starts).
    pub environments_started: u64,
    /// Processes that were replaced: they crashed, timed out or failed to initialize.
    pub environments_lost: u64,
}

/// A function that can be invoked. Clones share it.
#[derive(Clone)]
pub struct Function(Arc<Inner>);

struct Inner {
    name: String,
    arn: Arc<str>,
    version: String,
    body: Body,
    invocations: AtomicU64,
    errors: AtomicU64,
    started: AtomicU64,
    lost: AtomicU64,
}

enum Body {
    Closure(Closure),
    Program(Box<Pool>),
}

struct Pool {
    program: Program,
    slots: Semaphore,
    idle: Mutex<Vec<Environment>>,
}

impl fmt::Debug for Function {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Function").field("arn", &self.0.arn).finish_non_exhaustive()
    }
}

impl Function {
    /// A program behind the Runtime API. Processes are started when an invocation finds none idle.
    ///
    /// # Errors
    /// [`ConfigError`] names the field that is out of bounds.
    pub fn program(program: Program) -> Result<Self, ConfigError> {
        program.validate()?;
        let arn = format!("arn:aws:lambda:{}:{}:function:{}", program.region, program.account, program.name);
        let pool = Pool { slots: Semaphore::new(program.concurrency), idle: Mutex::default(), program };
        let (name, version) = (pool.program.name.clone(), pool.program.version.clone());
        Ok(Self::new(name, arn.into(), version, Body::Program(Box::new(pool))))
    }

    /// An async closure from the event's bytes to the response's bytes. A panic fails the invocation only.
    ///
    /// # Errors
    /// [`ConfigError`] when the name is not one that Lambda takes.
    pub fn from_fn<F, R>(name: impl Into<String>, closure: F) -> Result<Self, ConfigError>
    where
        F: Fn(Bytes) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Bytes, FunctionError>> + Send + 'static,
    {
        let name = name.into();
        check_name(&name)?;
        let arn = format!("arn:aws:lambda:us-east-1:000000000000:function:{name}");
        let closure = Arc::new(closure);
        let body = Body::Closure(Box::new(move |payload| {
            let closure = Arc::clone(&closure);
            // Called inside the future, so that a panic before its first await is contained as well.
            Box::pin(async move { closure(payload).await })
        }));
        Ok(Self::new(name, arn.into(), "$LATEST".to_owned(), body))
    }

    fn new(name: String, arn: Arc<str>, version: String, body: Body) -> Self {
        Self(Arc::new(Inner {
            name,
            arn,
            version,
            body,
            invocations: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            started: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }))
    }

    /// The function's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The function's ARN.
    #[must_use]
    pub fn arn(&self) -> &str {
        &self.0.arn
    }

    /// The version that answers.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.0.version
    }

    /// Counters since the start.
    #[must_use]
    pub fn counts(&self) -> FunctionCounts {
        FunctionCounts {
            invocations: self.0.invocations.load(Ordering::Relaxed),
            errors: self.0.errors.load(Ordering::Relaxed),
            environments_started: self.0.started.load(Ordering::Relaxed),
            environments_lost: self.0.lost.load(Ordering::Relaxed),
        }
    }

    /// Invokes the function and waits for its answer; when all processes are busy, for one of them first.
    ///
    /// # Errors
    /// [`FunctionError`] when it reported an error, crashed, timed out, could not start or was shut down.
    pub async fn invoke(&self, payload: Bytes) -> Result<Bytes, FunctionError> {
        let outcome = match &self.0.body {
            Body::Closure(closure) => run(closure(payload)).await,
            Body::Program(pool) => self.run_in(pool, payload).await,
        };
        self.0.invocations.fetch_add(1, Ordering::Relaxed);
        self.0.errors.fetch_add(u64::from(outcome.is_err()), Ordering::Relaxed);
        outcome
    }

    /// Waits for the invocations in flight, then ends the processes. Later invocations are refused.
    pub async fn shutdown(&self) {
        let Body::Program(pool) = &self.0.body else { return };
        let all = u32::try_from(pool.program.concurrency).unwrap_or(u32::MAX);
        // The semaphore is fair: this waits for those that run and for those that came before.
        let permits = pool.slots.acquire_many(all).await;
        pool.slots.close();
        drop(permits);
        let idle = std::mem::take(&mut *pool.idle());
        for environment in idle {
            environment.kill().await;
        }
    }

    async fn run_in(&self, pool: &Pool, payload: Bytes) -> Result<Bytes, FunctionError> {
        let _slot = pool.slots.acquire().await.map_err(|_| FunctionError::Stopped)?;
        let (idle, dead) = pool.take_idle();
        for environment in dead {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(function = %self.0.name, "an execution environment ended while it was idle");
            environment.kill().await;
        }
        let mut environment = match idle {
            Some(environment) => environment,
            None => {
                let number = self.0.started.fetch_add(1, Ordering::Relaxed);
                Environment::start(&pool.program, &self.0.arn, number).await.inspect_err(|error| {
                    self.0.lost.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(function = %self.0.name, %error, "an execution environment did not start");
                })?
            }
        };
        let outcome =
            environment.invoke(self.invocation(payload, pool.program.timeout), pool.program.timeout).await;
        if is_reusable(&outcome) {
            pool.idle().push(environment);
        } else {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
            environment.kill().await;
        }
        outcome
    }

    fn invocation(&self, payload: Bytes, limit: Duration) -> Invocation {
        let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
        let random: u128 = rand::random();
        Invocation {
            request_id: uuid::Uuid::new_v4().to_string(),
            function_arn: Arc::clone(&self.0.arn),
            trace_id: format!(
                "Root=1-{:08x}-{:024x};Parent={:016x};Sampled=0",
                now / 1000,
                random >> 32,
                rand::random::<u64>()
            ),
            deadline_unix_ms: now.saturating_add(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
            payload,
        }
    }
}

impl Pool {
    fn idle(&self) -> MutexGuard<'_, Vec<Environment>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most recently used one, as Lambda prefers warm ones; and those found dead.
    fn take_idle(&self) -> (Option<Environment>, Vec<Environment>) {
        let mut dead = Vec::new();
        let mut idle = self.idle();
        while let Some(mut environment) = idle.pop() {
            if environment.is_alive() {
                return (Some(environment), dead);
            }
            dead.push(environment);
        }
        (None, dead)
    }
}

/// Runs a closure's future as a task of its own, so that a panic stays there.
async fn run(future: BoxFuture<'static, Result<Bytes, FunctionError>>) -> Result<Bytes, FunctionError> {
    match AbortOnDropHandle::new(tokio::spawn(future)).await {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => {
            let panic = error.into_panic();
            let message = panic
                .downcast_ref::<&str>()
                .map(|message| (*message).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "no message".to_owned());
            Err(FunctionError::Panicked { message })
        }
        Err(_) => Err(FunctionError::Stopped),
    }
}
