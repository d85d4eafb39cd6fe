//! The segments of the objects that have one, who has attached them, and what is left there when a session ends.
//!
//! Made with its object and closed with it; mapped by the manager all the time, so that a recovery cannot fail for lack of
//! anything. What stands in a segment is foreign: a recovery believes it for nothing but that object. Beside them are the blocks of
//! memory that have a name in the system (`runtime::blocks`): nobody claims anything there, but their names must go.

use crate::queue_memory::QueueMemory;
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
use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

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
    /// Of a queue.
    queue: Option<QueueMemory>,
}

/// All segments of a manager.
pub struct Segments {
    entries: HashMap<u64, Entry>,
    /// For each session the objects that it has attached: from then on there may be something of it. And whether it still holds them.
    attached: HashMap<u64, HashMap<u64, bool>>,
    /// Blocks of memory with a name, and the directory in which they are written down.
    blocks: HashMap<u64, NamedBlock>,
    directory: Option<RuntimeDir>,
    /// Queues that may have memory that they do not need, by when to look.
    looks: BTreeSet<(Instant, u64)>,
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
            looks: BTreeSet::new(),
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
        let queue = if kind == Kind::Queue { Some(QueueMemory::new(&Plan::of(&segment, segment.bytes())?)) } else { None };
        self.entries.insert(
            id,
            Entry { kind, segment, descriptor: Arc::new(descriptor), sessions: HashSet::new(), backed, elements: shape.elements, queue },
        );
        Ok(())
    }

    fn check_number(&self, kind: Kind) -> Result<()> {
        let most = SEGMENTS_MAX.min(sys::nofile_limit() / SEGMENTS_DESCRIPTOR_SHARE);
        if self.entries.len() + self.blocks.len() >= most {
            let text = format!(
                "cannot make another {}: this manager has {most} objects with a segment of their own, the most that its descriptors allow: drop some, or raise `ulimit -n` for its program",
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

    /// The name of an object's block, if it is one.
    pub fn block_name(&self, id: u64) -> Option<&str> {
        self.blocks.get(&id).map(NamedBlock::name)
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
        room(kind, bytes, self.bytes, self.bytes_max)
    }

    /// Puts memory behind more of a queue.
    pub fn grow(&mut self, id: u64, region: Region, wanted: u64, now: Instant) -> Result<()> {
        let Some(entry) = self.entries.get_mut(&id) else { return Err(no_queue(id)) };
        let Some(memory) = &mut entry.queue else { return Err(no_queue(id)) };
        let plan = Plan::of(&entry.segment, entry.segment.bytes())?;
        let before = memory.look_at();
        let may = |bytes| room(Kind::Queue, bytes, self.bytes, self.bytes_max);
        let grown = memory.grow((&plan, &entry.segment, &entry.descriptor), region, wanted, now, may)?;
        let after = memory.look_at();
        entry.backed += grown;
        self.bytes += grown;
        self.plan_look(id, before, after);
        Ok(())
    }

    fn plan_look(&mut self, id: u64, before: Option<Instant>, after: Option<Instant>) {
        before.map(|at| self.looks.remove(&(at, id)));
        after.map(|at| self.looks.insert((at, id)));
    }

    /// When to look for queues that do not need their memory.
    pub fn next_look(&self) -> Option<Instant> {
        self.looks.first().map(|(at, _)| *at)
    }

    /// Looks at one of them if it is time.
    pub fn look(&mut self, now: Instant) {
        let Some(&(at, id)) = self.looks.first().filter(|(at, _)| *at <= now) else { return };
        self.looks.remove(&(at, id));
        let Some(entry) = self.entries.get_mut(&id) else { return };
        // One whose words make no sense keeps its memory for as long as it is there.
        let (Some(memory), Ok(plan)) = (&mut entry.queue, Plan::of(&entry.segment, entry.segment.bytes())) else { return };
        let given_back = memory.look((&plan, &entry.segment, &entry.descriptor), now);
        let after = memory.look_at();
        entry.backed -= given_back;
        self.bytes -= given_back;
        self.plan_look(id, None, after);
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
            self.plan_look(id, entry.queue.and_then(|memory| memory.look_at()), None);
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
        let of_block = || self.blocks.get(&id).map_or(0, NamedBlock::own_bytes);
        self.entries.get(&id).map_or_else(of_block, |entry| entry.backed)
    }

    /// Whether an object has one.
    pub fn has(&self, id: u64) -> bool {
        self.entries.contains_key(&id) || self.blocks.contains_key(&id)
    }
}

/// Whether there may be so many bytes more.
fn room(kind: Kind, more: u64, bytes: u64, bytes_max: u64) -> Result<()> {
    if more <= bytes_max.saturating_sub(bytes) {
        return Ok(());
    }
    let text = format!(
        "no room for {more} more bytes in objects of kind {}: they have {bytes} bytes, and may have {bytes_max} together; give the manager a larger capacity",
        kind.name(),
    );
    Err(Error::new(ErrorKind::Full, text))
}

#[cold]
fn no_queue(id: u64) -> Error {
    Error::new(ErrorKind::WrongType, format!("object {id} is no queue: it does not grow"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonhold_ipc::limits::QUEUE_NEEDED_MS_MAX;
    use commonhold_ipc::queue::{Begun, How, Parameters, Sent, Took};
    use commonhold_ipc::sync::Claim;
    use std::time::Duration;

    const QUEUE: u64 = 1;
    const ME: Claim = Claim::new(5, 1);

    /// A queue, and what a client knows of it.
    fn queue_of(bytes_max: u64) -> (Segments, Plan) {
        let mut segments = Segments::new(1 << 30);
        let plan = Plan::new(Parameters { capacity: 100_000, bytes_max, attempts_max: 0, joinable: false }.words()).unwrap();
        segments.make(QUEUE, Kind::Queue, &plan.shape()).unwrap();
        (segments, plan)
    }

    /// Sends an item of so many bytes, growing the queue as a client does.
    fn send(segments: &mut Segments, plan: &Plan, bytes: &[u8], now: Instant) -> bool {
        loop {
            let (region, wanted) = {
                let queue = Queue::new(&segments.entries[&QUEUE].segment, plan);
                match queue.begin(ME, bytes.len()).unwrap() {
                    Begun::Filling(mut filling) => {
                        queue.fill(&mut filling, bytes).unwrap();
                        return queue.publish(ME, filling).unwrap() == Sent::Done;
                    }
                    Begun::Not(Sent::Grow(region, wanted)) => (region, wanted),
                    Begun::Not(_) => return false,
                }
            };
            segments.grow(QUEUE, region, wanted, now).unwrap();
        }
    }

    fn receive(segments: &Segments, plan: &Plan) -> Option<Vec<u8>> {
        let queue = Queue::new(&segments.entries[&QUEUE].segment, plan);
        let Took::Item(index) = queue.take(ME, How::Receive).unwrap() else { return None };
        let mut bytes = Default::default();
        queue.read(index, &mut bytes).unwrap();
        queue.deliver(ME, index).unwrap();
        Some(bytes.to_vec())
    }

    /// Bytes that the system has behind the segment.
    fn resident(segments: &Segments) -> u64 {
        let file = std::fs::File::from(segments.entries[&QUEUE].descriptor.try_clone().unwrap());
        std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap()) * 512
    }

    /// Lets the clock run until nothing is left to look at.
    fn wait_long(segments: &mut Segments) -> usize {
        let mut looks = 0;
        while let Some(at) = segments.next_look() {
            segments.look(at);
            looks += 1;
            assert!(looks < 1_000, "the looks do not end");
        }
        looks
    }

    #[test]
    fn a_drained_queue_gives_its_memory_back_and_works_on() {
        let (mut segments, plan) = queue_of(64 << 20);
        let now = Instant::now();
        let (first, first_resident) = (segments.usage().1, resident(&segments));
        for _ in 0..2 {
            // Long ones, and so many short ones that items are needed as well.
            for number in 0..20u8 {
                assert!(send(&mut segments, &plan, &vec![number; 256 << 10], now));
            }
            for number in 0..2_000u32 {
                assert!(send(&mut segments, &plan, &number.to_le_bytes(), now));
            }
            let (full, full_resident) = (segments.usage().1, resident(&segments));
            assert!(full >= first + (5 << 20) + 2_000 * 128 && full_resident >= first_resident + (5 << 20));
            for number in 0..20u8 {
                assert_eq!(receive(&segments, &plan), Some(vec![number; 256 << 10]));
            }
            for number in 0..2_000u32 {
                assert_eq!(receive(&segments, &plan), Some(number.to_le_bytes().to_vec()));
            }
            wait_long(&mut segments);
            // What stays: 64 units, and the words of all there have been.
            let (least, least_resident) = (segments.usage().1, resident(&segments));
            assert!(least <= first + (64 << 10) + (128 << 10), "{first} bytes before, {least} after");
            assert!(least_resident <= first_resident + (64 << 10) + (128 << 10), "{first_resident} before, {least_resident} after");
            assert_eq!(segments.entries[&QUEUE].backed, least);
        }
        segments.remove(QUEUE);
        assert_eq!((segments.usage(), segments.next_look()), ((0, 0), None));
    }

    #[test]
    fn what_is_in_use_stays() {
        let (mut segments, plan) = queue_of(64 << 20);
        let first = segments.usage().1;
        for number in 0..20u8 {
            assert!(send(&mut segments, &plan, &vec![number; 256 << 10], Instant::now()));
        }
        for number in 0..19u8 {
            assert_eq!(receive(&segments, &plan), Some(vec![number; 256 << 10]));
        }
        // The last one lies above what the others have left.
        let before = segments.usage().1;
        for _ in 0..100 {
            segments.look(segments.next_look().unwrap());
        }
        assert!(segments.usage().1 < before && segments.usage().1 >= first + (5 << 20));
        let (wait, now) = (segments.next_look().unwrap(), Instant::now());
        assert!(wait > now + Duration::from_millis(QUEUE_NEEDED_MS_MAX), "it is looked at ever more seldom");
        assert_eq!(receive(&segments, &plan), Some(vec![19; 256 << 10]));
        wait_long(&mut segments);
        assert!(segments.usage().1 < first + (256 << 10));
    }

    #[test]
    fn what_is_needed_again_and_again_is_left_in_peace() {
        let (mut segments, plan) = queue_of(64 << 20);
        let mut looks = 0;
        // A burst every half second, as the clock of the looks has it.
        let start = Instant::now();
        for burst in 0..100u64 {
            let now = start + Duration::from_millis(500 * burst);
            for _ in 0..8 {
                assert!(send(&mut segments, &plan, &vec![7; 64 << 10], now));
            }
            while receive(&segments, &plan).is_some() {}
            let until = now + Duration::from_millis(500);
            while segments.next_look().is_some_and(|at| at <= until) {
                segments.look(until);
                looks += 1;
            }
        }
        assert!(looks < 20, "{looks} looks in 50 seconds");
    }

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
