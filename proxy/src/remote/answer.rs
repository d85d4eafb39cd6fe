//! What comes of a call: waiting for its answer, the result in it, the errors of getting none.

use super::line::{Frame, Got, Line, seal};
use crate::connection::disconnected;
use crate::panics::panicked;
use crate::session::{SessionCore, Stored};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::points;
use commonhold_ipc::value::{Shared, access, to_owned};
use commonhold_ipc::wire::remote::{Answer, Ask, parse_result};
use commonhold_ipc::wire::reply::parse_error;
use commonhold_ipc::wire::{HEAD_BYTES, Reader, malformed};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often who waits for a host looks whether there is still one to wait for: a stopped host does not see that the manager has ended, and one that
/// was killed may have left a forked child which still has its end of the line.
pub(super) const LOOK: Duration = Duration::from_millis(1_000);

/// The frame by which a client says that it holds what an answer had handles on.
pub(super) fn taken(number: u64) -> Result<[u8; HEAD_BYTES]> {
    let mut frame = [0; HEAD_BYTES];
    seal(&mut frame, Ask::Taken as u8, true, number)?;
    Ok(frame)
}

/// The frame by which a client says that a call ahead is not wanted any more, if it has not begun.
pub(super) fn call_off(number: u64) -> Result<[u8; HEAD_BYTES]> {
    let mut frame = [0; HEAD_BYTES];
    seal(&mut frame, Ask::CallOff as u8, true, number)?;
    Ok(frame)
}

/// The result of a call. `say` sends the host what the answer asks for; one that is gone does not need it.
pub(super) fn result<R: Shared>(session: &Arc<SessionCore>, (head, payload): &Frame, say: impl FnOnce(&[u8])) -> Result<R> {
    let mut read = Reader::new(payload);
    match Answer::from_code(head.code) {
        Some(Answer::Done) => {
            let (handles, archive) = parse_result(payload).ok_or_else(|| malformed("result"))?;
            let held = handles.iter().map(|id| Stored::new(session, id)).collect::<Result<Vec<_>>>();
            // Its host holds them until it is told: they are gone if it is.
            let held = held.map_err(|error| if error.kind() == ErrorKind::NotFound { host_gone(session) } else { error })?;
            let value = to_owned::<R>(access::<R>(archive)?, Some(session.clone()));
            points::client("remote: answered, not yet taken");
            if !held.is_empty() {
                say(&taken(head.number)?);
                points::client("remote: taken");
            }
            Ok(value)
        }
        Some(Answer::Failed) => Err(parse_error(&mut read).unwrap_or_else(|| malformed("result"))),
        Some(Answer::Panicked) => {
            let mut text = || Some(String::from_utf8_lossy(read.bytes()?).into_owned());
            let (message, backtrace) = text().zip(text()).ok_or_else(|| malformed("result"))?;
            Err(panicked(message, &backtrace))
        }
        Some(Answer::Begun) | None => Err(malformed("result")),
    }
}

/// The error of a call whose host is gone.
pub(super) fn host_gone(session: &SessionCore) -> Error {
    if !session.is_alive() {
        return disconnected();
    }
    let text = "the host process, where the object's methods run, has ended, and its objects with it: whether a call that was under \
                way took effect is lost with them. Make a new object; the manager's own are not touched";
    Error::new(ErrorKind::Died, text)
}

/// Fails if there is nobody to wait for any more. What was sent before is still there.
fn look(session: &SessionCore, line: &Line) -> Result<()> {
    if !session.is_alive() {
        return Err(disconnected());
    }
    if line.host().is_some_and(|host| host.has_ended(session)) { Err(host_gone(session)) } else { Ok(()) }
}

/// When to look next, or the deadline.
fn next_look(deadline: Option<Instant>) -> Option<Instant> {
    let next = Instant::now() + LOOK;
    Some(deadline.map_or(next, |deadline| deadline.min(next)))
}

/// Sends a frame, and looks now and then while there is no room for it. `false`: the deadline passed, and the line is of no use any more.
///
/// # Errors
/// `Died` if the host has ended, `Disconnected` if the manager has.
pub(super) fn send(session: &SessionCore, line: &mut Line, mut bytes: &[u8], deadline: Option<Instant>) -> Result<bool> {
    while !bytes.is_empty() {
        let sent = line.send(bytes, || next_look(deadline)).map_err(|_| host_gone(session))?;
        bytes = &bytes[sent..];
        if !bytes.is_empty() {
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(false);
            }
            look(session, line)?;
        }
    }
    Ok(true)
}

/// Waits for a frame, and looks now and then. `None`: not until the deadline.
///
/// # Errors
/// As [`send`].
pub(super) fn wait(session: &SessionCore, line: &mut Line, deadline: Option<Instant>) -> Result<Option<Frame>> {
    let mut looked = Ok(());
    loop {
        let until = || if looked.is_ok() { next_look(deadline) } else { Some(Instant::now()) };
        match line.wait(until)? {
            Got::Frame(frame) => return Ok(Some(frame)),
            Got::Ended => return Err(host_gone(session)),
            Got::Nothing => {
                // Nor has it come meanwhile.
                looked?;
                looked = look(session, line);
                if looked.is_ok() && deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    return Ok(None);
                }
            }
        }
    }
}

/// The error of a call that took too long.
pub(super) fn timed_out(timeout: Option<Duration>) -> Error {
    let text = format!(
        "the call was not answered within {:?}: if its method had begun, it is run to its end; else it is not run",
        timeout.unwrap_or_default()
    );
    Error::new(ErrorKind::TimedOut, text)
}
