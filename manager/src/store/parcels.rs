//! Parcels: what handles inside of queued items refer to is kept alive until a receiver has got them.
//!
//! An item is written into a queue by its sender, of which the manager sees nothing. So whoever sends handles *packs* them first: the
//! queue refers to those objects from then on, as a container does, and the item carries the parcel's number. A receiver *unpacks* before
//! it takes the item out for good: its session holds the objects then; and has the parcel forgotten afterwards.
//!
//! A parcel has a *carrier*: the session that packed it or unpacked it last. When that is over, the queue is looked through: if an item
//! still has the number, the parcel waits there for whoever comes; if not, the item was in the dead hands, and so is the parcel.

use super::Store;
use crate::objects::gone;
use commonhold_ipc::catalog::Kind;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::{HANDLES_PER_VALUE_MAX, PARCELS_MAX};
use commonhold_ipc::wire::Words;
use std::collections::HashMap;

struct Parcel {
    queue: u64,
    ids: Vec<u64>,
    carrier: Option<u64>,
}

/// All parcels of a manager.
#[derive(Default)]
pub struct Parcels {
    last: u64,
    parcels: HashMap<u64, Parcel>,
}

impl Parcels {
    /// A queue is gone, and its references have fallen with it.
    pub fn remove_queue(&mut self, queue: u64) {
        self.parcels.retain(|_, parcel| parcel.queue != queue);
    }

    /// Which queue refers to which object, once for each handle.
    pub fn references(&self) -> impl Iterator<Item = (u64, u64)> {
        self.parcels.values().flat_map(|parcel| parcel.ids.iter().map(|id| (parcel.queue, *id)))
    }

    /// Whether there may be one more, with so many handles.
    fn check_room(&self, handles: usize) -> Result<()> {
        if handles > HANDLES_PER_VALUE_MAX {
            let text = format!("an item holds {handles} handles, and the most is {HANDLES_PER_VALUE_MAX}: put them into a list or dict");
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        if self.parcels.len() >= PARCELS_MAX {
            let text = format!("there are {PARCELS_MAX} items with handles in queues, the most there can be: receive some");
            return Err(Error::new(ErrorKind::Full, text));
        }
        Ok(())
    }

    fn find(&mut self, queue: u64, number: u64) -> Result<&mut Parcel> {
        let found = self.parcels.get_mut(&number).filter(|parcel| parcel.queue == queue);
        found.ok_or_else(|| {
            let text = "what an item's handles refer to is not kept (any more): a process that uses the queue has written over the item";
            Error::new(ErrorKind::NotFound, text)
        })
    }
}

impl Store {
    /// A queue refers to these objects from now on, for an item that the session is about to send. Returns the parcel's number.
    pub fn pack(&mut self, queue: u64, ids: impl Iterator<Item = u64>, session: u64) -> Result<u64> {
        if self.objects.get(queue).is_none_or(|object| object.record.kind != Kind::Queue) {
            return Err(gone(queue));
        }
        let ids: Vec<u64> = ids.collect();
        if let Some(missing) = ids.iter().find(|id| self.objects.get(**id).is_none()) {
            return Err(gone(*missing));
        }
        self.parcels.check_room(ids.len())?;
        self.objects.settle(ids.iter().map(|id| (queue, *id, 1)));
        self.parcels.last += 1;
        self.parcels.parcels.insert(self.parcels.last, Parcel { queue, ids, carrier: Some(session) });
        Ok(self.parcels.last)
    }

    /// A session has taken the item of a parcel, and is to hold what is in it.
    pub fn unpack(&mut self, queue: u64, number: u64, session: u64) -> Result<Vec<u64>> {
        let parcel = self.parcels.find(queue, number)?;
        parcel.carrier = Some(session);
        let ids = parcel.ids.clone();
        ids.iter().try_for_each(|id| self.objects.hold(*id))?;
        Ok(ids)
    }

    /// The item of a parcel is gone for good.
    pub fn forget_parcel(&mut self, queue: u64, number: u64) {
        if self.parcels.find(queue, number).is_ok()
            && let Some(parcel) = self.parcels.parcels.remove(&number)
        {
            self.objects.settle(parcel.ids.iter().map(|id| (queue, *id, -1)));
        }
    }

    /// A session is over, and nothing of its process will touch a segment again: what it claimed there is given back or reported.
    pub fn recover_segments(&mut self, session: u64) {
        self.segments.recover(session);
        let carried: Vec<(u64, u64)> = self
            .parcels
            .parcels
            .iter()
            .filter(|(_, parcel)| parcel.carrier == Some(session))
            .map(|(number, parcel)| (*number, parcel.queue))
            .collect();
        let mut tickets = HashMap::new();
        for (number, queue) in carried {
            let waiting = tickets.entry(queue).or_insert_with(|| self.segments.tickets(queue));
            if !waiting.contains(&number) {
                self.forget_parcel(queue, number);
            } else if let Ok(parcel) = self.parcels.find(queue, number) {
                parcel.carrier = None;
            }
        }
    }
}

/// A call about a queue's parcels: the queue's id, and what else it says.
pub fn parse(words: Words<'_>) -> Option<(u64, impl Iterator<Item = u64>)> {
    let mut words = words.iter();
    Some((words.next()?, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parcels_beyond_the_most_are_refused() {
        let mut parcels = Parcels::default();
        let parcel = || Parcel { queue: 1, ids: Vec::new(), carrier: None };
        parcels.parcels.extend((1..PARCELS_MAX as u64).map(|number| (number, parcel())));
        parcels.check_room(HANDLES_PER_VALUE_MAX).unwrap();
        let error = parcels.check_room(HANDLES_PER_VALUE_MAX + 1).unwrap_err();
        assert_eq!(error.to_string(), "an item holds 65537 handles, and the most is 65536: put them into a list or dict");
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        parcels.parcels.insert(0, parcel());
        let error = parcels.check_room(1).unwrap_err();
        assert_eq!(error.to_string(), "there are 1048576 items with handles in queues, the most there can be: receive some");
        assert_eq!(error.kind(), ErrorKind::Full);
        parcels.parcels.remove(&7);
        parcels.check_room(1).unwrap();
    }
}
