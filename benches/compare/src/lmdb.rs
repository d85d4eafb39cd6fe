//! LMDB through heed, in its fastest honest setting: the file on tmpfs, WRITEMAP, no syncing.
//!
//! One transaction per operation, as with everybody else here: a get begins and ends a read transaction, a set commits a write transaction.
//! Writer and reader are this process. For reads that makes no difference (LMDB's readers map the file, whoever wrote it); for writes it is a
//! head start over every system whose writer is another process. A list is a database with the position as key; a push looks up the last
//! position, as any process could have pushed before.
//!
//! `unsafe_code` is allowed here for heed's `open` and `flags`, which are unsafe because others could touch the files of an environment.
#![allow(unsafe_code)]
use std::path::PathBuf;

use heed::byteorder::BigEndian;
use heed::types::{Bytes, U64};
use heed::{Database, Env, EnvFlags, EnvOpenOptions, PutFlags};
use tempfile::TempDir;

use crate::Result;
use crate::rows::{BATCH, DataSet, ENTRIES, ENTRIES_1K, ENTRIES_1M, Row, SMALL};
use crate::system::System;
use crate::workload::{Indices, Plan, key, touch, value};

type Store = Database<U64<BigEndian>, Bytes>;

/// Address space of the environment; the file has holes where nothing is written.
const MAP_BYTES: usize = 2 << 30;
/// Free space below which tmpfs is not used: a full tmpfs under a writable mapping is a SIGBUS.
const ROOM_BYTES: u64 = 1 << 30;

/// One environment with a database for each container.
pub struct Lmdb {
    env: Env,
    dict_64: Store,
    dict_1k: Store,
    dict_1m: Store,
    list_64: Store,
    pushed: Store,
}

impl Lmdb {
    /// A fresh environment. Its files are unlinked at once, so that they go away with this process, however it ends.
    pub fn new() -> Result<Self> {
        let directory = fast_directory()?;
        let env = open(&directory)?;
        directory.close()?;
        let mut writing = env.write_txn()?;
        let mut create = |name: &str| env.create_database(&mut writing, Some(name));
        let (dict_64, dict_1k, dict_1m) = (create("dict_64")?, create("dict_1k")?, create("dict_1m")?);
        let (list_64, pushed) = (create("list_64")?, create("pushed")?);
        writing.commit()?;
        Ok(Lmdb { env, dict_64, dict_1k, dict_1m, list_64, pushed })
    }
}

/// A directory on tmpfs if there is one with room, else where temporary files go.
fn fast_directory() -> Result<TempDir> {
    let tmpfs = PathBuf::from("/dev/shm");
    let room = rustix::fs::statvfs(&tmpfs).map(|found| found.f_bavail.saturating_mul(found.f_frsize)).unwrap_or(0);
    let named = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("compare-lmdb-");
        builder
    };
    if room >= ROOM_BYTES
        && let Ok(directory) = named().tempdir_in(&tmpfs)
    {
        return Ok(directory);
    }
    Ok(named().tempdir()?)
}

fn open(directory: &TempDir) -> Result<Env> {
    let mut options = EnvOpenOptions::new();
    options.map_size(MAP_BYTES).max_dbs(8);
    // SAFETY: without syncing a crash of the machine loses the file, which nobody needs then; the directory is new, private and this
    // environment's alone, so nobody else truncates or rewrites the files, nor opens them a second time.
    unsafe {
        options.flags(EnvFlags::WRITE_MAP | EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC);
        Ok(options.open(directory.path())?)
    }
}

impl System for Lmdb {
    fn has(&self, row: Row) -> bool {
        !matches!(row, Row::ProcessSpawnJoin | Row::PipeRoundTrip)
            && !row.is_about_methods()
            && !row.is_about_pools()
            && !row.is_about_locks()
            && !row.is_about_memory()
            && !row.is_about_queues()
    }

    fn prepare(&mut self, data: DataSet) -> Result<()> {
        let (count, bytes) = data.shape();
        let value = value(bytes);
        let mut writing = self.env.write_txn()?;
        match data {
            DataSet::List64 => {
                for index in 0..count {
                    self.list_64.put_with_flags(&mut writing, PutFlags::APPEND, &index, &value)?;
                }
            }
            DataSet::Dict64 => fill(self.dict_64, &mut writing, count, &value)?,
            DataSet::Dict1k => fill(self.dict_1k, &mut writing, count, &value)?,
            DataSet::Dict1m => fill(self.dict_1m, &mut writing, count, &value)?,
        }
        Ok(writing.commit()?)
    }

    fn run(&mut self, row: Row, plan: Plan) -> Result<Vec<f64>> {
        match row {
            Row::DictGet64 => self.get(self.dict_64, ENTRIES, plan),
            Row::DictGet1k => self.get(self.dict_1k, ENTRIES_1K, plan),
            Row::DictGet1m => self.get(self.dict_1m, ENTRIES_1M, plan),
            Row::DictSet64 => self.set(self.dict_64, ENTRIES, SMALL, plan),
            Row::DictSet1m => self.set(self.dict_1m, ENTRIES_1M, 1 << 20, plan),
            Row::DictSetBatch10k => self.set_batch(plan),
            Row::DictIterate100k => plan.time(|| {
                let reading = self.env.read_txn()?;
                for entry in self.dict_64.iter(&reading)? {
                    let (key, value) = entry?;
                    std::hint::black_box(key);
                    touch(value);
                }
                Ok(())
            }),
            Row::ListPush64 => self.push(plan),
            Row::ListGet => self.list_get(plan),
            // A read transaction is a snapshot, so this is the same work as a get.
            Row::Snapshot => self.get(self.dict_64, ENTRIES, plan),
            Row::BytesPerEntry => self.bytes_per_entry(),
            Row::ManagerStart => start(plan),
            Row::LockUncontended | Row::LockContended | Row::EventWake | Row::BarrierWake => Err("there are no locks here".into()),
            Row::ArrayGet | Row::ArraySet | Row::ArrayFetchAdd | Row::CounterAdd | Row::CounterAddContended => {
                Err("there is no raw memory here".into())
            }
            _ => Err("it has neither processes nor queues, and is not called".into()),
        }
    }
}

impl Lmdb {
    fn get(&self, store: Store, count: u64, plan: Plan) -> Result<Vec<f64>> {
        let mut indices = Indices::below(count);
        plan.time(|| {
            let reading = self.env.read_txn()?;
            touch(store.get(&reading, &indices.next_key())?.ok_or("a key is not there")?);
            Ok(())
        })
    }

    fn set(&self, store: Store, count: u64, bytes: usize, plan: Plan) -> Result<Vec<f64>> {
        let value = value(bytes);
        let mut indices = Indices::below(count);
        plan.time(|| {
            let mut writing = self.env.write_txn()?;
            store.put(&mut writing, &indices.next_key(), &value)?;
            Ok(writing.commit()?)
        })
    }

    fn set_batch(&self, plan: Plan) -> Result<Vec<f64>> {
        let value = value(SMALL);
        let mut indices = Indices::below(ENTRIES);
        plan.time(|| {
            let mut writing = self.env.write_txn()?;
            for _ in 0..BATCH {
                self.dict_64.put(&mut writing, &indices.next_key(), &value)?;
            }
            Ok(writing.commit()?)
        })
    }

    fn push(&self, plan: Plan) -> Result<Vec<f64>> {
        let value = value(SMALL);
        let mut clearing = self.env.write_txn()?;
        self.pushed.clear(&mut clearing)?;
        clearing.commit()?;
        plan.time(|| {
            let mut writing = self.env.write_txn()?;
            let next = self.pushed.last(&writing)?.map_or(0, |(last, _)| last + 1);
            self.pushed.put_with_flags(&mut writing, PutFlags::APPEND, &next, &value)?;
            Ok(writing.commit()?)
        })
    }

    fn list_get(&self, plan: Plan) -> Result<Vec<f64>> {
        let mut indices = Indices::below(ENTRIES);
        plan.time(|| {
            let reading = self.env.read_txn()?;
            touch(self.list_64.get(&reading, &indices.next_index())?.ok_or("an element is not there")?);
            Ok(())
        })
    }

    /// Pages of the database, as LMDB counts them; pages waiting for reuse are not counted.
    fn bytes_per_entry(&self) -> Result<Vec<f64>> {
        let mut writing = self.env.write_txn()?;
        let fresh: Store = self.env.create_database(&mut writing, Some("bytes_per_entry"))?;
        fill(fresh, &mut writing, ENTRIES, &value(SMALL))?;
        let found = fresh.stat(&writing)?;
        let pages = found.branch_pages + found.leaf_pages + found.overflow_pages;
        writing.abort();
        Ok(vec![pages as f64 * f64::from(found.page_size) / ENTRIES as f64])
    }
}

fn fill(store: Store, writing: &mut heed::RwTxn, count: u64, value: &[u8]) -> Result<()> {
    for index in Indices::shuffled(count) {
        store.put(writing, &key(index), value)?;
    }
    Ok(())
}

/// There is no manager: what comes nearest is to create an environment and commit a first entry.
fn start(plan: Plan) -> Result<Vec<f64>> {
    let value = value(SMALL);
    plan.time_starts(|| {
        let directory = fast_directory()?;
        let env = open(&directory)?;
        let mut writing = env.write_txn()?;
        let store: Store = env.create_database(&mut writing, None)?;
        store.put(&mut writing, &key(1), &value)?;
        writing.commit()?;
        Ok((env, directory))
    })
}
