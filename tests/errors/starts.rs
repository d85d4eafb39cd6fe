//! Of programs that are started and are not what they should be: strange environments, strange orders, strange reports.

use super::support::write_program;
use super::{ErrorKind, Manager, says};
use commonhold_ipc::boot::{Start, VARIABLE};
use commonhold_ipc::sys::{End, Stream};
use std::io::{Read, Seek};
use std::process::Command;

/// What this program complains of when it is started in this role, and this is what it is told.
fn complaint(role: &str, message: Option<&str>) -> String {
    let mut errors = tempfile::tempfile().unwrap();
    let stderr = Stream::from(errors.try_clone().unwrap());
    let environment = std::env::vars_os().collect();
    let start =
        Start { program: None, role, arguments: vec!["complains".into()], environment, streams: [Stream::Null, Stream::Null, stderr] };
    let (child, channel) = start.start().unwrap();
    if let Some(message) = message {
        channel.send(&[&(message.len() as u32).to_le_bytes(), message.as_bytes()].concat()).unwrap();
    }
    drop(channel);
    assert_eq!(child.wait(None).unwrap(), Some(End::Code(1)));
    let mut said = String::new();
    errors.rewind().unwrap();
    errors.read_to_string(&mut said).unwrap();
    said
}

#[test]
fn of_environments_and_orders() {
    let unknown =
        "commonhold: the environment has COMMONHOLD_BOOT with the role \"juggler\", and this build knows no such: unset that variable\n";
    assert_eq!(complaint("juggler", None), unknown);
    let strange = "commonhold: the environment has COMMONHOLD_BOOT=yes, which is not what this library sets: unset that variable\n";
    let output = Command::new(std::env::current_exe().unwrap()).env(VARIABLE, "yes").output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(1), strange));
    let ended = "commonhold: the process at the other end of the socket has ended before all of its message was there\n";
    assert_eq!(complaint("manager", None), ended);
    let unreadable = "commonhold: the orders of who has started this process cannot be read: was that another build? Start the very same \
                      executable\n";
    assert_eq!(complaint("manager", Some("juggle")), unreadable);
}

#[test]
fn of_reports() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    let started = |says: &str| {
        write_program(&program, format!("#!/bin/bash\nprintf '{says}' >&\"${{COMMONHOLD_BOOT##*:}}\"\n"));
        Manager::builder().executable(&program).start()
    };
    let unreadable = "the manager's process sent a report that cannot be read: start the very same executable";
    says(started(r"\0\0\0\0"), ErrorKind::Corrupt, unreadable);
    says(started(r"\1\0\0\0!"), ErrorKind::Corrupt, unreadable);
    says(
        started(r"\377\377\377\377"),
        ErrorKind::System,
        "the manager's process did not report: it claims to send 4294967295 bytes, and a message has at most 65536: start the very same \
         executable ({…}); does `main` call `commonhold::init()` before anything else?",
    );
    says(
        started(""),
        ErrorKind::System,
        "the manager's process did not report: the process at the other end of the socket has ended before all of its message was there \
         ({…}exit code 0); does `main` call `commonhold::init()` before anything else?",
    );
}
