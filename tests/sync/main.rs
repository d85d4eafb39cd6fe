//! Locks and their kin: one body of tests over threads of one process, children, and processes that have nothing to do with each
//! other; then deaths, at every counted point.

mod segments;
#[path = "../support/mod.rs"]
mod support;

commonhold::init_in_tests!();
