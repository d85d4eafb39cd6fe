//! What a handle is in shared memory: the manager it belongs to and the object's id.
use std::fmt;

use rkyv::munge::munge;
use rkyv::rend::u64_le;
use rkyv::{Place, Portable, bytecheck};

/// A handle as it lies in shared memory, whatever it is a handle on: 16 bytes.
///
/// | bytes | what |
/// |---|---|
/// | 0..8 | id of the object, little-endian |
/// | 8..16 | id of its manager, little-endian |
///
/// Any two numbers are valid here: whether there is such an object shows when the handle is used. A handle type archives to this
/// (`type Archived = ArchivedHandle; type Resolver = ()`), reports itself to the [`HandleSink`](super::HandleSink) when it is
/// serialised, [`place`](ArchivedHandle::place)s itself when it is resolved, and takes its session from the
/// [`HandleSource`](super::HandleSource) when it is deserialised. Its `FLAT` is false.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Portable, bytecheck::CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub struct ArchivedHandle {
    id: u64_le,
    manager: u64_le,
}

const _: () = assert!(size_of::<ArchivedHandle>() == 16 && align_of::<ArchivedHandle>() == 8);

impl fmt::Debug for ArchivedHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What kind of object it is, only the handle's type knows.
        write!(f, "<object {}>", self.id())
    }
}

impl ArchivedHandle {
    /// The object's id.
    #[inline]
    pub fn id(&self) -> u64 {
        self.id.to_native()
    }

    /// The id of the manager that the object belongs to.
    #[inline]
    pub fn manager(&self) -> u64 {
        self.manager.to_native()
    }

    /// Writes a handle to where rkyv wants it.
    #[inline]
    pub fn place(manager: u64, id: u64, out: Place<Self>) {
        munge!(let ArchivedHandle { id: id_out, manager: manager_out } = out);
        id_out.write(u64_le::from_native(id));
        manager_out.write(u64_le::from_native(manager));
    }
}
