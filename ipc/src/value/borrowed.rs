//! What can be written as a shared type without being one: references, `&str`, slices.
use rkyv::string::{ArchivedString, StringResolver};
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::{Archive, Place, Serialize};

use super::codec::write_root;
use super::reader::Fault;
use super::serialise::Ser;
use super::shared::{AsShared, Shared, ShortArchive};
use crate::limits::TEXT_BYTES_MAX;

const _: () = assert!(TEXT_BYTES_MAX == rkyv::string::repr::OUT_OF_LINE_CAPACITY as usize);

impl<T: Shared> AsShared<T> for T {
    type Back = T;

    #[inline(always)]
    fn back(self) -> T {
        self
    }

    #[inline]
    fn write(&self, ser: &mut Ser) -> Result<(), Fault> {
        write_root(self, ser)
    }

    #[inline(always)]
    fn short(&self) -> Option<ShortArchive> {
        T::short(self)
    }

    #[inline(always)]
    fn value(&self) -> Option<&T> {
        Some(self)
    }
}

impl<T: Shared> AsShared<T> for &T {
    type Back = ();

    #[inline(always)]
    fn back(self) {}

    #[inline]
    fn write(&self, ser: &mut Ser) -> Result<(), Fault> {
        write_root(*self, ser)
    }

    #[inline(always)]
    fn short(&self) -> Option<ShortArchive> {
        T::short(self)
    }

    #[inline(always)]
    fn value(&self) -> Option<&T> {
        Some(self)
    }
}

impl AsShared<String> for &str {
    type Back = ();

    #[inline(always)]
    fn back(self) {}

    #[inline]
    fn write(&self, ser: &mut Ser) -> Result<(), Fault> {
        write_root(&BorrowedText(self), ser)
    }

    #[inline]
    fn short(&self) -> Option<ShortArchive> {
        ShortArchive::of_text(self)
    }
}

impl AsShared<String> for &&str {
    type Back = ();

    #[inline(always)]
    fn back(self) {}

    #[inline]
    fn write(&self, ser: &mut Ser) -> Result<(), Fault> {
        write_root(&BorrowedText(self), ser)
    }

    #[inline]
    fn short(&self) -> Option<ShortArchive> {
        ShortArchive::of_text(self)
    }
}

impl<T: Shared> AsShared<Vec<T>> for &[T] {
    type Back = ();

    #[inline(always)]
    fn back(self) {}

    #[inline]
    fn write(&self, ser: &mut Ser) -> Result<(), Fault> {
        write_root(&BorrowedVec(self), ser)
    }
}

impl<T: Shared, const N: usize> AsShared<Vec<T>> for &[T; N] {
    type Back = ();

    #[inline(always)]
    fn back(self) {}

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
        if self.0.len() > TEXT_BYTES_MAX {
            return Err(ser.text_too_long(self.0.len()));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn same<T: Shared>(value: impl AsShared<T>) {
        let mut ser = Ser::buffer();
        let range = ser.put::<T>(&value).unwrap();
        let short = value.short();
        assert_eq!(short.as_ref().map(ShortArchive::bytes), Some(&ser.bytes()[range]));
    }

    #[test]
    fn short_archives_are_what_the_serialiser_writes() {
        same::<u8>(7);
        same::<u16>(0x0102);
        same::<u32>(u32::MAX);
        same::<u64>(0x0102_0304_0506_0708);
        same::<i8>(-1);
        same::<i16>(-2);
        same::<i32>(-3);
        same::<i64>(&-4);
        same::<f32>(1.5);
        same::<f64>(-0.0);
        same::<bool>(true);
        same::<char>('é');
        for text in ["", "a", "ab", "1234567", "12345678", "éééé"] {
            same::<String>(text);
            same::<String>(&text);
            same::<String>(text.to_string());
            same::<String>(&text.to_string());
        }
        assert_eq!(AsShared::<String>::short(&"123456789"), None);
    }
}
