//! Queues: one body of tests over threads of one process, children, and processes that have nothing to do with each other; against a
//! model; then deaths and stops at every counted point, and segments that somebody writes over.

mod bodies;
mod deaths;
#[allow(dead_code)] // The tests of locks use more of it.
#[path = "../sync/fates.rs"]
mod fates;
mod handles;
mod model;
#[allow(dead_code)] // As above.
#[path = "../sync/players.rs"]
mod players;
mod scribbles;
mod sizes;
mod soak;
#[path = "../support/mod.rs"]
mod support;
mod unsent;
#[path = "../sync/vandal.rs"]
mod vandal;

commonhold::init_in_tests!();

/// What players can be told to play.
fn part(name: &str) -> players::Part {
    let parts = [bodies::PARTS, deaths::PARTS, handles::PARTS, sizes::PARTS, soak::PARTS].concat();
    parts.into_iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no part {name}")).1
}
