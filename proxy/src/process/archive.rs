//! Archives on their way between processes in memory files: written once, sealed, and looked at where they are.
//!
//! A file is made for one value, written straight from it, and sealed; what is long enough for large pages, into such where there are any. Who gets it maps it, and copies it only if a seal is missing: then
//! somebody may still write there (INV-35).

use crate::upload::written;
use commonhold_ipc::error::Result;
use commonhold_ipc::map::Sealed;
use commonhold_ipc::points;
use commonhold_ipc::sys::{Front, is_memory_file, memfd, read_aligned_at, seal_content};
use commonhold_ipc::value::{Ser, Shared};
use rkyv::util::AlignedVec;
use std::fs::File;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes that have come and that nobody changes any more, though the other side is not to be trusted.
pub(crate) enum Archive {
    /// Memory of this process's own.
    Own(AlignedVec<16>),
    /// The other side's file, which is sealed.
    Mapped(Sealed),
}

impl Archive {
    /// What is in a memory file: where it is, or a copy if it could still be written. `None`: it is none, has fewer bytes, or cannot be read.
    pub(crate) fn of_file(file: OwnedFd, len: u64) -> Option<Archive> {
        if let Some(sealed) = Sealed::map(&file, len) {
            return Some(Archive::Mapped(sealed));
        }
        // Of others already the question how long they are may be one to some other process, which never answers.
        if !is_memory_file(&file) {
            return None;
        }
        let file = File::from(file);
        // Looked at first: room is not to be made for what is only said to be there.
        if file.metadata().ok()?.len() < len {
            return None;
        }
        read_aligned_at(&file, 0, len as usize).map(Archive::Own)
    }
}

impl Deref for Archive {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Archive::Own(bytes) => bytes,
            Archive::Mapped(bytes) => bytes,
        }
    }
}

/// A file that a value is to be written into.
pub(crate) struct Fresh {
    file: File,
    front: Option<Front>,
    len: u64,
}

impl Fresh {
    /// Of this name, for a value of so many bytes.
    pub(crate) fn make(name: &str, len: u64) -> Result<Fresh> {
        let file = File::from(memfd(name, len)?);
        let front = Front::of(&file, len);
        Ok(Fresh { file, front, len })
    }

    /// Whether it has large pages.
    pub(crate) fn is_large(&self) -> bool {
        self.front.is_some()
    }
}

/// Writes a value, whose bytes were counted, into a file that was made for it, and seals that; also the handles that are in it, as (manager, id).
pub(crate) fn write_sealed<T: Shared>(fresh: Fresh, value: &T) -> Result<(File, Vec<(u64, u64)>)> {
    let Fresh { file, mut front, len } = fresh;
    let file = Arc::new(file);
    points::client("sealed file: made, not written");
    let (target, mut at) = (file.clone(), 0);
    let mut stream = Ser::stream(Box::new(move |bytes| {
        let in_front = front.as_mut().map_or(0, |front| front.put(at, bytes));
        target.write_all_at(&bytes[in_front..], at + in_front as u64)?;
        at += bytes.len() as u64;
        Ok(())
    }));
    stream.put::<T>(value)?;
    written(len, stream.finish())?;
    let handles = stream.handles().to_vec();
    // What is mapped for writing cannot be sealed.
    drop(stream);
    let file = Arc::into_inner(file).expect("the stream has had the only other one");
    points::client("sealed file: written, not sealed");
    seal(&file);
    Ok((file, handles))
}

/// Seals a file that has been written.
pub(super) fn seal(file: &File) {
    // One that the kernel cannot seal at this moment is copied by who gets it.
    let _ = seal_content(file);
}
