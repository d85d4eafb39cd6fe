//! Processes of a program with a `main` of its own: the ends of parents, stolen waits, storms, forks, deaths at counted points.
//!
//! Without a harness. Started with the name of a role, this is the program that a check looks at.
mod deaths;
mod failures;
mod forks;
mod many;
mod parents;
mod rights;
mod strays;
#[path = "../support/mod.rs"]
mod support;
mod waits;

use commonhold::{
    ChildSpec, ChildrenGuard, ErrorKind, List, Manager, Pool, Process, Queue, ResourceLimit, RestartStrategy, Stream, Supervisor,
    SupervisorEvent, active_children, current_process, parent_process,
};
use commonhold_ipc::points::CLIENT_VARIABLE;
use deaths::*;
use failures::*;
use forks::*;
use many::*;
use parents::*;
use rights::*;
use rustix::process::{Signal, WaitOptions, waitpid};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use strays::*;
use support::{ControlGroup, Doomed, PATIENCE, PROMPT, WELL, Watched, files_in, forked, signal_to, state_of, stop, until, write_program};
use waits::*;

fn main() {
    let begun = std::env::args().nth(1).filter(|role| role == "says-before-init");
    if begun.is_some() {
        println!("before");
    }
    go_astray();
    commonhold::init();
    match std::env::args().nth(1).as_deref() {
        Some("says-before-init") => says_before_init(),
        Some("daemons") => daemons(std::env::args().nth(2).unwrap().parse().unwrap()),
        Some("orphan") => orphan(),
        Some("litter") => litter(),
        Some("guard") => guard(),
        Some("thief") => thief(),
        Some("ignored") => ignored(),
        Some("storm") => storm_of_processes(std::env::args().nth(2).unwrap().parse().unwrap()),
        Some("confined") => storm_in_little_memory(),
        Some("dies") => dies_on_the_way(),
        Some("privileged") => privileged(),
        Some("fails") => fails(&std::env::args().nth(2).unwrap()),
        Some("counts-processors") => {
            wait_for_word();
            println!("{}", commonhold::cpu_count());
        }
        Some("leaves-a-failure") => leaves_a_failure(),
        Some("ends-before-its-daemon") => ends_before_its_daemon(),
        Some("starts-strays") => starts_strays(),
        Some("hears-noise") => hears_noise(),
        Some("lets-go") => lets_go_at_the_same_moment(),
        Some("without-init") => println!("it went on"),
        // Words of a harness, which there is none of.
        _ => checks(),
    }
}

type Check = (&'static str, fn());

fn checks() {
    let checks: [Check; 26] = [
        ("daemons end with their parent, others do not", daemons_end_with_their_parent),
        ("daemons that are stopped end with their parent", stopped_daemons_end_with_their_parent),
        ("daemons do not end with the thread that started them", daemons_outlive_their_thread),
        ("a child sees its parent end", a_child_sees_its_parent_end),
        ("a parent that is killed leaves no file behind", no_file_is_left),
        ("a guard waits for children", a_guard_waits),
        ("what stands before init runs in children, too", before_init),
        ("somebody else's wait costs only the exit code", a_stolen_wait),
        ("an ignored SIGCHLD costs only the exit code", an_ignored_signal),
        ("failures that nobody joins are told", failures_are_told),
        ("failures that nobody joins are told once", failures_are_told_once),
        ("a daemon that ends with its parent tells nothing", daemons_that_end_with_their_parent_tell_nothing),
        ("a failure behind the parent's end is told", failures_behind_the_parents_end_are_told),
        ("processors of a control group", processors_of_a_group),
        ("200 children at once", many_at_once),
        ("storms end in errors", storms_end_in_errors),
        ("a storm of more processes than there may be", storms_at_the_limit_of_processes),
        ("a storm in a memory control group", storms_in_a_memory_group),
        ("forked children", forked_children),
        ("children killed at every point", children_die_everywhere),
        ("parents killed at every point leave nothing behind", parents_die_everywhere),
        ("lines of children are whole", whole_lines),
        ("runners of checks one by one find them", checks_one_by_one),
        ("a program with rights beyond its user's", rights_beyond),
        ("who is started and never comes to init is ended", strays_are_ended),
        ("a child that says what cannot be read ends like others", noise_is_an_end_like_others),
    ];
    // As the standard harness has it, also for runners that have each check in a process of its own.
    let words: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| words.iter().any(|other| other == word);
    let wanted = words.iter().find(|word| !word.starts_with('-') && *word != "terse");
    if has("--list") {
        let checks = checks.iter().filter(|_| !has("--ignored"));
        return checks.for_each(|(name, _)| println!("{name}: test"));
    }
    let is_wanted = |name: &str| wanted.is_none_or(|wanted| if has("--exact") { name == wanted } else { name.contains(wanted.as_str()) });
    for (name, check) in checks {
        if is_wanted(name) {
            let begin = Instant::now();
            check();
            println!("{name}: ok, {:.1} s", begin.elapsed().as_secs_f64());
        }
    }
    assert!(active_children().is_empty(), "{:?}", active_children());
}

/// This program in a role.
fn role(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(name).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Goes on whatever its parent does.
fn endure() {
    loop {
        std::thread::park();
    }
}

/// As cargo-nextest does it.
fn checks_one_by_one() {
    let run = |words: &[&str]| {
        let output = Command::new(std::env::current_exe().unwrap()).args(words).env("NEXTEST", "1").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let listed = run(&["--list", "--format", "terse"]);
    assert!(listed.lines().all(|line| line.ends_with(": test")) && listed.contains("\na guard waits for children: test\n"), "{listed}");
    assert_eq!(run(&["--list", "--format", "terse", "--ignored"]), "");
    let said = run(&["--exact", "a guard waits for children", "--nocapture"]);
    assert!(said.lines().count() == 1 && said.starts_with("a guard waits for children: ok"), "{said}");
}
