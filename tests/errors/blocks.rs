//! What errors say of blocks of memory by name.

use super::says::says;
use super::{path, unique};
use commonhold::{ErrorKind, Manager};
use std::fs;

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
