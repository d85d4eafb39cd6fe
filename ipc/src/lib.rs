//! What two processes of commonhold must agree on: memory layouts, the wire protocol, type fingerprints, and every system call.
#![deny(missing_docs)]

pub mod auth;
pub mod error;
pub mod fork;
pub mod handshake;
pub mod limits;
pub mod liveness;
pub mod runtime;
pub mod socket;
pub mod sys;
pub mod value;
