//! The audit log: who was refused, and how the configuration changed.
//!
//! One JSON object a line, appended. Failures are bounded: one line per source, door and code in an interval, with how
//! many there were, so that nobody can flood the log. Where no file is configured, the same goes to the process's
//! log alone.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::auth::{self, Credential};
use crate::config::AuditConfig;
use crate::tally::Tally;
use crate::tls::Port;

/// Lines that wait for the disk.
const WAITING: usize = 1_024;
/// Sources of failures that are told apart in an interval; the others are one.
const SOURCES: usize = 1_024;
/// Where the configuration names none.
const INTERVAL: Duration = Duration::from_secs(10);
/// How often it is looked whose interval is over.
const TICK: Duration = Duration::from_secs(1);

/// Why the audit log cannot be written.
#[derive(Debug, thiserror::Error)]
#[error(
    "the audit log {path:?} cannot be opened to append: {source}; create its directory and let the gateway write there, or change audit.file"
)]
pub struct OpenError {
    /// The file.
    path: PathBuf,
    /// What the system said.
    source: io::Error,
}

impl OpenError {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        "audit-log-unwritable"
    }

    /// Whether the same file may be opened later: not before somebody acts.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// Opens the file so that every write goes to its end.
pub(crate) fn open(path: &Path) -> Result<File, OpenError> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    // It tells who comes from where.
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
    options.open(path).map_err(|source| OpenError { path: path.to_owned(), source })
}

/// Whether it could be opened; it is not created.
pub(crate) fn check(path: &Path) -> Result<(), OpenError> {
    let checked = match OpenOptions::new().append(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
            std::fs::read_dir(directory.unwrap_or(Path::new("."))).map(drop)
        }
        opened => opened.map(drop),
    };
    checked.map_err(|source| OpenError { path: path.to_owned(), source })
}

/// What the writing task is told.
#[derive(Debug)]
enum Told {
    Line(Value),
    Reopened(File),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    source: Option<IpAddr>,
    door: &'static str,
    code: &'static str,
}

/// What was not told yet of one kind of failure.
#[derive(Debug)]
struct Held {
    since: Instant,
    more: u64,
    last: Value,
}

/// The log as others use it. Nothing here waits.
#[derive(Debug)]
pub(crate) struct Audit {
    interval: Duration,
    lines: Option<mpsc::Sender<Told>>,
    held: Mutex<HashMap<Kind, Held>>,
    /// Refused callers, by code.
    pub(crate) failures: Tally,
    /// Lines that the disk did not take.
    lost: AtomicU64,
}

/// The task that writes.
#[derive(Debug)]
pub(crate) struct Writing {
    file: Option<File>,
    lines: mpsc::Receiver<Told>,
}

impl Audit {
    /// The log, and the task that writes it.
    pub(crate) fn start(config: Option<&AuditConfig>) -> Result<(Self, Writing), OpenError> {
        let file = config.map(|config| open(&config.file)).transpose()?;
        let (sender, lines) = mpsc::channel(WAITING);
        let audit = Self {
            interval: config.map_or(INTERVAL, |config| Duration::from_secs(config.interval_s)),
            lines: file.is_some().then_some(sender),
            held: Mutex::default(),
            failures: Tally::default(),
            lost: AtomicU64::new(0),
        };
        Ok((audit, Writing { file, lines }))
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// A caller was not let in.
    pub(crate) fn refused(
        &self,
        source: Option<IpAddr>,
        door: &'static str,
        credential: &Credential,
        error: &auth::Error,
    ) {
        let (method, key_id) = credential.described();
        let mut told = json!({ "credential": method, "reason": error.to_string() });
        if let (Some(id), Value::Object(told)) = (key_id, &mut told) {
            told.insert("key_id".to_owned(), id.into());
        }
        self.failed(source, door, error.code(), told);
    }

    /// A connection did not come about: no certificate, or a bad one.
    pub(crate) fn handshake_failed(&self, source: IpAddr, port: Port, reason: &str) {
        let door = match port {
            Port::Grpc => "grpc",
            Port::Http => "http",
        };
        self.failed(Some(source), door, "tls-handshake-failed", json!({ "reason": reason }));
    }

    fn failed(&self, source: Option<IpAddr>, door: &'static str, code: &'static str, told: Value) {
        self.failures.count(code);
        let mut kind = Kind { source: source.map(network), door, code };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= SOURCES && !held.contains_key(&kind) {
            kind.source = None;
        }
        match held.get_mut(&kind) {
            Some(held) => {
                held.more += 1;
                held.last = told;
            }
            None => {
                self.tell(&kind, 1, &told);
                held.insert(kind, Held { since: Instant::now(), more: 0, last: told });
            }
        }
    }

    /// Tells of what was held back and whose interval is over.
    fn tick(&self, all: bool) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|kind, held| {
            if !all && held.since.elapsed() < self.interval {
                return true;
            }
            if held.more == 0 {
                return false;
            }
            self.tell(kind, std::mem::take(&mut held.more), &held.last);
            held.since = Instant::now();
            true
        });
    }

    fn tell(&self, kind: &Kind, count: u64, told: &Value) {
        let source = kind.source.map_or_else(|| "others".to_owned(), |source| source.to_string());
        warn!(%source, door = kind.door, code = kind.code, count, reason = %told["reason"], "callers were refused");
        let mut line = json!({
            "event": "authentication-failed", "source": source, "door": kind.door, "code": kind.code, "count": count,
        });
        merge(&mut line, told);
        self.write(line);
    }

    /// The configuration was put in force, or not.
    pub(crate) fn configured(&self, event: &'static str, told: Value) {
        info!(event, told = %told, "the configuration");
        let mut line = json!({ "event": event });
        merge(&mut line, &told);
        self.write(line);
    }

    /// From now on lines go to this file.
    pub(crate) fn reopened(&self, file: File) {
        self.send(Told::Reopened(file));
    }

    fn write(&self, mut line: Value) {
        merge(&mut line, &json!({ "time": jiff::Timestamp::now().to_string() }));
        self.send(Told::Line(line));
    }

    fn send(&self, told: Told) {
        if let Some(lines) = &self.lines
            && lines.try_send(told).is_err()
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes until `stop` is cancelled and everything that was told before is written.
    pub(crate) async fn run(&self, writing: Writing, stop: CancellationToken) {
        let Writing { mut file, mut lines } = writing;
        let mut tick = tokio::time::interval(TICK);
        loop {
            let mut ended = false;
            let first = tokio::select! {
                // At the end what was held back is told, whatever else there is.
                biased;
                () = stop.cancelled() => {
                    self.tick(true);
                    ended = true;
                    None
                }
                _ = tick.tick() => {
                    self.tick(false);
                    continue;
                }
                told = lines.recv(), if file.is_some() => told,
            };
            let mut batch: Vec<Told> = first.into_iter().collect();
            while let Ok(told) = lines.try_recv() {
                batch.push(told);
            }
            let Some(open) = file.take() else { return };
            let count = batch.len() as u64;
            // A disk may be slow, and others need the thread.
            let written = tokio::task::spawn_blocking(move || append(open, batch)).await;
            match written {
                Ok((open, result)) => {
                    if let Err(error) = result {
                        self.lost.fetch_add(count, Ordering::Relaxed);
                        error!("the audit log cannot be written: {error}; look at its disk");
                    }
                    file = Some(open);
                }
                Err(error) => {
                    error!("the audit log is lost: {error}");
                    return;
                }
            }
            if ended {
                return;
            }
        }
    }
}

fn append(mut file: File, batch: Vec<Told>) -> (File, io::Result<()>) {
    let mut result = Ok(());
    for told in batch {
        match told {
            Told::Reopened(other) => {
                result = result.and(file.sync_data());
                file = other;
            }
            // One write for a line, so that no other process's comes in between.
            Told::Line(line) => result = result.and(file.write_all(format!("{line}\n").as_bytes())),
        }
    }
    let result = result.and(file.sync_data());
    (file, result)
}

fn merge(line: &mut Value, more: &Value) {
    if let (Value::Object(line), Value::Object(more)) = (line, more) {
        line.extend(more.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
}

/// Whoever has one address of version 6 has 2^64 of them.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(source) => source.into(),
        IpAddr::V6(source) => Ipv6Addr::from_bits(source.to_bits() & !(u128::MAX >> 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn error() -> auth::Error {
        auth::Error::Invalid { kind: "API key", reason: "it is not known".to_owned() }
    }

    fn lines(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn written(fill: impl FnOnce(&Audit)) -> (Vec<Value>, u64) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let config = AuditConfig { file: path.clone(), interval_s: 10 };
        let (audit, writing) = Audit::start(Some(&config)).unwrap();
        fill(&audit);
        let stop = CancellationToken::new();
        stop.cancel();
        audit.run(writing, stop).await;
        (lines(&path), audit.lost())
    }

    #[tokio::test]
    async fn a_flood_of_failures_is_two_lines() {
        let (lines, lost) = written(|audit| {
            let source = "192.0.2.1".parse().unwrap();
            (0..5_000).for_each(|_| audit.refused(Some(source), "put", &Credential::None, &error()));
        })
        .await;
        assert_eq!((lines.len(), lost), (2, 0), "{lines:?}");
        assert_eq!((&lines[0]["count"], &lines[1]["count"]), (&json!(1), &json!(4_999)));
        assert_eq!(lines[0]["event"], "authentication-failed");
        assert_eq!(
            (&lines[0]["source"], &lines[0]["code"]),
            (&json!("192.0.2.1"), &json!("credentials-invalid"))
        );
        assert!(lines[0]["time"].as_str().unwrap().ends_with('Z'), "{lines:?}");
    }

    #[tokio::test]
    async fn a_flood_of_sources_is_bounded_too() {
        let (lines, lost) = written(|audit| {
            for i in 0..50_000_u32 {
                audit.refused(Some(IpAddr::V4((i << 4).into())), "put", &Credential::None, &error());
            }
        })
        .await;
        // What the queue does not take is counted as lost.
        assert_eq!(lines.len(), WAITING);
        assert!((1..=SOURCES as u64).contains(&lost), "{lost}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_is_told_when_the_interval_is_over() {
        let (audit, mut writing) = {
            let directory = tempfile::tempdir().unwrap();
            let config = AuditConfig { file: directory.path().join("a"), interval_s: 10 };
            Audit::start(Some(&config)).unwrap()
        };
        let source = |text: &str| Some(text.parse().unwrap());
        audit.refused(source("2001:db8::1"), "put", &Credential::None, &error());
        audit.refused(source("2001:db8::2"), "put", &Credential::None, &error());
        audit.refused(source("2001:db8:0:1::2"), "put", &Credential::None, &error());
        let mut counts = || {
            let mut counts = Vec::new();
            while let Ok(Told::Line(line)) = writing.lines.try_recv() {
                counts.push((line["source"].as_str().unwrap().to_owned(), line["count"].as_u64().unwrap()));
            }
            counts
        };
        assert_eq!(counts(), [("2001:db8::".to_owned(), 1), ("2001:db8:0:1::".to_owned(), 1)]);
        tokio::time::advance(Duration::from_secs(9)).await;
        audit.tick(false);
        assert_eq!(counts(), []);
        tokio::time::advance(Duration::from_secs(1)).await;
        audit.tick(false);
        assert_eq!(counts(), [("2001:db8::".to_owned(), 1)]);
        tokio::time::advance(Duration::from_secs(10)).await;
        audit.tick(false);
        assert!(counts().is_empty() && audit.held.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_file_is_appended_to_and_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("a"), directory.path().join("a.1"));
        std::fs::write(&path, "{\"event\":\"before\"}\n").unwrap();
        let config = AuditConfig { file: path.clone(), interval_s: 10 };
        let (audit, writing) = Audit::start(Some(&config)).unwrap();
        audit.configured("configuration-loaded", json!({ "n": 1 }));
        std::fs::rename(&path, &moved).unwrap();
        audit.reopened(open(&path).unwrap());
        audit.configured("configuration-loaded", json!({ "n": 2 }));
        let audit = Arc::new(audit);
        let stop = CancellationToken::new();
        stop.cancel();
        audit.run(writing, stop).await;
        assert_eq!(
            lines(&moved).iter().map(|line| &line["n"]).collect::<Vec<_>>(),
            [&Value::Null, &json!(1)]
        );
        assert_eq!(lines(&path)[0]["n"], 2);
        let nowhere = AuditConfig { file: "/nowhere/audit".into(), interval_s: 1 };
        assert!(Audit::start(Some(&nowhere)).unwrap_err().to_string().contains("/nowhere/audit"));
    }
}
