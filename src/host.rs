//! The process in which objects of users' types live: how it is started, and its whole life.
//!
//! | | who makes an object | the process between | the host |
//! |---|---|---|---|
//! | 1 | starts this program again, and sends where the manager is, and its key | starts it once more, and ends | |
//! | 2 | | | connects to the manager, and becomes a host there |
//! | 3 | reads the report: it serves, or another one does | | reports, and closes the socket |
//!
//! It belongs to the manager from then on, and ends with it, whatever becomes of who has started it. If the manager is its program's
//! own, what methods print goes where the program's output goes; a manager with a name outlives the program, and its hosts print nowhere.

use crate::boot;
use commonhold_ipc::auth::AuthKey;
use commonhold_ipc::boot::Start;
use commonhold_ipc::error::Result;
use commonhold_ipc::socket::{Address, Channel};
use commonhold_ipc::sys::{self, Stream};
use commonhold_proxy::Session;
use commonhold_proxy::remote::{HostBegun, run_host};

/// Roles of such processes.
pub(crate) const HOST: &str = "host";
pub(crate) const HOST_AGAIN: &str = "host-again";

fn process(role: &str, prints: bool) -> Start<'_> {
    let stream = || if prints { Stream::Inherit } else { Stream::Null };
    Start {
        program: None,
        role,
        arguments: vec!["commonhold-host".into()],
        environment: std::env::vars_os().collect(),
        streams: [Stream::Null, stream(), stream()],
    }
}

/// Starts a host of this program for a session's manager; returns when there is one.
pub(crate) fn start(session: &Session) -> Result<()> {
    let (between, channel) = process(HOST, session.is_owner()).start()?;
    let hex = |key: &AuthKey| key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let orders = format!("{}\n{}\n", session.address(), session.authkey().map_or(String::new(), hex));
    // If it has died already, that shows when its report is read.
    let _ = boot::send(&channel, orders.as_bytes());
    boot::report_beyond(&channel, "host", &between).map(drop)
}

/// The process between: starts the one that stays, and ends.
pub(crate) fn detach(channel: Channel) -> Result<()> {
    let _ = sys::setsid();
    process(HOST_AGAIN, true).start_with(channel).map(drop)
}

/// A host's whole life.
pub(crate) fn run(channel: Channel) -> Result<()> {
    sys::set_process_name(c"commonhold-host");
    sys::ignore_signals()?;
    sys::raise_nofile_limit();
    match connect(&channel) {
        Ok(session) => {
            let mut channel = Some(channel);
            let began = run_host(session, |begun| {
                if let Some(channel) = channel.take() {
                    let _ = boot::say(&channel, if let HostBegun::Serves = begun { boot::STARTED } else { boot::TAKEN });
                }
            });
            if let (Err(error), Some(channel)) = (&began, &channel) {
                return boot::say_failed(channel, error);
            }
            began
        }
        Err(error) => boot::say_failed(&channel, &error),
    }
}

fn connect(channel: &Channel) -> Result<Session> {
    let orders = String::from_utf8(boot::receive(channel)?).map_err(|_| boot::unreadable())?;
    let (address, key) = orders.split_once('\n').ok_or_else(boot::unreadable)?;
    let bytes = boot::bytes_of(key.trim()).ok_or_else(boot::unreadable)?;
    let key = (!bytes.is_empty()).then(|| AuthKey::new(bytes)).transpose()?;
    Session::connect(&address.parse::<Address>()?, key.as_ref())
}
