//! Objects of users' types: calls, panics, circles, lives, deaths, logic beside the data, several programs.
#[path = "../support/mod.rs"]
mod support;

mod bombs;
mod calls;
mod cancel;
mod circles;
mod deaths;
mod forks;
mod hostile;
mod liars;
mod lives;
mod logic;
mod points;
mod programs;
mod settle;

commonhold::init_in_tests!();

/// Whether nothing shall go by shared memory: so that the same tests can be run on that road.
fn by_socket() -> bool {
    std::env::var("COMMONHOLD_TEST_ROAD").is_ok_and(|road| road == "socket")
}

fn manager() -> commonhold::Manager {
    manager_or_error().unwrap()
}

fn manager_or_error() -> commonhold::Result<commonhold::Manager> {
    commonhold::Manager::builder().lanes(!by_socket()).start()
}
