//! [`SharedBytes`], as its users see it.

use super::block::{Block, ByteBlock, BytesCursor, HasBlock, block_methods};
use crate::handle::{Object, debug, handle};
use crate::sync::{Acquired, LockGuard, Party, block_lock_methods};
use commonhold_ipc::array::ELEMENTS;
use commonhold_ipc::catalog::Kind;
use commonhold_ipc::error::Result;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// A block of raw memory that every process that has the handle reads and writes itself, without a call: for pixels, samples, records of
/// a format of your own. Made by [`Session::shared_bytes`](crate::Session::shared_bytes).
///
/// Bytes are copied in and out, never lent: another process may write there at any moment. Copies go through words of 8 bytes, each
/// of them whole, so eight bytes at a multiple of 8 are always ones that somebody has written together; a longer copy may meet another's
/// in the middle. Who wants it whole takes the lock, and so does who writes: see [`with_lock`](Self::with_lock). Who sees bytes
/// of a copy sees what its writer did before it.
///
/// A process that is killed while it writes has written a part; if it had the lock, whoever takes that next is told.
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// use std::io::Write;
///
/// let manager = commonhold::Manager::start()?;
/// let frame = manager.shared_bytes(640 * 480)?;         // a handle: pass it to children, store it in a dict
/// frame.write_at(640, &[255; 640])?;
/// let mut pixels = [0; 3];
/// frame.read_at(1278, &mut pixels)?;
/// assert_eq!(pixels, [255, 255, 0]);
/// write!(frame.cursor()?, "P5 640 480").expect("it fits");
/// assert_eq!(frame.read(0..2)?, b"P5");
/// # Ok(())
/// # }
/// ```
pub struct SharedBytes {
    object: Arc<Object>,
    _of: PhantomData<()>,
}

handle!(SharedBytes[], commonhold_ipc::catalog::Kind::SharedBytes, "SharedBytes");

impl HasBlock for SharedBytes {
    #[inline]
    fn as_block(&self) -> Result<Block<'_>> {
        let (_, segment) = self.object.shared(Kind::SharedBytes)?;
        Ok(Block::new(segment.cells(ELEMENTS), segment.bytes().saturating_sub(ELEMENTS)))
    }
}

impl SharedBytes {
    block_methods!();

    block_lock_methods!(SharedBytes, "block");
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "SharedBytes", &self.object, self.len().ok().map(|len| len as u64))
    }
}
