//! Operations on lists.

use super::Store;
use super::dicts::Arrived;
use crate::demolition::Piece;
use crate::sequence::{Element, SequenceWriter, Shape, Tail};
use crate::upload::Uploads;
use crate::work::{APPENDED_PER_STEP, MIDDLE_STEPS, REBUILD_STEPS};
use commonhold_ipc::block::{HEAD_BYTES, element_bytes, element_handles, element_place, write_element_head};
use commonhold_ipc::catalog::{Kind, Record};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::sequence::{self, Elements};
use commonhold_ipc::wire::commit::{END, Values};
use commonhold_ipc::wire::reply::Outcome;
use commonhold_ipc::wire::{Payload, Words, malformed};

const LISTS: &[Kind] = &[Kind::List];

fn shape_of(record: &Record) -> Shape {
    Shape { root: record.root, height: record.height, len: record.len, element_bytes: record.element_bytes }
}

fn out_of_range(what: &str, position: u64, len: u64) -> Error {
    Error::new(ErrorKind::OutOfRange, format!("cannot {what} position {position} of a list of {len} elements: positions count from 0"))
}

impl Store {
    fn list(&mut self, id: u64) -> Result<Record> {
        Ok(self.object(id, LISTS)?.record)
    }

    /// Changes the sequence of a list, and its record with it.
    fn with_sequence<R>(&mut self, id: u64, change: impl FnOnce(&mut SequenceWriter<'_>) -> Result<R>) -> Result<R> {
        let object = self.objects.get_mut(id).ok_or_else(|| crate::objects::gone(id))?;
        let mut shape = shape_of(&object.record);
        let mut writer = SequenceWriter { memory: &mut self.memory, shape: &mut shape, tail: &mut object.tail };
        let done = change(&mut writer);
        (object.record.root, object.record.height, object.record.len) = (shape.root, shape.height, shape.len);
        // At once: an attempt that fails later takes back the objects that count as changed.
        self.touch(id);
        done
    }

    /// A block for an element or a value that is not inline. Reserves its room.
    pub(crate) fn element_block(&mut self, id: u64, value: &Payload<'_>, uploads: &mut Uploads) -> Result<u64> {
        let arrived = Arrived::find(value, uploads)?;
        let handles = value.handles.len() as u64;
        let bytes = element_bytes(arrived.len(), handles);
        if let Arrived::Sent(_, upload) = &arrived {
            self.fits(upload, HEAD_BYTES, bytes)?;
        }
        self.memory.reserve(arrived.bytes_to_come(bytes))?;
        self.refer(id, value.handles.iter(), 1)?;
        let (block, birth) = match arrived {
            Arrived::Here(value) => {
                let block = self.memory.allocate_value(bytes)?;
                self.memory.arena().copy_in(block + HEAD_BYTES, value);
                (block, self.memory.version())
            }
            Arrived::Sent(number, upload) => {
                let birth = self.memory.adopt(upload.block);
                uploads.take(number);
                (upload.block, birth)
            }
            Arrived::Behind(place) => (self.block_from_behind(HEAD_BYTES, bytes, place, uploads)?, self.memory.version()),
        };
        write_element_head(self.memory.arena(), block, arrived.len(), birth, value.handles.iter());
        Ok(block)
    }

    /// Retires an element's block; the references in it go.
    pub(crate) fn retire_element(&mut self, id: u64, block: u64) -> Result<()> {
        let handles = element_handles(self.memory.reader(), block);
        self.refer(id, handles.into_iter(), -1)?;
        self.memory.retire_value(block);
        Ok(())
    }

    fn inline_bytes<'a>(record: &Record, value: &Payload<'a>) -> Result<&'a [u8]> {
        match value.source {
            commonhold_ipc::wire::Source::Inline(bytes) if bytes.len() == record.element_bytes as usize && value.handles.is_empty() => {
                Ok(bytes)
            }
            _ => Err(malformed("inline element")),
        }
    }

    /// What stands at a position, lent or copied out, before it is replaced or taken out.
    fn old_element(&self, record: &Record, position: u64, lend: bool) -> (Outcome, Option<u64>) {
        let reader = self.memory.reader();
        let Some(slot) = sequence::slot(reader, record, position) else { return (Outcome::Nothing, None) };
        if record.element_bytes == 0 {
            let block = reader.word(slot);
            (
                if lend { Outcome::Lent(element_place(reader, block), element_handles(reader, block)) } else { Outcome::Something },
                Some(block),
            )
        } else if lend {
            (Outcome::Bytes(reader.bytes(slot, record.element_bytes.into()).to_vec()), None)
        } else {
            (Outcome::Something, None)
        }
    }

    pub(crate) fn list_set(&mut self, id: u64, position: u64, value: Payload<'_>, lend: bool, uploads: &mut Uploads) -> Result<Outcome> {
        let record = self.list(id)?;
        if position >= record.len {
            return Err(out_of_range("set", position, record.len));
        }
        let (outcome, old) = self.old_element(&record, position, lend);
        let element = if record.element_bytes == 0 {
            Element::Block(self.element_block(id, &value, uploads)?)
        } else {
            self.memory.reserve(0)?;
            Element::Inline(Self::inline_bytes(&record, &value)?)
        };
        self.with_sequence(id, |list| list.set(position, element))?;
        if let Some(block) = old {
            self.retire_element(id, block)?;
        }
        self.touch(id);
        Ok(outcome)
    }

    pub(crate) fn list_remove(&mut self, id: u64, position: u64, lend: bool) -> Result<Outcome> {
        self.work.spend(MIDDLE_STEPS)?;
        self.remove_one(id, position, lend)
    }

    fn remove_one(&mut self, id: u64, position: u64, lend: bool) -> Result<Outcome> {
        let record = self.list(id)?;
        let position = if position == END { record.len.wrapping_sub(1) } else { position };
        let (outcome, old) = self.old_element(&record, position, lend);
        if outcome == Outcome::Nothing {
            return Ok(outcome);
        }
        self.memory.reserve_removal()?;
        self.with_sequence(id, |list| list.remove(position))?;
        if let Some(block) = old {
            self.retire_element(id, block)?;
        }
        self.touch(id);
        Ok(outcome)
    }

    pub(crate) fn list_splice(
        &mut self,
        id: u64,
        position: u64,
        remove: u64,
        values: Values<'_>,
        uploads: &mut Uploads,
    ) -> Result<Outcome> {
        let record = self.list(id)?;
        let at = if position == END { record.len } else { position };
        if at > record.len {
            return Err(out_of_range("insert at", at, record.len));
        }
        let remove = remove.min(record.len - at);
        let count = values.count(record.element_bytes);
        // At the end they go in side by side, elsewhere one by one.
        self.work.spend(if at + remove == record.len { count / APPENDED_PER_STEP } else { count.saturating_mul(MIDDLE_STEPS) })?;
        if remove > 0 && at + remove == record.len {
            self.cut_off(id, at)?;
        } else if remove > 0 {
            self.memory.reserve_removal()?;
            self.cut_out(id, at, remove)?;
        } else if count == 0 {
            // Nothing goes or comes, but the list counts as changed.
            self.memory.reserve_removal()?;
            self.touch(id);
        }
        match values {
            Values::Packed(bytes) => {
                let size = record.element_bytes as usize;
                if size == 0 || !bytes.len().is_multiple_of(size) {
                    return Err(malformed("run of inline elements"));
                }
                for (i, element) in (0..).zip(bytes.chunks_exact(size)) {
                    self.memory.reserve(0)?;
                    self.put_in(id, at + i, Element::Inline(element))?;
                }
            }
            Values::Each(..) => {
                if record.element_bytes != 0 {
                    return Err(malformed("run of elements"));
                }
                for (i, payload) in (0..).zip(values.payloads()) {
                    let block = self.element_block(id, &payload, uploads)?;
                    self.put_in(id, at + i, Element::Block(block))?;
                }
            }
        }
        Ok(Outcome::Number(remove))
    }

    fn put_in(&mut self, id: u64, position: u64, element: Element<'_>) -> Result<()> {
        self.with_sequence(id, |list| if position == list.shape.len { list.push(element) } else { list.insert(position, element) })
    }

    /// Takes elements out of the middle of a list: one by one, or where that is more work, by building it anew without them.
    fn cut_out(&mut self, id: u64, at: u64, count: u64) -> Result<()> {
        let record = self.list(id)?;
        let (one_by_one, anew) = (count.saturating_mul(MIDDLE_STEPS), REBUILD_STEPS + record.len);
        if one_by_one <= anew {
            self.work.spend(one_by_one)?;
            return (0..count).try_for_each(|_| self.remove_one(id, at, false).map(drop));
        }
        self.work.spend(anew)?;
        let blocks = match record.element_bytes {
            0 => Elements::new(self.memory.reader(), &record, at..at + count).map(|place| place.block).collect(),
            _ => Vec::new(),
        };
        self.rebuild(id, (0..at).chain(at + count..record.len))?;
        blocks.into_iter().try_for_each(|block| self.retire_element(id, block))
    }

    /// Cuts a list to its first `len` elements.
    fn cut_off(&mut self, id: u64, len: u64) -> Result<()> {
        self.memory.reserve_removal()?;
        let element_bytes = self.list(id)?.element_bytes;
        let (mut fell, mut out) = (Vec::new(), Vec::new());
        self.with_sequence(id, |list| list.truncate(len, &mut fell, &mut out))?;
        for (node, level, len) in fell {
            self.demolition.push(id, Piece::Sequence(node, level, len, element_bytes, true));
        }
        for block in out {
            self.retire_element(id, block)?;
        }
        Ok(())
    }

    pub(crate) fn list_swap(&mut self, id: u64, a: u64, b: u64) -> Result<Outcome> {
        let record = self.list(id)?;
        if let Some(beyond) = [a, b].into_iter().find(|position| *position >= record.len) {
            return Err(out_of_range("swap", beyond, record.len));
        }
        self.work.spend(MIDDLE_STEPS)?;
        self.memory.reserve(0)?;
        let (first, second) = (self.slot_contents(&record, a), self.slot_contents(&record, b));
        self.with_sequence(id, |list| {
            list.set(a, second.element())?;
            list.set(b, first.element())
        })?;
        self.touch(id);
        Ok(Outcome::Something)
    }

    fn slot_contents(&self, record: &Record, position: u64) -> Contents {
        let reader = self.memory.reader();
        let slot = sequence::slot(reader, record, position).unwrap_or_default();
        if record.element_bytes == 0 {
            Contents::Block(reader.word(slot))
        } else {
            Contents::Inline(reader.bytes(slot, record.element_bytes.into()).to_vec())
        }
    }

    pub(crate) fn list_reverse(&mut self, id: u64) -> Result<Outcome> {
        let len = self.list(id)?.len;
        self.work.spend(REBUILD_STEPS + len)?;
        self.rebuild(id, (0..len).rev())
    }

    pub(crate) fn list_permute(&mut self, id: u64, from: Words<'_>) -> Result<Outcome> {
        let len = self.list(id)?.len;
        self.work.spend(REBUILD_STEPS + from.len() as u64)?;
        let mut seen = vec![false; from.len()];
        let whole = from.len() as u64 == len
            && from.iter().all(|position| position < len && !std::mem::replace(&mut seen[position as usize], true));
        if whole { self.rebuild(id, from.iter()) } else { Err(malformed("permutation of a list")) }
    }

    /// Builds a list anew from its own elements in another order, or from some of them. Their blocks stay.
    fn rebuild(&mut self, id: u64, order: impl Iterator<Item = u64>) -> Result<Outcome> {
        let record = self.list(id)?;
        if record.len == 0 {
            return Ok(Outcome::Nothing);
        }
        let (mut shape, mut tail) = (Shape { root: 0, height: 0, len: 0, ..shape_of(&record) }, Tail::default());
        for position in order {
            self.memory.reserve(0)?;
            let contents = self.slot_contents(&record, position);
            SequenceWriter { memory: &mut self.memory, shape: &mut shape, tail: &mut tail }.push(contents.element())?;
        }
        let node = sequence::Child::unpack(record.root);
        self.demolition.push(id, Piece::Sequence(node, record.height.into(), record.len, record.element_bytes, false));
        let object = self.object(id, LISTS)?;
        (object.record.root, object.record.height, object.record.len) = (shape.root, shape.height, shape.len);
        object.tail = tail;
        self.touch(id);
        Ok(Outcome::Something)
    }
}

/// What a slot of a leaf holds, copied out.
enum Contents {
    Inline(Vec<u8>),
    Block(u64),
}

impl Contents {
    fn element(&self) -> Element<'_> {
        match self {
            Contents::Inline(bytes) => Element::Inline(bytes),
            Contents::Block(block) => Element::Block(*block),
        }
    }
}
