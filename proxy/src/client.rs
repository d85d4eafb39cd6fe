//! What a program does with a manager: the methods of [`Session`].

use crate::array::{Array, ArrayContent, SharedBytes};
use crate::batch::Batch;
use crate::dict::Dict;
use crate::handle::{Handle, Object, Token};
use crate::inside::Inside;
use crate::list::{List, Run, inline_bytes};
use crate::patience::deadline_after;
use crate::session::{Session, SessionCore};
use crate::single::{Counter, Namespace, Value};
use crate::snapshot::Snapshot;
use crate::striped::StripedCounter;
use crate::sync::{Barrier, BoundedSemaphore, Condition, Event, Lock, RLock, RwLock, Semaphore};
use crate::transaction::{self, Transaction};
use crate::writer::Writer;
use commonhold_ipc::auth::AuthKey;
use commonhold_ipc::catalog::Kind;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::{BARRIER_PARTIES_MAX, NAME_BYTES_MAX, SEMAPHORE_PERMITS_MAX};
use commonhold_ipc::socket::{Address, Channel};
use commonhold_ipc::value::{AsShared, Key, Plain, Shared, fingerprint, text};
use commonhold_ipc::wire::commit::{END, Op};
use commonhold_ipc::wire::reply::Outcome;
use commonhold_ipc::wire::{Call, NewObject, Words, malformed};
use std::fmt;

/// Bytes of a container's first content that are sent at a time, when it is made of an iterator.
const FILL_BYTES: usize = 1 << 20;

impl Session {
    /// Connects to the manager at an address.
    ///
    /// # Errors
    /// `NotFound` if no manager is there, `Refused` if it does not let this process in.
    pub fn connect(address: &Address, authkey: Option<&AuthKey>) -> Result<Session> {
        Session::connect_by(address, authkey, true)
    }

    /// The same; without `lanes`, calls go by the socket alone. A connection that this process has already, by the same
    /// authkey, is used as it is.
    #[doc(hidden)]
    pub fn connect_by(address: &Address, authkey: Option<&AuthKey>, lanes: bool) -> Result<Session> {
        if let Some(core) = SessionCore::at_address(address, authkey) {
            return Ok(Session::over(core));
        }
        Ok(Session::over(SessionCore::connect(address, authkey, lanes)?))
    }

    /// Begins a session on a channel to a manager that others find at `address`.
    pub fn greet(channel: Channel, address: Address, authkey: Option<&AuthKey>) -> Result<Session> {
        Ok(Session::over(SessionCore::greet(channel, address, authkey, None)?))
    }

    /// The same with a manager that this process has started, on one of a pair of sockets.
    #[doc(hidden)]
    pub fn greet_started(channel: Channel, address: Address, authkey: Option<&AuthKey>, pid: u32) -> Result<Session> {
        Ok(Session::over(SessionCore::greet(channel, address, authkey, Some(pid))?))
    }

    /// Whether this program has started the manager, which ends with it.
    #[doc(hidden)]
    pub fn is_owner(&self) -> bool {
        self.core().is_owner()
    }

    /// The key that this program has shown the manager.
    #[doc(hidden)]
    pub fn authkey(&self) -> Option<&AuthKey> {
        self.core().authkey.as_ref()
    }

    /// Keeps something until the connection is over: the process or thread of a manager that this program started.
    #[doc(hidden)]
    pub fn keep(&self, keeper: Box<dyn std::any::Any + Send>) {
        self.core().keep(keeper);
    }

    /// Sleeps until the manager has ended, however it ends. `false`: it still lives after `timeout`.
    pub fn wait_for_end(&self, timeout: impl Into<Option<std::time::Duration>>) -> Result<bool> {
        // Later than any clock shows is never.
        self.core().wait_for_end(deadline_after(timeout))
    }

    /// Where the manager listens, as one word: for [`Manager::connect`](../commonhold/struct.Manager.html) in another process.
    pub fn address(&self) -> &Address {
        &self.core().address
    }

    /// Id of the process that serves: what `ps` and `kill` know the manager by. One that runs [in this
    /// process](../commonhold/struct.ManagerBuilder.html#method.in_process) has this process's own. Whoever connects is told it by the kernel,
    /// not by the manager. It stays what it was when the manager has ended; 0 if the manager runs where this process can see none (another
    /// namespace of process ids).
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// use commonhold::Manager;
    ///
    /// let (apart, within) = (Manager::start()?, Manager::in_process()?);
    /// assert_ne!(apart.pid(), std::process::id());
    /// assert_eq!(within.pid(), std::process::id());
    /// let visitor = commonhold::Process::spawn(|address: String| Manager::connect(&address).unwrap().pid(), apart.address().to_string())?;
    /// assert_eq!(visitor.join()?, apart.pid());
    /// # Ok(())
    /// # }
    /// ```
    pub fn pid(&self) -> u32 {
        self.core().manager_pid
    }

    /// Whether the manager is there.
    pub fn is_alive(&self) -> bool {
        self.core().is_ours() && self.core().is_alive()
    }

    /// Number of the newest version.
    pub fn version(&self) -> u64 {
        commonhold_ipc::arena::version(&self.core().arena)
    }

    fn new_object<H: Handle>(&self, kind: Kind, value_align: u8, element_bytes: u32) -> Result<H> {
        self.create_as::<H>(NewObject { kind: kind as u8, value_align, element_bytes, ..NewObject::default() })
    }

    /// An object whose users write its state themselves.
    pub(crate) fn create_shared<H: Handle>(&self, parameters: &[u64]) -> Result<H> {
        let parameters: Vec<u8> = parameters.iter().flat_map(|number| number.to_le_bytes()).collect();
        let Some(parameters) = Words::new(&parameters) else { unreachable!("numbers have 8 bytes each") };
        self.create_as::<H>(NewObject { kind: H::KIND as u8, parameters, ..NewObject::default() })
    }

    fn create_as<H: Handle>(&self, new: NewObject<'_>) -> Result<H> {
        let new = NewObject { fingerprint: fingerprint::<H>(), text: text::<H>(), ..new };
        let mut request = crate::request::Request::new(Call::Create);
        new.write(request.payload());
        match self.core().call(&mut request, true)?.outcome()? {
            Outcome::Number(id) => Ok(H::from_object(Object::taken(self.core(), id))),
            _ => Err(malformed("reply")),
        }
    }

    /// A new dict with these entries.
    pub fn dict<K: Key, V: Shared>(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<Dict<K, V>> {
        let _new = Inside::of_none();
        let dict: Dict<K, V> = self.new_object(Kind::Dict, crate::dict::value_align::<K, V>(), 0)?;
        let mut batch = Batch::new(self.core());
        for (key, value) in entries {
            batch.insert(&dict, key, value)?;
            // Nobody else knows the dict yet, so it may fill in several commits.
            if batch.len() > FILL_BYTES {
                std::mem::replace(&mut batch, Batch::new(self.core())).commit()?;
            }
        }
        batch.commit()?;
        Ok(dict)
    }

    /// A new list with these elements.
    pub fn list<T: Shared>(&self, elements: impl IntoIterator<Item = T>) -> Result<List<T>> {
        let _new = Inside::of_none();
        let list: List<T> = self.new_object(Kind::List, 0, inline_bytes::<T>())?;
        let mut run = Run::new::<T>();
        let send = |run: &Run| self.core().op(&Op::ListSplice { object: list.id(), position: END, remove: 0, values: run.values() });
        for element in elements {
            run.add::<T>(self.core(), &element)?;
            if run.len() > FILL_BYTES {
                send(&run)?;
                run = Run::new::<T>();
            }
        }
        if !run.is_empty() {
            send(&run)?;
        }
        Ok(list)
    }

    /// A new shared value.
    pub fn value<T: Shared>(&self, first: impl AsShared<T>) -> Result<Value<T>> {
        let _new = Inside::of_none();
        let value: Value<T> = self.new_object(Kind::Value, 0, 0)?;
        value.set(first)?;
        Ok(value)
    }

    /// A new counter.
    pub fn counter(&self, first: i64) -> Result<Counter> {
        let _new = Inside::of_none();
        let counter: Counter = self.new_object(Kind::Counter, 0, 0)?;
        if first != 0 {
            counter.add(first)?;
        }
        Ok(counter)
    }

    /// A new namespace, empty.
    pub fn namespace(&self) -> Result<Namespace> {
        self.new_object(Kind::Namespace, 16, 0)
    }

    /// A new counter for additions at the speed of memory: see [`StripedCounter`].
    pub fn striped_counter(&self, first: i64) -> Result<StripedCounter> {
        self.create_shared(&[first as u64])
    }

    /// A new array: so many zeros, or these values. Its memory counts against the manager's [capacity](Stats::segment_bytes).
    ///
    /// # Errors
    /// `Full` if the manager's capacity or the system's memory do not suffice; `TooLarge` if no memory does.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// # let manager = commonhold::Manager::start()?;
    /// assert_eq!(manager.array::<u16>(3)?.to_vec()?, [0, 0, 0]);
    /// assert_eq!(manager.array([1.5, 2.5])?.get(1)?, 2.5);
    /// assert_eq!(manager.array(&vec![true, false])?.len()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn array<T: Plain>(&self, content: impl ArrayContent<T>) -> Result<Array<T>> {
        let array: Array<T> = self.create_shared(&[content.count() as u64, commonhold_ipc::array::stride::<T>() as u64])?;
        // Attached at once: a lack of memory shows here, and not with the first who uses it.
        array.write_from(0, content.values())?;
        Ok(array)
    }

    /// A new block of so many bytes, zeros. Its memory counts against the manager's [capacity](Stats::segment_bytes).
    ///
    /// # Errors
    /// As [`array`](Self::array).
    pub fn shared_bytes(&self, len: usize) -> Result<SharedBytes> {
        let bytes: SharedBytes = self.create_shared(&[len as u64])?;
        bytes.len()?;
        Ok(bytes)
    }

    /// A new lock, free.
    pub fn lock(&self) -> Result<Lock> {
        self.create_shared(&[])
    }

    /// A new lock that its holder may take again, free.
    pub fn rlock(&self) -> Result<RLock> {
        self.create_shared(&[])
    }

    /// A new lock for readers and writers, free.
    pub fn rw_lock(&self) -> Result<RwLock> {
        self.create_shared(&[])
    }

    /// A new semaphore with so many permits.
    ///
    /// # Errors
    /// `OutOfRange` if that are more than 65,536.
    pub fn semaphore(&self, permits: usize) -> Result<Semaphore> {
        self.create_shared(&[permits_of(permits)?])
    }

    /// A new semaphore that never has more permits than these.
    ///
    /// # Errors
    /// `OutOfRange` if that are more than 65,536.
    pub fn bounded_semaphore(&self, permits: usize) -> Result<BoundedSemaphore> {
        self.create_shared(&[permits_of(permits)?])
    }

    /// A new condition with a lock of its own.
    pub fn condition(&self) -> Result<Condition> {
        self.create_shared(&[])
    }

    /// A new condition for a lock that there is: several conditions may share one.
    ///
    /// # Errors
    /// `Refused` if the lock is another manager's.
    pub fn condition_with(&self, lock: &Lock) -> Result<Condition> {
        if lock.object().manager() != self.core().manager() {
            return Err(Error::new(ErrorKind::Refused, "a condition is made for a lock of its own manager: this one is of another"));
        }
        lock.object().ready()?;
        self.create_shared(&[lock.id()])
    }

    /// A new event, not set.
    pub fn event(&self) -> Result<Event> {
        self.create_shared(&[])
    }

    /// A new barrier for so many parties.
    ///
    /// # Errors
    /// `OutOfRange` if that is none, or more than 4,096.
    pub fn barrier(&self, parties: usize) -> Result<Barrier> {
        if !(1..=BARRIER_PARTIES_MAX).contains(&parties) {
            let text = format!("a barrier for {parties} parties cannot be made: there are 1 to {BARRIER_PARTIES_MAX}");
            return Err(Error::new(ErrorKind::OutOfRange, text));
        }
        self.create_shared(&[parties as u64])
    }

    /// One version of everything, held until it is dropped.
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.core().check()?;
        Ok(Snapshot::new(self.core()))
    }

    /// Many writes, one message, one commit: all of them happen, or, if `body` or the manager fails, none.
    pub fn batch<R>(&self, body: impl FnOnce(&Batch<'_>) -> Result<R>) -> Result<R> {
        let batch = Batch::new(self.core());
        let result = body(&batch)?;
        batch.commit()?;
        Ok(result)
    }

    /// Writes that are sent without waiting for each one's answer: see [`Writer`].
    pub fn writer(&self) -> Result<Writer> {
        Writer::new(self.core())
    }

    /// Reads and writes that happen together, at one instant: see [`Transaction`]. If something that `body` has read is
    /// changed by somebody else before the commit, it runs again, after a few times with the other writers kept waiting. An
    /// error from `body` leaves no trace.
    ///
    /// In it, write by the transaction: a write by a handle itself, over the same connection, is refused there. It would happen at
    /// once, and again with each further run. What handles read is the newest state, not the transaction's. Objects may be
    /// made, and another transaction may run there: it is one of its own.
    ///
    /// # Errors
    /// `body`'s own; `Refused` as said; `Conflict` if it is so slow that others keep changing what it read.
    /// How an error of a type of your own leaves `body`, the guide's chapter on transactions shows.
    pub fn transaction<R>(&self, body: impl FnMut(&Transaction<'_>) -> Result<R>) -> Result<R> {
        transaction::run(self.core(), body)
    }

    /// A handle on the object with a name.
    ///
    /// # Errors
    /// `NotFound` if there is none, `WrongType` if it was made as another type: the message shows both.
    pub fn open<H: Handle>(&self, name: &str) -> Result<H> {
        match self.core().call_with_text(Call::Lookup, name, false)?.outcome()? {
            Outcome::Number(id) => {
                let object = Object::taken(self.core(), id);
                object.check_type::<H>(format_args!("{name:?}"))?;
                Ok(H::from_object(object))
            }
            _ => Err(malformed("reply")),
        }
    }

    /// A handle on the object with a name; if there is none, `make` makes one, and it gets the name. Of several programs that
    /// do so at the same time, one makes it and all get the same.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// # let manager = commonhold::Manager::start()?;
    /// use commonhold::{Dict, ErrorKind};
    /// let stations: Dict<String, f64> = manager.open_or_create("stations", |m| m.dict([]))?;
    /// stations.insert("oslo", 4.0)?;
    /// let same = manager.open::<Dict<String, f64>>("stations")?;
    /// assert!(same == stations);
    /// assert_eq!(manager.open::<Dict<String, u64>>("stations").unwrap_err().kind(), ErrorKind::WrongType);
    /// assert!(manager.open::<Dict<String, f64>>("ships").unwrap_err().is_not_found());
    /// # Ok(())
    /// # }
    /// ```
    pub fn open_or_create<H: Handle>(&self, name: &str, mut make: impl FnMut(&Session) -> Result<H>) -> Result<H> {
        loop {
            match self.open(name) {
                Err(error) if error.is_not_found() => {}
                other => return other,
            }
            let made = make(self)?;
            match self.publish(name, &made) {
                Ok(()) => return Ok(made),
                // Another was quicker: its object it is.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives an object a name, by which [`open`](Self::open) finds it in any program. The name keeps it alive.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken.
    pub fn publish(&self, name: &str, handle: &impl Handle) -> Result<()> {
        self.give_name(name, handle, false)
    }

    /// The same, but takes the name away from another object that may have it.
    pub fn publish_over(&self, name: &str, handle: &impl Handle) -> Result<()> {
        self.give_name(name, handle, true)
    }

    fn give_name(&self, name: &str, handle: &impl Handle, replace: bool) -> Result<()> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            let text = format!("a name of {} bytes cannot be given: names have 1 to {NAME_BYTES_MAX} bytes", name.len());
            return Err(Error::new(ErrorKind::OutOfRange, text));
        }
        if handle.object().manager() != self.core().manager() {
            return Err(Error::new(ErrorKind::Refused, "an object gets its names from its own manager: this handle is of another"));
        }
        handle.object().ready()?;
        let mut request = crate::request::Request::new(Call::Publish);
        request.payload().extend_from_slice(&handle.id().to_le_bytes());
        request.payload().push(u8::from(replace));
        request.payload().extend_from_slice(name.as_bytes());
        self.core().call(&mut request, true)?;
        Ok(())
    }

    /// Takes a name away. Whether it was there. The object lives on while something else refers to it.
    pub fn unpublish(&self, name: &str) -> Result<bool> {
        Ok(self.core().call_with_text(Call::Unpublish, name, true)?.outcome()? == Outcome::Something)
    }

    /// All published names.
    pub fn names(&self) -> Result<Vec<String>> {
        let text = self.text(Call::Names)?;
        let (mut names, mut rest) = (Vec::new(), text.as_str());
        while !rest.is_empty() {
            let (name, more) = split_name(rest).ok_or_else(|| malformed("list of names"))?;
            names.push(name.to_owned());
            rest = more;
        }
        Ok(names)
    }

    /// Makes a handle of a [`Token`].
    ///
    /// # Errors
    /// If the object is gone, of another type, or of another manager.
    pub fn attach<H: Handle>(&self, token: &Token) -> Result<H> {
        token.open_in(self.core())
    }

    /// The manager's figures.
    pub fn stats(&self) -> Result<Stats> {
        Ok(Stats::parse(&self.text(Call::Stats)?))
    }

    /// Lets the manager check all of its invariants: every block reachable once or free, counts, orders, references. Takes a
    /// time in proportion to what it holds, in which it does nothing else.
    ///
    /// # Errors
    /// `Corrupt` with what is wrong: a bug of ours, please report it.
    pub fn audit(&self) -> Result<()> {
        let what = self.text(Call::Audit)?;
        if what.is_empty() { Ok(()) } else { Err(Error::new(ErrorKind::Corrupt, format!("the manager's store is damaged: {what}"))) }
    }

    /// Ends the manager, whoever else is connected to it. All handles then fail with `is_disconnected`.
    pub fn shutdown(&self) -> Result<()> {
        let mut request = crate::request::Request::new(Call::Shutdown);
        match self.core().call(&mut request, false) {
            Err(error) if !error.is_disconnected() => Err(error),
            // It may end before its answer arrives.
            _ => Ok(()),
        }
    }

    fn text(&self, call: Call) -> Result<String> {
        let mut request = crate::request::Request::new(call);
        match self.core().call(&mut request, false)?.outcome()? {
            Outcome::Text(text) => Ok(text),
            _ => Err(malformed("reply")),
        }
    }
}

fn permits_of(permits: usize) -> Result<u64> {
    if permits <= SEMAPHORE_PERMITS_MAX {
        return Ok(permits as u64);
    }
    let text = format!("a semaphore with {permits} permits cannot be made: the most is {SEMAPHORE_PERMITS_MAX}");
    Err(Error::new(ErrorKind::OutOfRange, text))
}

/// The first name of the text that answers [`Call::Names`], and what follows.
fn split_name(text: &str) -> Option<(&str, &str)> {
    let (_id, rest) = text.split_once(' ')?;
    let (len, rest) = rest.split_once(' ')?;
    let (name, rest) = rest.split_at_checked(len.parse().ok()?)?;
    Some((name, rest.strip_prefix('\n')?))
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Session with the manager at {}>", self.core().address)
    }
}

/// A manager's figures. See [`Session::stats`]. Sizes are in bytes.
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// # let manager = commonhold::Manager::start()?;
/// let list = manager.list(0..1000u64)?;
/// let snapshot = manager.snapshot()?;
/// list.clear()?;
/// let stats = manager.stats()?;
/// assert!(stats.retired_bytes >= 8000);                 // the snapshot still shows them
/// assert_eq!(stats.oldest_pin, Some(snapshot.version()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Number of the newest version.
    pub version: u64,
    /// Number of objects.
    pub objects: u64,
    /// Number of sessions.
    pub sessions: u64,
    /// Number of sessions whose connection is over, but whose process lives and may still read under its guards.
    pub lingering: u64,
    /// Calls that came through shared memory instead of by a socket, since the manager began.
    pub lane_calls: u64,
    /// Those for which the client had to wake the manager, by a system call. While both sides are awake there are none.
    pub lane_rings: u64,
    /// Those whose caller slept, and had to be woken by the manager, by a system call.
    pub lane_wakeups: u64,
    /// Number of objects with a segment of their own: locks and their kin.
    pub segments: u64,
    /// Bytes of those segments.
    pub segment_bytes: u64,
    /// Bytes of blocks that the newest version uses.
    pub live_bytes: u64,
    /// Bytes of blocks that are not used any more, but pinned by readers or not yet reclaimed.
    pub retired_bytes: u64,
    /// Bytes of memory that the arena has from the system.
    pub backed_bytes: u64,
    /// Bytes that it may have at the most: the manager's capacity.
    pub budget_bytes: u64,
    /// Bytes of the manager's private memory about blocks.
    pub metadata_bytes: u64,
    /// Number of blocks.
    pub blocks: u64,
    /// The oldest version that somebody pins, if anybody does.
    pub oldest_pin: Option<u64>,
    /// Who pins it: program and process id.
    pub oldest_pin_holder: Option<String>,
}

impl Stats {
    fn parse(text: &str) -> Stats {
        let mut stats = Stats::default();
        for (word, rest) in text.lines().filter_map(|line| line.split_once(' ')) {
            let number = rest.parse().unwrap_or(0);
            match word {
                "version" => stats.version = number,
                "objects" => stats.objects = number,
                "sessions" => stats.sessions = number,
                "lingering" => stats.lingering = number,
                "lane_calls" => stats.lane_calls = number,
                "lane_rings" => stats.lane_rings = number,
                "lane_wakeups" => stats.lane_wakeups = number,
                "segments" => stats.segments = number,
                "segment_bytes" => stats.segment_bytes = number,
                "live_bytes" => stats.live_bytes = number,
                "retired_bytes" => stats.retired_bytes = number,
                "backed_bytes" => stats.backed_bytes = number,
                "budget_bytes" => stats.budget_bytes = number,
                "metadata_bytes" => stats.metadata_bytes = number,
                "blocks" => stats.blocks = number,
                "oldest_pin" => stats.oldest_pin = (number > 0).then_some(number),
                "oldest_pin_holder" => stats.oldest_pin_holder = Some(rest.to_owned()),
                _ => {}
            }
        }
        stats
    }
}
