//! What a new object's segment holds, and what is done with it when a session ends: one function of each for each kind.

use commonhold_ipc::catalog::Kind;
use commonhold_ipc::error::Result;
use commonhold_ipc::map::Segment;
use commonhold_ipc::segment::{HEADER_BYTES, Shape};
use commonhold_ipc::sync::Lock;
use commonhold_ipc::wire::{Words, malformed};

/// What fits into it takes a page anyway.
const PAGE_BYTES: u64 = 4096;

/// What the segment of a new object is like.
pub fn shape(kind: Kind, parameters: Words<'_>) -> Result<Shape> {
    match kind {
        Kind::Lock if parameters.is_empty() => Ok(Shape { bytes: PAGE_BYTES, words: Vec::new() }),
        _ => Err(malformed("description of an object")),
    }
}

/// A session is over: what it had claimed in a segment is given back, or reported to the next who comes; who sleeps is woken.
pub fn recover(kind: Kind, segment: &Segment, session: u64) {
    match kind {
        Kind::Lock => Lock::new(segment, HEADER_BYTES).recover(session),
        Kind::Dict | Kind::List | Kind::Value | Kind::Namespace | Kind::Counter => {}
    }
}
