//! Pins of one process as its manager sees them: how many words, which versions, and that what is pinned stays.

use super::*;
use crate::map::ArenaWriter;
use crate::sys::{memfd_sealed, reopen_read_only};
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::thread;

const ARENA_BYTES: u64 = 4 << 20;

/// A manager that only publishes, and one session with it.
struct Pair {
    arena: ArenaWriter,
    table: Arc<PinTable>,
    scan: PinScan,
    /// The page, as a client that does not keep the rules writes it.
    page: Segment,
}

impl Pair {
    fn new() -> Pair {
        let file = memfd_sealed("arena of pins", ARENA_BYTES).unwrap();
        let reader = ArenaReader::map(&reopen_read_only(&file).unwrap(), ARENA_BYTES).unwrap();
        let arena = ArenaWriter::map(file, ARENA_BYTES).unwrap();
        arena.back(0..arena::BLOCKS).unwrap();
        let page = memfd_sealed("page of pins", PAGE_BYTES).unwrap();
        let pair = Pair {
            arena,
            table: PinTable::new(&page, reader).unwrap(),
            scan: PinScan::map(&page).unwrap(),
            page: Segment::map(&page, PAGE_BYTES, Access::ReadWrite).unwrap(),
        };
        pair.publish(1, 0);
        pair
    }

    fn publish(&self, version: u64, catalog: u64) {
        arena::write_root(&self.arena, &Root { version, catalog, ..Root::default() });
        arena::publish(&self.arena, version);
    }

    fn newest(&self) -> u64 {
        arena::version(self.arena.reader())
    }

    fn publish_next(&self) -> u64 {
        self.publish(self.newest() + 1, 0);
        self.newest()
    }

    /// What the manager sees, ascending.
    fn pins(&self) -> Vec<Pinned> {
        std::sync::atomic::fence(Ordering::SeqCst);
        let mut pins = Vec::new();
        self.scan.scan(self.newest(), |pin| pins.push(pin));
        pins.sort_unstable();
        pins
    }

    fn blocks_used(&self) -> u64 {
        self.page.word(BLOCKS_USED).load(Ordering::Acquire)
    }
}

fn at(versions: impl IntoIterator<Item = u64>) -> Vec<Pinned> {
    versions.into_iter().map(Pinned::At).collect()
}

#[test]
fn pins_of_one_version_share_a_word() {
    let pair = Pair::new();
    let first = pair.table.pin();
    let (second, third) = (pair.table.pin(), first.clone());
    assert_eq!((pair.pins(), pair.table.held()), (at([1]), 3));
    pair.publish_next();
    let newer = pair.table.pin();
    assert_eq!((newer.root().version, second.root().version), (2, 1));
    assert_eq!(pair.pins(), at([1, 2]));
    drop((first, second));
    assert_eq!(pair.pins(), at([1, 2]));
    drop(third);
    assert_eq!(pair.pins(), at([2]));
    drop(newer);
    assert_eq!((pair.pins(), pair.table.held()), (vec![], 0));
}

#[test]
fn a_pin_follows_the_newest_version_while_another_holds_an_old_one() {
    let pair = Pair::new();
    let old = pair.table.pin();
    for version in 2..200 {
        pair.publish_next();
        let pin = pair.table.pin();
        assert_eq!((pin.root().version, pair.pins()), (version, at([1, version])));
    }
    drop(old);
    assert_eq!(pair.pins(), vec![]);
}

#[test]
fn more_versions_than_words_of_a_thread_are_all_held() {
    let pair = Pair::new();
    let mut pins = Vec::new();
    for _ in 0..5 * WORDS {
        pins.push(pair.table.pin());
        pair.publish_next();
    }
    let count = pins.len() as u64;
    assert_eq!(pair.pins(), at(1..=count));
    // Of the same version as the last one of these, and beyond the thread's own words: shared, too.
    let clones: Vec<_> = pins.iter().map(Pin::clone).collect();
    drop(clones);
    // In another order than they came.
    while !pins.is_empty() {
        drop(pins.swap_remove(pins.len() / 3));
        let mut versions: Vec<u64> = pins.iter().map(|pin| pin.root().version).collect();
        versions.sort_unstable();
        assert_eq!(pair.pins(), at(versions));
    }
    assert_eq!(pair.table.held(), 0);
}

#[test]
fn when_the_page_is_full_a_floor_holds_all_newer_versions() {
    let pair = Pair::new();
    let mut pins = Vec::new();
    // The calling thread has no block: all of them travel.
    for _ in 0..BLOCKS * WORDS {
        pins.push(OwnedPin::new(&pair.table));
        pair.publish_next();
    }
    let full = pair.pins();
    assert_eq!(full, at(1..=(BLOCKS * WORDS) as u64));
    let floor = OwnedPin::new(&pair.table);
    let lowest = pair.newest();
    assert_eq!(floor.root().version, lowest);
    pair.publish_next();
    // No block is left for this thread, so its pin is on the floor as well.
    let second = pair.table.pin();
    let third = second.clone();
    assert_eq!(second.root().version, lowest + 1);
    drop(floor);
    assert_eq!(pair.pins().last(), Some(&Pinned::From(lowest)), "the floor stays as long as any pin stands on it");
    drop(second);
    assert_eq!(pair.pins().len(), full.len() + 1);
    drop(third);
    assert_eq!(pair.pins(), full);
    // A word that has become free is used again before the floor is.
    pins.remove(1000);
    let again = OwnedPin::new(&pair.table);
    assert_eq!(again.root().version, pair.newest());
    assert!(pair.pins().iter().all(|pin| matches!(pin, Pinned::At(_))));
    drop((pins, again));
    assert_eq!((pair.pins(), pair.table.held()), (vec![], 0));
}

#[test]
fn threads_that_end_give_their_blocks_back() {
    let pair = Pair::new();
    for _ in 0..2000 {
        // Joined by hand: a scope's own end does not wait for what a thread does after its closure, and there it gives its block back.
        thread::scope(|scope| scope.spawn(|| drop(pair.table.pin())).join()).unwrap();
    }
    assert!(pair.blocks_used() <= 4, "{} blocks for one thread at a time", pair.blocks_used());
    assert_eq!(pair.pins(), vec![]);
}

#[test]
fn more_threads_than_blocks_are_served() {
    const THREADS: usize = BLOCKS + 60;
    let pair = Pair::new();
    let (pinned, seen) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let run = || {
                let pin = pair.table.pin();
                let owned = OwnedPin::new(&pair.table);
                pinned.wait();
                seen.wait();
                assert_eq!((pin.root().version, owned.root().version), (1, 1));
                assert!(usize::from(pair.table.lane()) < BLOCKS);
            };
            thread::Builder::new().stack_size(128 << 10).spawn_scoped(scope, run).unwrap();
        }
        pinned.wait();
        assert_eq!(pair.table.held(), 2 * THREADS as u64);
        let words = pair.pins();
        assert!(words.iter().all(|pin| *pin == Pinned::At(1)) && words.len() <= BLOCKS, "{words:?}");
        seen.wait();
    });
    assert_eq!((pair.pins(), pair.table.held()), (vec![], 0));
}

#[test]
fn a_forgotten_guard_holds_its_version_and_nothing_else() {
    let pair = Pair::new();
    let forget = || std::mem::forget(pair.table.pin());
    thread::scope(|scope| scope.spawn(forget).join().unwrap());
    pair.publish_next();
    for _ in 0..100 {
        thread::scope(|scope| {
            let run = || {
                let pin = pair.table.pin();
                assert_eq!((pin.root().version, pair.pins()), (2, at([1, 2])));
            };
            // Joined: a scope ends with the closure, and a thread gives its block back behind that, with its own storage.
            scope.spawn(run).join().unwrap();
        });
    }
    assert_eq!(pair.pins(), at([1]));
    assert!(pair.blocks_used() <= 5);
}

/// Pins when it is dropped, as a destructor of a thread's own storage may.
struct Late(&'static PinTable);

impl Drop for Late {
    fn drop(&mut self) {
        let pin = self.0.pin();
        assert!(pin.clone().root().version > 0);
    }
}

thread_local! {
    static KEPT: RefCell<Option<Pin<'static>>> = const { RefCell::new(None) };
    static LATE: RefCell<Option<Late>> = const { RefCell::new(None) };
}

#[test]
fn guards_in_a_threads_own_storage_go_with_it() {
    let pair = Pair::new();
    let table: &'static PinTable = Box::leak(Box::new(pair.table.clone()));
    // Destructors run in an order that depends on what was used first: both orders.
    for storage_first in [false, true] {
        let run = move || {
            if storage_first {
                KEPT.with(|_| ());
                LATE.set(Some(Late(table)));
            }
            KEPT.set(Some(table.pin()));
            LATE.set(Some(Late(table)));
        };
        for _ in 0..20 {
            thread::spawn(run).join().unwrap();
            assert_eq!((pair.pins(), pair.table.held()), (vec![], 0));
        }
    }
    assert!(pair.blocks_used() <= 6, "{}", pair.blocks_used());
}

#[test]
fn owned_pins_travel() {
    fn can_travel<T: Send + Sync>() {}
    can_travel::<OwnedPin>();
    can_travel::<PinTable>();
    let pair = Pair::new();
    let pin = OwnedPin::new(&pair.table);
    pair.publish_next();
    let here = pair.table.pin();
    thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(pair.pins(), at([1, 2]));
            drop(pin);
            assert_eq!(pair.pins(), at([2]));
        });
    });
    drop(here);
    assert_eq!(pair.pins(), vec![]);
    // A table outlives its handle as long as a pin needs it.
    let pin = OwnedPin::new(&pair.table);
    let Pair { table, scan, arena, .. } = pair;
    drop(table);
    let mut found = 0;
    scan.scan(arena::version(arena.reader()), |_| found += 1);
    assert_eq!((found, pin.table().held()), (1, 1));
}

#[test]
fn what_is_lent_is_pinned_before_it_is_acknowledged() {
    let pair = Pair::new();
    (0..9).for_each(|_| {
        pair.publish_next();
    });
    let lane = pair.table.lane();
    assert_eq!(pair.scan.acknowledged(lane), 0);
    let current = pair.table.pin();
    let lent = pair.table.pin_lent(4).unwrap();
    let same = pair.table.pin_lent(10).unwrap();
    pair.table.acknowledge(lane, 77);
    assert_eq!(pair.scan.acknowledged(lane), 77);
    assert_eq!(pair.pins(), at([4, 10]));
    drop(current);
    assert_eq!(pair.pins(), at([4, 10]));
    drop((lent, same));
    assert_eq!(pair.pins(), vec![]);
    // All words taken: the caller copies what was lent, and acknowledges then.
    let taken: Vec<_> = (1..).map_while(|version| pair.table.pin_lent(version)).take(WORDS + 1).collect();
    assert_eq!(taken.len(), WORDS);
    drop(taken);
    assert_eq!(pair.scan.acknowledged(u16::MAX), u64::MAX);
    assert_eq!(pair.table.held(), 0);
}

#[test]
fn a_page_of_nonsense_delays_and_does_no_more() {
    let pair = Pair::new();
    pair.publish_next();
    pair.page.word(BLOCKS_USED).store(u64::MAX, Ordering::Release);
    pair.page.word(FLOOR).store(u64::MAX, Ordering::Release);
    for block in 0..BLOCKS {
        for word in 0..WORDS {
            pair.page.word(word_offset(block, word)).store([0, 1, 2, 3, u64::MAX][word % 5], Ordering::Release);
        }
    }
    let pins = pair.pins();
    assert_eq!(pins.iter().filter(|pin| **pin == Pinned::From(2)).count(), 1);
    assert!(pins.iter().all(|pin| [Pinned::From(2), Pinned::At(1), Pinned::At(2)].contains(pin)));
    assert_eq!(pins.len(), 1 + BLOCKS * WORDS / 5 * 2);
    assert!(check_page(PAGE_BYTES).is_ok());
    let error = check_page(PAGE_BYTES - 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let short = format!(
        "a session page has {PAGE_BYTES} bytes, and the manager has sent one of {}: use the same version of commonhold in both",
        PAGE_BYTES - 1
    );
    assert_eq!(error.to_string(), short);
}

const BLOCK_WORDS: u64 = 64;

/// Version *v* shows one block, full of *v*. The writer spoils it as soon as no pin holds *v*, and uses it again.
fn write_versions(pair: &Pair, versions: u64) -> u64 {
    let mut free: Vec<u64> = (0..200).map(|i| arena::BLOCKS + i * BLOCK_WORDS * 8).collect();
    let mut shown: Vec<(u64, u64)> = Vec::new();
    let fill = |block: u64, word: u64| (0..BLOCK_WORDS).for_each(|i| pair.arena.store(block + i * 8, word));
    let mut spoiled = 0;
    for version in 2..2 + versions {
        let block = loop {
            if let Some(block) = free.pop() {
                break block;
            }
            // Readers hold that many versions: some will go.
            thread::yield_now();
            spoiled += spoil(pair, &mut shown, &mut free, fill);
        };
        fill(block, version);
        pair.publish(version, block);
        shown.push((version, block));
        spoiled += spoil(pair, &mut shown, &mut free, fill);
    }
    spoiled
}

/// Overwrites and frees all blocks of versions before the newest that no pin holds.
fn spoil(pair: &Pair, shown: &mut Vec<(u64, u64)>, free: &mut Vec<u64>, fill: impl Fn(u64, u64)) -> u64 {
    let (pins, newest) = (pair.pins(), pair.newest());
    let before = free.len();
    shown.retain(|(version, block)| {
        let held = *version == newest
            || pins.iter().any(|pin| match pin {
                Pinned::At(pinned) => pinned == version,
                Pinned::From(floor) => floor <= version,
            });
        if !held {
            fill(*block, u64::MAX);
            free.push(*block);
        }
        held
    });
    (free.len() - before) as u64
}

fn verify(arena: &ArenaReader, root: &Root) {
    if root.catalog != 0 {
        for i in 0..BLOCK_WORDS {
            assert_eq!(arena.word(root.catalog + i * 8), root.version, "word {i} of a pinned version has changed");
        }
    }
}

fn read_versions(pair: &Pair, reader: usize, over: &AtomicBool, travelling: &Mutex<Vec<OwnedPin>>) {
    let arena = pair.table.arena();
    let mut kept: Vec<Pin<'_>> = Vec::new();
    let mut round = reader;
    while !over.load(Ordering::Acquire) {
        round += 1;
        let pin = pair.table.pin();
        verify(arena, pin.root());
        match round % 7 {
            0 => kept.push(pin),
            1 => kept.push(pin.clone()),
            2 => {
                let owned = OwnedPin::new(&pair.table);
                verify(arena, owned.root());
                travelling.lock().unwrap().push(owned);
            }
            3 => {
                let owned = travelling.lock().unwrap().pop();
                owned.iter().for_each(|owned| verify(arena, owned.root()));
            }
            _ => kept.iter().for_each(|pin| verify(arena, pin.root())),
        }
        // More at a time than a block has words.
        if kept.len() > 2 * WORDS {
            kept.drain(..kept.len() - reader % 5);
        }
    }
}

#[test]
#[should_panic(expected = "word 0 of a pinned version has changed")]
fn canary_a_block_that_is_overwritten_under_a_pin_is_noticed() {
    let pair = Pair::new();
    pair.arena.back(arena::BLOCKS..arena::BLOCKS + 4096).unwrap();
    pair.publish(2, arena::BLOCKS);
    let pin = pair.table.pin();
    pair.arena.store(arena::BLOCKS, u64::MAX);
    verify(pair.table.arena(), pin.root());
}

#[test]
fn nothing_that_is_pinned_is_ever_overwritten() {
    const READERS: usize = 4;
    const VERSIONS: u64 = 20_000;
    let pair = Pair::new();
    pair.arena.back(arena::BLOCKS..arena::BLOCKS + (200 * BLOCK_WORDS * 8u64).next_multiple_of(4096)).unwrap();
    let (over, travelling) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let spoiled = thread::scope(|scope| {
        for reader in 0..READERS {
            let (pair, over, travelling) = (&pair, &over, &travelling);
            scope.spawn(move || read_versions(pair, reader, over, travelling));
        }
        // A reader that fails lets its pins go, so that the writer ends in any case.
        let written = scope.spawn(|| write_versions(&pair, VERSIONS)).join();
        over.store(true, Ordering::Release);
        written.unwrap()
    });
    drop(travelling.into_inner().unwrap());
    assert!(spoiled > VERSIONS - 300, "{spoiled} versions have been overwritten");
    assert_eq!((pair.pins(), pair.table.held()), (vec![], 0));
}

#[test]
fn a_table_leaves_its_fences_to_the_manager_when_that_pays() {
    let pair = Pair::new();
    let read = |times: u32| (0..times).for_each(|_| drop(pair.table.pin()));
    read(fence::FENCES);
    assert!(!pair.scan.relies_on_manager(), "this manager has not said that it can");
    if !crate::sys::has_barriers() {
        return;
    }
    pair.table.rely_on_manager();
    read(fence::FENCES - 1);
    // Tests run in threads of their own, so nothing is registered at once.
    assert!(!pair.scan.relies_on_manager() && !pair.table.fencing.is_managers());
    read(1);
    assert!(pair.scan.relies_on_manager() && pair.table.fencing.is_managers());
    let (first, version) = pair.table.hold();
    pair.publish_next();
    let second = pair.table.pin();
    crate::sys::barrier_for_registered().unwrap();
    assert_eq!((version, pair.pins()), (1, at([1, 2])));
    drop((first, second));
    assert_eq!(pair.pins(), []);
}
