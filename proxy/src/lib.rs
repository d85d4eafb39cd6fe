//! What only a client of commonhold does: connections, typed handles, guards.
//!
//! Part of [commonhold](https://docs.rs/commonhold); not meant to be used by itself.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod array;
#[cfg(feature = "async")]
mod awaiting;
mod batch;
mod client;
mod connection;
mod dict;
mod difference;
mod gate;
mod guard;
mod handle;
mod inside;
mod interfaces;
mod lane;
mod list;
#[cfg(feature = "shared-memory")]
mod named;
mod panics;
mod patience;
mod payload;
mod pipe;
mod pool;
pub mod process;
mod queue;
pub mod remote;
mod request;
mod retry;
mod room;
mod seen;
mod session;
mod single;
mod snapshot;
mod striped;
mod sync;
mod transaction;
mod unpoisoned;
mod upload;
mod wait;
mod watch;
mod write;
mod writer;

pub use array::{Array, ArrayContent, ArrayIter, Bits, ByteBlock, BytesCursor, SharedBytes};
pub use batch::{Batch, Countable};
pub use client::Stats;
pub use dict::{Dict, Iter as DictIter};
pub use guard::{Ref, View};
pub use handle::{Handle, Token};
pub use list::{Iter as ListIter, List, Slice};
#[cfg(feature = "shared-memory")]
pub use named::SharedMemory;
pub use pipe::{Connection, PipeOptions, PipeReceiver, PipeSender};
pub use pool::{AsyncResult, Imap, InitializerResult, Pool, PoolBuilder, Progress, Watch};
pub use queue::{DeadLetters, Lease, Queue, QueueIter, QueueOptions, SendError};
pub use session::Session;
pub use single::{Counter, Namespace, Value};
pub use snapshot::{DictAt, ListAt, Snapshot};
pub use striped::StripedCounter;
pub use sync::{
    Acquired, Barrier, BoundedSemaphore, Condition, Event, Lock, LockGuard, Party, Permit, RLock, RLockGuard, ReadGuard, RwLock, Semaphore,
    WriteGuard,
};
pub use transaction::{Readable, Transaction};
pub use wait::{Waitable, wait};
pub use writer::Writer;

/// What `__handle_value!` refers to.
#[doc(hidden)]
pub mod __rt {
    pub use crate::handle::{Object, debug as debug_handle, same_object, shown};
    pub use commonhold_ipc::catalog::Kind;
    pub use commonhold_ipc::value::{ArchivedHandle, HandleSink, HandleSource, Schema, Shared};
    pub use rkyv;
}
