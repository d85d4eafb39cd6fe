//! The lock of a manager's name between processes: exclusive, gone with a SIGKILL, and never held twice in a race.
//!
//! The other processes are this test program itself, with a role and the directory in environment variables.
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use commonhold_ipc::runtime::{NameLock, RUNTIME_DIR_VARIABLE, RuntimeDir};
use commonhold_ipc::socket::Listener;

const ROLE: &str = "COMMONHOLD_TEST_NAME_LOCK_ROLE";
const NAME: &str = "weather station";
const ROUNDS: usize = 200;

/// The other processes: nothing to test without a role.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let directory = RuntimeDir::open().unwrap();
    match role.as_str() {
        "holder" => {
            let lock = NameLock::try_acquire(&directory, NAME).unwrap().unwrap();
            let _listener = Listener::bind(lock.address()).unwrap();
            std::io::stdout().write_all(b"\nheld\n").unwrap();
            // Until the parent kills us, or is gone itself.
            std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
        }
        "racer" => {
            let mark = directory.path().join("inside");
            let mut held = 0;
            while held < ROUNDS {
                let Some(lock) = NameLock::try_acquire(&directory, NAME).unwrap() else {
                    std::thread::yield_now();
                    continue;
                };
                std::fs::OpenOptions::new().write(true).create_new(true).open(&mark).expect("nobody else is inside");
                lock.remove_leftover_socket().unwrap();
                let listener = Listener::bind(lock.address()).unwrap();
                std::fs::remove_file(&mark).unwrap();
                held += 1;
                // By turns as in an orderly end and as in a death.
                if held % 2 == 0 {
                    lock.remove().unwrap();
                }
                drop(listener);
            }
        }
        other => panic!("{other} is not a role"),
    }
}

fn start(role: &str, directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "role", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(RUNTIME_DIR_VARIABLE, directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_killed_holder_leaves_the_name_to_the_next() {
    let place = tempfile::tempdir().unwrap();
    let directory = RuntimeDir::at(&place.path().join("runtime")).unwrap();
    let mut holder = start("holder", directory.path());
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "held"));

    assert!(NameLock::try_acquire(&directory, NAME).unwrap().is_none());
    assert_eq!(directory.list().unwrap(), [(NAME.to_owned(), true)]);
    holder.kill().unwrap();
    holder.wait().unwrap();

    assert_eq!(directory.list().unwrap(), [(NAME.to_owned(), false)]);
    let lock = NameLock::try_acquire(&directory, NAME).unwrap().unwrap();
    assert!(lock.remove_leftover_socket().unwrap());
    Listener::bind(lock.address()).unwrap();
    lock.remove().unwrap();
    assert!(directory.list().unwrap().is_empty());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn of_racing_processes_one_at_a_time_holds_the_name() {
    let place = tempfile::tempdir().unwrap();
    let directory = RuntimeDir::at(&place.path().join("runtime")).unwrap();
    let racers: Vec<Child> = (0..3).map(|_| start("racer", directory.path())).collect();
    for racer in racers {
        let output = racer.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}
