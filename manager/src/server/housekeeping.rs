//! What the manager does besides answering: reclaim, drop, take apart, give memory back.
//!
//! While requests come, memory is reclaimed every few commits, and set aside for the next ones. When nothing comes any more, what
//! is left waits for a millisecond, as the next request may well come by then; one more, and what was set aside is freed. A reader
//! that still holds a pin is looked at again a few times, at longer and longer intervals, and after that only when something
//! happens: an idle manager does not run at all.

use super::{Connection, Server};
use commonhold_ipc::pin::Pinned;
use commonhold_ipc::points;
use commonhold_ipc::sys;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

/// Reclaim when so many bytes have been retired since the last time: blocks come back while they are in the cache.
const RECLAIM_BYTES: u64 = 256 << 10;
/// The same while readers are fenced by the manager, which takes some 10 µs when they run.
const RECLAIM_BYTES_FENCING: u64 = 1 << 20;
/// Free memory that is kept for the next writes.
const KEEP_BYTES: u64 = 16 << 20;
/// When to look for pins that have gone: after so many milliseconds, one after the other. The first is for what is new.
const LOOK_MS: [u64; 6] = [1, 1, 10, 100, 1_000, 5_000];

/// When what was done last.
#[derive(Default)]
pub struct Housekeeping {
    /// What waited after the last reclaim: more than that is new.
    held_bytes: u64,
    /// Whether readers were fenced in it.
    fencing: bool,
    /// How many times it has been looked since something new was retired.
    looks: usize,
    look_at: Option<Instant>,
    /// When circles may be looked for again: looking took its time.
    circles_at: Option<Instant>,
    pressed: bool,
}

impl Housekeeping {
    /// When something is to be done though nothing happens.
    pub fn next(&self) -> Option<Instant> {
        match (self.look_at, self.circles_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// A session has ended: its pins and references are gone, look at once.
    pub fn something_ended(&mut self) {
        self.pressed = true;
        self.looks = 0;
    }
}

impl Server {
    /// Whether the store has things to do that nobody asked for.
    pub(super) fn store_has_work(&self) -> bool {
        self.store.has_work()
    }

    /// After each round.
    pub(super) fn keep_house(&mut self) {
        self.store.memory.settle();
        let much = if self.housekeeping.fencing { RECLAIM_BYTES_FENCING } else { RECLAIM_BYTES };
        if self.store.memory.retired_bytes() > self.housekeeping.held_bytes + much {
            self.reclaim(true);
        }
        if self.store.has_work() {
            self.store.rest();
        }
        let gone = self.store.take_gone();
        if !gone.is_empty() {
            self.hosts.gone(gone);
        }
    }

    /// Nothing is left to do but this.
    pub(super) fn before_sleep(&mut self) {
        // What was taken apart last is news as well.
        self.store.memory.settle();
        let now = Instant::now();
        let news = self.store.memory.retired_bytes() != self.housekeeping.held_bytes;
        let house = &mut self.housekeeping;
        if house.pressed || house.look_at.is_some_and(|at| at <= now) {
            // Whoever is back within milliseconds takes what the last calls have left.
            let aside = house.looks == 0 && !house.pressed;
            if std::mem::take(&mut house.pressed) {
                house.looks = 0;
            }
            self.reclaim(aside);
            let house = &mut self.housekeeping;
            house.looks += 1;
            let wait = LOOK_MS.get(house.looks).filter(|_| aside || self.store.memory.retired_blocks() > 0);
            house.look_at = wait.map(|ms| now + Duration::from_millis(*ms));
        } else if news {
            let soon = now + Duration::from_millis(LOOK_MS[0]);
            house.looks = 0;
            house.look_at = Some(house.look_at.map_or(soon, |at| at.min(soon)));
        }
        if self.store.may_have_circles() && self.housekeeping.circles_at.is_none_or(|at| at <= now) {
            self.store.collect_circles();
            while self.store.rest() {}
            self.hosts.gone(self.store.take_gone());
            // Never more than a twentieth of the time.
            self.housekeeping.circles_at = Some(now + now.elapsed() * 20);
        } else if !self.store.may_have_circles() && self.housekeeping.circles_at.is_some_and(|at| at <= now) {
            self.housekeeping.circles_at = None;
        }
        self.store.segments.look(now);
        self.trim();
    }

    fn trim(&mut self) {
        let usage = self.store.memory.usage();
        let keep = KEEP_BYTES.max(usage.backed_bytes / 4);
        if usage.free_backed_bytes > keep {
            self.store.memory.trim(keep);
        }
    }

    /// Whether readers have come to where their pins can be seen: those who leave their fences to the manager by a barrier.
    fn fence_readers(&mut self) -> bool {
        // SYNC: step b of `ipc::pin`: between the store of the version and the scan. What follows is b1 and b2.
        fence(Ordering::SeqCst);
        let mut sessions = self.connections.iter().flatten().filter_map(|connection| match connection {
            Connection::Session(session) | Connection::Lingering(session) => Some(session),
            Connection::Greeting { .. } | Connection::Luggage(_) => None,
        });
        self.housekeeping.fencing = sessions.any(|session| session.relies_on_manager());
        !self.housekeeping.fencing || sys::barrier_for_registered().is_ok()
    }

    /// Frees what nobody pins, or sets it aside for the next commits.
    pub(super) fn reclaim(&mut self, aside: bool) {
        if let Some(mut pins) = self.pinned() {
            if aside {
                self.store.reclaim_aside(&mut pins)
            } else {
                self.store.reclaim(&mut pins)
            }
            self.housekeeping.held_bytes = self.store.memory.retired_bytes();
        }
    }

    /// All that anybody pins; nothing can be said of it if readers cannot be fenced.
    fn pinned(&mut self) -> Option<Vec<Pinned>> {
        if !self.fence_readers() {
            return None;
        }
        let newest = self.store.version();
        let mut pins = Vec::new();
        for index in 0..self.connections.len() {
            match &mut self.connections[index] {
                Some(Connection::Lingering(session)) if !session.may_read() => self.forget_lingering(index),
                Some(Connection::Session(session) | Connection::Lingering(session)) => session.pins(newest, &mut pins),
                _ => {}
            }
        }
        points::manager("reclaim: pins are known");
        Some(pins)
    }

    /// The oldest version that anybody pins, and who.
    pub(super) fn oldest_pin(&mut self) -> Option<(u64, String)> {
        let newest = self.store.version();
        let mut oldest: Option<(u64, String)> = None;
        for connection in self.connections.iter_mut().flatten() {
            let (Connection::Session(session) | Connection::Lingering(session)) = connection else { continue };
            let mut pins = Vec::new();
            session.pins(newest, &mut pins);
            let first = pins.iter().map(|pin| match pin {
                Pinned::At(version) | Pinned::From(version) => *version,
            });
            if let Some(version) = first.min()
                && oldest.as_ref().is_none_or(|(older, _)| version < *older)
            {
                oldest = Some((version, session.describe()));
            }
        }
        oldest
    }

    /// The manager's figures: a word and a number a line.
    pub(super) fn stats(&mut self) -> String {
        self.store.publish();
        self.reclaim(false);
        let usage = self.store.memory.usage();
        let oldest = self.oldest_pin();
        let mut text = String::new();
        for (word, number) in [
            ("version", self.store.version()),
            ("objects", self.store.root().objects),
            ("sessions", self.sessions as u64),
            ("lingering", self.lingering as u64),
            ("lane_calls", self.lane_watch.calls),
            ("lane_rings", self.lane_watch.rings),
            ("lane_wakeups", self.lane_watch.wakeups),
            ("segments", self.store.segments.usage().0),
            ("segment_bytes", self.store.segments.usage().1),
            ("live_bytes", usage.allocated_bytes - self.store.memory.retired_bytes()),
            ("retired_bytes", self.store.memory.retired_bytes()),
            ("backed_bytes", usage.backed_bytes),
            ("budget_bytes", usage.budget_bytes),
            ("metadata_bytes", usage.metadata_bytes),
            ("blocks", usage.blocks),
            ("oldest_pin", oldest.as_ref().map_or(0, |(version, _)| *version)),
        ] {
            text.push_str(&format!("{word} {number}\n"));
        }
        if let Some((_, who)) = oldest {
            text.push_str(&format!("oldest_pin_holder {who}\n"));
        }
        text
    }
}
