//! Values that were sent ahead of the operations that use them, received straight into blocks of the arena.
//!
//! By a lane a value comes in parts, each a call of its own. Until the last one is there the value *grows*, and no operation can name it.
//!
//! Values that stand behind their request, on a lane, are not sent ahead: they are here while that request is done, for its operations to copy them.
//!
//! No version shows such a block until an operation adopts it. A commit uses up every upload that it names, whatever becomes
//! of it; a client that changes its mind discards them, and a session's end frees all of its own.

use crate::memory::Memory;
use commonhold_ipc::error::{Error, Result};
use commonhold_ipc::lane::ValuesBehind;
use commonhold_ipc::limits::{UPLOADS_GROWING_MAX, UPLOADS_PER_SESSION_MAX};
use commonhold_ipc::map::ArenaWriter;
use commonhold_ipc::wire::behind::PlaceBehind;
use commonhold_ipc::wire::malformed;
use std::collections::HashMap;

/// What is malformed if a place behind a request is none.
const VALUE_BEHIND: &str = "value behind a request";

/// A value that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Its block.
    pub block: u64,
    /// Bytes of the block before the value.
    pub prefix: u64,
    /// Bytes of the value.
    pub len: u64,
}

/// A value of which parts have arrived.
struct Growing {
    /// Bytes of the whole value.
    len: u64,
    target: Result<Upload>,
    done: u64,
}

/// The uploads of one session, by number.
#[derive(Default)]
pub struct Uploads {
    arrived: HashMap<u64, Result<Upload>>,
    growing: HashMap<u64, Growing>,
    /// Why others were not taken: there were too many. Which ones is not remembered.
    refused: Option<Error>,
    /// The values that the request brings which is being done.
    behind: Option<ValuesBehind>,
}

impl Uploads {
    /// A value begins to come in parts. `false`: too many do, and none of ours would.
    pub fn begin_in_parts(&mut self, number: u64, len: u64, target: Result<Upload>, memory: &mut Memory) -> bool {
        self.discard(number, memory);
        let fits = self.growing.len() < UPLOADS_GROWING_MAX;
        if fits {
            self.growing.insert(number, Growing { len, target, done: 0 });
        } else if let Ok(upload) = target {
            memory.discard(upload.block);
        }
        fits
    }

    /// Where in the arena the next part of a value goes, so many bytes long: nowhere if there was no block for the value. `None`: this is not
    /// its next part.
    pub fn place_of_part(&self, number: u64, from: u64, bytes: u64) -> Option<Option<u64>> {
        let Growing { target, len, .. } = self.growing.get(&number).filter(|growing| growing.done == from)?;
        let fits = bytes <= len - from && (bytes > 0 || *len == 0);
        fits.then(|| target.as_ref().ok().map(|upload| upload.block + upload.prefix + from))
    }

    /// That part is there. The last one makes the value an upload like all.
    pub fn add_part(&mut self, number: u64, bytes: u64, memory: &mut Memory) {
        let Some(growing) = self.growing.get_mut(&number) else { return };
        growing.done += bytes;
        if growing.done == growing.len
            && let Some(Growing { target, .. }) = self.growing.remove(&number)
        {
            self.add(number, target, memory);
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.arrived.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.arrived.is_empty()
    }

    /// An upload that has arrived, or why it could not.
    pub fn add(&mut self, number: u64, upload: Result<Upload>, memory: &mut Memory) {
        if let Err(error) = &upload
            && self.arrived.len() >= UPLOADS_PER_SESSION_MAX
            && !self.arrived.contains_key(&number)
        {
            // Who sends on and on does not make us remember more.
            self.refused = Some(error.clone());
            return;
        }
        if let Some(Ok(older)) = self.arrived.insert(number, upload) {
            memory.discard(older.block);
        }
    }

    /// Looks at an upload without taking it.
    pub fn look(&self, number: u64) -> Result<Upload> {
        match self.arrived.get(&number) {
            Some(Ok(upload)) => Ok(*upload),
            Some(Err(error)) => Err(error.clone()),
            None => Err(self.refused.clone().unwrap_or_else(unknown)),
        }
    }

    /// The values behind the request that is being done; or it is done.
    pub fn set_behind(&mut self, values: Option<ValuesBehind>) {
        self.behind = values;
    }

    /// A commit begins, maybe one of several of the same request.
    #[inline]
    pub fn begin_commit(&mut self) {
        self.behind.iter_mut().for_each(ValuesBehind::begin);
    }

    /// The same commit begins once more, because there was no memory for it.
    pub fn begin_commit_again(&mut self) {
        self.behind.iter_mut().for_each(ValuesBehind::begin_again);
    }

    /// The place behind the request that a word says. An error if there is no value, or it has been copied.
    pub fn look_behind(&self, word: u64) -> Result<PlaceBehind> {
        let has = |place: &PlaceBehind| self.behind.as_ref().is_some_and(|values| values.has(*place));
        PlaceBehind::of_word(word).filter(has).ok_or_else(|| malformed(VALUE_BEHIND))
    }

    /// Copies the value at a place into a block of the arena.
    pub fn copy_behind(&mut self, place: PlaceBehind, arena: &ArenaWriter, block: u64) -> Result<()> {
        let copied = self.behind.as_mut().is_some_and(|values| values.copy_to_arena(place, arena, block));
        if copied { Ok(()) } else { Err(malformed(VALUE_BEHIND)) }
    }

    /// The operation that uses it has taken it over.
    pub fn take(&mut self, number: u64) {
        self.arrived.remove(&number);
        self.forgive();
    }

    /// Frees an upload, if it is still here, whole or not.
    pub fn discard(&mut self, number: u64, memory: &mut Memory) {
        if let Some(Growing { target: Ok(upload), .. }) = self.growing.remove(&number) {
            memory.discard(upload.block);
        }
        if let Some(Ok(upload)) = self.arrived.remove(&number) {
            memory.discard(upload.block);
        }
        self.forgive();
    }

    /// The commit that had too many is over when none of its uploads is left.
    fn forgive(&mut self) {
        if self.arrived.is_empty() {
            self.refused = None;
        }
    }

    /// Frees what is left.
    pub fn clear(&mut self, memory: &mut Memory) {
        self.blocks().for_each(|block| memory.discard(block));
        self.arrived.clear();
        self.growing.clear();
    }

    /// The blocks that wait. For the audit.
    pub fn blocks(&self) -> impl Iterator<Item = u64> + '_ {
        let growing = self.growing.values().map(|growing| &growing.target);
        self.arrived.values().chain(growing).filter_map(|upload| upload.as_ref().ok()).map(|upload| upload.block)
    }
}

#[cold]
fn unknown() -> Error {
    malformed("upload's number")
}

/// A block for a value that is about to arrive.
pub fn begin(memory: &mut Memory, prefix: u64, len: u64, handles: u64) -> Result<Upload> {
    use commonhold_ipc::limits::{HANDLES_PER_VALUE_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
    if len > VALUE_BYTES_MAX || prefix > KEY_BYTES_MAX + 64 || handles > HANDLES_PER_VALUE_MAX as u64 {
        return Err(too_large(len));
    }
    // Handles, and the padding before them and at the end.
    let bytes = (prefix + len + 8 * (handles + 2)).next_multiple_of(16);
    memory.reserve(bytes)?;
    Ok(Upload { block: memory.allocate_value(bytes)?, prefix, len })
}

/// The error for a value that is larger than any value may be.
pub fn too_large(len: u64) -> Error {
    let most = commonhold_ipc::limits::VALUE_BYTES_MAX;
    let text = format!("a value of {len} bytes cannot be stored: the most is {most}; keep it in pieces, a list of parts for example");
    Error::new(commonhold_ipc::error::ErrorKind::TooLarge, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonhold_ipc::error::ErrorKind;
    use commonhold_ipc::map::ArenaWriter;
    use commonhold_ipc::sys;
    use std::sync::Arc;

    #[test]
    fn a_value_in_parts_is_there_with_its_last_one() {
        let len = 64 << 20;
        let arena = ArenaWriter::map(sys::memfd_sealed("test-arena", len).unwrap(), len).unwrap();
        let mut memory = Memory::new(Arc::new(arena), len, 2);
        let mut uploads = Uploads::default();
        let most = commonhold_ipc::limits::VALUE_BYTES_MAX;
        let told =
            format!("a value of {} bytes cannot be stored: the most is {most}; keep it in pieces, a list of parts for example", most + 1);
        assert_eq!(begin(&mut memory, 16, most + 1, 0).unwrap_err().to_string(), told);
        let target = begin(&mut memory, 16, 100, 0);
        let at = target.clone().unwrap().block + 16;
        assert!(uploads.begin_in_parts(7, 100, target, &mut memory));
        assert_eq!(uploads.place_of_part(7, 0, 60), Some(Some(at)));
        // Another's number, not the next bytes, more than there are to come, none.
        let wrong = [(8, 0, 60), (7, 1, 60), (7, 0, 101), (7, 0, u64::MAX), (7, 0, 0)];
        wrong.iter().for_each(|(number, from, bytes)| assert_eq!(uploads.place_of_part(*number, *from, *bytes), None));
        uploads.add_part(7, 60, &mut memory);
        assert!(uploads.look(7).is_err() && uploads.is_empty(), "not whole");
        assert_eq!((uploads.place_of_part(7, 60, 41), uploads.place_of_part(7, 60, 40)), (None, Some(Some(at + 60))));
        uploads.add_part(7, 40, &mut memory);
        assert_eq!(uploads.look(7).unwrap().len, 100);
        assert_eq!(uploads.place_of_part(7, 100, 0), None);
        // One for which there was no room, one without bytes, one that is begun twice.
        assert!(uploads.begin_in_parts(9, 50, Err(Error::new(ErrorKind::Full, "no room")), &mut memory));
        assert_eq!(uploads.place_of_part(9, 0, 50), Some(None));
        uploads.add_part(9, 50, &mut memory);
        assert_eq!(uploads.look(9).unwrap_err().kind(), ErrorKind::Full);
        let begin_one = |uploads: &mut Uploads, memory: &mut Memory, number, len| {
            let target = begin(memory, 16, len, 0);
            uploads.begin_in_parts(number, len, target, memory)
        };
        assert!(begin_one(&mut uploads, &mut memory, 11, 0) && uploads.place_of_part(11, 0, 0).is_some());
        uploads.add_part(11, 0, &mut memory);
        assert_eq!(uploads.look(11).unwrap().len, 0);
        assert!(begin_one(&mut uploads, &mut memory, 13, 10) && begin_one(&mut uploads, &mut memory, 13, 10));
        let blocks = |uploads: &Uploads, memory: &Memory| (uploads.blocks().count(), memory.usage().blocks);
        assert_eq!(blocks(&uploads, &memory), (3, 3));
        [7, 13].iter().for_each(|number| uploads.discard(*number, &mut memory));
        assert_eq!(blocks(&uploads, &memory), (1, 1));
        // As many as may be, and one more.
        let begun = (100..).take_while(|number| begin_one(&mut uploads, &mut memory, *number, 10)).count();
        assert_eq!((begun, blocks(&uploads, &memory)), (UPLOADS_GROWING_MAX, (begun + 1, begun as u64 + 1)));
        uploads.clear(&mut memory);
        assert_eq!(blocks(&uploads, &memory), (0, 0));
    }

    #[test]
    fn refused_uploads_are_not_remembered_one_by_one() {
        let (len, most) = (64 << 20, UPLOADS_PER_SESSION_MAX as u64);
        let arena = ArenaWriter::map(sys::memfd_sealed("test-arena", len).unwrap(), len).unwrap();
        let mut memory = Memory::new(Arc::new(arena), len, 2);
        let mut uploads = Uploads::default();
        let error = || Err(Error::new(ErrorKind::Full, "too many"));
        (0..3 * most).for_each(|number| uploads.add(number, error(), &mut memory));
        assert_eq!(uploads.len() as u64, most);
        assert_eq!(uploads.look(2 * most).unwrap_err().kind(), ErrorKind::Full);
        // The commit that named them all is over.
        (0..3 * most).for_each(|number| uploads.discard(number, &mut memory));
        assert!(uploads.is_empty());
        assert_ne!(uploads.look(2 * most).unwrap_err().kind(), ErrorKind::Full);
    }
}
