//! The sync words, run in every order that loom finds: one at a time under a lock, no wake-up lost, whoever dies wherever.
//!
//! The crate's own algorithms run on a model of a segment: loom's atomics, and a futex made of loom's mutex and condition. No
//! sleep here ever ends by its time, so a lost wake-up is a deadlock, which loom reports. Who dies stops between two steps, or his
//! wake-ups come to nothing; then the recovery runs. The canaries leave something out and must be caught.
//!
//! The real accesses are all SeqCst, so they happen in one order. Loom takes SeqCst for AcqRel, and when it decides what to try
//! in another order it forgets a load behind which the other thread loads before it exchanges. Both are avoided by loads that are
//! exchanges, too: those see the newest value, and all of them count.

mod barrier;
mod condition;
mod event;
mod eventcount;
mod lock;
mod rwlock;
mod segment;
mod semaphore;
mod several;

use loom::model::Builder;
use std::process::{Command, Output};

fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    // Most mistakes of such protocols show with two or three switches; without a bound the model takes hours.
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// A deadlock ends loom's process, so each canary has one of its own.
#[test]
fn canaries_end_in_a_deadlock() {
    let run = |arguments: &[&str]| -> Output { Command::new(std::env::current_exe().unwrap()).args(arguments).output().unwrap() };
    let listed = String::from_utf8(run(&["--list", "--ignored"]).stdout).unwrap();
    let canaries: Vec<&str> = listed.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    assert!(!canaries.is_empty(), "{listed}");
    for canary in canaries {
        let ended = run(&["--exact", canary, "--ignored", "--test-threads=1", "--nocapture"]);
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success() && said.contains("deadlock; threads"), "{canary}: {said}");
    }
}
