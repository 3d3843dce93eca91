//! A disk that fails, lies and loses power, as its seed says.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::disk::{Disk, Input, Output};

const SECTOR: usize = 512;

#[derive(Debug, Clone, Default)]
struct Content {
    /// What a reader sees.
    seen: Vec<u8>,
    /// What is on the platter.
    kept: Vec<u8>,
    /// Up to where the system believes that everything is kept.
    clean: usize,
}

type File = Arc<Mutex<Content>>;

#[derive(Debug)]
struct State {
    rng: SmallRng,
    entries: BTreeMap<String, File>,
    kept_entries: BTreeMap<String, File>,
    /// How likely an operation fails.
    trouble: f64,
    /// How likely a write is a short one.
    short: f64,
    /// Operations until the power goes.
    left: Option<u64>,
    operations: u64,
    /// How long an fsync takes.
    pause: Duration,
}

/// Files in memory.
#[derive(Debug, Clone)]
pub(super) struct Sim(Arc<Mutex<State>>);

impl Sim {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng: SmallRng::seed_from_u64(seed),
            entries: BTreeMap::new(),
            kept_entries: BTreeMap::new(),
            trouble: 0.0,
            short: 0.0,
            left: None,
            operations: 0,
            pause: Duration::ZERO,
        })))
    }

    pub(super) fn set(&self, trouble: f64, short: f64, left: Option<u64>) {
        let mut state = self.0.lock().unwrap();
        (state.trouble, state.short, state.left) = (trouble, short, left);
    }

    /// From now on an fsync takes its time.
    pub(super) fn slow(&self, pause: Duration) {
        self.0.lock().unwrap().pause = pause;
    }

    pub(super) fn is_dead(&self) -> bool {
        self.0.lock().unwrap().left == Some(0)
    }

    /// The power goes and comes back: what was not synced is kept in parts, or not at all.
    pub(super) fn power_loss(&self) {
        let mut state = self.0.lock().unwrap();
        let State { rng, entries, kept_entries, .. } = &mut *state;
        let mut next = BTreeMap::new();
        let names: Vec<String> = entries.keys().chain(kept_entries.keys()).cloned().collect();
        for name in names {
            let certain = entries.contains_key(&name) && kept_entries.contains_key(&name);
            if next.contains_key(&name) || !(certain || rng.random_bool(0.5)) {
                continue;
            }
            let file = entries.get(&name).or_else(|| kept_entries.get(&name)).unwrap();
            let mut content = file.lock().unwrap().clone();
            // Each sector that is dirty made it to the platter, or not; the length is anything between.
            let end = rng.random_range(content.kept.len()..=content.seen.len().max(content.kept.len()));
            let mut kept = content.kept.clone();
            kept.resize(end, 0);
            let mut at = content.clean.min(end);
            while at < end {
                let to = ((at / SECTOR + 1) * SECTOR).min(end);
                if rng.random_bool(0.5) {
                    kept[at..to].copy_from_slice(&content.seen[at..to]);
                }
                at = to;
            }
            content = Content { seen: kept.clone(), clean: kept.len(), kept };
            next.insert(name, Arc::new(Mutex::new(content)));
        }
        state.kept_entries.clone_from(&next);
        state.entries = next;
        (state.trouble, state.short, state.left) = (0.0, 0.0, None);
    }

    /// Flips one bit of a file for good.
    pub(super) fn rot(&self, name: &str, at: usize) {
        let state = self.0.lock().unwrap();
        let mut content = state.entries[name].lock().unwrap();
        content.seen[at] ^= 1;
        content.kept[at] ^= 1;
    }

    /// Loses a file for good.
    pub(super) fn lose(&self, name: &str) {
        let mut state = self.0.lock().unwrap();
        state.entries.remove(name).unwrap();
        state.kept_entries.remove(name);
    }

    /// Names and lengths.
    pub(super) fn files(&self) -> Vec<(String, usize)> {
        let state = self.0.lock().unwrap();
        state.entries.iter().map(|(name, file)| (name.clone(), file.lock().unwrap().seen.len())).collect()
    }

    pub(super) fn operations(&self) -> u64 {
        self.0.lock().unwrap().operations
    }

    /// Counts an operation; whether it fails.
    fn step(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.operations += 1;
        if let Some(left) = &mut state.left {
            if *left == 0 {
                return Err(io::Error::other("the power is off"));
            }
            *left -= 1;
        }
        let trouble = state.trouble;
        if trouble > 0.0 && state.rng.random_bool(trouble) {
            return Err(io::Error::other("injected"));
        }
        Ok(())
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

impl Disk for Sim {
    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().entries.keys().cloned().collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        self.step()?;
        let file = File::default();
        let created = self.0.lock().unwrap().entries.insert(name_of(path), Arc::clone(&file));
        assert!(created.is_none(), "{path:?} is there already");
        Ok(Box::new(Handle { sim: self.clone(), file }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Input>> {
        let state = self.0.lock().unwrap();
        let file = state.entries.get(&name_of(path)).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Handle { sim: self.clone(), file: Arc::clone(file) }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.0.lock().unwrap().entries.remove(&name_of(path)).ok_or(io::ErrorKind::NotFound)?;
        Ok(())
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        self.step()?;
        let mut state = self.0.lock().unwrap();
        state.kept_entries = state.entries.clone();
        Ok(())
    }
}

#[derive(Debug)]
struct Handle {
    sim: Sim,
    file: File,
}

impl Output for Handle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stepped = self.sim.step();
        let mut state = self.sim.0.lock().unwrap();
        let short = state.short;
        // A write that fails, or that the power cuts, may have come some way.
        let taken = if stepped.is_err() {
            state.rng.random_range(0..=bytes.len())
        } else if short > 0.0 && state.rng.random_bool(short) {
            state.rng.random_range(1..=bytes.len())
        } else {
            bytes.len()
        };
        self.file.lock().unwrap().seen.extend_from_slice(&bytes[..taken]);
        stepped.map(|()| taken)
    }

    fn sync(&mut self) -> io::Result<()> {
        let pause = self.sim.0.lock().unwrap().pause;
        std::thread::sleep(pause);
        let stepped = self.sim.step();
        let mut state = self.sim.0.lock().unwrap();
        let mut content = self.file.lock().unwrap();
        let Content { seen, kept, clean } = &mut *content;
        // After a failure the pages count as clean, whatever became of them: the next fsync succeeds.
        let to = match &stepped {
            Ok(()) => seen.len(),
            Err(_) if state.left == Some(0) => return stepped,
            Err(_) => state.rng.random_range(*clean..=seen.len()),
        };
        kept.resize(seen.len(), 0);
        kept[*clean..to].copy_from_slice(&seen[*clean..to]);
        *clean = seen.len();
        stepped
    }
}

impl Input for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.lock().unwrap().seen.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.file.lock().unwrap();
        let rest = content.seen.get(offset as usize..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }
}
