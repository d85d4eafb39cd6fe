//! A host: the process in which the objects of a program's types live.
//!
//! It has an ordinary session with the manager, by which its objects use containers, and a *control* channel, on which the manager
//! tells of new lines and of objects that are gone. Each line has a thread, which reads a call, runs the method itself, and answers: no
//! call waits for a thread to wake up. Objects decide who is let in (`object`). A host ends when its manager does; one that is stopped is made to
//! go on by the kernel then, by the *leash*, a socket that closes with the manager.
//!
//! | thread | does |
//! |---|---|
//! | the first | reads the control channel; at its end closes the lines, and lets the objects' `Drop` run, for a few seconds at the most |
//! | one for each line | serves it |
//! | one of these | reads all lines for logic (`logic`) |
//! | more of them | where calls are made ahead and some of the methods block (`ahead`) |
//! | the overseer | sees that they do (`overseer`) |
//! | one for each object that is gone | waits until nobody is in it, and drops it |
mod ahead;
mod calls;
mod logic;
pub(in crate::remote) mod object;
mod overseer;
mod panics;
mod serve;
mod turns;

pub use calls::{Access, Incoming, Passage};

use super::Remote;
use super::line::Line;
use super::road::Road;
use crate::handle::{Handle, Object};
use crate::interfaces::describe;
use crate::session::{Session, SessionCore};
use commonhold_ipc::catalog::Kind;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::{HOST_END_MS, REMOTE_LINES_MAX};
use commonhold_ipc::line::Side;
use commonhold_ipc::socket::{Channel, Received};
use commonhold_ipc::sys::{continue_at_end, wait_readable};
use commonhold_ipc::task::Build;
use commonhold_ipc::wire::remote::{LINE_MEMORY, Tell};
use commonhold_ipc::wire::reply::Outcome;
use commonhold_ipc::wire::{Call, HEAD_BYTES, Head, NewObject, Words, malformed};
use logic::{Logic, Served};
use object::Slot;
use overseer::Overseer;
use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Duration;
use turns::Waits;

use crate::unpoisoned::lock;

/// What a host consists of.
pub struct Host {
    session: Session,
    objects: RwLock<HashMap<u64, Arc<Slot>>>,
    waits: Waits,
    /// Its lines, to be shut down at the end.
    lines: Mutex<HashMap<u64, Arc<Road>>>,
    offered: Mutex<HashSet<&'static str>>,
    overseer: Arc<Overseer>,
    logic: Arc<Logic>,
    ending: AtomicBool,
    /// Closes with the manager.
    leash: OnceLock<OwnedFd>,
}

impl Host {
    fn core(&self) -> &Arc<SessionCore> {
        self.session.core()
    }

    /// The object with an id.
    fn object(&self, id: u64) -> Option<Arc<Slot>> {
        self.objects.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(&id).cloned()
    }

    /// Takes an object in: from now on it can be called.
    pub(in crate::remote) fn adopt<T: Remote>(&self, object: T) -> Result<T::Proxy> {
        self.offer(T::NAME)?;
        let (fingerprint, text) = describe(T::interfaces());
        let new = NewObject { kind: Kind::Remote as u8, fingerprint, text: &text, ..NewObject::default() };
        let mut request = crate::request::Request::new(Call::Create);
        new.write(request.payload());
        let Outcome::Number(id) = self.core().call(&mut request, true)?.outcome()? else { return Err(malformed("reply")) };
        let slot = Arc::new(Slot::new(id, T::NAME, object.serve()));
        self.objects.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert(id, slot);
        Ok(T::Proxy::from_object(Object::taken(self.core(), id)))
    }

    /// Tells the manager that it has a type.
    pub(in crate::remote) fn offer(&self, name: &'static str) -> Result<()> {
        if !lock(&self.offered).contains(name) {
            self.core().call_with_text(Call::Offer, name, false)?;
            lock(&self.offered).insert(name);
        }
        Ok(())
    }

    /// An object is gone: nobody can call it any more. It is dropped when nobody is in it.
    fn object_gone(self: &Arc<Self>, id: u64) {
        let slot = self.objects.write().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&id);
        if let Some(slot) = slot {
            let host = self.clone();
            let dropping = slot.clone();
            let thread = std::thread::Builder::new().name("drop".into()).spawn(move || dropping.end(&host.waits));
            if thread.is_err() {
                slot.end(&self.waits);
            }
        }
    }

    /// Serves a new line. One that cannot be is closed, and where that can be said, its client hears why.
    fn line(self: &Arc<Self>, number: u64, end: OwnedFd, with_memory: bool) {
        let Ok(line) = Line::new(number, end, with_memory.then_some(Side::Host), None) else { return };
        {
            let mut lines = lock(&self.lines);
            if lines.len() >= REMOTE_LINES_MAX {
                drop(lines);
                return calls::refuse(line, "the host serves as many callers at a time as it can: let some calls end first");
            }
            lines.insert(number, line.road().clone());
        }
        let served = Served { registered: Registered { host: self.clone(), number }, line, lent: HashMap::new(), is_over: false };
        logic::thread_for(served, serve::serve);
    }

    /// Reads the control channel to its end, or that of the manager's process: a child that was forked off that may have its end of the channel.
    fn listen(self: &Arc<Self>, control: &Channel) {
        let manager = match self.core().connection.peer_process() {
            Err(_) if !self.core().is_alive() => return,
            // There is no descriptor for it, or it has no number here.
            manager => manager.ok(),
        };
        let both = [Some(control.as_fd()), manager.as_ref().map(AsFd::as_fd)];
        let both: Vec<_> = both.into_iter().flatten().collect();
        let mut fds = Travelling::default();
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 4096];
        loop {
            let mut come = Vec::new();
            match control.receive_with_fds(&mut buffer, &mut come, usize::MAX) {
                Ok(Received::Bytes(count)) => {
                    fds.come(come, count);
                    bytes.extend_from_slice(&buffer[..count]);
                }
                Ok(Received::Nothing) => {
                    // What it had still to say is of no use without it.
                    if !matches!(wait_readable(&both, None), Ok(0b01)) {
                        return;
                    }
                }
                Ok(Received::Ended) | Err(_) => return,
            }
            let mut done = 0;
            while let Some(head) = Head::parse(&bytes[done..]) {
                let left = bytes.len() - done;
                let end = done + HEAD_BYTES + head.len as usize;
                let Some(payload) = bytes.get(done + HEAD_BYTES..end) else { break };
                match Tell::from_code(head.code) {
                    Some(Tell::Line) => {
                        // None: this process has no descriptor left. Its client waits no longer than it lives: close others.
                        if let Some(fd) = fds.of(left) {
                            self.line(head.number, fd, payload == [LINE_MEMORY]);
                        }
                    }
                    Some(Tell::Gone) => {
                        if let Some(ids) = Words::new(payload) {
                            ids.iter().for_each(|id| self.object_gone(id));
                        }
                    }
                    // Without it, a host that is stopped when its manager ends stays so: nothing else depends on it.
                    Some(Tell::Leash) => {
                        if let Some(leash) = fds.of(left)
                            && continue_at_end(&leash).is_ok()
                        {
                            let _ = self.leash.set(leash);
                        }
                    }
                    None => return,
                }
                done = end;
            }
            bytes.drain(..done);
        }
    }

    /// Lets the objects go, as far as that is possible in a few seconds.
    fn end(self: &Arc<Self>) {
        self.ending.store(true, Ordering::Relaxed);
        // Callers see at once that it is over.
        lock(&self.lines).values().for_each(|road| road.shut_down());
        let slots: Vec<_> = self.objects.write().unwrap_or_else(std::sync::PoisonError::into_inner).drain().collect();
        let (sender, ended) = std::sync::mpsc::channel::<()>();
        for (_, slot) in slots {
            let (host, sender) = (self.clone(), sender.clone());
            let _ = std::thread::Builder::new().name("drop".into()).spawn(move || {
                slot.end(&host.waits);
                drop(sender);
            });
        }
        drop(sender);
        // Nothing is ever sent: the last one that drops its end is the end.
        let _ = ended.recv_timeout(Duration::from_millis(HOST_END_MS));
    }
}

/// Descriptors that have come, and with which frame. The kernel gives no more than one at a time, and with it the bytes up to the end of its frame;
/// and none, where there is no room for it.
#[derive(Default)]
struct Travelling {
    /// With how many bytes before those that came at the same time.
    fds: VecDeque<(u64, OwnedFd)>,
    /// Bytes so far.
    bytes: u64,
}

impl Travelling {
    /// So many bytes have come, and these.
    fn come(&mut self, fds: Vec<OwnedFd>, count: usize) {
        self.fds.extend(fds.into_iter().map(|fd| (self.bytes, fd)));
        self.bytes += count as u64;
    }

    /// That of the frame that begins so many bytes before the end of what has come. `None`: there was no room for it.
    fn of(&mut self, left: usize) -> Option<OwnedFd> {
        let at = self.bytes - left as u64;
        // One that came later is another frame's.
        self.fds.pop_front_if(|(before, _)| *before <= at).map(|(_, fd)| fd)
    }
}

/// A line that is among the host's, until it is served no more.
struct Registered {
    host: Arc<Host>,
    number: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&self.host.lines).remove(&self.number);
    }
}

/// The session of this process, if it is a host: its methods find their manager by it.
static OWN: OnceLock<Session> = OnceLock::new();

/// The session with the manager that this host is beside.
///
/// # Errors
/// `NotFound` in a process that is no host.
pub fn own_session() -> Result<Session> {
    OWN.get().cloned().ok_or_else(|| {
        let text = "this process is not a host: only the methods of objects that live beside a manager have a current one";
        Error::new(ErrorKind::NotFound, text)
    })
}

/// What a host says when it is ready, or why it is none.
pub enum Begun {
    /// It serves.
    Serves,
    /// Another process of this program does so already.
    Another,
}

/// Becomes a host of a manager, says so by `report`, and serves until that ends.
///
/// # Errors
/// If the manager does not want it.
pub fn run(session: Session, report: impl FnOnce(Begun)) -> Result<()> {
    let mut request = crate::request::Request::new(Call::Host);
    Build::own().to_wire(false).write(request.payload());
    let control = match session.core().call_for_descriptor(&mut request) {
        Ok((_, control)) => Channel::from_fd(control)?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            report(Begun::Another);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    panics::note_panics();
    let session = OWN.get_or_init(|| session).clone();
    let overseer = Arc::default();
    let logic = Logic::new(&overseer, serve::serve)?;
    let host = Arc::new(Host {
        session,
        objects: RwLock::default(),
        waits: Waits::default(),
        lines: Mutex::default(),
        offered: Mutex::default(),
        overseer,
        logic,
        ending: AtomicBool::new(false),
        leash: OnceLock::new(),
    });
    report(Begun::Serves);
    host.listen(&control);
    host.end();
    Ok(())
}

/// The error for an object that this host does not have.
fn not_here(id: u64) -> Error {
    Error::new(ErrorKind::NotFound, format!("object {id} is not there any more: nobody held it; keep a handle, or give it a name"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_descriptor_that_was_lost_is_not_the_next_frames() {
        let fds: Vec<OwnedFd> = (0..3).map(|_| Channel::pair().unwrap().0.into()).collect();
        let numbers: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let mut fds = fds.into_iter();
        let mut travelling = Travelling::default();
        let of = |travelling: &mut Travelling, left| travelling.of(left).map(|fd| fd.as_raw_fd());
        // Two frames of 16 bytes, the second one's descriptor with them.
        travelling.come(fds.by_ref().take(1).collect(), 32);
        assert_eq!(of(&mut travelling, 16), Some(numbers[0]));
        // One that is cut, and whose descriptor was lost; the rest of it with the next frame, and that one's.
        travelling.come(vec![], 10);
        travelling.come(fds.by_ref().take(1).collect(), 6 + 16);
        assert_eq!(of(&mut travelling, 32), None);
        assert_eq!(of(&mut travelling, 16), Some(numbers[1]));
        // One that is cut, and has its descriptor.
        travelling.come(fds.by_ref().take(1).collect(), 10);
        travelling.come(vec![], 6);
        assert_eq!(of(&mut travelling, 16), Some(numbers[2]));
        assert_eq!(of(&mut travelling, 0), None);
    }
}
