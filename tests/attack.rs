//! Flaws that a hostile reading of the code has found: each test failed before its repair.
#![allow(unsafe_code)] // forks

mod support;

use commonhold::__rt::{Fault, Ser};
use commonhold::{AsShared, Dict, ErrorKind, Handle, Manager};
use commonhold_ipc::handshake::{self, ClientOffer, Purpose, Versions};
use commonhold_ipc::map::ArenaReader;
use commonhold_ipc::socket::Channel;
use commonhold_ipc::value::ARCHIVE_FORMAT;
use commonhold_ipc::wire::commit::{Op, write_single};
use commonhold_ipc::wire::reply::Outcome;
use commonhold_ipc::wire::{Call, HEAD_BYTES, Head, Payload, Reader};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use support::Afterwards;

commonhold::init_in_tests!();

/// Runs `body` in a thread, and fails if it has not ended after some time.
fn ends<R: Send + 'static>(body: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || done.send(body()));
    ended.recv_timeout(Duration::from_secs(20)).expect("it does not end")
}

/// A manager whose calls all go over the socket, where a large value is looked at three times: twice for its length.
fn over_the_socket() -> Manager {
    Manager::builder().lanes(false).in_process().start().unwrap()
}

/// A value that is longer each time that it is looked at.
struct Growing(Cell<usize>);

impl AsShared<Vec<u8>> for Growing {
    type Back = ();

    fn back(self) {}

    fn write(&self, ser: &mut Ser) -> Result<(), Fault> {
        self.0.set(self.0.get() + 100);
        let bytes = vec![7; self.0.get()];
        AsShared::<Vec<u8>>::write(&bytes, ser)
    }
}

#[test]
fn guards_outlive_their_connection() {
    let manager = Manager::builder().lanes(false).start().unwrap();
    let dict = manager.dict([(1u64, "first ".repeat(100))]).unwrap();
    // A second connection of this process, which ends in the middle of a call.
    let address = manager.address();
    let channel = Channel::connect(address, Instant::now() + Duration::from_secs(5)).unwrap();
    let second = commonhold::Session::greet(channel, address.clone(), None).unwrap();
    let same: Dict<u64, String> = second.attach(&dict.token().unwrap()).unwrap();
    let guard = same.get(1).unwrap().unwrap();
    let blob = second.dict::<u64, Vec<u8>>([(0, vec![])]).unwrap();
    assert!(blob.insert(1, Growing(Cell::new(200_000))).is_err());
    for i in 0..2_000u64 {
        dict.insert(1, format!("{i:06}").repeat(100)).unwrap();
    }
    assert!(guard.as_str() == "first ".repeat(100), "the guard shows {:?}", &guard.as_str()[..20]);
    assert_eq!(manager.stats().unwrap().sessions, 1);
    // The pins go with the last handle.
    drop(guard);
    drop((same, blob, second));
    dict.insert(1, "last").unwrap();
    assert_eq!(manager.stats().unwrap().oldest_pin, None);
}

/// A client by hand.
struct Raw {
    channel: Channel,
    number: u64,
}

fn connect_raw(address: &commonhold_ipc::socket::Address) -> (Channel, ArenaReader, Vec<std::os::fd::OwnedFd>) {
    let offer = ClientOffer { versions: Versions::ours(ARCHIVE_FORMAT), purpose: Purpose::Session, authkey: None };
    let (channel, welcome, fds) = handshake::connect(address, &offer, Instant::now() + Duration::from_secs(5)).unwrap();
    let arena = ArenaReader::map(&fds[0], welcome.arena_len).unwrap();
    (channel, arena, fds)
}

impl Raw {
    fn send(&mut self, call: Call, lane: u16, payload: &[u8]) {
        self.number += 1;
        let head = Head { len: payload.len() as u32, code: call as u8, quiet: false, lane, number: self.number };
        let deadline = Instant::now() + Duration::from_secs(5);
        self.channel.send_all(&[&head.to_bytes(), payload].concat(), &[], deadline).unwrap();
    }

    fn call(&mut self, call: Call, lane: u16, payload: &[u8]) -> Outcome {
        self.send(call, lane, payload);
        let deadline = Instant::now() + Duration::from_secs(5);
        let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let received = self.channel.receive_before(&mut buffer, &mut Vec::new(), 0, deadline).unwrap();
            let commonhold_ipc::socket::Received::Bytes(count) = received else { panic!("{received:?}") };
            bytes.extend_from_slice(&buffer[..count]);
            if let Some(head) = Head::parse(&bytes)
                && bytes.len() >= HEAD_BYTES + head.len as usize
            {
                assert_eq!(head.code, 0);
                let mut read = Reader::new(&bytes[HEAD_BYTES + 8..]);
                return Outcome::parse(&mut read).unwrap_or(Outcome::Nothing);
            }
        }
    }

    fn insert(&mut self, object: u64, lane: u16, key: u64, value: &str, lend: bool) -> Outcome {
        let mut ser = commonhold_ipc::value::Ser::buffer();
        let key = ser.put::<u64>(&key).unwrap();
        let value = ser.put::<String>(&value).unwrap();
        let value = Payload::inline(&ser.bytes()[value]);
        let mut payload = Vec::new();
        write_single(&mut payload, &Op::Insert { object, key: &ser.bytes()[key], value, only_if_absent: false, lend });
        self.call(Call::Commit, lane, &payload)
    }
}

#[test]
fn what_is_lent_to_the_shared_lane_outlives_messages_without_answers() {
    let manager = Manager::in_process().unwrap();
    let dict = manager.dict([(1u64, "first ".repeat(100))]).unwrap();
    let (channel, arena, _fds) = connect_raw(manager.address());
    let mut raw = Raw { channel, number: 0 };
    let Outcome::Lent(place, _) = raw.insert(dict.id(), 0, 1, "second", true) else { panic!("nothing was lent") };
    let before = arena.bytes(place.offset, place.len).to_vec();
    // Another thread of that process drops a handle, while the one that was lent the value has not yet pinned it.
    raw.send(Call::Release, 0, &[]);
    raw.insert(dict.id(), 5, 2, "x", false);
    for i in 0..2_000u64 {
        dict.insert(3, format!("{i:06}").repeat(100)).unwrap();
    }
    manager.stats().unwrap();
    assert!(before == arena.bytes(place.offset, place.len), "what was lent has been written over");
}

#[test]
fn a_transaction_that_writes_beside_itself_ends() {
    let manager = Manager::in_process().unwrap();
    let dict = manager.dict([("a".to_string(), 0u64)]).unwrap();
    let log = manager.list([0u64]).unwrap();
    let runs = ends(move || {
        let mut runs = 0u64;
        manager
            .transaction(|tx| {
                runs += 1;
                let seen = *tx.get(&dict, "a")?.unwrap();
                if runs <= 6 {
                    manager.transaction(|inner| inner.add(&dict, "a", 1))?;
                }
                manager.transaction(|inner| inner.push(&log, runs))?;
                manager.transaction(|inner| inner.push(&log, 100 + runs))?;
                tx.insert(&dict, "b", seen)
            })
            .unwrap();
        runs
    });
    assert_eq!(runs, 7);
}

#[test]
fn who_writes_beside_the_transaction_it_is_in_is_refused() {
    let (manager, elsewhere) = (Manager::in_process().unwrap(), Manager::in_process().unwrap());
    let (dict, log) = (manager.dict([("a".to_string(), 0u64)]).unwrap(), manager.list([0u64]).unwrap());
    let (value, counter, foreign) = (manager.value(1u64).unwrap(), manager.counter(1).unwrap(), elsewhere.list([1u64]).unwrap());
    let large = vec![0u64; 100_000];
    let blobs = manager.list([vec![1u64]]).unwrap();
    let made = manager
        .transaction(|tx| {
            let tries = [
                dict.insert("a", 1).map(drop),
                dict.add("a", 1).map(drop),
                dict.update("a", |old| old.map(|old| old + 1)).map(drop),
                dict.extend([("x", 1u64)]),
                dict.clear(),
                log.push(1),
                log.sort(),
                blobs.push(&large),
                value.set(2u64),
                value.update(|value| *value += 1).map(drop),
                counter.add(1).map(drop),
                manager.batch(|batch| batch.push(&log, 1)),
                elsewhere.transaction(|_| foreign.push(1)),
            ];
            for (number, tried) in tries.into_iter().enumerate() {
                let error = tried.expect_err("a write beside the transaction");
                assert_eq!(error.kind(), commonhold::ErrorKind::Refused, "try {number}: {error}");
            }
            // What is another manager's, or nobody's yet, and what only reads.
            foreign.push(2)?;
            let made = (manager.list(0..3u64)?, manager.dict([(1u8, 2u8)])?, manager.value(5u64)?, manager.counter(6)?);
            assert_eq!((made.0.len()?, made.1.len()?, *made.2.get()?, made.3.get()?), (3, 1, 5, 6));
            assert_eq!(log.len()?, 1);
            tx.insert(&dict, "b", 7)?;
            Ok(made.0)
        })
        .unwrap();
    assert_eq!((dict.len().unwrap(), log.len().unwrap(), blobs.len().unwrap(), foreign.len().unwrap()), (2, 1, 1, 2));
    assert_eq!((*value.get().unwrap(), counter.get().unwrap()), (1, 1));
    made.push(1).unwrap();
    // Nor is anything refused behind a closure that panics.
    let panicked = catch_unwind(AssertUnwindSafe(|| manager.transaction(|_| -> commonhold::Result<()> { panic!("on purpose") })));
    assert!(panicked.is_err());
    log.push(1).unwrap();
    manager.audit().unwrap();
}

#[test]
fn a_transaction_that_waits_for_another_writer_of_its_process_ends() {
    let manager = Manager::in_process().unwrap();
    let dict = manager.dict([("a".to_string(), 0u64)]).unwrap();
    ends(move || {
        let mut runs = 0u64;
        manager
            .transaction(|tx| {
                runs += 1;
                let seen = *tx.get(&dict, "a")?.unwrap();
                let beside = dict.clone();
                if runs <= 6 {
                    std::thread::spawn(move || beside.add("a", 1).unwrap()).join().unwrap();
                }
                tx.insert(&dict, "b", seen)
            })
            .unwrap();
    });
}

#[test]
fn what_a_transaction_reads_behind_its_own_pushes_must_hold() {
    let manager = Manager::in_process().unwrap();
    let list = manager.list([1u64]).unwrap();
    let mut runs = 0;
    let position = manager
        .transaction(|tx| {
            runs += 1;
            let position = tx.get(&list, 0)?.map_or(0, |_| 1);
            tx.push(&list, 50)?;
            // "What I have pushed stands at position 1, and it is the last."
            assert_eq!(*tx.get(&list, position + runs - 1)?.unwrap(), 50);
            assert!(tx.get(&list, position + runs)?.is_none());
            if runs == 1 {
                std::thread::scope(|other| other.spawn(|| list.push(2)).join().unwrap())?;
            }
            Ok(position + runs - 1)
        })
        .unwrap();
    assert_eq!(*list.get(position).unwrap().unwrap(), 50);
    assert!(list.get(position + 1).unwrap().is_none());
}

#[test]
fn positions_beyond_everything_are_not_the_end() {
    let manager = Manager::in_process().unwrap();
    let list = manager.list([1u64, 2]).unwrap();
    assert!(list.remove(usize::MAX).unwrap().is_none());
    assert!(list.insert(usize::MAX, 3).is_err());
    assert!(manager.batch(|batch| batch.insert_at(&list, usize::MAX, 3)).is_err());
    manager.batch(|batch| batch.remove_at(&list, usize::MAX)).unwrap();
    assert_eq!(list.to_owned().unwrap(), [1, 2]);
}

#[test]
fn truncating_what_others_shorten_is_no_error() {
    let manager = Manager::in_process().unwrap();
    let list = manager.list([1u64]).unwrap();
    let other = list.clone();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let shortener = std::thread::spawn(move || {
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            other.extend(0..4).unwrap();
            other.clear().unwrap();
        }
    });
    let failed = (0..3_000).find_map(|_| list.truncate(2).err());
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    shortener.join().unwrap();
    assert!(failed.is_none(), "{failed:?}");
}

#[test]
fn a_forked_child_lets_go_of_everything_and_ends() {
    unsafe extern "C" {
        fn fork() -> i32;
        fn _exit(code: i32) -> !;
        fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
    }
    let manager = Manager::in_process().unwrap();
    let dict: Dict<u64, u64> = manager.dict([(1, 1)]).unwrap();
    // SAFETY: the child drops two handles and leaves.
    let child = unsafe { fork() };
    if child == 0 {
        drop(dict);
        drop(manager);
        // SAFETY: ends the child.
        unsafe { _exit(42) };
    }
    let status = ends(move || {
        let mut status = 0;
        // SAFETY: waits for the child just made.
        assert_eq!(unsafe { waitpid(child, &raw mut status, 0) }, child);
        status
    });
    assert_eq!(status >> 8, 42);
    assert_eq!(*dict.get(1).unwrap().unwrap(), 1);
}

/// A value whose own code panics in the middle of being sent.
struct Panicking(Cell<u32>);

impl AsShared<Vec<u8>> for Panicking {
    type Back = ();

    fn back(self) {}

    fn write(&self, ser: &mut Ser) -> Result<(), Fault> {
        self.0.set(self.0.get() + 1);
        assert!(self.0.get() < 3, "the third look, when it is sent");
        AsShared::<Vec<u8>>::write(&vec![7; 200_000], ser)
    }
}

#[test]
fn a_value_that_panics_while_it_is_sent_leaves_no_half_message() {
    let manager = over_the_socket();
    let blob = manager.dict::<u64, Vec<u8>>([(0, vec![])]).unwrap();
    let done = ends(move || {
        let send = || blob.insert(1, Panicking(Cell::new(0))).map(|_| ());
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(send)).is_err());
        blob.insert(2, vec![1]).map(|_| ())
    });
    let error = done.unwrap_err();
    assert!(error.is_disconnected(), "{error:?}");
}

#[test]
fn a_value_that_panics_while_it_is_written_into_a_lane_costs_its_call_alone() {
    let manager = Manager::in_process().unwrap();
    let blob = manager.dict::<u64, Vec<u8>>([(0, vec![])]).unwrap();
    ends(move || {
        // It panics at its first look, then at its second, and last not at all, if a lane needs fewer than three.
        for looks_before in (0..3).rev() {
            let send = || blob.insert(1, Panicking(Cell::new(looks_before))).map(|_| ());
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(send));
            blob.insert(2, vec![1; 300_000]).unwrap();
            assert_eq!(blob.get(2).unwrap().unwrap().len(), 300_000);
        }
        assert!(blob.get(0).unwrap().unwrap().is_empty());
        manager.audit().unwrap();
    });
}

/// A value whose own code uses the library, each time that it is looked at.
struct Calling<'a> {
    manager: &'a Manager,
    dict: &'a Dict<u64, Vec<u8>>,
    refused: &'a Cell<u32>,
}

impl AsShared<Vec<u8>> for Calling<'_> {
    type Back = ();

    fn back(self) {}

    fn write(&self, ser: &mut Ser) -> Result<(), Fault> {
        assert_eq!(self.dict.len().unwrap(), 1, "reading is no call");
        let calls = [
            self.dict.insert(2, vec![2]).map(drop),
            self.dict.insert(3, vec![3; 100_000]).map(drop),
            self.manager.dict::<u64, u64>([]).map(drop),
        ];
        for refused in calls.into_iter().filter_map(Result::err) {
            assert_eq!(refused.kind(), ErrorKind::Refused);
            assert!(refused.to_string().contains("from within the code that writes a value"), "{refused}");
            self.refused.set(self.refused.get() + 1);
        }
        // What the passes before the sending one have stored; refused in that one, too.
        let _ = (self.dict.remove(2), self.dict.remove(3));
        AsShared::<Vec<u8>>::write(&vec![7; 200_000], ser)
    }
}

#[test]
fn a_value_that_calls_the_manager_while_it_is_sent_hears_that_it_must_not() {
    let manager = over_the_socket();
    let dict = manager.dict::<u64, Vec<u8>>([(0, vec![])]).unwrap();
    ends(move || {
        let refused = Cell::new(0);
        let held = manager.stats().unwrap().objects;
        dict.insert(1, Calling { manager: &manager, dict: &dict, refused: &refused }).unwrap();
        assert_eq!(refused.get(), 3, "once for each call, of the pass that sends");
        assert_eq!(dict.get(1).unwrap().unwrap().len(), 200_000);
        dict.insert(4, vec![4]).unwrap();
        assert_eq!(manager.stats().unwrap().objects, held);
    });
}

#[test]
fn a_value_that_calls_the_manager_while_it_is_written_into_a_lane_does_not_hang() {
    let manager = Manager::in_process().unwrap();
    let dict = manager.dict::<u64, Vec<u8>>([(0, vec![])]).unwrap();
    ends(move || {
        // Its calls may be done or refused: what counts is that they end, and that the value arrives.
        dict.insert(1, Calling { manager: &manager, dict: &dict, refused: &Cell::new(0) }).unwrap();
        assert_eq!(dict.get(1).unwrap().unwrap().len(), 200_000);
        dict.insert(4, vec![4]).unwrap();
        manager.audit().unwrap();
    });
}

#[test]
fn a_value_that_panics_when_parts_of_it_are_sent_leaves_none_of_them() {
    let manager = Manager::in_process().unwrap();
    let blob = manager.dict::<u64, Vec<u8>>([(0, vec![])]).unwrap();
    ends(move || {
        let held = manager.stats().unwrap().live_bytes;
        // First in the pass that counts, then in the one that sends.
        for last in [1, 2] {
            let passes = Cell::new(0);
            let value = Afterwards(|| {
                passes.set(passes.get() + 1);
                assert!(passes.get() < last, "enough");
            });
            let send = || blob.insert(1, value).map(|_| ());
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(send)).is_err());
            support::until("what was sent is gone", || manager.stats().unwrap().live_bytes == held);
            let calls = manager.stats().unwrap().lane_calls;
            blob.insert(2, vec![1; 300_000]).unwrap();
            assert_eq!(manager.stats().unwrap().lane_calls, calls + 4, "three parts and a commit, by the same lane");
            assert_eq!(blob.get(2).unwrap().unwrap().len(), 300_000);
            drop(blob.remove(2).unwrap());
            manager.audit().unwrap();
        }
    });
}

#[test]
fn a_value_that_calls_the_manager_in_the_middle_of_its_own_frame_is_told_so() {
    let manager = over_the_socket();
    let dict = manager.dict::<u64, Vec<u8>>([(0, vec![])]).unwrap();
    ends(move || {
        let refused = RefCell::new(Vec::new());
        dict.insert(1, Afterwards(|| refused.borrow_mut().extend(manager.names().err()))).unwrap();
        let refused = refused.into_inner();
        assert_eq!(refused.len(), 1, "once it is only counted, and once sent");
        assert_eq!(refused[0].kind(), ErrorKind::Refused);
        let told = "a call to the manager from within the code that writes a value, while that value is on its way over the same connection: \
                    nothing was done; make such calls before or after (reading is no call)";
        assert_eq!(refused[0].to_string(), told);
        assert!(dict.get(1).unwrap().unwrap()[..] == [7; 400_000]);
        manager.audit().unwrap();
    });
}

/// Where another thread waits for that value's end, with a right that this one wants as well.
#[test]
fn a_value_that_opens_a_lock_in_the_middle_of_its_own_frame_is_told_so() {
    let manager = over_the_socket();
    let dict = manager.dict::<u64, Vec<u8>>([(0, vec![])]).unwrap();
    let [mine, others] = [(); 2].map(|()| manager.lock().unwrap());
    ends(move || {
        let looks = Cell::new(0);
        let refused = RefCell::new(None);
        let (sender, other) = mpsc::channel();
        std::thread::scope(|scope| {
            let value = Afterwards(|| {
                looks.set(looks.get() + 1);
                // First it is only counted.
                if looks.get() == 2 {
                    scope.spawn(|| {
                        sender.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
                        drop(others.lock().unwrap());
                    });
                    let other = other.recv().unwrap();
                    support::until("the other waits for its turn", || support::sleeps_in(std::process::id(), other).is_some());
                    refused.replace(mine.lock().err());
                }
            });
            dict.insert(1, value).unwrap();
        });
        assert_eq!(looks.get(), 2);
        let refused = refused.into_inner().expect("an error");
        assert!(refused.to_string().starts_with("a call to the manager from within the code that writes a value"), "{refused}");
        assert!(!mine.lock().unwrap().owner_died());
        manager.audit().unwrap();
    });
}

#[test]
fn a_value_that_grows_while_parts_of_it_are_sent_is_refused_and_leaves_none_of_them() {
    let manager = Manager::in_process().unwrap();
    let blob = manager.dict::<u64, Vec<u8>>([(0, vec![])]).unwrap();
    ends(move || {
        let held = manager.stats().unwrap().live_bytes;
        let error = blob.insert(1, Growing(Cell::new(400_000))).unwrap_err();
        let told = "a value changed while it was sent: it had 400208 bytes first and 400308 then; nothing may write to it meanwhile";
        assert_eq!(error.to_string(), told);
        support::until("what was sent is gone", || manager.stats().unwrap().live_bytes == held);
        blob.insert(1, vec![1; 300_000]).unwrap();
        manager.audit().unwrap();
    });
}

#[test]
fn a_value_that_calls_the_manager_when_parts_of_it_are_sent_does_not_hang() {
    let manager = Manager::in_process().unwrap();
    let dict = manager.dict::<u64, Vec<u8>>([(0, vec![])]).unwrap();
    ends(move || {
        let value = Afterwards(|| {
            dict.insert(2, vec![2]).unwrap();
            dict.insert(3, vec![3; 500_000]).unwrap();
            drop(manager.dict::<u64, u64>([]).unwrap());
        });
        dict.insert(1, value).unwrap();
        assert!(dict.get(1).unwrap().unwrap()[..] == [7; 400_000] && dict.get(3).unwrap().unwrap()[..] == [3; 500_000]);
        assert_eq!(dict.len().unwrap(), 4);
        manager.audit().unwrap();
    });
}

/// A value in whose own code the last handle on an object is dropped, at the third look, when it is sent.
struct Dropping<'a> {
    handle: RefCell<Option<Dict<u64, u64>>>,
    looks: &'a Cell<u32>,
}

impl AsShared<Vec<u8>> for Dropping<'_> {
    type Back = ();

    fn back(self) {}

    fn write(&self, ser: &mut Ser) -> Result<(), Fault> {
        self.looks.set(self.looks.get() + 1);
        if self.looks.get() == 3 {
            drop(self.handle.take());
        }
        AsShared::<Vec<u8>>::write(&vec![7; 200_000], ser)
    }
}

#[test]
fn a_handle_that_is_dropped_while_a_value_is_sent_is_let_go_afterwards() {
    let manager = over_the_socket();
    let dict = manager.dict::<u64, Vec<u8>>([(0, vec![])]).unwrap();
    ends(move || {
        let before = manager.stats().unwrap().objects;
        let looks = Cell::new(0);
        let handle = RefCell::new(Some(manager.dict::<u64, u64>([]).unwrap()));
        dict.insert(1, Dropping { handle, looks: &looks }).unwrap();
        assert_eq!(looks.get(), 3);
        support::until("the object is gone", || manager.stats().unwrap().objects == before);
    });
}

#[test]
fn a_transaction_that_reads_a_key_again_and_again_says_so_once() {
    let manager = Manager::in_process().unwrap();
    let key = "key ".repeat(1 << 17);
    let dict = manager.dict([(key.clone(), 1u64)]).unwrap();
    manager
        .transaction(|tx| {
            // 200 conditions with this key would be more than any request may have.
            for _ in 0..200 {
                assert_eq!(*tx.get(&dict, &key)?.unwrap(), 1);
            }
            tx.insert(&dict, "other", 2)
        })
        .unwrap();
    assert_eq!(*dict.get("other").unwrap().unwrap(), 2);
}

#[test]
fn a_program_whose_connection_broke_can_connect_again() {
    let manager = Manager::start().unwrap();
    let dict = manager.dict([(1u64, 1u64)]).unwrap();
    let token = dict.token().unwrap();
    let address = manager.address();
    let channel = Channel::connect(address, Instant::now() + Duration::from_secs(5)).unwrap();
    let second = commonhold::Session::greet(channel, address.clone(), None).unwrap();
    let blob = second.dict::<u64, Vec<u8>>([(0, vec![])]).unwrap();
    assert!(blob.insert(1, Growing(Cell::new(200_000))).is_err());
    let third = Manager::connect(&address.to_string()).unwrap();
    let same: Dict<u64, u64> = third.attach(&token).unwrap();
    same.insert(1, 2).unwrap();
    assert_eq!(*dict.get(1).unwrap().unwrap(), 2);
    let again: Dict<u64, u64> = token.open().unwrap();
    again.insert(1, 3).unwrap();
}

#[test]
fn what_was_cleared_makes_room_at_once() {
    let manager = Manager::builder().capacity(24 << 20).start().unwrap();
    let dict = manager.dict::<u64, Vec<u8>>([(0, vec![])]).unwrap();
    for round in 0..4u64 {
        let small = vec![round as u8; 100];
        for part in 0..12u64 {
            dict.extend((0..5_000).map(|i| (part * 5_000 + i, &small)))
                .unwrap_or_else(|error| panic!("round {round}, part {part}: {error}"));
        }
        dict.clear().unwrap();
        let large = vec![round as u8; 12 << 20];
        dict.insert(0, &large).unwrap_or_else(|error| panic!("round {round}: {error}"));
        dict.clear().unwrap();
    }
}

#[test]
fn a_manager_that_is_killed_is_missed_though_its_forked_child_has_its_sockets() {
    const ROLE: &str = "COMMONHOLD_TEST_HOST";
    unsafe extern "C" {
        fn fork() -> i32;
        fn pause() -> i32;
        fn kill(pid: i32, signal: i32) -> i32;
    }
    if std::env::var_os(ROLE).is_some() {
        // The host: a manager of its own process, and a child that is forked while a client is connected.
        let manager = Manager::in_process().unwrap();
        let dict = manager.dict([(1u64, 1u64)]).unwrap();
        manager.publish("dict", &dict).unwrap();
        println!("\nhost {}", manager.address());
        while manager.stats().unwrap().sessions < 2 {
            std::thread::yield_now();
        }
        // SAFETY: the child only waits to be killed.
        let child = unsafe { fork() };
        if child == 0 {
            loop {
                // SAFETY: sleeps.
                unsafe { pause() };
            }
        }
        println!("\nchild {child}");
        loop {
            std::thread::park();
        }
    }
    use std::io::BufRead;
    let name = "a_manager_that_is_killed_is_missed_though_its_forked_child_has_its_sockets";
    let mut host = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(ROLE, "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(host.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut word = |word: &str| lines.find_map(|line| line.strip_prefix(word).map(|rest| rest.trim().to_owned())).unwrap();
    let manager = Manager::connect(&word("host")).unwrap();
    let dict: Dict<u64, u64> = manager.open("dict").unwrap();
    let child: i32 = word("child").parse().unwrap();
    // Stopped, so that the call is surely under way when it dies.
    // SAFETY: SIGSTOP is 19.
    unsafe { kill(host.id() as i32, 19) };
    // A signal takes its time to reach all threads.
    until_all_tasks(&format!("/proc/{}/task", host.id()), |state| state == 'T');
    let before = tasks("/proc/self/task");
    let caller = std::thread::spawn(move || dict.insert(1, 2).map(|_| ()).unwrap_err());
    // Its thread is there and sleeps: so it waits for its reply.
    while !tasks("/proc/self/task").iter().any(|(task, state)| *state == 'S' && !before.iter().any(|(other, _)| other == task)) {
        assert!(!caller.is_finished(), "the call ended though its manager is stopped");
        std::thread::yield_now();
    }
    host.kill().unwrap();
    host.wait().unwrap();
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || done.send(caller.join().unwrap()));
    let error = ended.recv_timeout(Duration::from_secs(10));
    // SAFETY: ends the child that the host has forked.
    unsafe { kill(child, 9) };
    let error = error.expect("the caller waits for ever");
    assert!(error.is_disconnected() || error.is_outcome_unknown(), "{error}");
}

/// The threads of a process, and what state each is in.
fn tasks(directory: &str) -> Vec<(String, char)> {
    let state = |task: &std::path::Path| {
        let stat = std::fs::read_to_string(task.join("stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    };
    let entries = std::fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path());
    entries.filter_map(|task| Some((task.file_name()?.to_str()?.to_owned(), state(&task)?))).collect()
}

fn until_all_tasks(directory: &str, is: impl Fn(char) -> bool) {
    while !tasks(directory).iter().all(|(_, state)| is(*state)) {
        std::thread::yield_now();
    }
}

#[test]
fn more_threads_than_lanes_read_what_they_are_lent() {
    let manager = Manager::start().unwrap();
    let dict = manager.dict([(0u64, "0".repeat(300))]).unwrap();
    let ready = std::sync::Arc::new(std::sync::Barrier::new(560));
    let threads: Vec<_> = (0..560u64)
        .map(|thread| {
            let (dict, ready, manager) = (dict.clone(), ready.clone(), manager.clone());
            let work = move || {
                dict.len().unwrap();
                ready.wait();
                for round in 0..10 {
                    let text = char::from(b'a' + ((thread + round) % 26) as u8).to_string().repeat(300);
                    if let Some(old) = dict.insert(thread % 7, &text).unwrap() {
                        let first = old.as_bytes()[0];
                        assert!(old.len() == 300 && old.bytes().all(|byte| byte == first));
                        drop(manager.counter(1).unwrap());
                        assert!(old.bytes().all(|byte| byte == first));
                    }
                }
            };
            std::thread::Builder::new().stack_size(256 << 10).spawn(work).unwrap()
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    manager.audit().unwrap();
    assert_eq!(manager.stats().unwrap().oldest_pin, None);
}

#[test]
fn large_values_with_handles_are_copied_while_others_bind_handles() {
    let manager = Manager::in_process().unwrap();
    let list = manager.list([1u64]).unwrap();
    let dict = manager.dict([(0u64, ("long ".repeat(40_000), list.clone()))]).unwrap();
    let counter = manager.counter(1).unwrap();
    manager.publish("counter", &counter).unwrap();
    let token = counter.token().unwrap();
    drop(counter);
    let copier = move || {
        for key in 1..800u64 {
            let value = dict.get(0).unwrap().unwrap();
            dict.insert(key % 3 + 1, &value).unwrap();
        }
    };
    let binder = move || {
        for _ in 0..6_000 {
            let counter: commonhold::Counter = token.open().unwrap();
            counter.get().unwrap();
        }
    };
    ends(move || {
        let threads = [std::thread::spawn(copier), std::thread::spawn(binder)];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    manager.audit().unwrap();
    drop(list);
}

/// A value in whose own code, at one of its looks, the process forks. Both go on.
struct Forking<'c> {
    looks: Cell<u32>,
    at: u32,
    child: &'c Cell<Option<i32>>,
}

impl AsShared<Vec<u8>> for Forking<'_> {
    type Back = ();

    fn back(self) {}

    fn write(&self, ser: &mut Ser) -> Result<(), Fault> {
        self.looks.set(self.looks.get() + 1);
        if self.looks.get() == self.at {
            // SAFETY: the child runs nothing but this call, and leaves by `_exit`.
            self.child.set(Some(unsafe { libc::fork() }));
        }
        AsShared::<Vec<u8>>::write(&vec![7u8; 3 << 20], ser)
    }
}

#[test]
fn a_child_forked_while_a_value_is_written_does_its_parent_no_harm() {
    for lanes in [false, true] {
        let manager = Manager::builder().lanes(lanes).start().unwrap();
        let dict: Dict<u64, Vec<u8>> = manager.dict([(0u64, vec![])]).unwrap();
        let mut forked = 0;
        for at in 1..=3 {
            let child = Cell::new(None);
            let done = dict.insert(1, Forking { looks: Cell::new(0), at, child: &child }).map(drop);
            let Some(child) = child.get() else { continue };
            if child == 0 {
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(if done.is_err() { 0 } else { 1 }) }
            }
            let mut status = 0;
            // SAFETY: waits for a child of ours, into a variable of ours.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0, "the child's call (lanes: {lanes}, look {at})");
            done.unwrap();
            assert!(dict.get(1).unwrap().unwrap()[..] == [7; 3 << 20]);
            forked += 1;
        }
        assert!(forked > 1, "{forked}");
        dict.insert(2, vec![1]).unwrap();
        manager.audit().unwrap();
    }
}
