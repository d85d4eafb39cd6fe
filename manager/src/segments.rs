//! The segments of the objects that have one, who has attached them, and what is left there when a session ends.
//!
//! Made with its object and closed with it; mapped by the manager all the time, so that a recovery cannot fail for lack of
//! anything. What stands in a segment is foreign: a recovery believes it for nothing but that object. Beside them are the blocks of
//! memory that have a name in the system (`runtime::blocks`): nobody claims anything there, but their names must go.

use crate::recovery;
use commonhold_ipc::catalog::Kind;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::{SEGMENTS_CAPACITY_SHARE, SEGMENTS_DESCRIPTOR_SHARE, SEGMENTS_MAX};
use commonhold_ipc::map::Segment;
use commonhold_ipc::queue::{Plan, Queue, Region};
use commonhold_ipc::runtime::RuntimeDir;
use commonhold_ipc::runtime::blocks::NamedBlock;
use commonhold_ipc::segment::{self, Shape};
use commonhold_ipc::sys;
use commonhold_ipc::wire::{Words, malformed};
use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;

struct Entry {
    kind: Kind,
    segment: Segment,
    descriptor: Arc<OwnedFd>,
    /// The sessions that have attached it and are not over.
    sessions: HashSet<u64>,
    /// Bytes that have memory behind them, or are counted as if.
    backed: u64,
    /// Of an array: elements.
    elements: u64,
    /// Of a queue: items and units up to these numbers.
    grown: [u64; 2],
}

/// All segments of a manager.
pub struct Segments {
    entries: HashMap<u64, Entry>,
    /// For each session the objects that it has attached: from then on there may be something of it. And whether it still holds them.
    attached: HashMap<u64, HashMap<u64, bool>>,
    /// Blocks of memory with a name, and the directory in which they are written down.
    blocks: HashMap<u64, NamedBlock>,
    directory: Option<RuntimeDir>,
    bytes: u64,
    bytes_max: u64,
}

impl Segments {
    /// None yet, in a manager of this capacity.
    pub fn new(capacity_bytes: u64) -> Self {
        Segments {
            entries: HashMap::new(),
            attached: HashMap::new(),
            blocks: HashMap::new(),
            directory: None,
            bytes: 0,
            bytes_max: capacity_bytes / SEGMENTS_CAPACITY_SHARE,
        }
    }

    /// Makes the segment of a new object.
    pub fn make(&mut self, id: u64, kind: Kind, shape: &Shape) -> Result<()> {
        self.check_number(kind)?;
        let now: u64 = shape.backed.iter().map(|range| range.end - range.start).sum();
        let backed = now.saturating_add(shape.backed_later);
        self.check_room(kind, backed)?;
        let (descriptor, segment) = segment::make(id, kind, shape)?;
        self.bytes += backed;
        self.entries.insert(
            id,
            Entry {
                kind,
                segment,
                descriptor: Arc::new(descriptor),
                sessions: HashSet::new(),
                backed,
                elements: shape.elements,
                grown: [0; 2],
            },
        );
        Ok(())
    }

    fn check_number(&self, kind: Kind) -> Result<()> {
        let most = SEGMENTS_MAX.min(sys::nofile_limit() / SEGMENTS_DESCRIPTOR_SHARE);
        if self.entries.len() + self.blocks.len() >= most {
            let text = format!(
                "cannot make another {}: this manager has {most} objects with a segment of their own, the most that its descriptors allow (`ulimit -n`)",
                kind.name()
            );
            return Err(Error::new(ErrorKind::Full, text));
        }
        Ok(())
    }

    /// Makes or opens the block of a new object, as it is described. Its bytes.
    pub fn make_block(&mut self, id: u64, description: Words<'_>) -> Result<u64> {
        let mut words = description.iter();
        let (how, bytes, len) = (words.next(), words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let name: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        let name = usize::try_from(len).ok().and_then(|len| std::str::from_utf8(name.get(..len)?).ok());
        let name = name.ok_or_else(|| malformed("name of a block"))?;
        let block = match how {
            Some(0) => {
                self.check_number(Kind::SharedMemory)?;
                self.check_room(Kind::SharedMemory, bytes)?;
                let directory = match &self.directory {
                    Some(directory) => directory,
                    None => self.directory.insert(RuntimeDir::open()?),
                };
                NamedBlock::create(directory, name, bytes)?
            }
            Some(1) => {
                self.check_number(Kind::SharedMemory)?;
                NamedBlock::open(name)?
            }
            _ => return Err(malformed("description of a block")),
        };
        let bytes = block.bytes();
        self.bytes += block.own_bytes();
        self.blocks.insert(id, block);
        Ok(bytes)
    }

    /// An object's block, if it is one.
    pub fn block(&mut self, id: u64) -> Option<&mut NamedBlock> {
        self.blocks.get_mut(&id)
    }

    /// The manager ends: no block keeps its name.
    pub fn forget_blocks(&mut self) {
        self.blocks.clear();
    }

    fn check_room(&self, kind: Kind, bytes: u64) -> Result<()> {
        if bytes <= self.bytes_max - self.bytes {
            return Ok(());
        }
        let text = format!(
            "no {bytes} bytes more for another {}: such objects have {} bytes, and may have {} together; give the manager a larger capacity",
            kind.name(),
            self.bytes,
            self.bytes_max
        );
        Err(Error::new(ErrorKind::Full, text))
    }

    /// Puts memory behind more of a queue.
    pub fn grow(&mut self, id: u64, region: Region, wanted: u64) -> Result<()> {
        let Some(entry) = self.entries.get(&id).filter(|entry| entry.kind == Kind::Queue) else {
            return Err(Error::new(ErrorKind::WrongType, format!("object {id} is no queue: it does not grow")));
        };
        let plan = Plan::of(&entry.segment, entry.segment.bytes())?;
        // What the segment says may be anything: what has been grown before counts, and what was there at first.
        let grown = entry.grown[region as usize].max(plan.at_first(region));
        let target = plan.growth(region, wanted);
        if target > grown {
            let ranges = plan.ranges_up_to(region, grown, target);
            let bytes = ranges.iter().map(|range| range.end - range.start).sum();
            self.check_room(Kind::Queue, bytes)?;
            ranges.into_iter().try_for_each(|range| sys::back(&entry.descriptor, range))?;
            self.bytes += bytes;
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.backed += bytes;
                entry.grown[region as usize] = target;
            }
        }
        let Some(entry) = self.entries.get(&id) else { return Ok(()) };
        Queue::new(&entry.segment, &plan).back(region, target.max(grown));
        Ok(())
    }

    /// A session gets an object's segment: its descriptor, and its bytes. What it leaves there is recovered from now on.
    pub fn attach(&mut self, id: u64, session: u64) -> Result<(Arc<OwnedFd>, u64)> {
        let Some(entry) = self.entries.get_mut(&id) else {
            let text = format!("object {id} has no segment: it is not of a kind that is shared in this way");
            return Err(Error::new(ErrorKind::WrongType, text));
        };
        self.attached.entry(session).or_default().insert(id, true);
        entry.sessions.insert(session);
        Ok((entry.descriptor.clone(), entry.segment.bytes() as u64))
    }

    /// A session holds an object, or has let it go.
    pub fn holds(&mut self, id: u64, session: u64, holds: bool) {
        if let Some(held) = self.attached.get_mut(&session).and_then(|attached| attached.get_mut(&id)) {
            *held = holds;
        }
    }

    /// A session is over, and nothing of its process will touch a segment again: what it claimed is given back or reported.
    pub fn recover(&mut self, session: u64) {
        for (id, held) in self.attached.remove(&session).into_iter().flatten() {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.sessions.remove(&session);
                recovery::recover(entry.kind, &entry.segment, session, held);
            }
        }
    }

    /// The numbers of parcels that items of a queue carry.
    pub fn tickets(&self, id: u64) -> HashSet<u64> {
        let Some(entry) = self.entries.get(&id) else { return HashSet::new() };
        Plan::of(&entry.segment, entry.segment.bytes()).map_or_else(|_| HashSet::new(), |plan| Queue::new(&entry.segment, &plan).tickets())
    }

    /// Nothing can be sent into a queue any more.
    pub fn close(&self, id: u64) {
        if let Some(entry) = self.entries.get(&id)
            && let Ok(plan) = Plan::of(&entry.segment, entry.segment.bytes())
        {
            // Words that make no sense are an error to all who use it.
            let _ = Queue::new(&entry.segment, &plan).close();
        }
    }

    /// An object is gone.
    pub fn remove(&mut self, id: u64) {
        if let Some(block) = self.blocks.remove(&id) {
            self.bytes -= block.own_bytes();
        }
        if let Some(entry) = self.entries.remove(&id) {
            self.bytes -= entry.backed;
            // A session that makes and forgets objects all its life leaves nothing here.
            for session in entry.sessions {
                if let Some(attached) = self.attached.get_mut(&session) {
                    attached.remove(&id);
                }
            }
        }
    }

    /// How many there are, and their bytes.
    pub fn usage(&self) -> (u64, u64) {
        ((self.entries.len() + self.blocks.len()) as u64, self.bytes)
    }

    /// Elements of an object that has one; none of those that do not count them.
    pub fn elements(&self, id: u64) -> u64 {
        let block = self.blocks.get(&id).map_or(0, NamedBlock::bytes);
        self.entries.get(&id).map_or(block, |entry| entry.elements)
    }

    /// Bytes of memory behind an object's; 0 if it has none.
    pub fn backed(&self, id: u64) -> u64 {
        self.entries.get(&id).map_or(0, |entry| entry.backed)
    }

    /// Whether an object has one.
    pub fn has(&self, id: u64) -> bool {
        self.entries.contains_key(&id) || self.blocks.contains_key(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_of_objects_that_are_gone() {
        let mut segments = Segments::new(1 << 30);
        let shape = Shape::whole(4096, Vec::new());
        for id in 1..=100 {
            segments.make(id, Kind::Lock, &shape).unwrap();
            for session in [7, 8] {
                segments.attach(id, session).unwrap();
            }
            segments.holds(id, 7, false);
            segments.remove(id);
        }
        assert!(segments.attached.values().all(HashMap::is_empty));
        segments.make(101, Kind::Lock, &shape).unwrap();
        segments.attach(101, 7).unwrap();
        segments.recover(7);
        assert!(!segments.attached.contains_key(&7) && segments.entries[&101].sessions.is_empty());
    }
}
