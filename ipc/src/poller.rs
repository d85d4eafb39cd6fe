//! Waiting on many descriptors at once: what the manager's event loop sleeps in (epoll, level-triggered).

use crate::error::{Error, Result};
use rustix::event::{Timespec, epoll};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// What to be told about a descriptor. Its end is always told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// That it can be read.
    pub read: bool,
    /// That it can be written.
    pub write: bool,
}

impl Interest {
    /// Reading alone.
    pub const READ: Interest = Interest { read: true, write: false };

    fn flags(self) -> epoll::EventFlags {
        let mut flags = epoll::EventFlags::RDHUP;
        flags.set(epoll::EventFlags::IN, self.read);
        flags.set(epoll::EventFlags::OUT, self.write);
        flags
    }
}

/// What has happened to a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Happening {
    /// The number it was added with.
    pub token: u64,
    /// It can be written.
    pub writable: bool,
    /// It can be read, or its peer is gone, which a read then shows.
    pub readable: bool,
    /// Its peer says no more. That is told again and again, until it is read or taken out.
    pub ended: bool,
}

/// A set of descriptors.
pub struct Poller {
    epoll: OwnedFd,
    happenings: Vec<Happening>,
    /// Those of them that have been taken.
    taken: usize,
}

/// Happenings that one wait takes at the most.
const EVENTS_MAX: usize = 256;
/// Longest sleep in one: before Linux 5.11 the kernel counts milliseconds in 31 bits, some 24 days. Whose deadline is later sleeps again.
const SLEEP_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const _: () = assert!(SLEEP_MAX.as_millis() <= i32::MAX as u128);

impl Poller {
    /// An empty set.
    pub fn new() -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| Error::system("cannot make an epoll descriptor", e))?;
        Ok(Poller { epoll, happenings: Vec::with_capacity(EVENTS_MAX), taken: 0 })
    }

    /// Adds a descriptor. It leaves the set when its last duplicate is closed, or by [`remove`](Self::remove).
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<()> {
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), interest.flags())
            .map_err(|e| Error::system("cannot wait on another descriptor", e))
    }

    /// Changes what to be told.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<()> {
        epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(token), interest.flags())
            .map_err(|e| Error::system("cannot change what is waited for", e))
    }

    /// Takes a descriptor out.
    pub fn remove(&self, fd: impl AsFd) {
        // Fails only for a descriptor that is not in the set, which is what is wanted.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits until something happens or the deadline passes. A deadline in the past: only looks. Whether something happened.
    pub fn wait(&mut self, deadline: Option<Instant>) -> Result<bool> {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let done = self.wait_once(left)?;
            if done || left.is_some_and(|left| left.is_zero()) {
                return Ok(done);
            }
        }
    }

    /// Looks without waiting. Whether something has happened.
    #[inline]
    pub fn look(&mut self) -> Result<bool> {
        self.wait_once(Some(Duration::ZERO))
    }

    fn wait_once(&mut self, left: Option<Duration>) -> Result<bool> {
        let timeout = left.map(|left| left.min(SLEEP_MAX));
        let timeout = timeout.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        self.happenings.clear();
        self.taken = 0;
        let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS_MAX];
        match epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()) {
            Ok((events, _)) => self.happenings.extend(events.iter().map(happening)),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::system("cannot wait for what happens", errno)),
        }
        Ok(!self.happenings.is_empty())
    }

    /// The next one of what happened in the last wait.
    #[inline]
    pub fn next_happening(&mut self) -> Option<Happening> {
        let next = self.happenings.get(self.taken).copied();
        self.taken += usize::from(next.is_some());
        next
    }
}

fn happening(event: &epoll::Event) -> Happening {
    // The fields of a packed struct: copied, not borrowed.
    let (flags, data) = (event.flags, event.data);
    let ends = epoll::EventFlags::HUP | epoll::EventFlags::RDHUP | epoll::EventFlags::ERR;
    let (writable, ended) = (flags.contains(epoll::EventFlags::OUT), flags.intersects(ends));
    Happening { token: data.u64(), writable, readable: ended || flags.contains(epoll::EventFlags::IN), ended }
}
