//! Named blocks: exchanged with programs that are not ours, and gone with whoever made them, however that ends.

#[path = "../errors/blocks.rs"]
mod error_texts;
mod points;
#[path = "../errors/says.rs"]
mod says;
#[path = "../support/mod.rs"]
mod support;

use commonhold::{Dict, ErrorKind, Handle, Manager, SharedMemory};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use support::{Parent, Role, process_of, until_promptly};

commonhold::init_in_tests!();

/// A name that nobody else has.
fn unique() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("commonhold-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn path(name: &str) -> PathBuf {
    Path::new("/dev/shm").join(name)
}

/// Makes a block in a manager of its own, and waits.
#[test]
fn role_maker() {
    let Some(mut parent) = Parent::of("role_maker") else { return };
    let name = parent.hear();
    let made = Manager::start().and_then(|manager| {
        let block = manager.shared_memory(&name, 5000)?;
        block.write_at(4999, &[7])?;
        Ok((block, manager))
    });
    match &made {
        Ok((_, manager)) => parent.say(format!("made {}", process_of(manager).pid)),
        Err(error) => parent.say(format!("its manager was killed: {error}")),
    }
    parent.wait_for_end();
}

/// Makes a block in somebody's manager, and waits.
#[test]
fn role_client() {
    let Some(mut parent) = Parent::of("role_client") else { return };
    let manager = Manager::connect(&parent.hear()).unwrap();
    let block = manager.shared_memory(&parent.hear(), 10).unwrap();
    parent.say(block.len().unwrap());
    parent.wait_for_end();
}

/// Opens a block by its handle, answers what is in it.
#[test]
fn role_reader() {
    let Some(mut parent) = Parent::of("role_reader") else { return };
    let block: SharedMemory = parent.hear_handle();
    parent.say(String::from_utf8(block.read(0..5).unwrap()).unwrap());
    block.write_at(0, b"HELLO").unwrap();
    parent.say("done");
}

/// Has a handle on a block that has no name any more.
#[test]
fn role_newcomer() {
    let Some(mut parent) = Parent::of("role_newcomer") else { return };
    let error = parent.hear_handle::<SharedMemory>().len().unwrap_err();
    parent.say(format!("{} {}", error.is_not_found(), error.to_string().contains("it was unlinked; processes that have used it go on")));
}

/// Makes blocks where there is little room.
#[test]
fn role_in_little_room() {
    let Some(mut parent) = Parent::of("role_in_little_room") else { return };
    let manager = Manager::start().unwrap();
    let name = unique();
    let error = manager.shared_memory(&name, 4 << 20).unwrap_err();
    let told = error.to_string();
    parent.say(format!("{:?} {} {}", error.kind(), told.contains(": remove some there, or mount it larger"), path(&name).exists()));
    let block = manager.shared_memory(&name, 512 << 10).unwrap();
    block.fill(0..512 << 10, 1).unwrap();
    parent.say("written");
}

#[test]
fn our_own_processes_share_it_by_handle() {
    let manager = Manager::start().unwrap();
    let name = unique();
    let block = manager.shared_memory(&name, 13).unwrap();
    assert_eq!((block.len().unwrap(), block.name().unwrap()), (13, name.clone()));
    block.write_at(0, b"hello").unwrap();
    let shelf: Dict<String, SharedMemory> = manager.dict([("block".to_string(), block.clone())]).unwrap();
    let mut reader = Role::start("role_reader");
    reader.say(shelf.get("block").unwrap().unwrap().to_owned().token().unwrap());
    reader.expect("hello");
    reader.expect("done");
    assert_eq!(block.to_vec().unwrap(), *b"HELLO\0\0\0\0\0\0\0\0");
    assert_eq!(std::fs::read(path(&name)).unwrap(), block.to_vec().unwrap());
    let object = manager.objects().unwrap().into_iter().find(|object| object.kind == "SharedMemory").unwrap();
    assert_eq!((object.len, object.bytes, manager.stats().unwrap().segment_bytes), (13, 13, 13));
    assert_eq!(object.type_text, format!("SharedMemory {name:?}"));
    let holders: Vec<_> = manager.sessions().unwrap().into_iter().map(|session| session.number).collect();
    assert!(object.id == block.id() && object.holders.iter().any(|(session, _)| holders.contains(session)), "{object:?}");
    // One that was only opened is listed as well, and is nobody's memory here.
    let opened = Manager::start().unwrap();
    let again = opened.open_shared_memory(&name).unwrap();
    let object = opened.objects().unwrap().into_iter().find(|object| object.id == again.id()).unwrap();
    assert_eq!((&object.kind[..], object.len, object.bytes), ("SharedMemory", 13, 0));
    assert_eq!(object.type_text, format!("SharedMemory {name:?}"));
    drop((again, opened));
    let copy = manager.shared_bytes(5).unwrap();
    block.copy_to(0..5, &copy, 0).unwrap();
    assert_eq!(copy.to_vec().unwrap(), b"HELLO");
    manager.audit().unwrap();
    drop((block, shelf));
    until_promptly("the name is gone with the last handle", || !path(&name).exists());
    assert_eq!(manager.stats().unwrap().segment_bytes, copy.len().unwrap() as u64 + 384);
}

#[test]
fn names_are_taken_found_and_given_up() {
    let manager = Manager::in_process().unwrap();
    let name = unique();
    assert!(manager.open_shared_memory(&name).unwrap_err().is_not_found());
    let block = manager.shared_memory(&name, 8).unwrap();
    let error = manager.shared_memory(&name, 8).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    let opened = manager.open_shared_memory(&name).unwrap();
    opened.write_at(3, &[9]).unwrap();
    assert_eq!(block.read(3..4).unwrap(), [9]);
    let token = block.token().unwrap();
    assert!(block.unlink().unwrap() && !opened.unlink().unwrap() && !path(&name).exists());
    // Who has it keeps it; somebody else may take the name, and keeps that.
    std::fs::write(path(&name), b"theirs").unwrap();
    assert_eq!(block.read(3..4).unwrap(), [9]);
    assert!(!block.unlink().unwrap());
    let other = Manager::connect(&manager.address().to_string()).unwrap();
    assert!(other.attach::<SharedMemory>(&token).is_ok(), "a handle needs no name");
    drop((block, opened));
    manager.audit().unwrap();
    assert_eq!(std::fs::read(path(&name)).unwrap(), b"theirs");
    std::fs::remove_file(path(&name)).unwrap();
    for name in ["", "a/b", ".x", "a\0b"] {
        assert!(matches!(manager.shared_memory(name, 8).unwrap_err().kind(), ErrorKind::OutOfRange | ErrorKind::TooLarge), "{name:?}");
    }
    assert_eq!(manager.shared_memory(&unique(), 0).unwrap_err().kind(), ErrorKind::OutOfRange);
    let small = Manager::builder().capacity(8 << 20).in_process().start().unwrap();
    assert_eq!(small.shared_memory(&unique(), 5 << 20).unwrap_err().kind(), ErrorKind::Full);
}

#[test]
fn a_name_that_was_taken_away_is_not_found_by_newcomers() {
    let manager = Manager::start().unwrap();
    let block = manager.shared_memory(&unique(), 8).unwrap();
    block.unlink().unwrap();
    let mut newcomer = Role::start("role_newcomer");
    newcomer.say(block.token().unwrap());
    newcomer.expect("true true");
}

#[test]
fn blocks_of_others_are_left_to_them() {
    let manager = Manager::start().unwrap();
    let name = unique();
    std::fs::write(path(&name), b"0123456789").unwrap();
    let block = manager.open_shared_memory(&name).unwrap();
    assert_eq!((block.to_vec().unwrap(), manager.stats().unwrap().segment_bytes), (b"0123456789".to_vec(), 0));
    block.write_at(9, b"x").unwrap();
    assert_eq!(std::fs::read(path(&name)).unwrap(), b"012345678x");
    drop(block);
    until_promptly("the manager has let it go", || manager.stats().unwrap().segments == 0);
    drop(manager);
    assert!(path(&name).exists(), "it is not ours to remove");
    std::fs::remove_file(path(&name)).unwrap();
    std::fs::write(path(&name), b"").unwrap();
    let manager = Manager::in_process().unwrap();
    assert!(manager.open_shared_memory(&name).unwrap_err().is_not_found());
    std::fs::remove_file(path(&name)).unwrap();
}

#[test]
fn nobodys_death_leaves_a_name() {
    let manager = Manager::start().unwrap();
    // A client's.
    let name = unique();
    let mut client = Role::start("role_client");
    client.say(manager.address());
    client.say(&name);
    client.expect("10");
    assert!(path(&name).exists());
    client.kill();
    until_promptly("the name of a killed client's block is gone", || !path(&name).exists());
    // The program's whose manager it is.
    let mut maker = Role::start("role_maker");
    maker.say(&name);
    assert!(maker.hear().unwrap().starts_with("made"));
    assert!(path(&name).exists());
    maker.kill();
    until_promptly("the name of a killed program's block is gone", || !path(&name).exists());
    // The manager's orderly end.
    let block = manager.shared_memory(&name, 10).unwrap();
    manager.shutdown().unwrap();
    until_promptly("the name of an ended manager's block is gone", || !path(&name).exists());
    assert!(block.len().is_err() || block.read(0..10).is_ok());
}

/// In a mount namespace of its own with a `/dev/shm` of a mebibyte, where the system lets us make one.
#[test]
fn a_small_dev_shm_is_an_error() {
    let script = "mount -t tmpfs -o size=1m tmpfs /dev/shm && exec \"$0\" \"$@\"";
    let may = Command::new("unshare").args(["-rm", "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /dev/shm"]).stderr(Stdio::null()).status();
    if !may.is_ok_and(|status| status.success()) {
        println!("skipped: this system does not let us mount a small /dev/shm");
        return;
    }
    let mut role = Role::start_with("role_in_little_room", |command| {
        let mut inside = Command::new("unshare");
        inside.args(["-rm", "sh", "-c", script]).arg(command.get_program()).args(command.get_args());
        inside.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        inside.stdin(Stdio::piped()).stdout(Stdio::piped());
        *command = inside;
    });
    role.expect("Full true false");
    role.expect("written");
}

/// Python, at the other end of a pair of pipes; none if it is not there.
struct Python {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

const SCRIPT: &str = r#"
import sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
kept = []
for line in sys.stdin:
    word, *rest = line.split()
    if word == "open":
        kept.append(SharedMemory(rest[0]))
        resource_tracker.unregister(kept[-1]._name, "shared_memory")
    elif word == "create":
        kept.append(SharedMemory(rest[0], create=True, size=int(rest[1])))
    elif word == "put":
        kept[-1].buf[int(rest[0])] = int(rest[1])
    elif word == "get":
        print(kept[-1].buf[int(rest[0])], flush=True)
        continue
    elif word == "size":
        print(kept[-1].size, flush=True)
        continue
    elif word == "unlink":
        kept[-1].unlink()
    print("done", flush=True)
for block in kept:
    block.close()
"#;

impl Python {
    fn start() -> Option<Python> {
        let has_it = Command::new("python3").args(["-c", "import multiprocessing.shared_memory"]).stderr(Stdio::null()).status();
        if !has_it.is_ok_and(|status| status.success()) {
            println!("skipped: there is no python3 with multiprocessing.shared_memory");
            return None;
        }
        let mut command = Command::new("python3");
        let mut child = command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Some(Python { child, lines })
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
        self.lines.next().expect("it answers").unwrap()
    }

    fn finish(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn python_opens_ours() {
    let Some(mut python) = Python::start() else { return };
    let manager = Manager::start().unwrap();
    let name = unique();
    let block = manager.shared_memory(&name, 4099).unwrap();
    block.write_at(4098, &[42]).unwrap();
    python.ask(&format!("open {name}"));
    assert_eq!([python.ask("size"), python.ask("get 4098"), python.ask("get 0")], ["4099", "42", "0"]);
    python.ask("put 17 200");
    assert_eq!(block.read(16..19).unwrap(), [0, 200, 0]);
    python.finish();
    assert!(path(&name).exists(), "Python's end does not take it away");
    drop(block);
    until_promptly("the name is gone", || !path(&name).exists());
}

#[test]
fn we_open_pythons() {
    let Some(mut python) = Python::start() else { return };
    let manager = Manager::start().unwrap();
    let name = unique();
    python.ask(&format!("create {name} 1000"));
    python.ask("put 999 7");
    let block = manager.open_shared_memory(&name).unwrap();
    assert_eq!((block.len().unwrap(), block.read(998..1000).unwrap()), (1000, vec![0, 7]));
    block.write_at(0, b"commonhold").unwrap();
    assert_eq!(python.ask("get 9"), b'd'.to_string());
    python.ask("unlink");
    assert!(!block.unlink().unwrap() && !path(&name).exists());
    assert_eq!(block.read(0..10).unwrap(), b"commonhold", "who has it keeps it");
    python.finish();
    drop(block);
    manager.audit().unwrap();
}
