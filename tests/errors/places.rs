//! Of directories, addresses, environments and limits: each in a child of its own, which is set up for it.

use super::support::PATIENCE;
use super::{Clerk, ClerkProxy, ErrorKind, Manager, Process, matches, says};
use commonhold::ResourceLimit;
use commonhold_ipc::socket::{Address, Channel, Listener};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Instant;

fn open_or_start_there(name: String) -> commonhold::Result<()> {
    Manager::open_or_start(&name)?.shutdown()
}

/// What a child says that opens a named manager with this place for such.
fn opened_in(place: impl Into<OsString>) -> commonhold::Result<()> {
    let child = Process::builder().env("COMMONHOLD_RUNTIME_DIR", place).spawn(open_or_start_there, "jobs".to_string());
    child.unwrap().join().unwrap()
}

#[test]
fn of_the_place_of_named_managers() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    says(
        opened_in(at("not/there")),
        ErrorKind::System,
        "could not make the directory {…}/not/there for named managers: set COMMONHOLD_RUNTIME_DIR to one that can be made",
    );
    fs::write(at("file"), "").unwrap();
    symlink(directory.path(), at("link")).unwrap();
    for name in ["file", "link"] {
        says(
            opened_in(at(name)),
            ErrorKind::Refused,
            &format!("{{…}}/{name}, the place of named managers, is not a directory (a symbolic link will not do): remove it"),
        );
    }
    fs::create_dir(at("open")).unwrap();
    fs::set_permissions(at("open"), Permissions::from_mode(0o755)).unwrap();
    says(
        opened_in(at("open")),
        ErrorKind::Refused,
        "{…}/open, the directory of named managers, has mode 0755, so others can reach into it: look at what is in it, then `chmod 700` it",
    );
    let long = at(&"long".repeat(30));
    says(
        opened_in(&long),
        ErrorKind::TooLarge,
        "the directory {…} is too long for the address of a socket in it: set COMMONHOLD_RUNTIME_DIR to a shorter one",
    );
    let private = at("private");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, Permissions::from_mode(0o700)).unwrap();
    fs::write(private.join("jobs.sock"), "mine").unwrap();
    says(
        opened_in(&private),
        ErrorKind::AlreadyExists,
        "the manager could not start: {…}/private/jobs.sock is in the way of a manager's socket and is none itself: look at it, then remove it",
    );
    assert_eq!(fs::read(private.join("jobs.sock")).unwrap(), b"mine", "nobody's file is lost");
}

#[test]
fn of_addresses() {
    for (address, why) in [("@", "it is empty"), ("@a b", "it holds blanks"), ("@a%zz", "a % is not followed by two hexadecimal digits")] {
        says(Manager::connect(address), ErrorKind::Corrupt, &format!("{address:?} is not the address of a manager: {why}"));
    }
    let long = format!("@{}", "x".repeat(120));
    says(
        Manager::connect(&long),
        ErrorKind::TooLarge,
        "{…}the address @{…} has 120 bytes, and a local socket's has at most {…}: use a shorter directory or name",
    );
}

fn nothing() {}

#[test]
fn of_what_a_child_is_given() {
    says(
        Process::builder().cpus([1 << 20]).spawn(nothing, ()).and_then(|child| child.join()),
        ErrorKind::OutOfRange,
        "{…}processor 1048576 is beyond the highest, 1023",
    );
    says(
        Process::builder().cpus([1023]).spawn(nothing, ()).and_then(|child| child.join()),
        ErrorKind::System,
        "{…}cannot run on the processors [1023]; are there such, and may this process use them?",
    );
    says(
        Process::builder().executable("/there/is/no/such").spawn(nothing, ()).and_then(|child| child.join()),
        ErrorKind::System,
        "cannot start /there/is/no/such",
    );
}

fn manager_with_few_descriptors() -> commonhold::Result<()> {
    Manager::in_process().and_then(|manager| manager.list([1u8]).map(drop))
}

fn arena_within_limits() -> commonhold::Result<()> {
    Manager::in_process().map(drop)
}

#[test]
fn of_few_descriptors() {
    // However few there are, what is said names the cure.
    let ladder = |told: &dyn Fn(u64) -> commonhold::Result<()>| -> Vec<String> {
        let errors = (0..).map_while(|more| told(more).err().map(|error| error.to_string()));
        errors.inspect(|text| assert!(text.contains("`ulimit -n`"), "{text}")).collect()
    };
    let tells = |told: &[String], expected: &str| assert!(told.iter().any(|text| matches(expected, text)), "{expected}: {told:#?}");
    // A manager in the program itself, whose sessions need some as well.
    let told = ladder(&|more| {
        let child = Process::builder().limit(ResourceLimit::OpenFiles, 6 + more).spawn(manager_with_few_descriptors, ()).unwrap();
        child.join().and_then(|began| began)
    });
    tells(
        &told,
        "not connected to the manager at {…}: it has no descriptors or no memory left for another session: raise `ulimit -n` for its program, or close sessions",
    );
    // One that has enough, in another: what is open here is known exactly.
    let manager = Manager::start().unwrap();
    let told = ladder(&|more| {
        let address = manager.address().to_string();
        Process::spawn(connects_with_few_descriptors, (address, more)).unwrap().join().unwrap()
    });
    tells(&told, "could not connect to a manager at {…}: there is no descriptor left for it; close some, or raise `ulimit -n`");
    tells(&told, "{…} descriptors arrived from the manager at {…}: close descriptors or raise `ulimit -n` in this program");
    tells(
        &told,
        "cannot duplicate the descriptor of a shared segment: there is no descriptor left for it; close some, or raise `ulimit -n`",
    );
}

/// Connects to a manager when there is room for so many descriptors more.
fn connects_with_few_descriptors(address: String, more: u64) -> commonhold::Result<()> {
    limit_descriptors(more);
    Manager::connect(&address).map(drop)
}

/// Calls an object for the first time when there is room for so many descriptors more.
fn calls_with_few_descriptors(clerk: ClerkProxy, more: u64) -> commonhold::Result<()> {
    limit_descriptors(more);
    clerk.fail().map(drop)
}

/// From here on there are so many descriptors left.
fn limit_descriptors(more: u64) {
    let next = fs::File::open("/dev/null").unwrap().as_raw_fd() as u64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(next + more), maximum: getrlimit(Resource::Nofile).maximum }).unwrap();
}

#[test]
fn of_descriptors_that_do_not_arrive() {
    let manager = Manager::start().unwrap();
    let clerk = manager.create(Clerk::new, ()).unwrap();
    let told = |more: u64| Process::spawn(calls_with_few_descriptors, (clerk.clone(), more)).unwrap().join().unwrap();
    says(told(0), ErrorKind::System, "no descriptor came with the manager's answer: close descriptors or raise `ulimit -n`");
    assert_eq!(told(1).unwrap_err().kind(), ErrorKind::Panicked, "it panics, by a line that has no memory");
}

/// Takes a connection when there are no descriptors left.
fn takes_a_connection() -> Option<(ErrorKind, String)> {
    let listener = Listener::bind(Address::random().unwrap()).unwrap();
    let _client = Channel::connect(listener.address(), Instant::now() + PATIENCE).unwrap();
    limit_descriptors(0);
    listener.accept().err().map(|error| (error.kind(), error.to_string()))
}

#[test]
fn of_connections_that_cannot_be_taken() {
    let told = Process::spawn(|| takes_a_connection().map(|(kind, text)| format!("{kind:?}: {text}")), ()).unwrap().join().unwrap();
    assert_eq!(told.as_deref(), Some("Full: no descriptor is left for another connection: raise `ulimit -n`"));
}

#[test]
fn of_little_address_space() {
    says(
        Process::builder().limit(ResourceLimit::AddressSpace, 2 << 30).spawn(arena_within_limits, ()).unwrap().join().unwrap(),
        ErrorKind::System,
        "cannot map {…} bytes of shared memory (is the limit on address space, `ulimit -v`, lower than that? give the manager a smaller `capacity`)",
    );
}

#[test]
fn of_short_files() {
    says(
        Process::builder().limit(ResourceLimit::FileSize, 1 << 20).spawn(arena_within_limits, ()).unwrap().join().unwrap(),
        ErrorKind::System,
        "could not give the memory file {…} a length of {…} bytes: past the limit on file sizes (RLIMIT_FSIZE, `ulimit -f`); raise it or ask for less{…}",
    );
}

fn locks_until_there_are_no_more() -> commonhold::Result<()> {
    let manager = Manager::in_process()?;
    let mut locks = Vec::new();
    loop {
        locks.push(manager.lock()?);
    }
}

#[test]
fn of_many_segments() {
    says(
        Process::builder().limit(ResourceLimit::OpenFiles, 128).spawn(locks_until_there_are_no_more, ()).unwrap().join().unwrap(),
        ErrorKind::Full,
        "cannot make another Lock: this manager has 64 objects with a segment of their own, the most that its descriptors allow: drop some, \
         or raise `ulimit -n` for its program",
    );
}
