//! Operations on dicts and namespaces.

use super::{Outcomes, Store};
use crate::index::{IndexWriter, Path};
use crate::objects::Object;
use crate::upload::{Upload, Uploads, too_large};
use crate::work::COLLISIONS_PER_STEP;
use commonhold_ipc::block::{Entry, EntryShape, Place};
use commonhold_ipc::catalog::Kind;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::{HANDLES_PER_VALUE_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use commonhold_ipc::points;
use commonhold_ipc::value::{NumberKind, add_number};
use commonhold_ipc::wire::behind::{PlaceBehind, is_place};
use commonhold_ipc::wire::commit::Condition;
use commonhold_ipc::wire::reply::Outcome;
use commonhold_ipc::wire::{Payload, Source, malformed};

const DICTS: &[Kind] = &[Kind::Dict, Kind::Namespace];

/// A key, its hash, and the value that it is to have.
#[derive(Clone, Copy)]
pub(crate) struct Pair<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) hash: u64,
    pub(crate) value: Payload<'a>,
}

/// A value that is about to be stored: its length, and its bytes or where they are.
pub(crate) enum Arrived<'a> {
    Here(&'a [u8]),
    Sent(u64, Upload),
    Behind(PlaceBehind),
}

impl<'a> Arrived<'a> {
    /// Finds a payload's bytes, and sees that they are within the limits.
    #[inline]
    pub(crate) fn find(payload: &Payload<'a>, uploads: &Uploads) -> Result<Arrived<'a>> {
        if payload.handles.len() > HANDLES_PER_VALUE_MAX {
            let text = format!(
                "a value with {} handles cannot be stored: the most is {HANDLES_PER_VALUE_MAX}; put them into a list or dict",
                payload.handles.len()
            );
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        let arrived = match payload.source {
            Source::Inline(bytes) => Arrived::Here(bytes),
            Source::Upload(word) if is_place(word) => Arrived::Behind(uploads.look_behind(word)?),
            Source::Upload(number) => Arrived::Sent(number, uploads.look(number)?),
        };
        if arrived.len() > VALUE_BYTES_MAX { Err(too_large(arrived.len())) } else { Ok(arrived) }
    }

    /// Room that its block of so many bytes still needs: what was sent ahead has its block.
    pub(crate) fn bytes_to_come(&self, bytes: u64) -> u64 {
        match self {
            Arrived::Here(_) | Arrived::Behind(_) => bytes,
            Arrived::Sent(..) => 0,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        match self {
            Arrived::Here(bytes) => bytes.len() as u64,
            Arrived::Sent(_, upload) => upload.len,
            Arrived::Behind(place) => place.len(),
        }
    }
}

#[cold]
fn key_too_large(len: usize) -> Error {
    let text = format!("a key of {len} bytes cannot be stored: the most is {KEY_BYTES_MAX}; use a hash of it as the key");
    Error::new(ErrorKind::TooLarge, text)
}

impl Store {
    /// Whether a condition holds for the commit that is being made.
    pub(crate) fn holds(&mut self, condition: &Condition<'_>) -> bool {
        let mut collisions = 0;
        let reader = self.memory.reader();
        let record = |id: u64| self.objects.get(id).map(|object| &object.record);
        // The root of an object of another kind is no place to begin a walk at: it may be any number.
        let of_kind = |id: u64, kinds: &[Kind]| record(id).filter(|record| kinds.contains(&record.kind));
        let element = |id: u64, position: u64| {
            let list = of_kind(id, &[Kind::List])?;
            Some(commonhold_ipc::sequence::find(reader, list, position))
        };
        let holds = match *condition {
            Condition::EntryIs { object, key, block } => of_kind(object, DICTS).is_some_and(|record| {
                let mut path = Path::of(record.root, self.hash.of(key));
                path.find(reader, record.value_align, key);
                collisions = path.collisions(reader);
                path.entry().unwrap_or(0) == block
            }),
            Condition::Unmodified { object, modified } => record(object).is_some_and(|record| record.modified == modified),
            Condition::ElementIs { object, position, block } => {
                element(object, position).is_some_and(|place| place.map_or(0, |place| place.block) == block)
            }
            Condition::ElementBytes { object, position, bytes } => {
                element(object, position).flatten().is_some_and(|place| reader.bytes(place.offset, place.len) == bytes)
            }
            Condition::LenIs { object, len } => record(object).is_some_and(|record| record.len == len),
            Condition::RootIs { object, root } => record(object).is_some_and(|record| record.root == root),
        };
        self.work.note(collisions / COLLISIONS_PER_STEP);
        holds
    }

    /// The record's part that an entry's place depends on: the root, and the alignment of values.
    #[inline]
    fn root_of(&mut self, id: u64) -> Result<(u64, u8)> {
        let record = &self.object(id, DICTS)?.record;
        Ok((record.root, record.value_align))
    }

    /// Looks a key up.
    #[inline(always)]
    fn find(&mut self, path: &mut Path, align: u8, key: &[u8]) -> Result<()> {
        path.find(self.memory.reader(), align, key);
        self.work.spend(1 + path.collisions(self.memory.reader()) / COLLISIONS_PER_STEP)
    }

    #[inline(always)]
    fn entry(&self, block: u64, align: u8) -> Entry {
        Entry::read(self.memory.reader(), block, align)
    }

    pub(crate) fn insert(
        &mut self,
        id: u64,
        pair: &Pair<'_>,
        only_if_absent: bool,
        lend: bool,
        uploads: &mut Uploads,
        outcomes: &mut Outcomes<'_>,
    ) -> Result<()> {
        let Pair { key, hash, value } = *pair;
        if key.len() as u64 > KEY_BYTES_MAX {
            return Err(key_too_large(key.len()));
        }
        let record = &self.object(id, DICTS)?.record;
        let (align, next_insertion) = (record.value_align, record.next_insertion);
        let mut path = Path::of(record.root, hash);
        self.find(&mut path, align, key)?;
        let old = path.entry().map(|old| self.entry(old, align));
        if let Some(old) = &old
            && only_if_absent
        {
            if let Some(outcomes) = outcomes {
                outcomes.push(Outcome::Existing(old.value_place(self.memory.reader())));
            }
            return Ok(());
        }
        let arrived = Arrived::find(&value, uploads)?;
        let insertion = old.as_ref().map_or(next_insertion, Entry::insertion);
        // A namespace may say 0, which readers take for 8, too.
        let shape = EntryShape {
            key_len: key.len() as u64,
            value_len: arrived.len(),
            align: align.max(8).into(),
            handles: value.handles.len() as u64,
        };
        let bytes = shape.bytes();
        if let Arrived::Sent(_, upload) = &arrived {
            self.fits(upload, shape.value(), bytes)?;
        }
        self.memory.reserve(arrived.bytes_to_come(bytes))?;
        if !value.handles.is_empty() {
            self.refer(id, value.handles.iter(), 1)?;
        }
        let entry = self.fill_entry(&shape, bytes, &arrived, key, insertion, uploads)?;
        let (mut index, object) = self.index(id);
        match &old {
            Some(_) => index.replace(&mut path, entry)?,
            None => {
                index.add(&mut path, entry)?;
                object.record.len += 1;
                object.record.next_insertion += 1;
            }
        }
        object.record.root = index.root;
        self.touch(id);
        if let Some(old) = &old {
            self.retire_entry(id, old)?;
        }
        shape.write_handles(self.memory.arena(), entry, value.handles.iter());
        if let Some(outcomes) = outcomes {
            outcomes.push(match &old {
                Some(old) if lend => self.lend(old),
                Some(_) => Outcome::Something,
                // What is there now: by the time the client looks, it may be another's.
                None if lend && only_if_absent => Outcome::Lent(self.place_of(entry, align), Vec::new()),
                None => Outcome::Nothing,
            });
        }
        Ok(())
    }

    fn place_of(&self, block: u64, align: u8) -> Place {
        self.entry(block, align).value_place(self.memory.reader())
    }

    /// A dict that has been found, for a change of its index: the new root belongs into its record afterwards.
    #[inline]
    fn index(&mut self, id: u64) -> (IndexWriter<'_>, &mut Object) {
        let object = self.objects.get_mut(id).expect("the dict has been found");
        let (root, align) = (object.record.root, object.record.value_align);
        (IndexWriter { memory: &mut self.memory, hash: &self.hash, root, align }, object)
    }

    /// An error if an upload has been made for other bytes before its value, or for fewer handles behind it.
    pub(crate) fn fits(&self, upload: &Upload, prefix: u64, bytes: u64) -> Result<()> {
        let fits = upload.prefix == prefix && bytes <= self.memory.size_of(upload.block);
        if fits { Ok(()) } else { Err(malformed("upload's prefix or number of handles")) }
    }

    /// A block with all of an entry but the ids of its handles.
    #[inline(always)]
    fn fill_entry(
        &mut self,
        shape: &EntryShape,
        bytes: u64,
        arrived: &Arrived<'_>,
        key: &[u8],
        insertion: u64,
        uploads: &mut Uploads,
    ) -> Result<u64> {
        match arrived {
            Arrived::Here(value) => {
                let entry = self.memory.allocate_value(bytes)?;
                shape.write_head(self.memory.arena(), entry, insertion, key, self.memory.version());
                self.memory.arena().copy_in(entry + shape.value(), value);
                Ok(entry)
            }
            Arrived::Sent(number, upload) => {
                let birth = self.memory.adopt(upload.block);
                uploads.take(*number);
                shape.write_head(self.memory.arena(), upload.block, insertion, key, birth);
                Ok(upload.block)
            }
            Arrived::Behind(place) => {
                let entry = self.block_from_behind(shape.value(), bytes, *place, uploads)?;
                shape.write_head(self.memory.arena(), entry, insertion, key, self.memory.version());
                Ok(entry)
            }
        }
    }

    /// A block of so many bytes that has, behind its first `prefix` bytes, the value at a place behind the request.
    #[inline(never)]
    pub(crate) fn block_from_behind(&mut self, prefix: u64, bytes: u64, place: PlaceBehind, uploads: &mut Uploads) -> Result<u64> {
        let block = self.memory.allocate_value(bytes)?;
        if let Err(error) = uploads.copy_behind(place, self.memory.arena(), block + prefix) {
            self.memory.discard(block);
            return Err(error);
        }
        points::manager("call: a value is copied from behind its request");
        Ok(block)
    }

    /// The value of an entry that was taken out: its block stays as it is until the next version is published.
    #[inline]
    fn lend(&self, entry: &Entry) -> Outcome {
        let reader = self.memory.reader();
        Outcome::Lent(entry.value_place(reader), entry.handles(reader))
    }

    #[inline(always)]
    fn retire_entry(&mut self, id: u64, entry: &Entry) -> Result<()> {
        if entry.has_handles() {
            let handles = entry.handles(self.memory.reader());
            self.refer(id, handles.into_iter(), -1)?;
        }
        self.memory.retire_value(entry.block);
        Ok(())
    }

    pub(crate) fn remove(&mut self, id: u64, key: &[u8], hash: u64, lend: bool) -> Result<Outcome> {
        let (root, align) = self.root_of(id)?;
        let mut path = Path::of(root, hash);
        self.find(&mut path, align, key)?;
        let Some(old) = path.entry().map(|old| self.entry(old, align)) else { return Ok(Outcome::Nothing) };
        self.memory.reserve_removal()?;
        let (mut index, object) = self.index(id);
        index.remove(&mut path)?;
        object.record.root = index.root;
        object.record.len -= 1;
        self.retire_entry(id, &old)?;
        self.touch(id);
        Ok(if lend { self.lend(&old) } else { Outcome::Something })
    }

    pub(crate) fn add(&mut self, id: u64, key: &[u8], hash: u64, number: u8, delta: &[u8]) -> Result<Outcome> {
        let (root, align) = self.root_of(id)?;
        let mut path = Path::of(root, hash);
        self.find(&mut path, align, key)?;
        let current = match path.entry() {
            Some(old) => {
                let place = self.place_of(old, align);
                self.memory.reader().bytes(place.offset, place.len).to_vec()
            }
            None => vec![0; delta.len()],
        };
        let number = NumberKind::from_code(number).ok_or_else(|| malformed("kind of a number"))?;
        let sum = add_number(number, &current, delta).ok_or_else(|| {
            let text =
                "adding to this number would take it out of its type's range (or the value is not such a number): nothing was changed";
            Error::new(ErrorKind::OutOfRange, text)
        })?;
        let pair = Pair { key, hash, value: Payload::inline(&sum) };
        self.insert(id, &pair, false, false, &mut Uploads::default(), &mut None)?;
        Ok(Outcome::Bytes(sum.to_vec()))
    }

    pub(crate) fn clear(&mut self, id: u64) -> Result<Outcome> {
        let record = self.object(id, &[Kind::Dict, Kind::Namespace, Kind::List])?.record;
        if record.len == 0 {
            return Ok(Outcome::Nothing);
        }
        self.memory.reserve_removal()?;
        self.cut_contents(&record);
        let object = self.object(id, &[record.kind])?;
        (object.record.root, object.record.len, object.record.height) = (0, 0, 0);
        object.tail = Default::default();
        self.touch(id);
        Ok(Outcome::Something)
    }
}
