//! Locks and their kin: one body of tests over threads of one process, children, and processes that have nothing to do with each
//! other; then deaths, at every counted point.

mod barrier;
mod condition;
mod event;
mod fates;
mod lock;
mod players;
mod rlock;
mod rwlock;
mod segments;
mod semaphore;
mod soak;
#[path = "../support/mod.rs"]
mod support;
mod vandal;

commonhold::init_in_tests!();

/// What players can be told to play.
fn part(name: &str) -> players::Part {
    let parts =
        [lock::PARTS, rlock::PARTS, rwlock::PARTS, semaphore::PARTS, condition::PARTS, event::PARTS, barrier::PARTS, soak::PARTS].concat();
    parts.into_iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no part {name}")).1
}
