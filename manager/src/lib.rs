//! What only the owner of the shared memory does.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod allocator;
