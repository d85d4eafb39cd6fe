//! What two processes of commonhold must agree on: memory layouts, the wire protocol, type fingerprints, and every system call.
//!
//! Part of [commonhold](https://docs.rs/commonhold); not meant to be used by itself.
#![deny(missing_docs)]

pub mod arena;
pub mod array;
pub mod auth;
pub mod block;
pub mod boot;
pub mod bytes;
pub mod catalog;
pub mod error;
pub mod fork;
pub mod handshake;
pub mod index;
pub mod lane;
pub mod leash;
pub mod limits;
pub mod line;
pub mod liveness;
pub mod map;
#[cfg(feature = "shared-memory")]
pub mod named;
pub mod pin;
pub mod points;
pub mod poller;
pub mod pool;
pub mod queue;
pub mod runtime;
pub mod segment;
pub mod sequence;
pub mod socket;
pub mod striped;
pub mod sync;
pub mod sys;
pub mod task;
pub mod value;
pub mod wire;
