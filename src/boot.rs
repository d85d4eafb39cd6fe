//! A manager's process, from its first instruction: what it is told, what it reports, how it runs.
//!
//! | | starter | started |
//! |---|---|---|
//! | 1 | starts this program again in a role (see `ipc::boot`) | takes its socket |
//! | 2 | sends the configuration: length, text; with it, to a manager of its own, one end of the *leash* | leaves the terminal's session, reads it |
//! | 3 | | becomes a manager; sends the outcome: length, a letter, a message |
//! | 4 | of a manager of its own: begins the handshake on the same socket, which so is its owner's | serves |
//!
//! The leash is a socket that nobody writes to. The starter's end of it is shut down with its last handle, and closes when it ends, unless a process
//! that was forked off it has that end as well; the kernel lets the manager go on then (SIGCONT): one that is stopped could not see that its owner
//! has ended.
//!
//! A detached manager is started by a process in between, which ends at once: so nobody has to wait for its end. It closes
//! the socket after step 3. The configuration holds the authkey, which therefore is never in the environment or arguments.

use commonhold_ipc::auth::AuthKey;
use commonhold_ipc::boot::Start;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::runtime::{NameLock, RuntimeDir, blocks};
use commonhold_ipc::socket::{Address, Channel, Listener, Received};
use commonhold_ipc::sys::{self, Signal, Spawned, Stream};
use commonhold_ipc::task::Build;
use commonhold_ipc::wire::reply::{code_of, kind_of};
use commonhold_manager::server::{Config, Server};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Roles of a process that is this program started again.
pub(crate) const MANAGER: &str = "manager";
pub(crate) const DETACHED: &str = "detached";
pub(crate) const DETACHED_AGAIN: &str = "detached-again";

/// How long a process may take to start and report.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a process may take to end after it has closed its socket, or, of one between, has done its part.
const END_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest message of this protocol.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// What a started manager reports.
pub(crate) const STARTED: u8 = b'+';
pub(crate) const TAKEN: u8 = b'=';
const FAILED: u8 = b'!';

/// What became of a manager that was to be started.
pub(crate) enum Outcome {
    /// It serves.
    Started,
    /// Another one has the name.
    Taken,
}

/// What a manager is told.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    pub config: Config,
    /// Where an anonymous manager listens.
    pub address: Option<Address>,
    /// Directory and name of a named one.
    pub name: Option<(PathBuf, String)>,
}

impl Orders {
    fn to_text(&self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let mut text = format!(
            "capacity {}\nsessions {}\noptions {}\nhash_mask {}\nlanes {}\nlarge_pages {}\n",
            self.config.capacity_bytes,
            self.config.sessions_max,
            self.config.options,
            self.config.hash_mask,
            self.config.lanes,
            self.config.large_pages
        );
        if let Some(seed) = self.config.hash_seed {
            text += &format!("hash_seed {seed}\n");
        }
        if let Some(key) = &self.config.authkey {
            text += &format!("authkey {}\n", hex(key.as_bytes()));
        }
        if let Some(timeout) = self.config.idle_timeout {
            text += &format!("idle_ns {}\n", timeout.as_nanos());
        }
        if let Some(address) = &self.address {
            text += &format!("address {address}\n");
        }
        if let Some((directory, name)) = &self.name {
            text += &format!("directory {}\nname {}\n", hex(directory.as_os_str().as_encoded_bytes()), hex(name.as_bytes()));
        }
        text
    }

    fn parse(text: &str) -> Option<Orders> {
        use std::os::unix::ffi::OsStringExt;
        let mut orders = Orders { config: Config::with_capacity(0), address: None, name: None };
        let (mut directory, mut name) = (None, None);
        for line in text.lines() {
            let (word, rest) = line.split_once(' ')?;
            match word {
                "capacity" => orders.config.capacity_bytes = rest.parse().ok()?,
                "sessions" => orders.config.sessions_max = rest.parse().ok()?,
                "options" => orders.config.options = rest.parse().ok()?,
                "hash_mask" => orders.config.hash_mask = rest.parse().ok()?,
                "hash_seed" => orders.config.hash_seed = Some(rest.parse().ok()?),
                "lanes" => orders.config.lanes = rest.parse().ok()?,
                "large_pages" => orders.config.large_pages = rest.parse().ok()?,
                "authkey" => orders.config.authkey = Some(AuthKey::new(bytes_of(rest)?).ok()?),
                "idle_ns" => orders.config.idle_timeout = Some(duration_of(rest.parse().ok()?)?),
                "address" => orders.address = Some(rest.parse().ok()?),
                "directory" => directory = Some(PathBuf::from(std::ffi::OsString::from_vec(bytes_of(rest)?))),
                "name" => name = Some(String::from_utf8(bytes_of(rest)?).ok()?),
                _ => return None,
            }
        }
        orders.name = directory.zip(name);
        Some(orders)
    }
}

/// So many nanoseconds; none if they are more than there can be.
fn duration_of(ns: u128) -> Option<Duration> {
    let second = Duration::from_secs(1).as_nanos();
    Some(Duration::new((ns / second).try_into().ok()?, (ns % second) as u32))
}

/// The bytes that a text of hexadecimal digits stands for.
pub(crate) fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(hex.get(i * 2..i * 2 + 2)?, 16).ok()).collect()
}

pub(crate) fn send(channel: &Channel, message: &[u8]) -> Result<()> {
    send_with_fds(channel, message, &[])
}

fn send_with_fds(channel: &Channel, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let deadline = Instant::now() + START_TIMEOUT;
    channel.send_all(&(message.len() as u32).to_le_bytes(), fds, deadline)?;
    channel.send_all(message, &[], deadline)
}

/// Reads exactly so many bytes: what follows belongs to the handshake. And so many descriptors at the most that come with them.
fn receive_exactly(channel: &Channel, bytes: &mut [u8], fds: &mut Vec<OwnedFd>, fds_max: usize, deadline: Instant) -> Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        match channel.receive_before(&mut bytes[filled..], fds, fds_max, deadline)? {
            Received::Bytes(count) => filled += count,
            Received::Nothing | Received::Ended => {
                let text = "the process at the other end of the socket has ended before all of its message was there";
                return Err(Error::new(ErrorKind::Disconnected, text));
            }
        }
    }
    Ok(())
}

pub(crate) fn receive(channel: &Channel) -> Result<Vec<u8>> {
    receive_with_fds(channel, &mut Vec::new(), 0)
}

fn receive_with_fds(channel: &Channel, fds: &mut Vec<OwnedFd>, fds_max: usize) -> Result<Vec<u8>> {
    let deadline = Instant::now() + START_TIMEOUT;
    let mut len = [0; 4];
    receive_exactly(channel, &mut len, fds, fds_max, deadline)?;
    let len = u32::from_le_bytes(len) as usize;
    if len > MESSAGE_BYTES_MAX {
        let text = format!("it claims to send {len} bytes, and a message has at most {MESSAGE_BYTES_MAX}: start the very same executable");
        return Err(Error::new(ErrorKind::Corrupt, text));
    }
    let mut message = vec![0; len];
    receive_exactly(channel, &mut message, fds, fds_max, deadline)?;
    Ok(message)
}

/// Starts `executable` (or this program) again as a manager of this process's own; returns our ends of its socket and its leash.
pub(crate) fn start_own(executable: Option<&PathBuf>, orders: &Orders) -> Result<(Spawned, Channel, Channel)> {
    let (leash, theirs) = Channel::pair()?;
    let (child, ours) = start(executable, MANAGER, orders, &[theirs.as_fd()])?;
    Ok((child, ours, leash))
}

/// The same as a manager that outlives this process: what is started is the process between.
pub(crate) fn start_detached(executable: Option<&PathBuf>, orders: &Orders) -> Result<(Spawned, Channel)> {
    start(executable, DETACHED, orders, &[])
}

fn start(executable: Option<&PathBuf>, role: &str, orders: &Orders, fds: &[BorrowedFd<'_>]) -> Result<(Spawned, Channel)> {
    let (child, ours) = managers_process(executable.map(PathBuf::as_path), role).start()?;
    // If it has died already, that shows when its report is read.
    let _ = send_with_fds(&ours, orders.to_text().as_bytes(), fds);
    Ok((child, ours))
}

fn managers_process<'a>(program: Option<&'a Path>, role: &'a str) -> Start<'a> {
    Start {
        program,
        role,
        arguments: vec!["commonhold-manager".into()],
        environment: std::env::vars_os().collect(),
        streams: [Stream::Null, Stream::Null, Stream::Inherit],
    }
}

/// What the started process says has become of it. One that says nothing has ended when this returns.
pub(crate) fn report(channel: &Channel, what: &str, child: &Spawned) -> Result<Outcome> {
    let message = receive(channel).map_err(|error| {
        let text = format!(
            "the {what}'s process did not report: {error} ({}); does `main` call `commonhold::init()` before anything else?",
            end_of(child)
        );
        Error::caused(ErrorKind::System, text, error)
    })?;
    match message.split_first() {
        Some((&STARTED, _)) => Ok(Outcome::Started),
        Some((&TAKEN, _)) => Ok(Outcome::Taken),
        Some((_, [kind, text @ ..])) => {
            Err(Error::new(kind_of(*kind), format!("the {what} could not start: {}", String::from_utf8_lossy(text))))
        }
        _ => {
            let text = format!("the {what}'s process sent a report that cannot be read: start the very same executable");
            Err(Error::new(ErrorKind::Corrupt, text))
        }
    }
}

/// The same of what a process between has started, which itself ends at once: it has ended when this returns.
pub(crate) fn report_beyond(channel: &Channel, what: &str, between: &Spawned) -> Result<Outcome> {
    let reported = report(channel, what, between);
    end_of(between);
    reported
}

/// What becomes of a process that should end about now. It has ended when this returns: what goes on is not what we have started.
fn end_of(child: &Spawned) -> String {
    // It has closed its end of the socket: what ends does so a moment before it can be waited for.
    match child.wait(Some(Instant::now() + END_TIMEOUT)) {
        Ok(Some(end)) => format!("it {end}"),
        Ok(None) => {
            let _ = child.signal(Signal::KILL).and_then(|_| child.wait(None));
            "it went on as another program".to_owned()
        }
        Err(error) => error.to_string(),
    }
}

/// Leaves the terminal's session, and reads the orders, with the end of the leash that came with them.
fn begin(channel: &Channel) -> Result<(Orders, Option<OwnedFd>)> {
    sys::set_process_name(c"commonhold");
    sys::ignore_signals()?;
    // A detached manager's first process has done so already.
    let _ = sys::setsid();
    sys::raise_nofile_limit();
    let mut fds = Vec::new();
    let text = String::from_utf8(receive_with_fds(channel, &mut fds, 1)?).unwrap_or_default();
    Ok((Orders::parse(&text).ok_or_else(unreadable)?, fds.pop()))
}

/// The error of orders that no build like this one gives.
pub(crate) fn unreadable() -> Error {
    let text = "the orders of who has started this process cannot be read: was that another build? Start the very same executable";
    Error::new(ErrorKind::Corrupt, text)
}

pub(crate) fn say(channel: &Channel, letter: u8) -> Result<()> {
    send(channel, &[letter])
}

/// Reports why it does not start.
pub(crate) fn say_failed(channel: &Channel, error: &Error) -> Result<()> {
    let mut message = vec![FAILED, code_of(error.kind())];
    message.extend_from_slice(error.to_string().as_bytes());
    send(channel, &message)
}

/// A manager of its starter's: its whole life.
pub(crate) fn manager(channel: Channel) -> Result<()> {
    let (orders, leash) = begin(&channel)?;
    // Without it, a manager that is stopped when its owner ends stays so: nothing else depends on it.
    let _leash = leash.filter(|leash| sys::continue_at_end(leash).is_ok());
    let listener = orders.address.clone().map(Listener::bind).transpose();
    let config = Config { build: Some(Build::own().clone()), ..orders.config };
    let mut server = match listener.and_then(|listener| Server::new(config, listener)) {
        Ok(server) => server,
        Err(error) => return say_failed(&channel, &error),
    };
    // Before the server greets its owner: the report comes first on this socket.
    say(&channel, STARTED)?;
    server.greet_owner(channel)?;
    server.run()
}

/// The process between: starts the one that stays, and ends.
pub(crate) fn detach(channel: Channel) -> Result<()> {
    let _ = sys::setsid();
    managers_process(None, DETACHED_AGAIN).start_with(channel).map(drop)
}

/// A manager with a name: its whole life.
pub(crate) fn detached(channel: Channel) -> Result<()> {
    let (orders, _) = begin(&channel)?;
    let server = match become_named(orders) {
        Ok(Some(server)) => server,
        Ok(None) => return say(&channel, TAKEN),
        Err(error) => return say_failed(&channel, &error),
    };
    say(&channel, STARTED)?;
    drop(channel);
    sys::leave_terminal()?;
    server.run()
}

/// Takes a name; none if another manager has it.
fn become_named(orders: Orders) -> Result<Option<Server>> {
    let (directory, name) = orders.name.ok_or_else(unreadable)?;
    let directory = RuntimeDir::at(&directory)?;
    let Some(lock) = NameLock::try_acquire(&directory, &name)? else { return Ok(None) };
    lock.remove_leftover_socket()?;
    // Blocks of memory of managers that were killed. What cannot be removed now is looked at again when a block is made.
    let _ = blocks::sweep(&directory);
    let config = Config { build: Some(Build::own().clone()), ..orders.config };
    match Listener::bind(lock.address()).and_then(|listener| Server::new(config, Some(listener))) {
        Ok(mut server) => {
            server.take_name(lock)?;
            Ok(Some(server))
        }
        Err(error) => {
            // What failed is worth more than whether its leftovers could be cleared away.
            let _ = lock.remove();
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_idle_timeout_arrives_as_it_is() {
        let second = Duration::from_secs(1);
        let some = [
            Duration::ZERO,
            Duration::from_nanos(1),
            second - Duration::from_nanos(1),
            second,
            Duration::from_millis(u64::MAX),
            Duration::MAX,
        ];
        for timeout in some.map(Some).into_iter().chain([None]) {
            let config = Config { idle_timeout: timeout, ..Config::with_capacity(0) };
            let orders = Orders { config, address: None, name: None };
            assert_eq!(Orders::parse(&orders.to_text()).map(|read| read.config.idle_timeout), Some(timeout));
        }
        assert!(Orders::parse(&format!("idle_ns {}\n", Duration::MAX.as_nanos() + 1)).is_none());
    }
}
