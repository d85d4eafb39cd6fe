//! Local sockets: how a client reaches a manager, and how bytes and descriptors travel between them.
//!
//! interprocess makes the listener, the connection and its accepted end; from then on a [`Channel`] owns the descriptor, because
//! descriptors (SCM_RIGHTS) and spinning need the raw socket. All channels are non-blocking; what waits, waits in `poll` with a
//! deadline. Three rules:
//!
//! - Descriptors arrive close-on-exec, at most as many as were asked for. Whatever else a peer sends is closed by the kernel or
//!   here, so a flood of them fills nothing.
//! - A plain `read` would drop descriptors that travel with the bytes. Where some may come, only
//!   [`receive_with_fds`](Channel::receive_with_fds) is used.
//! - A peer that is gone is [`Received::Ended`] for a reader and an error of kind `Disconnected` for a writer; never a signal.
mod address;
mod company;
mod descriptors;
mod spin;

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use interprocess::ConnectWaitMode;
use interprocess::local_socket::prelude::*;
use interprocess::local_socket::{ConnectOptions, GenericFilePath, GenericNamespaced, ListenerNonblockingMode, ListenerOptions, Name};
use interprocess::os::unix::local_socket::ListenerOptionsExt;
use interprocess::os::unix::uds_local_socket;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketAddrUnix, SocketFlags, SocketType,
};

pub use address::Address;
pub use company::Company;
pub use descriptors::{Descriptors, Next, Sent};
pub use spin::{Peer, Spin, Spins};

use crate::error::{Error, ErrorKind, Result};
use crate::limits::DESCRIPTORS_PER_MESSAGE_MAX;
use crate::sys;

/// A manager's end: takes connections. Non-blocking; [`AsFd`] is for the event loop.
#[derive(Debug)]
pub struct Listener {
    inner: uds_local_socket::Listener,
    address: Address,
}

impl Listener {
    /// Listens at an address that nobody listens at. A socket in the file system gets mode 0600 before it can be reached, and stays
    /// there afterwards: whoever holds the name's lock removes it (see `runtime`).
    pub fn bind(address: Address) -> Result<Listener> {
        address.check()?;
        let options = ListenerOptions::new().name(name_of(&address)?).nonblocking(ListenerNonblockingMode::Both).reclaim_name(false);
        let options = match &address {
            Address::Path(_) => options.mode(0o600),
            Address::Abstract(_) => options,
        };
        match options.create_sync_as::<uds_local_socket::Listener>() {
            Ok(inner) => Ok(Listener { inner, address }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(Error::caused(
                ErrorKind::AlreadyExists,
                format!("there is already a socket at {address}: give it up there, or take another address"),
                error,
            )),
            Err(error) => {
                let denied = if error.kind() == io::ErrorKind::PermissionDenied { ": this user cannot write there" } else { "" };
                Err(Error::system(format!("could not listen at {address}{denied}"), error))
            }
        }
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The next connection, if one waits. Running out of descriptors is an error of kind `Full`; the connection then stays in the
    /// queue and the listener readable, so look for others only once one has been closed.
    pub fn accept(&self) -> Result<Option<Channel>> {
        loop {
            return match self.inner.accept() {
                Ok(stream) => Ok(Some(Channel { fd: stream.into() })),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                // That one has left before its turn.
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => continue,
                Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                    Err(Error::caused(ErrorKind::Full, "no descriptor is left for another connection: raise `ulimit -n`", error))
                }
                Err(error) => Err(Error::system(format!("could not accept a connection at {}", self.address), error)),
            };
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

fn name_of(address: &Address) -> Result<Name<'_>> {
    match address {
        Address::Abstract(name) => name.as_str().to_ns_name::<GenericNamespaced>(),
        Address::Path(path) => path.as_path().to_fs_name::<GenericFilePath>(),
    }
    .map_err(|error| Error::system(format!("{address} cannot be the address of a local socket here"), error))
}

/// What one look at a channel brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// The peer has closed its end, or died.
    Ended,
}

/// One end of a connection: bytes in order, and descriptors beside them.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
}

impl Channel {
    /// Takes over a connected stream socket, such as one inherited or received, and makes it non-blocking.
    pub fn from_fd(fd: OwnedFd) -> Result<Channel> {
        rustix::io::ioctl_fionbio(&fd, true).map_err(|errno| Error::system("could not make a socket non-blocking", errno))?;
        Ok(Channel { fd })
    }

    /// Two ends connected to each other.
    pub fn pair() -> Result<(Channel, Channel)> {
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
            .map(|(a, b)| (Channel { fd: a }, Channel { fd: b }))
            .map_err(|errno| Error::system("could not make a pair of sockets", errno))
    }

    /// Connects, waiting until the deadline for a place in the listener's queue.
    pub fn connect(address: &Address, deadline: Instant) -> Result<Channel> {
        address.check()?;
        let failed = |error: io::Error| cannot_connect(address, error);
        // Deferred: does not block, and does not tell a connection from a full queue either; the name of the peer does.
        let options = ConnectOptions::new().name(name_of(address)?).wait_mode(ConnectWaitMode::Deferred).nonblocking_stream(true);
        let stream = options.connect_sync_as::<uds_local_socket::Stream>().map_err(failed)?;
        let channel = Channel { fd: stream.into() };
        match rustix::net::getpeername(&channel.fd) {
            Ok(Some(_)) => return Ok(channel),
            Ok(None) | Err(Errno::NOTCONN) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        // The queue is full. A blocking connect sleeps until there is a place, and a sending time-out limits it.
        let native = match address {
            Address::Abstract(name) => SocketAddrUnix::new_abstract_name(name.as_bytes()),
            Address::Path(path) => SocketAddrUnix::new(path),
        }
        .map_err(|errno| failed(errno.into()))?;
        set_blocking(&channel.fd, true)?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(failed(Errno::AGAIN.into()));
            }
            set_socket_timeout(&channel.fd, Timeout::Send, Some(left)).map_err(|errno| failed(errno.into()))?;
            match rustix::net::connect(&channel.fd, &native) {
                Ok(()) => break,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(failed(errno.into())),
            }
        }
        set_socket_timeout(&channel.fd, Timeout::Send, None).map_err(|errno| failed(errno.into()))?;
        set_blocking(&channel.fd, false)?;
        Ok(channel)
    }

    /// Ends the connection in both directions, though the descriptor stays open.
    pub fn shut_down(&self) {
        // Fails only if it has ended already.
        let _ = rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Both);
    }

    /// Says that nothing more will be sent; what was sent arrives, and what the other side sends can still be received.
    pub fn shut_down_sending(&self) {
        // Fails only if it has ended already.
        let _ = rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Write);
    }

    /// Sends as many of the bytes as there is room for now; 0 if there is none.
    pub fn send(&self, bytes: &[u8]) -> Result<usize> {
        self.send_with_fds(bytes, &[])
    }

    /// The same, and with the first byte copies of the descriptors. If 0 bytes were sent, no descriptor was either.
    pub fn send_with_fds(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize> {
        assert!(fds.len() <= DESCRIPTORS_PER_MESSAGE_MAX, "at most {DESCRIPTORS_PER_MESSAGE_MAX} descriptors travel with a message");
        if bytes.is_empty() {
            return Ok(0);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_PER_MESSAGE_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(fds)), "the space is made for the maximum");
        }
        loop {
            return match rustix::net::sendmsg(&self.fd, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
                Ok(sent) => Ok(sent),
                Err(Errno::AGAIN) => Ok(0),
                Err(Errno::INTR) => continue,
                Err(errno @ (Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN)) => Err(Error::caused(
                    ErrorKind::Disconnected,
                    "the process at the other end of the socket is gone",
                    io::Error::from(errno),
                )),
                Err(errno @ Errno::TOOMANYREFS) => Err(Error::system(
                    "could not send descriptors through a local socket: more of this user's are under way, in all its sockets, than a process may have open; have them received, or raise `ulimit -n`",
                    errno,
                )),
                Err(errno) => Err(Error::system("could not send through a local socket", errno)),
            };
        }
    }

    /// Sends all, waiting for room until the deadline. On an error some of it may have gone.
    pub fn send_all(&self, mut bytes: &[u8], mut fds: &[BorrowedFd<'_>], deadline: Instant) -> Result<()> {
        while !bytes.is_empty() {
            let sent = self.send_with_fds(bytes, fds)?;
            if sent > 0 {
                bytes = &bytes[sent..];
                fds = &[];
            } else if !sys::wait_writable(&self.fd, Some(deadline))? {
                return Err(Error::new(
                    ErrorKind::TimedOut,
                    "the process at the other end of the socket takes no more bytes; is it stopped?",
                ));
            }
        }
        Ok(())
    }

    /// Takes the bytes that have come, where no descriptors are expected: those that travel with them are closed by the kernel.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Received> {
        self.receive_into(buffer, &mut RecvAncillaryBuffer::default())
    }

    /// Takes the bytes that have come, and appends the descriptors that came with them to `fds`, until that holds `fds_max`; the
    /// others are closed.
    pub fn receive_with_fds(&self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>, fds_max: usize) -> Result<Received> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_PER_MESSAGE_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = self.receive_into(buffer, &mut control)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                // What is not taken is closed as it is dropped.
                rights.for_each(|fd| {
                    if fds.len() < fds_max {
                        fds.push(fd);
                    }
                });
            }
        }
        Ok(received)
    }

    /// [`receive_with_fds`](Channel::receive_with_fds) that waits until the deadline: never [`Received::Nothing`].
    pub fn receive_before(&self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>, fds_max: usize, deadline: Instant) -> Result<Received> {
        loop {
            match self.receive_with_fds(buffer, fds, fds_max)? {
                Received::Nothing if sys::wait_readable(&[self.as_fd()], Some(deadline))? == 0 => {
                    return Err(Error::new(
                        ErrorKind::TimedOut,
                        "the process at the other end of the socket does not answer; is it stopped?",
                    ));
                }
                Received::Nothing => continue,
                received => return Ok(received),
            }
        }
    }

    fn receive_into(&self, buffer: &mut [u8], control: &mut RecvAncillaryBuffer<'_>) -> Result<Received> {
        // An empty buffer would make every answer look like the end.
        assert!(!buffer.is_empty(), "bytes are received into a buffer with room");
        loop {
            return match rustix::net::recvmsg(&self.fd, &mut [IoSliceMut::new(buffer)], control, RecvFlags::CMSG_CLOEXEC) {
                Ok(message) if message.bytes > 0 => Ok(Received::Bytes(message.bytes)),
                Ok(_) | Err(Errno::CONNRESET) => Ok(Received::Ended),
                Err(Errno::AGAIN) => Ok(Received::Nothing),
                Err(Errno::INTR) => continue,
                Err(errno) => Err(Error::system(
                    "could not receive from a local socket: the kernel has no memory for it, or a filter forbids it; try again when there is some",
                    errno,
                )),
            };
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> OwnedFd {
        channel.fd
    }
}

fn set_blocking(fd: &OwnedFd, blocking: bool) -> Result<()> {
    rustix::io::ioctl_fionbio(fd, !blocking).map_err(|errno| Error::system("could not change a socket's way of blocking", errno))
}

#[cold]
fn cannot_connect(address: &Address, error: io::Error) -> Error {
    let what = format!("could not connect to a manager at {address}");
    let (kind, why) = match error.kind() {
        io::ErrorKind::NotFound => (
            ErrorKind::NotFound,
            "there is no such socket; the manager has ended, or has not been started: start the program that makes it, or use open_or_start in both",
        ),
        io::ErrorKind::ConnectionRefused => (
            ErrorKind::NotFound,
            "nobody listens there; the manager has ended: start the program that makes it, or use open_or_start in both",
        ),
        io::ErrorKind::PermissionDenied => {
            (ErrorKind::Refused, "this user may not use that socket; run as the user who started the manager")
        }
        io::ErrorKind::WouldBlock => (ErrorKind::TimedOut, "its queue of connections stays full; it is overrun, or stopped"),
        _ => return Error::system(what, error),
    };
    Error::caused(kind, format!("{what}: {why}"), error)
}

#[cfg(test)]
mod tests;
