//! The objects of a manager: their working records, and who keeps them alive.
//!
//! An object lives while a session holds it, a name names it, or a value in a living container refers to it. The counts of
//! the first two are *held*, of the last *inside*. Objects that refer to each other in a circle and are not held are found by
//! tracing from the held ones along *edges*: for each object, to which others its values refer, and how often.

use crate::sequence::Tail;
use commonhold_ipc::catalog::{Kind, Record, SLOT_BITS, slot_of};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::OBJECTS_MAX;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

/// An object, as the commit that is being made has it.
pub struct Object {
    /// Its record. The catalog gets it when the commit is published.
    pub record: Record,
    /// What is known of a list's last leaf.
    pub tail: Tail,
    /// Whether the record differs from the catalog's.
    pub dirty: bool,
    held: u64,
    inside: u64,
    edges: HashMap<u64, u64>,
}

impl Object {
    /// Sessions' references and names.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// References from values.
    pub fn inside(&self) -> u64 {
        self.inside
    }

    /// Objects that its values refer to, and how often.
    pub fn edges(&self) -> &HashMap<u64, u64> {
        &self.edges
    }
}

/// A reference that appears or goes with a value: from, to, +1 or −1.
pub type Change = (u64, u64, i64);

/// All objects by slot.
#[derive(Default)]
pub struct Objects {
    slots: Vec<Option<Object>>,
    generations: Vec<u64>,
    /// Lowest first, so that the catalog stays dense.
    free: BinaryHeap<Reverse<u64>>,
    count: u64,
    /// Objects whose last count fell, to be looked at.
    unheld: Vec<u64>,
    /// Whether an object lost a holder but is still referred to: it may be part of a circle.
    suspicious: bool,
}

impl Objects {
    /// How many there are.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// An id that was never given before.
    pub fn new_id(&mut self) -> Result<u64> {
        if self.count >= OBJECTS_MAX - 1 {
            return Err(Error::new(
                ErrorKind::Full,
                format!(
                    "cannot make another object: this manager has {OBJECTS_MAX}, the most there can be; drop handles, or start another manager"
                ),
            ));
        }
        // Slot 0 stays empty, so that no id is 0.
        while self.slots.is_empty() {
            self.slots.push(None);
            self.generations.push(0);
        }
        let slot = match self.free.pop() {
            Some(Reverse(slot)) => slot,
            None => {
                self.slots.push(None);
                self.generations.push(0);
                self.slots.len() as u64 - 1
            }
        };
        Ok(self.generations[slot as usize] << SLOT_BITS | slot)
    }

    /// Adds an object under an id from [`new_id`](Self::new_id). Nobody holds it yet.
    pub fn add(&mut self, record: Record) {
        let slot = slot_of(record.id) as usize;
        self.slots[slot] = Some(Object { record, tail: Tail::default(), dirty: true, held: 0, inside: 0, edges: HashMap::new() });
        self.count += 1;
    }

    /// Gives back an id that was not used after all.
    pub fn forget_id(&mut self, id: u64) {
        self.free.push(Reverse(slot_of(id)));
    }

    /// Takes an object away; its slot gets a new generation.
    pub fn remove(&mut self, id: u64) -> Option<Object> {
        self.get(id)?;
        let slot = slot_of(id);
        self.generations[slot as usize] += 1;
        self.free.push(Reverse(slot));
        self.count -= 1;
        self.slots[slot as usize].take()
    }

    /// The object with an id.
    #[inline]
    pub fn get(&self, id: u64) -> Option<&Object> {
        self.slots.get(slot_of(id) as usize)?.as_ref().filter(|object| object.record.id == id)
    }

    /// The object with an id, to change.
    #[inline]
    pub fn get_mut(&mut self, id: u64) -> Option<&mut Object> {
        self.slots.get_mut(slot_of(id) as usize)?.as_mut().filter(|object| object.record.id == id)
    }

    /// All of them, by slot.
    pub fn iter(&self) -> impl Iterator<Item = &Object> {
        self.slots.iter().flatten()
    }

    /// A session or a name holds an object from now on.
    pub fn hold(&mut self, id: u64) -> Result<()> {
        self.get_mut(id).ok_or_else(|| gone(id))?.held += 1;
        Ok(())
    }

    /// A session or a name lets an object go.
    pub fn unhold(&mut self, id: u64) {
        if let Some(object) = self.get_mut(id) {
            object.held -= 1;
            self.notice(id);
        }
    }

    /// Looks at an object's counts: whether it is to be dropped, or may be part of a circle.
    pub fn notice(&mut self, id: u64) {
        if let Some(Object { held: 0, inside, .. }) = self.get(id) {
            let inside = *inside;
            if inside == 0 { self.unheld.push(id) } else { self.suspicious = true }
        }
    }

    /// References that appeared and went with values.
    pub fn settle(&mut self, changes: impl Iterator<Item = Change>) {
        for (from, to, by) in changes {
            if let Some(object) = self.get_mut(from) {
                let count = object.edges.entry(to).or_default();
                *count = count.saturating_add_signed(by);
                if *count == 0 {
                    object.edges.remove(&to);
                }
            }
            if let Some(object) = self.get_mut(to) {
                object.inside = object.inside.saturating_add_signed(by);
                if by < 0 {
                    self.notice(to);
                }
            }
        }
    }

    /// Objects that nobody can reach any more by counts alone. Each is named once.
    pub fn take_unheld(&mut self) -> Vec<u64> {
        let mut ids = std::mem::take(&mut self.unheld);
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|id| self.get(*id).is_some_and(|object| object.held == 0 && object.inside == 0));
        ids
    }

    /// Whether something waits in [`take_unheld`](Self::take_unheld).
    pub fn has_unheld(&self) -> bool {
        !self.unheld.is_empty()
    }

    /// Whether a circle may have been cut off since the last [`find_circles`](Self::find_circles).
    pub fn is_suspicious(&self) -> bool {
        self.suspicious
    }

    /// Objects that only refer to each other: those that no held object leads to.
    pub fn find_circles(&mut self) -> Vec<u64> {
        self.suspicious = false;
        let mut reached: HashSet<u64> = HashSet::new();
        let mut next: Vec<u64> = self.iter().filter(|object| object.held > 0).map(|object| object.record.id).collect();
        while let Some(id) = next.pop() {
            if reached.insert(id)
                && let Some(object) = self.get(id)
            {
                next.extend(object.edges.keys());
            }
        }
        self.iter().map(|object| object.record.id).filter(|id| !reached.contains(id)).collect()
    }
}

/// The error for an object that is not there.
pub fn gone(id: u64) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("object {id} is gone: nobody held it any more (an object lives while a handle, a name or a value refers to it)"),
    )
}

/// The error for an object of a kind that has no such method.
#[cold]
pub fn wrong_kind(id: u64, kind: Kind) -> Error {
    Error::new(ErrorKind::WrongType, format!("object {id} is a {}: it does not have this method", kind.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_beyond_the_most_are_refused() {
        let mut objects = Objects { count: OBJECTS_MAX - 2, ..Objects::default() };
        objects.new_id().unwrap();
        objects.count += 1;
        let error = objects.new_id().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
        let told = format!(
            "cannot make another object: this manager has {OBJECTS_MAX}, the most there can be; drop handles, or start another manager"
        );
        assert_eq!(error.to_string(), told);
    }
}
