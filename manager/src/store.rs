//! The store: all objects of a manager, and the commit that is being made of them.
//!
//! The owner of the arena calls [`Store::apply`] for each request, [`Store::publish`] once for all that came together, and
//! between requests [`Store::rest`], which reclaims, drops what nobody holds and takes apart what was cut off. A request is
//! applied whole or not at all: one simple operation checks everything and reserves its worst case before its first
//! change; several operations are an *attempt* in a commit of their own, which is taken back if one of them fails.

mod dicts;
mod lists;
mod names;
mod ops;
pub mod parcels;
mod values;

use crate::catalog;
use crate::demolition::{Demolition, Piece};
use crate::memory::Memory;
use crate::objects::{Change, Object, Objects, gone, wrong_kind};
use crate::recovery;
use crate::segments::Segments;
use crate::upload::Uploads;
use crate::watch::Watches;
use crate::work::{HANDLES_PER_STEP, Work};
use commonhold_ipc::arena;
use commonhold_ipc::catalog::{DESCRIPTOR_HEAD, Kind, Record, Root};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::index::KeyHash;
use commonhold_ipc::limits::SCHEMA_BYTES_MAX;
use commonhold_ipc::map::{ArenaReader, ArenaWriter};
use commonhold_ipc::pin::Pinned;
use commonhold_ipc::points;
use commonhold_ipc::wire::commit::{Commit, Malformed, Op};
use commonhold_ipc::wire::reply::Outcome;
use commonhold_ipc::wire::{NewObject, Words};
use parcels::Parcels;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Blocks that are taken apart in one slice.
const SLICE_BLOCKS: usize = 2_000;

/// Where the outcomes of operations go, if anybody wants to know them.
pub type Outcomes<'o> = Option<&'o mut Vec<Outcome>>;

/// Reasons why a commit did not happen.
#[derive(Debug)]
pub enum Rejected {
    /// A condition does not hold.
    Conflict,
    /// An operation could not be done.
    Failed(Error),
    /// Its bytes cannot be read.
    Nonsense,
}

impl From<Malformed> for Rejected {
    fn from(Malformed: Malformed) -> Self {
        Rejected::Nonsense
    }
}

impl From<Error> for Rejected {
    fn from(error: Error) -> Self {
        Rejected::Failed(error)
    }
}

/// Everything that a manager keeps.
pub struct Store {
    pub(crate) memory: Memory,
    pub(crate) hash: KeyHash,
    pub(crate) objects: Objects,
    pub(crate) demolition: Demolition,
    pub(crate) names: BTreeMap<String, u64>,
    /// What the users of some objects write themselves.
    pub segments: Segments,
    /// What handles in queued items refer to.
    pub parcels: Parcels,
    pub(crate) root: Root,
    /// Objects changed since the last publication.
    dirty: Vec<u64>,
    /// Whether anything at all has changed since then.
    changed: bool,
    /// References that appear or go with the request that is being applied.
    pub(crate) changes: Vec<Change>,
    /// What the request that is being applied may still cost.
    pub(crate) work: Work,
    watches: Watches,
    /// Objects of users' types that are gone, and their hosts, which are to be told.
    gone: Vec<(u64, u64)>,
    /// Nothing more can be dropped or taken apart before something is reclaimed.
    stuck: bool,
}

impl Store {
    /// An empty store in a fresh arena: version 1, no objects.
    pub fn new(arena: Arc<ArenaWriter>, budget_bytes: u64, manager: u64, hash_seed: u64, hash_mask: u64) -> Self {
        arena::write_header(&arena, manager, hash_seed, hash_mask);
        let root = Root { version: 1, ..Root::default() };
        arena::write_root(&arena, &root);
        arena::publish(&arena, 1);
        Store {
            hash: KeyHash::new(hash_seed, hash_mask),
            memory: Memory::new(arena, budget_bytes, 2),
            objects: Objects::default(),
            demolition: Demolition::default(),
            names: BTreeMap::new(),
            segments: Segments::new(budget_bytes),
            parcels: Parcels::default(),
            root,
            dirty: Vec::new(),
            changed: false,
            changes: Vec::new(),
            work: Work::new(),
            watches: Watches::default(),
            gone: Vec::new(),
            stuck: false,
        }
    }

    /// The newest published version.
    pub fn version(&self) -> u64 {
        self.memory.version() - 1
    }

    /// The arena, to read.
    pub fn reader(&self) -> &ArenaReader {
        self.memory.reader()
    }

    /// The blocks of the arena: for uploads, figures, and giving memory back.
    pub fn memory_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// The newest published root, or the one in the making.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The object, if it is of one of these kinds.
    #[inline]
    pub(crate) fn object(&mut self, id: u64, kinds: &[Kind]) -> Result<&mut Object> {
        let object = self.objects.get_mut(id).ok_or_else(|| gone(id))?;
        if kinds.contains(&object.record.kind) {
            return Ok(object);
        }
        Err(wrong_kind(id, object.record.kind))
    }

    /// The object has been changed by this commit.
    #[inline]
    pub(crate) fn touch(&mut self, id: u64) {
        self.changed = true;
        let version = self.memory.version();
        if let Some(object) = self.objects.get_mut(id) {
            object.record.modified = version;
            if !object.dirty {
                object.dirty = true;
                self.is_dirty(id);
            }
        }
    }

    /// The catalog will get the object's record with the next publication.
    fn is_dirty(&mut self, id: u64) {
        self.dirty.push(id);
        self.memory.promise_records(self.dirty.len());
    }

    /// A value with these handles appears in (or goes from) an object. They must exist when they appear.
    #[inline]
    pub(crate) fn refer(&mut self, from: u64, handles: impl Iterator<Item = u64>, by: i64) -> Result<()> {
        let (least, _) = handles.size_hint();
        self.work.note(least as u64 / HANDLES_PER_STEP);
        for handle in handles {
            if by > 0 && self.objects.get(handle).is_none() {
                return Err(gone(handle));
            }
            self.changes.push((from, handle, by));
        }
        Ok(())
    }

    /// Makes an object that one session holds. Returns its id.
    pub fn create(&mut self, new: &NewObject<'_>) -> Result<u64> {
        let kind = Kind::from_code(new.kind).ok_or_else(|| commonhold_ipc::wire::malformed("kind of an object"))?;
        if new.text.len() > SCHEMA_BYTES_MAX {
            let text =
                format!("the description of this type has {} bytes, the most is {SCHEMA_BYTES_MAX}: it has too many parts", new.text.len());
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        let inline_max = commonhold_ipc::sequence::INLINE_BYTES_MAX;
        if !matches!(new.value_align, 0 | 8 | 16) || new.element_bytes > inline_max || (kind == Kind::Dict && new.value_align == 0) {
            return Err(commonhold_ipc::wire::malformed("description of an object"));
        }
        let (root, other) = match kind {
            Kind::PipeEnd => self.queues_of_end(new.parameters)?,
            Kind::Remote => (new.parameters.iter().next().unwrap_or(0), 0),
            _ => (self.lock_of(kind, new.parameters)?, 0),
        };
        let refers_to = if kind == Kind::Remote { [0, 0] } else { [root, other] };
        self.memory.reserve(DESCRIPTOR_HEAD + new.text.len() as u64)?;
        let id = self.objects.new_id()?;
        let made = self.make_outside(id, kind, new.parameters);
        let (len, descriptor) = match made.and_then(|len| Ok((len, self.memory.allocate(DESCRIPTOR_HEAD + new.text.len() as u64)?))) {
            Ok(made) => made,
            Err(error) => {
                self.segments.remove(id);
                self.objects.forget_id(id);
                return Err(error);
            }
        };
        self.memory.arena().store(descriptor, new.fingerprint);
        self.memory.arena().store(descriptor + 8, new.text.len() as u64);
        self.memory.arena().copy_in(descriptor + DESCRIPTOR_HEAD, new.text.as_bytes());
        let version = self.memory.version();
        self.objects.add(Record {
            id,
            root,
            len,
            modified: version,
            next_insertion: other,
            descriptor,
            kind,
            height: 0,
            value_align: new.value_align,
            element_bytes: new.element_bytes,
            created: version,
        });
        self.is_dirty(id);
        self.changed = true;
        self.objects.hold(id)?;
        self.objects.settle(refers_to.into_iter().filter(|to| *to != 0).map(|to| (id, to, 1)));
        Ok(id)
    }

    /// Makes what an object has outside of the arena, if it has anything there. How many elements that are, as its record says.
    fn make_outside(&mut self, id: u64, kind: Kind, parameters: Words<'_>) -> Result<u64> {
        if kind == Kind::SharedMemory {
            return self.segments.make_block(id, parameters);
        }
        if !kind.has_segment() {
            return Ok(0);
        }
        let shape = recovery::shape(kind, parameters)?;
        self.segments.make(id, kind, &shape)?;
        Ok(shape.elements)
    }

    /// The objects of users' types that are gone since the last time, and their hosts.
    pub fn take_gone(&mut self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.gone)
    }

    /// The lock that a condition is made for, if it is made for one: it keeps that alive, as a value keeps what it refers to.
    fn lock_of(&self, kind: Kind, parameters: Words<'_>) -> Result<u64> {
        let Some(lock) = parameters.iter().next().filter(|_| kind == Kind::Condition) else { return Ok(0) };
        match self.objects.get(lock) {
            Some(object) if object.record.kind == Kind::Lock => Ok(lock),
            Some(_) => Err(Error::new(ErrorKind::WrongType, format!("object {lock} is not a lock: a condition is made for one"))),
            None => Err(gone(lock)),
        }
    }

    /// A session holds an object from now on.
    pub fn retain(&mut self, id: u64) -> Result<()> {
        self.objects.hold(id)
    }

    /// A session lets an object go.
    pub fn release(&mut self, id: u64) {
        self.objects.unhold(id);
    }

    /// Applies a request whole, or not at all. Outcomes of operations are appended to `outcomes`, where they are wanted.
    ///
    /// What it changed is not visible before [`publish`](Self::publish).
    pub fn apply(&mut self, commit: &Commit<'_>, uploads: &mut Uploads, mut outcomes: Outcomes<'_>) -> Result<(), Rejected> {
        self.work = Work::new();
        if commit.has_conditions() {
            self.meets(commit)?;
        }
        let mut ops = commit.ops();
        let first = match (ops.next().transpose()?, commit.op_count()) {
            (None, _) => return Ok(()),
            (Some(op), 1) if !self.is_compound(&op) => {
                // Nothing may come behind it.
                ops.next().transpose()?;
                Some(op)
            }
            _ => None,
        };
        let done = match &first {
            Some(op) => self.do_op(op, self.hash_of(op), uploads, &mut outcomes).map_err(Rejected::from),
            None => self.attempt(commit, uploads, &mut outcomes),
        };
        if done.is_ok() {
            if !self.changes.is_empty() {
                self.objects.settle(self.changes.drain(..));
            }
        } else {
            outcomes.into_iter().for_each(Vec::clear);
            self.changes.clear();
        }
        done
    }

    /// Sees that all conditions of a commit hold.
    #[inline(never)]
    fn meets(&mut self, commit: &Commit<'_>) -> Result<(), Rejected> {
        for condition in commit.conditions() {
            self.work.spend(1)?;
            if !self.holds(&condition?) {
                return Err(Rejected::Conflict);
            }
        }
        Ok(())
    }

    /// Does the operations of a commit as an attempt: if one fails, or cannot be read, all are taken back.
    fn attempt(&mut self, commit: &Commit<'_>, uploads: &mut Uploads, outcomes: &mut Outcomes<'_>) -> Result<(), Rejected> {
        self.publish();
        self.memory.begin_attempt();
        let pieces = self.demolition.len();
        let done = self.do_ops(commit, uploads, outcomes);
        self.memory.end_attempt(done.is_ok());
        if done.is_err() {
            self.demolition.cut(pieces);
            self.take_back();
        }
        done
    }

    /// After a failed attempt, which followed a publication: the records are what the catalog says.
    fn take_back(&mut self) {
        for id in std::mem::take(&mut self.dirty) {
            let record = commonhold_ipc::catalog::find(self.memory.reader(), &self.root, id);
            if let (Some(object), Some(record)) = (self.objects.get_mut(id), record) {
                (object.record, object.tail, object.dirty) = (record, Default::default(), false);
            }
        }
        self.memory.promise_records(0);
        self.changed = false;
    }

    /// Whether something waits for [`publish`](Self::publish).
    pub fn has_unpublished(&self) -> bool {
        self.changed
    }

    /// Makes everything applied so far visible, in one store, and wakes who waits for it.
    pub fn publish(&mut self) {
        if !self.changed {
            return;
        }
        let dirty = std::mem::take(&mut self.dirty);
        self.write_records(&dirty);
        self.root.version = self.memory.version();
        self.root.objects = self.objects.len();
        points::manager("commit: before the root record");
        arena::write_root(self.memory.arena(), &self.root);
        points::manager("commit: before the version");
        arena::publish(self.memory.arena(), self.root.version);
        points::manager("commit: after the version");
        self.watches.touched(self.memory.arena(), self.root.version, &dirty);
        self.memory.advance();
        self.changed = false;
        self.dirty = dirty;
        self.dirty.clear();
        self.memory.promise_records(0);
        points::manager("commit: done");
    }

    /// Brings the records of changed objects into the root that is in the making. One that is changed alone takes the place of
    /// the latest, which comes into the catalog; but what is new begins there, so that every object has a record in it.
    fn write_records(&mut self, dirty: &[u64]) {
        for &id in dirty {
            points::manager("commit: before a record");
            let Some(object) = self.objects.get_mut(id) else { continue };
            object.dirty = false;
            let record = object.record;
            let [latest, ..] = self.root.latest;
            if id == latest {
                self.root.latest = record.words();
            } else if dirty.len() == 1 && record.created < self.memory.version() {
                self.write_record(latest);
                self.root.latest = record.words();
            } else {
                self.write_record(id);
            }
        }
    }

    /// Writes an object's record into the catalog, if there is such an object.
    fn write_record(&mut self, id: u64) {
        if let Some(object) = self.objects.get(id) {
            // Each operation has reserved room for as many of these as it changes objects.
            catalog::put(&mut self.memory, &mut self.root, &object.record).expect("room for the catalog was reserved");
        }
    }

    /// Wakes sleepers on an object's watch words from now on, as long as there are any.
    pub fn arm(&mut self, id: u64) {
        self.watches.arm(self.memory.arena(), id);
    }

    /// Frees what no pin holds.
    pub fn reclaim(&mut self, pins: &mut Vec<Pinned>) {
        self.stuck = false;
        self.memory.reclaim(pins);
    }

    /// Sets aside what no pin holds, for the next commits: see [`Memory::reclaim_aside`].
    pub fn reclaim_aside(&mut self, pins: &mut Vec<Pinned>) {
        self.stuck = false;
        self.memory.reclaim_aside(pins);
    }

    /// Whether [`rest`](Self::rest) has something to do that it can do.
    pub fn has_work(&self) -> bool {
        self.changed || (!self.stuck && (!self.demolition.is_empty() || self.objects.has_unheld()))
    }

    /// Between requests: drops objects that nobody holds, takes a slice of what was cut off apart. Whether to do so again.
    pub fn rest(&mut self) -> bool {
        // What a request that is not published yet has made and lent must not count as never seen.
        self.publish();
        let mut done = !self.demolition.is_empty();
        for id in self.objects.take_unheld() {
            done |= self.drop_object(id);
        }
        if !self.demolition.is_empty() {
            self.changed = true;
            let mut fell = Vec::new();
            self.demolition.work(&mut self.memory, SLICE_BLOCKS, |from, to| fell.push((from, to, -1)));
            // The references of an object that is gone fell all together, with it.
            fell.retain(|(from, ..)| self.objects.get(*from).is_some());
            self.objects.settle(fell.into_iter());
        }
        self.publish();
        // Objects that there was no room to drop wait until something has been reclaimed.
        self.stuck = !done && (!self.demolition.is_empty() || self.objects.has_unheld());
        self.has_work()
    }

    /// Drops the objects that only refer to each other. Walks all objects and references.
    pub fn collect_circles(&mut self) {
        if self.objects.is_suspicious() {
            self.publish();
            // Those that there is no room to drop make the store suspicious again.
            for id in self.objects.find_circles() {
                self.drop_object(id);
            }
        }
    }

    /// Whether [`collect_circles`](Self::collect_circles) may find something.
    pub fn may_have_circles(&self) -> bool {
        self.objects.is_suspicious()
    }

    /// Drops an object, if there is room to do so.
    fn drop_object(&mut self, id: u64) -> bool {
        // First of all: it needs no room.
        if let Some(end) = self.objects.get(id).filter(|object| object.record.kind == Kind::PipeEnd) {
            self.hang_up(&end.record);
        }
        // Without room for the catalog's path the object stays, and is looked at again.
        if self.memory.reserve_removal().is_err() {
            self.objects.notice(id);
            return false;
        }
        let Some(object) = self.objects.remove(id) else { return false };
        let record = object.record;
        self.segments.remove(id);
        if record.kind == Kind::Remote {
            self.gone.push((id, record.root));
        }
        self.parcels.remove_queue(id);
        self.dirty.retain(|dirty| *dirty != id);
        if self.root.latest[0] == id {
            self.root.latest = Default::default();
        }
        // An object that was never published is not in the catalog; removing it there only costs a path.
        catalog::remove(&mut self.memory, &mut self.root, id).expect("room for the catalog was reserved");
        self.changed = true;
        self.cut_contents(&record);
        self.demolition.push(id, Piece::Block(record.descriptor));
        // Its references fall now, all together; its blocks follow in their time.
        for (to, count) in object.edges() {
            self.objects.settle((0..*count).map(|_| (0, *to, -1)));
        }
        true
    }

    /// Hands an object's contents to demolition; the record is to be emptied by the caller.
    pub(crate) fn cut_contents(&mut self, record: &Record) {
        if record.root == 0 {
            return;
        }
        let piece = match record.kind {
            Kind::Dict | Kind::Namespace => Piece::Index(record.root, record.value_align),
            Kind::List => {
                let node = commonhold_ipc::sequence::Child::unpack(record.root);
                Piece::Sequence(node, record.height.into(), record.len, record.element_bytes, true)
            }
            Kind::Value => Piece::Element(record.root),
            _ => return,
        };
        self.demolition.push(record.id, piece);
    }

    /// Whether an operation consists of several changes, so that a failure may come in the middle.
    fn is_compound(&self, op: &Op<'_>) -> bool {
        match op {
            Op::ListSplice { object, remove, values, .. } => {
                let element_bytes = self.objects.get(*object).map_or(0, |list| list.record.element_bytes);
                *remove > 0 || values.count(element_bytes) != 1
            }
            Op::ListReverse { .. } | Op::ListPermute { .. } | Op::ListSwap { .. } => true,
            _ => false,
        }
    }
}
