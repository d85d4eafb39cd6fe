//! [`SharedMemory`]: blocks by name, for exchange with programs that are not ours. What lies in the file system is in `ipc::runtime::blocks`.

use crate::array::{Block, ByteBlock, BytesCursor, HasBlock, block_methods};
use crate::handle::{Handle, Object, debug, handle};
use crate::session::Session;
use commonhold_ipc::error::Result;
use commonhold_ipc::named::Mapping;
use commonhold_ipc::runtime::FileId;
use commonhold_ipc::wire::reply::Outcome;
use commonhold_ipc::wire::{Call, malformed};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

/// A block of raw memory with a name, which programs that are not ours open as well: Python's
/// `multiprocessing.shared_memory.SharedMemory(name)`, the crate `shared_memory`, anything that calls `shm_open("/name")`. Made by
/// [`Session::shared_memory`](crate::Session::shared_memory), or opened by [`Session::open_shared_memory`](crate::Session::open_shared_memory).
/// With the feature `shared-memory`.
///
/// Bytes are copied in and out as with [`SharedBytes`](crate::SharedBytes), which is the better choice among our own programs: it needs no
/// name, and nobody can cut it short.
///
/// - **Memory**: all of the block is there from the start. A `/dev/shm` that is too small is an error, and not a SIGBUS later.
/// - **Its name goes** when [`unlink`](Self::unlink) is called, when no handle is left anywhere, when the manager ends. A client that is
///   killed does not keep it; what a killed *manager* leaves, the next manager of the same user sweeps away: a named one when it starts,
///   others when they make a block themselves. A name that leads to another program's block by then is left alone, and so are
///   blocks that were only opened.
/// - Who has used the block keeps it when its name goes; others get `NotFound`.
/// - Python before 3.13 unlinks what it has merely opened when it ends. There, call
///   `multiprocessing.resource_tracker.unregister(block._name, "shared_memory")` after opening.
/// - Another program of the same user could cut the file short; a process that then touches what is gone is killed by SIGBUS.
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// # let manager = commonhold::Manager::start()?;
/// # let name = format!("commonhold-example-{}", std::process::id());
/// let block = manager.shared_memory(&name, 1000)?;      // in Python: SharedMemory(name).buf
/// block.write_at(0, b"hello")?;
/// assert_eq!(std::fs::read(format!("/dev/shm/{name}")).unwrap()[..5], *b"hello");
/// assert!(block.unlink()?);
/// assert_eq!(block.read(0..5)?, b"hello");              // this process has it still
/// # Ok(())
/// # }
/// ```
pub struct SharedMemory {
    object: Arc<Object>,
    _of: PhantomData<()>,
}

handle!(SharedMemory[], commonhold_ipc::catalog::Kind::SharedMemory, "SharedMemory");

/// What a process knows of a block.
struct Known {
    name: String,
    mapping: Mapping,
}

impl SharedMemory {
    fn known(&self) -> Result<&Known> {
        let id = self.id();
        let (_, known) = self.object.local(|session| {
            let outcomes = session.call_with_id(Call::Block, id, false)?.outcomes()?;
            let Ok([Outcome::Number(device), Outcome::Number(inode), Outcome::Number(bytes), Outcome::Text(name)]) =
                <[Outcome; 4]>::try_from(outcomes)
            else {
                return Err(malformed("reply"));
            };
            let mapping = Mapping::open(&name, FileId::of_words([device, inode]), bytes)?;
            Ok(Known { name, mapping })
        })?;
        Ok(known)
    }

    /// Its name, without the slash that `shm_open` has at its front.
    ///
    /// # Errors
    /// As [`len`](Self::len).
    pub fn name(&self) -> Result<String> {
        Ok(self.known()?.name.clone())
    }

    /// Takes its name away, so that nobody finds it any more, whoever made it. Whether it had it: not if somebody was quicker, or has given
    /// the name to another block.
    ///
    /// # Errors
    /// Disconnected, when the manager has ended; `System` if the file belongs to somebody who does not allow it.
    pub fn unlink(&self) -> Result<bool> {
        let session = self.object.ready()?;
        Ok(session.call_with_id(Call::Unlink, self.id(), true)?.outcome()? == Outcome::Something)
    }

    block_methods!();
}

impl HasBlock for SharedMemory {
    #[inline]
    fn as_block(&self) -> Result<Block<'_>> {
        let mapping = &self.known()?.mapping;
        Ok(Block::new(mapping.words(), mapping.bytes()))
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "SharedMemory", &self.object, self.len().ok().map(|len| len as u64))
    }
}

/// Whether a block is made or opened, as the manager is told.
#[derive(Clone, Copy)]
enum How {
    Make = 0,
    Open = 1,
}

impl Session {
    /// A new block of so many bytes, zeros, with this name: see [`SharedMemory`]. With the feature `shared-memory`.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken; `Full` if `/dev/shm` or the manager's capacity have no room; `OutOfRange` if it is no name,
    /// or no bytes.
    pub fn shared_memory(&self, name: &str, len: usize) -> Result<SharedMemory> {
        self.block(How::Make, name, len)
    }

    /// The block that has this name, whoever made it: see [`SharedMemory`]. With the feature `shared-memory`.
    ///
    /// # Errors
    /// `NotFound` if there is none; `Refused` if it is another user's.
    pub fn open_shared_memory(&self, name: &str) -> Result<SharedMemory> {
        self.block(How::Open, name, 0)
    }

    fn block(&self, how: How, name: &str, len: usize) -> Result<SharedMemory> {
        commonhold_ipc::runtime::blocks::check_name(name)?;
        let mut words = vec![how as u64, len as u64, name.len() as u64];
        words.extend(name.as_bytes().chunks(8).map(|part| {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            u64::from_le_bytes(word)
        }));
        let block: SharedMemory = self.create_shared(&words)?;
        // Mapped at once: from then on its name may go.
        block.known()?;
        Ok(block)
    }
}
