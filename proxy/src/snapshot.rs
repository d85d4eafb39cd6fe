//! [`Snapshot`]: one version of everything, held for as long as one likes.

use crate::dict::{Dict, EntryWalk, find, find_short};
use crate::guard::View;
use crate::handle::Handle;
use crate::list::{List, positions, view};
use crate::session::SessionCore;
use crate::single::{Counter, Value};
use crate::write::with_key;
use commonhold_ipc::block::element_place;
use commonhold_ipc::catalog::{self, Record};
use commonhold_ipc::index::Entries;
use commonhold_ipc::pin::OwnedPin;
use commonhold_ipc::sequence::{self, Elements};
use commonhold_ipc::value::{AsShared, Key, Shared};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Range, RangeBounds};
use std::sync::Arc;

/// One version of all containers of a manager. Made by [`Session::snapshot`](crate::Session::snapshot), in constant time.
///
/// Containers are read in it with their `at` methods, which return plain references. It is `Clone + Send + Sync`; memory of
/// its version stays as long as it lives, also when the manager dies.
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// # let manager = commonhold::Manager::start()?;
/// let prices = manager.dict([("tea".to_string(), 2.5), ("cake".to_string(), 4.0)])?;
/// let before = manager.snapshot()?;
/// prices.remove("cake")?;
/// let total: f64 = prices.at(&before).values().sum();
/// assert_eq!((total, prices.len()?), (6.5, 1));
/// for (name, price) in prices.at(&before) {
///     println!("{name} was {price:.2}");
/// }
/// let other = before.clone();
/// std::thread::spawn(move || prices.at(&other).len()).join().unwrap();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Snapshot {
    inner: Arc<Inner>,
}

struct Inner {
    /// Goes before the session, whose end it would outlive.
    pin: OwnedPin,
    session: Arc<SessionCore>,
}

impl Snapshot {
    pub(crate) fn new(session: &Arc<SessionCore>) -> Self {
        Snapshot { inner: Arc::new(Inner { session: session.clone(), pin: OwnedPin::new(&session.pins) }) }
    }

    /// The version that it shows.
    pub fn version(&self) -> u64 {
        self.inner.pin.root().version
    }

    /// The object's record, if it was there in this version.
    fn record(&self, handle: &impl Handle) -> Option<Record> {
        assert!(self.inner.session.is_ours(), "this snapshot was taken before a fork(): its pin is the parent's, who may let it go");
        assert!(
            handle.object().manager() == self.inner.session.manager(),
            "this snapshot is of another manager than the handle: take one of the handle's own"
        );
        catalog::find(&self.inner.session.arena, self.inner.pin.root(), handle.id())
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Snapshot of version {} at {}>", self.version(), self.inner.session.address)
    }
}

/// A dict in a snapshot. See [`Dict::at`].
pub struct DictAt<'s, K: Key, V: Shared> {
    session: &'s Arc<SessionCore>,
    record: Option<Record>,
    _of: PhantomData<fn() -> (K, V)>,
}

impl<K: Key, V: Shared> Clone for DictAt<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K: Key, V: Shared> Copy for DictAt<'_, K, V> {}

impl<K: Key, V: Shared> Dict<K, V> {
    /// The dict as it was in a snapshot; empty if it was made later.
    ///
    /// # Panics
    /// If the snapshot is of another manager.
    pub fn at<'s>(&self, snapshot: &'s Snapshot) -> DictAt<'s, K, V> {
        DictAt { session: &snapshot.inner.session, record: snapshot.record(self), _of: PhantomData }
    }
}

impl<'s, K: Key, V: Shared> DictAt<'s, K, V> {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.record.map_or(0, |record| record.len as usize)
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a key.
    ///
    /// # Panics
    /// As [`Dict::iter`].
    pub fn get(&self, key: impl AsShared<K>) -> Option<View<'s, V>> {
        let record = self.record.as_ref()?;
        if let Some(short) = key.short() {
            let place = find_short(self.session, record.root, record.value_align, short)?;
            return Some(view(self.session, &place));
        }
        // A key that cannot be encoded is in no dict.
        let entry = with_key::<K, _>(&key, |key| Ok(find(self.session, record, key))).ok().flatten()?;
        Some(view(self.session, &entry.value_place(&self.session.arena)))
    }

    /// Whether a key is there.
    pub fn contains_key(&self, key: impl AsShared<K>) -> bool {
        let Some(record) = self.record.as_ref() else { return false };
        with_key::<K, _>(&key, |key| Ok(find(self.session, record, key).is_some())).unwrap_or(false)
    }

    fn entries(&self) -> Entries {
        let (root, align) = self.record.map_or((0, 8), |record| (record.root, record.value_align));
        Entries::new(&self.session.arena, root, align)
    }

    fn views(self, entries: EntryWalk) -> impl Iterator<Item = (View<'s, K>, View<'s, V>)> + use<'s, K, V> {
        let session = self.session;
        entries.map(move |entry| (view(session, &entry.key_place()), view(session, &entry.value_place(&session.arena))))
    }

    /// All entries, in hash order.
    ///
    /// # Panics
    /// As [`Dict::iter`].
    pub fn iter(&self) -> impl Iterator<Item = (View<'s, K>, View<'s, V>)> + use<'s, K, V> {
        self.views(EntryWalk::Hashed(self.entries()))
    }

    /// All entries, in the order in which their keys were first inserted.
    ///
    /// # Panics
    /// As [`Dict::iter`].
    pub fn iter_ordered(&self) -> impl Iterator<Item = (View<'s, K>, View<'s, V>)> + use<'s, K, V> {
        self.views(EntryWalk::ordered(self.entries()))
    }

    /// All keys, in hash order.
    ///
    /// # Panics
    /// As [`Dict::iter`].
    pub fn keys(&self) -> impl Iterator<Item = View<'s, K>> + use<'s, K, V> {
        let session = self.session;
        self.entries().map(move |entry| view(session, &entry.key_place()))
    }

    /// All values, in hash order of their keys.
    ///
    /// # Panics
    /// As [`Dict::iter`].
    pub fn values(&self) -> impl Iterator<Item = View<'s, V>> + use<'s, K, V> {
        let session = self.session;
        self.entries().map(move |entry| view(session, &entry.value_place(&session.arena)))
    }
}

impl<'s, K: Key, V: Shared> IntoIterator for DictAt<'s, K, V> {
    type Item = (View<'s, K>, View<'s, V>);
    type IntoIter = Box<dyn Iterator<Item = Self::Item> + 's>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}

impl<K: Key, V: Shared> fmt::Debug for DictAt<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter_ordered()).finish()
    }
}

/// Prints as [`Dict`] does.
impl<K: Key, V: Shared> fmt::Display for DictAt<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A list in a snapshot. See [`List::at`].
pub struct ListAt<'s, T: Shared> {
    session: &'s Arc<SessionCore>,
    record: Option<Record>,
    positions: Range<u64>,
    _of: PhantomData<fn() -> T>,
}

impl<T: Shared> Clone for ListAt<'_, T> {
    fn clone(&self) -> Self {
        ListAt { positions: self.positions.clone(), ..*self }
    }
}

impl<T: Shared> List<T> {
    /// The list as it was in a snapshot; empty if it was made later.
    ///
    /// # Panics
    /// If the snapshot is of another manager.
    pub fn at<'s>(&self, snapshot: &'s Snapshot) -> ListAt<'s, T> {
        let record = snapshot.record(self);
        let len = record.map_or(0, |record| record.len);
        ListAt { session: &snapshot.inner.session, record, positions: 0..len, _of: PhantomData }
    }
}

impl<'s, T: Shared> ListAt<'s, T> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        (self.positions.end - self.positions.start) as usize
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// The element at a position; none beyond the end.
    ///
    /// # Panics
    /// As [`List::iter`].
    pub fn get(&self, position: usize) -> Option<View<'s, T>> {
        let position = self.positions.start.checked_add(position as u64).filter(|position| *position < self.positions.end)?;
        let place = sequence::find(&self.session.arena, self.record.as_ref()?, position)?;
        Some(view(self.session, &place))
    }

    /// A range of it, cut to its length.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let within = positions(range, self.len() as u64);
        let start = self.positions.start;
        ListAt { positions: start + within.start..start + within.end, ..*self }
    }

    /// All elements in order, from both ends.
    ///
    /// # Panics
    /// As [`List::iter`].
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = View<'s, T>> + ExactSizeIterator + use<'s, T> {
        let session = self.session;
        let empty = Record::of_sequence(0, 0, 0, 0);
        let elements = Elements::new(&session.arena, &self.record.unwrap_or(empty), self.positions.clone());
        elements.map(move |place| view(session, &place))
    }

    /// A copy in private memory.
    pub fn to_vec(&self) -> Vec<T> {
        self.iter().map(|element| element.to_owned()).collect()
    }
}

impl<'s, T: Shared> IntoIterator for ListAt<'s, T> {
    type Item = View<'s, T>;
    type IntoIter = Box<dyn Iterator<Item = Self::Item> + 's>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}

impl<T: Shared> fmt::Debug for ListAt<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Prints as [`List`] does.
impl<T: Shared> fmt::Display for ListAt<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl<T: Shared> Value<T> {
    /// The value as it was in a snapshot; none if it was made later.
    ///
    /// # Panics
    /// If the snapshot is of another manager; as [`List::iter`].
    pub fn at<'s>(&self, snapshot: &'s Snapshot) -> Option<View<'s, T>> {
        let record = snapshot.record(self)?;
        let session = &snapshot.inner.session;
        (record.root != 0).then(|| view(session, &element_place(&session.arena, record.root)))
    }
}

impl Counter {
    /// The number as it was in a snapshot; 0 if it was made later.
    ///
    /// # Panics
    /// If the snapshot is of another manager.
    pub fn at(&self, snapshot: &Snapshot) -> i64 {
        snapshot.record(self).map_or(0, |record| record.root as i64)
    }
}
