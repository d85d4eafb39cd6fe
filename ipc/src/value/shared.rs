//! The traits: what may live in shared memory, and what can be written as it.
use std::fmt::{self, Formatter};

use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Fallible;
use rkyv::with::{ArchiveWith, DeserializeWith, SerializeWith};
use rkyv::{Archive, Deserialize, Place, Portable, Serialize};

use super::reader::{Check, De, Fault};
use super::schema::Schema;
use super::serialise::Ser;

/// A type whose values can live in shared memory. Derive it.
///
/// Shared are all fixed-size numbers, `bool`, `char`, `String`, `()`, `Duration`, `Option`, `Result`, `Box`, `Vec`, `VecDeque`,
/// arrays, the maps and sets of the standard library and tuples of up to twelve, of shared types; and types of your own that
/// consist of such.
///
/// So is [`Error`](crate::error::Error), which `?` makes of a `std::io::Error`: a function that reads files in another process returns
/// `commonhold::Result<T>`. Types of others cannot be made shared: share what describes them, in a type of your own.
///
/// ```
/// # // (The crates of this workspace are used through `commonhold`: its guide has this with a process around it.)
/// # use commonhold_ipc::error::{Error, ErrorKind};
/// fn lines(path: &str) -> Result<u64, Error> {
///     Ok(std::fs::read_to_string(path)?.lines().count() as u64)
/// }
/// assert_eq!(lines("/there/is/no/such").unwrap_err().kind(), ErrorKind::System);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be shared between processes",
    label = "not a shared type",
    note = "put `#[derive(commonhold::Shared)]` on a type of your own; shared types own what they hold (`String`, not `&str`; `Vec<T>`, not `&[T]`) and have no pointers into one process",
    note = "`usize` and `isize` have no fixed size in shared memory: use `u64` and `i64` (`len() as u64`)",
    note = "of a type of others share what describes it, such as an error's text (`.map_err(|error| error.to_string())`); a `std::io::Error` or a `SendError` becomes a `commonhold::Error`, which is shared, by `?`"
)]
pub trait Shared: Sized + 'static + Archive<Archived: Portable + CheckBytes<Check> + Deserialize<Self, De>> + Serialize<Ser> {
    /// What a guard on such a value derefs to: the native type for numbers, `bool` and `char`, the archived form for the rest.
    type View: ?Sized;

    /// Whether the archived form has no out-of-line part and can hold no handle, so that it may lie inline in a list's leaves.
    const FLAT: bool;

    #[doc(hidden)]
    fn view(archived: &Self::Archived) -> &Self::View;

    /// Describes the type's structure.
    #[doc(hidden)]
    fn schema(schema: &mut Schema);

    /// What `Debug` of the value itself would print.
    #[doc(hidden)]
    fn debug(archived: &Self::Archived, f: &mut Formatter<'_>) -> fmt::Result;

    #[doc(hidden)]
    fn eq_archived(archived: &Self::Archived, value: &Self) -> bool;

    /// Whether what rkyv's check leaves unchecked is as it should be: the inner structure of hash tables and B-trees in the
    /// value. Asked once after that check. Types that contain neither cost nothing.
    #[doc(hidden)]
    fn intact(archived: &Self::Archived) -> bool;

    /// What `Debug` would print of the error that this is; none if it is no error.
    #[doc(hidden)]
    fn error_text(&self) -> Option<String> {
        None
    }

    /// The whole archive, if it is short and can be said without a serialiser: numbers, and text of up to 8 bytes.
    #[doc(hidden)]
    #[inline(always)]
    fn short(&self) -> Option<ShortArchive> {
        None
    }
}

/// An archive of up to 8 bytes without handles.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct ShortArchive {
    bytes: [u8; 8],
    len: u8,
}

impl PartialEq for ShortArchive {
    #[inline(always)]
    fn eq(&self, other: &ShortArchive) -> bool {
        // As words: the bytes behind `len` are the same for the same text or number, too.
        u64::from_ne_bytes(self.bytes) == u64::from_ne_bytes(other.bytes) && self.len == other.len
    }
}

impl Eq for ShortArchive {}

impl ShortArchive {
    /// An archive of no bytes.
    pub const EMPTY: ShortArchive = ShortArchive { bytes: [0; 8], len: 0 };

    /// The lowest `len` bytes of a word.
    #[inline(always)]
    pub fn new(word: u64, len: u8) -> Self {
        ShortArchive { bytes: word.to_le_bytes(), len }
    }

    /// The archive of a text, if it is short enough: rkyv keeps up to 8 bytes in place, the rest filled with ones.
    #[inline]
    pub fn of_text(text: &str) -> Option<Self> {
        let mut bytes = [0xff; 8];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(ShortArchive { bytes, len: 8 })
    }

    /// The archive as a word, if it has all of its eight bytes.
    #[inline(always)]
    pub fn word(&self) -> Option<u64> {
        (self.len == 8).then(|| u64::from_le_bytes(self.bytes))
    }

    /// The archive as a word, whatever is behind its bytes: the same for the same number or text.
    #[inline(always)]
    pub fn padded(&self) -> u64 {
        u64::from_le_bytes(self.bytes)
    }

    /// The archive's bytes.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len.min(8))]
    }
}

/// A shared type as it lies in shared memory.
pub type Archived<T> = <T as Archive>::Archived;

/// `T` itself, `&T`, a guard on a `T`, or a borrowed form of it (`&str` for `String`, `&[T]` for `Vec<T>`).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `{T}`",
    note = "pass the value, a reference to it, or `&str` for `String` and `&[T]` for `Vec<T>`"
)]
pub trait AsShared<T: Shared>: Sized {
    /// What its giver has lost by passing it, and gets back if it was in vain: `T` itself; nothing of what is borrowed.
    #[doc(hidden)]
    type Back: 'static;

    #[doc(hidden)]
    fn back(self) -> Self::Back;

    /// Lays down the same bytes as a `T` would.
    #[doc(hidden)]
    fn write(&self, ser: &mut Ser) -> Result<(), Fault>;

    /// The same bytes as [`write`](Self::write) lays down, if they are few and there are no handles among them. All of a type's that are so short have the
    /// same length: what a thread remembers of a key it knows by the bytes alone.
    #[doc(hidden)]
    #[inline(always)]
    fn short(&self) -> Option<ShortArchive> {
        None
    }

    /// The value itself, to compare others with; none if this is another form of it.
    #[doc(hidden)]
    #[inline(always)]
    fn value(&self) -> Option<&T> {
        None
    }
}

/// Prints an archived value like the value itself.
pub struct AsDebug<'a, T: Shared>(pub &'a T::Archived);

impl<T: Shared> fmt::Debug for AsDebug<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        T::debug(self.0, f)
    }
}

/// Compiles for shared types only: what the derive calls for every field, so that the compiler points at the field.
pub fn need_shared<T: Shared>() {}

/// What a type's name is resolved by, so that it names nothing if the condition has no value.
pub struct If<const CONDITION: bool>;

/// See [`If`].
pub trait Then<T> {
    /// The type itself.
    type Type;
}

impl<T> Then<T> for If<true> {
    type Type = T;
}

/// How rkyv's derive archives a field: as its type says. By way of this type it is [`Shared`] that a field lacks, and not a trait
/// of rkyv's that nobody asked for.
pub struct Field;

impl<T: Shared> ArchiveWith<T> for Field {
    type Archived = T::Archived;
    type Resolver = T::Resolver;

    #[inline]
    fn resolve_with(field: &T, resolver: T::Resolver, out: Place<T::Archived>) {
        field.resolve(resolver, out);
    }
}

impl<T: Shared + Serialize<S>, S: Fallible + ?Sized> SerializeWith<T, S> for Field {
    #[inline]
    fn serialize_with(field: &T, serializer: &mut S) -> Result<T::Resolver, S::Error> {
        field.serialize(serializer)
    }
}

impl<A: Deserialize<T, D>, T, D: Fallible + ?Sized> DeserializeWith<A, T, D> for Field {
    #[inline]
    fn deserialize_with(field: &A, deserializer: &mut D) -> Result<T, D::Error> {
        field.deserialize(deserializer)
    }
}
