//! [`wait`]: for whichever of several things is ready first. The protocol is in `ipc::sync::several`, where one sleeps in `places`.

mod places;

pub use places::Places;

use crate::patience::deadline_after;
use commonhold_ipc::error::Result;
use commonhold_ipc::sync::wait_for_any;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// What is known of something that [`wait`] can wait for.
pub trait Source {
    /// Whether it is ready, now. So is what every call would fail on: the call says why.
    fn is_ready(&self) -> bool;
    /// Says what wakes who waits for it.
    fn prepare<'w>(&'w self, places: &mut Places<'w>);
    /// It is ready, and left to others: wakes one who may take it.
    fn pass_on(&self) {}
    /// Whether a look at it is a look at memory.
    fn is_in_memory(&self) -> bool {
        false
    }
}

/// What [`wait`] can wait for. It cannot be implemented outside of this crate: whatever has a descriptor is one by that,
/// `&socket.as_fd()`.
///
/// | | ready when |
/// |---|---|
/// | [`Queue`](crate::Queue) | an item can be received, or the queue is closed and drained |
/// | [`Connection`](crate::Connection), [`PipeReceiver`](crate::PipeReceiver) | an item can be received, or the stream has ended |
/// | [`Event`](crate::Event) | it is set |
/// | [`Process`](crate::process::Process), [`ChildProcess`](crate::process::ChildProcess), [`ParentProcess`](crate::process::ParentProcess) | it has ended |
/// | descriptors: [`BorrowedFd`], [`OwnedFd`], std's sockets, pipes and files | it can be read, is at its end, or in error |
///
/// What can only fail is ready as well, so that the next call on it says why: an object whose manager has ended, or whose words
/// another process has written over.
pub trait Waitable: Source {}

impl<S: Source + ?Sized> Waitable for S {}

/// Waits until at least one of several things is ready, and says which are, by their places. Empty: none was after `timeout`; `None`
/// waits for ever. Without anything to wait for it returns at once.
///
/// What is ready stays so until somebody takes it: another thread or process may be quicker, so receive what this has announced by a
/// `try_recv`, or be ready to wait for the next.
///
/// It sleeps, in one place for everything, and uses no processor meanwhile. No thread is started for it unless both objects of a
/// manager and descriptors (or processes) are among the things, or more than about 120 objects: then one sleeps beside the caller.
///
/// # Errors
/// `System` if this process cannot wait: it may start no more threads, or have no more descriptors.
///
/// ```
/// # commonhold::init_in_tests!();
/// # fn main() -> commonhold::Result<()> {
/// use commonhold::{Manager, Process, wait};
/// use std::os::fd::AsFd;
/// use std::time::Duration;
///
/// let manager = Manager::start()?;
/// let (jobs, stop) = (manager.queue::<u64>(10)?, manager.event()?);
/// let (reader, writer) = std::io::pipe()?;
/// assert!(wait(&[&jobs, &stop, &reader.as_fd()], Duration::from_millis(1))?.is_empty());
/// let child = Process::spawn(|jobs: commonhold::Queue<u64>| jobs.send(7).map_err(commonhold::SendError::into_error), jobs.clone())?;
/// assert_eq!(wait(&[&stop, &jobs, &reader.as_fd()], None)?, [1]);
/// assert_eq!(jobs.try_recv()?, Some(7));
/// assert_eq!(wait(&[&stop, &jobs, &child], None)?, [2]);
/// child.join()??;
/// drop(writer);
/// stop.set()?;
/// assert_eq!(wait(&[&reader.as_fd(), &stop, &jobs], None)?, [0, 1]);
/// # Ok(())
/// # }
/// ```
pub fn wait(things: &[&dyn Waitable], timeout: impl Into<Option<Duration>>) -> Result<Vec<usize>> {
    wait_until(things, deadline_after(timeout))
}

/// The same until a moment.
pub(crate) fn wait_until(things: &[&dyn Waitable], deadline: Option<Instant>) -> Result<Vec<usize>> {
    if things.is_empty() {
        return Ok(Vec::new());
    }
    let mut places = Places::until(deadline, things.iter().all(|thing| thing.is_in_memory()));
    wait_for_any(
        things.len(),
        &mut places,
        |thing| things[thing].is_ready(),
        |thing, places| things[thing].prepare(places),
        |thing| things[thing].pass_on(),
    )
}

/// Whether a descriptor can be read, is at its end or in error.
pub(crate) fn is_readable(descriptor: BorrowedFd<'_>) -> bool {
    use commonhold_ipc::sys::wait_readable;
    // What cannot be waited for is for the caller to find out.
    !matches!(wait_readable(&[descriptor], Some(Instant::now())), Ok(0))
}

macro_rules! descriptors {
    ($($kind:ty),* $(,)?) => {$(
        impl Source for $kind {
            fn is_ready(&self) -> bool {
                is_readable(self.as_fd())
            }

            fn prepare<'w>(&'w self, places: &mut Places<'w>) {
                places.add_descriptor(self.as_fd());
            }
        }
    )*};
}

descriptors! {
    BorrowedFd<'_>,
    OwnedFd,
    std::fs::File,
    std::io::PipeReader,
    std::io::Stdin,
    std::net::TcpListener,
    std::net::TcpStream,
    std::net::UdpSocket,
    std::os::unix::net::UnixDatagram,
    std::os::unix::net::UnixListener,
    std::os::unix::net::UnixStream,
    std::process::ChildStderr,
    std::process::ChildStdout,
}
