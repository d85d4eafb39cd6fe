//! [`Array`] and [`SharedBytes`]: raw shared memory, read and written by all who have the handle. What lies where is in `ipc::array`.

mod block;
mod bytes;
mod content;
mod iter;

#[cfg(feature = "shared-memory")]
pub(crate) use block::{Block, HasBlock, block_methods};
pub use block::{ByteBlock, BytesCursor};
pub use bytes::SharedBytes;
pub use content::ArrayContent;
pub use iter::ArrayIter;

use crate::handle::{Object, debug, handle};
use crate::sync::{Acquired, LockGuard, Party, block_lock_methods};
use commonhold_ipc::array::Elements;
use commonhold_ipc::catalog::Kind;
use commonhold_ipc::error::Result;
use commonhold_ipc::map::Change;
use commonhold_ipc::value::{Number, NumberKind, Plain, text};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Sub;
use std::sync::Arc;
use std::time::Duration;

/// Plain values side by side in shared memory, which every process that has the handle reads and writes itself, without a call. Made by
/// [`Session::array`](crate::Session::array). Python's `multiprocessing.Array`, and with one element its `Value`.
///
/// It is used like a slice of atomics:
/// - An element of 8 bytes or fewer is read and written as a whole, by one instruction: it is always one that somebody has stored.
///   [`swap`](Self::swap), [`compare_exchange`](Self::compare_exchange) and, for numbers, [`fetch_add`](Self::fetch_add) and its kin change
///   it in one step.
/// - A larger one (a `u128`, a large struct) is read and written in words of 8 bytes. Each field of up to 8 bytes is whole, but of two
///   fields one may be older than the other if somebody writes meanwhile. Who wants them together takes the lock, and so does who
///   writes: see [`with_lock`](Self::with_lock). To change such an element in one step is refused by the compiler.
/// - `get` is an acquire, `set` a release, what does both is both: who sees an element sees what its writer did before it wrote. There
///   is no one order of changes to different elements beyond that.
/// - **Death**: a process that is killed has stored an element of one word, or not. In a larger one it may leave some words new and
///   some old; if it had the lock, whoever takes that next is told. What is in the array stays there.
/// - Not like a [`List`](crate::List): it has no versions, so it is not part of snapshots and transactions, its length is fixed, and its
///   elements are all of one fixed size. In return a write costs what a store to memory costs.
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// use commonhold::{Plain, Shared};
///
/// #[derive(Shared, Plain, Clone, Copy, Debug, PartialEq)]
/// struct Cell { hits: u32, hot: bool }
///
/// let manager = commonhold::Manager::start()?;
/// let squares = manager.array::<i64>([0, 1, 4, 9])?;    // a handle: pass it to children, store it in a dict
/// squares.set(1, 7)?;
/// assert_eq!(squares.fetch_add(1, 3)?, 7);              // atomic, from any process
/// assert_eq!(squares.to_vec()?, [0, 10, 4, 9]);
/// let grid = manager.array::<Cell>(1000)?;              // zeros
/// grid.set(999, Cell { hits: 3, hot: true })?;
/// assert_eq!(grid.get(999)?, Cell { hits: 3, hot: true });
/// assert!(grid.get(1000).is_err());
/// # Ok(())
/// # }
/// ```
pub struct Array<T: Plain> {
    object: Arc<Object>,
    _of: PhantomData<fn() -> T>,
}

handle!(Array[T: Plain], commonhold_ipc::catalog::Kind::Array, "Array");

impl<T: Plain> Array<T> {
    #[inline(always)]
    fn elements(&self) -> Result<Elements<'_, T>> {
        Ok(Elements::new(self.object.shared(Kind::Array)?.1))
    }

    /// How many elements there are.
    ///
    /// # Errors
    /// Disconnected, when the manager has ended; `Full` if the system has no memory for it when this process first uses it. The same
    /// holds for every other method.
    pub fn len(&self) -> Result<usize> {
        Ok(self.elements()?.len())
    }

    /// Whether there are no elements.
    ///
    /// # Errors
    /// As [`len`](Self::len).
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// An element (an acquire).
    ///
    /// # Errors
    /// `OutOfRange` if there is no such element; `Corrupt` if a process has written over it with bits that are no `T`: possible only
    /// where not all bits are, as of `bool`, and mended by setting it again. The same holds for every other method.
    #[inline]
    pub fn get(&self, index: usize) -> Result<T> {
        self.elements()?.get(index)
    }

    /// Replaces an element (a release).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    #[inline]
    pub fn set(&self, index: usize, value: T) -> Result<()> {
        self.elements()?.set(index, value)
    }

    /// Replaces an element, and returns what it was (an acquire and a release).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    #[inline]
    pub fn swap(&self, index: usize, value: T) -> Result<T> {
        self.elements()?.change(index, Change::Swap, value)
    }

    /// Replaces an element if it is `expected` (an acquire, and a release if it does). `Err` holds what it is instead. Compared are bits: so
    /// 0.0 is not −0.0, and a NaN is one with the same bits.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// # let manager = commonhold::Manager::start()?;
    /// let seats = manager.array::<u32>(3)?;
    /// assert_eq!(seats.compare_exchange(1, 0, 42)?, Ok(0));         // it was free, and is ours now
    /// assert_eq!(seats.compare_exchange(1, 0, 43)?, Err(42));
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn compare_exchange(&self, index: usize, expected: T, new: T) -> Result<std::result::Result<T, T>> {
        self.elements()?.compare_exchange(index, expected, new)
    }

    /// Replaces an element by what `change` makes of it, in one step: `change` runs again if somebody else was quicker. `Err` holds what the
    /// element is if `change` has nothing to put there. Otherwise what it was.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    #[inline]
    pub fn fetch_update(&self, index: usize, mut change: impl FnMut(T) -> Option<T>) -> Result<std::result::Result<T, T>> {
        let elements = self.elements()?;
        let mut now = elements.get(index)?;
        loop {
            let Some(new) = change(now) else { return Ok(Err(now)) };
            match elements.compare_exchange(index, now, new)? {
                Ok(old) => return Ok(Ok(old)),
                Err(found) => now = found,
            }
        }
    }

    /// Copies elements out, from a position on, as many as `out` holds. Each by itself is as [`get`](Self::get) would give it; two of them may
    /// be of different moments.
    ///
    /// # Errors
    /// As [`get`](Self::get): `OutOfRange` if there are not as many, and then `out` is as it was.
    pub fn read_into(&self, start: usize, out: &mut [T]) -> Result<()> {
        self.elements()?.read(start, out)
    }

    /// Copies elements in, from a position on. Others see them appear one by one, in no order.
    ///
    /// # Errors
    /// As [`get`](Self::get): `OutOfRange` if there are not as many, and then nothing was written.
    pub fn write_from(&self, start: usize, values: &[T]) -> Result<()> {
        self.elements()?.write(start, values)
    }

    /// A copy of all elements.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn to_vec(&self) -> Result<Vec<T>> {
        let elements = self.elements()?;
        let mut all = vec![zero::<T>(); elements.len()];
        elements.read(0, &mut all)?;
        Ok(all)
    }

    /// Replaces all elements.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn fill(&self, value: T) -> Result<()> {
        self.elements()?.fill(value)
    }

    /// The elements one after the other, each as it is when it is asked for.
    ///
    /// # Errors
    /// As [`get`](Self::get), each time.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// # let manager = commonhold::Manager::start()?;
    /// let halves = manager.array([0.5, 1.5, 2.5])?;
    /// assert_eq!(halves.iter()?.sum::<commonhold::Result<f64>>()?, 4.5);
    /// # Ok(())
    /// # }
    /// ```
    pub fn iter(&self) -> Result<ArrayIter<'_, T>> {
        Ok(ArrayIter::new(self.elements()?))
    }

    block_lock_methods!(Array, "array");
}

/// The value whose bits are all zero: every plain type has one.
fn zero<T: Plain>() -> T {
    let zeros = [0; commonhold_ipc::limits::ARRAY_ELEMENT_BYTES_MAX];
    T::take(&zeros).unwrap_or_else(|| unreachable!("all zeros are a value of every plain type"))
}

/// An integer of up to 64 bits or a `bool`: what bits can be set in, in one step.
#[diagnostic::on_unimplemented(
    message = "the bits of a `{Self}` cannot be set in one step",
    note = "those of the integers from `u8` to `i64` and of `bool` can; of others use `fetch_update` or `with_lock`"
)]
pub trait Bits: Plain {}

macro_rules! bits {
    ($($number:ident)*) => {$(impl Bits for $number {})*};
}

bits!(u8 u16 u32 u64 i8 i16 i32 i64 bool);

/// Numbers are added to in one step, by one instruction if they are integers. All are an acquire and a release.
impl<T: Plain + Number + PartialOrd + Sub<Output = T>> Array<T> {
    /// Whether a sum is more than an instruction can make.
    const IS_FLOAT: bool = matches!(T::KIND, NumberKind::F32 | NumberKind::F64);

    /// Adds to an element and returns what it was. Integers wrap around at their type's end, as those of the standard library's
    /// atomics do.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    #[inline]
    pub fn fetch_add(&self, index: usize, amount: T) -> Result<T> {
        if Self::IS_FLOAT {
            return self.fetch_update(index, |old| old.add_checked(amount)).map(either);
        }
        self.elements()?.change(index, Change::Add, amount)
    }

    /// Subtracts from an element and returns what it was. Integers wrap around.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    #[inline]
    pub fn fetch_sub(&self, index: usize, amount: T) -> Result<T> {
        if Self::IS_FLOAT {
            return self.fetch_update(index, |old| Some(old - amount)).map(either);
        }
        self.elements()?.change(index, Change::Sub, amount)
    }

    /// Replaces an element by `value` if that is greater, and returns what it was.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    #[inline]
    pub fn fetch_max(&self, index: usize, value: T) -> Result<T> {
        self.fetch_update(index, |old| (value > old).then_some(value)).map(either)
    }

    /// Replaces an element by `value` if that is less, and returns what it was.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    #[inline]
    pub fn fetch_min(&self, index: usize, value: T) -> Result<T> {
        self.fetch_update(index, |old| (value < old).then_some(value)).map(either)
    }
}

/// What an element was, whether it was changed or not.
fn either<T>(old: std::result::Result<T, T>) -> T {
    old.unwrap_or_else(|old| old)
}

/// Integers also by their bits, and backwards.
impl<T: Bits> Array<T> {
    /// Keeps those bits of an element that are set in `mask`, and returns what it was.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    #[inline]
    pub fn fetch_and(&self, index: usize, mask: T) -> Result<T> {
        self.elements()?.change(index, Change::And, mask)
    }

    /// Sets bits of an element, and returns what it was.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    #[inline]
    pub fn fetch_or(&self, index: usize, bits: T) -> Result<T> {
        self.elements()?.change(index, Change::Or, bits)
    }

    /// Turns bits of an element over, and returns what it was.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    #[inline]
    pub fn fetch_xor(&self, index: usize, bits: T) -> Result<T> {
        self.elements()?.change(index, Change::Xor, bits)
    }
}

/// Prints the elements as they are now. If they cannot be read, the reason.
impl<T: Plain + fmt::Debug> fmt::Display for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_vec() {
            Ok(elements) => f.debug_list().entries(elements).finish(),
            Err(error) => write!(f, "<{error}>"),
        }
    }
}

impl<T: Plain> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, text::<Self>(), &self.object, self.len().ok().map(|len| len as u64))
    }
}
