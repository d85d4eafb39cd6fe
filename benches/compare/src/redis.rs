//! Redis over a unix socket: a server of our own, without persistence, started and ended by this program.
//!
//! A dict is a hash (HSET, HGET, HGETALL), a list is a list (RPUSH, LINDEX), a batch is MULTI … EXEC in one pipeline. There are no snapshots:
//! that row copies the whole hash. A queue is a list as well (RPUSH, BLPOP), which has no bound: that its receivers keep up is their affair.
//! The server's directory holds nothing but its socket.
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tempfile::TempDir;

use crate::Result;
use crate::child::{Helper, Lines};
use crate::partner::Partner;
use crate::resp::{Connection, Reply};
use crate::rows::{BATCH, DataSet, EACH, ENTRIES, ENTRIES_1K, ENTRIES_1M, OBJECTS, Row, SMALL, TOGETHER};
use crate::situations::memory_bytes;
use crate::system::System;
use crate::workload::{Indices, Plan, key, touch, value};

/// How long the server may take to say that it is ready.
const PATIENCE: Duration = Duration::from_secs(20);
/// What redis-server prints last when it starts; the words before differ between its versions.
const READY: &str = "eady to accept connections";
/// Lists that are used as queues.
const THERE: &[u8] = b"there";
const BACK: &[u8] = b"back";
/// Commands sent before replies are read when a container is filled.
const PIPELINE: usize = 1000;

/// Commands that are under way in a stream.
const STREAM: u32 = 128;

/// A server and the connection to it. The pipes are held because the server would find them broken otherwise.
pub struct Redis {
    connection: Connection,
    socket: PathBuf,
    _directory: TempDir,
    /// Whoever is in the way.
    rival: Connection,
    /// Others, for rows with several clients, and what each of them costs the server.
    others: Vec<Connection>,
    connection_bytes: f64,
    server: Helper,
    _stdin: ChildStdin,
    _log: Lines,
}

impl Redis {
    /// Starts a server and connects to it. `None`: there is no redis-server on this machine.
    pub fn start() -> Result<Option<Self>> {
        let directory = tempfile::Builder::new().prefix("compare-redis-").tempdir()?;
        let socket = directory.path().join("socket");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no", "--logfile", ""]);
        command.arg("--unixsocket").arg(&socket).args(["--unixsocketperm", "700"]).arg("--dir").arg(directory.path());
        let Some((server, stdin, mut log)) = Helper::spawn(&mut command)? else {
            return Ok(None);
        };
        loop {
            let line = log.next_line(PATIENCE).map_err(|error| format!("redis-server did not come up: {error}"))?;
            if line.contains(READY) {
                break;
            }
        }
        let mut connection = Connection::open(&socket)?;
        let mut memory = || {
            connection.call(&[b"PING"], |_| {})?;
            Ok::<f64, Box<dyn std::error::Error>>(memory_bytes(&[server.process()], false))
        };
        let before = memory()?;
        let mut others: Vec<Connection> = (0..EACH).map(|_| Connection::open(&socket)).collect::<Result<_>>()?;
        for other in &mut others {
            other.call(&[b"PING"], |_| {})?;
        }
        let connection_bytes = (memory()? - before).max(0.0) / EACH as f64;
        let rival = Connection::open(&socket)?;
        Ok(Some(Redis { connection, socket, _directory: directory, rival, others, connection_bytes, server, _stdin: stdin, _log: log }))
    }

    fn expect(&mut self, wanted: Reply) -> Result<()> {
        let reply = self.connection.reply(|_| {})?;
        if reply == wanted { Ok(()) } else { Err(format!("redis answered {reply:?} instead of {wanted:?}").into()) }
    }

    /// Fills the hash `name`, sending many commands before reading their replies.
    fn fill(&mut self, name: &str, indices: &[u64], value: &[u8]) -> Result<()> {
        // Large values are sent a few at a time: both sides hold what is under way.
        let pipeline = PIPELINE.min((4 << 20) / value.len()).max(1);
        for chunk in indices.chunks(pipeline) {
            for index in chunk {
                self.connection.queue(&[b"HSET", name.as_bytes(), &key(*index).to_le_bytes(), value]);
            }
            self.connection.flush()?;
            for _ in chunk {
                self.expect(Reply::Integer(1))?;
            }
        }
        Ok(())
    }

    fn get(&mut self, data: DataSet, count: u64, plan: Plan) -> Result<Vec<f64>> {
        let mut indices = Indices::below(count);
        plan.time(|| {
            let key = indices.next_key().to_le_bytes();
            found(self.connection.call(&[b"HGET", data.name().as_bytes(), &key], touch)?)
        })
    }

    fn set(&mut self, data: DataSet, plan: Plan) -> Result<Vec<f64>> {
        let (count, bytes) = data.shape();
        let value = value(bytes);
        let mut indices = Indices::below(count);
        plan.time(|| {
            let key = indices.next_key().to_le_bytes();
            self.connection.call(&[b"HSET", data.name().as_bytes(), &key, &value], |_| {}).map(|_| ())
        })
    }

    /// Commands without waiting for each answer: so many, then their answers.
    fn stream(&mut self, plan: Plan, mut command: impl FnMut(&mut Connection)) -> Result<Vec<f64>> {
        let waiting = Cell::new(0);
        let connection = RefCell::new(&mut self.connection);
        let answers = || -> Result<()> {
            let connection = &mut **connection.borrow_mut();
            connection.flush()?;
            for _ in 0..waiting.take() {
                connection.reply(|_| {})?;
            }
            Ok(())
        };
        let one = || {
            command(*connection.borrow_mut());
            waiting.set(waiting.get() + 1);
            if waiting.get() == STREAM { answers() } else { Ok(()) }
        };
        plan.time_stream(one, |_| answers())
    }

    fn set_stream(&mut self, plan: Plan) -> Result<Vec<f64>> {
        let (value, mut indices) = (value(SMALL), Indices::below(ENTRIES));
        self.stream(plan, |connection| {
            connection.queue(&[b"HSET", DataSet::Dict64.name().as_bytes(), &indices.next_key().to_le_bytes(), &value]);
        })
    }

    fn push_stream(&mut self, plan: Plan) -> Result<Vec<f64>> {
        let value = value(SMALL);
        self.connection.call(&[b"DEL", b"pushed"], |_| {})?;
        self.stream(plan, |connection| connection.queue(&[b"RPUSH", b"pushed", &value]))
    }

    /// Nanoseconds of a set when so many threads set at once, each on a connection of its own.
    fn set_together(&mut self, clients: u32) -> Result<Vec<f64>> {
        let (value, name) = (value(SMALL), DataSet::Dict64.name().as_bytes());
        let client = |number: u64, connection: &mut Connection| {
            let mut indices = Indices::below(ENTRIES);
            (0..number * 1000).for_each(|_| _ = indices.next_index());
            let (mut done, began) = (0u64, Instant::now());
            while began.elapsed() < TOGETHER {
                connection.call(&[b"HSET", name, &indices.next_key().to_le_bytes(), &value], |_| {}).map_err(|error| error.to_string())?;
                done += 1;
            }
            Ok::<f64, String>(done as f64 / began.elapsed().as_nanos() as f64)
        };
        let together = thread::scope(|scope| {
            let connections = self.others.iter_mut().take(clients as usize);
            let threads: Vec<_> =
                (0..).zip(connections).map(|(number, connection)| scope.spawn(move || client(number, connection))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err("a client panicked".into())))
                .sum::<std::result::Result<f64, String>>()
        });
        Ok(vec![1.0 / together?])
    }

    fn set_batch(&mut self, plan: Plan) -> Result<Vec<f64>> {
        let value = value(SMALL);
        let name = DataSet::Dict64.name().as_bytes();
        let mut indices = Indices::below(ENTRIES);
        plan.time(|| {
            self.connection.queue(&[b"MULTI"]);
            for _ in 0..BATCH {
                self.connection.queue(&[b"HSET", name, &indices.next_key().to_le_bytes(), &value]);
            }
            self.connection.queue(&[b"EXEC"]);
            self.connection.flush()?;
            // +OK for MULTI, +QUEUED for each set.
            for _ in 0..=BATCH {
                self.expect(Reply::Status)?;
            }
            self.expect(Reply::Array(BATCH as usize))
        })
    }

    fn iterate(&mut self, plan: Plan) -> Result<Vec<f64>> {
        plan.time(|| {
            let reply = self.connection.call(&[b"HGETALL", DataSet::Dict64.name().as_bytes()], touch)?;
            if reply == Reply::Array(2 * ENTRIES as usize) { Ok(()) } else { Err(format!("HGETALL answered {reply:?}").into()) }
        })
    }

    fn snapshot(&mut self, plan: Plan) -> Result<Vec<f64>> {
        let mut indices = Indices::below(ENTRIES);
        plan.time(|| {
            let mut copy: HashMap<u64, Vec<u8>> = HashMap::with_capacity(ENTRIES as usize);
            let mut pending = None;
            self.connection.call(&[b"HGETALL", DataSet::Dict64.name().as_bytes()], |bytes| match pending.take() {
                None => pending = <[u8; 8]>::try_from(bytes).ok().map(u64::from_le_bytes),
                Some(key) => {
                    copy.insert(key, bytes.to_vec());
                }
            })?;
            touch(copy.get(&indices.next_key()).ok_or("a key is not in the copy")?);
            Ok(())
        })
    }

    fn push(&mut self, plan: Plan) -> Result<Vec<f64>> {
        let value = value(SMALL);
        self.connection.call(&[b"DEL", b"pushed"], |_| {})?;
        plan.time(|| self.connection.call(&[b"RPUSH", b"pushed", &value], |_| {}).map(|_| ()))
    }

    fn list_get(&mut self, plan: Plan) -> Result<Vec<f64>> {
        let mut indices = Indices::below(ENTRIES);
        plan.time(|| {
            let index = indices.next_index().to_string();
            found(self.connection.call(&[b"LINDEX", DataSet::List64.name().as_bytes(), index.as_bytes()], touch)?)
        })
    }

    fn echo(&mut self, plan: Plan) -> Result<Vec<f64>> {
        let value = value(SMALL);
        plan.time(|| found(self.connection.call(&[b"ECHO", &value], touch)?))
    }

    fn queue(&mut self, row: Row, plan: Plan) -> Result<Vec<f64>> {
        self.connection.call(&[b"DEL", THERE, BACK], |_| {})?;
        let start = |role: &str| Partner::start(&[role.to_owned(), self.socket.display().to_string()]);
        if let Some(pause) = row.pause_ns() {
            let _partner = start("redis_echo")?;
            let small = value(SMALL);
            return plan.with_pauses(pause).time(|| {
                self.connection.call(&[b"RPUSH", THERE, &small], |_| {})?;
                self.connection.call(&[b"BLPOP", BACK, b"0"], touch).map(|_| ())
            });
        }
        let (bytes, senders, receivers) = row.crowd().ok_or("not a row about queues")?;
        let roles = std::iter::repeat_n("redis_receiver", receivers).chain(std::iter::repeat_n("redis_sender", senders - 1));
        let _partners = roles.map(start).collect::<Result<Vec<_>>>()?;
        let item = value(bytes);
        plan.time(|| self.connection.call(&[b"RPUSH", THERE, &item], |_| {}).map(|_| ()))
    }

    fn echo_100(&mut self, plan: Plan) -> Result<Vec<f64>> {
        let value = value(SMALL);
        plan.time(|| {
            (0..OBJECTS).for_each(|_| self.connection.queue(&[b"ECHO", &value]));
            self.connection.flush()?;
            (0..OBJECTS).try_for_each(|_| found(self.connection.reply(touch)?))
        })
    }

    /// An update, while somebody else does the same all the time.
    fn update(&mut self, plan: Plan, update: fn(&mut Connection) -> Result<()>) -> Result<Vec<f64>> {
        let Redis { connection, rival, .. } = self;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let rival = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    update(rival).map_err(|error| error.to_string())?;
                }
                Ok::<(), String>(())
            });
            let times = plan.time(|| update(connection));
            stop.store(true, Ordering::Relaxed);
            rival.join().map_err(|_| "the rival has panicked")??;
            times
        })
    }

    fn used_bytes(&mut self) -> Result<f64> {
        let mut text = String::new();
        self.connection.call(&[b"INFO", b"memory"], |bytes| text = String::from_utf8_lossy(bytes).into_owned())?;
        let used = text.lines().find_map(|line| line.strip_prefix("used_memory:")).ok_or("INFO has no used_memory")?;
        Ok(used.trim().parse()?)
    }

    fn bytes_per_entry(&mut self) -> Result<Vec<f64>> {
        let before = self.used_bytes()?;
        self.fill("bytes_per_entry", &Indices::shuffled(ENTRIES), &value(SMALL))?;
        let after = self.used_bytes()?;
        self.connection.call(&[b"DEL", b"bytes_per_entry"], |_| {})?;
        Ok(vec![(after - before) / ENTRIES as f64])
    }
}

impl System for Redis {
    fn has(&self, row: Row) -> bool {
        !matches!(row, Row::ProcessSpawnJoin | Row::PipeRoundTrip)
            && !row.is_about_pools()
            && !row.is_about_locks()
            && !row.is_about_memory()
    }

    fn prepare(&mut self, data: DataSet) -> Result<()> {
        let (count, bytes) = data.shape();
        let value = value(bytes);
        if data != DataSet::List64 {
            return self.fill(data.name(), &Indices::shuffled(count), &value);
        }
        for _ in 0..count {
            self.connection.queue(&[b"RPUSH", data.name().as_bytes(), &value]);
        }
        self.connection.flush()?;
        for length in 1..=count {
            self.expect(Reply::Integer(length as i64))?;
        }
        Ok(())
    }

    fn run(&mut self, row: Row, plan: Plan) -> Result<Vec<f64>> {
        match row {
            Row::DictGet64 => self.get(DataSet::Dict64, ENTRIES, plan),
            Row::DictGet1k => self.get(DataSet::Dict1k, ENTRIES_1K, plan),
            Row::DictGet1m => self.get(DataSet::Dict1m, ENTRIES_1M, plan),
            Row::DictSet64 | Row::DictSet64Socket => self.set(DataSet::Dict64, plan),
            Row::DictSet64By2 | Row::DictSet64By8 => self.set_together(row.clients().ok_or("a row of no clients")?),
            Row::DictSet64Stream => self.set_stream(plan),
            Row::ListPush64Stream => self.push_stream(plan),
            Row::SessionBytes | Row::LaneBytes => Ok(vec![self.connection_bytes]),
            Row::DictSet64Thinking
            | Row::DictSet64OneCore
            | Row::DictSet64SocketOneCore
            | Row::DictSet64Cpu
            | Row::ListPush64Thinking
            | Row::IdleCpu => Err("another row's work, or none".into()),
            Row::DictSet1m => self.set(DataSet::Dict1m, plan),
            Row::DictSetBatch10k => self.set_batch(plan),
            Row::DictIterate100k => self.iterate(plan),
            Row::ListPush64 => self.push(plan),
            Row::ListGet => self.list_get(plan),
            Row::Snapshot => self.snapshot(plan),
            Row::BytesPerEntry => self.bytes_per_entry(),
            Row::ManagerStart => start(plan),
            Row::MethodCall64 => self.echo(plan),
            Row::MethodCall100 => self.echo_100(plan),
            Row::UpdateRun => self.update(plan, run_script),
            Row::UpdateTransaction => self.update(plan, transaction),
            Row::LockUncontended | Row::LockContended | Row::EventWake | Row::BarrierWake => Err("there are no locks here".into()),
            Row::ArrayGet | Row::ArraySet | Row::ArrayFetchAdd | Row::CounterAdd | Row::CounterAddContended => {
                Err("there is no raw memory here".into())
            }
            Row::ProcessSpawnJoin => Err("it starts no processes".into()),
            _ => self.queue(row, plan),
        }
    }

    fn processes(&self) -> Vec<u32> {
        vec![self.server.process()]
    }
}

/// A partner's life: receives what comes.
pub fn receive_for_ever(socket: &Path, ready: impl FnOnce()) -> Result<()> {
    let mut connection = Connection::open(socket)?;
    ready();
    loop {
        connection.call(&[b"BLPOP", THERE, b"0"], touch)?;
    }
}

/// A partner's life: sends.
pub fn send_for_ever(socket: &Path, ready: impl FnOnce()) -> Result<()> {
    let mut connection = Connection::open(socket)?;
    let small = value(SMALL);
    ready();
    loop {
        connection.call(&[b"RPUSH", THERE, &small], |_| {})?;
    }
}

/// A partner's life: sends back what comes.
pub fn echo_for_ever(socket: &Path, ready: impl FnOnce()) -> Result<()> {
    let mut connection = Connection::open(socket)?;
    let mut item = Vec::new();
    ready();
    loop {
        connection.call(&[b"BLPOP", THERE, b"0"], |bytes| item = bytes.to_vec())?;
        connection.call(&[b"RPUSH", BACK, &item], |_| {})?;
    }
}

fn found(reply: Reply) -> Result<()> {
    if reply == Reply::Bulk { Ok(()) } else { Err(format!("redis answered {reply:?} instead of a value").into()) }
}

const NUMBER: &[u8] = b"number";

fn run_script(connection: &mut Connection) -> Result<()> {
    let script = b"return redis.call('SET', KEYS[1], (redis.call('GET', KEYS[1]) or 0) + 1)";
    connection.call(&[b"EVAL", script, b"1", NUMBER], |_| {}).map(|_| ())
}

fn transaction(connection: &mut Connection) -> Result<()> {
    loop {
        connection.call(&[b"WATCH", NUMBER], |_| {})?;
        let mut number = 0u64;
        connection.call(&[b"GET", NUMBER], |bytes| number = String::from_utf8_lossy(bytes).parse().unwrap_or(0))?;
        connection.queue(&[b"MULTI"]);
        connection.queue(&[b"SET", NUMBER, (number + 1).to_string().as_bytes()]);
        connection.queue(&[b"EXEC"]);
        connection.flush()?;
        connection.reply(|_| {})?;
        connection.reply(|_| {})?;
        if connection.reply(|_| {})? != Reply::Nil {
            return Ok(());
        }
    }
}

fn start(plan: Plan) -> Result<Vec<f64>> {
    let value = value(SMALL);
    plan.time_starts(|| {
        let mut redis = Redis::start()?.ok_or("redis-server is gone")?;
        redis.connection.call(&[b"HSET", b"first", &key(1).to_le_bytes(), &value], |_| {})?;
        Ok(redis)
    })
}
