//! Whether the calling thread is inside of a transaction's closure: there a write by a handle itself would happen at once, whatever
//! becomes of the transaction, once more at each of its attempts, and be what the next attempt conflicts with.

use commonhold_ipc::error::{Error, ErrorKind, Result};
use std::cell::Cell;
use std::ptr::from_ref;

thread_local! {
    /// Where the session of the innermost transaction is whose closure runs on this thread; 0: none.
    static INSIDE: Cell<usize> = const { Cell::new(0) };
}

/// Until it is dropped, also by a panic: this thread is inside of a transaction of that session, or of none.
pub struct Inside {
    before: usize,
}

impl Inside {
    /// The closure of a transaction of this session begins.
    pub fn of<S>(session: &S) -> Self {
        Inside { before: INSIDE.replace(from_ref(session).addr()) }
    }

    /// What is written meanwhile is no handle's own write: the first content of an object that nobody knows yet, or a transaction's commit.
    pub fn of_none() -> Self {
        Inside { before: INSIDE.replace(0) }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(self.before);
    }
}

/// Refuses a commit of its own to who is inside of a transaction of the same session.
#[inline(always)]
pub fn check<S>(session: &S) -> Result<()> {
    if INSIDE.get() == from_ref(session).addr() { Err(refused()) } else { Ok(()) }
}

#[cold]
fn refused() -> Error {
    let text = "inside of a transaction write by it: `tx.insert(&dict, …)`, `tx.push(&list, …)`; a write by the handle itself or by a batch would \
                happen at once, and once more whenever the closure runs again";
    Error::new(ErrorKind::Refused, text)
}
