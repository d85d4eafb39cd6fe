//! Input into chunks: as many at a time as there is room for, and no item before that.

use super::frames::{FRAMES_BYTES_MAX, Packing};
use super::job::Job;
use super::owner::{Arguments, Chunk, Owner};
use commonhold_ipc::error::Error;
use commonhold_ipc::pool::{CALLS_MAX, WINDOW_BYTES};
use commonhold_ipc::value::Shared;
use std::iter::Fuse;
use std::sync::Arc;

/// How many calls go into a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) enum Size {
    /// So many.
    Fixed(u64),
    /// The longer the input turns out to be, the more: for so many workers.
    Growing(u64),
}

impl Size {
    /// For an input of this length, if that is known: each of the workers gets about four chunks.
    pub(super) fn of(hint: (usize, Option<usize>), workers: usize) -> Size {
        match hint {
            (least, Some(most)) if least == most => Size::Fixed((least as u64).div_ceil(4 * workers.max(1) as u64)),
            _ => Size::Growing(workers as u64),
        }
    }

    fn after(self, fed: u64) -> u64 {
        match self {
            Size::Fixed(size) => size,
            Size::Growing(workers) => fed / (16 * workers.max(1)),
        }
    }
}

/// An input, and how far it is.
pub(super) struct Feeder<I: Iterator> {
    items: Fuse<I>,
    size: Size,
    /// Items that were taken out of it.
    pub(super) fed: u64,
    pub(super) ended: bool,
}

/// What came out of an input: a chunk, if it is not empty; an item that cannot be passed on, by its number.
pub(super) type Fed = (Option<Chunk>, Option<(u64, Error)>);

impl<I: Iterator<Item: Shared>> Feeder<I> {
    pub(super) fn new(items: I, size: Size) -> Self {
        Feeder { items: items.fuse(), size, fed: 0, ended: false }
    }

    /// The next chunk, of at most so many items.
    pub(super) fn next(&mut self, owner: &Owner, job: &Arc<Job>, most: u64) -> Fed {
        let size = self.size.after(self.fed).clamp(1, u64::from(CALLS_MAX)).min(most);
        let (first, mut packing, mut calls, mut failure) = (self.fed, Packing::default(), 0, None);
        while u64::from(calls) < size && packing.bytes.len() + FRAMES_BYTES_MAX <= WINDOW_BYTES {
            let Some(item) = self.items.next() else {
                self.ended = true;
                break;
            };
            self.fed += 1;
            if let Err(error) = packing.add(&item, &mut Arguments(owner)) {
                failure = Some((self.fed - 1, error));
                break;
            }
            calls += 1;
        }
        let chunk = Chunk { job: job.clone(), first, calls, over: 0, attempts: 0, packing };
        if calls > 0 {
            return (Some(chunk), failure);
        }
        owner.let_go([chunk]);
        (None, failure)
    }
}
