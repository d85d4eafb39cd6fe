//! What is measured: the rows of the table, the systems, and the data each row works on.
//!
//! Row and system names are those of the JSON lines, so they stay as they are once published. The doc comment of a row is its line in `--list`
//! and in `--help`.
use std::time::Duration;

use clap::ValueEnum;

/// Small entries in a dict, and elements in a list.
pub const ENTRIES: u64 = 100_000;
/// Entries of the dict of 1 KiB values.
pub const ENTRIES_1K: u64 = 10_000;
/// Entries of the dict of 1 MiB values.
pub const ENTRIES_1M: u64 = 16;
/// Sets in one transaction of `dict_set_batch_10k`.
pub const BATCH: u64 = 10_000;
/// Size of a small value and of a list's element.
pub const SMALL: usize = 64;
/// Objects that are called at once.
pub const OBJECTS: usize = 100;
/// Elements of an array.
pub const ELEMENTS: u64 = 1000;
/// How long several clients work at the same time.
pub const TOGETHER: Duration = Duration::from_millis(300);
/// Sessions, threads or connections whose memory is measured together.
pub const EACH: usize = 16;
/// Items that may wait in a queue.
pub const DEPTH: usize = 128;
/// Pushes between two clearings of the list of `list_push_64`, so that it cannot eat the machine's memory.
const PUSHES_MAX: u64 = 200_000;

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Row {
    /// Read a 64-byte value of 100,000 by a random 8-byte key; its first and last byte are looked at
    #[value(name = "dict_get_64")]
    DictGet64,
    /// Read a 1 KiB value of 10,000; first and last byte
    #[value(name = "dict_get_1k")]
    DictGet1k,
    /// Read a 1 MiB value of 16; first and last byte
    #[value(name = "dict_get_1m")]
    DictGet1m,
    /// Overwrite a 64-byte value of 100,000; one commit each
    #[value(name = "dict_set_64")]
    DictSet64,
    /// dict_set_64 with 20 µs of the caller's own work between two calls; the call alone is on the clock, and a reading of it (25 to 50 ns)
    #[value(name = "dict_set_64_thinking")]
    DictSet64Thinking,
    /// dict_set_64 with caller and server on one processor
    #[value(name = "dict_set_64_one_core")]
    DictSet64OneCore,
    /// dict_set_64 by the socket alone, without lanes (for the others as before)
    #[value(name = "dict_set_64_socket")]
    DictSet64Socket,
    /// The same with caller and server on one processor
    #[value(name = "dict_set_64_socket_one_core")]
    DictSet64SocketOneCore,
    /// dict_set_64 by 2 client processes at once (2 threads of one, with Redis): time divided by the sets of both
    #[value(name = "dict_set_64_by_2")]
    DictSet64By2,
    /// dict_set_64 by 8 at once
    #[value(name = "dict_set_64_by_8")]
    DictSet64By8,
    /// Processor time of caller and server for a dict_set_64: 1 µs is one second for a million calls
    #[value(name = "dict_set_64_cpu")]
    DictSet64Cpu,
    /// Overwrite 64-byte values one after the other without waiting for each answer (a Writer; pipelines of 128), still one commit each
    #[value(name = "dict_set_64_stream")]
    DictSet64Stream,
    /// Overwrite a 1 MiB value of 16; one commit each
    #[value(name = "dict_set_1m")]
    DictSet1m,
    /// 10,000 sets of 64-byte values in one batch, all or nothing
    #[value(name = "dict_set_batch_10k")]
    DictSetBatch10k,
    /// Go through all 100,000 entries, looking at each key and value
    #[value(name = "dict_iterate_100k")]
    DictIterate100k,
    /// Append a 64-byte element to a list
    #[value(name = "list_push_64")]
    ListPush64,
    /// list_push_64 with 20 µs of the caller's own work between two calls
    #[value(name = "list_push_64_thinking")]
    ListPush64Thinking,
    /// Append 64-byte elements one after the other without waiting for each answer (a Writer; pipelines of 128)
    #[value(name = "list_push_64_stream")]
    ListPush64Stream,
    /// Read a 64-byte element of a list of 100,000 by a random index
    #[value(name = "list_get")]
    ListGet,
    /// Take one consistent view of a dict of 100,000, read one value of it, let it go (a full copy where there are no snapshots)
    #[value(name = "snapshot")]
    Snapshot,
    /// Memory per entry of a dict of 100,000: 8-byte key, 64-byte value
    #[value(name = "bytes_per_entry")]
    BytesPerEntry,
    /// Processor time that server and client use in a second in which nothing is asked (over 10 seconds; with --quick over one)
    #[value(name = "idle_cpu")]
    IdleCpu,
    /// Memory that one more client process with a session costs, beside its own (with Redis and Python: one more connection)
    #[value(name = "session_bytes")]
    SessionBytes,
    /// Memory that one more calling thread costs, beside its own (with Redis and Python: one more connection)
    #[value(name = "lane_bytes")]
    LaneBytes,
    /// Take a free lock and give it back
    #[value(name = "lock_uncontended")]
    LockUncontended,
    /// The same while another process does nothing else
    #[value(name = "lock_contended")]
    LockContended,
    /// Set an event for which another process waits, and wait for the one that it sets in answer: two wake-ups
    #[value(name = "event_wake")]
    EventWake,
    /// Pass a barrier of two processes
    #[value(name = "barrier_wake")]
    BarrierWake,
    /// Send 64 bytes into a queue of 128 that another process empties (another thread, for what stays in one process), copied out there
    #[value(name = "queue_64")]
    Queue64,
    /// The same with 4 KiB
    #[value(name = "queue_4k")]
    Queue4k,
    /// The same with 1 MiB; first and last byte are looked at
    #[value(name = "queue_1m")]
    Queue1m,
    /// Send 64 bytes into such a queue while three other processes send as well, and one receives
    #[value(name = "queue_4_to_1")]
    Queue4To1,
    /// The same: one sends, four receive
    #[value(name = "queue_1_to_4")]
    Queue1To4,
    /// The same: four send, four receive
    #[value(name = "queue_4_to_4")]
    Queue4To4,
    /// Send 64 bytes to another process and get them back through a second queue, one after the other: two hand-overs, both sides awake
    #[value(name = "queue_round_trip")]
    QueueRoundTrip,
    /// The same with 200 µs between two, in which the other process falls asleep
    #[value(name = "queue_wake")]
    QueueWake,
    /// Send 64 bytes through a pipe to another process and get them back, one after the other, both sides awake
    #[value(name = "pipe_round_trip")]
    PipeRoundTrip,
    /// Read a 64-bit number of an array of 1,000 by a random index
    #[value(name = "array_get")]
    ArrayGet,
    /// Overwrite one
    #[value(name = "array_set")]
    ArraySet,
    /// Add to one, so that no addition of others is lost
    #[value(name = "array_fetch_add")]
    ArrayFetchAdd,
    /// Add to a shared counter, so that no addition of others is lost
    #[value(name = "counter_add")]
    CounterAdd,
    /// The same while another process does nothing else (another thread, for what stays in one process)
    #[value(name = "counter_add_contended")]
    CounterAddContended,
    /// Start the manager (server; or environment) until its first write is answered
    #[value(name = "manager_start")]
    ManagerStart,
    /// Run a function with a number as argument in a process of its own, and wait for the process's end (and its result, but with Python)
    #[value(name = "process_spawn_join")]
    ProcessSpawnJoin,
    /// Have a pool's worker run a function with a number, and wait for its result
    #[value(name = "pool_task")]
    PoolTask,
    /// The same, with a result of 1 MiB; first and last byte are looked at
    #[value(name = "pool_task_1m")]
    PoolTask1m,
    /// Map a function that does next to nothing over 10,000 numbers, as the pool cuts them into chunks by itself
    #[value(name = "pool_map_10k")]
    PoolMap10k,
    /// The same, every number a task of its own
    #[value(name = "pool_map_10k_chunk1")]
    PoolMap10kChunk1,
    /// Map 64 pieces of real work (some 0.2 ms each) over a pool of as many workers as there are processors
    #[value(name = "pool_work")]
    PoolWork,
    /// The same over a pool of one worker: what the others are worth
    #[value(name = "pool_work_one")]
    PoolWorkOne,
    /// Start a pool of as many workers as there are processors, until it has done its first task
    #[value(name = "pool_start")]
    PoolStart,
    /// Call a method of an object in another process with 64 bytes, and get 64 bytes back (`ECHO`, or an echo, where there are no objects)
    #[value(name = "method_call_64")]
    MethodCall64,
    /// The same of each of 100 objects, all calls at once, until the last is answered (one pipeline of `ECHO`; 100 threads of Python)
    #[value(name = "method_call_100")]
    MethodCall100,
    /// Read a number and write it back one greater, as somebody else does all the time, by logic that runs beside the data (`EVAL`)
    #[value(name = "update_run")]
    UpdateRun,
    /// The same by an optimistic transaction (`WATCH`, `MULTI`, `EXEC`)
    #[value(name = "update_transaction")]
    UpdateTransaction,
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds per operation.
    Nanoseconds,
    /// Bytes.
    Bytes,
}

/// What a row works on. Filled once per system and kept for the rows after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataSet {
    /// [`ENTRIES`] entries of 64 bytes.
    Dict64,
    /// [`ENTRIES_1K`] entries of 1 KiB.
    Dict1k,
    /// [`ENTRIES_1M`] entries of 1 MiB.
    Dict1m,
    /// A list of [`ENTRIES`] elements of 64 bytes.
    List64,
}

impl DataSet {
    /// Number of entries and size of a value.
    pub fn shape(self) -> (u64, usize) {
        match self {
            DataSet::Dict64 | DataSet::List64 => (ENTRIES, SMALL),
            DataSet::Dict1k => (ENTRIES_1K, 1 << 10),
            DataSet::Dict1m => (ENTRIES_1M, 1 << 20),
        }
    }

    /// The name under which systems that need one keep it.
    pub fn name(self) -> &'static str {
        match self {
            DataSet::Dict64 => "dict_64",
            DataSet::Dict1k => "dict_1k",
            DataSet::Dict1m => "dict_1m",
            DataSet::List64 => "list_64",
        }
    }
}

impl Row {
    /// The row's name in JSON lines and on the command line.
    pub fn name(self) -> String {
        value_name(self)
    }

    /// One line on what is done.
    pub fn about(self) -> String {
        self.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }

    /// What its figures count.
    pub fn unit(self) -> Unit {
        match self {
            Row::BytesPerEntry | Row::SessionBytes | Row::LaneBytes => Unit::Bytes,
            _ => Unit::Nanoseconds,
        }
    }

    /// The data it needs before it is measured.
    pub fn data(self) -> Option<DataSet> {
        match self.work() {
            Row::DictSet64Socket | Row::DictSet64By2 | Row::DictSet64By8 | Row::DictSet64Stream => Some(DataSet::Dict64),
            Row::DictSet64Thinking | Row::DictSet64OneCore | Row::DictSet64SocketOneCore | Row::DictSet64Cpu | Row::ListPush64Thinking => {
                None
            }
            Row::ListPush64Stream | Row::IdleCpu | Row::SessionBytes | Row::LaneBytes => None,
            Row::DictGet64 | Row::DictSet64 | Row::DictSetBatch10k | Row::DictIterate100k | Row::Snapshot => Some(DataSet::Dict64),
            Row::DictGet1k => Some(DataSet::Dict1k),
            Row::DictGet1m | Row::DictSet1m => Some(DataSet::Dict1m),
            Row::ListGet => Some(DataSet::List64),
            _ => None,
        }
    }

    /// Of a row about passing items through a queue: bytes of an item, how many send, how many receive.
    pub fn crowd(self) -> Option<(usize, usize, usize)> {
        match self {
            Row::Queue64 => Some((SMALL, 1, 1)),
            Row::Queue4k => Some((4 << 10, 1, 1)),
            Row::Queue1m => Some((1 << 20, 1, 1)),
            Row::Queue4To1 => Some((SMALL, 4, 1)),
            Row::Queue1To4 => Some((SMALL, 1, 4)),
            Row::Queue4To4 => Some((SMALL, 4, 4)),
            _ => None,
        }
    }

    /// Of a row about there and back: the pauses between two, in nanoseconds.
    pub fn pause_ns(self) -> Option<u64> {
        match self {
            Row::QueueRoundTrip => Some(0),
            Row::QueueWake => Some(200_000),
            _ => None,
        }
    }

    /// Whether it is about queues.
    pub fn is_about_queues(self) -> bool {
        self.crowd().is_some() || self.pause_ns().is_some()
    }

    /// Whether it is about code that runs where the data is.
    pub fn is_about_methods(self) -> bool {
        matches!(self, Row::MethodCall64 | Row::MethodCall100 | Row::UpdateRun | Row::UpdateTransaction)
    }

    /// Whether it is about locks and their kin, which stores of data do not have.
    pub fn is_about_locks(self) -> bool {
        matches!(self, Row::LockUncontended | Row::LockContended | Row::EventWake | Row::BarrierWake)
    }

    /// Whether it is about pools of processes.
    pub fn is_about_pools(self) -> bool {
        use Row::{PoolMap10k, PoolMap10kChunk1, PoolStart, PoolTask, PoolTask1m, PoolWork, PoolWorkOne};
        matches!(self, PoolTask | PoolTask1m | PoolMap10k | PoolMap10kChunk1 | PoolWork | PoolWorkOne | PoolStart)
    }

    /// Whether it is about raw memory, which stores of data do not have.
    pub fn is_about_memory(self) -> bool {
        matches!(self, Row::ArrayGet | Row::ArraySet | Row::ArrayFetchAdd | Row::CounterAdd | Row::CounterAddContended)
    }

    /// Operations that may follow each other without a pause for cleaning up.
    pub fn operations_max(self) -> u64 {
        match self {
            Row::ListPush64 | Row::ListPush64Thinking | Row::ListPush64Stream => PUSHES_MAX,
            _ => u64::MAX,
        }
    }
}

impl Unit {
    /// As it stands in JSON lines.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Nanoseconds => "ns",
            Unit::Bytes => "B",
        }
    }
}

/// Whom we measure. The order is that of the table's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum SystemName {
    /// This project: a manager process of its own, used from this one
    Commonhold,
    /// hashbrown's map and a Vec behind a std RwLock, in this process: the ceiling, no sharing between processes
    Hashmap,
    /// crossbeam's bounded channel between two threads of this process: the ceiling for queues, no sharing between processes
    Crossbeam,
    /// ipc-channel, the crate: bytes over a local socket to another process
    IpcChannel,
    /// iceoryx2, the crate: publish-subscribe one way, request-response for calls; both sides look for what comes and never sleep
    Iceoryx2,
    /// Two connected local sockets, through std's UnixStream: the system's own pipe
    UnixStream,
    /// LMDB through heed, on tmpfs where there is room, WRITEMAP and NOSYNC; writer and reader are this process, one transaction per operation
    Lmdb,
    /// redis-server on a unix socket of its own, started and ended by this program, no persistence; HGET, HSET, LINDEX, RPUSH
    Redis,
    /// Python's multiprocessing.Manager() with its default start method, timed by Python in the manager's parent
    Python,
    /// Python's multiprocessing.Lock, Event, Barrier (semaphores of the system), Queue (a pipe and a feeder thread), Array and Value, without a manager
    PythonMp,
    /// raw_sync's mutex (not robust) and events in a mapped file
    RawSync,
    /// A robust process-shared mutex of the C library in a mapped file
    Pthread,
    /// rayon between threads of this process: the ceiling for pools, no sharing between processes
    Rayon,
    /// procspawn, the crate: processes and pools of them only
    Procspawn,
    /// Python's multiprocessing.Process by the method "spawn", a fresh interpreter: what ours does
    PythonSpawn,
    /// The same, and its Pool, by "fork": no new program is started, and locks that other threads hold stay locked
    PythonFork,
    /// The same by "forkserver": forked off a process that was started before
    PythonForkserver,
}

impl SystemName {
    /// The system's name in JSON lines and on the command line.
    pub fn name(self) -> String {
        value_name(self)
    }

    /// One line on what it is and how it is used.
    pub fn about(self) -> String {
        self.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }

    /// Whether it can have a part in a row.
    pub fn takes_part(self, row: Row) -> bool {
        !row.is_about_calls() || matches!(self, SystemName::Commonhold | SystemName::Redis | SystemName::Python)
    }

    /// Whether other processes can share its data: only those count as rivals.
    pub fn is_shared(self) -> bool {
        !matches!(self, SystemName::Hashmap | SystemName::Crossbeam | SystemName::Rayon)
    }
}

fn value_name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_shows_all_rows_in_their_order() {
        let readme = include_str!("../../../README.md");
        let table = readme.split_once("<!-- compare:begin -->").unwrap().1.split_once("<!-- compare:end -->").unwrap().0;
        let shown = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let rows = Row::value_variants().iter().map(|row| row.name());
        assert_eq!(shown.collect::<Vec<_>>(), rows.collect::<Vec<_>>(), "`compare --json` and `render` make the table again");
    }

    #[test]
    fn every_row_and_system_has_a_name_and_a_description() {
        for row in Row::value_variants() {
            assert!(!row.name().is_empty() && !row.about().is_empty(), "{row:?}");
            assert!(row.name().chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{row:?}");
        }
        for system in SystemName::value_variants() {
            assert!(!system.name().is_empty() && !system.about().is_empty(), "{system:?}");
        }
    }
}
