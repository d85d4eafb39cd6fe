//! What carries a line's bytes: memory that both sides share (`ipc::line`), or the socket alone.

use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::line::{LineEnd, Side, Waited, Wanted};
use commonhold_ipc::socket::{Channel, Spin};
use commonhold_ipc::sys::{has_hung_up, wait_either, wait_writable, wait_writable_or_readable};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

/// What carries a line's bytes. One thread at a time sends, and one receives or waits; by a socket, any number wait.
pub enum Road {
    /// The socket.
    Socket(Channel),
    /// Memory, beside a socket.
    Memory(LineEnd),
}

impl Road {
    /// The road to which this socket leads. `side`: which side of its memory, if it has any: that is its first message.
    pub(super) fn new(end: OwnedFd, side: Option<Side>) -> Result<Road> {
        let socket = Channel::from_fd(end)?;
        let Some(side) = side else { return Ok(Road::Socket(socket)) };
        let mut memory = Vec::new();
        // It was there before the socket came to us.
        socket.receive_with_fds(&mut [0], &mut memory, 1)?;
        let memory = memory.pop().ok_or_else(|| {
            Error::new(ErrorKind::System, "no descriptor came with a line to a host: close descriptors or raise `ulimit -n`")
        })?;
        Ok(Road::Memory(LineEnd::map(&memory, socket, side)?))
    }

    pub(super) fn socket(&self) -> &Channel {
        match self {
            Road::Socket(socket) => socket,
            Road::Memory(end) => end.socket(),
        }
    }

    /// Sends as many of the bytes as there is room for now; 0 if there is none.
    #[inline]
    pub fn send(&self, bytes: &[u8]) -> Result<usize> {
        match self {
            Road::Socket(socket) => socket.send(bytes),
            Road::Memory(end) => end.send(bytes),
        }
    }

    /// Leaves as many of the bytes as there is room for, to be seen with what comes next; by a socket they are sent.
    pub fn leave(&self, bytes: &[u8]) -> Result<usize> {
        match self {
            Road::Socket(socket) => socket.send(bytes),
            Road::Memory(end) => end.leave(bytes),
        }
    }

    /// Waits until there are bytes to take or room to send, or the deadline: (something to take, room). The end of a socket is both.
    ///
    /// # Errors
    /// `Disconnected` when the other side is gone.
    pub fn wait_either(&self, spin: &mut Spin, deadline: Option<Instant>) -> Result<(bool, bool)> {
        match self {
            Road::Socket(socket) => wait_either(socket, deadline),
            Road::Memory(end) => match end.wait(Wanted::RoomOrBytes, spin, || deadline)? {
                Waited::Ready => Ok((end.is_ready(Wanted::Bytes), end.is_ready(Wanted::Room))),
                Waited::Nothing => Ok((false, false)),
                Waited::Ended => Err(gone()),
            },
        }
    }

    /// Waits for room to send. `false`: the deadline passed.
    pub(super) fn wait_writable(&self, spin: &mut Spin, deadline: Option<Instant>) -> Result<bool> {
        match self {
            Road::Socket(socket) => wait_writable(socket, deadline),
            Road::Memory(end) => match end.wait(Wanted::Room, spin, || deadline)? {
                Waited::Ready => Ok(true),
                Waited::Nothing => Ok(false),
                Waited::Ended => Err(gone()),
            },
        }
    }

    /// Waits for room to send, or until `other` can be read.
    ///
    /// # Errors
    /// As [`wait_either`](Self::wait_either).
    pub(super) fn wait_writable_or(&self, other: BorrowedFd<'_>) -> Result<()> {
        match self {
            Road::Socket(socket) => wait_writable_or_readable(socket, other),
            Road::Memory(end) => match end.wait_or(Wanted::Room, None, || None, Some(other))? {
                Waited::Ready | Waited::Nothing => Ok(()),
                Waited::Ended => Err(gone()),
            },
        }
    }

    /// Whether the other side is gone.
    pub fn has_hung_up(&self) -> bool {
        has_hung_up(self.socket()).unwrap_or(false)
    }

    /// Says that nobody waits for an answer any more, and ends it.
    pub fn give_up(&self) {
        if let Road::Memory(end) = self {
            end.give_up();
        }
        self.shut_down();
    }

    /// Whether the other side has said so, or, by a socket, is gone.
    pub fn is_given_up(&self) -> bool {
        match self {
            Road::Socket(_) => self.has_hung_up(),
            Road::Memory(end) => end.is_given_up(),
        }
    }

    /// Ends it for both sides, though the descriptor stays open.
    pub fn shut_down(&self) {
        self.socket().shut_down();
    }
}

pub(super) fn gone() -> Error {
    Error::new(ErrorKind::Disconnected, "the process at the other end of the line is gone")
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonhold_ipc::line::line_memory;

    #[test]
    fn the_end_of_the_other_side_is_told_to_who_has_no_room() {
        let (memory, (ours, theirs)) = (line_memory().unwrap(), Channel::pair().unwrap());
        let road = Road::Memory(LineEnd::map(&memory, ours, Side::Client).unwrap());
        let other = LineEnd::map(&memory, theirs, Side::Host).unwrap();
        while road.send(&[0; 4096]).unwrap() > 0 {}
        drop(other);
        let error = road.wait_writable(&mut Spin::new(), None).unwrap_err();
        assert!(error.is_disconnected());
        assert_eq!(error.to_string(), "the process at the other end of the line is gone");
    }

    #[test]
    fn a_line_whose_memory_does_not_come_is_none() {
        let (ours, theirs) = Channel::pair().unwrap();
        theirs.send(&[0]).unwrap();
        let error = Road::new(ours.into(), Some(Side::Client)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::System);
        assert_eq!(error.to_string(), "no descriptor came with a line to a host: close descriptors or raise `ulimit -n`");
    }
}
