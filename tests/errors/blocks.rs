//! What errors say of blocks of memory by name.

use super::says::says;
use super::support::{Parent, Role};
use super::{path, unique};
use commonhold::{ErrorKind, Manager, Process};
use commonhold_ipc::sys::own_uid;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::os::unix::process::CommandExt;

#[test]
fn of_names_of_blocks() {
    let manager = Manager::in_process().unwrap();
    let cannot = |name: &str, kind, why: &str| {
        says(manager.shared_memory(name, 8), kind, &format!("a block of shared memory cannot have the name {name:?}: {why}"));
    };
    cannot("", ErrorKind::OutOfRange, "it is empty");
    cannot(".x", ErrorKind::OutOfRange, "it begins with a dot");
    cannot("a/b", ErrorKind::OutOfRange, "it holds a slash; write it without the one that `shm_open` has at its front");
    cannot("a\0b", ErrorKind::OutOfRange, "it holds '\\0'");
    cannot(&"x".repeat(201), ErrorKind::TooLarge, "it has 201 bytes, and a name has at most 200");
}

#[test]
fn of_blocks_by_name() {
    let manager = Manager::in_process().unwrap();
    let name = unique();
    says(
        manager.open_shared_memory(&name),
        ErrorKind::NotFound,
        "there is no block of shared memory named {…}: make it first, or look for another name",
    );
    says(manager.shared_memory(&name, 0), ErrorKind::OutOfRange, "a block of 0 bytes cannot be made for the name {…}: it has 1 to {…}");
    let _block = manager.shared_memory(&name, 8).unwrap();
    says(
        manager.shared_memory(&name, 8),
        ErrorKind::AlreadyExists,
        "there is a block of shared memory named {…} already: open it, or choose another name",
    );
    let other = unique();
    fs::write(path(&other), b"").unwrap();
    let opened = manager.open_shared_memory(&other);
    fs::remove_file(path(&other)).unwrap();
    says(opened, ErrorKind::NotFound, "{…} has no bytes: whoever makes it has not given it a length yet; try again");
}

/// Opens a block that is larger than the address space that is left.
fn opens_without_room(name: String) -> commonhold::Result<()> {
    let manager = Manager::builder().capacity(8 << 20).in_process().start()?;
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let used = statm.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096;
    let maximum = getrlimit(Resource::As).maximum;
    setrlimit(Resource::As, Rlimit { current: Some(used + (16 << 20)), maximum }).unwrap();
    manager.open_shared_memory(&name)?.read(0..1).map(drop)
}

#[test]
fn of_blocks_that_do_not_fit() {
    let name = unique();
    fs::File::create(path(&name)).unwrap().set_len(1 << 30).unwrap();
    let told = Process::spawn(opens_without_room, name.clone()).unwrap().join();
    fs::remove_file(path(&name)).unwrap();
    says(
        told.unwrap(),
        ErrorKind::System,
        "cannot map the 1073741824 bytes of the block of shared memory {…}; is the limit on address space, `ulimit -v`, too low?",
    );
}

/// A user that owns nothing.
const STRANGER: u32 = 65_533;

#[test]
fn of_strangers_blocks() {
    if own_uid() != 0 {
        // Only root can start a process as somebody else.
        return;
    }
    let name = unique();
    fs::write(path(&name), "mine").unwrap();
    let mut stranger = Role::start_with("error_texts::role_stranger", |command| {
        command.uid(STRANGER).gid(STRANGER);
    });
    stranger.say(&name);
    let told = stranger.hear().unwrap();
    fs::remove_file(path(&name)).unwrap();
    let expected = format!(
        "Refused: the block of shared memory {name:?} is another user's, who does not let this one write to it: choose another name"
    );
    assert_eq!(told, expected);
}

#[test]
fn role_stranger() {
    let Some(mut parent) = Parent::of("error_texts::role_stranger") else { return };
    let error = Manager::in_process().unwrap().open_shared_memory(&parent.hear()).map(drop).unwrap_err();
    parent.say(format!("{:?}: {error}", error.kind()));
}
