//! Who is let into an object: one at a time, or several that only look. And who waits for whom, so that nobody waits for himself.
//!
//! A *chain* is a call with all calls that its methods make. When a chain would wait for an object, the host looks who is in there,
//! what they in turn wait for, and so on: if that leads back to the chain, the call fails with `Deadlock` instead of waiting. Chains
//! enter the list of who waits, and leave it, under one lock; so the last one of a circle to wait sees the whole of it.

use crate::unpoisoned::lock;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Who is in an object.
#[derive(Default)]
struct Inside {
    /// Alone.
    alone: Option<u64>,
    /// Together with others.
    together: Vec<u64>,
    sleeping: usize,
}

impl Inside {
    fn admits(&self, alone: bool) -> bool {
        self.alone.is_none() && (!alone || self.together.is_empty())
    }

    fn admit(&mut self, chain: u64, alone: bool) {
        if alone {
            self.alone = Some(chain);
        } else {
            self.together.push(chain);
        }
    }
}

/// The door of an object.
#[derive(Default)]
pub struct Door {
    inside: Mutex<Inside>,
    left: Condvar,
}

/// Which chain waits at which doors: at several if it has made calls ahead.
type Waiting = HashMap<u64, Vec<Arc<Door>>>;

/// The same, for all to see.
#[derive(Default)]
pub struct Waits(Mutex<Waiting>);

impl Waits {
    /// A call of a chain waits behind other calls for whoever is in there. It says so, and later when it is over.
    ///
    /// # Errors
    /// `Deadlock` if those wait for the chain.
    pub fn wait_behind(&self, chain: u64, door: &Arc<Door>) -> Result<()> {
        let mut waiting = lock(&self.0);
        // What the chain itself has called ahead, and is in there, does not wait for what comes later.
        let others = door.inside().into_iter().filter(|other| *other != chain).collect();
        if lead_back(&waiting, others, chain) {
            return Err(circle());
        }
        waiting.entry(chain).or_default().push(door.clone());
        Ok(())
    }

    /// It waits there no more.
    pub fn wait_no_more(&self, chain: u64, door: &Arc<Door>) {
        remove(&mut lock(&self.0), chain, door);
    }
}

fn remove(waiting: &mut Waiting, chain: u64, door: &Arc<Door>) {
    let Some(doors) = waiting.get_mut(&chain) else { return };
    if let Some(at) = doors.iter().position(|other| Arc::ptr_eq(other, door)) {
        doors.swap_remove(at);
    }
    if doors.is_empty() {
        waiting.remove(&chain);
    }
}

/// A call's place at a door, where it waits, and can be called off.
pub struct Place {
    door: Arc<Door>,
    is_off: AtomicBool,
}

impl Place {
    /// At this door.
    pub fn at(door: &Arc<Door>) -> Self {
        Place { door: door.clone(), is_off: AtomicBool::new(false) }
    }

    /// It is to wait no more.
    pub fn call_off(&self) {
        // Under the lock: who has looked sleeps by then.
        let inside = lock(&self.door.inside);
        self.is_off.store(true, Ordering::Relaxed);
        if inside.sleeping > 0 {
            drop(inside);
            self.door.left.notify_all();
        }
    }
}

/// Somebody is in an object until this is dropped.
pub struct Turn<'d> {
    door: &'d Door,
    chain: u64,
    alone: bool,
    /// Whether it had to be waited for.
    pub waited: bool,
}

impl Door {
    /// Enters, if nobody is in the way.
    pub fn try_enter(&self, chain: u64, alone: bool) -> Option<Turn<'_>> {
        let mut inside = lock(&self.inside);
        inside.admits(alone).then(|| inside.admit(chain, alone))?;
        Some(Turn { door: self, chain, alone, waited: false })
    }

    /// Enters, when it is this chain's turn.
    pub fn enter<'d>(self: &'d Arc<Self>, waits: &Waits, chain: u64, alone: bool) -> Result<Turn<'d>> {
        self.try_enter(chain, alone).map_or_else(|| self.wait(waits, chain, alone, &Place::at(self)), Ok)
    }

    /// The same for a call that was not let in at once, which waits at this place.
    ///
    /// # Errors
    /// `Cancelled` if it is called off; `Deadlock` if those inside wait for its chain.
    pub fn wait<'d>(self: &'d Arc<Self>, waits: &Waits, chain: u64, alone: bool, place: &Place) -> Result<Turn<'d>> {
        let mut is_known = false;
        loop {
            let mut waiting = lock(&waits.0);
            let mut inside = lock(&self.inside);
            if place.is_off.load(Ordering::Relaxed) {
                drop(inside);
                if is_known {
                    remove(&mut waiting, chain, self);
                }
                return Err(called_off());
            }
            if inside.admits(alone) {
                inside.admit(chain, alone);
                drop(inside);
                if is_known {
                    remove(&mut waiting, chain, self);
                }
                return Ok(Turn { door: self, chain, alone, waited: true });
            }
            if !is_known {
                drop(inside);
                if lead_back(&waiting, self.inside(), chain) {
                    return Err(circle());
                }
                waiting.entry(chain).or_default().push(self.clone());
                is_known = true;
                // Who has left meanwhile is seen in the next round.
                continue;
            }
            drop(waiting);
            inside.sleeping += 1;
            let mut inside = self.left.wait(inside).unwrap_or_else(PoisonError::into_inner);
            inside.sleeping -= 1;
        }
    }

    fn inside(&self) -> Vec<u64> {
        let inside = lock(&self.inside);
        inside.alone.iter().chain(&inside.together).copied().collect()
    }
}

/// Whether any of these chains waits, by way of whomever, for this one.
fn lead_back(waiting: &Waiting, mut next: Vec<u64>, chain: u64) -> bool {
    let mut seen = HashSet::new();
    while let Some(other) = next.pop() {
        if other == chain {
            return true;
        }
        if seen.insert(other) {
            waiting.get(&other).into_iter().flatten().for_each(|door| next.extend(door.inside()));
        }
    }
    false
}

/// The error of a call that did not begin.
pub fn called_off() -> Error {
    Error::new(ErrorKind::Cancelled, "the call was called off before its method began: it was not run")
}

/// The error of a call that would wait for itself.
pub fn circle() -> Error {
    let text = "this call would wait for itself: it goes, maybe by way of others, to an object in which a method of the same chain of \
                calls still runs. Let the method return first, or make the call one-way";
    Error::new(ErrorKind::Deadlock, text)
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut inside = lock(&self.door.inside);
        if self.alone {
            inside.alone = None;
        } else if let Some(at) = inside.together.iter().position(|chain| *chain == self.chain) {
            inside.together.swap_remove(at);
        }
        // Who wants in together with others may come with others; who wants in alone may find that he must sleep again.
        if inside.sleeping > 0 {
            drop(inside);
            self.door.left.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn one_is_alone_and_several_are_together() {
        let (door, waits) = (Arc::new(Door::default()), Waits::default());
        let one = door.enter(&waits, 1, false).unwrap();
        let two = door.enter(&waits, 2, false).unwrap();
        let (sender, entered) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let turn = door.enter(&waits, 3, true).unwrap();
                sender.send(turn.waited).unwrap();
            });
            while lock(&door.inside).sleeping == 0 {
                std::thread::yield_now();
            }
            drop(one);
            assert!(entered.try_recv().is_err());
            drop(two);
            assert!(entered.recv().unwrap());
        });
        assert!(lock(&waits.0).is_empty());
    }

    #[test]
    fn who_is_called_off_at_a_door_waits_no_more_and_keeps_nobody_out() {
        let (door, waits) = (Arc::new(Door::default()), Waits::default());
        // Before it waits, too.
        let inside = door.enter(&waits, 1, true).unwrap();
        let place = Place::at(&door);
        place.call_off();
        assert_eq!(door.wait(&waits, 2, true, &place).err().unwrap().kind(), ErrorKind::Cancelled);
        let places = [Place::at(&door), Place::at(&door)];
        std::thread::scope(|scope| {
            let waiting = [&places[0], &places[1]].map(|place| scope.spawn(|| door.wait(&waits, 2, true, place).map(|turn| turn.waited)));
            while lock(&door.inside).sleeping < 2 {
                std::thread::yield_now();
            }
            let [first, second] = waiting;
            places[0].call_off();
            assert_eq!(first.join().unwrap().err().unwrap().kind(), ErrorKind::Cancelled);
            // The other one of its chain still waits, and is known to.
            assert_eq!(lock(&waits.0)[&2].len(), 1);
            drop(inside);
            assert!(second.join().unwrap().unwrap());
        });
        assert!(lock(&waits.0).is_empty() && door.try_enter(3, true).is_some());
    }

    #[test]
    fn who_waits_for_himself_is_told() {
        let (door, waits) = (Arc::new(Door::default()), Waits::default());
        let _turn = door.enter(&waits, 1, true).unwrap();
        assert_eq!(door.enter(&waits, 1, false).err().unwrap().kind(), ErrorKind::Deadlock);
    }

    #[test]
    fn the_last_of_a_circle_is_told_and_the_others_go_on() {
        let doors: [Arc<Door>; 3] = Default::default();
        let waits = Waits::default();
        let turns: Vec<_> = (0..3).map(|n| doors[n].enter(&waits, n as u64 + 1, true).unwrap()).collect();
        let (sender, results) = channel();
        std::thread::scope(|scope| {
            for (n, turn) in turns.into_iter().enumerate() {
                let (sender, doors, waits) = (sender.clone(), &doors, &waits);
                scope.spawn(move || {
                    let next = doors[(n + 1) % 3].enter(waits, n as u64 + 1, true).map(drop);
                    sender.send(next.map_err(|error| error.kind())).unwrap();
                    drop(turn);
                });
            }
        });
        let results: Vec<_> = results.try_iter().collect();
        assert_eq!(results.iter().filter(|result| **result == Err(ErrorKind::Deadlock)).count(), 1, "{results:?}");
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 2, "{results:?}");
    }
}
