//! Handles: values that stand for an object of a manager.
//!
//! A handle is an `Arc` on an [`Object`]: which manager, which id, and this process's session with that manager. The manager
//! counts one reference for a session as long as any handle in it lives. A handle that was read out of a container has not
//! said so to the manager yet: it *binds* at its first use ([`Handle::keep`] is one), and may then find that the object is gone. To bind while
//! it is read would cost a call for each handle in a value, and come too late at times all the same: the value is of the version that was read.
mod lent;

pub use lent::Lent;

use crate::difference::of_types;
use crate::interfaces::has_interface;
use crate::seen;
use crate::session::{Session, SessionCore};
use commonhold_ipc::arena;
use commonhold_ipc::catalog::{Kind, Record};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::map::Segment;
use commonhold_ipc::pin::Hold;
use commonhold_ipc::socket::Address;
use commonhold_ipc::value::{Shared, fingerprint, text};
use std::any::Any;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

/// What all handles on one object in one process share, or at least those that were cloned from each other.
pub struct Object {
    manager: u64,
    id: u64,
    session: OnceLock<Arc<SessionCore>>,
    /// The same once the manager counts it as a holder: all that a read has to look at.
    bound: OnceLock<Arc<SessionCore>>,
    /// Whether it does so already; else somebody else holds the object for as long as it is [`Lent`].
    is_counted: AtomicBool,
    /// Of an object that has one, once it is mapped.
    segment: OnceLock<Arc<Segment>>,
    /// Of a condition, once it is known: the lock that it was made for, if it was.
    companion: OnceLock<Option<Arc<Object>>>,
    /// What this process has found out about it, once: of which type, the floor knows that works with its kind.
    local: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl Object {
    /// A handle's inside, for an object that the manager has just counted as held by this session.
    pub fn taken(session: &Arc<SessionCore>, id: u64) -> Arc<Self> {
        session.took(id);
        Arc::new(Object::bound(session, id))
    }

    /// An object that the manager counts as held by this session, once more than before.
    fn bound(session: &Arc<SessionCore>, id: u64) -> Self {
        Object::new(session.manager(), id, Some(session.clone()), Some(session.clone()))
    }

    /// An object that the manager names, which another one keeps alive that this process holds.
    pub fn related(session: &Arc<SessionCore>, id: u64) -> Arc<Self> {
        Arc::new(Object::new(session.manager(), id, Some(session.clone()), None))
    }

    fn new(manager: u64, id: u64, session: Option<Arc<SessionCore>>, bound: Option<Arc<SessionCore>>) -> Self {
        let once = |session: Option<_>| session.map_or_else(OnceLock::new, OnceLock::from);
        Object {
            manager,
            id,
            session: once(session),
            bound: once(bound),
            is_counted: AtomicBool::new(true),
            segment: OnceLock::new(),
            companion: OnceLock::new(),
            local: OnceLock::new(),
        }
    }

    /// A handle's inside, as it was read out of a value.
    pub fn read(manager: u64, id: u64, session: Option<&Arc<dyn Any + Send + Sync>>) -> Arc<Self> {
        let session = session.and_then(|session| session.clone().downcast::<SessionCore>().ok());
        // A handle that travels through another manager's session, as an argument of a process for example.
        let session = session.filter(|session| session.manager() == manager).or_else(|| SessionCore::of_manager(manager));
        // Bound at once where that costs nothing: what the guard keeps alive that this is read from, the handle keeps then.
        let bound = session.clone().filter(|session| session.is_ours() && session.hold_again(id));
        if bound.is_none()
            && let Some(lent) = session.as_ref().and_then(|session| Object::lent(session, id))
        {
            return lent;
        }
        Arc::new(Object::new(manager, id, session, bound))
    }

    /// The object's id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The manager's number.
    pub fn manager(&self) -> u64 {
        self.manager
    }

    /// The session, if the handle has found one.
    pub fn session(&self) -> Result<&Arc<SessionCore>> {
        if let Some(session) = self.session.get() {
            return Ok(session);
        }
        let session = SessionCore::of_manager(self.manager).ok_or_else(|| {
            let text = "this handle belongs to a manager that this process has no connection to: connect to it first";
            Error::new(ErrorKind::Disconnected, text)
        })?;
        Ok(self.session.get_or_init(|| session))
    }

    /// The session, ready for a call about this object.
    #[inline(always)]
    pub fn ready(&self) -> Result<&Arc<SessionCore>> {
        if let Some(session) = self.bound.get()
            && session.is_usable()
        {
            return Ok(session);
        }
        self.bind()
    }

    #[cold]
    fn bind(&self) -> Result<&Arc<SessionCore>> {
        let session = self.session()?;
        session.check()?;
        if self.bound.get().is_none() {
            session.hold(self.id)?;
            if self.bound.set(session.clone()).is_err() {
                // Another thread was quicker: its reference is enough.
                session.let_go(self.id);
            }
        }
        Ok(session)
    }

    /// The session, ready to work on the object's segment, and that.
    #[inline(always)]
    pub fn shared(&self, kind: Kind) -> Result<(&Arc<SessionCore>, &Segment)> {
        let session = self.ready()?;
        match self.segment.get() {
            Some(segment) => Ok((session, segment)),
            None => self.attach(session, kind),
        }
    }

    /// What `make` finds out about the object at the first use.
    #[inline(always)]
    pub fn local<L: Send + Sync + 'static>(&self, make: impl FnOnce(&Arc<SessionCore>) -> Result<L>) -> Result<(&Arc<SessionCore>, &L)> {
        let session = self.ready()?;
        let local = self.found_out(|| {
            self.be_counted(session)?;
            make(session)
        })?;
        Ok((session, local))
    }

    /// The same, of an object that need not be held for it.
    #[inline(always)]
    pub fn found_out<L: Send + Sync + 'static>(&self, make: impl FnOnce() -> Result<L>) -> Result<&L> {
        let local = match self.local.get() {
            Some(local) => local,
            None => {
                let made = make()?;
                self.local.get_or_init(|| Box::new(made))
            }
        };
        let Some(local) = local.downcast_ref() else { unreachable!("an object is of one kind") };
        Ok(local)
    }

    #[cold]
    fn attach<'s>(&'s self, session: &'s Arc<SessionCore>, kind: Kind) -> Result<(&'s Arc<SessionCore>, &'s Segment)> {
        self.be_counted(session)?;
        let segment = session.segment(self.id, kind)?;
        Ok((session, self.segment.get_or_init(|| segment)))
    }

    /// The object that this one was made for, if it was: what its record names.
    pub fn companion(&self) -> Result<Option<&Arc<Object>>> {
        if self.companion.get().is_none() {
            let (session, _hold, record) = self.look()?;
            let companion = (record.root != 0).then(|| Object::related(session, record.root));
            let _ = self.companion.set(companion);
        }
        Ok(self.companion.get().and_then(Option::as_ref))
    }

    /// The object as of now, held. Its record is what the thread has [`seen`] last.
    #[inline(always)]
    pub fn hold(&self) -> Result<(&Arc<SessionCore>, Hold<'_>)> {
        let session = self.ready()?;
        loop {
            let (hold, version) = session.pins.hold();
            if seen::shows(session.pins.id(), version, self.id) || self.look_up(session, version)? {
                return Ok((session, hold));
            }
        }
    }

    /// The same with its record.
    #[inline(always)]
    pub fn look(&self) -> Result<(&Arc<SessionCore>, Hold<'_>, Record)> {
        let (session, hold) = self.hold()?;
        Ok((session, hold, seen::with(self.id, seen::Seen::record)))
    }

    /// Finds the object in a version that this thread holds. `false`: take a newer one.
    #[inline(never)]
    fn look_up(&self, session: &SessionCore, version: u64) -> Result<bool> {
        let Some(root) = arena::root_of(&session.arena, version) else { return Ok(false) };
        seen::remember(session.pins.id(), version, &session.record(&root, self.id)?);
        Ok(true)
    }

    /// Sees that the object, which the caller calls so, was made as what the handle takes it for.
    pub fn check_type<H: Handle>(&self, what: impl fmt::Display) -> Result<()> {
        let (session, _hold, record) = self.look()?;
        let found = commonhold_ipc::catalog::descriptor(&session.arena, &record)?;
        let wanted = fingerprint::<H>();
        if found.fingerprint == wanted || (record.kind == Kind::Remote && has_interface(found.text, wanted)) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::WrongType, of_types(&what.to_string(), found.text, text::<H>())))
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        if let Some(session) = self.bound.get()
            && *self.is_counted.get_mut()
        {
            session.let_go(self.id);
        }
    }
}

/// A value that stands for an object in a manager: [`Dict`](crate::Dict), [`List`](crate::List) and their kin.
///
/// Handles are `Clone + Send + Sync`, and [`Shared`] themselves: a handle can be a value in another container, whose reference
/// then keeps the object alive. Two handles are equal when they name the same object.
///
/// **A handle that was copied out of a value holds its object from its first use on**, or at once where this process holds it already, since
/// reading makes no call. Between copy and first use somebody else may take the value out, and with its last reference the object goes: the
/// first use is then an error of kind `NotFound`. [`keep`](Self::keep) takes hold without any other use. Where others take values out at
/// any time, look again:
///
/// ```
/// # commonhold::init_in_tests!();
/// use commonhold::{Dict, List};
///
/// /// The list under a key, if there is one: held, whoever removes the entry.
/// fn list_of(shelf: &Dict<String, List<u8>>, key: &str) -> commonhold::Result<Option<List<u8>>> {
///     loop {
///         let Some(list) = shelf.get(key)?.map(|list| list.to_owned()) else { return Ok(None) };
///         match list.keep() {
///             // Taken out between: there may be another one now, or none.
///             Err(error) if error.is_not_found() => continue,
///             kept => return kept.map(|()| Some(list)),
///         }
///     }
/// }
/// # fn main() -> commonhold::Result<()> {
/// # let manager = commonhold::Manager::start()?;
/// # let shelf = manager.dict([("numbers".to_string(), manager.list([1, 2, 3])?)])?;
/// let list = list_of(&shelf, "numbers")?.expect("it is there");
/// shelf.remove("numbers")?;
/// assert_eq!(list.len()?, 3);
/// assert!(list_of(&shelf, "numbers")?.is_none());
/// # Ok(())
/// # }
/// ```
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// use commonhold::{Dict, Handle, List, Manager};
///
/// let manager = Manager::start()?;
/// let inner: List<u8> = manager.list([1, 2, 3])?;
/// let shelf: Dict<String, List<u8>> = manager.dict([("numbers".to_string(), inner.clone())])?;
/// let again = shelf.get("numbers")?.unwrap().to_owned();
/// assert!(again == inner);
/// again.push(4)?;
/// assert_eq!(inner.len()?, 4);
/// # Ok(())
/// # }
/// ```
pub trait Handle: Shared + Clone {
    /// What kind of object it is a handle on.
    #[doc(hidden)]
    const KIND: Kind;

    #[doc(hidden)]
    fn from_object(object: Arc<Object>) -> Self;

    #[doc(hidden)]
    fn object(&self) -> &Arc<Object>;

    /// The object's id, never used again by its manager.
    fn id(&self) -> u64 {
        self.object().id()
    }

    /// Holds the object from now on, whatever becomes of the value that the handle was copied from. Nothing to do if it is held already, as it
    /// is once it has been used, or if this process has made it or got it as an argument; else one call.
    ///
    /// # Errors
    /// `NotFound` if it is gone: nothing else referred to it; otherwise if the handle is not connected.
    fn keep(&self) -> Result<()> {
        self.object().ready().map(drop)
    }

    /// This process's session with the object's manager: for a program that was given the handle and nothing else.
    ///
    /// # Errors
    /// If the handle is not connected.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// use commonhold::{Dict, Manager};
    ///
    /// fn swap(seats: &Dict<u8, String>) -> commonhold::Result<()> {
    ///     seats.session()?.transaction(|tx| {
    ///         let (left, right) = (tx.get(seats, 1)?.expect("1").to_owned(), tx.get(seats, 2)?.expect("2").to_owned());
    ///         tx.insert(seats, 1, right)?;
    ///         tx.insert(seats, 2, left)
    ///     })
    /// }
    /// # fn main() -> commonhold::Result<()> {
    /// # let manager = Manager::start()?;
    /// # let seats = manager.dict([(1, "ada".to_string()), (2, "bob".to_string())])?;
    /// # swap(&seats)?;
    /// # assert_eq!(*seats.get(1)?.unwrap(), "bob");
    /// # Ok(())
    /// # }
    /// ```
    fn session(&self) -> Result<Session> {
        Ok(Session::of(self.object().ready()?))
    }

    /// A line of text that stands for the object: for an environment variable, an argument or a file. It holds no secret.
    /// [`attach`](crate::Session::attach) makes a handle of it again.
    ///
    /// # Errors
    /// If the handle is not connected.
    fn token(&self) -> Result<Token> {
        let session = self.object().ready()?;
        Ok(Token { address: session.address.clone(), manager: self.object().manager(), id: self.id(), fingerprint: fingerprint::<Self>() })
    }
}

/// A handle as a line of text: where the manager is, which object, and which type it was made as. See [`Handle::token`].
///
/// The line has no blanks. It is not a secret: who may use it, the manager decides at the handshake.
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// use commonhold::{Dict, Manager, Token};
///
/// let manager = Manager::start()?;
/// let totals = manager.dict([("the".to_string(), 1u64)])?;
/// let line = totals.token()?.to_string();               // for an environment variable, an argument, a file
/// // In another process:
/// let token: Token = line.parse()?;
/// let totals: Dict<String, u64> = token.open()?;
/// assert_eq!(*totals.get("the")?.unwrap(), 1);
/// assert!(token.open::<Dict<String, i64>>().is_err());  // made as another type
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub(crate) address: Address,
    pub(crate) manager: u64,
    pub(crate) id: u64,
    pub(crate) fingerprint: u64,
}

impl Token {
    /// Where the manager listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Makes a handle of the token, with this process's session with the manager; connects to it if there is none yet.
    ///
    /// A manager that asks for an authkey is connected to first, with
    /// [`Manager::builder().authkey(…).connect(…)`](../commonhold/struct.ManagerBuilder.html) at [`address`](Self::address).
    ///
    /// # Errors
    /// If the manager or the object is gone, or is not of this type; `Refused` if it asks for an authkey.
    pub fn open<H: Handle>(&self) -> Result<H> {
        let session = match SessionCore::of_manager(self.manager) {
            Some(session) => session,
            None => SessionCore::connect(&self.address, None, true)?,
        };
        self.open_in(&session)
    }

    pub(crate) fn open_in<H: Handle>(&self, session: &Arc<SessionCore>) -> Result<H> {
        if session.manager() != self.manager {
            let text = format!(
                "this token is of another manager than the one at {}: that one has ended, and so have its objects",
                session.address
            );
            return Err(Error::new(ErrorKind::NotFound, text));
        }
        session.check()?;
        session.hold(self.id)?;
        let object = Arc::new(Object::bound(session, self.id));
        object.check_type::<H>(format_args!("object {} of this token", self.id))?;
        Ok(H::from_object(object))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "commonhold:{:x}:{}:{:016x}:{}", self.manager, self.id, self.fingerprint, self.address)
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        let parse = || {
            let mut parts = line.trim().strip_prefix("commonhold:")?.splitn(4, ':');
            Some(Token {
                manager: u64::from_str_radix(parts.next()?, 16).ok()?,
                id: parts.next()?.parse().ok()?,
                fingerprint: u64::from_str_radix(parts.next()?, 16).ok()?,
                address: parts.next()?.parse().ok()?,
            })
        };
        let shown: String = line.chars().take(100).collect();
        parse()
            .ok_or_else(|| Error::new(ErrorKind::OutOfRange, format!("{shown:?} is not a token: pass the whole line that `token()` gave")))
    }
}

/// Where a handle stands, for its `Debug`.
pub fn debug(f: &mut fmt::Formatter<'_>, name: &str, object: &Object, len: Option<u64>) -> fmt::Result {
    write!(f, "<{name} object {}", object.id())?;
    match object.session() {
        Ok(session) => write!(f, " at {}", session.address)?,
        Err(_) => f.write_str(" of another manager")?,
    }
    match len {
        Some(len) => write!(f, ", len {len}>"),
        None => f.write_str(">"),
    }
}

/// What a handle's type is called in print: an object's class by its name, all others with the types of what they hold.
pub fn shown<H: Handle>(name: &'static str) -> &'static str {
    if H::KIND == Kind::Remote { name } else { text::<H>() }
}

/// The number of entries or elements of an object, for `Debug`; none if it cannot be looked at.
pub(crate) fn len_of(object: &Object) -> Option<u64> {
    object.look().ok().map(|(_, _, record)| record.len)
}

/// Makes a handle of a type: all that handles are as values. `$make` makes one of an object, `$describe` describes the type.
#[doc(hidden)]
#[macro_export]
macro_rules! __handle_value {
    ($name:ident[$($parameter:ident: $bound:path),*], $kind:expr, $text:literal, |$object:ident| $make:expr, |$this:ident| $inside:expr, |$schema:ident| $describe:expr) => {
        impl<$($parameter: $bound),*> $crate::Handle for $name<$($parameter),*> {
            const KIND: $crate::__rt::Kind = $kind;
            fn from_object($object: ::std::sync::Arc<$crate::__rt::Object>) -> Self {
                $make
            }
            fn object(&self) -> &::std::sync::Arc<$crate::__rt::Object> {
                let $this = self;
                $inside
            }
        }
        impl<$($parameter: $bound),*> ::core::cmp::PartialEq for $name<$($parameter),*> {
            fn eq(&self, other: &Self) -> bool {
                $crate::__rt::same_object($crate::Handle::object(self), $crate::Handle::object(other))
            }
        }
        impl<$($parameter: $bound),*> ::core::cmp::Eq for $name<$($parameter),*> {}
        impl<$($parameter: $bound),*> ::core::hash::Hash for $name<$($parameter),*> {
            fn hash<H: ::core::hash::Hasher>(&self, state: &mut H) {
                let object = $crate::Handle::object(self);
                ::core::hash::Hash::hash(&(object.manager(), object.id()), state);
            }
        }
        impl<$($parameter: $bound),*> $crate::__rt::rkyv::Archive for $name<$($parameter),*> {
            type Archived = $crate::__rt::ArchivedHandle;
            type Resolver = ();
            fn resolve(&self, (): (), out: $crate::__rt::rkyv::Place<Self::Archived>) {
                let object = $crate::Handle::object(self);
                $crate::__rt::ArchivedHandle::place(object.manager(), object.id(), out);
            }
        }
        impl<$($parameter: $bound,)* S> $crate::__rt::rkyv::Serialize<S> for $name<$($parameter),*>
        where
            S: $crate::__rt::rkyv::rancor::Fallible + $crate::__rt::HandleSink + ?Sized,
        {
            fn serialize(&self, serializer: &mut S) -> ::core::result::Result<(), S::Error> {
                let object = $crate::Handle::object(self);
                serializer.handle(object.manager(), object.id());
                Ok(())
            }
        }
        impl<$($parameter: $bound,)* D> $crate::__rt::rkyv::Deserialize<$name<$($parameter),*>, D> for $crate::__rt::ArchivedHandle
        where
            D: $crate::__rt::rkyv::rancor::Fallible + $crate::__rt::HandleSource + ?Sized,
        {
            fn deserialize(&self, deserializer: &mut D) -> ::core::result::Result<$name<$($parameter),*>, D::Error> {
                let object = $crate::__rt::Object::read(self.manager(), self.id(), deserializer.session());
                Ok($crate::Handle::from_object(object))
            }
        }
        impl<$($parameter: $bound),*> $crate::__rt::Shared for $name<$($parameter),*> {
            type View = $crate::__rt::ArchivedHandle;
            const FLAT: bool = false;
            fn view(archived: &Self::Archived) -> &Self::View {
                archived
            }
            fn schema($schema: &mut $crate::__rt::Schema) {
                $describe
            }
            fn debug(archived: &Self::Archived, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                write!(f, "<{} object {}>", $crate::__rt::shown::<Self>($text), archived.id())
            }
            fn eq_archived(archived: &Self::Archived, value: &Self) -> bool {
                let object = $crate::Handle::object(value);
                (archived.manager(), archived.id()) == (object.manager(), object.id())
            }
            fn intact(_: &Self::Archived) -> bool {
                true
            }
        }
    };
}

/// Makes a handle type of a struct with the fields `object` and `_of`.
macro_rules! handle {
    ($name:ident[$($parameter:ident: $bound:path),*], $kind:expr, $text:literal) => {
        impl<$($parameter: $bound),*> $name<$($parameter),*> {
            /// As [`Handle::token`](crate::Handle::token).
            ///
            /// # Errors
            /// If the handle is not connected.
            pub fn token(&self) -> commonhold_ipc::error::Result<$crate::Token> {
                $crate::Handle::token(self)
            }

            /// As [`Handle::keep`](crate::Handle::keep).
            ///
            /// # Errors
            /// `NotFound` if the object is gone.
            pub fn keep(&self) -> commonhold_ipc::error::Result<()> {
                $crate::Handle::keep(self)
            }

            /// As [`Handle::session`](crate::Handle::session).
            ///
            /// # Errors
            /// If the handle is not connected.
            pub fn session(&self) -> commonhold_ipc::error::Result<$crate::Session> {
                $crate::Handle::session(self)
            }
        }
        impl<$($parameter: $bound),*> Clone for $name<$($parameter),*> {
            fn clone(&self) -> Self {
                $name { object: self.object.clone(), _of: std::marker::PhantomData }
            }
        }
        $crate::__handle_value! {
            $name[$($parameter: $bound),*],
            $kind,
            $text,
            |object| $name { object, _of: std::marker::PhantomData },
            |this| &this.object,
            |schema| {
                let parameters: &[fn(&mut commonhold_ipc::value::Schema)] = &[$(|schema| schema.element::<$parameter>()),*];
                schema.word($text);
                if !parameters.is_empty() {
                    schema.word("<");
                    parameters.iter().for_each(|parameter| parameter(schema));
                    schema.word(">");
                }
            }
        }
    };
}
pub(crate) use handle;

/// Whether two handles stand for the same object.
pub fn same_object(one: &Object, other: &Object) -> bool {
    (one.manager(), one.id()) == (other.manager(), other.id())
}
