//! The beginning of `main`, where processes that this library starts branch off.

use crate::{boot, host};
use commonhold_ipc::boot::{VARIABLE, enter};
use commonhold_ipc::error::{Error, ErrorKind};
use commonhold_ipc::socket::Channel;
use commonhold_proxy::process;

/// The first line of every `main`.
///
/// A manager and every [`Process`](crate::Process) is a process of its own, which is this same program, started again: there, `init`
/// does not return. In all other processes it does nothing but remember that it was called. Whatever stands before it in `main` runs
/// in every such process, too.
///
/// Test files, whose `main` is the harness's, have [`init_in_tests!`](crate::init_in_tests) instead.
///
/// ```
/// fn main() {
///     commonhold::init();
/// }
/// ```
#[allow(clippy::needless_doctest_main)] // that it stands in `main` is what the example shows
pub fn init() {
    commonhold_proxy::remote::set_starter(host::start);
    match enter() {
        Ok(None) => {}
        Ok(Some((role, channel))) if role == process::ROLE => process::run(channel),
        Ok(Some((role, channel))) => run(&role, channel),
        Err(error) => fail(&error),
    }
}

/// The whole life of a process that was started in a role.
fn run(role: &str, channel: Channel) -> ! {
    let ended = match role {
        boot::MANAGER => boot::manager(channel),
        boot::DETACHED => boot::detach(channel),
        boot::DETACHED_AGAIN => boot::detached(channel),
        host::HOST => host::detach(channel),
        host::HOST_AGAIN => host::run(channel),
        _ => {
            let text = format!("the environment has {VARIABLE} with the role {role:?}, and this build knows no such: unset that variable");
            Err(Error::new(ErrorKind::Other, text))
        }
    };
    match ended {
        Ok(()) => std::process::exit(0),
        Err(error) => fail(&error),
    }
}

/// Ends a process that cannot be what it was started for.
fn fail(error: &Error) -> ! {
    eprintln!("commonhold: {error}");
    std::process::exit(1)
}

/// [`init`] for test files, whose `main` is the test harness's: processes that this library starts branch off before it. Once per test file, at
/// its top; also for benches.
///
/// ```
/// commonhold::init_in_tests!();
/// ```
#[macro_export]
macro_rules! init_in_tests {
    () => {
        #[allow(unsafe_code)] // a link section is how code runs before `main`; what it runs is safe
        const _: () = {
            extern "C" fn begin() {
                $crate::init();
            }
            #[used]
            #[unsafe(link_section = ".init_array")]
            static BEGIN: extern "C" fn() = begin;
        };
    };
}
