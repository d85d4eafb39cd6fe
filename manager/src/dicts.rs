//! Operations on dicts and namespaces.

use crate::index::IndexWriter;
use crate::store::Store;
use crate::upload::{Upload, Uploads, too_large};
use commonhold_ipc::block::{Entry, EntryShape};
use commonhold_ipc::catalog::Kind;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::index;
use commonhold_ipc::limits::{HANDLES_PER_VALUE_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use commonhold_ipc::value::{NumberKind, add_number};
use commonhold_ipc::wire::commit::Condition;
use commonhold_ipc::wire::reply::Outcome;
use commonhold_ipc::wire::{Payload, Source, malformed};

const DICTS: &[Kind] = &[Kind::Dict, Kind::Namespace];

/// A value that is about to be stored: its length, and its bytes or where they are.
pub(crate) enum Arrived<'a> {
    Here(&'a [u8]),
    Sent(u64, Upload),
}

impl<'a> Arrived<'a> {
    /// Finds a payload's bytes, and sees that they are within the limits.
    pub(crate) fn find(payload: &Payload<'a>, uploads: &Uploads) -> Result<Arrived<'a>> {
        if payload.handles.len() > HANDLES_PER_VALUE_MAX {
            let text = format!("a value with {} handles cannot be stored: the most is {HANDLES_PER_VALUE_MAX}", payload.handles.len());
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        let arrived = match payload.source {
            Source::Inline(bytes) => Arrived::Here(bytes),
            Source::Upload(number) => Arrived::Sent(number, uploads.look(number)?),
        };
        if arrived.len() > VALUE_BYTES_MAX { Err(too_large(arrived.len())) } else { Ok(arrived) }
    }

    /// Room that its block of so many bytes still needs: what was sent ahead has its block.
    pub(crate) fn bytes_to_come(&self, bytes: u64) -> u64 {
        match self {
            Arrived::Here(_) => bytes,
            Arrived::Sent(..) => 0,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        match self {
            Arrived::Here(bytes) => bytes.len() as u64,
            Arrived::Sent(_, upload) => upload.len,
        }
    }
}

impl Store {
    /// Whether a condition holds for the commit that is being made.
    pub(crate) fn holds(&self, condition: &Condition<'_>) -> bool {
        let reader = self.memory.reader();
        let record = |id: u64| self.objects.get(id).map(|object| &object.record);
        // The root of an object of another kind is no place to begin a walk at: it may be any number.
        let of_kind = |id: u64, kinds: &[Kind]| record(id).filter(|record| kinds.contains(&record.kind));
        let element = |id: u64, position: u64| {
            let list = of_kind(id, &[Kind::List])?;
            Some(commonhold_ipc::sequence::find(reader, list, position))
        };
        match *condition {
            Condition::EntryIs { object, key, block } => of_kind(object, DICTS).is_some_and(|record| {
                let entry = index::find(reader, record.root, record.value_align, key, self.hash.of(key));
                entry.map_or(0, |entry| entry.block) == block
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
        }
    }

    fn index(&mut self, id: u64) -> Option<IndexWriter<'_>> {
        let object = self.objects.get_mut(id)?;
        let align = object.record.value_align;
        Some(IndexWriter { memory: &mut self.memory, hash: &self.hash, root: &mut object.record.root, align })
    }

    fn find_entry(&mut self, id: u64, key: &[u8]) -> Result<(u64, Option<Entry>)> {
        let hash = self.hash.of(key);
        let (root, align) = {
            let record = &self.object(id, DICTS)?.record;
            (record.root, record.value_align)
        };
        Ok((hash, index::find(self.memory.reader(), root, align, key, hash)))
    }

    pub(crate) fn insert(
        &mut self,
        id: u64,
        key: &[u8],
        value: Payload<'_>,
        only_if_absent: bool,
        lend: bool,
        uploads: &mut Uploads,
    ) -> Result<Outcome> {
        if key.len() as u64 > KEY_BYTES_MAX {
            let text = format!("a key of {} bytes cannot be stored: the most is {KEY_BYTES_MAX}; use a hash of it as the key", key.len());
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        let (hash, old) = self.find_entry(id, key)?;
        if let Some(old) = old
            && only_if_absent
        {
            return Ok(Outcome::Existing(old.value_place(self.memory.reader())));
        }
        let arrived = Arrived::find(&value, uploads)?;
        // A namespace may say 0, which readers take for 8, too.
        let align = u64::from(self.object(id, DICTS)?.record.value_align.max(8));
        let shape = EntryShape { key_len: key.len() as u64, value_len: arrived.len(), align, handles: value.handles.len() as u64 };
        if let Arrived::Sent(_, upload) = &arrived {
            self.fits(upload, shape.value(), shape.bytes())?;
        }
        self.memory.reserve(arrived.bytes_to_come(shape.bytes()))?;
        self.refer(id, value.handles.iter(), 1)?;
        let insertion = match old {
            Some(old) => old.insertion(),
            None => self.object(id, DICTS)?.record.next_insertion,
        };
        let entry = self.fill_entry(&shape, &arrived, key, insertion, uploads)?;
        shape.write_handles(self.memory.arena(), entry, value.handles.iter());
        let mut index = self.index(id).expect("the dict has been found");
        match old {
            Some(old) => {
                index.replace(hash, old.block, entry)?;
                self.retire_entry(id, &old)?;
            }
            None => {
                index.add(hash, entry)?;
                let record = &mut self.object(id, DICTS)?.record;
                record.len += 1;
                record.next_insertion += 1;
            }
        }
        self.touch(id);
        Ok(match old {
            Some(old) if lend => self.lend(&old),
            Some(_) => Outcome::Something,
            None if lend && only_if_absent => {
                // What is there now: by the time the client looks, it may be another's.
                let (_, new) = self.find_entry(id, key)?;
                new.map_or(Outcome::Nothing, |new| Outcome::Lent(new.value_place(self.memory.reader()), Vec::new()))
            }
            None => Outcome::Nothing,
        })
    }

    /// An error if an upload has been made for other bytes before its value, or for fewer handles behind it.
    pub(crate) fn fits(&self, upload: &Upload, prefix: u64, bytes: u64) -> Result<()> {
        let fits = upload.prefix == prefix && bytes <= self.memory.size_of(upload.block);
        if fits { Ok(()) } else { Err(malformed("upload's prefix or number of handles")) }
    }

    /// A block with all of an entry but the ids of its handles.
    fn fill_entry(&mut self, shape: &EntryShape, arrived: &Arrived<'_>, key: &[u8], insertion: u64, uploads: &mut Uploads) -> Result<u64> {
        match arrived {
            Arrived::Here(bytes) => {
                let entry = self.memory.allocate(shape.bytes())?;
                shape.write_head(self.memory.arena(), entry, insertion, key, self.memory.version());
                self.memory.arena().copy_in(entry + shape.value(), bytes);
                Ok(entry)
            }
            Arrived::Sent(number, upload) => {
                let birth = self.memory.adopt(upload.block);
                uploads.take(*number);
                shape.write_head(self.memory.arena(), upload.block, insertion, key, birth);
                Ok(upload.block)
            }
        }
    }

    /// The value of an entry that was taken out: its block stays as it is until the next version is published.
    fn lend(&self, entry: &Entry) -> Outcome {
        let reader = self.memory.reader();
        Outcome::Lent(entry.value_place(reader), entry.handles(reader))
    }

    fn retire_entry(&mut self, id: u64, entry: &Entry) -> Result<()> {
        let handles = entry.handles(self.memory.reader());
        self.refer(id, handles.into_iter(), -1)?;
        self.memory.retire_value(entry.block);
        Ok(())
    }

    pub(crate) fn remove(&mut self, id: u64, key: &[u8], lend: bool) -> Result<Outcome> {
        let (hash, old) = self.find_entry(id, key)?;
        let Some(old) = old else { return Ok(Outcome::Nothing) };
        self.memory.reserve_removal()?;
        self.index(id).expect("the dict has been found").remove(hash, old.block)?;
        self.object(id, DICTS)?.record.len -= 1;
        self.retire_entry(id, &old)?;
        self.touch(id);
        Ok(if lend { self.lend(&old) } else { Outcome::Something })
    }

    pub(crate) fn add(&mut self, id: u64, key: &[u8], number: u8, delta: &[u8]) -> Result<Outcome> {
        let (_, old) = self.find_entry(id, key)?;
        let current = match old {
            Some(old) => {
                let place = old.value_place(self.memory.reader());
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
        self.insert(id, key, Payload::inline(&sum), false, false, &mut Uploads::default())?;
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
