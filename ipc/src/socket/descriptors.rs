//! Descriptors on their way from several processes to one: messages of some bytes with one descriptor each, whole or not at all.
//!
//! A pair of sockets that keep messages apart (SEQPACKET). Who makes it keeps one end, and gives copies of the other one to those who send. What
//! was sent lies in the kernel, whatever becomes of its sender. Nobody ever waits here: a sender is told that there is no room, or that the
//! user has too many descriptors under way, a receiver that there is nothing.
//!
//! Descriptors that are under way count for their user, in all its processes and sockets together, and if they are more than the sender may have
//! open, the kernel lets none pass any more, by whatever socket (ETOOMANYREFS; who may administer the system is exempt). So a pair
//! holds few ([`DESCRIPTORS_IN_FLIGHT`]) unless a sender asks the kernel for more, which nobody can keep it from.
//!
//! A receiver that has no descriptor left loses what comes with a message that it takes; so it *looks* at a message first, which
//! gives a descriptor of its own and leaves the message where it is, and passes on to the next one behind that.

use crate::error::{Error, Result};
use crate::limits::{DESCRIPTORS_IN_FLIGHT, DESCRIPTORS_PER_MESSAGE_MAX};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionread};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketFlags, SocketType, sockopt,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One end.
#[derive(Debug)]
pub struct Descriptors {
    fd: OwnedFd,
}

/// What the kernel takes for a message of few bytes with a descriptor.
const MESSAGE_MEMORY_BYTES: usize = 768;

/// Whether a message was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It was.
    Yes,
    /// There is no room now, or the user has too many descriptors under way.
    NotNow,
    /// It never will be: nobody receives any more.
    Never,
}

/// The next message that waits.
#[derive(Debug)]
pub enum Next {
    /// There is none, or there will never be another one.
    Nothing,
    /// It has so many bytes, of which the buffer has the first, and this descriptor, if it has any.
    Message(usize, Option<OwnedFd>),
    /// It has so many bytes, and a descriptor for which this process has no room.
    NoRoom(usize),
}

impl Descriptors {
    /// The end to receive at, and the one to send at.
    pub fn pair() -> Result<(Descriptors, Descriptors)> {
        let make = || -> rustix::io::Result<_> {
            let (receiver, sender) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
            // The kernel doubles what it is told, for its own part of each message.
            sockopt::set_socket_send_buffer_size(&sender, DESCRIPTORS_IN_FLIGHT * MESSAGE_MEMORY_BYTES / 2)?;
            Ok((Descriptors { fd: receiver }, Descriptors { fd: sender }))
        };
        make().map_err(|errno| Error::system("could not make a pair of sockets for descriptors", errno))
    }

    /// Takes over an end that was inherited or received.
    pub fn from_fd(fd: OwnedFd) -> Descriptors {
        Descriptors { fd }
    }

    /// Sends a message with a descriptor, if that can be done at once.
    pub fn send(&self, bytes: &[u8], fd: BorrowedFd<'_>) -> Sent {
        let fds = [fd];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)), "the space is made for one");
        // Said with each message: whether the socket itself waits is for all who have copies of it to set.
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        loop {
            match rustix::net::sendmsg(&self.fd, &[IoSlice::new(bytes)], &mut control, flags) {
                Ok(_) => return Sent::Yes,
                Err(Errno::INTR) => continue,
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => return Sent::Never,
                Err(_) => return Sent::NotNow,
            }
        }
    }

    /// Looks at the next message, and leaves it there.
    ///
    /// # Errors
    /// `System` if the kernel has no memory for it.
    pub fn look(&self, buffer: &mut [u8]) -> Result<Next> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_PER_MESSAGE_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let message = loop {
            match rustix::net::recvmsg(&self.fd, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
                Ok(message) => break message,
                Err(Errno::AGAIN) => return Ok(Next::Nothing),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(Error::system("could not look at a descriptor that another process has sent", errno)),
            }
        };
        // Of several the first; the others are closed here.
        let first = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
            _ => None,
        });
        Ok(match first {
            None if message.flags.contains(ReturnFlags::CTRUNC) => Next::NoRoom(message.bytes),
            None if message.bytes == 0 && self.is_at_end() => Next::Nothing,
            fd => Next::Message(message.bytes, fd),
        })
    }

    /// Whether nothing more will come. (What looks like that may be an empty message. Those that wait when nobody sends any more are not told apart.)
    fn is_at_end(&self) -> bool {
        let mut polled = [PollFd::new(&self.fd, PollFlags::RDHUP)];
        let is_over =
            poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok() && polled[0].revents().contains(PollFlags::RDHUP);
        is_over && ioctl_fionread(&self.fd).is_ok_and(|bytes| bytes == 0)
    }

    /// Passes over the next message; what still travels with it is closed.
    pub fn pass_over(&self) {
        // Fails only if there is none.
        while let Err(Errno::INTR) = rustix::net::recv(&self.fd, &mut [0u8; 1], RecvFlags::DONTWAIT) {}
    }
}

impl AsFd for Descriptors {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memfd;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    fn file(byte: u8) -> OwnedFd {
        let file = File::from(memfd("test-descriptors", 1).unwrap());
        file.write_all_at(&[byte], 0).unwrap();
        file.into()
    }

    #[test]
    fn messages_come_whole_in_order_and_may_be_looked_at_again() {
        let (receiver, sender) = Descriptors::pair().unwrap();
        let mut buffer = [0; 8];
        assert!(matches!(receiver.look(&mut buffer).unwrap(), Next::Nothing));
        for n in 1..=3 {
            assert_eq!(sender.send(&[n; 5], file(n).as_fd()), Sent::Yes);
        }
        drop(sender);
        for n in 1..=3 {
            for _ in 0..3 {
                let Next::Message(5, Some(fd)) = receiver.look(&mut buffer).unwrap() else { panic!("it is there") };
                let mut byte = [0];
                File::from(fd).read_exact_at(&mut byte, 0).unwrap();
                assert!(byte == [n] && buffer[..5] == [n; 5]);
            }
            receiver.pass_over();
        }
        // What is at its end has nothing to look at.
        assert!(matches!(receiver.look(&mut buffer).unwrap(), Next::Nothing));
    }

    #[test]
    fn an_empty_message_is_not_the_end() {
        let (receiver, sender) = Descriptors::pair().unwrap();
        let (fd, mut buffer) = (file(1), [0; 8]);
        let say = |bytes: &[u8]| rustix::net::send(&sender.fd, bytes, SendFlags::DONTWAIT).unwrap();
        for last in [false, true] {
            say(&[]);
            assert_eq!(sender.send(&[], fd.as_fd()), Sent::Yes);
            say(&[]);
            assert_eq!(sender.send(&[7; 5], fd.as_fd()), Sent::Yes);
            if last {
                rustix::net::shutdown(&sender.fd, rustix::net::Shutdown::Both).unwrap();
                assert_eq!(sender.send(&[7; 5], fd.as_fd()), Sent::Never);
            }
            for wanted in [(0, false), (0, true), (0, false), (5, true)] {
                let Next::Message(bytes, fd) = receiver.look(&mut buffer).unwrap() else { panic!("{wanted:?} is there") };
                assert_eq!((bytes, fd.is_some()), wanted);
                receiver.pass_over();
            }
            assert!(matches!(receiver.look(&mut buffer).unwrap(), Next::Nothing));
        }
    }

    #[test]
    fn a_sender_never_waits() {
        let (receiver, sender) = Descriptors::pair().unwrap();
        let fd = file(1);
        let sent = (0..100_000).take_while(|_| sender.send(&[7; 24], fd.as_fd()) == Sent::Yes).count();
        // (The kernel's share in a message differs from one to another.)
        assert!((DESCRIPTORS_IN_FLIGHT / 2..=2 * DESCRIPTORS_IN_FLIGHT).contains(&sent), "{sent}");
        receiver.pass_over();
        // (There may be less room than for one behind the first that goes.)
        (1..sent).for_each(|_| receiver.pass_over());
        assert_eq!(sender.send(&[7; 24], fd.as_fd()), Sent::Yes);
        drop(receiver);
        assert_eq!(sender.send(&[7; 24], fd.as_fd()), Sent::Never, "nobody receives");
    }
}
