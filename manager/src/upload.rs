//! Values that were sent ahead of the operations that use them, received straight into blocks of the arena.
//!
//! No version shows such a block until an operation adopts it. A commit uses up every upload that it names, whatever becomes
//! of it; a client that changes its mind discards them, and a session's end frees all of its own.

use crate::memory::Memory;
use commonhold_ipc::error::{Error, Result};
use commonhold_ipc::limits::UPLOADS_PER_SESSION_MAX;
use std::collections::HashMap;

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

/// The uploads of one session, by number.
#[derive(Default)]
pub struct Uploads {
    arrived: HashMap<u64, Result<Upload>>,
    /// Why others were not taken: there were too many. Which ones is not remembered.
    refused: Option<Error>,
}

impl Uploads {
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
            None => Err(self.refused.clone().unwrap_or_else(|| commonhold_ipc::wire::malformed("upload's number"))),
        }
    }

    /// The operation that uses it has taken it over.
    pub fn take(&mut self, number: u64) {
        self.arrived.remove(&number);
        self.forgive();
    }

    /// Frees an upload, if it is still here.
    pub fn discard(&mut self, number: u64, memory: &mut Memory) {
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
        for upload in self.arrived.drain().filter_map(|(_, upload)| upload.ok()) {
            memory.discard(upload.block);
        }
    }

    /// The blocks that wait. For the audit.
    pub fn blocks(&self) -> impl Iterator<Item = u64> + '_ {
        self.arrived.values().filter_map(|upload| upload.as_ref().ok()).map(|upload| upload.block)
    }
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
