//! What a new object's segment holds, and what is done with it when a session ends: one function of each for each kind.

use commonhold_ipc::array;
use commonhold_ipc::catalog::Kind;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::{ARRAY_ELEMENT_BYTES_MAX, BARRIER_PARTIES_MAX, SEMAPHORE_PERMITS_MAX, SEMAPHORE_PERMITS_ROOM};
use commonhold_ipc::map::Segment;
use commonhold_ipc::queue::{Plan, Queue};
use commonhold_ipc::segment::{HEADER_BYTES, Shape};
use commonhold_ipc::striped;
use commonhold_ipc::sync::barrier::{self, BARRIER_BYTES, Barrier};
use commonhold_ipc::sync::condition::{CONDITION_BYTES, Condition};
use commonhold_ipc::sync::event::{EVENT_BYTES, Event};
use commonhold_ipc::sync::rwlock::{RWLOCK_BYTES, RwLock};
use commonhold_ipc::sync::semaphore::{self, ABSENT, SEMAPHORE_BYTES, Semaphore};
use commonhold_ipc::sync::{LOCK_BYTES, Lock};
use commonhold_ipc::sys;
use commonhold_ipc::wire::{Words, malformed};

const PAGE_BYTES: usize = 4096;
const _: () = assert!(HEADER_BYTES + RWLOCK_BYTES <= PAGE_BYTES && CONDITION_BYTES < RWLOCK_BYTES && EVENT_BYTES < LOCK_BYTES);

/// So many bytes behind the header, in whole pages.
fn shaped(bytes: usize, words: Vec<(usize, u64)>) -> Shape {
    let words = words.into_iter().map(|(at, word)| (HEADER_BYTES + at, word)).collect();
    Shape::whole((HEADER_BYTES + bytes).next_multiple_of(PAGE_BYTES) as u64, words)
}

/// What the segment of a new object is like.
pub fn shape(kind: Kind, parameters: Words<'_>) -> Result<Shape> {
    let given: Vec<u64> = parameters.iter().collect();
    match (kind, given.as_slice()) {
        (Kind::Lock | Kind::RLock, []) => Ok(shaped(LOCK_BYTES, Vec::new())),
        (Kind::RwLock, []) => Ok(shaped(RWLOCK_BYTES, Vec::new())),
        (Kind::Event, []) => Ok(shaped(EVENT_BYTES, Vec::new())),
        // The lock that it is used with, if that is an object of its own: see `Store::create`.
        (Kind::Condition, [] | [_]) => Ok(shaped(CONDITION_BYTES, Vec::new())),
        (Kind::Semaphore, [permits]) if *permits <= SEMAPHORE_PERMITS_MAX as u64 => {
            Ok(permits_shape(*permits as usize, (*permits as usize * 2).clamp(SEMAPHORE_PERMITS_ROOM, SEMAPHORE_PERMITS_MAX)))
        }
        (Kind::BoundedSemaphore, [permits]) if *permits <= SEMAPHORE_PERMITS_MAX as u64 => {
            Ok(permits_shape(*permits as usize, *permits as usize))
        }
        (Kind::Barrier, [parties]) if (1..=BARRIER_PARTIES_MAX as u64).contains(parties) => {
            Ok(shaped(BARRIER_BYTES + 8 * *parties as usize, vec![(barrier::PARTIES, *parties)]))
        }
        (Kind::Queue, words) => {
            let words = words.try_into().map_err(|_| malformed("description of a queue"))?;
            Ok(Plan::new(words)?.shape())
        }
        (Kind::Array, [elements, stride]) if (1..=ARRAY_ELEMENT_BYTES_MAX as u64).contains(stride) => block(kind, *elements, *stride),
        (Kind::SharedBytes, [bytes]) => block(kind, *bytes, 1),
        (Kind::StripedCounter, [first]) => Ok(striped::shape(sys::possible_cpus(), *first)),
        _ => Err(malformed("description of an object")),
    }
}

/// Elements side by side, behind a lock.
fn block(kind: Kind, elements: u64, stride: u64) -> Result<Shape> {
    array::shape(elements, stride).ok_or_else(|| {
        let text = format!(
            "{elements} elements of {stride} bytes cannot be in one {}: 64 bits cannot count their bytes; ask for less",
            kind.name()
        );
        Error::new(ErrorKind::TooLarge, text)
    })
}

/// So many permits that are free, and room for so many.
fn permits_shape(free: usize, room: usize) -> Shape {
    let absent = (free..room).map(|slot| (SEMAPHORE_BYTES + 8 * slot, ABSENT));
    let numbers = [(semaphore::PERMITS, room as u64), (semaphore::USED, free as u64)];
    shaped(SEMAPHORE_BYTES + 8 * room, numbers.into_iter().chain(absent).collect())
}

/// A session is over: what it had claimed in a segment is given back, or reported to the next who comes; who sleeps is woken.
/// `held`: it had not let the object go before.
pub fn recover(kind: Kind, segment: &Segment, session: u64, held: bool) {
    let slots = |before: usize| (segment.bytes() - HEADER_BYTES - before) / 8;
    match kind {
        Kind::Lock | Kind::RLock | Kind::Array | Kind::SharedBytes => Lock::new(segment, HEADER_BYTES).recover(session, |_| true),
        Kind::RwLock => RwLock::new(segment, HEADER_BYTES).recover(session),
        Kind::Event => Event::new(segment, HEADER_BYTES).recover(session),
        Kind::Condition => {
            Lock::new(segment, HEADER_BYTES).recover(session, |_| true);
            Condition::new(segment, HEADER_BYTES).recover(session);
        }
        // What says nonsense about itself is an error to all who use it.
        Kind::Semaphore | Kind::BoundedSemaphore => {
            if let Ok(semaphore) = Semaphore::new(segment, HEADER_BYTES, slots(SEMAPHORE_BYTES)) {
                semaphore.recover(session);
            }
        }
        Kind::Barrier => {
            if let Ok(barrier) = Barrier::new(segment, HEADER_BYTES, slots(BARRIER_BYTES)) {
                barrier.recover(session, held);
            }
        }
        Kind::Queue => {
            if let Ok(plan) = Plan::of(segment, segment.bytes()) {
                Queue::new(segment, &plan).recover(session);
            }
        }
        // Nothing in it is anybody's.
        Kind::StripedCounter => {}
        Kind::Dict | Kind::List | Kind::Value | Kind::Namespace | Kind::Counter | Kind::SharedMemory | Kind::Remote | Kind::PipeEnd => {}
    }
}
