//! What can be written as a shared type without being one: references, `&str`, slices.
use rkyv::string::{ArchivedString, StringResolver};
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::{Archive, Place, Serialize};

use super::codec::{Fault, write_root};
use super::serialise::Ser;
use super::shared::{AsShared, Shared};

impl<T: Shared> AsShared<T> for T {
    #[inline]
    fn write(&self, ser: &mut Ser) -> Result<(), Fault> {
        write_root(self, ser)
    }
}

impl<T: Shared> AsShared<T> for &T {
    #[inline]
    fn write(&self, ser: &mut Ser) -> Result<(), Fault> {
        write_root(*self, ser)
    }
}

impl AsShared<String> for &str {
    #[inline]
    fn write(&self, ser: &mut Ser) -> Result<(), Fault> {
        write_root(&BorrowedText(self), ser)
    }
}

impl AsShared<String> for &&str {
    #[inline]
    fn write(&self, ser: &mut Ser) -> Result<(), Fault> {
        write_root(&BorrowedText(self), ser)
    }
}

impl<T: Shared> AsShared<Vec<T>> for &[T] {
    #[inline]
    fn write(&self, ser: &mut Ser) -> Result<(), Fault> {
        write_root(&BorrowedVec(self), ser)
    }
}

impl<T: Shared, const N: usize> AsShared<Vec<T>> for &[T; N] {
    #[inline]
    fn write(&self, ser: &mut Ser) -> Result<(), Fault> {
        write_root(&BorrowedVec(self.as_slice()), ser)
    }
}

/// A text that archives as a `String` does.
struct BorrowedText<'a>(&'a str);

impl Archive for BorrowedText<'_> {
    type Archived = ArchivedString;
    type Resolver = StringResolver;

    #[inline]
    fn resolve(&self, resolver: StringResolver, out: Place<ArchivedString>) {
        ArchivedString::resolve_from_str(self.0, resolver, out);
    }
}

impl Serialize<Ser> for BorrowedText<'_> {
    #[inline]
    fn serialize(&self, ser: &mut Ser) -> Result<StringResolver, Fault> {
        ArchivedString::serialize_from_str(self.0, ser)
    }
}

/// A slice that archives as a `Vec` does.
struct BorrowedVec<'a, T>(&'a [T]);

impl<T: Shared> Archive for BorrowedVec<'_, T> {
    type Archived = ArchivedVec<T::Archived>;
    type Resolver = VecResolver;

    #[inline]
    fn resolve(&self, resolver: VecResolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_slice(self.0, resolver, out);
    }
}

impl<T: Shared> Serialize<Ser> for BorrowedVec<'_, T> {
    #[inline]
    fn serialize(&self, ser: &mut Ser) -> Result<VecResolver, Fault> {
        ArchivedVec::serialize_from_slice(self.0, ser)
    }
}
