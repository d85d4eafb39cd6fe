//! What only the owner of commonhold's shared memory does: allocate, write, commit, reclaim, serve.
//!
//! Part of [commonhold](https://docs.rs/commonhold); not meant to be used by itself.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod allocator;
mod audit;
pub mod catalog;
pub mod demolition;
pub mod index;
pub mod memory;
pub mod objects;
mod pipes;
mod queue_memory;
pub mod recovery;
pub mod segments;
pub mod sequence;
pub mod server;
pub mod store;
pub mod upload;
pub mod watch;
mod work;
