//! [`Batch`]: many writes, one message, one commit.

use crate::dict::Dict;
use crate::handle::Handle;
use crate::list::{List, Run, inline_bytes, sent};
use crate::payload::Value as Outgoing;
use crate::session::{SessionCore, Stored};
use crate::single::{Counter, Value};
use crate::write::{with_element, with_entry, with_key};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::FRAME_BYTES_MAX;
use commonhold_ipc::value::{AsShared, Key, Number, Shared};
use commonhold_ipc::wire::Call;
use commonhold_ipc::wire::commit::{CommitWriter, END, Mark as OpsMark, Op, Values};
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// What has entries or elements: [`Transaction::len`](crate::Transaction::len) counts them, [`Transaction::clear`](crate::Transaction::clear) takes them out.
pub trait Countable: Handle {}
impl<K: Key, V: Shared> Countable for Dict<K, V> {}
impl<T: Shared> Countable for List<T> {}

/// Writes that are collected and then happen together, or not at all. Made by [`Session::batch`](crate::Session::batch).
///
/// A batch does not read: for writes that depend on what is there, see [`Transaction`](crate::Transaction).
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// # let manager = commonhold::Manager::start()?;
/// let totals = manager.dict::<String, u64>([])?;
/// let log = manager.list::<String>([])?;
/// manager.batch(|batch| {
///     for word in ["the", "cat", "the"] {
///         batch.add(&totals, word, 1)?;
///     }
///     batch.push(&log, "three words")
/// })?;
/// assert_eq!(*totals.get("the")?.unwrap(), 2);
/// # Ok(())
/// # }
/// ```
pub struct Batch<'s> {
    session: Arc<SessionCore>,
    _of: PhantomData<&'s SessionCore>,
    commit: RefCell<CommitWriter>,
    uploads: RefCell<Vec<u64>>,
    stored: RefCell<Vec<Stored>>,
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Batch of {} writes>", self.commit.borrow().ops())
    }
}

impl<'s> Batch<'s> {
    pub(crate) fn new(session: &Arc<SessionCore>) -> Self {
        Batch {
            session: session.clone(),
            _of: PhantomData,
            commit: RefCell::default(),
            uploads: RefCell::default(),
            stored: RefCell::default(),
        }
    }

    #[inline]
    fn check(&self, handle: &impl Handle) -> Result<u64> {
        if handle.object().manager() != self.session.manager() {
            return Err(another_managers());
        }
        handle.object().ready()?;
        Ok(handle.id())
    }

    /// Until the commit: what was sent ahead for a value, and the objects that it has handles on.
    #[inline]
    fn keep(&self, value: &Outgoing) -> Result<()> {
        if value.is_plain() { Ok(()) } else { self.keep_all(value) }
    }

    fn keep_all(&self, value: &Outgoing) -> Result<()> {
        self.uploads.borrow_mut().extend(value.upload());
        let stored = value.stored(&self.session)?;
        self.stored.borrow_mut().extend(stored);
        Ok(())
    }

    #[inline]
    fn op(&self, op: &Op<'_>) -> Result<()> {
        let mut commit = self.commit.borrow_mut();
        commit.op(op);
        if commit.len() > FRAME_BYTES_MAX { Err(too_long()) } else { Ok(()) }
    }

    /// Bytes so far, for who fills a container in several commits.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.commit.borrow().len()
    }

    /// How much has been collected so far.
    #[inline]
    pub(crate) fn mark(&self) -> Mark {
        Mark { ops: self.commit.borrow().mark(), uploads: self.uploads.borrow().len(), stored: self.stored.borrow().len() }
    }

    /// Takes back what has been collected since.
    pub(crate) fn cut(&self, mark: &Mark) {
        self.commit.borrow_mut().cut(&mark.ops);
        let unused = self.uploads.borrow_mut().split_off(mark.uploads);
        if !unused.is_empty() {
            self.session.tell(Call::Discard, &unused);
        }
        self.stored.borrow_mut().truncate(mark.stored);
    }

    /// The operations, and what must be held until they have been done. What was sent ahead for them is theirs from now on.
    pub(crate) fn into_parts(self) -> (CommitWriter, Vec<Stored>) {
        self.forget_uploads();
        (self.commit.take(), self.stored.take())
    }

    /// Values that were sent ahead so far.
    #[inline]
    pub(crate) fn uploads(&self) -> usize {
        self.uploads.borrow().len()
    }

    pub(crate) fn commit_mut(&self) -> std::cell::RefMut<'_, CommitWriter> {
        self.commit.borrow_mut()
    }

    /// Sets the value of a key.
    pub fn insert<K: Key, V: Shared>(&self, dict: &Dict<K, V>, key: impl AsShared<K>, value: impl AsShared<V>) -> Result<()> {
        let object = self.check(dict)?;
        let align = crate::dict::value_align::<K, V>();
        with_entry::<K, V, _>(&self.session, align, &key, &value, |key, value, ser| {
            self.keep(value)?;
            self.op(&Op::Insert { object, key, value: value.payload(ser), only_if_absent: false, lend: false })
        })
    }

    /// Takes a key out, if it is there.
    pub fn remove<K: Key, V: Shared>(&self, dict: &Dict<K, V>, key: impl AsShared<K>) -> Result<()> {
        let object = self.check(dict)?;
        with_key::<K, _>(&key, |key| self.op(&Op::Remove { object, key, lend: false }))
    }

    /// Adds to the number of a key, which counts as 0 if it is not there.
    pub fn add<K: Key, V: Number>(&self, dict: &Dict<K, V>, key: impl AsShared<K>, amount: V) -> Result<()> {
        let object = self.check(dict)?;
        with_key::<K, _>(&key, |key| {
            let mut ser = commonhold_ipc::value::Ser::buffer();
            let range = ser.put::<V>(&amount)?;
            self.op(&Op::Add { object, key, number: V::KIND.code(), delta: &ser.bytes()[range] })
        })
    }

    /// Adds an element at the end of a list.
    pub fn push<T: Shared>(&self, list: &List<T>, value: impl AsShared<T>) -> Result<()> {
        self.put_at(list, END, &value)
    }

    /// Adds many elements at the end of a list.
    pub fn extend<T: Shared, A: AsShared<T>>(&self, list: &List<T>, values: impl IntoIterator<Item = A>) -> Result<()> {
        let object = self.check(list)?;
        let mut run = Run::new::<T>();
        let added = values.into_iter().try_for_each(|value| run.add::<T>(&self.session, &value));
        self.splice(object, END, &mut run, added)
    }

    /// Puts an element before the one at a position of a list.
    pub fn insert_at<T: Shared>(&self, list: &List<T>, position: usize, value: impl AsShared<T>) -> Result<()> {
        self.put_at(list, sent(position), &value)
    }

    fn put_at<T: Shared>(&self, list: &List<T>, position: u64, value: &impl AsShared<T>) -> Result<()> {
        let object = self.check(list)?;
        if inline_bytes::<T>() > 0
            && let Some(short) = value.short()
        {
            return self.op(&Op::ListSplice { object, position, remove: 0, values: Values::Packed(short.bytes()) });
        }
        let mut run = Run::new::<T>();
        let added = run.add::<T>(&self.session, value);
        self.splice(object, position, &mut run, added)
    }

    /// Puts a run of values into a list, if all of them could be `added` to it.
    fn splice(&self, object: u64, position: u64, run: &mut Run, added: Result<()>) -> Result<()> {
        self.uploads.borrow_mut().extend(run.uploads());
        added?;
        self.stored.borrow_mut().extend(run.take_stored());
        if run.is_empty() { Ok(()) } else { self.op(&Op::ListSplice { object, position, remove: 0, values: run.values() }) }
    }

    /// Replaces the element at a position of a list. If there is none, nothing of the batch is done: it fails with `OutOfRange`.
    pub fn set_at<T: Shared>(&self, list: &List<T>, position: usize, value: impl AsShared<T>) -> Result<()> {
        let object = self.check(list)?;
        with_element::<T, _>(&self.session, &value, |value, ser| {
            self.keep(value)?;
            self.op(&Op::ListSet { object, position: position as u64, value: value.payload(ser), lend: false })
        })
    }

    /// Takes the element at a position out of a list, if there is one.
    pub fn remove_at<T: Shared>(&self, list: &List<T>, position: usize) -> Result<()> {
        let object = self.check(list)?;
        self.op(&Op::ListRemove { object, position: sent(position), lend: false })
    }

    /// Takes everything out of a dict or a list.
    pub fn clear(&self, container: &impl Countable) -> Result<()> {
        let object = self.check(container)?;
        self.op(&Op::Clear { object })
    }

    /// Replaces a value.
    pub fn set<T: Shared>(&self, target: &Value<T>, value: impl AsShared<T>) -> Result<()> {
        let object = self.check(target)?;
        with_element::<T, _>(&self.session, &value, |value, ser| {
            self.keep(value)?;
            self.op(&Op::ValueSet { object, value: value.payload(ser) })
        })
    }

    /// Adds to a counter.
    pub fn count(&self, counter: &Counter, amount: i64) -> Result<()> {
        let object = self.check(counter)?;
        self.op(&Op::CounterAdd { object, delta: amount })
    }

    /// Sends it all.
    pub(crate) fn commit(self) -> Result<()> {
        if self.commit.borrow().is_empty() {
            return Ok(());
        }
        // Without an answer the uploads may still be there: dropping this discards them.
        self.session.commit(&mut self.commit.borrow_mut())?;
        self.forget_uploads();
        Ok(())
    }

    /// A commit that names the uploads has been answered: they are used up.
    pub(crate) fn forget_uploads(&self) {
        self.uploads.borrow_mut().clear();
    }
}

impl<K: Key, V: Shared> Dict<K, V> {
    /// Inserts many entries at once: all of them, or none.
    ///
    /// # Errors
    /// `TooLarge` if they are more than fits into one request (64 MiB; values above 64 KiB do not count).
    pub fn extend<A: AsShared<K>, B: AsShared<V>>(&self, entries: impl IntoIterator<Item = (A, B)>) -> Result<()> {
        let batch = Batch::new(self.object().ready()?);
        for (key, value) in entries {
            batch.insert(self, key, value)?;
        }
        batch.commit()
    }
}

/// A place in what a batch has collected.
pub(crate) struct Mark {
    ops: OpsMark,
    uploads: usize,
    stored: usize,
}

impl Mark {
    /// Number of operations before it.
    #[inline]
    pub fn ops(&self) -> u32 {
        self.ops.ops()
    }
}

#[cold]
fn another_managers() -> Error {
    Error::new(ErrorKind::Refused, "a batch, transaction or writer works on containers of one manager: this one is of another")
}

#[cold]
fn too_long() -> Error {
    let text = format!("a batch of more than {FRAME_BYTES_MAX} bytes cannot be sent at once: make several of it");
    Error::new(ErrorKind::TooLarge, text)
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        let uploads = self.uploads.borrow();
        if !uploads.is_empty() {
            self.session.tell(Call::Discard, &uploads);
        }
    }
}
