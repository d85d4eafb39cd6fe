//! The sync words at chosen instants: what others do between two steps of one who waits, where loom would need too many threads.

use commonhold_ipc::error::{ErrorKind, Result};
use commonhold_ipc::liveness::Slept;
use commonhold_ipc::sync::barrier::{self, Barrier};
use commonhold_ipc::sync::rwlock::RwLock;
use commonhold_ipc::sync::semaphore::{self, SEMAPHORE_BYTES, Semaphore};
use commonhold_ipc::sync::{Claim, Half, Lock, Memory, Waiting, Word};
use std::cell::{Cell, RefCell};

type Event = RefCell<Option<Box<dyn FnOnce()>>>;

fn happen(event: &Event) {
    let event = event.borrow_mut().take();
    if let Some(event) = event {
        event();
    }
}

/// A word, and what happens just before it is looked at for the next time.
#[derive(Default)]
struct Plain(Cell<u64>, Event);

impl Word for Plain {
    fn load(&self) -> u64 {
        happen(&self.1);
        self.0.get()
    }

    fn store(&self, new: u64) {
        self.0.set(new);
    }

    fn swap(&self, new: u64) -> u64 {
        self.0.replace(new)
    }

    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        if self.0.get() == old {
            self.0.set(new);
            return Ok(());
        }
        Err(self.0.get())
    }
}

#[derive(Default)]
struct PlainHalf(Cell<u32>);

impl Half for PlainHalf {
    fn load(&self) -> u32 {
        self.0.get()
    }

    fn compare_exchange(&self, old: u32, new: u32) -> Result<(), u32> {
        if self.0.get() == old {
            self.0.set(new);
            return Ok(());
        }
        Err(self.0.get())
    }
}

/// Memory of one thread. No half word shares its place with a word.
struct Plains(Vec<Plain>, Vec<PlainHalf>);

impl Plains {
    fn new() -> &'static Plains {
        let words = || (0..600).map(|_| Plain::default()).collect();
        Box::leak(Box::new(Plains(words(), (0..1200).map(|_| PlainHalf::default()).collect())))
    }

    fn before_look(&self, at: usize, event: impl FnOnce() + 'static) {
        *self.word(at).1.borrow_mut() = Some(Box::new(event));
    }
}

impl Memory for Plains {
    type Word = Plain;
    type Half = PlainHalf;

    fn word(&self, at: usize) -> &Plain {
        &self.0[at / 8]
    }

    fn half(&self, at: usize) -> &PlainHalf {
        &self.1[at / 4]
    }

    fn wake(&self, _: &PlainHalf, _: u32) -> usize {
        1
    }
}

/// One who waits, and what happens while it sleeps, and while it asks for somebody.
#[derive(Default)]
struct Patient {
    sleep: Event,
    ask: Event,
    knows: bool,
    is_long: bool,
}

impl Patient {
    fn during_sleep(event: impl FnOnce() + 'static) -> Patient {
        Patient { sleep: RefCell::new(Some(Box::new(event))), knows: true, ..Patient::default() }
    }
}

impl Waiting<Plains> for Patient {
    fn spin(&self, _: &mut dyn FnMut() -> bool) -> bool {
        false
    }

    fn sleep(&self, _: &PlainHalf, _: u32, _: u64) -> Result<Slept> {
        happen(&self.sleep);
        Ok(Slept::TimedOut)
    }

    fn is_over(&self) -> bool {
        false
    }

    fn is_long(&self) -> bool {
        self.is_long
    }

    fn knows(&self, _: Claim) -> Result<Option<bool>> {
        happen(&self.ask);
        Ok(Some(self.knows))
    }
}

#[test]
fn a_party_that_was_stopped_takes_nobodys_place_in_a_later_round() {
    const SLOTS: usize = barrier::BARRIER_BYTES;
    let memory = Plains::new();
    memory.word(barrier::PARTIES).swap(2);
    let barrier = || Barrier::new(memory, 0, 2).unwrap();
    barrier().arrive(1, &Patient::default()).unwrap();
    // It knows the round, and looks for a place: now that round is reset, and another one comes to the next.
    memory.before_look(SLOTS, move || {
        barrier().reset();
        barrier().arrive(3, &Patient::default()).unwrap();
    });
    assert!(barrier().arrive(2, &Patient::default()).unwrap().leads, "it comes to the next round, too");
    assert_eq!(barrier().arrived().collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn a_party_that_comes_again_leaves_the_others_places_of_the_last_round() {
    for dies in [1, 2] {
        let memory = Plains::new();
        memory.word(barrier::PARTIES).swap(2);
        let barrier = Barrier::new(memory, 0, 2).unwrap();
        barrier.arrive(1, &Patient::default()).unwrap();
        let last = barrier.arrive(2, &Patient::default()).unwrap();
        barrier.open(last).unwrap();
        barrier.arrive(3 - dies, &Patient::default()).unwrap();
        barrier.recover(dies, true);
        assert!(barrier.is_broken(), "{dies} was there the last time");
    }
}

#[test]
fn a_party_that_was_stopped_for_many_rounds_has_passed_its_own() {
    for (rounds, broken, passes) in
        [(1, false, true), (16, false, true), (17, false, true), (9000, false, true), (9, true, true), (20, true, false)]
    {
        let memory = Plains::new();
        memory.word(barrier::PARTIES).swap(2);
        let barrier = move || Barrier::new(memory, 0, 2).unwrap();
        let arrival = barrier().arrive(1, &Patient::default()).unwrap();
        let others = move || {
            for round in 0..rounds {
                if round > 0 {
                    assert!(!barrier().arrive(2, &Patient::default()).unwrap().leads);
                }
                let last = barrier().arrive(3, &Patient::default()).unwrap();
                assert!(last.leads);
                barrier().open(last).unwrap();
                if broken && round == 0 {
                    barrier().break_round(None);
                    barrier().reset();
                }
            }
        };
        let passed = barrier().wait(arrival, &Patient::during_sleep(others));
        assert_eq!(passed.is_ok(), passes, "{rounds} {broken}");
    }
}

#[test]
fn a_writer_that_dies_before_it_has_begun_does_not_hide_the_death_before() {
    for told in [true, false] {
        let memory = Plains::new();
        let lock = move || RwLock::new(memory, 0);
        let [first, reader, second, third] = [1, 2, 3, 4].map(|session| Claim::new(session, 7));
        if told {
            lock().writer().try_take(first).unwrap();
            lock().recover(1);
        }
        let taken = lock().writer().try_take(reader).unwrap();
        assert_eq!(taken.owner_died, told);
        let slot = lock().read(reader, taken).unwrap();
        let taken = lock().writer().try_take(second).unwrap();
        // It waits for the reader, and is killed.
        let dies = move || {
            lock().recover(3);
            assert_eq!(lock().writer().try_take(third).unwrap().owner_died, told);
            lock().leave(slot);
        };
        assert!(lock().drain(second, taken, &Patient::during_sleep(dies)).unwrap());
    }
}

#[test]
fn a_holder_that_dies_while_it_is_asked_for_is_no_nonsense() {
    let memory = Plains::new();
    let lock = move || Lock::new(memory, 0);
    let [holder, waiter] = [1, 2].map(|session| Claim::new(session, 7));
    lock().try_take(holder).unwrap();
    let recovery: Box<dyn FnOnce()> = Box::new(move || lock().recover(1, |_| true));
    let patient = Patient { ask: RefCell::new(Some(recovery)), ..Patient::default() };
    assert!(lock().take(waiter, &patient).unwrap().unwrap().owner_died);

    lock().release();
    lock().try_take(holder).unwrap();
    let error = lock().take(waiter, &Patient::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "nobody has ever heard of this holder");
}

#[test]
fn a_reader_that_dies_while_it_is_asked_for_is_no_nonsense() {
    let memory = Plains::new();
    let lock = move || RwLock::new(memory, 0);
    let [reader, writer] = [1, 2].map(|session| Claim::new(session, 7));
    lock().try_read(reader).unwrap();
    let recovery: Box<dyn FnOnce()> = Box::new(move || lock().recover(1));
    let patient = Patient { ask: RefCell::new(Some(recovery)), ..Patient::default() };
    let taken = lock().writer().try_take(writer).unwrap();
    assert!(lock().drain(writer, taken, &patient).unwrap());
}

#[test]
fn an_heir_that_got_another_permit_leaves_the_one_that_was_kept_for_it() {
    let memory = Plains::new();
    memory.word(semaphore::PERMITS).swap(2);
    memory.word(semaphore::USED).swap(2);
    let semaphore = move || Semaphore::new(memory, 0, 2).unwrap();
    let [holder, heir] = [1, 2].map(|session| Claim::new(session, 8));
    assert_eq!((semaphore().try_take(holder), semaphore().try_take(holder)), (Some(0), Some(1)));
    let patient = Patient {
        is_long: true,
        ..Patient::during_sleep(move || {
            semaphore().release(1);
            assert_eq!(memory.word(SEMAPHORE_BYTES + 8).load(), heir.word() | commonhold_ipc::sync::turns::RESERVED);
            semaphore().release(0);
        })
    };
    assert_eq!(semaphore().take(heir, &patient).unwrap(), Some(0));
    assert_eq!(semaphore().available(), 1);
}
