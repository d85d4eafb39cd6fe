//! The manager's event loop: one thread that reads requests, applies what came together as one commit, publishes, answers.
//!
//! A round: wait (spinning a little first, where that pays) → read and apply the requests of every session that has any →
//! publish once → answer → when nothing is left to do: reclaim, drop, take apart, give memory back. A session's unread
//! answers, its half-sent requests and its stopped process are its own affair: nothing here waits for one client.

mod calls;
mod greeting;
mod hosts;
mod housekeeping;
mod lanes;
mod luggage;
mod overview;
mod queues;
mod runs;
mod series;
mod session;
mod session_lanes;
mod tickets;

use crate::store::Store;
use commonhold_ipc::arena::ALIVE;
use commonhold_ipc::auth::{AuthKey, fresh_nonce};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::handshake::{ServerHandshake, ServerOffer, Versions};
use commonhold_ipc::limits::*;
use commonhold_ipc::liveness::AliveKeeper;
use commonhold_ipc::map::ArenaWriter;
use commonhold_ipc::points;
use commonhold_ipc::poller::{Interest, Poller};
use commonhold_ipc::runtime::{DirectoryWatch, NameLock};
use commonhold_ipc::socket::{Channel, Listener, Spin, Spins};
use commonhold_ipc::sys;
use commonhold_ipc::task::Build;
use commonhold_ipc::value::ARCHIVE_FORMAT;
use commonhold_ipc::wire::reply::Outcome;
use hosts::Hosts;
use housekeeping::Housekeeping;
use lanes::LaneWatch;
use luggage::Luggage;
use session::Session;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};
use tickets::Tickets;

/// How a manager is made.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of memory that the arena may take at the most.
    pub capacity_bytes: u64,
    /// A key that every client must know.
    pub authkey: Option<AuthKey>,
    /// Sessions at a time, at the most.
    pub sessions_max: usize,
    /// End when there has been no session for so long.
    pub idle_timeout: Option<Duration>,
    /// Bits that clients read in their welcome.
    pub options: u64,
    /// All ones; tests make keys collide.
    pub hash_mask: u64,
    /// Drawn if `None`; who counts instructions wants the same trees in every run.
    pub hash_seed: Option<u64>,
    /// Give sessions lanes.
    pub lanes: bool,
    /// Have memory in large pages, where the kernel has any.
    pub large_pages: bool,
    /// The program that has started the manager: it may have a host here without asking.
    pub build: Option<Build>,
}

pub use commonhold_ipc::handshake::OPTION_CHECK_ALWAYS;

impl Config {
    /// The usual, with this capacity.
    pub fn with_capacity(capacity_bytes: u64) -> Self {
        Config {
            capacity_bytes,
            authkey: None,
            sessions_max: SESSIONS_MAX,
            idle_timeout: None,
            options: 0,
            hash_mask: u64::MAX,
            hash_seed: None,
            lanes: true,
            large_pages: true,
            build: None,
        }
    }
}

impl Default for Config {
    /// The usual, with the capacity that suits this machine, which takes some forty calls of the system to find out.
    fn default() -> Self {
        Config::with_capacity(sys::memory_budget_default())
    }
}

/// The least that a manager can work with: the room that the largest small operation reserves, and some to store.
pub const CAPACITY_BYTES_MIN: u64 = 8 << 20;

/// Requests of one session that are read before the others have their turn.
const TURN_BYTES: usize = 256 << 10;

/// How long nobody is let in when there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The alive word in the arena, for the thread that holds it.
struct AliveWord(Arc<ArenaWriter>);

impl AsRef<AtomicU32> for AliveWord {
    fn as_ref(&self) -> &AtomicU32 {
        self.0.atomic_half(ALIVE)
    }
}

enum Connection {
    /// Not let in yet: until when it must be.
    Greeting {
        channel: Channel,
        handshake: ServerHandshake,
        until: Instant,
        owner: bool,
    },
    Session(Box<Session>),
    /// Its connection is over, but its process lives and may hold guards: its pins count on.
    Lingering(Box<Session>),
    /// What a process was given that has not begun.
    Luggage(Luggage),
}

/// What a descriptor is, in the poller's tokens: two bits, then an index.
mod token {
    pub const LISTENER: u64 = 0;
    pub const CHANNEL: u64 = 1;
    pub const PROCESS: u64 = 2;
    pub const DIRECTORY: u64 = 3;
}

fn token_of(kind: u64, index: usize) -> u64 {
    (index as u64) << 2 | kind
}

/// A manager.
pub struct Server {
    config: Config,
    offer: ServerOffer,
    store: Store,
    arena: Arc<ArenaWriter>,
    manager: u64,
    hash_seed: u64,
    poller: Poller,
    spin: Spin,
    lane_spins: Spins,
    /// What sockets are read into.
    buffer: Box<[u8]>,
    listener: Option<Listener>,
    /// Out of descriptors: nobody is let in until then.
    accept_again: Option<Instant>,
    name: Option<(NameLock, DirectoryWatch)>,
    connections: Vec<Option<Connection>>,
    greeting: usize,
    sessions: usize,
    lingering: usize,
    next_session: u64,
    /// Sessions with requests that are read but not done: their turn was over, or they waited for the ticket.
    unfinished: VecDeque<usize>,
    /// Sessions with answers that are not sent yet.
    unanswered: Vec<usize>,
    /// The outcomes of the commit that has been done last, until they are written down.
    outcomes: Vec<Outcome>,
    tickets: Tickets,
    lane_watch: LaneWatch,
    /// Work of the request that has just been done, see `take_effort`.
    effort: usize,
    housekeeping: Housekeeping,
    hosts: Hosts,
    /// Without any session but hosts' since then.
    idle_since: Option<Instant>,
    ending: bool,
    alive: Option<AliveKeeper>,
}

impl Server {
    /// A manager with an empty store, whom others find where `listener` listens.
    pub fn new(config: Config, listener: Option<Listener>) -> Result<Server> {
        if config.capacity_bytes < CAPACITY_BYTES_MIN {
            let text =
                format!("a capacity of {} bytes is too small for a manager: give it at least {CAPACITY_BYTES_MIN}", config.capacity_bytes);
            return Err(Error::new(ErrorKind::OutOfRange, text));
        }
        let arena = Arc::new(make_arena(config.capacity_bytes, config.large_pages)?);
        let random = fresh_nonce()?;
        let number = |i: usize| u64::from_le_bytes(random[i * 8..i * 8 + 8].try_into().expect("8 bytes"));
        let (manager, hash_seed) = (number(0) | 1, config.hash_seed.unwrap_or(number(1)));
        let store = Store::new(arena.clone(), config.capacity_bytes, manager, hash_seed, config.hash_mask);
        let alive = AliveKeeper::start(AliveWord(arena.clone()))?;
        let offer = ServerOffer { versions: Versions::ours(ARCHIVE_FORMAT), authkey: config.authkey.clone(), own_uid: sys::own_uid() };
        let mut server = Server {
            offer,
            store,
            arena,
            manager,
            hash_seed,
            poller: Poller::new()?,
            spin: Spin::new(),
            lane_spins: Spins::of_server(),
            buffer: vec![0; TURN_BYTES].into(),
            listener: None,
            accept_again: None,
            name: None,
            connections: Vec::new(),
            greeting: 0,
            sessions: 0,
            lingering: 0,
            next_session: 1,
            unfinished: VecDeque::new(),
            unanswered: Vec::new(),
            outcomes: Vec::new(),
            tickets: Tickets::default(),
            lane_watch: LaneWatch::default(),
            effort: 0,
            housekeeping: Housekeeping::default(),
            hosts: Hosts::default(),
            idle_since: Some(Instant::now()),
            ending: false,
            alive: Some(alive),
            config,
        };
        if let Some(listener) = listener {
            server.poller.add(&listener, token_of(token::LISTENER, 0), Interest::READ)?;
            server.listener = Some(listener);
        }
        Ok(server)
    }

    /// The manager has the name under which it listens: it ends when that is taken away, and takes it away when it ends.
    pub fn take_name(&mut self, name: NameLock) -> Result<()> {
        if let commonhold_ipc::socket::Address::Path(path) = name.address() {
            let watch = DirectoryWatch::new(path.parent().unwrap_or(&path))?;
            self.poller.add(&watch, token_of(token::DIRECTORY, 0), Interest::READ)?;
            self.name = Some((name, watch));
        }
        Ok(())
    }

    /// Begins the handshake with the owner, whose connection's end is the manager's end.
    pub fn greet_owner(&mut self, owner: Channel) -> Result<()> {
        self.greet(owner, true)
    }

    /// Serves until the owner ends, somebody says so, or the name is taken away. Nothing is left in the file system.
    pub fn run(mut self) -> Result<()> {
        while !self.ending {
            self.wait()?;
            self.round();
        }
        self.flush_all();
        if let Some((name, _)) = self.name.take() {
            name.remove()?;
        }
        self.store.segments.forget_blocks();
        drop(self.alive.take());
        Ok(())
    }

    /// The earliest moment at which something is to be done though nothing happens.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if self.store_has_work() {
            return Some(Instant::now());
        }
        let greetings = self.connections.iter().flatten().filter_map(|connection| match connection {
            Connection::Greeting { until, .. } => Some(*until),
            Connection::Session(_) | Connection::Lingering(_) | Connection::Luggage(_) => None,
        });
        let greeting = if self.greeting > 0 { greetings.min() } else { None };
        let ticket = self.tickets.until();
        [
            greeting,
            self.idle_until(),
            ticket,
            self.accept_again,
            self.housekeeping.next(),
            self.store.segments.next_look(),
            self.hosts.next(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The moment at which it ends unless somebody comes; none if that is later than any clock shows.
    fn idle_until(&self) -> Option<Instant> {
        let timeout = self.config.idle_timeout?;
        // Whoever has started it is about to connect.
        let has_served = self.next_session > 1;
        let timeout = if has_served { timeout } else { timeout.max(Duration::from_millis(HANDSHAKE_TIMEOUT_MS)) };
        // Nobody's handshake is cut short by it.
        self.idle_since.filter(|_| self.greeting == 0)?.checked_add(timeout)
    }

    fn round(&mut self) {
        // A new connection comes last: it may get the place of one that has just ended, and of which more is reported here.
        let mut comes = false;
        while let Some(happening) = self.poller.next_happening() {
            let index = (happening.token >> 2) as usize;
            match happening.token & 3 {
                token::LISTENER => comes = true,
                token::DIRECTORY => self.look_for_name(),
                token::PROCESS => self.process_ended(index),
                _ => {
                    if happening.writable {
                        self.unanswered.push(index);
                    }
                    if happening.readable {
                        self.read(index, happening.ended);
                    }
                }
            }
        }
        if comes {
            self.accept();
        }
        for _ in 0..self.unfinished.len() {
            if let Some(index) = self.unfinished.pop_front() {
                self.work(index);
            }
        }
        self.serve_lanes();
        self.store.publish();
        self.answer_lanes();
        if !self.unanswered.is_empty() {
            points::manager("round: published, not answered");
            self.flush_all();
            points::manager("round: answered");
        }
        self.pass_ticket_on();
        self.keep_house();
        self.hosts.flush();
        self.end_what_is_late();
    }

    fn free_place(&mut self) -> usize {
        self.connections.iter().position(Option::is_none).unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        })
    }

    fn read(&mut self, index: usize, has_ended: bool) {
        match self.connections.get_mut(index) {
            Some(Some(Connection::Greeting { .. })) => self.read_greeting(index),
            // It would be told again and again.
            Some(Some(Connection::Session(session))) if has_ended && !session.is_read() => self.close(index),
            Some(Some(Connection::Session(session))) => {
                if session.read(&self.arena, &mut self.buffer) {
                    self.work(index);
                } else {
                    self.close(index);
                }
            }
            Some(Some(Connection::Luggage(luggage))) if !luggage.is_kept() => self.close(index),
            _ => {}
        }
    }

    fn close(&mut self, index: usize) {
        match self.connections.get_mut(index).and_then(Option::take) {
            None => {}
            Some(Connection::Lingering(session)) => self.connections[index] = Some(Connection::Lingering(session)),
            Some(Connection::Luggage(luggage)) => {
                self.poller.remove(luggage.channel());
                luggage.end(&mut self.store);
            }
            Some(Connection::Greeting { channel, owner, .. }) => {
                self.poller.remove(&channel);
                self.greeting -= 1;
                self.ending |= owner;
            }
            Some(Connection::Session(mut session)) => {
                self.poller.remove(session.channel());
                self.lane_watch.forget(index);
                self.ending |= session.is_owner();
                session.end(&mut self.store);
                self.sessions -= 1;
                self.hosts.ended(session.number());
                self.hosts.client_ended(session.number());
                self.note_idle();
                self.tickets.forget(index);
                self.housekeeping.something_ended();
                if session.may_read() {
                    session.channel().shut_down();
                    self.lingering += 1;
                    self.connections[index] = Some(Connection::Lingering(session));
                } else {
                    self.poller.remove(session.process());
                    self.store.recover_segments(session.number());
                }
            }
        }
    }

    /// Hosts alone keep no manager from being idle: they end with it.
    fn note_idle(&mut self) {
        if self.sessions == self.hosts.len() && self.idle_since.is_none() {
            self.idle_since = Some(Instant::now());
        }
    }

    /// A client's process has ended: nobody reads under its pins any more.
    fn process_ended(&mut self, index: usize) {
        // Else it is said of who was here before: its session ended earlier in this round, and luggage has come to its place.
        if let Some(Some(Connection::Session(_) | Connection::Lingering(_))) = self.connections.get(index) {
            self.close(index);
            self.forget_lingering(index);
        }
    }

    fn forget_lingering(&mut self, index: usize) {
        if let Some(Some(Connection::Lingering(session))) = self.connections.get(index) {
            self.poller.remove(session.process());
            self.store.recover_segments(session.number());
            self.connections[index] = None;
            self.lingering -= 1;
            self.housekeeping.something_ended();
        }
    }

    fn look_for_name(&mut self) {
        if let Some((name, watch)) = &self.name {
            watch.drain();
            // Somebody has removed our socket: nobody can find us any more.
            let gone = match name.address() {
                commonhold_ipc::socket::Address::Path(path) => !path.exists(),
                commonhold_ipc::socket::Address::Abstract(_) => false,
            };
            self.ending |= gone || !name.is_current().unwrap_or(false);
        }
    }

    fn end_what_is_late(&mut self) {
        if let (Some(again), Some(listener)) = (self.accept_again, &self.listener)
            && again <= Instant::now()
        {
            self.accept_again = None;
            if self.poller.modify(listener, token_of(token::LISTENER, 0), Interest::READ).is_err() {
                self.accept_again = Some(Instant::now() + ACCEPT_PAUSE);
            }
        }
        self.end_late_greetings();
        self.ending |= self.idle_until().is_some_and(|until| until <= Instant::now());
    }

    /// Sends what is ready, of every session that has something.
    fn flush_all(&mut self) {
        for index in std::mem::take(&mut self.unanswered) {
            let Some(Some(Connection::Session(session))) = self.connections.get_mut(index) else { continue };
            if session.flush(&self.poller, token_of(token::CHANNEL, index)) {
                // It may have stopped reading requests because its answers were not read.
                if session.has_requests() {
                    self.put_off(index);
                }
                self.wake_lanes(index);
            } else {
                self.close(index);
            }
        }
    }
}

/// The arena's memfd: twice as long as what it may take, so that free pages can be found in one piece, but at most half of
/// the address space that this process may use.
fn make_arena(capacity_bytes: u64, large_pages: bool) -> Result<ArenaWriter> {
    let wanted = capacity_bytes.saturating_mul(2).min(ARENA_BYTES_MAX);
    let most = sys::address_space_limit().map_or(wanted, |limit| limit / 2);
    let len = wanted.min(most).max(capacity_bytes.min(most)) & !0xffff;
    let fd = sys::memfd_sealed("commonhold-arena", len)?;
    let header = 0..commonhold_ipc::arena::BLOCKS;
    sys::back(&fd, header)?;
    let arena = ArenaWriter::map(fd, len)?;
    Ok(if large_pages { arena } else { arena.without_large_pages() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manager with this time-out, before anybody has come.
    fn server(idle_timeout: Option<Duration>) -> Server {
        Server::new(Config { idle_timeout, ..Config::with_capacity(CAPACITY_BYTES_MIN) }, None).unwrap()
    }

    #[test]
    fn no_idle_timeout_is_too_long() {
        for timeout in [None, Some(Duration::MAX), Some(Duration::from_millis(u64::MAX))] {
            let mut server = server(timeout);
            server.next_session += 1;
            server.end_what_is_late();
            assert!(!server.ending && server.next_deadline().is_none_or(|deadline| deadline > Instant::now()), "{timeout:?}");
            assert_eq!(server.idle_until().is_some(), timeout.is_some_and(|timeout| timeout != Duration::MAX));
        }
    }

    #[test]
    fn no_idle_timeout_is_too_short_to_connect() {
        for timeout in [Duration::ZERO, Duration::from_nanos(1)] {
            let mut server = server(Some(timeout));
            let until = server.idle_until().unwrap();
            assert_eq!(until - server.idle_since.unwrap(), Duration::from_millis(HANDSHAKE_TIMEOUT_MS));
            // Somebody has come and gone.
            server.next_session += 1;
            server.end_what_is_late();
            assert!(server.ending);
        }
    }
}
