//! What reading gives: [`Ref`], a guard with a hold of its own on the version it is in, and [`View`], borrowed from a snapshot.

use crate::session::{SessionCore, Stored};
use commonhold_ipc::block::Place;
use commonhold_ipc::error::{Error, Result};
use commonhold_ipc::pin::{Hold, PinTable};
use commonhold_ipc::value::{AsShared, Fault, Ser, Shared, access, to_owned};
use rkyv::util::AlignedVec;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::Arc;

/// Somebody has stored bytes that are no value of the container's type, going around this library.
#[cold]
pub(crate) fn not_this_type(error: &Error) -> ! {
    panic!("a container holds a value that is not of its type: {error}")
}

/// A value of an iteration, which a hold of the iteration's keeps.
///
/// # Panics
/// If the bytes are no `T`.
#[inline(always)]
pub(crate) fn checked<'g, T: Shared>(session: &'g SessionCore, place: &Place) -> &'g T::Archived {
    match session.value::<T>(place) {
        Ok(archived) => archived,
        Err(error) => not_this_type(&error),
    }
}

/// A guard on a value in shared memory: what it shows stays as it is while the guard lives, whatever others write, and also
/// when the manager dies.
///
/// It derefs to the number, `bool` or `char` itself, and for other types to their archived form: a `String`'s guard to
/// something like a `str`, a struct's to its fields. [`to_owned`](Ref::to_owned) copies the value out.
///
/// While a guard lives, memory of the version it is in is not used again. A guard belongs to its thread; for longer or shared
/// reading take a [`Snapshot`](crate::Snapshot).
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// use commonhold::{Manager, Shared};
/// use std::time::Duration;
///
/// #[derive(Shared, Debug, PartialEq)]
/// struct Point { x: f64, tags: Vec<String>, age: Duration }
///
/// let manager = Manager::start()?;
/// let points = manager.list([Point { x: 0.5, tags: vec!["first".into()], age: Duration::from_millis(1500) }])?;
/// let point = points.get(0)?.unwrap();
/// points.clear()?;                                      // the guard keeps what it shows
/// assert_eq!(point.tags[0], "first");
/// assert_eq!(f64::from(point.x), 0.5);                  // inside of a struct, numbers are little-endian ones
/// assert_eq!(Duration::from(point.age), Duration::from_millis(1500));       // and a time is an archived one
/// assert_eq!(format!("{point:?}"), r#"Point { x: 0.5, tags: ["first"], age: 1.5s }"#);
/// assert_eq!(point.to_owned().tags, ["first"]);
/// # Ok(())
/// # }
/// ```
pub struct Ref<'g, T: Shared> {
    held: Held<'g, T>,
}

/// Almost all guards are the first: so they are small, and made in registers.
enum Held<'g, T: Shared> {
    /// In the arena, under a hold.
    There(&'g T::Archived, Hold<'g>),
    /// All others.
    Apart(DroppedApart<Apart<'g, T>>),
}

/// What is dropped by a function of its own, so that dropping what it is seldom a part of is short.
struct DroppedApart<A>(Option<ManuallyDrop<Box<A>>>);

impl<A> DroppedApart<A> {
    fn new(value: A) -> Self {
        DroppedApart(Some(ManuallyDrop::new(Box::new(value))))
    }

    fn get(&self) -> &A {
        self.0.as_ref().expect("it is there until it is dropped")
    }

    fn get_mut(&mut self) -> &mut A {
        self.0.as_mut().expect("it is there until it is dropped")
    }

    #[cold]
    #[inline(never)]
    fn clear(&mut self) {
        drop(self.0.take().map(ManuallyDrop::into_inner));
    }
}

impl<A> Drop for DroppedApart<A> {
    #[inline(always)]
    fn drop(&mut self) {
        self.clear();
    }
}

struct Apart<'g, T: Shared> {
    value: Value<'g, T>,
    table: &'g PinTable,
    /// What the handles in a value refer to that was taken out of its container: kept until the guard goes.
    kept: Vec<Stored>,
}

enum Value<'g, T: Shared> {
    There(&'g T::Archived, #[allow(dead_code)] Hold<'g>),
    /// A copy: what the manager sent, or what a transaction has written itself. Checked when it was made.
    Here(AlignedVec<16>),
}

impl<'g, T: Shared> Ref<'g, T> {
    /// A guard on a value that `hold` keeps.
    #[inline(always)]
    pub(crate) fn new(session: &'g Arc<SessionCore>, place: &Place, hold: Hold<'g>) -> Result<Self> {
        let archived = session.value::<T>(place)?;
        Ok(Ref { held: Held::There(archived, hold) })
    }

    /// A guard on a value that was checked, and that `hold` keeps.
    #[inline(always)]
    pub(crate) fn of_checked(archived: &'g T::Archived, hold: Hold<'g>) -> Self {
        Ref { held: Held::There(archived, hold) }
    }

    /// A guard on a value of an iteration. See [`checked`].
    #[inline(always)]
    pub(crate) fn of_iteration(session: &'g Arc<SessionCore>, place: &Place, hold: &Hold<'g>) -> Self {
        // In this order: while there is nothing to be dropped by a panic, nothing has to be in memory.
        let archived = checked::<T>(session, place);
        Ref::of_checked(archived, hold.clone())
    }

    /// A guard on a copy of a value's archive.
    pub(crate) fn of_copy(session: &'g Arc<SessionCore>, bytes: &[u8]) -> Result<Self> {
        let mut copy = AlignedVec::with_capacity(bytes.len());
        copy.extend_from_slice(bytes);
        access::<T>(&copy)?;
        let apart = Apart { value: Value::Here(copy), table: &session.pins, kept: Vec::new() };
        Ok(Ref { held: Held::Apart(DroppedApart::new(apart)) })
    }

    /// The guard, which keeps these references.
    pub(crate) fn keeping(self, kept: Vec<Stored>) -> Self {
        let apart = match self.held {
            Held::There(archived, hold) => {
                let table = hold.table();
                DroppedApart::new(Apart { value: Value::There(archived, hold), table, kept })
            }
            Held::Apart(mut apart) => {
                apart.get_mut().kept.extend(kept);
                apart
            }
        };
        Ref { held: Held::Apart(apart) }
    }

    #[inline]
    fn archived(&self) -> &T::Archived {
        match &self.held {
            Held::There(archived, _) => archived,
            Held::Apart(apart) => apart.get().archived(),
        }
    }

    fn session(&self) -> &PinTable {
        match &self.held {
            Held::There(_, hold) => hold.table(),
            Held::Apart(apart) => apart.get().table,
        }
    }
}

impl<T: Shared> Apart<'_, T> {
    fn archived(&self) -> &T::Archived {
        match &self.value {
            Value::There(archived, _) => archived,
            Value::Here(copy) => access::<T>(copy).expect("the copy was checked when it was made"),
        }
    }
}

/// A value seen through a [`Snapshot`](crate::Snapshot): a plain reference with the manners of the value, `Copy`, good for as
/// long as the snapshot.
pub struct View<'s, T: Shared> {
    archived: &'s T::Archived,
    table: &'s PinTable,
}

impl<T: Shared> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Shared> Copy for View<'_, T> {}

impl<'s, T: Shared> View<'s, T> {
    #[inline(always)]
    pub(crate) fn new(session: &'s Arc<SessionCore>, place: &Place) -> Result<Self> {
        Ok(View { archived: session.value::<T>(place)?, table: &session.pins })
    }

    fn archived(&self) -> &T::Archived {
        self.archived
    }

    fn session(&self) -> &PinTable {
        self.table
    }

    /// The reference itself, for as long as the snapshot.
    pub fn into_ref(this: Self) -> &'s T::View {
        T::view(this.archived)
    }
}

macro_rules! reads_like_the_value {
    ($($name:ident)*) => {$(
        impl<T: Shared> $name<'_, T> {
            /// A copy of the value in private memory. Handles in it are connected, and hold their objects from their
            /// first use on, or from [`keep`](crate::Handle::keep): see [`Handle`](crate::Handle).
            pub fn to_owned(&self) -> T {
                // A flat value holds no handles, so needs no session.
                let session = if T::FLAT { None } else { self.session().owner() };
                to_owned::<T>(self.archived(), session)
            }
        }

        impl<T: Shared> Deref for $name<'_, T> {
            type Target = T::View;

            #[inline]
            fn deref(&self) -> &T::View {
                T::view(self.archived())
            }
        }

        impl<T: Shared> fmt::Debug for $name<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                T::debug(self.archived(), f)
            }
        }

        impl<T: Shared<View: fmt::Display>> fmt::Display for $name<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&**self, f)
            }
        }

        impl<T: Shared> PartialEq<T> for $name<'_, T> {
            fn eq(&self, other: &T) -> bool {
                T::eq_archived(self.archived(), other)
            }
        }

        impl<T: Shared> PartialEq<&T> for $name<'_, T> {
            fn eq(&self, other: &&T) -> bool {
                T::eq_archived(self.archived(), other)
            }
        }

        impl<'b, T: Shared<View: PartialEq>> PartialEq<$name<'b, T>> for $name<'_, T> {
            fn eq(&self, other: &$name<'b, T>) -> bool {
                **self == **other
            }
        }

        impl<T: Shared<View: PartialOrd<T>>> PartialOrd<T> for $name<'_, T> {
            fn partial_cmp(&self, other: &T) -> Option<std::cmp::Ordering> {
                (**self).partial_cmp(other)
            }
        }

        impl PartialEq<str> for $name<'_, String> {
            fn eq(&self, other: &str) -> bool {
                self.as_str() == other
            }
        }

        impl PartialEq<&str> for $name<'_, String> {
            fn eq(&self, other: &&str) -> bool {
                self.as_str() == *other
            }
        }

        impl<T: Shared> AsShared<T> for $name<'_, T> {
            type Back = ();

            #[inline(always)]
            fn back(self) {}

            fn write(&self, ser: &mut Ser) -> std::result::Result<(), Fault> {
                self.to_owned().write(ser)
            }
        }

        impl<T: Shared> AsShared<T> for &$name<'_, T> {
            type Back = ();

            #[inline(always)]
            fn back(self) {}

            fn write(&self, ser: &mut Ser) -> std::result::Result<(), Fault> {
                (**self).to_owned().write(ser)
            }
        }
    )*};
}
reads_like_the_value!(Ref View);

macro_rules! numbers {
    ($($number:ident)*) => {$(
        impl From<Ref<'_, $number>> for $number {
            fn from(guard: Ref<'_, $number>) -> $number {
                *guard
            }
        }

        impl From<View<'_, $number>> for $number {
            fn from(view: View<'_, $number>) -> $number {
                *view
            }
        }
    )*};
}
numbers!(u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64 bool char);

macro_rules! sums {
    ($($number:ident)*) => {$(
        impl<'g> std::iter::Sum<Ref<'g, $number>> for $number {
            fn sum<I: Iterator<Item = Ref<'g, $number>>>(guards: I) -> $number {
                guards.map(|guard| *guard).sum()
            }
        }

        impl<'s> std::iter::Sum<View<'s, $number>> for $number {
            fn sum<I: Iterator<Item = View<'s, $number>>>(views: I) -> $number {
                views.map(|view| *view).sum()
            }
        }
    )*};
}
sums!(u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64);
