//! A process is killed or stopped at each of its counted points: what it said is there, what is half done is told, and nobody waits, but for
//! a lock that a stopped one has.

use crate::fates::stops;
use crate::players::{Part, Talk, World, line};
use crate::support::until;
use commonhold::{Array, SharedBytes, StripedCounter};
use commonhold_ipc::points::CLIENT_VARIABLE;
use std::time::Duration;

pub const PARTS: &[(&str, Part)] = &[("change", |talk| change(talk, true)), ("change in silence", |talk| change(talk, false))];

const ROUNDS: u64 = 3;

/// Changes everything, one after the other, and says what is done, or only that all is.
fn change(talk: &mut Talk, aloud: bool) {
    let say = |talk: &mut Talk, what| aloud.then(|| talk.say(what));
    let (array, records, small): (Array<u64>, Array<[u64; 3]>, Array<u16>) = (talk.hear_handle(), talk.hear_handle(), talk.hear_handle());
    let (block, counter): (SharedBytes, StripedCounter) = (talk.hear_handle(), talk.hear_handle());
    for round in 1..=ROUNDS {
        array.fetch_add(0, 1).unwrap();
        say(talk, "added");
        let exchanged = array.get(1).unwrap();
        array.compare_exchange(1, exchanged, exchanged + 1).unwrap().unwrap();
        array.fetch_update(2, |now| Some(now + 1)).unwrap().unwrap();
        counter.add(1).unwrap();
        say(talk, "counted");
        records.with_lock(|_| records.set(0, [round; 3])).unwrap();
        small.with_lock(|_| small.write_from(1, &[round as u16; 14])).unwrap();
        block.with_lock(|_| block.write_at(3, &[round as u8; 21])).unwrap();
    }
    talk.say("done");
}

#[test]
fn whoever_is_killed_loses_nothing_that_was_done() {
    let world = World::of_processes();
    for point in 1.. {
        let manager = &world.manager;
        let (array, records) = (manager.array([0u64; 3]).unwrap(), manager.array([[0u64; 3]]).unwrap());
        let (small, block, counter) =
            (manager.array([9u16; 16]).unwrap(), manager.shared_bytes(32).unwrap(), manager.striped_counter(0).unwrap());
        let handles = [line(&array), line(&records), line(&small), line(&block), line(&counter)];
        let mut player = world.doomed_player("change", &handles, CLIENT_VARIABLE, point);
        let (mut added, mut counted) = (0, 0);
        while let Some(said) = player.hear() {
            match said.as_str() {
                "added" => added += 1,
                "counted" => counted += 1,
                _ => break,
            }
        }
        let killed = player.was_killed();
        until("the session of the dead is over", || world.sessions() == 1);
        // What it had said; and one more, if it was killed behind the instruction.
        let more = |now: u64, said: u64| now == said || (killed && now == said + 1);
        assert!(more(array.get(0).unwrap(), added) && more(counter.get().unwrap() as u64, counted), "point {point}");
        let all = array.to_vec().unwrap();
        assert!(
            all[0] >= all[1] && all[1] >= all[2] && all[2] >= counted && all[0] - counted <= 1,
            "one after the other: {all:?}, {counted}"
        );
        let (died, record) = {
            let held = records.lock_timeout(Duration::from_secs(20)).unwrap().expect("it is not kept by the dead");
            (held.owner_died(), records.get(0).unwrap())
        };
        assert!(died || (record[0] == record[1] && record[1] == record[2]), "half a record, and nobody is told: {record:?}");
        assert!(!records.lock().unwrap().owner_died(), "it is told once");
        let (died, run) = {
            let held = small.lock_timeout(Duration::from_secs(20)).unwrap().expect("it is not kept by the dead");
            (held.owner_died(), small.to_vec().unwrap())
        };
        assert!((run[0], run[15]) == (9, 9), "beside what was written: {run:?}");
        assert!(died || run[1..15].iter().all(|element| *element == run[1]), "half a run, and nobody is told: {run:?}");
        let (died, bytes) = {
            let held = block.lock_timeout(Duration::from_secs(20)).unwrap().expect("it is not kept by the dead");
            (held.owner_died(), block.read(3..24).unwrap())
        };
        assert!(died || bytes.iter().all(|byte| *byte == bytes[0]), "half a copy, and nobody is told: {bytes:?}");
        manager.audit().unwrap();
        if !killed {
            println!("{} deaths", point - 1);
            assert_eq!((added, counted, record, bytes[0], run[1]), (ROUNDS, ROUNDS, [ROUNDS; 3], ROUNDS as u8, ROUNDS as u16));
            assert!(point > 30, "only {point} points");
            return;
        }
    }
}

#[test]
fn whoever_is_stopped_keeps_only_those_who_want_its_lock() {
    let world = World::of_processes();
    let manager = &world.manager;
    let (array, records, small) =
        (manager.array([0u64; 3]).unwrap(), manager.array([[0u64; 3]]).unwrap(), manager.array([9u16; 16]).unwrap());
    let (block, counter) = (manager.shared_bytes(32).unwrap(), manager.striped_counter(0).unwrap());
    let handles = [line(&array), line(&records), line(&small), line(&block), line(&counter)];
    let added = std::cell::Cell::new(0);
    let stops = stops(&world, "change in silence", &handles, || {
        array.fetch_add(0, 1).unwrap();
        counter.add(1).unwrap();
        added.set(added.get() + 1);
        records.get(0).unwrap();
        small.to_vec().unwrap();
        block.read(0..32).unwrap();
        for lock in [records.try_lock().unwrap(), small.try_lock().unwrap(), block.try_lock().unwrap()].into_iter().flatten() {
            assert!(!lock.owner_died(), "nobody has died");
        }
    });
    assert!(stops > 30, "{stops}");
    // Each played to its end, the last one without a stop.
    let sum = added.get() + (stops + 1) * ROUNDS;
    assert_eq!((array.get(0).unwrap(), counter.get().unwrap() as u64), (sum, sum));
    assert_eq!((records.get(0).unwrap(), small.to_vec().unwrap()[1..15].to_vec()), ([ROUNDS; 3], vec![ROUNDS as u16; 14]));
}
