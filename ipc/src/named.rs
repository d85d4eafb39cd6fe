//! Named blocks as a client maps them, by way of the crate `shared_memory`: what Python's `SharedMemory(name)` opens.
//!
//! The manager says which file the block is (see `runtime::blocks`), and who maps it sees before and after that its name leads there: so
//! nobody takes another's block for it. What is mapped is touched through words of 8 bytes, atomically, as everywhere; other programs do as
//! they like. The block outlives its name.
//!
//! Nobody can be kept from cutting such a file short: it cannot be sealed, as ours are. Whoever then touches what is gone gets a SIGBUS,
//! which ends the process. So names are for programs that one trusts to that extent.
#![allow(unsafe_code)] // words in a mapping that another crate has made

use crate::error::{Error, ErrorKind, Result};
use crate::runtime::FileId;
use crate::runtime::blocks::file_of;
use shared_memory::{Shmem, ShmemConf};
use std::sync::atomic::AtomicU64;

/// A named block, mapped.
pub struct Mapping {
    shmem: Shmem,
}

// SAFETY: the mapping is not bound to a thread; it is unmapped once, by whoever drops it last. What is in it is shared between processes
// anyway, and touched through atomics alone (INV-28).
unsafe impl Send for Mapping {}
// SAFETY: as above (INV-28).
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the block that has this name, if it is that file, of so many bytes.
    pub fn open(name: &str, id: FileId, bytes: u64) -> Result<Mapping> {
        let check = || match file_of(name)? {
            Some(found) if found == id => Ok(()),
            _ => {
                let text = format!(
                    "the name {name:?} does not lead to this block of shared memory any more: it was unlinked; processes that have used it go on, others need a new one"
                );
                Err(Error::new(ErrorKind::NotFound, text))
            }
        };
        check()?;
        let shmem = ShmemConf::new().os_id(format!("/{name}")).open().map_err(|error| {
            let text = format!("cannot map the {bytes} bytes of the block of shared memory {name:?}: {error}; is the limit on address space, `ulimit -v`, too low?");
            Error::caused(ErrorKind::System, text, std::io::Error::other(error.to_string()))
        })?;
        // What was mapped in between is what the name led to.
        check()?;
        if shmem.len() as u64 == bytes {
            return Ok(Mapping { shmem });
        }
        let text = format!(
            "the block of shared memory {name:?} has {} bytes, and had {bytes}: a program has changed its length; unlink it, and make a new one",
            shmem.len()
        );
        Err(Error::new(ErrorKind::Corrupt, text))
    }

    /// All words of the block; of the last one perhaps only the front is the block's.
    #[inline]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: a mapping begins and ends at a page, so at a multiple of 8 that is not before its length; it lives as long as `self`,
        // is not null (`open` fails then), and everybody here touches it through atomics alone (INV-28, INV-31).
        unsafe { std::slice::from_raw_parts(self.shmem.as_ptr().cast(), self.shmem.len().div_ceil(8)) }
    }

    /// The block's bytes.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.shmem.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::blocks::path_of;

    #[test]
    fn what_a_name_leads_to_is_looked_at() {
        let [name, other] = ["named", "other"].map(|name| format!("commonhold-test-{name}-{}", std::process::id()));
        [&name, &other].iter().for_each(|name| std::fs::write(path_of(name), [7; 100]).unwrap());
        let [id, another] = [&name, &other].map(|name| file_of(name).unwrap().unwrap());
        assert_eq!(Mapping::open(&name, id, 100).unwrap().bytes(), 100);
        let errors = [Mapping::open(&name, id, 200), Mapping::open(&name, another, 100)].map(|opened| opened.err().unwrap());
        [&name, &other].iter().for_each(|name| std::fs::remove_file(path_of(name)).unwrap());
        assert_eq!(errors.each_ref().map(Error::kind), [ErrorKind::Corrupt, ErrorKind::NotFound]);
        let expected = [
            format!(
                "the block of shared memory {name:?} has 100 bytes, and had 200: a program has changed its length; unlink it, and make a new one"
            ),
            format!(
                "the name {name:?} does not lead to this block of shared memory any more: it was unlinked; processes that have used it go on, others need a new one"
            ),
        ];
        assert_eq!(errors.map(|error| error.to_string()), expected);
    }
}
