//! What Python's `multiprocessing` gives a Python program, for Rust: shared lists and dicts in a manager process, read in place
//! at memory speed, safe against the death of any process at any instruction.
//!
//! ```
//! use commonhold::Manager;
//!
//! fn main() -> commonhold::Result<()> {
//!     commonhold::init();                                  // first line of every main: processes that we start begin here
//!     let manager = Manager::start()?;                     // a process of its own; it ends with us, however we end
//!     let list = manager.list((0..10).map(|i| i * i))?;    // a List<i32>
//!     assert_eq!(list.to_string(), "[0, 1, 4, 9, 16, 25, 36, 49, 64, 81]");
//!     assert_eq!(*list.get(4)?.unwrap(), 16);              // read in place
//!     assert_eq!(list.slice(2..5)?, [4, 9, 16]);
//!     Ok(())
//! }
//! ```
//!
//! - A **manager** is a process that owns shared containers. [`Manager::start`] makes one that belongs to this program,
//!   [`Manager::open_or_start`] finds or makes one by name, which outlives it and serves unrelated programs.
//! - **Containers**: [`Dict`], [`List`], [`Value`], [`Counter`], [`Namespace`], of any type that is [`Shared`]. The handles on
//!   them are values: clone them, store them in other containers, send their [`Token`] to another program.
//! - **Reading** costs no call: a guard ([`Ref`]) or a [`Snapshot`] holds one version in place, and writers never wait for
//!   readers, nor readers for writers.
//! - **Writing** is a call to the manager, atomic by itself; [`Session::batch`] and [`Session::transaction`] make several
//!   writes one, and a [`Writer`] waits for no answer until it is flushed.
//! - **Processes**: [`Process::spawn`] runs a function of this program in a process of its own, with values and handles as arguments
//!   and result; a [`Supervisor`] starts it again when it dies; a [`Pool`] keeps workers for many calls.
//!
//! The [`guide`] goes through all of it, with a [translation table](guide::from_python) for those who know Python's module.
//!
//! What happens when a process dies: readers leave nothing behind; a writer's call is wholly applied or not at all; the
//! manager's death is an error ([`Error::is_disconnected`]) of every later call, while what guards and snapshots hold stays
//! readable.
//!
//! # Features
//!
//! None is on by default, and each is good for itself.
//! - `async`: what waits can be awaited, in any executor (`recv_async`, `send_async`, `wait_async`, `.await` on results: [`guide::queues`]).
//! - `shared-memory`: blocks of memory by name, which other programs open as well, such as Python's `SharedMemory` ([`guide::raw_memory`]).
#![deny(missing_docs)]
extern crate self as commonhold;

mod boot;
mod builder;
#[cfg(any(doc, doctest))]
pub mod guide;
mod host;
mod init;
mod manager;
mod started;

pub use builder::ManagerBuilder;
pub use commonhold_ipc::error::{Error, ErrorKind, Result};
pub use commonhold_ipc::sys::{ResourceLimit, Stream};
pub use commonhold_ipc::value::{Any, Archived, ArchivedAny, AsShared, Key, Number, Plain, Shared};
pub use commonhold_macros::{Key, Plain, Shared, remote};
#[cfg(feature = "shared-memory")]
pub use commonhold_proxy::SharedMemory;
pub use commonhold_proxy::process::{
    ChildProcess, ChildSpec, ChildrenGuard, CurrentProcess, Outcome, ParentProcess, Process, ProcessBuilder, Restart, RestartStrategy,
    Supervisor, SupervisorEvent, SupervisorStopper, Task, active_children, cpu_count, current_process, join_children, parent_process,
};
pub use commonhold_proxy::remote::{Constructed, Logic, ObjectInfo, Pending, Remote, SessionInfo};
pub use commonhold_proxy::{
    Acquired, Array, ArrayContent, ArrayIter, AsyncResult, Barrier, Batch, Bits, BoundedSemaphore, ByteBlock, BytesCursor, Condition,
    Connection, Countable, Counter, DeadLetters, Dict, DictAt, DictIter, Event, Handle, Imap, InitializerResult, Lease, List, ListAt,
    ListIter, Lock, LockGuard, Namespace, Party, Permit, PipeOptions, PipeReceiver, PipeSender, Pool, PoolBuilder, Progress, Queue,
    QueueIter, QueueOptions, RLock, RLockGuard, ReadGuard, Readable, Ref, RwLock, Semaphore, SendError, Session, SharedBytes, Slice,
    Snapshot, Stats, StripedCounter, Token, Transaction, Value, View, Waitable, Watch, WriteGuard, Writer, wait,
};
pub use init::init;
pub use manager::{Manager, current_manager, list_managers};

/// The programs of the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

/// What the derive macros' output refers to. Not for use by hand.
#[doc(hidden)]
pub mod __rt {
    pub use commonhold_ipc::value::{
        ArchivedHandle, AsDebug, Check, Checker, De, Deserializer, Fault, Field, HandleSink, HandleSource, If, NumberKind, PlainReader,
        PlainWriter, Schema, Ser, Serializer, Then, access, add_number, fingerprint, need_key, need_plain, need_shared, plain_align,
        plain_end, text, to_owned, with_scratch,
    };
    pub use commonhold_proxy::__handle_value as handle_value;
    pub use commonhold_proxy::__rt::{Kind, Object, debug_handle};
    pub use commonhold_proxy::remote::{Access, Arguments, Caller, Incoming, Served, one_at_a_time, several_at_once};
    pub use rkyv;
}
