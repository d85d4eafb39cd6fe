//! How much work one commit may be.
//!
//! The manager does one commit after the other, so while it does one, everybody else waits. Each operation says in steps
//! what it will cost before it does it; when a commit has used up its steps, it fails like any other that cannot be done.
//! What is done in slices between requests (see `demolition`) does not count.

use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::{COMMIT_STEPS_MAX, FRAME_BYTES_MAX};

/// Keys of one hash that a look-up compares in one step.
pub const COLLISIONS_PER_STEP: u64 = 8;
/// Handles of a value that are counted in or out in one step.
pub const HANDLES_PER_STEP: u64 = 4;
/// Steps of a change in the middle of a list: all nodes on the way are read and written.
pub const MIDDLE_STEPS: u64 = 8;

/// Steps of building a list anew, beside one for each of its elements.
pub const REBUILD_STEPS: u64 = 16;
/// Elements that are put behind the last one of a list in one step. So that a whole frame of bytes, the smallest elements
/// there are, can be appended at once.
pub const APPENDED_PER_STEP: u64 = 4;

const _: () = assert!(FRAME_BYTES_MAX as u64 / APPENDED_PER_STEP <= COMMIT_STEPS_MAX);

/// The steps that the commit in the making has left.
pub struct Work {
    left: u64,
}

impl Work {
    /// All of them.
    pub fn new() -> Self {
        Work { left: COMMIT_STEPS_MAX }
    }

    /// How many have been used up.
    pub fn spent(&self) -> u64 {
        COMMIT_STEPS_MAX - self.left
    }

    /// Uses up some; an error if that many are not left.
    #[inline]
    pub fn spend(&mut self, steps: u64) -> Result<()> {
        match self.left.checked_sub(steps) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(used_up()),
        }
    }

    /// Uses up some of what has happened already: it is the next step that may not be left.
    #[inline]
    pub fn note(&mut self, steps: u64) {
        self.left = self.left.saturating_sub(steps);
    }
}

#[cold]
fn used_up() -> Error {
    let text = format!(
        "this request is more work than one commit may be ({COMMIT_STEPS_MAX} steps, of which an entry set or an element moved takes one \
         and an element put into or taken out of the middle of a list {MIDDLE_STEPS}): nobody else would be served meanwhile; nothing was \
         changed, split it into several"
    );
    Error::new(ErrorKind::TooLarge, text)
}
