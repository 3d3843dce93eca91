//! A lease table in memory, shared by workers that can be cut off one by one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use headworks_consumer::Checkpoint;
use headworks_consumer::lease::{Beat, Error, Holding, Lease, LeaseStore, PendingCheckpoint};
use headworks_record::ShardId;

#[derive(Debug, Default)]
struct Tables {
    leases: BTreeMap<ShardId, Lease>,
    beats: BTreeMap<String, Beat>,
    written: Vec<(ShardId, String, Checkpoint)>,
    writes: usize,
    scans: usize,
}

/// One worker's view of the table.
#[derive(Debug, Clone, Default)]
pub struct FakeStore {
    tables: Arc<Mutex<Tables>>,
    cut: Arc<AtomicBool>,
    refuses_renewals: Arc<AtomicBool>,
}

impl FakeStore {
    /// The same table for another worker, with a line of its own.
    pub fn another(&self) -> Self {
        Self { tables: self.tables.clone(), ..Self::default() }
    }

    /// From now on nothing is answered on this line.
    pub fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
    }

    /// From now on renewals of leases are not answered on this line.
    pub fn refuse_renewals(&self, refuse: bool) {
        self.refuses_renewals.store(refuse, Ordering::SeqCst);
    }

    pub fn get(&self, shard: &str) -> Option<Lease> {
        self.tables.lock().unwrap().leases.get(&ShardId::from(shard)).cloned()
    }

    pub fn put(&self, lease: Lease) {
        self.tables.lock().unwrap().leases.insert(lease.shard.clone(), lease);
    }

    pub fn owners(&self) -> BTreeMap<String, Option<String>> {
        let tables = self.tables.lock().unwrap();
        tables.leases.values().map(|lease| (lease.shard.to_string(), lease.owner.clone())).collect()
    }

    /// Every checkpoint in the order written.
    pub fn written(&self) -> Vec<(ShardId, String, Checkpoint)> {
        self.tables.lock().unwrap().written.clone()
    }

    pub fn writes(&self) -> usize {
        self.tables.lock().unwrap().writes
    }

    /// How often all leases were read.
    pub fn scans(&self) -> usize {
        self.tables.lock().unwrap().scans
    }

    pub fn beats_now(&self) -> Vec<Beat> {
        self.tables.lock().unwrap().beats.values().cloned().collect()
    }

    async fn line(&self) {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        if self.cut.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }

    async fn change<T>(&self, holding: &Holding, change: impl FnOnce(&mut Lease) -> T) -> Result<T, Error> {
        self.line().await;
        let mut tables = self.tables.lock().unwrap();
        tables.writes += 1;
        let lease = tables.leases.get_mut(&holding.shard);
        let lease = lease.filter(|lease| lease.holding().as_ref() == Some(holding));
        let lease = lease.ok_or_else(|| Error::Conflict { shard: holding.shard.clone() })?;
        lease.counter += 1;
        Ok(change(lease))
    }
}

#[async_trait]
impl LeaseStore for FakeStore {
    async fn prepare(&self) -> Result<(), Error> {
        self.line().await;
        Ok(())
    }

    async fn leases(&self) -> Result<Vec<Lease>, Error> {
        self.line().await;
        let mut tables = self.tables.lock().unwrap();
        tables.scans += 1;
        Ok(tables.leases.values().cloned().collect())
    }

    async fn lease(&self, shard: &ShardId) -> Result<Option<Lease>, Error> {
        self.line().await;
        Ok(self.tables.lock().unwrap().leases.get(shard).cloned())
    }

    async fn create(&self, lease: &Lease) -> Result<bool, Error> {
        self.line().await;
        let mut tables = self.tables.lock().unwrap();
        tables.writes += 1;
        let new = !tables.leases.contains_key(&lease.shard);
        if new {
            tables.leases.insert(lease.shard.clone(), lease.clone());
        }
        Ok(new)
    }

    async fn claim(&self, seen: &Lease, worker: &str) -> Result<Lease, Error> {
        self.line().await;
        let mut tables = self.tables.lock().unwrap();
        tables.writes += 1;
        let lease = tables.leases.get_mut(&seen.shard);
        let unchanged = |lease: &&mut Lease| (&lease.owner, lease.counter) == (&seen.owner, seen.counter);
        let lease = lease.filter(unchanged);
        let lease = lease.ok_or_else(|| Error::Conflict { shard: seen.shard.clone() })?;
        lease.owner = Some(worker.to_owned());
        lease.counter += 1;
        Ok(lease.clone())
    }

    async fn checkpoint(
        &self,
        holding: &Holding,
        checkpoint: &Checkpoint,
        children: &[ShardId],
    ) -> Result<Holding, Error> {
        self.change(holding, |lease| {
            lease.checkpoint = checkpoint.clone();
            lease.pending = None;
            lease.children = children.to_vec();
        })
        .await?;
        let mut tables = self.tables.lock().unwrap();
        tables.written.push((holding.shard.clone(), holding.owner.clone(), checkpoint.clone()));
        Ok(Holding { counter: holding.counter + 1, ..holding.clone() })
    }

    async fn prepare_checkpoint(
        &self,
        holding: &Holding,
        pending: &PendingCheckpoint,
    ) -> Result<Holding, Error> {
        self.change(holding, |lease| lease.pending = Some(pending.clone())).await?;
        Ok(Holding { counter: holding.counter + 1, ..holding.clone() })
    }

    async fn renew(&self, holding: &Holding) -> Result<Holding, Error> {
        if self.refuses_renewals.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.change(holding, |_| ()).await?;
        Ok(Holding { counter: holding.counter + 1, ..holding.clone() })
    }

    async fn delete(&self, seen: &Lease) -> Result<bool, Error> {
        self.line().await;
        let mut tables = self.tables.lock().unwrap();
        let unchanged = tables.leases.get(&seen.shard).is_some_and(|lease| lease.counter == seen.counter);
        Ok(unchanged && tables.leases.remove(&seen.shard).is_some())
    }

    async fn release(&self, holding: &Holding) -> Result<(), Error> {
        self.change(holding, |lease| lease.owner = None).await
    }

    async fn beat(&self, beat: &Beat, first: bool) -> Result<(), Error> {
        self.line().await;
        let mut tables = self.tables.lock().unwrap();
        tables.writes += 1;
        let counter = match tables.beats.get(&beat.worker) {
            Some(before) if !first && before.incarnation != beat.incarnation => {
                return Err(Error::WorkerTaken { worker: beat.worker.clone() });
            }
            Some(before) => before.counter + 1,
            None => 1,
        };
        tables.beats.insert(beat.worker.clone(), Beat { counter, ..beat.clone() });
        Ok(())
    }

    async fn beats(&self) -> Result<Vec<Beat>, Error> {
        self.line().await;
        Ok(self.beats_now())
    }

    async fn retire(&self, beat: &Beat) -> Result<(), Error> {
        self.line().await;
        let mut tables = self.tables.lock().unwrap();
        if tables.beats.get(&beat.worker).is_some_and(|now| now.incarnation == beat.incarnation) {
            tables.beats.remove(&beat.worker);
        }
        Ok(())
    }
}
