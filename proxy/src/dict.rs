//! [`Dict`]: a shared map from keys to values.

use crate::guard::{Ref, checked};
use crate::handle::{Handle, Object, debug, handle, len_of};
use crate::lane::Standing;
use crate::retry::{Attempt, HasTicket, until_done};
use crate::seen;
use crate::session::SessionCore;
use crate::watch;
use crate::write::{Committed, lent, with_entry, with_key};
use commonhold_ipc::block::{Entry, Place};
use commonhold_ipc::catalog::Record;
use commonhold_ipc::error::Result;
use commonhold_ipc::index::{self, Entries};
use commonhold_ipc::pin::Hold;
use commonhold_ipc::value::{AsShared, Key, Number, Shared, ShortArchive, access, text};
use commonhold_ipc::wire::commit::{CommitWriter, Condition, Op};
use commonhold_ipc::wire::reply::Outcome;
use commonhold_ipc::wire::{Payload, malformed};
use std::any::TypeId;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

/// A shared map. Made by [`Session::dict`](crate::Session::dict).
///
/// Every method is atomic. Reads happen in place, in shared memory, without a call: they see the newest version, or with
/// [`at`](Dict::at) the version of a snapshot. Writes are calls to the manager.
///
/// Keys are compared by their bytes. Iteration is in the order of the keys' hashes; [`iter_ordered`](Dict::iter_ordered) and
/// printing follow the order in which keys were first inserted.
///
/// Every method fails with [`is_disconnected`](commonhold_ipc::error::Error::is_disconnected) when the manager is gone, with `UsedAfterFork` in a
/// forked child, and with `NotFound` when the object is gone.
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// use commonhold::{Dict, Manager};
///
/// let manager = Manager::start()?;
/// let ages: Dict<String, u32> = manager.dict([])?;
/// ages.insert("ada", 36)?;
/// ages.insert(String::from("bob"), &20)?;               // owned or borrowed, `&str` for `String`
/// assert_eq!(*ages.get("ada")?.unwrap(), 36);           // a guard on the number in shared memory
/// assert_eq!(ages.insert("bob", 21)?.unwrap(), 20);     // the old value
/// assert_eq!(ages.to_string(), r#"{"ada": 36, "bob": 21}"#);
/// assert_eq!(ages.remove("ada")?.unwrap(), 36);
/// assert!(ages.get("ada")?.is_none());
/// # Ok(())
/// # }
/// ```
pub struct Dict<K: Key, V: Shared> {
    object: Arc<Object>,
    _of: PhantomData<fn() -> (K, V)>,
}

handle!(Dict[K: Key, V: Shared], commonhold_ipc::catalog::Kind::Dict, "Dict");

/// The entry of a key in a version.
pub(crate) fn find(session: &SessionCore, record: &Record, key: &[u8]) -> Option<Entry> {
    index::find(&session.arena, record.root, record.value_align, key, session.hash.of(key))
}

/// Where the value of a key that needs no serialiser lies, below an index's root.
#[inline(always)]
pub(crate) fn find_short(session: &SessionCore, root: u64, align: u8, key: ShortArchive) -> Option<Place> {
    match key.word() {
        Some(word) => index::find_word(&session.arena, root, align, word, session.hash.of_word(word)),
        None => find_shorter(session, root, align, key),
    }
}

#[inline(never)]
fn find_shorter(session: &SessionCore, root: u64, align: u8, key: ShortArchive) -> Option<Place> {
    let entry = index::find(&session.arena, root, align, key.bytes(), session.hash.of(key.bytes()))?;
    Some(entry.value_place(&session.arena))
}

/// Where the value of a key lies, in the object that the thread has just seen, and remembers it.
#[inline(always)]
fn place_of(session: &SessionCore, object: u64, key: ShortArchive) -> Option<Place> {
    let remembered = seen::with(object, |seen| seen.place(key.padded()));
    if remembered.is_some() {
        return remembered;
    }
    let (root, align) = seen::with(object, |seen| (seen.record().root, seen.record().value_align));
    let place = find_short(session, root, align, key)?;
    seen::with(object, |seen| seen.remember_place(key.padded(), &place));
    Some(place)
}

impl<K: Key, V: Shared> Dict<K, V> {
    /// The value of a key, read in place.
    ///
    /// # Errors
    /// `Corrupt` if the bytes stored there are no `V`.
    #[inline]
    pub fn get(&self, key: impl AsShared<K>) -> Result<Option<Ref<'_, V>>> {
        let Some(short) = key.short() else { return self.get_long(&key) };
        let (session, hold) = self.object.hold()?;
        let Some(place) = place_of(session, self.object.id(), short) else { return Ok(None) };
        Ref::new(session, &place, hold).map(Some)
    }

    #[inline(never)]
    fn get_long(&self, key: &impl AsShared<K>) -> Result<Option<Ref<'_, V>>> {
        with_key::<K, _>(key, |key| {
            let (session, hold, record) = self.object.look()?;
            let Some(entry) = find(session, &record, key) else { return Ok(None) };
            Ref::new(session, &entry.value_place(&session.arena), hold).map(Some)
        })
    }

    /// Whether a key is there.
    pub fn contains_key(&self, key: impl AsShared<K>) -> Result<bool> {
        with_key::<K, _>(&key, |key| {
            let (session, _hold, record) = self.object.look()?;
            Ok(find(session, &record, key).is_some())
        })
    }

    /// Number of entries.
    pub fn len(&self) -> Result<usize> {
        Ok(self.object.look()?.2.len as usize)
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Sets the value of a key; returns a guard on the value that was there before, if any.
    ///
    /// # Errors
    /// `Full` if the manager's capacity is reached, `TooLarge` if key or value are larger than any may be.
    pub fn insert(&self, key: impl AsShared<K>, value: impl AsShared<V>) -> Result<Option<Ref<'_, V>>> {
        self.put(&key, &value, false)
    }

    fn put(&self, key: &impl AsShared<K>, value: &impl AsShared<V>, only_if_absent: bool) -> Result<Option<Ref<'_, V>>> {
        let session = self.object.ready()?;
        with_entry::<K, V, _>(session, value_align::<K, V>(), key, value, |key, value, ser| {
            if let Some((payload, standing)) = value.apart(session, ser, key.len()) {
                return self.put_standing(key, payload, standing, only_if_absent);
            }
            let op = Op::Insert { object: self.id(), key, value: value.payload(ser), only_if_absent, lend: true };
            session.op_then(&op, |version, outcome| lent(session, version, outcome))
        })
    }

    /// The same where the value stands in the room already. Apart, so that small values, whose way is short, have nothing of it.
    #[inline(never)]
    fn put_standing(&self, key: &[u8], value: Payload<'_>, standing: Standing<'_>, only_if_absent: bool) -> Result<Option<Ref<'_, V>>> {
        let session = self.object.ready()?;
        let op = Op::Insert { object: self.id(), key, value, only_if_absent, lend: true };
        session.op_standing_then(&op, standing, |version, outcome| lent(session, version, outcome))
    }

    /// The value of a key; if there is none, inserts this one first.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// # let manager = commonhold::Manager::start()?;
    /// let homes = manager.dict::<String, String>([])?;
    /// assert_eq!(homes.get_or_insert("ada", "London")?, "London");
    /// assert_eq!(homes.get_or_insert("ada", "Paris")?, "London");
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_or_insert(&self, key: impl AsShared<K>, value: impl AsShared<V>) -> Result<Ref<'_, V>> {
        // Lent with the reply: a look of our own might find what somebody else has put there since.
        self.put(&key, &value, true)?.ok_or_else(|| malformed("reply"))
    }

    /// Takes a key out; returns a guard on the value that was there.
    pub fn remove(&self, key: impl AsShared<K>) -> Result<Option<Ref<'_, V>>> {
        let session = self.object.ready()?;
        with_key::<K, _>(&key, |key| {
            let op = Op::Remove { object: self.id(), key, lend: true };
            session.op_then(&op, |version, outcome| lent(session, version, outcome))
        })
    }

    /// Adds to the number of a key, which counts as 0 if it is not there; returns the sum. No update is ever lost.
    ///
    /// # Errors
    /// `OutOfRange` if the sum does not fit into a `V`: then nothing is changed.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// # let manager = commonhold::Manager::start()?;
    /// let counts = manager.dict::<String, u64>([])?;
    /// assert_eq!(counts.add("the", 2)?, 2);
    /// assert_eq!(counts.add("the", 1)?, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn add(&self, key: impl AsShared<K>, amount: V) -> Result<V>
    where
        V: Number,
    {
        let session = self.object.ready()?;
        with_key::<K, _>(&key, |key| {
            let mut ser = commonhold_ipc::value::Ser::buffer();
            let range = ser.put::<V>(&amount)?;
            let op = Op::Add { object: self.id(), key, number: V::KIND.code(), delta: &ser.bytes()[range] };
            match session.op(&op)? {
                Outcome::Bytes(sum) => number(&sum),
                _ => Err(malformed("reply")),
            }
        })
    }

    /// Takes all entries out.
    pub fn clear(&self) -> Result<()> {
        self.object.ready()?.op_quietly(&Op::Clear { object: self.id() })
    }

    /// Sets a key to `new` (or, with `None`, removes it) if its value is `expected` (`None`: not there). Whether it did.
    ///
    /// `expected` is a reference to a `V`, in no other form, so that a plain `None` has a type; for `new`, say `None::<V>`.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// # let manager = commonhold::Manager::start()?;
    /// let claims = manager.dict::<String, u32>([])?;
    /// assert!(claims.compare_exchange("job", None, Some(7))?);      // nobody had it: it is ours
    /// assert!(!claims.compare_exchange("job", None, Some(8))?);
    /// assert!(claims.compare_exchange("job", Some(&7), None::<u32>)?);   // given back
    /// # Ok(())
    /// # }
    /// ```
    pub fn compare_exchange<N: AsShared<V>>(&self, key: impl AsShared<K>, expected: Option<&V>, new: Option<N>) -> Result<bool> {
        let session = self.object.ready()?;
        until_done(session, |ticket| {
            let (_hold, record, entry) = self.entry(&key)?;
            let same = match (&entry, expected) {
                (None, None) => true,
                (Some(entry), Some(expected)) => V::eq_archived(session.value::<V>(&entry.value_place(&session.arena))?, expected),
                _ => false,
            };
            if !same {
                return Ok(Attempt::Done(false));
            }
            Ok(match self.replace(&key, &record, entry, new.as_ref().map(ByRef), ticket)? {
                Committed::Done => Attempt::Done(true),
                Committed::Conflict => Attempt::Conflict,
            })
        })
    }

    /// Computes a key's new value from its old one: `Some` is stored, `None` removes the key. `change` may run several times,
    /// if others write the same key meanwhile.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// # let manager = commonhold::Manager::start()?;
    /// let lives = manager.dict([("cat".to_string(), 9u32)])?;
    /// lives.update("cat", |lives| lives.map(|lives| lives - 1))?;
    /// assert_eq!(*lives.get("cat")?.unwrap(), 8);
    /// lives.update("cat", |_| None)?;
    /// assert!(!lives.contains_key("cat")?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn update(&self, key: impl AsShared<K>, mut change: impl FnMut(Option<V>) -> Option<V>) -> Result<()> {
        let session = self.object.ready()?;
        until_done(session, |ticket| {
            let (_hold, record, entry) = self.entry(&key)?;
            let old = match &entry {
                Some(entry) => {
                    let archived = session.value::<V>(&entry.value_place(&session.arena))?;
                    Some(commonhold_ipc::value::to_owned::<V>(archived, session.pins.owner()))
                }
                None => None,
            };
            Ok(match self.replace(&key, &record, entry, change(old), ticket)? {
                Committed::Done => Attempt::Done(()),
                Committed::Conflict => Attempt::Conflict,
            })
        })
    }

    fn entry(&self, key: &impl AsShared<K>) -> Result<(Hold<'_>, Record, Option<Entry>)> {
        with_key::<K, _>(key, |key| {
            let (session, hold, record) = self.object.look()?;
            let entry = find(session, &record, key);
            Ok((hold, record, entry))
        })
    }

    /// Writes or removes a key if its entry is still the one that was seen. The caller holds the pin under which it was seen.
    fn replace(
        &self,
        key: &impl AsShared<K>,
        record: &Record,
        seen: Option<Entry>,
        new: Option<impl AsShared<V>>,
        ticket: HasTicket,
    ) -> Result<Committed> {
        let session = self.object.ready()?;
        let object = self.id();
        let mut commit = CommitWriter::default();
        let block = seen.map_or(0, |entry| entry.block);
        match new {
            Some(new) => with_entry::<K, V, _>(session, record.value_align, key, &new, |key, value, ser| {
                commit.condition(&Condition::EntryIs { object, key, block });
                commit.op(&Op::Insert { object, key, value: value.payload(ser), only_if_absent: false, lend: false });
                session.commit_with(&mut commit, ticket)
            }),
            None if seen.is_none() => Ok(Committed::Done),
            None => with_key::<K, _>(key, |key| {
                commit.condition(&Condition::EntryIs { object, key, block });
                commit.op(&Op::Remove { object, key, lend: false });
                session.commit_with(&mut commit, ticket)
            }),
        }
    }

    /// Keeps the entries for which `keep` says so, at one instant. It may run several times, if others write meanwhile.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// # let manager = commonhold::Manager::start()?;
    /// let prices = manager.dict([("tea".to_string(), 2.5), ("cake".to_string(), 4.0)])?;
    /// prices.retain(|_, price| *price < 3.0)?;
    /// assert_eq!(prices.to_string(), r#"{"tea": 2.5}"#);
    /// # Ok(())
    /// # }
    /// ```
    pub fn retain(&self, mut keep: impl FnMut(&K::View, &V::View) -> bool) -> Result<()> {
        let session = self.object.ready()?;
        until_done(session, |ticket| {
            let (_, hold, record) = self.object.look()?;
            let mut commit = CommitWriter::default();
            commit.condition(&Condition::Unmodified { object: self.id(), modified: record.modified });
            for entry in Entries::new(&session.arena, record.root, record.value_align) {
                let key = session.value::<K>(&entry.key_place())?;
                let value = session.value::<V>(&entry.value_place(&session.arena))?;
                if !keep(K::view(key), V::view(value)) {
                    commit.op(&Op::Remove { object: self.id(), key: entry.key(&session.arena), lend: false });
                }
            }
            let done = if commit.ops() == 0 { Committed::Done } else { session.commit_with(&mut commit, ticket)? };
            drop(hold);
            Ok(if done == Committed::Conflict { Attempt::Conflict } else { Attempt::Done(()) })
        })
    }

    /// Takes out the entry whose key was inserted last. Looks at all entries, so this is for small dicts.
    pub fn pop_last(&self) -> Result<Option<(K, V)>> {
        let session = self.object.ready()?;
        until_done(session, |ticket| {
            let (_, _hold, record) = self.object.look()?;
            let entries = Entries::new(&session.arena, record.root, record.value_align);
            let Some(last) = entries.max_by_key(Entry::insertion) else { return Ok(Attempt::Done(None)) };
            let mut commit = CommitWriter::default();
            commit.condition(&Condition::Unmodified { object: self.id(), modified: record.modified });
            commit.op(&Op::Remove { object: self.id(), key: last.key(&session.arena), lend: false });
            if session.commit_with(&mut commit, ticket)? == Committed::Conflict {
                return Ok(Attempt::Conflict);
            }
            let owner = session.pins.owner();
            let key = commonhold_ipc::value::to_owned::<K>(session.value::<K>(&last.key_place())?, owner.clone());
            let value = session.value::<V>(&last.value_place(&session.arena))?;
            Ok(Attempt::Done(Some((key, commonhold_ipc::value::to_owned::<V>(value, owner)))))
        })
    }

    /// All entries of the newest version, in hash order, read in place. Later changes do not show.
    ///
    /// # Panics
    /// The iterator panics at an entry whose bytes are not of the types `K` and `V`, which only a program that goes around
    /// this library can have stored; [`get`](Self::get) returns an error there.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// # let manager = commonhold::Manager::start()?;
    /// let prices = manager.dict([("tea".to_string(), 2.5), ("cake".to_string(), 4.0)])?;
    /// let total: f64 = prices.iter()?.map(|(_, price)| *price).sum();
    /// assert_eq!(total, 6.5);
    /// let names: Vec<String> = prices.iter_ordered()?.map(|(name, _)| name.to_owned()).collect();
    /// assert_eq!(names, ["tea", "cake"]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn iter(&self) -> Result<Iter<'_, K, V>> {
        let (session, hold, record) = self.object.look()?;
        let entries = EntryWalk::Hashed(Entries::new(&session.arena, record.root, record.value_align));
        Ok(Iter { session, hold, entries, left: record.len as usize, _of: PhantomData })
    }

    /// The same in the order in which the keys were first inserted. Sorts, so it costs some private memory and time.
    ///
    /// # Panics
    /// As [`iter`](Self::iter).
    pub fn iter_ordered(&self) -> Result<Iter<'_, K, V>> {
        let (session, hold, record) = self.object.look()?;
        let entries = EntryWalk::ordered(Entries::new(&session.arena, record.root, record.value_align));
        Ok(Iter { session, hold, entries, left: record.len as usize, _of: PhantomData })
    }

    /// All keys, in hash order.
    ///
    /// # Panics
    /// As [`iter`](Self::iter).
    pub fn keys(&self) -> Result<impl Iterator<Item = Ref<'_, K>>> {
        let Iter { session, hold, entries, .. } = self.iter()?;
        Ok(entries.map(move |entry| Ref::of_iteration(session, &entry.key_place(), &hold)))
    }

    /// All values, in hash order of their keys.
    ///
    /// # Panics
    /// As [`iter`](Self::iter).
    pub fn values(&self) -> Result<impl Iterator<Item = Ref<'_, V>>> {
        let Iter { session, hold, entries, .. } = self.iter()?;
        Ok(entries.map(move |entry| Ref::of_iteration(session, &entry.value_place(&session.arena), &hold)))
    }

    /// A copy of everything in private memory.
    pub fn to_owned(&self) -> Result<HashMap<K, V>>
    where
        K: Hash + Eq,
    {
        Ok(self.iter()?.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    watch::methods!();
}

/// The walk behind the iterators of a dict.
#[allow(clippy::large_enum_variant, reason = "the large one is the common one, and a walk stays where it was made")]
#[derive(Clone)]
pub(crate) enum EntryWalk {
    Hashed(Entries),
    Ordered(std::vec::IntoIter<Entry>),
}

impl EntryWalk {
    pub(crate) fn ordered(entries: Entries) -> Self {
        let mut entries: Vec<Entry> = entries.collect();
        entries.sort_unstable_by_key(Entry::insertion);
        EntryWalk::Ordered(entries.into_iter())
    }
}

impl Iterator for EntryWalk {
    type Item = Entry;

    #[inline]
    fn next(&mut self) -> Option<Entry> {
        match self {
            EntryWalk::Hashed(entries) => entries.next(),
            EntryWalk::Ordered(entries) => entries.next(),
        }
    }
}

/// Alignment of a dict's values: 8 where that is surely enough, 16 where types may need it.
pub(crate) fn value_align<K: Shared, V: Shared>() -> u8 {
    fn may_need_16<T: Shared>() -> bool {
        if T::FLAT {
            return align_of::<T::Archived>() > 8;
        }
        // What lies out of line in these has an alignment of 4 at the most.
        let id = TypeId::of::<T>();
        id != TypeId::of::<String>() && id != TypeId::of::<Vec<u8>>() && id != TypeId::of::<Option<String>>()
    }
    if may_need_16::<K>() || may_need_16::<V>() { 16 } else { 8 }
}

/// The entries of a dict in one version. See [`Dict::iter`].
pub struct Iter<'g, K: Key, V: Shared> {
    session: &'g Arc<SessionCore>,
    hold: Hold<'g>,
    entries: EntryWalk,
    left: usize,
    _of: PhantomData<fn() -> (K, V)>,
}

impl<K: Key, V: Shared> fmt::Debug for Iter<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<DictIter with {} entries left>", self.left)
    }
}

impl<'g, K: Key, V: Shared> Iterator for Iter<'g, K, V> {
    type Item = (Ref<'g, K>, Ref<'g, V>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        self.left = self.left.saturating_sub(1);
        let key = checked::<K>(self.session, &entry.key_place());
        let value = checked::<V>(self.session, &entry.value_place(&self.session.arena));
        let (of_key, of_value) = self.hold.two_more();
        Some((Ref::of_checked(key, of_key), Ref::of_checked(value, of_value)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<K: Key, V: Shared> ExactSizeIterator for Iter<'_, K, V> {}

/// `T` by reference, where a method takes what it encodes by value.
pub(crate) struct ByRef<'a, A>(pub(crate) &'a A);

impl<T: Shared, A: AsShared<T>> AsShared<T> for ByRef<'_, A> {
    type Back = ();

    #[inline(always)]
    fn back(self) {}

    fn write(&self, ser: &mut commonhold_ipc::value::Ser) -> std::result::Result<(), commonhold_ipc::value::Fault> {
        self.0.write(ser)
    }

    #[inline(always)]
    fn short(&self) -> Option<commonhold_ipc::value::ShortArchive> {
        self.0.short()
    }
}

/// A number from its bytes.
pub(crate) fn number<T: Number>(bytes: &[u8]) -> Result<T> {
    let mut aligned = rkyv::util::AlignedVec::<16>::with_capacity(16);
    aligned.extend_from_slice(bytes);
    let archived = access::<T>(&aligned)?;
    Ok(commonhold_ipc::value::to_owned::<T>(archived, None))
}

/// Prints like Python's dict: the entries in the order of insertion. If they cannot be read, the reason.
impl<K: Key, V: Shared> fmt::Display for Dict<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.iter_ordered() {
            Ok(entries) => f.debug_map().entries(entries).finish(),
            Err(error) => write!(f, "<{error}>"),
        }
    }
}

impl<K: Key, V: Shared> fmt::Debug for Dict<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, text::<Self>(), &self.object, len_of(&self.object))
    }
}
