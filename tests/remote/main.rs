//! Objects of users' types: calls, panics, circles, lives, deaths, logic beside the data.
#[path = "../support/mod.rs"]
mod support;

mod calls;
mod circles;
mod deaths;
mod hostile;
mod lives;
mod logic;

commonhold::init_in_tests!();
