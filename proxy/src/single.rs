//! [`Value`], [`Counter`] and [`Namespace`]: one value, one number, attributes of different types.

use crate::dict::find;
use crate::guard::Ref;
use crate::handle::{Handle, Object, debug, handle, len_of};
use crate::payload::{Target, Value as Outgoing};
use crate::retry::{Attempt, HasTicket, until_done};
use crate::watch;
use crate::write::{Committed, with_element, with_key, with_value};
use commonhold_ipc::block::{Place, element_place};
use commonhold_ipc::catalog::Record;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::index::Entries;
use commonhold_ipc::value::{AsShared, Ser, Shared, access, fingerprint, text, to_owned, with_scratch};
use commonhold_ipc::wire::commit::{CommitWriter, Condition, Op};
use commonhold_ipc::wire::malformed;
use commonhold_ipc::wire::reply::Outcome;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// One shared value. Made by [`Session::value`](crate::Session::value).
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// # let manager = commonhold::Manager::start()?;
/// let title = manager.value::<String>("draft")?;
/// title.set("final")?;
/// assert_eq!(title.get()?, "final");
/// assert_eq!(title.update(|title| title.push('!'))?, "final!");
/// assert!(!title.compare_exchange("draft", "newer")?);
/// # Ok(())
/// # }
/// ```
pub struct Value<T: Shared> {
    object: Arc<Object>,
    _of: PhantomData<fn() -> T>,
}

handle!(Value[T: Shared], commonhold_ipc::catalog::Kind::Value, "Value");

impl<T: Shared> Value<T> {
    /// The value, read in place.
    #[inline]
    pub fn get(&self) -> Result<Ref<'_, T>> {
        let (session, hold, record) = self.object.look()?;
        check_set(&record)?;
        Ref::new(session, &element_place(&session.arena, record.root), hold)
    }

    /// Replaces the value.
    pub fn set(&self, value: impl AsShared<T>) -> Result<()> {
        let session = self.object.ready()?;
        with_element::<T, _>(session, &value, |value, ser| {
            session.op_quietly_with((value, ser), 0, |value| Op::ValueSet { object: self.id(), value })
        })
    }

    /// Changes the value and returns what it is then. `change` may run several times, if others write meanwhile.
    pub fn update(&self, mut change: impl FnMut(&mut T)) -> Result<T> {
        let session = self.object.ready()?;
        until_done(session, |ticket| {
            let (_, _hold, record) = self.object.look()?;
            check_set(&record)?;
            let current = session.value::<T>(&element_place(&session.arena, record.root))?;
            let mut value = to_owned::<T>(current, session.pins.owner());
            change(&mut value);
            Ok(match self.replace(&record, &&value, ticket)? {
                Committed::Done => Attempt::Done(value),
                Committed::Conflict => Attempt::Conflict,
            })
        })
    }

    /// Replaces the value by `new` if it is `expected`. Whether it did. Both may be owned or borrowed, `&str` for `String`.
    pub fn compare_exchange(&self, expected: impl AsShared<T>, new: impl AsShared<T>) -> Result<bool> {
        let session = self.object.ready()?;
        with_value::<T, _>(session, &expected, |expected| {
            until_done(session, |ticket| {
                let (_, _hold, record) = self.object.look()?;
                check_set(&record)?;
                if !T::eq_archived(session.value::<T>(&element_place(&session.arena, record.root))?, expected) {
                    return Ok(Attempt::Done(false));
                }
                Ok(match self.replace(&record, &new, ticket)? {
                    Committed::Done => Attempt::Done(true),
                    Committed::Conflict => Attempt::Conflict,
                })
            })
        })
    }

    /// Sets the value if it is still the one that was seen. The caller holds the pin under which it was seen.
    fn replace(&self, seen: &Record, new: &impl AsShared<T>, ticket: HasTicket) -> Result<Committed> {
        let session = self.object.ready()?;
        with_element::<T, _>(session, new, |value, ser| {
            let mut commit = CommitWriter::default();
            commit.condition(&Condition::RootIs { object: self.id(), root: seen.root });
            commit.op(&Op::ValueSet { object: self.id(), value: value.payload(ser) });
            session.commit_with(&mut commit, ticket)
        })
    }

    watch::methods!();
}

/// A value is made and then set: whoever finds it in between, or after its maker died there, finds nothing.
pub(crate) fn check_set(record: &Record) -> Result<()> {
    if record.root != 0 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::NotFound, format!("value {} has never been set: its maker died before it did, so set it", record.id)))
}

/// Prints the value. If it cannot be read, the reason.
impl<T: Shared> fmt::Display for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Ok(value) => fmt::Debug::fmt(&value, f),
            Err(error) => write!(f, "<{error}>"),
        }
    }
}

impl<T: Shared> fmt::Debug for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, text::<Self>(), &self.object, None)
    }
}

/// A shared signed number of 64 bits. Made by [`Session::counter`](crate::Session::counter).
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// # let manager = commonhold::Manager::start()?;
/// let visits = manager.counter(0)?;
/// assert_eq!(visits.add(2)?, 2);
/// assert_eq!(visits.get()?, 2);                         // from shared memory, without a call
/// # Ok(())
/// # }
/// ```
pub struct Counter {
    object: Arc<Object>,
    _of: PhantomData<()>,
}

handle!(Counter[], commonhold_ipc::catalog::Kind::Counter, "Counter");

impl Counter {
    /// Adds to the number and returns the sum. No update is ever lost.
    ///
    /// # Errors
    /// `OutOfRange` if the sum does not fit into 64 bits: then nothing is changed.
    pub fn add(&self, amount: i64) -> Result<i64> {
        match self.object.ready()?.op(&Op::CounterAdd { object: self.id(), delta: amount })? {
            Outcome::Number(sum) => Ok(sum as i64),
            _ => Err(malformed("reply")),
        }
    }

    /// The number.
    #[inline]
    pub fn get(&self) -> Result<i64> {
        Ok(self.object.look()?.2.root as i64)
    }

    watch::methods!();
}

/// Prints the number. If it cannot be read, the reason.
impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Ok(number) => fmt::Display::fmt(&number, f),
            Err(error) => write!(f, "<{error}>"),
        }
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "Counter", &self.object, None)
    }
}

/// Shared attributes of different types, by name. Made by [`Session::namespace`](crate::Session::namespace).
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// # let manager = commonhold::Manager::start()?;
/// let settings = manager.namespace()?;
/// settings.set::<String>("host", "localhost")?;
/// settings.set::<u16>("port", 8080)?;
/// assert_eq!(*settings.get::<u16>("port")?.unwrap(), 8080);
/// assert_eq!(settings.names()?, ["host", "port"]);
/// let wrong = settings.get::<u64>("port").unwrap_err();
/// assert_eq!(wrong.kind(), commonhold::ErrorKind::WrongType);
/// # Ok(())
/// # }
/// ```
pub struct Namespace {
    object: Arc<Object>,
    _of: PhantomData<()>,
}

handle!(Namespace[], commonhold_ipc::catalog::Kind::Namespace, "Namespace");

/// Bytes before an attribute's archive: fingerprint of its type, bytes of the archive, bytes of the type's text. The text
/// follows the archive.
const ATTRIBUTE_HEAD: u64 = 16;

/// An attribute's parts.
struct Attribute<'p> {
    fingerprint: u64,
    value: Place,
    text: &'p str,
}

impl Namespace {
    fn attribute<'p>(arena: &commonhold_ipc::map::ArenaReader, place: &Place) -> Result<Attribute<'p>> {
        let bytes: &'p [u8] = arena.bytes(place.offset, place.len);
        let mut read = commonhold_ipc::wire::Reader::new(bytes);
        let parse = |read: &mut commonhold_ipc::wire::Reader<'p>| {
            let (fingerprint, len, text_len) = (read.u64()?, read.u32()?, read.u32()?);
            read.take(len as usize)?;
            let text = std::str::from_utf8(read.take(text_len as usize)?).ok()?;
            let value = Place { offset: place.offset + ATTRIBUTE_HEAD, len: len.into(), ..*place };
            Some(Attribute { fingerprint, value, text })
        };
        parse(&mut read).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "an attribute of a namespace is damaged: a process has written nonsense; set it again")
        })
    }

    /// The value of an attribute, read in place; none if there is no such attribute.
    ///
    /// # Errors
    /// `WrongType` if it was set as another type.
    pub fn get<T: Shared>(&self, name: &str) -> Result<Option<Ref<'_, T>>> {
        with_key::<String, _>(&name, |key| {
            let (session, hold, record) = self.object.look()?;
            let Some(entry) = find(session, &record, key) else { return Ok(None) };
            let attribute = Self::attribute(&session.arena, &entry.value_place(&session.arena))?;
            if attribute.fingerprint != fingerprint::<T>() {
                let message = format!("attribute {name:?} of a namespace: it was set as {}, not as {}", attribute.text, text::<T>());
                return Err(Error::new(ErrorKind::WrongType, message));
            }
            Ref::new(session, &attribute.value, hold).map(Some)
        })
    }

    /// Sets an attribute, of whatever type it was before. The value may not hold handles: those belong in a dict or list.
    pub fn set<T: Shared>(&self, name: &str, value: impl AsShared<T>) -> Result<()> {
        let session = self.object.ready()?;
        let mut bytes = vec![0; ATTRIBUTE_HEAD as usize];
        with_scratch(|ser| {
            let range = ser.put::<T>(&value)?;
            if !ser.handles().is_empty() {
                return Err(Error::new(
                    ErrorKind::Refused,
                    "an attribute of a namespace cannot hold handles: put them into a dict or a list",
                ));
            }
            bytes.extend_from_slice(&ser.bytes()[range]);
            Ok(())
        })?;
        let (len, text) = (bytes.len() as u64 - ATTRIBUTE_HEAD, text::<T>());
        bytes[..8].copy_from_slice(&fingerprint::<T>().to_le_bytes());
        bytes[8..12].copy_from_slice(&(len as u32).to_le_bytes());
        bytes[12..16].copy_from_slice(&(text.len() as u32).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
        let mut ser = Ser::buffer();
        let range = ser.put::<String>(&name)?;
        let target = Target::Entry { key_len: range.len() as u64, align: 16 };
        let value = Outgoing::of_bytes(session, &mut ser, &bytes, target)?;
        let key = &ser.bytes()[range];
        let op = |value| Op::Insert { object: self.id(), key, value, only_if_absent: false, lend: false };
        session.op_quietly_with((&value, &ser), key.len(), op)
    }

    /// Takes an attribute away. Whether there was one.
    pub fn remove(&self, name: &str) -> Result<bool> {
        let session = self.object.ready()?;
        with_key::<String, _>(&name, |key| Ok(session.op(&Op::Remove { object: self.id(), key, lend: false })? != Outcome::Nothing))
    }

    /// The names of all attributes, in the order in which they were first set.
    pub fn names(&self) -> Result<Vec<String>> {
        let (session, _hold, record) = self.object.look()?;
        let mut names = Vec::new();
        for entry in Entries::new(&session.arena, record.root, record.value_align) {
            let name = access::<String>(entry.key(&session.arena))?.as_str().to_owned();
            names.push((entry.insertion(), name));
        }
        names.sort_unstable_by_key(|(insertion, _)| *insertion);
        Ok(names.into_iter().map(|(_, name)| name).collect())
    }

    /// Number of attributes.
    pub fn len(&self) -> Result<usize> {
        Ok(self.object.look()?.2.len as usize)
    }

    /// Whether there are no attributes.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    watch::methods!();
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "Namespace", &self.object, len_of(&self.object))
    }
}
