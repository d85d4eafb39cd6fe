//! Everything at once: containers, transactions, snapshots, queues and leases, a pipe, locks, arrays, counters, a pool, own objects, and
//! hundreds of sessions, while anybody is killed or stopped, at last the manager. The books must balance to the last entry.
//!
//! It takes twenty seconds. `COMMONHOLD_SOAK_SECONDS=600` makes a night of it, as `.ci/night` does; `COMMONHOLD_SOAK_SEED` makes another
//! order of what happens.

#[path = "../support/mod.rs"]
mod support;

mod actor;
mod books;

use actor::{Ending, Entry, House, Tally, live};
use books::Books;
use commonhold::{Manager, PipeReceiver, Pool, Process};
use commonhold_ipc::pin::OwnedPin;
use commonhold_ipc::sys;
use rustix::process::{Signal, pidfd_send_signal};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use support::{PATIENCE, RawSession, Watched, children_of, process_of, signal_to, stop, until};

commonhold::init_in_tests!();

/// Processes that do a bit of everything.
const ACTORS: u64 = 6;
/// Sessions that only read, and come and go.
const SESSIONS: u64 = 200;
/// Workers of the pool.
const WORKERS: usize = 2;

/// A small generator of numbers: the same seed gives the same ones.
#[derive(Clone, Copy)]
pub struct Numbers(u64);

impl Numbers {
    /// The numbers of this seed.
    pub fn new(seed: u64) -> Self {
        Numbers(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next one, below the limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

struct Player {
    process: Process<Ending>,
    stopped: bool,
}

/// A worker or the host while it is stopped.
struct Stopped(OwnedFd);

impl Stopped {
    fn new(process: OwnedFd) -> Stopped {
        // It may have ended by itself meanwhile; and below, it may have been killed.
        let _ = pidfd_send_signal(&process, Signal::STOP);
        Stopped(process)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.0, Signal::CONT);
    }
}

/// Who decides what happens to whom.
struct Director<'m> {
    manager: &'m Manager,
    house: House,
    piped: PipeReceiver<Entry>,
    books: Books,
    numbers: Numbers,
    players: Vec<Player>,
    /// Besides actors.
    stopped: Option<Stopped>,
    hired: u64,
    readers: Vec<(RawSession, Option<OwnedPin>)>,
}

impl<'m> Director<'m> {
    fn new(manager: &'m Manager, seed: u64) -> Self {
        let (house, piped) = House::build(manager);
        let mut director = Director {
            manager,
            house,
            piped,
            books: Books::default(),
            numbers: Numbers::new(seed),
            players: Vec::new(),
            stopped: None,
            hired: seed << 16,
            readers: Vec::new(),
        };
        director.players = (0..ACTORS).map(|_| director.hire()).collect();
        director.readers = (0..SESSIONS).map(|_| director.reader()).collect();
        director
    }

    fn hire(&mut self) -> Player {
        self.hired += 1;
        Player { process: Process::spawn(live, (self.hired, self.house.clone())).unwrap(), stopped: false }
    }

    /// A session of its own, every other one with a version that it keeps.
    fn reader(&mut self) -> (RawSession, Option<OwnedPin>) {
        let session = RawSession::connect(self.manager, PATIENCE).unwrap();
        let pin = (self.numbers.below(2) == 0).then(|| OwnedPin::new(&session.pins));
        (session, pin)
    }

    /// Writes down what the actors say, until they have said so many things more, or have nothing to say.
    fn listen(&mut self, most: u64) {
        while let Some(entry) = self.piped.try_recv().unwrap() {
            self.books.receive(entry);
        }
        for _ in 0..most {
            // Shortly: all may be stopped, or wait for one who is.
            match self.house.said.recv_timeout(Duration::from_millis(100)) {
                Ok(Some(said)) => self.books.enter(said),
                Ok(None) => unreachable!("nobody closes this queue"),
                Err(error) => return assert!(error.is_timed_out(), "{error}"),
            }
        }
    }

    fn kill(&mut self, which: usize) {
        let new = self.hire();
        let dead = std::mem::replace(&mut self.players[which], new);
        dead.process.kill().unwrap();
        let error = dead.process.join().unwrap_err();
        assert!(error.is_died() && error.to_string().contains("SIGKILL"), "{error}");
        self.books.deaths += 1;
    }

    fn stop_or_go_on(&mut self, which: usize) {
        let player = &mut self.players[which];
        signal_to(player.process.pid(), if player.stopped { Signal::CONT } else { Signal::STOP });
        player.stopped = !player.stopped;
    }

    fn go_on_all(&mut self) {
        self.stopped = None;
        for which in 0..self.players.len() {
            if self.players[which].stopped {
                self.stop_or_go_on(which);
            }
        }
    }

    /// The process that runs the own objects.
    fn host(&self) -> Watched {
        let host = self.manager.sessions().unwrap().into_iter().find(|session| session.is_host);
        Watched::of(host.expect("objects have a host").pid)
    }

    /// It is killed: the objects are gone, and there is a new one.
    fn kill_host(&mut self) {
        self.host().kill();
        let generation = self.house.tally.get().unwrap().0 + 1;
        until("there is a new object", || match self.manager.create(Tally::new, ()) {
            Ok(tally) => self.house.tally.set((generation, tally)).map(|()| true).unwrap(),
            Err(error) => !error.is_died() && panic!("{error}"),
        });
    }

    /// One of the pool's workers; none if it has just ended by itself.
    fn worker(&mut self, pool: &Pool) -> Option<OwnedFd> {
        let pids = pool.pids();
        let pid = pids.get(self.numbers.below(pids.len().max(1) as u64) as usize)?;
        sys::pidfd_open(*pid).ok()
    }

    /// Stops a worker or the host; whoever is stopped goes on.
    fn stop_another_or_go_on(&mut self, pool: &Pool) {
        if self.stopped.take().is_none() {
            let process = if self.numbers.below(2) == 0 { Some(self.host().pidfd) } else { self.worker(pool) };
            self.stopped = process.map(Stopped::new);
        }
    }

    /// One thing that happens.
    fn happen(&mut self, pool: &Pool) {
        let which = self.numbers.below(ACTORS) as usize;
        match self.numbers.below(18) {
            0..=4 => self.kill(which),
            5..=9 => self.stop_or_go_on(which),
            10 | 11 => {
                if let Some(worker) = self.worker(pool) {
                    // It may have ended by itself meanwhile.
                    let _ = pidfd_send_signal(worker, Signal::KILL);
                }
            }
            12 => self.kill_host(),
            13 => self.manager.audit().unwrap(),
            14 | 15 => self.stop_another_or_go_on(pool),
            _ => {
                for _ in 0..10 {
                    let which = self.numbers.below(SESSIONS) as usize;
                    // The old one goes first, with its pin.
                    let (session, pin) = self.readers.swap_remove(which);
                    drop(pin);
                    drop(session);
                    let new = self.reader();
                    self.readers.push(new);
                }
            }
        }
    }

    /// Everybody comes to an end, and the books are closed.
    fn conclude(mut self) {
        self.go_on_all();
        self.house.over.set().unwrap();
        for player in self.players.drain(..) {
            assert_eq!(player.process.join().unwrap(), Ending::Over);
        }
        self.readers.clear();
        let others = || self.manager.sessions().unwrap().iter().filter(|session| !session.is_host).count();
        until("all sessions are over", || others() == 1);
        self.listen(u64::MAX);
        while let Some(lease) = self.house.jobs.try_lease().unwrap() {
            self.house.do_job(lease).unwrap();
        }
        self.books.balance(&self.house);
        self.manager.audit().unwrap();
    }
}

/// What the pool is asked for, over and over; the result says what a call was worth.
fn errand(house: House, serial: u64) -> commonhold::Result<u64> {
    house.move_in_transaction((actor::POOL, serial), serial)?;
    Ok(serial * 2)
}

/// Gives the pool work until it is over, or there is no manager any more. What it has to say goes where the actors say theirs.
fn run_errands(pool: &Pool, house: &House, mut serial: u64) -> commonhold::Result<()> {
    while !house.over.is_set()? {
        let serials: Vec<u64> = (serial..serial + 20).collect();
        serial += 20;
        for (serial, result) in serials.iter().zip(pool.map_all(errand, serials.iter().map(|serial| (house.clone(), *serial)))?) {
            let entry = (actor::POOL, *serial);
            house.said.send(match result.and_then(|result| result) {
                Ok(worth) => {
                    assert_eq!(worth, serial * 2);
                    actor::Said::Moved(entry)
                }
                Err(error) if error.is_died() => actor::Said::MayHaveMoved(entry),
                Err(error) => return Err(error),
            })?;
        }
    }
    Ok(())
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Tells all who work that it is over, however that came: what fails in between is told, and nobody waits for those who go on.
struct AtTheEnd<'h>(&'h House);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        // The manager may have ended.
        let _ = self.0.over.set();
    }
}

/// Books are kept, whoever dies but the manager, and balance in the end.
fn keep_books(manager: &Manager, pool: &Pool, seed: u64, end: Instant) {
    let mut director = Director::new(manager, seed);
    let house = director.house.clone();
    std::thread::scope(|scope| {
        let errands = scope.spawn(|| run_errands(pool, &house, 0));
        let over = AtTheEnd(&house);
        while Instant::now() < end {
            let most = 20 + director.numbers.below(400);
            director.listen(most);
            director.happen(pool);
        }
        director.go_on_all();
        drop(over);
        errands.join().unwrap().unwrap();
        director.conclude();
    });
}

/// The manager is stopped, which nobody takes for its death; it goes on; it dies, and everybody hears of it: what is then in the books
/// nobody can say.
fn kill_the_manager(manager: &Manager, pool: &Pool, seed: u64) {
    let director = Director::new(manager, seed);
    let house = director.house.clone();
    std::thread::scope(|scope| {
        let errands = scope.spawn(|| run_errands(pool, &house, 0));
        for _ in 0..1000 {
            house.said.recv().unwrap();
        }
        let process = process_of(manager);
        stop(process.pid);
        let snapshot = house.journal.session().unwrap().snapshot().unwrap();
        assert_eq!(house.sum(&snapshot), actor::SUM, "readers do not need it");
        assert!(director.players.iter().all(|player| player.process.is_alive()));
        signal_to(process.pid, Signal::CONT);
        manager.audit().unwrap();
        let mark = house.journal.len().unwrap();
        until("work goes on", || house.journal.len().unwrap() > mark);
        process.kill();
        let error = errands.join().unwrap().unwrap_err();
        assert!(error.is_disconnected(), "{error}");
        for player in director.players {
            assert_eq!(player.process.join().unwrap(), Ending::Orphaned(actor::SUM));
        }
    });
}

#[test]
fn the_books_balance_whoever_dies() {
    let end = Instant::now() + Duration::from_secs(variable("COMMONHOLD_SOAK_SECONDS", 20));
    let seed = variable("COMMONHOLD_SOAK_SEED", 42);
    let manager = Manager::start().unwrap();
    let pool = Pool::new(WORKERS).unwrap();
    keep_books(&manager, &pool, seed, end);
    kill_the_manager(&manager, &pool, seed + 1);
    drop((pool, manager));
    until("no process is left", || children_of(std::process::id()).is_empty());
}
