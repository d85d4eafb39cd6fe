//! How a connection becomes a session: accepted, greeted, shown in, welcomed. Or refused, and told why.

use super::session::{Given, Session};
use super::session_lanes::SessionLanes;
use super::{ACCEPT_PAUSE, Connection, Server, token, token_of};
use commonhold_ipc::auth::Refusal;
use commonhold_ipc::error::Result;
use commonhold_ipc::handshake::{
    Admission, OPTION_BARRIERS, OPTION_LANES, OPTION_LARGE_PAGES, Purpose, ServerHandshake, Step, Welcome, write_refusal,
};
use commonhold_ipc::limits::*;
use commonhold_ipc::pin::{PAGE_BYTES, PinScan};
use commonhold_ipc::poller::Interest;
use commonhold_ipc::socket::{Channel, Received};
use commonhold_ipc::sys;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

impl Server {
    pub(super) fn accept(&mut self) {
        // What is left in the queue shows again in the next round.
        for _ in 0..16 {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok(Some(channel)) => {
                    if self.greeting >= HANDSHAKES_MAX {
                        self.close_slowest_greeting();
                    }
                    // A peer that is gone already, or of whom the kernel says nothing, is not a client.
                    let _ = self.greet(channel, false);
                }
                Ok(None) => return,
                // Out of descriptors. Whoever waits stays in the queue, which would show again and again.
                Err(_) => {
                    let still = Interest { read: false, write: false };
                    if self.poller.modify(listener, token_of(token::LISTENER, 0), still).is_ok() {
                        self.accept_again = Some(Instant::now() + ACCEPT_PAUSE);
                    }
                    return;
                }
            }
        }
    }

    /// Makes room for a newcomer: a handshake takes less than a millisecond, so the one that has taken longest hangs.
    fn close_slowest_greeting(&mut self) {
        let greetings = self.connections.iter().enumerate().filter_map(|(index, connection)| match connection {
            Some(Connection::Greeting { until, owner: false, .. }) => Some((*until, index)),
            _ => None,
        });
        if let Some((_, index)) = greetings.min() {
            self.refuse_late(index);
        }
    }

    /// Ends a handshake that takes too long, and says so.
    fn refuse_late(&mut self, index: usize) {
        if let Some(Some(Connection::Greeting { channel, .. })) = self.connections.get(index) {
            let _ = channel.send(&write_refusal(Refusal::TooLate));
        }
        self.close(index);
    }

    /// Ends the handshakes whose time is over.
    pub(super) fn end_late_greetings(&mut self) {
        if self.greeting > 0 {
            let now = Instant::now();
            let late = |connection: &Option<Connection>| matches!(connection, Some(Connection::Greeting { until, .. }) if *until <= now);
            let late: Vec<usize> = (0..self.connections.len()).filter(|index| late(&self.connections[*index])).collect();
            late.into_iter().for_each(|index| self.refuse_late(index));
        }
    }

    pub(super) fn greet(&mut self, channel: Channel, owner: bool) -> Result<()> {
        let peer = sys::peer_credentials(&channel)?;
        let (handshake, hello) = ServerHandshake::begin(&self.offer, peer)?;
        channel.send(&hello)?;
        let index = self.free_place();
        self.poller.add(&channel, token_of(token::CHANNEL, index), Interest::READ)?;
        let until = Instant::now() + Duration::from_millis(HANDSHAKE_TIMEOUT_MS);
        self.connections[index] = Some(Connection::Greeting { channel, handshake, until, owner });
        self.greeting += 1;
        Ok(())
    }

    pub(super) fn read_greeting(&mut self, index: usize) {
        let Some(Some(Connection::Greeting { channel, handshake, .. })) = self.connections.get_mut(index) else { return };
        let mut buffer = [0; 512];
        let received = match channel.receive(&mut buffer) {
            Ok(Received::Bytes(count)) => &buffer[..count],
            Ok(Received::Nothing) => return,
            Ok(Received::Ended) | Err(_) => return self.close(index),
        };
        match handshake.receive(&self.offer, received) {
            Step::More => {}
            Step::Refused { reply, .. } => {
                let _ = channel.send(&reply);
                self.close(index);
            }
            Step::Admitted(admission) => self.admit(index, &admission),
        }
    }

    fn admit(&mut self, index: usize, admission: &Admission) {
        let Some(Some(Connection::Greeting { channel, owner, .. })) = self.connections.get_mut(index) else { return };
        let owner = *owner;
        let full = self.sessions + self.lingering >= self.config.sessions_max || self.next_session >> SESSION_NUMBER_BITS != 0;
        if full && !owner {
            let _ = channel.send(&write_refusal(Refusal::ManagerFull { sessions_max: self.config.sessions_max as u32 }));
            return self.close(index);
        }
        let Some(Connection::Greeting { channel, .. }) = self.connections[index].take() else { return };
        self.greeting -= 1;
        match self.welcome(&channel, admission, index) {
            Ok(given) => {
                let session = Session::new(self.next_session, channel, given, admission, owner);
                self.next_session += 1;
                self.sessions += 1;
                self.idle_since = None;
                self.connections[index] = Some(Connection::Session(Box::new(session)));
            }
            // Out of memory or descriptors, or the client is gone: one that is there and has not been welcomed is told.
            Err(_) => {
                let _ = channel.send(&write_refusal(Refusal::NoRoom));
                self.poller.remove(&channel);
                self.ending |= owner;
            }
        }
    }

    /// Sends the welcome, and what a session needs with it.
    fn welcome(&mut self, channel: &Channel, admission: &Admission, index: usize) -> Result<Given> {
        let process = sys::peer_pidfd(channel)?;
        let is_session = admission.hello.purpose == Purpose::Session;
        // A session can do without lanes, should there be no descriptor or no memory for them.
        let lanes = if is_session && self.config.lanes { SessionLanes::make().ok() } else { None };
        let welcome = Welcome {
            session: self.next_session,
            manager: self.manager,
            arena_len: self.arena.reader().len(),
            session_page_len: PAGE_BYTES,
            hash_seed: self.hash_seed,
            options: self.config.options
                | if sys::has_barriers() { OPTION_BARRIERS } else { 0 }
                | if lanes.is_some() { OPTION_LANES } else { 0 }
                | if self.config.large_pages { OPTION_LARGE_PAGES } else { 0 },
            value_bytes_max: VALUE_BYTES_MAX,
            frame_bytes_max: FRAME_BYTES_MAX as u64,
            inline_value_bytes_max: INLINE_VALUE_BYTES_MAX as u64,
        };
        let bytes = admission.welcome(&welcome);
        let deadline = Instant::now() + Duration::from_millis(100);
        // First what may fail: a client that has its welcome reads, and counts on its pins.
        self.poller.add(&process, token_of(token::PROCESS, index), Interest::READ)?;
        if !is_session {
            channel.send_all(&bytes, &[], deadline)?;
            return Ok(Given { process, pins: None, lanes: None });
        }
        let page = sys::memfd_sealed("commonhold-session", PAGE_BYTES)?;
        let pins = PinScan::map(&page)?;
        let arena = sys::reopen_read_only(self.arena.descriptor())?;
        let mut fds = vec![arena.as_fd(), page.as_fd()];
        fds.extend(lanes.as_ref().map(|lanes| lanes.segment().as_fd()));
        channel.send_all(&bytes, &fds, deadline)?;
        Ok(Given { process, pins: Some(pins), lanes })
    }
}
