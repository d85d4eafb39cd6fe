//! The ceiling: a map and a vector behind a read-write lock, in this process. Nothing is shared with anybody.
//!
//! A snapshot is a full clone made under the read lock, as there is nothing cheaper.
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::HashMap;

use crate::Result;
use crate::rows::{BATCH, DataSet, ELEMENTS, ENTRIES, ENTRIES_1K, ENTRIES_1M, Row, SMALL};
use crate::system::System;
use crate::workload::{Indices, Plan, key, touch, value};

type Small = [u8; SMALL];

/// The containers, each behind a lock of its own.
#[derive(Default)]
pub struct Hashmap {
    dict_64: RwLock<HashMap<u64, Small>>,
    dict_1k: RwLock<HashMap<u64, Vec<u8>>>,
    dict_1m: RwLock<HashMap<u64, Vec<u8>>>,
    list_64: RwLock<Vec<Small>>,
    pushed: RwLock<Vec<Small>>,
}

impl Hashmap {
    /// Empty containers.
    pub fn new() -> Self {
        Hashmap::default()
    }
}

#[inline]
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

#[inline]
fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

fn small() -> Result<Small> {
    Ok(value(SMALL).as_slice().try_into()?)
}

impl System for Hashmap {
    fn has(&self, row: Row) -> bool {
        let elsewhere = matches!(row, Row::ManagerStart | Row::ProcessSpawnJoin | Row::PipeRoundTrip) || row.is_about_methods();
        !elsewhere && !row.is_about_pools() && !row.is_about_locks() && !row.is_about_queues()
    }

    fn prepare(&mut self, data: DataSet) -> Result<()> {
        let (count, bytes) = data.shape();
        let entries = Indices::shuffled(count).into_iter().map(key);
        match data {
            DataSet::Dict64 => {
                let small = small()?;
                write(&self.dict_64).extend(entries.map(|key| (key, small)));
            }
            DataSet::Dict1k => write(&self.dict_1k).extend(entries.map(|key| (key, value(bytes)))),
            DataSet::Dict1m => write(&self.dict_1m).extend(entries.map(|key| (key, value(bytes)))),
            DataSet::List64 => write(&self.list_64).resize(count as usize, small()?),
        }
        Ok(())
    }

    fn run(&mut self, row: Row, plan: Plan) -> Result<Vec<f64>> {
        match row {
            Row::DictGet64 => self.get_64(plan),
            Row::DictGet1k => get_large(&self.dict_1k, ENTRIES_1K, plan),
            Row::DictGet1m => get_large(&self.dict_1m, ENTRIES_1M, plan),
            Row::DictSet64 => self.set_64(plan),
            Row::DictSet1m => self.set_1m(plan),
            Row::DictSetBatch10k => self.set_batch(plan),
            Row::DictIterate100k => plan.time(|| {
                for (key, value) in read(&self.dict_64).iter() {
                    std::hint::black_box(key);
                    touch(value);
                }
                Ok(())
            }),
            Row::ListPush64 => self.push(plan),
            Row::ListGet => self.list_get(plan),
            Row::Snapshot => self.snapshot(plan),
            Row::BytesPerEntry => bytes_per_entry(),
            Row::ManagerStart | Row::ProcessSpawnJoin => Err("a map in this process has neither managers nor processes".into()),
            Row::MethodCall64 | Row::MethodCall100 | Row::UpdateRun | Row::UpdateTransaction => Err("nothing is called elsewhere".into()),
            Row::LockUncontended | Row::LockContended | Row::EventWake | Row::BarrierWake => Err("there are no locks here".into()),
            Row::ArrayGet | Row::ArraySet | Row::ArrayFetchAdd => array(row, plan),
            Row::CounterAdd | Row::CounterAddContended => count(row, plan),
            _ => Err("a map in this process has neither queues nor pools, and is not called".into()),
        }
    }
}

/// Plain atomics of this process.
fn array(row: Row, plan: Plan) -> Result<Vec<f64>> {
    let numbers: Vec<AtomicI64> = (0..ELEMENTS).map(|_| AtomicI64::new(0)).collect();
    let mut indices = Indices::below(ELEMENTS);
    plan.time(|| {
        let number = &numbers[indices.next_index() as usize];
        match row {
            Row::ArrayGet => drop(std::hint::black_box(number.load(Ordering::Acquire))),
            Row::ArraySet => number.store(7, Ordering::Release),
            _ => drop(number.fetch_add(1, Ordering::AcqRel)),
        }
        Ok(())
    })
}

/// One atomic, of which there are no stripes.
fn count(row: Row, plan: Plan) -> Result<Vec<f64>> {
    let (number, over) = (AtomicI64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        if row == Row::CounterAddContended {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    number.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let times = plan.time(|| {
            number.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        over.store(true, Ordering::Relaxed);
        times
    })
}

impl Hashmap {
    fn get_64(&self, plan: Plan) -> Result<Vec<f64>> {
        let mut indices = Indices::below(ENTRIES);
        plan.time(|| {
            let dict = read(&self.dict_64);
            touch(dict.get(&indices.next_key()).ok_or("a key is not there")?);
            Ok(())
        })
    }

    fn set_64(&self, plan: Plan) -> Result<Vec<f64>> {
        let small = small()?;
        let mut indices = Indices::below(ENTRIES);
        plan.time(|| {
            write(&self.dict_64).insert(indices.next_key(), small);
            Ok(())
        })
    }

    fn set_1m(&self, plan: Plan) -> Result<Vec<f64>> {
        let large = value(1 << 20);
        let mut indices = Indices::below(ENTRIES_1M);
        plan.time(|| {
            // The copy is made outside of the lock; the old value is freed after it.
            let copy = large.clone();
            let old = write(&self.dict_1m).insert(indices.next_key(), copy);
            drop(old);
            Ok(())
        })
    }

    fn set_batch(&self, plan: Plan) -> Result<Vec<f64>> {
        let small = small()?;
        let mut indices = Indices::below(ENTRIES);
        plan.time(|| {
            let mut dict = write(&self.dict_64);
            for _ in 0..BATCH {
                dict.insert(indices.next_key(), small);
            }
            Ok(())
        })
    }

    fn push(&self, plan: Plan) -> Result<Vec<f64>> {
        let small = small()?;
        *write(&self.pushed) = Vec::new();
        plan.time(|| {
            write(&self.pushed).push(small);
            Ok(())
        })
    }

    fn list_get(&self, plan: Plan) -> Result<Vec<f64>> {
        let mut indices = Indices::below(ENTRIES);
        plan.time(|| {
            let list = read(&self.list_64);
            touch(list.get(indices.next_index() as usize).ok_or("an element is not there")?);
            Ok(())
        })
    }

    fn snapshot(&self, plan: Plan) -> Result<Vec<f64>> {
        let mut indices = Indices::below(ENTRIES);
        plan.time(|| {
            let copy = read(&self.dict_64).clone();
            touch(copy.get(&indices.next_key()).ok_or("a key is not there")?);
            Ok(())
        })
    }
}

fn get_large(dict: &RwLock<HashMap<u64, Vec<u8>>>, count: u64, plan: Plan) -> Result<Vec<f64>> {
    let mut indices = Indices::below(count);
    plan.time(|| {
        let dict = read(dict);
        touch(dict.get(&indices.next_key()).ok_or("a key is not there")?);
        Ok(())
    })
}

fn bytes_per_entry() -> Result<Vec<f64>> {
    let mut dict = HashMap::new();
    let small = small()?;
    for index in Indices::shuffled(ENTRIES) {
        dict.insert(key(index), small);
    }
    Ok(vec![dict.allocation_size() as f64 / ENTRIES as f64])
}
