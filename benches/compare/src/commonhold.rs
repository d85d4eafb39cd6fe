//! commonhold itself: a manager process of its own, used from this one.
//!
//! Reads happen in place in the manager's memory; writes go to the manager and come back committed.
use std::cell::RefCell;
use std::sync::Barrier;
use std::thread;

use ::commonhold::{AsShared, Dict, List, Manager, ManagerBuilder, Process, Shared};

use crate::Result;
use crate::clients::all_clients;
use crate::dicts::{Small, fill_small, get_small, live_bytes, set_small, small, update_by_run, update_by_transaction};
use crate::partner::Partner;
use crate::rows::{BATCH, DEPTH, DataSet, EACH, ELEMENTS, ENTRIES, ENTRIES_1K, ENTRIES_1M, OBJECTS, Row, TOGETHER};
use crate::situations::{children, memory_bytes};
use crate::system::System;
use crate::workload::{Indices, Plan, answer, key, touch, value};

/// Bytes in one batch while a dict of large values is filled.
const FILL_BATCH_BYTES: usize = 4 << 20;

/// An object with next to nothing to do.
struct Echo;

#[::commonhold::remote]
impl Echo {
    pub fn new() -> Self {
        Echo
    }

    pub fn echo(&self, bytes: Small) -> Small {
        bytes
    }
}

/// The manager and handles on its containers.
pub struct Commonhold {
    manager: Manager,
    dict_64: Dict<u64, Small>,
    dict_1k: Dict<u64, Vec<u8>>,
    dict_1m: Dict<u64, Vec<u8>>,
    list_64: List<Small>,
    pushed: List<Small>,
    /// The manager's.
    processes: Vec<u32>,
    /// One whose calls go by the socket alone: started when it is first measured.
    by_socket: Option<Box<Commonhold>>,
}

impl Commonhold {
    /// Starts a manager with empty containers.
    pub fn start() -> Result<Self> {
        Self::start_with(Manager::builder())
    }

    /// The same with a manager that is built otherwise.
    pub fn start_with(builder: ManagerBuilder) -> Result<Self> {
        let before = children(std::process::id());
        let manager = builder.start()?;
        let mut processes = children(std::process::id());
        processes.retain(|process| !before.contains(process));
        Ok(Commonhold {
            processes,
            by_socket: None,
            dict_64: manager.dict([])?,
            dict_1k: manager.dict([])?,
            dict_1m: manager.dict([])?,
            list_64: manager.list([])?,
            pushed: manager.list([])?,
            manager,
        })
    }
}

fn fill_large(manager: &Manager, dict: &Dict<u64, Vec<u8>>, count: u64, bytes: usize) -> Result<()> {
    let large = value(bytes);
    for chunk in Indices::shuffled(count).chunks((FILL_BATCH_BYTES / bytes).max(1)) {
        manager.batch(|batch| {
            for index in chunk {
                batch.insert(dict, key(*index), &large)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

impl System for Commonhold {
    fn has(&self, _row: Row) -> bool {
        true
    }

    fn prepare(&mut self, data: DataSet) -> Result<()> {
        let (count, bytes) = data.shape();
        match data {
            DataSet::Dict64 => fill_small(&self.manager, &self.dict_64, count),
            DataSet::Dict1k => fill_large(&self.manager, &self.dict_1k, count, bytes),
            DataSet::Dict1m => fill_large(&self.manager, &self.dict_1m, count, bytes),
            DataSet::List64 => {
                let small = small()?;
                Ok(self.list_64.extend((0..count).map(|_| small))?)
            }
        }
    }

    fn run(&mut self, row: Row, plan: Plan) -> Result<Vec<f64>> {
        match row {
            Row::DictGet64 => get_small(&self.dict_64, ENTRIES, plan),
            Row::DictGet1k => get_large(&self.dict_1k, ENTRIES_1K, plan),
            Row::DictGet1m => get_large(&self.dict_1m, ENTRIES_1M, plan),
            Row::DictSet64 => set_small(&self.dict_64, ENTRIES, plan),
            Row::DictSet64Socket => set_small(&self.by_socket()?.dict_64, ENTRIES, plan),
            Row::DictSet64Stream => self.set_stream(plan),
            Row::ListPush64Stream => self.push_stream(plan),
            Row::DictSet64By2 | Row::DictSet64By8 => {
                let clients = row.clients().ok_or("a row of no clients")?;
                Ok(vec![1e9 / all_clients(&self.manager, &self.dict_64, clients, true, TOGETHER)?])
            }
            Row::SessionBytes => self.session_bytes(),
            Row::LaneBytes => self.lane_bytes(),
            Row::DictSet1m => self.set_1m(plan),
            Row::DictSetBatch10k => self.set_batch(plan),
            Row::DictIterate100k => plan.time(|| {
                for (key, value) in self.dict_64.iter()? {
                    std::hint::black_box(*key);
                    touch(&value[..]);
                }
                Ok(())
            }),
            Row::ListPush64 => self.push(plan),
            Row::ListGet => self.list_get(plan),
            Row::Snapshot => self.snapshot(plan),
            Row::LockUncontended | Row::LockContended => self.lock(row, plan),
            Row::EventWake => self.event(plan),
            Row::BarrierWake => {
                let barrier = self.manager.barrier(2)?;
                let _partner = Partner::start(&["barrier".to_owned(), barrier.token()?.to_string()])?;
                plan.time(|| {
                    barrier.wait()?;
                    Ok(())
                })
            }
            Row::Queue64 | Row::Queue4To1 | Row::Queue1To4 | Row::Queue4To4 => self.queue(row, plan, "queue_small", &small()?),
            Row::Queue4k => self.queue(row, plan, "queue_large", &value(4 << 10)),
            Row::Queue1m => self.queue(row, plan, "queue_large", &value(1 << 20)),
            Row::QueueRoundTrip | Row::QueueWake => self.there_and_back(plan.with_pauses(row.pause_ns().unwrap_or_default())),
            Row::PipeRoundTrip => self.pipe(plan),
            Row::ArrayGet | Row::ArraySet | Row::ArrayFetchAdd => self.array(row, plan),
            Row::CounterAdd | Row::CounterAddContended => self.count(row, plan),
            Row::BytesPerEntry => bytes_per_entry(),
            Row::ManagerStart => start(plan),
            Row::ProcessSpawnJoin => spawn_join(plan),
            Row::MethodCall64 => self.call(plan),
            Row::MethodCall100 => self.call_100(plan),
            Row::UpdateRun => self.update(plan, "update_run", update_by_run),
            Row::UpdateTransaction => self.update(plan, "update_transaction", update_by_transaction),
            Row::DictSet64Thinking
            | Row::DictSet64OneCore
            | Row::DictSet64SocketOneCore
            | Row::DictSet64Cpu
            | Row::ListPush64Thinking
            | Row::IdleCpu => unreachable!("another row's work, or none"),
            Row::PoolTask | Row::PoolTask1m | Row::PoolMap10k | Row::PoolMap10kChunk1 => crate::pools::run(row, plan),
            Row::PoolWork | Row::PoolWorkOne | Row::PoolStart => crate::pools::run(row, plan),
        }
    }

    fn processes(&self) -> Vec<u32> {
        self.processes.clone()
    }
}

impl Commonhold {
    fn set_stream(&self, plan: Plan) -> Result<Vec<f64>> {
        let small = small()?;
        let mut indices = Indices::below(ENTRIES);
        let writer = RefCell::new(self.manager.writer()?);
        let set = || {
            writer.borrow_mut().insert(&self.dict_64, indices.next_key(), small)?;
            Ok(())
        };
        plan.time_stream(set, |_| Ok(writer.borrow_mut().flush()?))
    }

    fn push_stream(&self, plan: Plan) -> Result<Vec<f64>> {
        let small = small()?;
        self.pushed.clear()?;
        let writer = RefCell::new(self.manager.writer()?);
        let push = || {
            writer.borrow_mut().push(&self.pushed, small)?;
            Ok(())
        };
        plan.time_stream(push, |_| Ok(writer.borrow_mut().flush()?))
    }

    fn by_socket(&mut self) -> Result<&Commonhold> {
        if self.by_socket.is_none() {
            let mut other = Self::start_with(Manager::builder().lanes(false))?;
            other.prepare(DataSet::Dict64)?;
            self.by_socket = Some(Box::new(other));
        }
        self.by_socket.as_deref().ok_or_else(|| "it was there".into())
    }

    /// Memory behind the manager and behind what it shares with `others`.
    fn memory(&self, others: &[u32]) -> f64 {
        memory_bytes(&self.processes, false) + memory_bytes(others, true)
    }

    fn session_bytes(&self) -> Result<Vec<f64>> {
        let counter = self.manager.counter(0)?;
        let ours = [std::process::id()];
        // The first one finds out what has not been needed so far.
        let task = ["session".to_owned(), counter.token()?.to_string()];
        let _first = Partner::start(&task)?;
        let before = self.memory(&ours);
        let partners: Vec<Partner> = (0..EACH).map(|_| Partner::start(&task)).collect::<Result<_>>()?;
        let all: Vec<u32> = ours.into_iter().chain(partners.iter().map(Partner::process)).collect();
        Ok(vec![(self.memory(&all) - before).max(0.0) / EACH as f64])
    }

    fn lane_bytes(&self) -> Result<Vec<f64>> {
        let counter = self.manager.counter(0)?;
        let ours = [std::process::id()];
        counter.add(1)?;
        let before = self.memory(&ours);
        let (called, measured) = (Barrier::new(EACH + 1), Barrier::new(EACH + 1));
        let (after, done) = thread::scope(|scope| {
            let callers: Vec<_> = (0..EACH)
                .map(|_| {
                    scope.spawn(|| {
                        let done = counter.add(1);
                        called.wait();
                        measured.wait();
                        done
                    })
                })
                .collect();
            called.wait();
            let after = self.memory(&ours);
            measured.wait();
            (after, callers.into_iter().map(|caller| caller.join().is_ok_and(|done| done.is_ok())).collect::<Vec<_>>())
        });
        if done.contains(&false) {
            return Err("a call failed".into());
        }
        Ok(vec![(after - before).max(0.0) / EACH as f64])
    }
}

impl Commonhold {
    fn lock(&self, row: Row, plan: Plan) -> Result<Vec<f64>> {
        let lock = self.manager.lock()?;
        let _partner = match row {
            Row::LockContended => Some(Partner::start(&["lock".to_owned(), lock.token()?.to_string()])?),
            _ => None,
        };
        plan.time(|| {
            drop(lock.lock()?.into_guard());
            Ok(())
        })
    }

    fn queue<T: Shared>(&self, row: Row, plan: Plan, receiver: &str, item: &T) -> Result<Vec<f64>>
    where
        for<'i> &'i T: AsShared<T>,
    {
        let queue = self.manager.queue::<T>(DEPTH as u64)?;
        let (_, senders, receivers) = row.crowd().ok_or("not a row about queues")?;
        let roles = std::iter::repeat_n(receiver, receivers).chain(std::iter::repeat_n("queue_sender", senders - 1));
        let start = |role: &str| Partner::start(&[role.to_owned(), queue.token()?.to_string()]);
        let _partners = roles.map(start).collect::<Result<Vec<_>>>()?;
        // Full first: then each has to wait for the other's end.
        for _ in 0..DEPTH {
            queue.send(item)?;
        }
        plan.time(|| Ok(queue.send(item)?))
    }

    fn pipe(&self, plan: Plan) -> Result<Vec<f64>> {
        let (ours, theirs) = self.manager.pipe::<Small>()?;
        let _partner = Partner::start(&["pipe_echo".to_owned(), theirs.token()?.to_string()])?;
        drop(theirs);
        let small = small()?;
        plan.time(|| {
            ours.send(small)?;
            touch(&ours.recv()?.ok_or("the pipe has ended")?);
            Ok(())
        })
    }

    fn there_and_back(&self, plan: Plan) -> Result<Vec<f64>> {
        let (there, back) = (self.manager.queue::<Small>(DEPTH as u64)?, self.manager.queue::<Small>(DEPTH as u64)?);
        let _partner = Partner::start(&["queue_echo".to_owned(), there.token()?.to_string(), back.token()?.to_string()])?;
        let small = small()?;
        plan.time(|| {
            there.send(small)?;
            touch(&back.recv()?.ok_or("the queue is closed")?);
            Ok(())
        })
    }

    fn array(&self, row: Row, plan: Plan) -> Result<Vec<f64>> {
        let numbers = self.manager.array::<i64>(ELEMENTS as usize)?;
        let mut indices = Indices::below(ELEMENTS);
        plan.time(|| {
            let index = indices.next_index() as usize;
            match row {
                Row::ArrayGet => drop(std::hint::black_box(numbers.get(index)?)),
                Row::ArraySet => numbers.set(index, 7)?,
                _ => drop(numbers.fetch_add(index, 1)?),
            }
            Ok(())
        })
    }

    fn count(&self, row: Row, plan: Plan) -> Result<Vec<f64>> {
        let counter = self.manager.striped_counter(0)?;
        let _partner = match row {
            Row::CounterAddContended => Some(Partner::start(&["count".to_owned(), counter.token()?.to_string()])?),
            _ => None,
        };
        plan.time(|| Ok(counter.add(1)?))
    }

    fn event(&self, plan: Plan) -> Result<Vec<f64>> {
        let (ping, pong) = (self.manager.event()?, self.manager.event()?);
        let _partner = Partner::start(&["events".to_owned(), ping.token()?.to_string(), pong.token()?.to_string()])?;
        plan.time(|| {
            ping.set()?;
            pong.wait()?;
            pong.clear()?;
            Ok(())
        })
    }

    fn set_1m(&self, plan: Plan) -> Result<Vec<f64>> {
        let large = value(1 << 20);
        let mut indices = Indices::below(ENTRIES_1M);
        plan.time(|| {
            self.dict_1m.insert(indices.next_key(), &large)?;
            Ok(())
        })
    }

    fn set_batch(&self, plan: Plan) -> Result<Vec<f64>> {
        let small = small()?;
        let mut indices = Indices::below(ENTRIES);
        plan.time(|| {
            self.manager.batch(|batch| {
                for _ in 0..BATCH {
                    batch.insert(&self.dict_64, indices.next_key(), small)?;
                }
                Ok(())
            })?;
            Ok(())
        })
    }

    fn push(&self, plan: Plan) -> Result<Vec<f64>> {
        let small = small()?;
        self.pushed.clear()?;
        plan.time(|| {
            self.pushed.push(small)?;
            Ok(())
        })
    }

    fn list_get(&self, plan: Plan) -> Result<Vec<f64>> {
        let mut indices = Indices::below(ENTRIES);
        plan.time(|| {
            let found = self.list_64.get(indices.next_index() as usize)?.ok_or("an element is not there")?;
            touch(&found[..]);
            Ok(())
        })
    }

    fn call(&self, plan: Plan) -> Result<Vec<f64>> {
        let echo = self.manager.create(Echo::new, ())?;
        let small = small()?;
        plan.time(|| {
            touch(&echo.echo(small)?);
            Ok(())
        })
    }

    fn call_100(&self, plan: Plan) -> Result<Vec<f64>> {
        let echoes = (0..OBJECTS).map(|_| self.manager.create(Echo::new, ())).collect::<::commonhold::Result<Vec<_>>>()?;
        let small = small()?;
        plan.time(|| {
            let pending = echoes.iter().map(|echo| echo.call_async().echo(small)).collect::<::commonhold::Result<Vec<_>>>()?;
            pending.into_iter().try_for_each(|pending| pending.get().map(|bytes| touch(&bytes)))?;
            Ok(())
        })
    }

    fn update(&self, plan: Plan, partner: &str, update: fn(&Dict<u64, u64>) -> ::commonhold::Result<u64>) -> Result<Vec<f64>> {
        let dict = self.manager.dict([(0, 0)])?;
        let _partner = Partner::start(&[partner.to_owned(), dict.token()?.to_string()])?;
        plan.time(|| {
            update(&dict)?;
            Ok(())
        })
    }

    fn snapshot(&self, plan: Plan) -> Result<Vec<f64>> {
        let mut indices = Indices::below(ENTRIES);
        plan.time(|| {
            let now = self.manager.snapshot()?;
            let found = self.dict_64.at(&now).get(indices.next_key()).ok_or("a key is not there")?;
            touch(&found[..]);
            Ok(())
        })
    }
}

fn get_large(dict: &Dict<u64, Vec<u8>>, count: u64, plan: Plan) -> Result<Vec<f64>> {
    let mut indices = Indices::below(count);
    plan.time(|| {
        let found = dict.get(indices.next_key())?.ok_or("a key is not there")?;
        touch(&found[..]);
        Ok(())
    })
}

/// In a manager of its own, so that no free space of earlier rows is in the figure.
fn bytes_per_entry() -> Result<Vec<f64>> {
    let manager = Manager::start()?;
    let dict = manager.dict([])?;
    let before = live_bytes(&manager)?;
    fill_small(&manager, &dict, ENTRIES)?;
    Ok(vec![live_bytes(&manager)?.saturating_sub(before) as f64 / ENTRIES as f64])
}

fn start(plan: Plan) -> Result<Vec<f64>> {
    let small = small()?;
    plan.time_starts(|| {
        let manager = Manager::start()?;
        let dict: Dict<u64, Small> = manager.dict([])?;
        dict.insert(key(1), small)?;
        drop(dict);
        Ok(manager)
    })
}

fn spawn_join(plan: Plan) -> Result<Vec<f64>> {
    plan.time(|| {
        let answered = Process::spawn(answer, 41)?.join()?;
        if answered == 42 { Ok(()) } else { Err("the process brought another result".into()) }
    })
}
