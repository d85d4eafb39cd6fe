//! Hosts: the processes in which objects of users' types live, and who gets a line to them.
//!
//! A host is a session that has said so. Each such object's record says which host has it, so clients know without asking. The manager
//! introduces them (it makes a pair of sockets and sends one end to each), and tells a host when one of its objects is gone. It never
//! waits for one: what a host does not read is kept up to a limit, and lines are refused beyond it. Calls do not pass through here.

use super::calls::Done;
use super::runs::{Ended, Runs};
use super::{Connection, Server};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::{HOST_PENDING_BYTES_MAX, HOST_TYPES_MAX, HOSTS_MAX};
use commonhold_ipc::line::line_memory;
use commonhold_ipc::socket::Channel;
use commonhold_ipc::task::Build;
use commonhold_ipc::wire::remote::{LINE_MEMORY, REACH_MEMORY, Tell};
use commonhold_ipc::wire::reply::Outcome;
use commonhold_ipc::wire::{HEAD_BYTES, Head, NewHost, Reader, whole};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long to wait before it is tried again to tell a host what it had no room for.
const TELL_AGAIN: Duration = Duration::from_millis(5);

/// One host.
struct Host {
    /// Who it is, in words.
    who: String,
    build: Build,
    types: BTreeSet<String>,
    control: Channel,
    /// Closes with us; nothing is said on it.
    _leash: Channel,
    /// What it has not been told yet: bytes, and what travels with their first.
    pending: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
    pending_bytes: usize,
    runs: Runs,
}

impl Host {
    fn tell(&mut self, what: Tell, number: u64, payload: &[u8], descriptor: Option<OwnedFd>) {
        let head = Head { len: payload.len() as u32, code: what as u8, quiet: false, lane: 0, number };
        let mut bytes = Vec::with_capacity(HEAD_BYTES + payload.len());
        bytes.extend_from_slice(&head.to_bytes());
        bytes.extend_from_slice(payload);
        self.pending_bytes += bytes.len();
        self.pending.push_back((bytes, descriptor));
        self.flush();
    }

    /// Sends what there is room for. A host that is gone is noticed by its session.
    fn flush(&mut self) {
        while let Some((bytes, descriptor)) = self.pending.front_mut() {
            let fds: Vec<_> = descriptor.iter().map(AsFd::as_fd).collect();
            match self.control.send_with_fds(bytes, &fds) {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    self.pending_bytes -= count;
                    if count == bytes.len() {
                        self.pending.pop_front();
                    } else {
                        bytes.drain(..count);
                        *descriptor = None;
                    }
                }
            }
        }
    }
}

/// All hosts of a manager.
#[derive(Default)]
pub struct Hosts {
    /// By the number of their session.
    hosts: HashMap<u64, Host>,
    /// Lines so far: the last one's number.
    lines: u64,
    /// What those have committed that have ended.
    pub(super) ended: Ended,
}

impl Hosts {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether a session is one.
    pub fn is_host(&self, session: u64) -> bool {
        self.hosts.contains_key(&session)
    }

    /// A session is over.
    pub fn ended(&mut self, session: u64) {
        if let Some(host) = self.hosts.remove(&session) {
            self.ended.keep(session, host.runs);
        }
    }

    /// A session is over, which may have been given lines.
    pub fn client_ended(&mut self, client: u64) {
        self.hosts.values_mut().for_each(|host| host.runs.client_ended(client));
        self.ended.client_ended(client);
    }

    /// What a host has committed that is not over.
    pub fn runs_mut(&mut self, host: u64) -> Option<&mut Runs> {
        self.hosts.get_mut(&host).map(|host| &mut host.runs)
    }

    /// Tells hosts which of their objects are gone.
    pub fn gone(&mut self, gone: Vec<(u64, u64)>) {
        for (id, host) in gone {
            if let Some(host) = self.hosts.get_mut(&host) {
                host.tell(Tell::Gone, 0, &id.to_le_bytes(), None);
            }
        }
    }

    /// Goes on telling what there was no room for.
    #[inline]
    pub fn flush(&mut self) {
        if !self.hosts.is_empty() {
            self.flush_all();
        }
    }

    fn flush_all(&mut self) {
        self.hosts.values_mut().filter(|host| !host.pending.is_empty()).for_each(Host::flush);
    }

    /// When to do so again.
    pub fn next(&self) -> Option<Instant> {
        self.hosts.values().any(|host| !host.pending.is_empty()).then(|| Instant::now() + TELL_AGAIN)
    }

    /// A host of this build.
    fn of_build(&self, build: &Build) -> Option<u64> {
        self.hosts.iter().find(|(_, host)| host.build.is_same(build)).map(|(number, _)| *number)
    }

    /// What types there are, and where, in words.
    fn describe(&self) -> String {
        if self.hosts.is_empty() {
            return "no program has any here".to_owned();
        }
        let mut hosts: Vec<_> = self
            .hosts
            .values()
            .map(|host| {
                let types = host.types.iter().cloned().collect::<Vec<_>>().join(", ");
                format!("{} has {}", host.who, if types.is_empty() { "none yet" } else { &types })
            })
            .collect();
        hosts.sort();
        hosts.join("; ")
    }

    /// A new line to a host for a session: our end for that, and its number. If it is to have memory, that waits in both its sockets.
    fn line(&mut self, number: u64, client: u64, with_memory: bool) -> Result<(OwnedFd, u64)> {
        let Some(host) = self.hosts.get_mut(&number) else {
            return Err(Error::new(ErrorKind::Died, "the host process has ended, and its objects with it: make a new object"));
        };
        if host.pending_bytes > HOST_PENDING_BYTES_MAX {
            let text = format!("{} does not take new callers: is it stopped?", host.who);
            return Err(Error::new(ErrorKind::Full, text));
        }
        let (ours, theirs) = Channel::pair()?;
        if with_memory {
            let memory = line_memory()?;
            for end in [&ours, &theirs] {
                // A new socket has room for a byte: this waits for nothing.
                end.send_all(&[0], &[memory.as_fd()], Instant::now())?;
            }
        }
        self.lines += 1;
        host.runs.open(self.lines, client);
        host.tell(Tell::Line, self.lines, if with_memory { &[LINE_MEMORY] } else { &[] }, Some(theirs.into()));
        Ok((ours.into(), self.lines))
    }
}

impl Server {
    pub(super) fn session_number(&self, index: usize) -> Option<u64> {
        match self.connections.get(index) {
            Some(Some(Connection::Session(session))) => Some(session.number()),
            _ => None,
        }
    }

    /// A session becomes a host.
    pub(super) fn become_host(&mut self, index: usize, payload: &[u8]) -> Done {
        let Ok(new) = whole(payload, "host", NewHost::parse) else { return Done::Nonsense };
        let Some(Some(Connection::Session(session))) = self.connections.get(index) else { return Done::Nonsense };
        let (number, who) = (session.number(), session.describe());
        let build = Build::of_wire(&new);
        if self.hosts.is_host(number) || self.hosts.of_build(&build).is_some() {
            return Done::Failed(Error::new(ErrorKind::AlreadyExists, "this program has a host here already: use that"));
        }
        if self.hosts.len() >= HOSTS_MAX {
            let text = format!("{HOSTS_MAX} programs have a host here, the most there can be: end one of them, or start another manager");
            return Done::Failed(Error::new(ErrorKind::Full, text));
        }
        match Channel::pair().and_then(|control| Ok((control, Channel::pair()?))) {
            Ok(((ours, theirs), (leash, their_leash))) => {
                let (types, pending) = (BTreeSet::new(), VecDeque::new());
                let runs = Runs::default();
                let mut host = Host { who, build, types, control: ours, _leash: leash, pending, pending_bytes: 0, runs };
                host.tell(Tell::Leash, 0, &[], Some(their_leash.into()));
                self.hosts.hosts.insert(number, host);
                self.note_idle();
                Done::Attached(Arc::new(theirs.into()), number)
            }
            Err(error) => Done::Failed(error),
        }
    }

    /// The host of the caller's program. Nothing: it may start one.
    pub(super) fn find_host(&self, payload: &[u8]) -> Done {
        let Ok(new) = whole(payload, "build", NewHost::parse) else { return Done::Nonsense };
        let build = Build::of_wire(&new);
        if let Some(number) = self.hosts.of_build(&build) {
            return Done::Answer(vec![Outcome::Number(number)]);
        }
        if new.invited || self.config.build.as_ref().is_some_and(|own| own.is_same(&build)) {
            return Done::Answer(vec![Outcome::Nothing]);
        }
        let text = format!(
            "this manager was started by another program (or another build of this one), and does not have this program's types: {}. \
             To offer them here, connect with `Manager::builder().register::<Type>()`",
            self.hosts.describe()
        );
        Done::Failed(Error::new(ErrorKind::NotFound, text))
    }

    /// A line to a host.
    pub(super) fn reach(&mut self, index: usize, payload: &[u8]) -> Done {
        let parsed = whole(payload, "address of a host", |read: &mut Reader<'_>| Some((read.u8()?, read.u64()?)));
        let Ok((with, host)) = parsed else { return Done::Nonsense };
        let Some(client) = self.session_number(index) else { return Done::Nonsense };
        match self.hosts.line(host, client, with & REACH_MEMORY != 0) {
            Ok((line, number)) => Done::Attached(Arc::new(line), number),
            Err(error) => Done::Failed(error),
        }
    }

    /// A host says which types it has.
    pub(super) fn offer_types(&mut self, index: usize, payload: &[u8]) -> Done {
        let Ok(names) = std::str::from_utf8(payload) else { return Done::Nonsense };
        let Some(host) = self.session_number(index).and_then(|number| self.hosts.hosts.get_mut(&number)) else { return Done::Nonsense };
        for name in names.lines() {
            if host.types.len() < HOST_TYPES_MAX {
                host.types.insert(name.to_owned());
            }
        }
        Done::Answer(Vec::new())
    }

    /// The session as the host that makes an object of a user's type.
    pub(super) fn host_who_makes(&self, index: usize) -> Result<u64> {
        self.session_number(index)
            .filter(|number| self.hosts.is_host(*number))
            .ok_or_else(|| Error::new(ErrorKind::Refused, "an object of a user's type is made by the host that it lives in"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_nothing_gets_no_more_callers() {
        let ((control, _theirs), (leash, _their_leash)) = (Channel::pair().unwrap(), Channel::pair().unwrap());
        let (build, pending) = (Build::own().clone(), VecDeque::new());
        let pending_bytes = HOST_PENDING_BYTES_MAX;
        let (types, runs) = (BTreeSet::new(), Runs::default());
        let host = Host { who: "mill (pid 7)".into(), build, types, control, _leash: leash, pending, pending_bytes, runs };
        let mut hosts = Hosts { hosts: HashMap::from([(1, host)]), ..Hosts::default() };
        hosts.line(1, 2, true).unwrap();
        hosts.hosts.get_mut(&1).unwrap().pending_bytes = HOST_PENDING_BYTES_MAX + 1;
        let error = hosts.line(1, 2, true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
        assert_eq!(error.to_string(), "mill (pid 7) does not take new callers: is it stopped?");
    }
}
