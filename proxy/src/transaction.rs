//! [`Transaction`]: reads of one version and writes, committed together if what was read is unchanged.
//!
//! Every read is recorded as a condition: a key's entry (or its absence), an element at its position, a value's block, a
//! counter's number; for lengths and iterations, that the whole container is unmodified. Writes are collected like a
//! batch's, and kept here as well (the *overlay*), so that later reads of the same transaction see them. Nothing happens
//! before the commit.

use crate::batch::{Batch, Countable};
use crate::dict::{Dict, find};
use crate::guard::Ref;
use crate::handle::Handle;
use crate::inside::Inside;
use crate::list::List;
use crate::retry::{Attempt, Ticket, under_ticket, until_done};
use crate::session::SessionCore;
use crate::single::{Counter, Value, check_set};
use crate::write::{Committed, with_key};
use commonhold_ipc::block::{Place, element_place};
use commonhold_ipc::catalog::{Kind, Record};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::index::Entries;
use commonhold_ipc::pin::Pin;
use commonhold_ipc::sequence;
use commonhold_ipc::value::{AsShared, Key, Number, Ser, Shared, to_owned};
use commonhold_ipc::wire::commit::{CommitWriter, Condition};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

/// A value's archive as this transaction has written it.
type Archive = Arc<[u8]>;

/// What a dict looks like after the transaction's own writes.
#[derive(Default)]
struct DictOverlay {
    cleared: bool,
    /// Keys that were written: their value, or that they were removed.
    keys: HashMap<Vec<u8>, Option<Archive>>,
}

/// An element of a list after the transaction's own writes.
#[derive(Clone)]
enum Slot {
    /// The element that stands at this position in the version that was read.
    Base(u64),
    /// A new one.
    New(Archive),
}

/// What a list looks like after the transaction's own writes.
enum ListOverlay {
    /// Only appended to: the length before, and what came.
    Appended(u64, Vec<Archive>),
    /// Anything.
    Slots(Vec<Slot>),
}

#[derive(Default)]
struct Overlay {
    dicts: HashMap<u64, DictOverlay>,
    lists: HashMap<u64, ListOverlay>,
    values: HashMap<u64, Archive>,
    counters: HashMap<u64, i64>,
}

/// Reads and writes that happen together, at one instant, or not at all. Made by
/// [`Session::transaction`](crate::Session::transaction).
///
/// Reads see one version, and on top of it what the transaction itself has written.
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// use commonhold::{Error, Manager};
///
/// let manager = Manager::start()?;
/// let balances = manager.dict([("ada".to_string(), 100i64), ("bob".to_string(), 1)])?;
/// let log = manager.list::<String>([])?;
/// let moved = |amount: i64| {
///     manager.transaction(|tx| {
///         let left = tx.add(&balances, "ada", -amount)?;
///         if left < 0 {
///             return Err(Error::other("ada is out of money"));      // leaves no trace
///         }
///         tx.add(&balances, "bob", amount)?;
///         tx.push(&log, format!("{amount}"))
///     })
/// };
/// moved(30)?;
/// assert_eq!(moved(300).unwrap_err().to_string(), "ada is out of money");
/// assert_eq!(balances.to_string(), r#"{"ada": 70, "bob": 31}"#);
/// assert_eq!(log.len()?, 1);
/// # Ok(())
/// # }
/// ```
pub struct Transaction<'s> {
    session: &'s Arc<SessionCore>,
    batch: Batch<'s>,
    pin: Pin<'s>,
    overlay: RefCell<Overlay>,
    /// Containers that must be unmodified: nothing else need be said of their lengths.
    watched: RefCell<HashSet<u64>>,
    /// Conditions that the commit has already, as bytes.
    seen: RefCell<HashSet<Vec<u8>>>,
}

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Transaction on version {}, {:?}>", self.version(), self.batch)
    }
}

/// What [`Transaction::get`] reads from: a dict by key, a list by position.
pub trait Readable<Q> {
    /// What it holds.
    type Item: Shared;
    #[doc(hidden)]
    fn read<'t>(&self, tx: &'t Transaction<'_>, at: Q) -> Result<Option<Ref<'t, Self::Item>>>;
}

impl<K: Key, V: Shared, Q: AsShared<K>> Readable<Q> for Dict<K, V> {
    type Item = V;

    fn read<'t>(&self, tx: &'t Transaction<'_>, key: Q) -> Result<Option<Ref<'t, V>>> {
        tx.read_dict(self, &key)
    }
}

impl<T: Shared> Readable<usize> for List<T> {
    type Item = T;

    fn read<'t>(&self, tx: &'t Transaction<'_>, position: usize) -> Result<Option<Ref<'t, T>>> {
        tx.read_list(self, position as u64)
    }
}

fn archive<T: Shared>(value: &impl AsShared<T>) -> Result<Archive> {
    let mut ser = Ser::buffer();
    let range = ser.put::<T>(value)?;
    Ok(ser.bytes()[range].into())
}

impl<'s> Transaction<'s> {
    fn begin(session: &'s Arc<SessionCore>) -> Result<Self> {
        session.check()?;
        Ok(Transaction {
            session,
            batch: Batch::new(session),
            pin: session.pin(),
            overlay: RefCell::default(),
            watched: RefCell::default(),
            seen: RefCell::default(),
        })
    }

    fn session(&self) -> &'s Arc<SessionCore> {
        self.session
    }

    /// The version that this transaction reads.
    pub fn version(&self) -> u64 {
        self.pin.root().version
    }

    fn record(&self, handle: &impl Handle) -> Result<Record> {
        if handle.object().manager() != self.session().manager() {
            return Err(Error::new(ErrorKind::Refused, "a transaction works on containers of one manager: this one is of another"));
        }
        handle.object().ready()?;
        self.session().record(self.pin.root(), handle.id())
    }

    /// The transaction depends on something. It reads one version, so what it sees twice is the same condition.
    fn saw(&self, condition: &Condition<'_>) {
        let mut bytes = Vec::new();
        condition.write(&mut bytes);
        if self.seen.borrow_mut().insert(bytes) {
            self.batch.commit_mut().condition(condition);
        }
    }

    /// The transaction depends on all of a container.
    fn saw_all(&self, record: &Record) {
        self.watched.borrow_mut().insert(record.id);
        self.saw(&Condition::Unmodified { object: record.id, modified: record.modified });
    }

    /// The transaction depends on a container's length.
    fn saw_len(&self, record: &Record) {
        if !self.watched.borrow().contains(&record.id) {
            self.saw(&Condition::LenIs { object: record.id, len: record.len });
        }
    }

    fn own<'t, T: Shared>(&'t self, archive: &[u8]) -> Result<Ref<'t, T>> {
        Ref::of_copy(self.session(), archive)
    }

    fn there<'t, T: Shared>(&'t self, place: &Place) -> Result<Ref<'t, T>> {
        Ref::new(self.session(), place, self.pin.hold().clone())
    }

    /// The value of a key of a dict, or the element at a position of a list.
    pub fn get<'t, C: Readable<Q>, Q>(&'t self, container: &C, at: Q) -> Result<Option<Ref<'t, C::Item>>> {
        container.read(self, at)
    }

    fn read_dict<'t, K: Key, V: Shared>(&'t self, dict: &Dict<K, V>, key: &impl AsShared<K>) -> Result<Option<Ref<'t, V>>> {
        let record = self.record(dict)?;
        with_key::<K, _>(key, |key| {
            if let Some(overlay) = self.overlay.borrow().dicts.get(&record.id) {
                match overlay.keys.get(key) {
                    Some(Some(value)) => return self.own(value).map(Some),
                    Some(None) => return Ok(None),
                    None if overlay.cleared => return Ok(None),
                    None => {}
                }
            }
            let entry = find(self.session(), &record, key);
            self.saw(&Condition::EntryIs { object: record.id, key, block: entry.map_or(0, |entry| entry.block) });
            entry.map(|entry| self.there(&entry.value_place(&self.session().arena))).transpose()
        })
    }

    /// Whether a dict has a key.
    pub fn contains_key<K: Key, V: Shared>(&self, dict: &Dict<K, V>, key: impl AsShared<K>) -> Result<bool> {
        Ok(self.read_dict(dict, &key)?.is_some())
    }

    fn read_list<'t, T: Shared>(&'t self, list: &List<T>, position: u64) -> Result<Option<Ref<'t, T>>> {
        let record = self.record(list)?;
        let slot = match self.overlay.borrow().lists.get(&record.id) {
            None => Some(Slot::Base(position)),
            Some(ListOverlay::Appended(before, _)) if position < *before => Some(Slot::Base(position)),
            Some(ListOverlay::Appended(before, new)) => {
                // What was pushed stands at this position only if the list is as long as it was.
                self.saw_len(&record);
                new.get((position - before) as usize).cloned().map(Slot::New)
            }
            Some(ListOverlay::Slots(slots)) => slots.get(position as usize).cloned(),
        };
        match slot {
            None => Ok(None),
            Some(Slot::New(archive)) => self.own(&archive).map(Some),
            Some(Slot::Base(position)) => self.read_base(&record, position),
        }
    }

    fn read_base<'t, T: Shared>(&'t self, record: &Record, position: u64) -> Result<Option<Ref<'t, T>>> {
        let arena = &self.session().arena;
        let object = record.id;
        let Some(place) = sequence::find(arena, record, position) else {
            self.saw(&Condition::LenIs { object, len: record.len });
            return Ok(None);
        };
        if record.element_bytes == 0 {
            self.saw(&Condition::ElementIs { object, position, block: place.block });
        } else {
            self.saw(&Condition::ElementBytes { object, position, bytes: arena.bytes(place.offset, place.len) });
        }
        self.there(&place).map(Some)
    }

    /// Number of entries or elements.
    pub fn len(&self, container: &impl Countable) -> Result<usize> {
        let record = self.record(container)?;
        self.saw_all(&record);
        let overlay = self.overlay.borrow();
        let len = match (overlay.lists.get(&record.id), overlay.dicts.get(&record.id)) {
            (Some(ListOverlay::Appended(before, new)), _) => before + new.len() as u64,
            (Some(ListOverlay::Slots(slots)), _) => slots.len() as u64,
            (None, Some(dict)) => {
                let base = if dict.cleared { 0 } else { record.len };
                dict.keys.iter().fold(base, |len, (key, value)| {
                    let was = !dict.cleared && find(self.session(), &record, key).is_some();
                    len + u64::from(value.is_some()) - u64::from(was)
                })
            }
            (None, None) => record.len,
        };
        Ok(len as usize)
    }

    /// All entries of a dict, as copies. The transaction then depends on all of it.
    pub fn entries<K: Key, V: Shared>(&self, dict: &Dict<K, V>) -> Result<Vec<(K, V)>> {
        let record = self.record(dict)?;
        self.saw_all(&record);
        let (session, owner) = (self.session(), self.session().pins.owner());
        let overlay = self.overlay.borrow();
        let dict = overlay.dicts.get(&record.id);
        let mut entries = Vec::new();
        if !dict.is_some_and(|dict| dict.cleared) {
            for entry in Entries::new(&session.arena, record.root, record.value_align) {
                if dict.is_some_and(|dict| dict.keys.contains_key(entry.key(&session.arena))) {
                    continue;
                }
                let key = to_owned::<K>(session.value::<K>(&entry.key_place())?, owner.clone());
                let value = session.value::<V>(&entry.value_place(&session.arena))?;
                entries.push((key, to_owned::<V>(value, owner.clone())));
            }
        }
        for (key, value) in dict.into_iter().flat_map(|dict| &dict.keys) {
            if let Some(value) = value {
                let key = Ref::<K>::of_copy(session, key)?.to_owned();
                entries.push((key, Ref::<V>::of_copy(session, value)?.to_owned()));
            }
        }
        Ok(entries)
    }

    /// All elements of a list, as copies. The transaction then depends on all of it.
    pub fn elements<T: Shared>(&self, list: &List<T>) -> Result<Vec<T>> {
        let record = self.record(list)?;
        self.saw_all(&record);
        let len = self.len(list)? as u64;
        let element = |position| match self.read_list(list, position)? {
            Some(element) => Ok(element.to_owned()),
            None => Err(Error::new(
                ErrorKind::Corrupt,
                "a list is shorter than it says: a process has written over it; make it anew, or start the manager again",
            )),
        };
        (0..len).map(element).collect()
    }

    /// A value.
    pub fn value<'t, T: Shared>(&'t self, value: &Value<T>) -> Result<Ref<'t, T>> {
        let record = self.record(value)?;
        if let Some(own) = self.overlay.borrow().values.get(&record.id) {
            return self.own(own);
        }
        check_set(&record)?;
        self.saw(&Condition::RootIs { object: record.id, root: record.root });
        self.there(&element_place(&self.session().arena, record.root))
    }

    /// A counter's number.
    pub fn counter(&self, counter: &Counter) -> Result<i64> {
        let record = self.record(counter)?;
        self.saw(&Condition::RootIs { object: record.id, root: record.root });
        let added = self.overlay.borrow().counters.get(&record.id).copied().unwrap_or(0);
        (record.root as i64).checked_add(added).ok_or_else(|| counter_out_of_range(added))
    }

    /// Sets the value of a key.
    pub fn insert<K: Key, V: Shared>(&self, dict: &Dict<K, V>, key: impl AsShared<K>, value: impl AsShared<V>) -> Result<()> {
        let object = self.record(dict)?.id;
        let (own_key, own) = (archive::<K>(&key)?, archive::<V>(&value)?);
        self.batch.insert(dict, key, value)?;
        self.overlay.borrow_mut().dicts.entry(object).or_default().keys.insert(own_key.to_vec(), Some(own));
        Ok(())
    }

    /// Takes a key out. Whether it was there.
    pub fn remove<K: Key, V: Shared>(&self, dict: &Dict<K, V>, key: impl AsShared<K>) -> Result<bool> {
        let was = self.read_dict(dict, &key)?.is_some();
        let own_key = archive::<K>(&key)?;
        self.batch.remove(dict, key)?;
        self.overlay.borrow_mut().dicts.entry(dict.id()).or_default().keys.insert(own_key.to_vec(), None);
        Ok(was)
    }

    /// Adds to the number of a key, which counts as 0 if it is not there; returns the sum.
    ///
    /// # Errors
    /// `OutOfRange` if the sum does not fit.
    pub fn add<K: Key, V: Number>(&self, dict: &Dict<K, V>, key: impl AsShared<K>, amount: V) -> Result<V> {
        let old = self.read_dict(dict, &key)?.map_or_else(V::default, |number| number.to_owned());
        let sum = old.add_checked(amount).ok_or_else(|| {
            Error::new(ErrorKind::OutOfRange, "adding to this number would take it out of its type's range: nothing was changed")
        })?;
        self.insert(dict, key, sum)?;
        Ok(sum)
    }

    /// Takes everything out of a dict or a list.
    pub fn clear(&self, container: &impl Countable) -> Result<()> {
        let record = self.record(container)?;
        self.batch.clear(container)?;
        let mut overlay = self.overlay.borrow_mut();
        if record.kind == Kind::Dict {
            overlay.dicts.insert(record.id, DictOverlay { cleared: true, keys: HashMap::new() });
        } else {
            overlay.lists.insert(record.id, ListOverlay::Slots(Vec::new()));
        }
        Ok(())
    }

    /// Adds an element at the end of a list. Does not depend on what the list holds.
    pub fn push<T: Shared>(&self, list: &List<T>, value: impl AsShared<T>) -> Result<()> {
        let record = self.record(list)?;
        let own = archive::<T>(&value)?;
        self.batch.push(list, value)?;
        let mut overlay = self.overlay.borrow_mut();
        match overlay.lists.entry(record.id).or_insert_with(|| ListOverlay::Appended(record.len, Vec::new())) {
            ListOverlay::Appended(_, new) => new.push(own),
            ListOverlay::Slots(slots) => slots.push(Slot::New(own)),
        }
        Ok(())
    }

    /// The list's own slots, to be changed anyhow. The transaction then depends on the list's length: positions mean what
    /// they meant.
    fn with_slots<R>(&self, record: &Record, change: impl FnOnce(&mut Vec<Slot>) -> R) -> R {
        self.saw_len(record);
        let mut overlay = self.overlay.borrow_mut();
        let list = overlay.lists.entry(record.id).or_insert_with(|| ListOverlay::Appended(record.len, Vec::new()));
        if let ListOverlay::Appended(before, new) = list {
            let slots = (0..*before).map(Slot::Base).chain(new.drain(..).map(Slot::New)).collect();
            *list = ListOverlay::Slots(slots);
        }
        match list {
            ListOverlay::Slots(slots) => change(slots),
            ListOverlay::Appended(..) => unreachable!("it was just made slots"),
        }
    }

    /// Replaces the element at a position of a list.
    ///
    /// # Errors
    /// `OutOfRange` if there is no such position.
    pub fn set_at<T: Shared>(&self, list: &List<T>, position: usize, value: impl AsShared<T>) -> Result<()> {
        let record = self.record(list)?;
        let own = archive::<T>(&value)?;
        let there = self.with_slots(&record, |slots| match slots.get_mut(position) {
            Some(slot) => {
                *slot = Slot::New(own);
                Ok(())
            }
            None => Err(slots.len()),
        });
        there.map_err(|len| no_position("set", position, len))?;
        self.batch.set_at(list, position, value)
    }

    /// Puts an element before the one at a position of a list.
    ///
    /// # Errors
    /// `OutOfRange` if the position is behind the end.
    pub fn insert_at<T: Shared>(&self, list: &List<T>, position: usize, value: impl AsShared<T>) -> Result<()> {
        let record = self.record(list)?;
        let own = archive::<T>(&value)?;
        let there = self.with_slots(&record, |slots| {
            if position > slots.len() {
                return Err(slots.len());
            }
            slots.insert(position, Slot::New(own));
            Ok(())
        });
        there.map_err(|len| no_position("insert at", position, len))?;
        self.batch.insert_at(list, position, value)
    }

    /// Takes the element at a position out of a list. `None`: there is no such position.
    pub fn remove_at<T: Shared>(&self, list: &List<T>, position: usize) -> Result<Option<T>> {
        let Some(element) = self.read_list(list, position as u64)?.map(|element| element.to_owned()) else { return Ok(None) };
        let record = self.record(list)?;
        self.with_slots(&record, |slots| slots.remove(position));
        self.batch.remove_at(list, position)?;
        Ok(Some(element))
    }

    /// Takes the last element out of a list.
    pub fn pop<T: Shared>(&self, list: &List<T>) -> Result<Option<T>> {
        let len = self.len(list)?;
        if len == 0 { Ok(None) } else { self.remove_at(list, len - 1) }
    }

    /// Replaces a value.
    pub fn set<T: Shared>(&self, target: &Value<T>, value: impl AsShared<T>) -> Result<()> {
        let object = self.record(target)?.id;
        let own = archive::<T>(&value)?;
        self.batch.set(target, value)?;
        self.overlay.borrow_mut().values.insert(object, own);
        Ok(())
    }

    /// Adds to a counter. Does not depend on its number.
    ///
    /// # Errors
    /// `OutOfRange` if the sum does not fit into 64 bits, at the latest at the commit.
    pub fn count(&self, counter: &Counter, amount: i64) -> Result<()> {
        let object = self.record(counter)?.id;
        let before = self.overlay.borrow().counters.get(&object).copied().unwrap_or(0);
        let added = before.checked_add(amount).ok_or_else(|| counter_out_of_range(amount))?;
        self.batch.count(counter, amount)?;
        self.overlay.borrow_mut().counters.insert(object, added);
        Ok(())
    }

    /// Commits in one way or the other.
    fn commit(self, by: impl FnOnce(&SessionCore, &mut CommitWriter) -> Result<Committed>) -> Result<Committed> {
        if self.batch.commit_mut().ops() == 0 {
            // What it read was one version: nothing to do, nothing to check.
            return Ok(Committed::Done);
        }
        // Also inside of another one, which it knows itself to be beside.
        let _own = Inside::of_none();
        let done = by(self.session(), &mut self.batch.commit_mut())?;
        self.batch.forget_uploads();
        Ok(done)
    }
}

fn counter_out_of_range(amount: i64) -> Error {
    let text = format!("adding {amount} to a counter is beyond what 64 bits hold: nothing was changed");
    Error::new(ErrorKind::OutOfRange, text)
}

fn no_position(what: &str, position: usize, len: usize) -> Error {
    Error::new(ErrorKind::OutOfRange, format!("cannot {what} position {position} of a list of {len} elements: positions count from 0"))
}

/// Runs a transaction's closure: what it writes by other ways than the transaction is refused.
fn inside_of<R>(session: &SessionCore, body: impl FnOnce() -> R) -> R {
    let _inside = Inside::of(session);
    body()
}

/// Runs a closure as a transaction until it commits.
pub(crate) fn run<'s, R>(session: &'s Arc<SessionCore>, mut body: impl FnMut(&Transaction<'s>) -> Result<R>) -> Result<R> {
    until_done(session, |ticket| {
        let tx = Transaction::begin(session)?;
        let result = inside_of(session, || body(&tx))?;
        Ok(match tx.commit(|session, commit| session.commit_with(commit, ticket))? {
            Committed::Done => Attempt::Done(result),
            Committed::Conflict => Attempt::Conflict,
        })
    })
}

/// Runs a transaction under the writer's ticket from the beginning, so that nobody conflicts with it; `begun` is called when its time
/// begins. What takes longer than the ticket is good for is given up. `asked` is the line and the number by which its caller asks what
/// became of it, and `is_committed` is set if it was committed here. With a ticket that is `kept` from the last one none is asked for; it is
/// kept for the next if there is one when this is to be committed, as `is_next` says.
pub(crate) fn run_alone<'s, R>(
    session: &'s Arc<SessionCore>,
    (asked, is_committed): ((u64, u64), &Cell<bool>),
    kept: &mut Option<Ticket>,
    is_next: impl Fn() -> bool,
    begun: impl FnOnce() -> Result<()>,
    over_time: impl Fn() -> Error,
    mut body: impl FnMut(&Transaction<'s>) -> Result<R>,
) -> Result<R> {
    under_ticket(session, kept, begun, &over_time, |is_in_time, ticket| {
        let tx = Transaction::begin(session)?;
        let result = inside_of(session, || body(&tx))?;
        if !is_in_time() {
            return Err(over_time());
        }
        let committed = tx.commit(|_, commit| {
            let committed = ticket.commit_run(commit, asked, !(ticket.is_fresh() && is_next()))?;
            is_committed.set(committed == Committed::Done);
            Ok(committed)
        });
        Ok(match committed? {
            Committed::Done => Attempt::Done(result),
            Committed::Conflict => Attempt::Conflict,
        })
    })
}
