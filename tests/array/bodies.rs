//! What arrays, blocks and counters do, whoever uses them.

use crate::players::{Part, Player, Talk, World, line};
use crate::support::{process_of, until};
use commonhold::{Array, SharedBytes, StripedCounter};

pub const PARTS: &[(&str, Part)] =
    &[("add", add), ("claim", claim), ("swap_pairs", swap_pairs), ("draw", draw), ("count", count), ("wait", wait)];

const ROUNDS: u64 = 2000;

/// Adds to every element, in each way.
fn add(talk: &mut Talk) {
    let (whole, halves, bytes): (Array<u64>, Array<f64>, Array<u8>) = (talk.hear_handle(), talk.hear_handle(), talk.hear_handle());
    for round in 0..ROUNDS {
        let at = (round % 3) as usize;
        whole.fetch_add(at, round).unwrap();
        halves.fetch_add(at, 0.5).unwrap();
        bytes.fetch_add(at, 1).unwrap();
    }
    talk.say("done");
}

/// Claims elements that nobody has, and says which.
fn claim(talk: &mut Talk) {
    let seats: Array<u16> = talk.hear_handle();
    let me: u16 = talk.hear().unwrap().parse().unwrap();
    for seat in 0..seats.len().unwrap() {
        if seats.compare_exchange(seat, 0, me).unwrap().is_ok() {
            talk.say(seat);
        }
    }
    talk.say("done");
}

/// Moves amounts between elements of four words, under the lock, and sees that no other sees a half of it.
fn swap_pairs(talk: &mut Talk) {
    let accounts: Array<[u64; 4]> = talk.hear_handle();
    for round in 0..ROUNDS / 4 {
        let whole = accounts.with_lock(|held| {
            assert!(!held.owner_died());
            let (mut from, mut to) = (accounts.get(0)?, accounts.get(1)?);
            let whole = from.iter().chain(&to).sum::<u64>();
            for at in 0..4 {
                let amount = from[at].min(round % 7);
                (from[at], to[3 - at]) = (from[at] - amount, to[3 - at] + amount);
            }
            accounts.set(0, to)?;
            accounts.set(1, from)?;
            Ok(whole)
        });
        assert_eq!(whole.unwrap(), 8000);
    }
    talk.say("done");
}

/// Draws lines of one byte each over a block, not aligned to anything, and reads its own ones back whole.
fn draw(talk: &mut Talk) {
    let block: SharedBytes = talk.hear_handle();
    let me: u8 = talk.hear().unwrap().parse().unwrap();
    let line = 100 + usize::from(me) * 13;
    for round in 0..ROUNDS as u8 / 4 {
        block.write_at(line, &[me ^ round; 13]).unwrap();
        assert_eq!(block.read(line..line + 13).unwrap(), [me ^ round; 13], "the neighbours write into the same words");
    }
    talk.say("done");
}

fn count(talk: &mut Talk) {
    let counter: StripedCounter = talk.hear_handle();
    let mut before = i64::MIN;
    for round in 0..ROUNDS as i64 {
        counter.add(round).unwrap();
        if round % 100 == 0 {
            let now = counter.get().unwrap();
            assert!(now >= before, "it never falls");
            before = now;
        }
    }
    talk.say("done");
}

/// Waits for the lock of an array until the end.
fn wait(talk: &mut Talk) {
    let array: Array<u64> = talk.hear_handle();
    talk.say("waits");
    let error = array.with_lock(|_| Ok(())).unwrap_err();
    talk.say(format!("disconnected: {}", error.is_disconnected()));
}

fn all_done(mut players: Vec<Player>) {
    players.iter_mut().for_each(|player| player.expect("done"));
    players.into_iter().for_each(Player::finish);
}

#[test]
fn no_change_is_lost() {
    for world in World::all() {
        let (whole, halves, bytes) =
            (world.manager.array::<u64>(3).unwrap(), world.manager.array::<f64>(3).unwrap(), world.manager.array::<u8>(3).unwrap());
        let handles = [line(&whole), line(&halves), line(&bytes)];
        all_done((0..3).map(|_| world.player("add", &handles)).collect());
        let of = |at| (0..ROUNDS).filter(move |round| round % 3 == at);
        for at in 0..3 {
            let index = at as usize;
            assert_eq!(whole.get(index).unwrap(), 3 * of(at).sum::<u64>());
            assert_eq!(halves.get(index).unwrap(), 1.5 * of(at).count() as f64);
            assert_eq!(bytes.get(index).unwrap(), (3 * of(at).count()) as u8);
        }
        world.manager.audit().unwrap();
    }
}

#[test]
fn every_element_is_claimed_once() {
    for world in World::all() {
        let seats = world.manager.array::<u16>(500).unwrap();
        let mut players: Vec<_> = (0..3).map(|_| world.player("claim", &[line(&seats)])).collect();
        players.iter_mut().zip(1u16..).for_each(|(player, me)| player.say(me));
        let mut owners = vec![0u16; 500];
        for (player, me) in players.iter_mut().zip(1..) {
            while let Some(seat) = player.hear().filter(|line| line != "done") {
                let seat: usize = seat.parse().unwrap();
                assert_eq!(std::mem::replace(&mut owners[seat], me), 0, "seat {seat} was claimed twice");
            }
        }
        assert_eq!(seats.to_vec().unwrap(), owners);
        players.into_iter().for_each(Player::finish);
    }
}

#[test]
fn who_has_the_lock_sees_elements_whole() {
    for world in World::all() {
        let accounts = world.manager.array([[1000u64; 4]; 2]).unwrap();
        all_done((0..3).map(|_| world.player("swap_pairs", &[line(&accounts)])).collect());
        assert_eq!(accounts.to_vec().unwrap().as_flattened().iter().sum::<u64>(), 8000);
        assert_eq!(accounts.lock_holder().unwrap(), None);
    }
}

#[test]
fn bytes_of_one_word_may_be_several_writers() {
    for world in World::all() {
        let block = world.manager.shared_bytes(200).unwrap();
        let mut players: Vec<_> = (0..3).map(|_| world.player("draw", &[line(&block)])).collect();
        players.iter_mut().enumerate().for_each(|(me, player)| player.say(me));
        all_done(players);
        let all = block.to_vec().unwrap();
        assert!(all[..100].iter().chain(&all[139..]).all(|byte| *byte == 0), "{all:?}");
    }
}

#[test]
fn no_addition_is_lost() {
    for world in World::all() {
        let counter = world.manager.striped_counter(-7).unwrap();
        all_done((0..3).map(|_| world.player("count", &[line(&counter)])).collect());
        assert_eq!(counter.get().unwrap(), 3 * (0..ROUNDS as i64).sum::<i64>() - 7);
        assert_eq!(counter.to_string(), counter.get().unwrap().to_string());
    }
}

#[test]
fn the_managers_death_is_an_error_at_once() {
    let world = World::of_processes();
    let (array, block) = (world.manager.array([1u64]).unwrap(), world.manager.shared_bytes(8).unwrap());
    let counter = world.manager.striped_counter(1).unwrap();
    let guard = array.lock().unwrap().into_guard();
    let mut waiter = world.player("wait", &[line(&array)]);
    waiter.expect("waits");
    process_of(&world.manager).kill();
    waiter.expect("disconnected: true");
    until("it is known here", || !world.manager.is_alive());
    let errors = [
        array.get(0).map(drop),
        array.set(0, 1),
        array.iter().map(drop),
        block.read_at(0, &mut [0]),
        counter.add(1),
        counter.get().map(drop),
    ];
    assert!(errors.into_iter().all(|result| result.unwrap_err().is_disconnected()));
    drop(guard);
    waiter.finish();
}
