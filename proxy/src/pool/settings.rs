//! How a pool is: what its builder was told, and its owner and keeper go by.

use super::frames::Packing;
use super::worker::Initializer;
use std::ffi::OsString;
use std::time::Duration;

/// The initializer, ready to be told to workers, and what its arguments need.
pub(super) struct FirstCall {
    pub(super) function: u64,
    pub(super) name: u64,
    pub(super) packing: Packing,
}

impl FirstCall {
    pub(super) fn orders(&self) -> Initializer {
        (self.function, self.name, self.packing.bytes.clone())
    }
}

/// How a pool is.
pub(super) struct Settings {
    pub(super) name: String,
    pub(super) initializer: Option<FirstCall>,
    pub(super) calls_most: Option<u64>,
    pub(super) retries: u32,
    pub(super) time_limit: Option<Duration>,
    pub(super) chunk_size: Option<u64>,
    pub(super) look_ahead: Option<u64>,
    pub(super) cpus: Option<Vec<u32>>,
    pub(super) one_cpu_each: bool,
    pub(super) environment: Vec<(OsString, OsString)>,
}
