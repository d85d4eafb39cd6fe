//! Whoever has to do with named blocks is killed, and stopped, at each of its counted points.

use crate::support::{Parent, Role, Watched, children_of, files_in, signal_to, state_of, until, until_promptly};
use crate::{path, unique};
use commonhold::Manager;
use commonhold_ipc::points::{CLIENT_STOP_VARIABLE, CLIENT_VARIABLE, MANAGER_STOP_VARIABLE, MANAGER_VARIABLE};
use commonhold_ipc::runtime::RUNTIME_DIR_VARIABLE;
use rustix::process::Signal;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A runtime directory of its own.
fn runtime_directory() -> (tempfile::TempDir, PathBuf) {
    let temporary = tempfile::tempdir().unwrap();
    let run = temporary.path().join("run");
    std::fs::DirBuilder::new().mode(0o700).create(&run).unwrap();
    (temporary, run)
}

/// A process with a manager in this directory that makes a block.
fn maker(run: &Path, name: &str, variable: Option<(&str, u64)>) -> Role {
    let mut maker = Role::start_with("role_maker", |command| {
        command.env(RUNTIME_DIR_VARIABLE, run);
        command.envs(variable.map(|(variable, point)| (variable, point.to_string())));
    });
    maker.say(name);
    maker
}

/// Makes a block in somebody's manager, uses it, opens it, takes its name away.
#[test]
fn role_user() {
    let Some(mut parent) = Parent::of("points::role_user") else { return };
    let (address, name) = (parent.hear(), parent.hear());
    let manager = Manager::connect(&address).unwrap();
    let block = manager.shared_memory(&name, 100).unwrap();
    block.write_at(10, &[1; 80]).unwrap();
    let opened = manager.open_shared_memory(&name).unwrap();
    assert_eq!(opened.read(9..91).unwrap(), block.read(9..91).unwrap());
    drop(opened);
    assert!(block.unlink().unwrap());
    block.fill(0..100, 7).unwrap();
    drop(block);
    drop(manager);
    parent.say("done");
}

/// A manager is killed at each of its points while it makes a block, and then afterwards: the next one clears away what it left.
#[test]
fn what_a_killed_manager_leaves_is_swept() {
    let (_temporary, run) = runtime_directory();
    let name = unique();
    let mut deaths = 0;
    for point in 1.. {
        let mut doomed = maker(&run, &name, Some((MANAGER_VARIABLE, point)));
        let said = doomed.hear();
        let made = said.as_deref().and_then(|said| said.strip_prefix("made "));
        if let Some(manager) = made {
            Watched::of(manager.parse().unwrap()).kill();
            assert!(path(&name).exists(), "a killed manager leaves it");
        } else {
            deaths += 1;
        }
        doomed.kill();
        // The next one may even have the same name.
        let mut next = maker(&run, &name, None);
        assert!(next.hear().unwrap().starts_with("made"));
        assert_eq!(files_in(&run).len(), 1, "its own record and no other");
        next.kill();
        until_promptly("nothing is left", || !path(&name).exists() && files_in(&run).is_empty());
        if made.is_some() {
            break;
        }
    }
    assert!(deaths >= 2, "only {deaths} points");
}

/// A manager is stopped at each of its points until it has made a block: what is its own stays its own meanwhile, and others make theirs.
#[test]
fn a_stopped_manager_is_not_swept_and_keeps_nobody() {
    let (_temporary, run) = runtime_directory();
    let mut stops = 0;
    for point in 1.. {
        let name = unique();
        let mut lame = maker(&run, &name, Some((MANAGER_STOP_VARIABLE, point)));
        let mut stopped = None;
        let mut said = None;
        until("its manager stops, or has made the block", || {
            stopped = children_of(lame.pid()).into_iter().find(|pid| state_of(*pid) == Some('T'));
            said = said.take().or_else(|| lame.has_said());
            stopped.is_some() || said.is_some()
        });
        if let Some(manager) = stopped {
            stops += 1;
            let had = path(&name).exists();
            let other = unique();
            let mut next = maker(&run, &other, None);
            assert!(next.hear().unwrap().starts_with("made"));
            assert_eq!((path(&name).exists(), path(&other).exists()), (had, true), "nobody has swept it");
            next.kill();
            until_promptly("the other's name is gone", || !path(&other).exists());
            signal_to(manager, Signal::CONT);
        }
        let said = said.or_else(|| lame.hear()).unwrap();
        let manager: u32 = said.strip_prefix("made ").unwrap_or_else(|| panic!("{said}")).parse().unwrap();
        assert!(path(&name).exists());
        let watched = Watched::of(manager);
        lame.kill();
        until("its manager ends", || {
            // It may reach its point only now.
            if state_of(manager) == Some('T') {
                signal_to(manager, Signal::CONT);
            }
            watched.has_ended()
        });
        assert!(!path(&name).exists() && files_in(&run).is_empty(), "nothing is left");
        if stopped.is_none() {
            break;
        }
    }
    assert!(stops >= 2, "only {stops} points");
}

/// Has users killed or stopped at each of their points, while others go on. How many points there are.
fn users_at_each_point(variable: &str) -> u64 {
    let manager = Manager::start().unwrap();
    for point in 1.. {
        let name = unique();
        let mut user = Role::start_with("points::role_user", |command| {
            command.env(variable, point.to_string());
        });
        user.say(manager.address());
        user.say(&name);
        let watched = Watched::of(user.pid());
        let mut stopped = false;
        until("it stops or ends", || {
            stopped = state_of(watched.pid) == Some('T');
            stopped || watched.has_ended()
        });
        // Others make, open and unlink theirs; this one they find whole or not at all.
        let other = manager.shared_memory(&unique(), 64).unwrap();
        other.write_at(0, &[3; 64]).unwrap();
        assert_eq!(manager.open_shared_memory(&other.name().unwrap()).unwrap().to_vec().unwrap(), [3; 64]);
        assert!(other.unlink().unwrap());
        match manager.open_shared_memory(&name) {
            Ok(block) => assert_eq!(block.len().unwrap(), 100),
            Err(error) => assert!(error.is_not_found(), "{error}"),
        }
        if stopped {
            user.signal(Signal::CONT);
        }
        let done = user.hear().is_some_and(|said| said == "done");
        let whole = user.end().success();
        assert_eq!((done, stopped || variable == CLIENT_VARIABLE || whole), (whole, true));
        drop(other);
        until_promptly("its name is gone, and all blocks", || !path(&name).exists() && manager.stats().unwrap().segments == 0);
        manager.audit().unwrap();
        if whole && !stopped {
            return point - 1;
        }
        assert!(stopped == whole, "who is stopped goes on, who is killed does not");
    }
    unreachable!("points end")
}

#[test]
fn a_killed_user_leaves_no_name() {
    let deaths = users_at_each_point(CLIENT_VARIABLE);
    assert!(deaths >= 4, "only {deaths} points");
}

#[test]
fn a_stopped_user_keeps_nobody() {
    let stops = users_at_each_point(CLIENT_STOP_VARIABLE);
    assert!(stops >= 4, "only {stops} points");
}
