//! Waking those who wait for a change. The protocol is `ipc::arena::watch_offset`'s.

use commonhold_ipc::arena::{WATCH_ARMED, WATCH_SEQUENCE, WATCH_SLOTS, watch_offset};
use commonhold_ipc::catalog::slot_of;
use commonhold_ipc::map::ArenaWriter;
use commonhold_ipc::sys::futex_wake_all;
use std::sync::atomic::Ordering;

/// Commits in a row that wake nobody, after which a word is disarmed and costs no system call any more.
const IDLE_WAKES_MAX: u8 = 64;

/// The manager's side of the watch words.
pub struct Watches {
    /// For each armed word, how many commits in a row have woken nobody.
    idle: Vec<Option<u8>>,
    armed: usize,
}

impl Default for Watches {
    fn default() -> Self {
        Watches { idle: vec![None; WATCH_SLOTS as usize], armed: 0 }
    }
}

impl Watches {
    /// Starts waking sleepers on an object's words.
    pub fn arm(&mut self, arena: &ArenaWriter, object: u64) {
        let slot = (slot_of(object) % WATCH_SLOTS) as usize;
        if self.idle[slot].replace(0).is_none() {
            self.armed += 1;
            // SYNC: Release pairs with the Acquire load of a client that is about to sleep.
            arena.atomic_half(watch_offset(object) + WATCH_ARMED).store(1, Ordering::Release);
        }
    }

    /// A commit of this version has changed these objects, and is visible.
    #[inline]
    pub fn touched(&mut self, arena: &ArenaWriter, version: u64, objects: &[u64]) {
        for &object in objects {
            let at = watch_offset(object);
            // SYNC: Release pairs with the Acquire load in `changed_since`: who sees it sees the version published.
            arena.atomic(at).store(version, Ordering::Release);
        }
        if self.armed > 0 {
            self.wake_all(arena, objects);
        }
    }

    fn wake_all(&mut self, arena: &ArenaWriter, objects: &[u64]) {
        for (i, &object) in objects.iter().enumerate() {
            // Of several objects on one word, the first wakes.
            let earlier = || objects[..i].iter().any(|other| watch_offset(*other) == watch_offset(object));
            if self.idle[(slot_of(object) % WATCH_SLOTS) as usize].is_some() && (objects.len() > 1024 || !earlier()) {
                self.wake(arena, object);
            }
        }
    }

    fn wake(&mut self, arena: &ArenaWriter, object: u64) {
        let at = watch_offset(object);
        let sequence = arena.atomic_half(at + WATCH_SEQUENCE);
        // SYNC: Release pairs with the Acquire load that a sleeper starts from.
        sequence.fetch_add(1, Ordering::Release);
        let slot = &mut self.idle[(slot_of(object) % WATCH_SLOTS) as usize];
        let idle = slot.get_or_insert(0);
        *idle = if futex_wake_all(sequence) > 0 { 0 } else { *idle + 1 };
        if *idle >= IDLE_WAKES_MAX {
            *slot = None;
            self.armed -= 1;
            arena.atomic_half(at + WATCH_ARMED).store(0, Ordering::Release);
            // Who saw it armed and has not slept yet sees another sequence; who sleeps already is woken, and arms it again.
            sequence.fetch_add(1, Ordering::Release);
            futex_wake_all(sequence);
        }
    }
}
