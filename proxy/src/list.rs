//! [`List`]: a shared sequence.

use crate::guard::{Ref, View, not_this_type};
use crate::handle::{Handle, Object, debug, handle, len_of};
use crate::retry::{Attempt, HasTicket, until_done};
use crate::session::{SessionCore, Stored};
use crate::watch;
use crate::write::{Committed, lent, with_element, with_value};
use commonhold_ipc::catalog::Record;
#[cfg(doc)]
use commonhold_ipc::error::Error;
use commonhold_ipc::error::{ErrorKind, Result};
use commonhold_ipc::pin::Hold;
use commonhold_ipc::sequence::{self, Elements};
use commonhold_ipc::value::{AsShared, Shared, text};
use commonhold_ipc::wire::commit::{CommitWriter, Condition, END, Op, Values};
use commonhold_ipc::wire::{Payload, Source, Words, malformed};
use std::cmp::Ordering;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

/// A shared list. Made by [`Session::list`](crate::Session::list).
///
/// Every method is atomic. Reads happen in place, in shared memory, without a call. Reading, inserting and removing anywhere
/// take a time that grows with the logarithm of the length.
///
/// Every method fails with [`is_disconnected`](Error::is_disconnected) when the manager is gone, with `UsedAfterFork` in a
/// forked child, and with `NotFound` when the object is gone.
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// use commonhold::{List, Manager};
///
/// let manager = Manager::start()?;
/// let list: List<i32> = manager.list([3, 1, 2])?;
/// list.push(5)?;
/// list.insert(0, 4)?;
/// assert_eq!(list.to_string(), "[4, 3, 1, 2, 5]");
/// assert_eq!(list.pop()?.unwrap(), 5);
/// list.sort()?;
/// assert_eq!(list.slice(1..3)?, [2, 3]);
/// assert_eq!(list.iter()?.sum::<i32>(), 10);
/// assert!(list.get(100)?.is_none());
/// # Ok(())
/// # }
/// ```
pub struct List<T: Shared> {
    object: Arc<Object>,
    _of: PhantomData<fn() -> T>,
}

handle!(List[T: Shared], commonhold_ipc::catalog::Kind::List, "List");

/// Bytes of an element that lies in its leaf; 0 if elements of this type are blocks of their own.
pub(crate) fn inline_bytes<T: Shared>() -> u32 {
    const {
        assert!(
            size_of::<T::Archived>() > 0,
            "a list of values without any bytes, such as `()`, holds nothing but its length: use a `Counter`"
        )
    };
    let size = size_of::<T::Archived>();
    if T::FLAT && size <= sequence::INLINE_BYTES_MAX as usize { size as u32 } else { 0 }
}

/// A position as it travels: the largest number stands for the end there, and for no position here.
pub(crate) fn sent(position: usize) -> u64 {
    (position as u64).min(END - 1)
}

/// A range of positions, cut to a list's length.
pub(crate) fn positions(range: impl RangeBounds<usize>, len: u64) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start as u64,
        Bound::Excluded(&start) => (start as u64).saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&end) => (end as u64).saturating_add(1),
        Bound::Excluded(&end) => end as u64,
        Bound::Unbounded => len,
    };
    let start = start.min(len);
    start..end.clamp(start, len)
}

/// Values of a splice on their way.
#[derive(Default)]
pub(crate) struct Run {
    bytes: Vec<u8>,
    count: u32,
    inline: bool,
    uploads: Vec<u64>,
    stored: Vec<Stored>,
}

impl Run {
    pub(crate) fn new<T: Shared>() -> Self {
        Run { inline: inline_bytes::<T>() > 0, ..Run::default() }
    }

    pub(crate) fn add<T: Shared>(&mut self, session: &Arc<SessionCore>, value: &impl AsShared<T>) -> Result<()> {
        with_element::<T, _>(session, value, |value, ser| {
            self.stored.extend(value.stored(session)?);
            let payload = value.payload(ser);
            match payload {
                Payload { source: Source::Inline(bytes), .. } if self.inline => self.bytes.extend_from_slice(bytes),
                _ => payload.write(&mut self.bytes),
            }
            self.uploads.extend(value.upload());
            self.count += 1;
            Ok(())
        })
    }

    pub(crate) fn values(&self) -> Values<'_> {
        if self.inline { Values::Packed(&self.bytes) } else { Values::Each(self.count, &self.bytes) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes that it adds to its request.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The values in it that were sent ahead.
    pub(crate) fn uploads(&self) -> &[u64] {
        &self.uploads
    }

    /// What must be held until the values are stored.
    pub(crate) fn take_stored(&mut self) -> Vec<Stored> {
        std::mem::take(&mut self.stored)
    }
}

impl<T: Shared> List<T> {
    /// The element at a position, read in place; none beyond the end.
    ///
    /// # Errors
    /// `Corrupt` if the bytes stored there are no `T`.
    #[inline]
    pub fn get(&self, position: usize) -> Result<Option<Ref<'_, T>>> {
        let (session, hold, record) = self.object.look()?;
        match sequence::find(&session.arena, &record, position as u64) {
            None => Ok(None),
            Some(place) => Ref::new(session, &place, hold).map(Some),
        }
    }

    /// Number of elements.
    pub fn len(&self) -> Result<usize> {
        Ok(self.object.look()?.2.len as usize)
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Replaces the element at a position; returns a guard on the one that was there.
    ///
    /// # Errors
    /// `OutOfRange` if there is no such position: nothing is changed.
    pub fn set(&self, position: usize, value: impl AsShared<T>) -> Result<Ref<'_, T>> {
        let session = self.object.ready()?;
        with_element::<T, _>(session, &value, |value, ser| {
            let op = |value| Op::ListSet { object: self.id(), position: position as u64, value, lend: true };
            session.op_with((value, ser), 0, op, |version, outcome| lent(session, version, outcome))?.ok_or_else(|| malformed("reply"))
        })
    }

    /// Adds an element at the end.
    pub fn push(&self, value: impl AsShared<T>) -> Result<()> {
        self.put_at(END, &value)
    }

    /// Puts an element before the one at a position.
    ///
    /// # Errors
    /// `OutOfRange` if the position is behind the end.
    pub fn insert(&self, position: usize, value: impl AsShared<T>) -> Result<()> {
        self.put_at(sent(position), &value)
    }

    fn put_at(&self, position: u64, value: &impl AsShared<T>) -> Result<()> {
        let session = self.object.ready()?;
        if inline_bytes::<T>() == 0 {
            return with_element::<T, _>(session, value, |value, ser| session.put_element(self.id(), position, value, ser));
        }
        let put =
            |bytes: &[u8]| session.op_quietly(&Op::ListSplice { object: self.id(), position, remove: 0, values: Values::Packed(bytes) });
        if let Some(short) = value.short() {
            return put(short.bytes());
        }
        with_element::<T, _>(session, value, |value, ser| match value.payload(ser).source {
            Source::Inline(bytes) => put(bytes),
            Source::Upload(_) => unreachable!("an element that lies in its leaf is small"),
        })
    }

    fn splice_run(&self, position: u64, remove: u64, run: &Run) -> Result<()> {
        let session = self.object.ready()?;
        let done = session.op_quietly(&Op::ListSplice { object: self.id(), position, remove, values: run.values() });
        run.discard_unless(done, session)?;
        Ok(())
    }

    /// Takes the last element out and returns a guard on it.
    pub fn pop(&self) -> Result<Option<Ref<'_, T>>> {
        self.take(END)
    }

    /// Takes the element at a position out and returns a guard on it. `None`: there is no such position.
    pub fn remove(&self, position: usize) -> Result<Option<Ref<'_, T>>> {
        self.take(sent(position))
    }

    fn take(&self, position: u64) -> Result<Option<Ref<'_, T>>> {
        let session = self.object.ready()?;
        let op = Op::ListRemove { object: self.id(), position, lend: true };
        session.op_then(&op, |version, outcome| lent(session, version, outcome))
    }

    /// Adds many elements at the end at once: all of them, or none.
    ///
    /// # Errors
    /// `TooLarge` if they are more than fits into one request (64 MiB; values above 64 KiB do not count).
    pub fn extend<A: AsShared<T>>(&self, values: impl IntoIterator<Item = A>) -> Result<()> {
        self.splice_at(END, 0, values)
    }

    /// Replaces the elements of a range by others, of whatever number, at once.
    ///
    /// # Errors
    /// As [`extend`](Self::extend); `OutOfRange` if the range begins behind the end.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// # let manager = commonhold::Manager::start()?;
    /// let list = manager.list(["a".to_string(), "b".to_string(), "c".to_string()])?;
    /// list.splice(0..2, ["x", "y", "z"])?;
    /// assert_eq!(list.to_owned()?, ["x", "y", "z", "c"]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn splice<A: AsShared<T>>(&self, range: impl RangeBounds<usize>, values: impl IntoIterator<Item = A>) -> Result<()> {
        let range = positions(range, u64::MAX - 1);
        self.splice_at(range.start, range.end - range.start, values)
    }

    fn splice_at<A: AsShared<T>>(&self, position: u64, remove: u64, values: impl IntoIterator<Item = A>) -> Result<()> {
        let session = self.object.ready()?;
        let mut run = Run::new::<T>();
        for value in values {
            run.add::<T>(session, &value)?;
        }
        if run.is_empty() && remove == 0 { Ok(()) } else { self.splice_run(position, remove, &run) }
    }

    /// Keeps the first `len` elements.
    pub fn truncate(&self, len: usize) -> Result<()> {
        if len >= self.len()? {
            return Ok(());
        }
        match self.splice_run(len as u64, u64::MAX, &Run::new::<T>()) {
            // Somebody has made it shorter still meanwhile.
            Err(error) if error.kind() == ErrorKind::OutOfRange => Ok(()),
            done => done,
        }
    }

    /// Takes all elements out.
    pub fn clear(&self) -> Result<()> {
        self.object.ready()?.op_quietly(&Op::Clear { object: self.id() })
    }

    /// Exchanges two elements.
    ///
    /// # Errors
    /// `OutOfRange` if one of the positions is beyond the end.
    pub fn swap(&self, a: usize, b: usize) -> Result<()> {
        self.object.ready()?.op_quietly(&Op::ListSwap { object: self.id(), a: a as u64, b: b as u64 })
    }

    /// Turns the list around.
    pub fn reverse(&self) -> Result<()> {
        self.object.ready()?.op_quietly(&Op::ListReverse { object: self.id() })
    }

    /// Whether an element equals this value: a `T`, `&T`, a guard, or a borrowed form of it such as `&str`.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// # let manager = commonhold::Manager::start()?;
    /// let words = manager.list(["fig".to_string(), "kiwi".to_string(), "fig".to_string()])?;
    /// assert!(words.contains("kiwi")? && !words.contains("plum")?);
    /// assert_eq!((words.index_of("fig")?, words.count("fig")?), (Some(0), 2));
    /// assert!(words.remove_value("kiwi")?);
    /// assert_eq!(words.to_string(), r#"["fig", "fig"]"#);
    /// # Ok(())
    /// # }
    /// ```
    pub fn contains(&self, value: impl AsShared<T>) -> Result<bool> {
        Ok(self.index_of(value)?.is_some())
    }

    /// The position of the first element that equals this value, in any form as with [`contains`](Self::contains).
    pub fn index_of(&self, value: impl AsShared<T>) -> Result<Option<usize>> {
        with_value::<T, _>(self.object.ready()?, &value, |value| self.find(value))
    }

    fn find(&self, value: &T) -> Result<Option<usize>> {
        let (session, _hold, record) = self.object.look()?;
        for (position, place) in Elements::new(&session.arena, &record, 0..record.len).enumerate() {
            if T::eq_archived(session.value::<T>(&place)?, value) {
                return Ok(Some(position));
            }
        }
        Ok(None)
    }

    /// How many elements equal this value, in any form as with [`contains`](Self::contains).
    pub fn count(&self, value: impl AsShared<T>) -> Result<usize> {
        with_value::<T, _>(self.object.ready()?, &value, |value| {
            let (session, _hold, record) = self.object.look()?;
            let mut count = 0;
            for place in Elements::new(&session.arena, &record, 0..record.len) {
                count += usize::from(T::eq_archived(session.value::<T>(&place)?, value));
            }
            Ok(count)
        })
    }

    /// Takes out the first element that equals this value, in any form as with [`contains`](Self::contains). Whether there was one.
    pub fn remove_value(&self, value: impl AsShared<T>) -> Result<bool> {
        let session = self.object.ready()?;
        with_value::<T, _>(session, &value, |value| until_done(session, |ticket| self.remove_first(session, value, ticket)))
    }

    fn remove_first(&self, session: &SessionCore, value: &T, ticket: HasTicket) -> Result<Attempt<bool>> {
        let Some(position) = self.find(value)? else { return Ok(Attempt::Done(false)) };
        let (_, _hold, record) = self.object.look()?;
        let place = sequence::find(&session.arena, &record, position as u64);
        // Between the two looks the list may have changed.
        let Some(place) = place else { return Ok(Attempt::Conflict) };
        if !T::eq_archived(session.value::<T>(&place)?, value) {
            return Ok(Attempt::Conflict);
        }
        let mut commit = CommitWriter::default();
        commit.condition(&Condition::Unmodified { object: self.id(), modified: record.modified });
        commit.op(&Op::ListRemove { object: self.id(), position: position as u64, lend: false });
        Ok(match session.commit_with(&mut commit, ticket)? {
            Committed::Done => Attempt::Done(true),
            Committed::Conflict => Attempt::Conflict,
        })
    }

    /// Sorts the list, stably, as `T`'s order has it.
    pub fn sort(&self) -> Result<()>
    where
        T: Ord,
    {
        self.sort_by(T::cmp)
    }

    /// Sorts the list, stably, by an order of the caller's. The elements are copied out for comparing; only their new order
    /// travels to the manager, and applies if the list is still what was sorted. Else it is sorted again.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// # let manager = commonhold::Manager::start()?;
    /// let words = manager.list(["fig".to_string(), "apple".to_string(), "kiwi".to_string()])?;
    /// words.sort_by(|a, b| b.len().cmp(&a.len()))?;
    /// assert_eq!(words.to_owned()?, ["apple", "kiwi", "fig"]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn sort_by(&self, mut compare: impl FnMut(&T, &T) -> Ordering) -> Result<()> {
        let session = self.object.ready()?;
        until_done(session, |ticket| {
            let (_, _hold, record) = self.object.look()?;
            let owner = session.pins.owner();
            let mut elements: Vec<(u64, T)> = Vec::with_capacity(record.len as usize);
            for (position, place) in (0..).zip(Elements::new(&session.arena, &record, 0..record.len)) {
                let archived = session.value::<T>(&place)?;
                elements.push((position, commonhold_ipc::value::to_owned::<T>(archived, owner.clone())));
            }
            elements.sort_by(|(_, a), (_, b)| compare(a, b));
            let from: Vec<u8> = elements.iter().flat_map(|(position, _)| position.to_le_bytes()).collect();
            let mut commit = CommitWriter::default();
            commit.condition(&Condition::Unmodified { object: self.id(), modified: record.modified });
            commit.op(&Op::ListPermute { object: self.id(), from: Words::new(&from).ok_or_else(|| malformed("permutation"))? });
            Ok(match session.commit_with(&mut commit, ticket)? {
                Committed::Done => Attempt::Done(()),
                Committed::Conflict => Attempt::Conflict,
            })
        })
    }

    /// The elements of a range of positions (cut to the list's length), under one guard.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// # let manager = commonhold::Manager::start()?;
    /// let squares = manager.list((0..10).map(|i| i * i))?;
    /// let part = squares.slice(2..5)?;
    /// squares.clear()?;
    /// assert_eq!(part, [4, 9, 16]);                         // what it was when we looked
    /// assert_eq!(part.iter().map(|n| *n).max(), Some(16));
    /// # Ok(())
    /// # }
    /// ```
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Result<Slice<'_, T>> {
        let (session, hold, record) = self.object.look()?;
        let positions = positions(range, record.len);
        Ok(Slice { session, _hold: hold, record, positions, _of: PhantomData })
    }

    /// All elements of the newest version, in order, from both ends, read in place. Later changes do not show.
    ///
    /// # Panics
    /// The iterator panics at an element whose bytes are no `T`, which only a program that goes around this library can have
    /// stored; [`get`](Self::get) returns an error there.
    pub fn iter(&self) -> Result<Iter<'_, T>> {
        let (session, hold, record) = self.object.look()?;
        let elements = Elements::new(&session.arena, &record, 0..record.len);
        Ok(Iter { session, hold, elements, _of: PhantomData })
    }

    /// A copy of everything in private memory.
    pub fn to_owned(&self) -> Result<Vec<T>> {
        Ok(self.iter()?.map(|element| element.to_owned()).collect())
    }

    watch::methods!();
}

impl Run {
    /// If the commit was never sent, the manager must hear that nobody will use these uploads.
    fn discard_unless<R>(&self, done: Result<R>, session: &SessionCore) -> Result<R> {
        if let Err(error) = &done
            && !error.is_disconnected()
            && !self.uploads.is_empty()
        {
            session.tell(commonhold_ipc::wire::Call::Discard, &self.uploads);
        }
        done
    }
}

/// The elements of a list in one version. See [`List::iter`].
pub struct Iter<'g, T: Shared> {
    session: &'g Arc<SessionCore>,
    hold: Hold<'g>,
    elements: Elements,
    _of: PhantomData<fn() -> T>,
}

impl<T: Shared> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<ListIter with {} elements left>", self.elements.len())
    }
}

impl<'g, T: Shared> Iterator for Iter<'g, T> {
    type Item = Ref<'g, T>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.elements.next().map(|place| Ref::of_iteration(self.session, &place, &self.hold))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.elements.size_hint()
    }

    fn nth(&mut self, n: usize) -> Option<Self::Item> {
        self.elements.nth(n).map(|place| Ref::of_iteration(self.session, &place, &self.hold))
    }
}

impl<T: Shared> DoubleEndedIterator for Iter<'_, T> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.elements.next_back().map(|place| Ref::of_iteration(self.session, &place, &self.hold))
    }
}

impl<T: Shared> ExactSizeIterator for Iter<'_, T> {}

/// A range of a list in one version, held by one guard. See [`List::slice`].
pub struct Slice<'g, T: Shared> {
    session: &'g Arc<SessionCore>,
    _hold: Hold<'g>,
    record: Record,
    positions: Range<u64>,
    _of: PhantomData<fn() -> T>,
}

impl<T: Shared> Slice<'_, T> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        (self.positions.end - self.positions.start) as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// The element at a position of the slice.
    pub fn get(&self, position: usize) -> Option<View<'_, T>> {
        self.iter().nth(position)
    }

    /// One after the other, from both ends.
    ///
    /// # Panics
    /// As [`List::iter`].
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = View<'_, T>> + ExactSizeIterator {
        Elements::new(&self.session.arena, &self.record, self.positions.clone()).map(|place| view(self.session, &place))
    }

    /// A copy in private memory.
    pub fn to_vec(&self) -> Vec<T> {
        self.iter().map(|element| element.to_owned()).collect()
    }
}

/// A view of a value that something outside of it holds.
#[inline]
pub(crate) fn view<'s, T: Shared>(session: &'s Arc<SessionCore>, place: &commonhold_ipc::block::Place) -> View<'s, T> {
    match View::new(session, place) {
        Ok(view) => view,
        Err(error) => not_this_type(&error),
    }
}

impl<T: Shared> fmt::Debug for Slice<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T: Shared> fmt::Display for Slice<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl<T: Shared> PartialEq<[T]> for Slice<'_, T> {
    fn eq(&self, other: &[T]) -> bool {
        self.len() == other.len() && self.iter().zip(other).all(|(a, b)| a == *b)
    }
}

impl<T: Shared, const N: usize> PartialEq<[T; N]> for Slice<'_, T> {
    fn eq(&self, other: &[T; N]) -> bool {
        *self == other[..]
    }
}

impl<T: Shared> PartialEq<Vec<T>> for Slice<'_, T> {
    fn eq(&self, other: &Vec<T>) -> bool {
        *self == other[..]
    }
}

/// Prints like Python's list. If it cannot be read, the reason.
impl<T: Shared> fmt::Display for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.iter() {
            Ok(elements) => f.debug_list().entries(elements).finish(),
            Err(error) => write!(f, "<{error}>"),
        }
    }
}

impl<T: Shared> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, text::<Self>(), &self.object, len_of(&self.object))
    }
}
