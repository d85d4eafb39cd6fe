//! What a new object's segment holds, and what is done with it when a session ends: one function of each for each kind.

use commonhold_ipc::catalog::Kind;
use commonhold_ipc::error::Result;
use commonhold_ipc::map::Segment;
use commonhold_ipc::queue::{Plan, Queue};
use commonhold_ipc::segment::{HEADER_BYTES, Shape};
use commonhold_ipc::sync::Lock;
use commonhold_ipc::wire::{Words, malformed};

/// What fits into it takes a page anyway.
const PAGE_BYTES: u64 = 4096;

/// What the segment of a new object is like.
pub fn shape(kind: Kind, parameters: Words<'_>) -> Result<Shape> {
    match kind {
        Kind::Lock if parameters.is_empty() => Ok(Shape::whole(PAGE_BYTES, Vec::new())),
        Kind::Queue => {
            let words: Vec<u64> = parameters.iter().collect();
            Ok(Plan::new(words.try_into().map_err(|_| malformed("description of a queue"))?)?.shape())
        }
        _ => Err(malformed("description of an object")),
    }
}

/// A session is over: what it had claimed in a segment is given back, or reported to the next who comes; who sleeps is woken.
pub fn recover(kind: Kind, segment: &Segment, session: u64) {
    match kind {
        Kind::Lock => Lock::new(segment, HEADER_BYTES).recover(session),
        Kind::Queue => {
            // Scribbled over, it is nobody's any more.
            if let Ok(plan) = Plan::of(segment, segment.bytes()) {
                Queue::new(segment, &plan).recover(session);
            }
        }
        Kind::Dict | Kind::List | Kind::Value | Kind::Namespace | Kind::Counter => {}
    }
}
