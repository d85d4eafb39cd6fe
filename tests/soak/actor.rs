//! What the actors share, and what they do, over and over, in any order.

use crate::Numbers;
use commonhold::{
    Array, Counter, Dict, ErrorKind, Event, Lease, List, Lock, Manager, PipeReceiver, PipeSender, Queue, Semaphore, Session, Shared,
    Snapshot, StripedCounter, Transaction, Value,
};
use std::time::Duration;

/// The pool's number as an actor.
pub const POOL: u64 = 0;
/// All that is in the two dicts together, at any moment.
pub const SUM: i64 = 16 * 1000;
/// Permits of the semaphore.
pub const PERMITS: usize = 2;
/// Long for one who waits, short enough to see that it is over.
const SHORTLY: Duration = Duration::from_millis(50);

/// Who moved something, and which of its moves it was.
pub type Entry = (u64, u64);

/// An object of our own.
#[derive(Default)]
pub struct Tally(u64);

#[commonhold::remote]
impl Tally {
    pub fn new() -> Self {
        Tally::default()
    }
    pub fn add(&mut self, number: u64) -> u64 {
        self.0 += number;
        self.0
    }
    pub fn total(&self) -> u64 {
        self.0
    }
}

/// What an actor says it has done, when it has done it.
#[derive(Shared, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Moved(Entry),
    HasNotMoved(Entry),
    MayHaveMoved(Entry),
    Counted,
    Marked,
    Sent(u64),
    Piped(Entry),
    /// To the tally of this generation.
    Added(u64),
}

/// How an actor ends.
#[derive(Shared, Debug, PartialEq)]
pub enum Ending {
    Over,
    /// The manager died; this was the sum in the snapshot that the actor held.
    Orphaned(i64),
}

/// Everything that is shared.
#[derive(Shared, Clone)]
pub struct House {
    left: Dict<u64, i64>,
    right: Dict<u64, i64>,
    /// One entry for each move, made in the same commit.
    pub journal: List<Entry>,
    pub jobs: Queue<u64>,
    /// Job → how often it was done.
    pub done: Dict<u64, u64>,
    lock: Lock,
    /// Two words that only who has the lock changes, one after the other.
    pub marks: Array<u64>,
    pub permits: Semaphore,
    pub steps: Counter,
    pub striped: StripedCounter,
    /// With its generation.
    pub tally: Value<(u64, TallyProxy)>,
    pub said: Queue<Said>,
    /// All actors hold this end.
    piped: PipeSender<Entry>,
    pub over: Event,
}

impl House {
    /// With the end of the pipe that nobody else holds.
    pub fn build(manager: &Manager) -> (House, PipeReceiver<Entry>) {
        let (receiver, piped) = manager.pipe_one_way().unwrap();
        let house = House {
            left: manager.dict((0..8).map(|key| (key, 1000))).unwrap(),
            right: manager.dict((0..8).map(|key| (key, 1000))).unwrap(),
            journal: manager.list([]).unwrap(),
            jobs: manager.queue_unbounded().unwrap(),
            done: manager.dict([]).unwrap(),
            lock: manager.lock().unwrap(),
            marks: manager.array([0, 0]).unwrap(),
            permits: manager.semaphore(PERMITS).unwrap(),
            steps: manager.counter(0).unwrap(),
            striped: manager.striped_counter(0).unwrap(),
            tally: manager.value((0, manager.create(Tally::new, ()).unwrap())).unwrap(),
            said: manager.queue_unbounded().unwrap(),
            piped,
            over: manager.event().unwrap(),
        };
        (house, receiver)
    }

    /// What is in both dicts, in one version.
    pub fn sum(&self, snapshot: &Snapshot) -> i64 {
        self.left.at(snapshot).values().chain(self.right.at(snapshot).values()).map(|amount| *amount).sum()
    }

    fn session(&self) -> commonhold::Result<Session> {
        self.journal.session()
    }

    fn shift(&self, tx: &Transaction<'_>, entry: Entry, chance: u64) -> commonhold::Result<()> {
        let (from, to) = if chance.is_multiple_of(2) { (&self.left, &self.right) } else { (&self.right, &self.left) };
        let amount = (chance >> 8) as i64 % 100;
        tx.add(from, (chance >> 1) % 8, -amount)?;
        tx.add(to, (chance >> 4) % 8, amount)?;
        tx.push(&self.journal, entry)
    }

    /// Moves an amount from a dict to the other.
    pub fn move_in_transaction(&self, entry: Entry, chance: u64) -> commonhold::Result<()> {
        self.session()?.transaction(|tx| self.shift(tx, entry, chance))
    }

    /// Does a job, however often it comes, once.
    pub fn do_job(&self, lease: Lease<u64>) -> commonhold::Result<()> {
        self.session()?.transaction(|tx| match tx.contains_key(&self.done, *lease)? {
            true => Ok(()),
            false => tx.insert(&self.done, *lease, 1),
        })?;
        lease.ack().map(drop)
    }
}

/// The same beside the data.
fn shift_there(tx: &Transaction<'_>, (house, entry, chance): (House, Entry, u64)) -> commonhold::Result<()> {
    house.shift(tx, entry, chance)
}

/// The life of an actor.
pub fn live(number: u64, house: House) -> Ending {
    let session = house.session().unwrap();
    let mut actor = Actor { number, serial: 0, numbers: Numbers::new(number), held: session.snapshot().unwrap(), session, house };
    loop {
        match actor.house.over.is_set().and_then(|over| if over { Ok(false) } else { actor.step().map(|()| true) }) {
            Ok(true) => {}
            Ok(false) => return Ending::Over,
            Err(error) if error.is_disconnected() => return Ending::Orphaned(actor.house.sum(&actor.held)),
            Err(error) => panic!("actor {number}: {error}"),
        }
    }
}

struct Actor {
    number: u64,
    serial: u64,
    numbers: Numbers,
    /// A version that it keeps for a while.
    held: Snapshot,
    session: Session,
    house: House,
}

impl Actor {
    fn next(&mut self) -> Entry {
        self.serial += 1;
        (self.number, self.serial)
    }

    fn step(&mut self) -> commonhold::Result<()> {
        let chance = self.numbers.below(1 << 40);
        let said = match self.numbers.below(13) {
            0 | 1 => {
                let entry = self.next();
                self.house.move_in_transaction(entry, chance)?;
                Some(Said::Moved(entry))
            }
            2 => self.move_there(chance)?,
            3 => {
                self.house.striped.add(1)?;
                self.house.steps.add(1)?;
                Some(Said::Counted)
            }
            4 => {
                self.mark()?;
                Some(Said::Marked)
            }
            5 => {
                let job = self.number << 32 | self.next().1;
                self.house.jobs.send(job)?;
                Some(Said::Sent(job))
            }
            6 | 7 => {
                match self.house.jobs.try_lease()? {
                    // Dropped now and then: it comes to another, or again.
                    Some(lease) if !chance.is_multiple_of(5) => self.house.do_job(lease)?,
                    _ => {}
                }
                None
            }
            8 => {
                if let Some(permit) = self.house.permits.acquire_timeout(SHORTLY)? {
                    assert!(self.house.permits.available()? < PERMITS);
                    drop(permit);
                }
                None
            }
            9 => self.add()?,
            10 => {
                assert_eq!(self.house.sum(&self.held), SUM, "in a version that was kept");
                self.held = self.session.snapshot()?;
                None
            }
            11 => {
                let entry = self.next();
                match self.house.piped.send_timeout(entry, SHORTLY) {
                    Ok(()) => Some(Said::Piped(entry)),
                    // It is full, and who empties it has other things to do.
                    Err(error) if error.is_timed_out() => None,
                    Err(error) => return Err(error.into()),
                }
            }
            _ => {
                assert_eq!(self.house.sum(&self.session.snapshot()?), SUM);
                None
            }
        };
        said.map_or(Ok(()), |said| Ok(self.house.said.send(said)?))
    }

    fn move_there(&mut self, chance: u64) -> commonhold::Result<Option<Said>> {
        let entry = self.next();
        match self.session.run(shift_there, (self.house.clone(), entry, chance)) {
            Ok(()) => Ok(Some(Said::Moved(entry))),
            // The host has died, or was stopped: before, or after. It is known which.
            Err(error) if error.is_died() || error.is_timed_out() => Ok(Some(Said::HasNotMoved(entry))),
            Err(error) if error.kind() == ErrorKind::ResultLost => Ok(Some(Said::Moved(entry))),
            Err(error) => Err(error),
        }
    }

    fn mark(&self) -> commonhold::Result<()> {
        let marks = &self.house.marks;
        let turn = self.house.lock.lock()?;
        if turn.owner_died() {
            marks.set(1, marks.get(0)?)?;
        }
        let count = marks.get(0)?;
        assert_eq!(count, marks.get(1)?, "half a change that nobody has told us of");
        marks.set(0, count + 1)?;
        marks.set(1, count + 1)
    }

    fn add(&self) -> commonhold::Result<Option<Said>> {
        let (generation, tally) = self.house.tally.get()?.to_owned();
        match tally.add(1) {
            Ok(_) => Ok(Some(Said::Added(generation))),
            // Its host is dead; there will be another.
            Err(error) if error.is_died() => Ok(None),
            // There is one already: this process was stopped after it had read which, and before it held that.
            Err(error) if error.is_not_found() => {
                assert!(self.house.tally.get()?.0 > generation, "it was gone while it stood there: {error}");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
