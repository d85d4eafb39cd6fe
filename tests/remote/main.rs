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

/// A manager. When `COMMONHOLD_TEST_ROAD` is `socket`, nothing goes by shared memory: so that the same tests can be run on that road.
fn manager() -> commonhold::Manager {
    let by_socket = std::env::var("COMMONHOLD_TEST_ROAD").is_ok_and(|road| road == "socket");
    commonhold::Manager::builder().lanes(!by_socket).start().unwrap()
}
