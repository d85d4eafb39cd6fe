//! Child processes of tests, and looks at processes from outside.
//!
//! A *role* is a `#[test] fn role_…` of the same test file: [`Role::start`] runs the test binary again with that one test, in
//! which [`Parent::of`] finds the other ends of two pipes; in an ordinary run it finds nothing, and the role returns at once.
//! Both sides talk in lines. A role ends with its [`Role`], with its parent's process, and when nobody talks to it any more.
#![allow(dead_code)] // Each test file uses a part of it.

use commonhold::__rt::{Fault, Ser};
use commonhold::{AsShared, Handle, Manager, Token};
use commonhold_ipc::handshake::{self, ClientOffer, Purpose, Versions};
use commonhold_ipc::map::ArenaReader;
use commonhold_ipc::pin::PinTable;
use commonhold_ipc::socket::Channel;
use commonhold_ipc::sys;
use commonhold_ipc::value::ARCHIVE_FORMAT;
use rustix::process::{Pid, Signal, kill_process};
use std::fmt::Display;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Which role a process plays.
const ROLE_VARIABLE: &str = "COMMONHOLD_TEST_ROLE";
/// What lines of a role begin with, so that they can be told from the harness's.
const MARK: &str = ">>> ";
/// Longest wait for anything, far beyond what a loaded machine needs.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// What "within milliseconds" may come to on a machine that does other things, too.
pub const PROMPT: Duration = Duration::from_secs(5);

/// Makes a file a program with that content. Another process writes it: were it open for writing in this one, it would be so, too, in children of
/// other tests that have not begun their own programs yet, and the system starts no such file.
pub fn write_program(path: &Path, content: impl AsRef<[u8]>) {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, content).unwrap();
    assert!(Command::new("cp").args([&draft, path]).status().unwrap().success());
    std::fs::remove_file(draft).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
}

/// What a panic may leave to whoever catches it: dropped, it panics again.
pub struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("what a panic has left is dropped");
    }
}

/// A child process in a role. Killed when dropped.
pub struct Role {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Role {
    /// Starts a role.
    pub fn start(name: &str) -> Role {
        Role::start_with(name, |_| {})
    }

    /// Starts a role in a process that `change` has changed: its environment, for example.
    pub fn start_with(name: &str, change: impl FnOnce(&mut Command)) -> Role {
        Role::begin(Command::new(std::env::current_exe().unwrap()), name, change)
    }

    /// Starts a role of another program, which has the same tests.
    pub fn start_program(program: &Path, name: &str) -> Role {
        Role::begin(Command::new(program), name, |_| {})
    }

    fn begin(mut command: Command, name: &str, change: impl FnOnce(&mut Command)) -> Role {
        command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(ROLE_VARIABLE, name);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some((_, said)) = line.split_once(MARK)
                    && sender.send(said.to_owned()).is_err()
                {
                    break;
                }
            }
        });
        Role { name: name.to_owned(), child, stdin, lines }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Says a line to it. Nothing if it is gone.
    pub fn say(&mut self, line: impl Display) {
        if let Some(stdin) = &mut self.stdin {
            let _ = writeln!(stdin, "{line}");
        }
    }

    /// The next line that it says; none if it has ended.
    pub fn hear(&mut self) -> Option<String> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(Disconnected) => None,
            Err(Timeout) => panic!("{} (pid {}) says nothing", self.name, self.pid()),
        }
    }

    /// A line that it has said by now.
    pub fn has_said(&mut self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    /// Hears this very line next.
    pub fn expect(&mut self, line: &str) {
        assert_eq!(self.hear().as_deref(), Some(line), "{}", self.name);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        signal_to(self.pid(), signal);
    }

    /// Kills it, and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end.
    pub fn end(&mut self) -> ExitStatus {
        self.stdin.take();
        let ended = Watched::of(self.pid());
        if ended.end_within(PATIENCE).is_none() {
            self.kill();
            panic!("{} did not end", self.name);
        }
        self.child.wait().unwrap()
    }

    /// Stops it, and returns when it stands still.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        until("the role stands still", || state_of(self.pid()) == Some('T'));
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The process that started this one in a role.
pub struct Parent(());

impl Parent {
    /// None unless this process plays the role.
    pub fn of(role: &str) -> Option<Parent> {
        (std::env::var(ROLE_VARIABLE).ok()? == role).then_some(())?;
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        Some(Parent(()))
    }

    /// Says a line.
    pub fn say(&mut self, line: impl Display) {
        println!("{MARK}{line}");
    }

    /// Hears a line; ends this process if there is none to come.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        if std::io::stdin().lock().read_line(&mut line).unwrap_or(0) == 0 {
            std::process::exit(0);
        }
        line.trim_end().to_owned()
    }

    /// Hears a handle's token, and connects.
    pub fn hear_handle<H: Handle>(&mut self) -> H {
        self.hear().parse::<Token>().unwrap().open().unwrap()
    }

    /// Waits until it is killed, or nobody talks to it any more.
    pub fn wait_for_end(&mut self) -> ! {
        loop {
            self.hear();
        }
    }
}

/// Sends a signal to a process that is surely still the one that is meant: a child, or one that is watched.
pub fn signal_to(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

/// Stops a process, and returns when all of its threads stand still.
pub fn stop(pid: u32) {
    signal_to(pid, Signal::STOP);
    until("it stands still", || {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        threads.flatten().all(|thread| std::fs::read_to_string(thread.path().join("stat")).is_ok_and(|stat| stat.contains(") T ")))
    });
}

/// A process whose end can be waited for, whosever child it is.
pub struct Watched {
    pub pid: u32,
    pub pidfd: OwnedFd,
}

impl Watched {
    /// This process.
    pub fn of(pid: u32) -> Watched {
        Watched { pid, pidfd: sys::pidfd_open(pid).unwrap() }
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.end_within(Duration::ZERO).is_some()
    }

    /// How long it took to end; none if it did not.
    pub fn end_within(&self, timeout: Duration) -> Option<Duration> {
        let start = Instant::now();
        let ended = sys::wait_readable(&[self.pidfd.as_fd()], Some(start + timeout)).unwrap() != 0;
        ended.then(|| start.elapsed())
    }

    /// Kills it, and returns when it has ended.
    pub fn kill(&self) {
        signal_to(self.pid, Signal::KILL);
        self.end_within(PATIENCE).expect("a killed process ends");
    }
}

/// Kills what a test has stopped, whatever becomes of the test: nobody else would.
pub struct Doomed<'a>(pub &'a Watched);

impl Drop for Doomed<'_> {
    fn drop(&mut self) {
        // What has ended is not signalled, nor who has got its number.
        let _ = rustix::process::pidfd_send_signal(&self.0.pidfd, Signal::KILL);
    }
}

/// A value whose own code does something when its bytes have been written: some parts are with the manager then, one is on its way.
pub struct Afterwards<F>(pub F);

impl<F: Fn()> AsShared<Vec<u8>> for Afterwards<F> {
    type Back = ();

    fn back(self) {}

    fn write(&self, ser: &mut Ser) -> Result<(), Fault> {
        AsShared::<Vec<u8>>::write(&vec![7; 400_000], ser)?;
        (self.0)();
        Ok(())
    }
}

/// The process of a manager.
pub fn process_of(manager: &Manager) -> Watched {
    let channel = Channel::connect(manager.address(), Instant::now() + PATIENCE).unwrap();
    Watched::of(sys::peer_credentials(&channel).unwrap().pid)
}

/// The letter by which the kernel describes what a process does; none if there is no such process.
pub fn state_of(pid: u32) -> Option<char> {
    stat_field(&format!("/proc/{pid}/stat"), 0)?.chars().next()
}

/// A field of a stat file, counted from the state.
fn stat_field(path: &str, field: usize) -> Option<String> {
    let stat = std::fs::read_to_string(path).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(field).map(str::to_owned)
}

/// Number of the system call that a thread sleeps in.
pub fn sleeps_in(pid: u32, thread: i32) -> Option<i64> {
    let path = format!("/proc/{pid}/task/{thread}");
    if stat_field(&format!("{path}/stat"), 0)? != "S" {
        return None;
    }
    std::fs::read_to_string(format!("{path}/syscall")).ok()?.split_whitespace().next()?.parse().ok()
}

/// The children of a process, running or not yet waited for.
pub fn children_of(pid: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes.filter(|child: &u32| stat_field(&format!("/proc/{child}/stat"), 1).is_some_and(|of| of == pid.to_string())).collect()
}

/// Number of descriptors that a process has open.
pub fn descriptors_of(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Whether anybody listens at an address in the abstract namespace.
pub fn is_bound(address: &str) -> bool {
    std::fs::read_to_string("/proc/net/unix").unwrap().lines().any(|line| line.ends_with(&format!(" {address}")))
}

/// Looks until it is so, and returns how long that took.
#[track_caller]
pub fn until(what: &str, mut so: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::yield_now();
    }
    start.elapsed()
}

/// The same, promptly.
#[track_caller]
pub fn until_promptly(what: &str, so: impl FnMut() -> bool) {
    let took = until(what, so);
    println!("{what}: after {took:?}");
    assert!(took < PROMPT, "{what}: only after {took:?}");
}

/// Has processes die: one at each of its points by number, until one comes to its end, then one at each of those that are called so, for where others are
/// slow, other points may come before one than the last time, so that a number steps over it. `die` says whether it has died, at this point, in a trial with
/// this number. Returns how many did by number.
pub fn dying_everywhere(named: &[&str], mut die: impl FnMut(&str, u64) -> bool) -> usize {
    let deaths = (1..).take_while(|number| die(&number.to_string(), *number)).count();
    for (number, point) in (deaths as u64 + 2..).zip(named) {
        assert!(die(point, number), "nobody has died at {point:?}");
    }
    deaths
}

/// What roles have said to a file, whose place in it they share.
pub fn all_of(mut file: &File) -> String {
    file.rewind().unwrap();
    std::io::read_to_string(file).unwrap()
}

/// Whether the kernel makes large pages, and has enough of them for so many bytes.
pub fn has_large_pages(bytes: u64) -> bool {
    let file = sys::memfd("test-large-pages", bytes).unwrap();
    sys::Front::of(&file, bytes).is_some() && sys::is_backed(&file, bytes)
}

/// Files in a directory.
pub fn files_in(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).map_or(Vec::new(), |files| files.map(|file| file.unwrap().path()).collect())
}

/// Forks this process; the child runs `body`, which says by its result whether all is well, and ends at once.
/// Returns how the child ended.
#[allow(unsafe_code)] // fork and wait
pub fn forked(body: impl FnOnce() -> bool) -> String {
    // SAFETY: the child runs `body` alone and never returns to the harness.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let well = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        // SAFETY: no preconditions.
        unsafe { libc::_exit(if let Ok(true) = well { 0 } else { 1 }) }
    }
    let watched = Watched::of(child as u32);
    let hangs = watched.end_within(Duration::from_secs(20)).is_none();
    if hangs {
        signal_to(watched.pid, Signal::KILL);
    }
    let mut status = 0;
    // SAFETY: a child of ours, waited for once.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    if hangs { "the child hangs".to_owned() } else { <ExitStatus as std::os::unix::process::ExitStatusExt>::from_raw(status).to_string() }
}

/// Forks off a child that does nothing, and has open what this process has: its process id.
#[allow(unsafe_code)] // fork
pub fn fork_an_idle_child() -> u32 {
    // SAFETY: the child calls nothing but `pause`.
    match unsafe { libc::fork() } {
        0 => loop {
            // SAFETY: no preconditions.
            unsafe { libc::pause() };
        },
        child => u32::try_from(child).expect("a child"),
    }
}

/// Such a child, whosever it is: it does not outlive its test.
pub struct IdleChild {
    pub process: Watched,
}

impl IdleChild {
    pub fn of(pid: u32) -> IdleChild {
        IdleChild { process: Watched::of(pid) }
    }
}

impl Drop for IdleChild {
    fn drop(&mut self) {
        self.process.kill();
    }
}

/// How [`forked`] describes a child that found everything as it should be.
pub const WELL: &str = "exit status: 0";

/// A session by hand: a process has only one of the library's with each manager, and that pins nothing in a dead one.
pub struct RawSession {
    pub pins: Arc<PinTable>,
    pub arena: ArenaReader,
    _channel: Channel,
}

impl RawSession {
    /// Connects, until a deadline.
    pub fn connect(manager: &Manager, timeout: Duration) -> commonhold::Result<RawSession> {
        let offer = ClientOffer { versions: Versions::ours(ARCHIVE_FORMAT), purpose: Purpose::Session, authkey: None };
        let (channel, welcome, fds) = handshake::connect(manager.address(), &offer, Instant::now() + timeout)?;
        let arena = ArenaReader::map(&fds[0], welcome.arena_len)?;
        Ok(RawSession { pins: PinTable::new(&fds[1], arena.clone())?, arena, _channel: channel })
    }
}

/// A control group. Removed when dropped.
pub struct ControlGroup(PathBuf);

impl ControlGroup {
    /// One that has so much memory, and no more than that with what is swapped.
    ///
    /// # Errors
    /// Why this machine has none for us.
    pub fn of_memory(bytes: u64) -> Result<ControlGroup, String> {
        if Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() {
            let group = ControlGroup::new("/sys/fs/cgroup/memory", "memory.limit_in_bytes", &bytes.to_string())?;
            // (Not every kernel counts what is swapped.)
            let _ = std::fs::write(group.0.join("memory.memsw.limit_in_bytes"), bytes.to_string());
            return Ok(group);
        }
        let group = ControlGroup::new("/sys/fs/cgroup", "memory.max", &bytes.to_string())?;
        let _ = std::fs::write(group.0.join("memory.swap.max"), "0");
        Ok(group)
    }

    /// One that has the time of so many processors.
    ///
    /// # Errors
    /// Why this machine has none for us.
    pub fn of_processors(processors: u32) -> Result<ControlGroup, String> {
        let quota = 100_000 * processors;
        match Path::new("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").exists() {
            true => ControlGroup::new("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", &quota.to_string()),
            false => ControlGroup::new("/sys/fs/cgroup", "cpu.max", &format!("{quota} 100000")),
        }
    }

    fn new(parent: &str, limit: &str, to: &str) -> Result<ControlGroup, String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("commonhold-test-{}-{}", std::process::id(), MADE.fetch_add(1, Relaxed));
        let group = ControlGroup(Path::new(parent).join(name));
        std::fs::create_dir(&group.0).map_err(|error| format!("cannot make {}: {error}", group.0.display()))?;
        let limit = group.0.join(limit);
        std::fs::write(&limit, to).map_err(|error| format!("cannot write {}: {error}", limit.display()))?;
        Ok(group)
    }

    /// Takes a process in.
    pub fn take(&self, pid: u32) {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap().is_empty()
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // Whoever was in it is gone, or about to be.
        let start = Instant::now();
        while std::fs::remove_dir(&self.0).is_err_and(|error| error.kind() != std::io::ErrorKind::NotFound) && start.elapsed() < PROMPT {
            std::thread::yield_now();
        }
    }
}
