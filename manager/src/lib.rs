//! What only the owner of commonhold's shared memory does: allocate, write, commit, reclaim, serve.
//!
//! Part of [commonhold](https://docs.rs/commonhold); not meant to be used by itself.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod allocator;
mod audit;
pub mod catalog;
pub mod demolition;
mod dicts;
pub mod index;
mod lists;
pub mod memory;
mod names;
pub mod objects;
pub mod parcels;
mod pipes;
pub mod recovery;
pub mod segments;
pub mod sequence;
pub mod server;
pub mod store;
pub mod upload;
mod values;
pub mod watch;
mod work;
