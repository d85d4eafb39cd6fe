//! Ends of pipes: objects that say which queues they are made of, and whose going is what the other side is told.
//!
//! A pipe is one queue for each direction, and two ends. An end is an object without contents: it refers to the queue that it receives
//! from and to the one that it sends into (one of them, if the pipe is for one direction), as a container refers to what it holds. So who
//! holds an end is who holds any object: sessions whose processes have a handle on it, names, values in containers, items in queues, and
//! parents that pass it to a child.
//!
//! When nobody does any more, because the last handle was dropped or because the last process that had one is gone, the end's queues are
//! closed before anything else becomes of it: whoever is at the other end receives what is still there, then nothing; and cannot send any
//! more. That is one exchange in each queue, which wakes all who sleep there.

use crate::objects::gone;
use crate::store::Store;
use commonhold_ipc::catalog::{Kind, Record};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::wire::{Words, malformed};

impl Store {
    /// The queues that a new end is made of: the one that it receives from, and the one that it sends into; 0 for none.
    pub(crate) fn queues_of_end(&self, parameters: Words<'_>) -> Result<(u64, u64)> {
        let given: Vec<u64> = parameters.iter().collect();
        let [incoming, outgoing] = given[..] else { return Err(malformed("description of an end of a pipe")) };
        if incoming == outgoing {
            return Err(malformed("description of an end of a pipe"));
        }
        for id in [incoming, outgoing].into_iter().filter(|id| *id != 0) {
            match self.objects.get(id) {
                Some(object) if object.record.kind == Kind::Queue => {}
                Some(_) => return Err(Error::new(ErrorKind::WrongType, format!("object {id} is not a queue: a pipe is made of queues"))),
                None => return Err(gone(id)),
            }
        }
        Ok((incoming, outgoing))
    }

    /// Nobody holds an end any more: nothing can be sent to it or from it.
    pub(crate) fn hang_up(&self, end: &Record) {
        for queue in queues(end) {
            self.segments.close(queue);
        }
    }
}

/// The queues of an end.
pub(crate) fn queues(end: &Record) -> impl Iterator<Item = u64> + use<> {
    [end.root, end.next_insertion].into_iter().filter(|id| *id != 0)
}
