//! A session: what this process has with one manager. Everything that handles do goes through here.

use crate::connection::{Connection, Reply, disconnected};
use crate::gate::Gate;
use crate::lane::{LaneRoad, Standing};
use crate::request::Request;
use crate::unpoisoned::lock;
use commonhold_ipc::arena::{self, ALIVE};
use commonhold_ipc::auth::AuthKey;
use commonhold_ipc::block::{LARGE_VALUE_BYTES, Place};
use commonhold_ipc::catalog::{self, Kind, Record, Root};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::fork::{PerLife, Stamp};
use commonhold_ipc::handshake::{self, ClientOffer, OPTION_BARRIERS, OPTION_CHECK_ALWAYS, OPTION_LARGE_PAGES, Purpose, Versions, Welcome};
use commonhold_ipc::index::KeyHash;
use commonhold_ipc::liveness::{is_alive, sleep_until};
use commonhold_ipc::map::{ArenaReader, Segment};
use commonhold_ipc::pin::{BLOCKS, Pin, PinTable, SHARED_LANE, give_up};
use commonhold_ipc::points;
use commonhold_ipc::segment;
use commonhold_ipc::socket::{Address, Channel};
use commonhold_ipc::sync::Claim;
use commonhold_ipc::sys;
use commonhold_ipc::value::{ARCHIVE_FORMAT, Identity, Shared, access, access_remembered};
use commonhold_ipc::wire::reply::Outcome;
use commonhold_ipc::wire::{Call, malformed};
use std::any::Any;
use std::cell::Cell;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The sessions of this process, by manager: for handles that come from elsewhere.
static SESSIONS: PerLife<HashMap<u64, Weak<SessionCore>>> = PerLife::new();

/// A connection to a manager, and everything one can do with it. `Clone + Send + Sync`: clones share one connection.
///
/// `commonhold::Manager` derefs to it. The connection lives as long as any clone, handle or snapshot of it.
#[derive(Clone)]
pub struct Session {
    core: Arc<SessionCore>,
}

impl Session {
    /// What all handles of this session share.
    pub(crate) fn core(&self) -> &Arc<SessionCore> {
        &self.core
    }

    pub(crate) fn over(core: Arc<SessionCore>) -> Session {
        Session { core }
    }

    pub(crate) fn of(core: &Arc<SessionCore>) -> Session {
        Session::over(core.clone())
    }
}

/// How long who waits for something is kept from it by a question to the manager, in milliseconds: many times what one takes.
const ASK_MS: u64 = 10;

/// References on one object that the manager counts for this session, at the most: what comes again and again while it is held would pile up, to be
/// let go in one frame that grows with it.
const REFERENCES_MAX: u64 = 1_024;

/// How often an object is held: by handles here, and by the manager's count for this session.
#[derive(Clone, Copy, Default)]
struct Held {
    here: u64,
    there: u64,
}

/// What a handshake has come to.
struct Meeting {
    channel: Channel,
    address: Address,
    welcome: Welcome,
    fds: Vec<OwnedFd>,
    manager_pid: u32,
}

/// The inside of a session, shared by all handles.
pub struct SessionCore {
    /// Before the connection: when the manager sees that end, it sees that no pin is left.
    pub(crate) pins: Arc<PinTable>,
    pub(crate) connection: Connection,
    /// The other road of calls, if there is one.
    lanes: Option<LaneRoad>,
    pub(crate) arena: ArenaReader,
    pub(crate) hash: KeyHash,
    pub(crate) address: Address,
    /// What this process has shown the manager: children that are given its handles must, too.
    pub(crate) authkey: Option<AuthKey>,
    /// The manager's process.
    pub(crate) manager_pid: u32,
    welcome: Welcome,
    stamp: Stamp,
    /// Number of the last call of each lane; written alone by whoever has the lane.
    calls: Box<[AtomicU64]>,
    shared_lane: Mutex<()>,
    uploads: AtomicU64,
    held: Mutex<HashMap<u64, Held>>,
    /// Mapped segments, by object: for as long as handles here keep them.
    segments: Mutex<HashMap<u64, Weak<Segment>>>,
    /// Held by who waits for a descriptor.
    attaching: Mutex<()>,
    /// What the floor of users' objects keeps with the session.
    beside: OnceLock<Box<dyn Any + Send + Sync>>,
    /// Keeps this process's other commits back while one of its threads has the writer's ticket.
    pub(crate) gate: Gate,
    /// What must end after the connection, and so stands last: the manager's process or thread, in the program that started it.
    keeper: Mutex<Option<Box<dyn Any + Send>>>,
}

impl SessionCore {
    /// Connects to the manager at an address.
    /// `lanes`: whether its calls may go by lanes.
    pub fn connect(address: &Address, authkey: Option<&AuthKey>, lanes: bool) -> Result<Arc<Self>> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let (channel, welcome, fds) = handshake::connect(address, &offer(authkey), deadline)?;
        let manager_pid = sys::peer_credentials(&channel)?.pid;
        Self::new(Meeting { channel, address: address.clone(), welcome, fds, manager_pid }, authkey, lanes)
    }

    /// Begins a session on a channel that is connected already. `address` is where others find the manager; `started` its process,
    /// if this one has started it: then the channel is one of a pair, and the kernel names as its peer who made the pair.
    pub fn greet(channel: Channel, address: Address, authkey: Option<&AuthKey>, started: Option<u32>) -> Result<Arc<Self>> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let (welcome, fds) = handshake::greet(&channel, &address, &offer(authkey), deadline)?;
        let manager_pid = started.map_or_else(|| sys::peer_credentials(&channel).map(|peer| peer.pid), Ok)?;
        Self::new(Meeting { channel, address, welcome, fds, manager_pid }, authkey, true)
    }

    fn new(meeting: Meeting, authkey: Option<&AuthKey>, lanes: bool) -> Result<Arc<Self>> {
        let Meeting { channel, address, welcome, fds, manager_pid } = meeting;
        let mut fds = fds.into_iter();
        let (Some(arena), Some(page), segment) = (fds.next(), fds.next(), fds.next()) else { return Err(malformed("welcome")) };
        commonhold_ipc::pin::check_page(welcome.session_page_len)?;
        let mapped = ArenaReader::map(&arena, welcome.arena_len).and_then(|arena| Ok((PinTable::new(&page, arena.clone())?, arena)));
        let (pins, arena) = mapped.inspect_err(|_| give_up(&page))?;
        if welcome.options & OPTION_BARRIERS != 0 {
            pins.rely_on_manager();
        }
        let large_pages = welcome.options & OPTION_LARGE_PAGES != 0;
        let core = Arc::new(SessionCore {
            connection: Connection::new(channel, arena.clone()),
            // What cannot be mapped is not needed: all calls can go by the socket.
            lanes: segment.filter(|_| lanes).and_then(|segment| LaneRoad::new(segment, large_pages).ok()),
            hash: arena::key_hash(&arena),
            pins,
            arena,
            address,
            authkey: authkey.cloned(),
            manager_pid,
            welcome,
            stamp: Stamp::now(),
            calls: (0..BLOCKS).map(|_| AtomicU64::new(0)).collect(),
            shared_lane: Mutex::new(()),
            uploads: AtomicU64::new(0),
            held: Mutex::default(),
            segments: Mutex::default(),
            attaching: Mutex::default(),
            beside: OnceLock::new(),
            gate: Gate::default(),
            keeper: Mutex::new(None),
        });
        let weak: Weak<SessionCore> = Arc::downgrade(&core);
        core.pins.set_owner(weak.clone());
        SESSIONS.lock().insert(welcome.manager, weak);
        Ok(core)
    }

    /// The session of this process with a manager, if there is one.
    pub fn of_manager(manager: u64) -> Option<Arc<Self>> {
        let session = SESSIONS.lock().get(&manager)?.upgrade()?;
        session.is_whole().then_some(session)
    }

    /// The session of this process with the manager at an address, if there is one that was begun with the same authkey: whoever
    /// connects with another, or without, is let in or refused by the manager alone.
    pub fn at_address(address: &Address, authkey: Option<&AuthKey>) -> Option<Arc<Self>> {
        let sessions: Vec<_> = SESSIONS.lock().values().filter_map(Weak::upgrade).collect();
        sessions.into_iter().find(|s| s.address == *address && s.authkey.as_ref() == authkey && s.is_whole() && s.is_alive())
    }

    /// Keeps something until the connection is over.
    pub fn keep(&self, keeper: Box<dyn Any + Send>) {
        *lock(&self.keeper) = Some(keeper);
    }

    /// What one floor above keeps with the session, made at its first use.
    pub fn beside<T: Default + Send + Sync + 'static>(&self) -> &T {
        let beside = self.beside.get_or_init(|| Box::new(T::default()));
        let Some(beside) = beside.downcast_ref() else { unreachable!("one floor keeps one thing") };
        beside
    }

    /// Sleeps until the manager has ended. `false`: it still lives at the deadline.
    pub fn wait_for_end(&self, deadline: Option<Instant>) -> Result<bool> {
        let Some(alive) = self.arena.half_word(ALIVE) else { return Ok(true) };
        loop {
            let life = alive.load(Ordering::Acquire);
            if !is_alive(life) {
                return Ok(true);
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(false);
            }
            sleep_until(alive, life, alive, deadline)?;
        }
    }

    /// The manager's random number.
    pub fn manager(&self) -> u64 {
        self.welcome.manager
    }

    /// The session's number, by which its claims in segments are known.
    #[inline]
    pub fn number(&self) -> u64 {
        self.welcome.session
    }

    /// The calling thread, as the owner of claims. Only for a session that is [`check`](Self::check)ed.
    #[inline]
    pub fn claim(&self) -> Claim {
        thread_local! {
            /// The thread's number, and in which life of the process it was asked for: a forked child's threads have others.
            static NUMBER: Cell<(Option<Stamp>, u32)> = const { Cell::new((None, 0)) };
        }
        let (stamp, mut number) = NUMBER.get();
        if stamp != Some(self.stamp) {
            number = sys::thread_id();
            NUMBER.set((Some(self.stamp), number));
        }
        Claim::new(self.number(), number)
    }

    /// The segment of an object that this session holds: mapped at its first use, for as long as anybody here keeps it.
    pub fn segment(&self, id: u64, kind: Kind) -> Result<Arc<Segment>> {
        let known = || lock(&self.segments).get(&id).and_then(Weak::upgrade);
        if let Some(segment) = known() {
            return Ok(segment);
        }
        let _one_at_a_time = self.one_at_a_time(&self.attaching)?;
        if let Some(segment) = known() {
            return Ok(segment);
        }
        // One that came with the reply to a call that failed on the way.
        drop(self.connection.take_descriptor());
        let Outcome::Number(bytes) = self.call_with_id(Call::Attach, id, false)?.outcome()? else { return Err(malformed("reply")) };
        let descriptor = self.connection.take_descriptor().ok_or_else(|| {
            let text = format!("no descriptor came for the segment of {} {id}: close descriptors or raise `ulimit -n`", kind.name());
            Error::new(ErrorKind::System, text)
        })?;
        let segment = Arc::new(segment::attach(&descriptor, bytes, id, kind)?);
        lock(&self.segments).insert(id, Arc::downgrade(&segment));
        Ok(segment)
    }

    /// Runs a call whose answer is a number, and a descriptor that comes with it.
    pub fn call_for_descriptor(&self, request: &mut Request) -> Result<(u64, OwnedFd)> {
        let _one_at_a_time = self.one_at_a_time(&self.attaching)?;
        // One that came with the reply to a call that failed on the way.
        drop(self.connection.take_descriptor());
        let Outcome::Number(number) = self.call(request, false)?.outcome()? else { return Err(malformed("reply")) };
        let descriptor = self.connection.take_descriptor().ok_or_else(|| {
            Error::new(ErrorKind::System, "no descriptor came with the manager's answer: close descriptors or raise `ulimit -n`")
        })?;
        Ok((number, descriptor))
    }

    /// Whether this program has started the manager, and the manager ends with it.
    pub fn is_owner(&self) -> bool {
        lock(&self.keeper).is_some()
    }

    /// The process of a session and its program's name; none if it is over.
    pub fn who(&self, session: u64) -> Result<Option<(u32, String)>> {
        match <[Outcome; 2]>::try_from(self.call_with_id(Call::Who, session, false)?.outcomes()?) {
            Ok([Outcome::Number(pid), Outcome::Text(program)]) => Ok(Some((pid as u32, program))),
            _ => Ok(None),
        }
    }

    /// Whether a session is over, for who waits for something else: `None` if the manager does not say so at once. If it is, it has been recovered.
    pub fn is_over(&self, session: u64) -> Result<Option<bool>> {
        self.check()?;
        let mut request = Request::new(Call::Who);
        request.payload().extend_from_slice(&session.to_le_bytes());
        let deadline = Instant::now() + Duration::from_millis(ASK_MS);
        let said = self.connection.ask(session, |lane, number| request.frame(lane, number), deadline)?;
        Ok(said.map(Reply::outcomes).transpose()?.map(|outcomes| outcomes.is_empty()))
    }

    /// Whether the kernel has barriers, as far as the manager knows: then sessions may rely on them.
    pub fn has_barriers(&self) -> bool {
        self.welcome.options & OPTION_BARRIERS != 0
    }

    /// The manager's alive word, for sleeps.
    #[inline]
    pub fn alive_word(&self) -> Result<&AtomicU32> {
        self.arena.half_word(ALIVE).ok_or_else(disconnected)
    }

    /// Whether the manager lives.
    #[inline(always)]
    pub fn is_alive(&self) -> bool {
        // SYNC: Acquire pairs with the keeper's Release store; the kernel's mark is a full barrier.
        is_alive(self.arena.head_half::<ALIVE>().load(Ordering::Acquire))
    }

    /// Fails in a forked child, and when the manager is gone.
    #[inline]
    pub fn check(&self) -> Result<()> {
        self.stamp.check()?;
        if self.is_alive() { Ok(()) } else { Err(disconnected()) }
    }

    /// Whether [`check`](Self::check) has nothing to say.
    #[inline(always)]
    pub fn is_usable(&self) -> bool {
        self.stamp.is_current() && self.is_alive()
    }

    /// Whether calls can still be made: in this process, over a connection that nothing has broken.
    fn is_whole(&self) -> bool {
        self.is_ours() && !self.connection.has_ended()
    }

    /// The lanes, if this session has any.
    #[inline]
    pub fn lane_road(&self) -> Option<&LaneRoad> {
        self.lanes.as_ref()
    }

    /// Whether this is the process that the session belongs to.
    #[inline]
    pub fn is_ours(&self) -> bool {
        self.stamp.is_current()
    }

    /// Pins the newest version for the calling thread.
    #[inline]
    pub fn pin(&self) -> Pin<'_> {
        self.pins.pin()
    }

    /// An object's record in a pinned version.
    #[inline(always)]
    pub fn record(&self, root: &Root, id: u64) -> Result<Record> {
        catalog::find(&self.arena, root, id).ok_or_else(|| self.no_record(id))
    }

    /// Why an object is not there. The end of the connection takes the session's references with it.
    #[cold]
    fn no_record(&self, id: u64) -> Error {
        if self.connection.has_ended() { disconnected() } else { gone(id) }
    }

    /// A value that a pin holds, checked.
    #[inline(always)]
    pub fn value<'p, T: Shared>(&self, place: &Place) -> Result<&'p T::Archived> {
        let bytes: &'p [u8] = self.arena.bytes(place.offset, place.len);
        if place.len >= LARGE_VALUE_BYTES && place.birth != 0 && self.welcome.options & OPTION_CHECK_ALWAYS == 0 {
            let identity = Identity { arena: self.pins.id(), offset: place.offset, birth: place.birth };
            return access_remembered::<T>(bytes, identity);
        }
        access::<T>(bytes)
    }

    /// Runs a call on the calling thread's lane. `then` sees the reply while what it lends is still held for it.
    #[inline]
    pub fn call_then<R>(&self, request: &mut Request, changes: bool, then: impl FnOnce(Reply) -> Result<R>) -> Result<R> {
        self.check()?;
        let lane = self.pins.lane();
        let _shared = if lane == SHARED_LANE { Some(self.one_at_a_time(&self.shared_lane)?) } else { None };
        let number = self.next_call(lane);
        let by_lane = self.lanes.as_ref().and_then(|lanes| lanes.call(&self.connection, request, lane, number, changes));
        let reply = match by_lane {
            Some(reply) => reply?,
            None => self.connection.call(lane, request.frame(lane, number)?, changes)?,
        };
        self.hear(reply, lane, number, then)
    }

    /// The right to make such calls as only one thread makes at a time. None in the middle of a frame: who has that right may be waiting for the
    /// frame's end.
    fn one_at_a_time<'a>(&self, right: &'a Mutex<()>) -> Result<MutexGuard<'a, ()>> {
        self.connection.check_between_frames()?;
        Ok(lock(right))
    }

    /// Hands a reply on, and acknowledges what it lends.
    #[inline(always)]
    fn hear<R>(&self, reply: Reply, lane: u16, number: u64, then: impl FnOnce(Reply) -> Result<R>) -> Result<R> {
        let lends = reply.lends();
        let done = then(reply);
        if lends {
            points::client("reply: before what it lends is acknowledged");
            self.pins.acknowledge(lane, number);
            points::client("reply: acknowledged");
        }
        done
    }

    /// The number of a lane's next call.
    #[inline]
    pub fn next_call(&self, lane: u16) -> u64 {
        let counter = &self.calls[usize::from(lane)];
        let number = counter.load(Ordering::Relaxed) + 1;
        counter.store(number, Ordering::Relaxed);
        number
    }

    /// Runs a call whose reply lends nothing.
    pub fn call(&self, request: &mut Request, changes: bool) -> Result<Reply> {
        self.call_then(request, changes, Ok)
    }

    /// Runs a commit: beside others of this process, but not while one of them has the writer's ticket.
    #[inline]
    pub fn commit_then<R>(&self, request: &mut Request, then: impl FnOnce(Reply) -> Result<R>) -> Result<R> {
        crate::inside::check(self)?;
        self.gate.pass();
        self.call_then(request, true, then)
    }

    /// The same of one that names a value which stands in the room already, for this thread's next call.
    pub fn commit_standing<R>(&self, request: &Request, value: Standing<'_>, then: impl FnOnce(Reply) -> Result<R>) -> Result<R> {
        crate::inside::check(self)?;
        self.gate.pass();
        self.check()?;
        let lane = self.pins.lane();
        let number = self.next_call(lane);
        let reply = self.lane_road().ok_or_else(disconnected)?.call_with(&self.connection, request, value, lane, number)?;
        self.hear(reply, lane, number, then)
    }

    /// A call with a number as its payload.
    pub fn call_with_id(&self, call: Call, id: u64, changes: bool) -> Result<Reply> {
        let mut request = Request::new(call);
        request.payload().extend_from_slice(&id.to_le_bytes());
        self.call(&mut request, changes)
    }

    /// A call with text as its payload.
    pub fn call_with_text(&self, call: Call, text: &str, changes: bool) -> Result<Reply> {
        let mut request = Request::new(call);
        request.payload().extend_from_slice(text.as_bytes());
        self.call(&mut request, changes)
    }

    /// Sends a request that is not answered, if anybody is there to get it.
    pub fn tell(&self, call: Call, numbers: &[u64]) {
        if !self.is_ours() {
            return;
        }
        let mut request = Request::new(call);
        numbers.iter().for_each(|number| request.payload().extend_from_slice(&number.to_le_bytes()));
        if let Ok(frame) = request.frame(SHARED_LANE, 0) {
            // Whoever does not get it is gone, and what it says with it.
            let _ = self.connection.tell(frame);
        }
    }

    /// A number for an upload.
    pub fn next_upload(&self) -> u64 {
        self.uploads.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The manager has counted one more reference of this session's on an object, and a handle here stands for it.
    pub fn took(&self, id: u64) {
        let mut held = lock(&self.held);
        let count = held.entry(id).or_default();
        count.here += 1;
        count.there += 1;
        if count.there < REFERENCES_MAX {
            return;
        }
        // One is enough, however many handles there are here.
        let surplus = std::mem::replace(&mut count.there, 1) - 1;
        drop(held);
        self.tell(Call::Release, &vec![id; surplus as usize]);
    }

    /// A handle here refers to an object: the manager must know that this session does.
    pub fn hold(&self, id: u64) -> Result<()> {
        if self.hold_again(id) {
            return Ok(());
        }
        // Not under the lock, which others take while they wait for their turn on the connection. Whoever comes between, to
        // hold the object or to let it go, does no harm: each reference that the manager has counted is let go once.
        self.call_with_id(Call::Retain, id, false)?;
        self.took(id);
        Ok(())
    }

    /// The same without a call, if this process holds the object already. Whether it does.
    pub fn hold_again(&self, id: u64) -> bool {
        match lock(&self.held).get_mut(&id) {
            Some(count) => {
                count.here += 1;
                true
            }
            None => false,
        }
    }

    /// A handle here is gone.
    pub fn let_go(&self, id: u64) {
        if !self.is_ours() {
            return;
        }
        let there = {
            let mut held = lock(&self.held);
            let Some(count) = held.get_mut(&id) else { return };
            count.here -= 1;
            if count.here > 0 {
                return;
            }
            let there = count.there as usize;
            held.remove(&id);
            // Before somebody else here holds the object again: all of this process must know one mapping of it.
            lock(&self.segments).remove(&id);
            there
        };
        self.tell(Call::Release, &vec![id; there]);
    }
}

/// An object held for as long as a commit that stores a handle on it is on its way: the handle itself may be gone by then.
pub struct Stored {
    session: Arc<SessionCore>,
    id: u64,
}

impl Stored {
    /// A reference that the manager has counted for this session already.
    pub fn taken(session: &Arc<SessionCore>, id: u64) -> Stored {
        session.took(id);
        Stored { session: session.clone(), id }
    }

    /// Holds an object.
    pub fn new(session: &Arc<SessionCore>, id: u64) -> Result<Stored> {
        session.hold(id)?;
        Ok(Stored { session: session.clone(), id })
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.session.let_go(self.id);
    }
}

impl Drop for SessionCore {
    fn drop(&mut self) {
        if !self.is_ours() {
            // The manager is the parent's, and lives on: a child neither waits for its process nor can join its thread. Nor may
            // it wait for a lock that another of its parent's threads held.
            std::mem::forget(self.keeper.get_mut().unwrap_or_else(PoisonError::into_inner).take());
            return;
        }
        let mut sessions = SESSIONS.lock();
        if sessions.get(&self.welcome.manager).is_some_and(|session| session.strong_count() == 0) {
            sessions.remove(&self.welcome.manager);
        }
    }
}

fn offer(authkey: Option<&AuthKey>) -> ClientOffer<'_> {
    ClientOffer { versions: Versions::ours(ARCHIVE_FORMAT), purpose: Purpose::Session, authkey }
}

/// The error for an object that is not there.
pub fn gone(id: u64) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("object {id} is not there (any more): an object lives while a handle, a name or a value refers to it"),
    )
}
