//! A value on its way between two processes, and the objects that handles in it name.
//!
//! Whoever packs a value holds its objects until the other side has said that it does; whoever unpacks it holds them before it says
//! so. The label says where the managers are, with the key that they ask for: the socket is private to the two processes.

use super::message::Packed;
use crate::connection::disconnected;
use crate::request::Request;
use crate::session::{SessionCore, Stored};
use commonhold_ipc::auth::AuthKey;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::socket::Address;
use commonhold_ipc::value::{Shared, access, to_owned};
use commonhold_ipc::wire::Call;
use std::os::fd::OwnedFd;

/// Handles as (manager, id), and their managers as (number, address, key).
pub(crate) type Label = (Vec<(u64, u64)>, Vec<(u64, String, Option<Vec<u8>>)>);

/// A value, ready to be sent.
pub(super) struct Parcel {
    pub(super) value: Packed,
    pub(super) label: Label,
    /// Keeps the objects alive until the other side holds them.
    pub(super) held: Vec<Stored>,
}

impl Parcel {
    /// Packs a value.
    ///
    /// # Errors
    /// `TooLarge`; `Disconnected` if it has a handle of a manager that is gone, or that this process has no connection to.
    pub(super) fn pack<T: Shared>(value: &T) -> Result<Parcel> {
        let (value, handles) = Packed::pack(value)?;
        let (label, held) = label_of(handles)?;
        Ok(Parcel { value, label, held })
    }
}

/// The label of a value with these handles, as (manager, id), and what keeps their objects alive.
///
/// # Errors
/// `Disconnected` if a manager is gone, or this process has no connection to it.
pub(crate) fn label_of(mut handles: Vec<(u64, u64)>) -> Result<(Label, Vec<Stored>)> {
    handles.sort_unstable();
    handles.dedup();
    let (mut held, mut managers) = (Vec::new(), Vec::<(u64, String, Option<Vec<u8>>)>::new());
    for (manager, id) in &handles {
        let session = SessionCore::of_manager(*manager).ok_or_else(|| {
            let text = format!(
                "a handle on object {id} of a manager that this process has no connection to cannot be passed on: connect to it first"
            );
            Error::new(ErrorKind::Disconnected, text)
        })?;
        session.check()?;
        held.push(Stored::new(&session, *id)?);
        if managers.last().is_none_or(|(last, ..)| last != manager) {
            let key = session.authkey.as_ref().map(|key| key.as_bytes().to_vec());
            managers.push((*manager, session.address.to_string(), key));
        }
    }
    Ok(((handles, managers), held))
}

/// Has the managers keep a label's objects for a process that is to be started: what is to be passed to it.
///
/// # Errors
/// `Disconnected` if a manager is gone; `Full` if it keeps too much already; `System`.
pub(super) fn entrust((handles, managers): &Label) -> Result<Vec<OwnedFd>> {
    let entrust = |(number, ..): &(u64, String, Option<Vec<u8>>)| {
        let session = SessionCore::of_manager(*number).ok_or_else(disconnected)?;
        let mut request = Request::new(Call::Entrust);
        for (_, id) in handles.iter().filter(|(manager, _)| manager == number) {
            request.payload().extend_from_slice(&id.to_le_bytes());
        }
        session.call_for_descriptor(&mut request).map(|(_, end)| end)
    };
    managers.iter().map(entrust).collect()
}

/// Holds the objects of a label, through sessions of this process.
pub(crate) fn hold((handles, managers): &Label) -> Result<Vec<Stored>> {
    let mut held = Vec::new();
    for (number, address, key) in managers {
        let session = match SessionCore::of_manager(*number) {
            Some(session) => session,
            None => {
                let key = key.clone().map(AuthKey::new).transpose()?;
                let session = SessionCore::connect(&address.parse::<Address>()?, key.as_ref(), true)?;
                if session.manager() != *number {
                    let text = format!(
                        "the manager at {address} is another than the one that a handle belongs to: that one has ended, and its objects with it"
                    );
                    return Err(Error::new(ErrorKind::NotFound, text));
                }
                session
            }
        };
        for (_, id) in handles.iter().filter(|(manager, _)| manager == number) {
            held.push(Stored::new(&session, *id)?);
        }
    }
    Ok(held)
}

/// Makes the value of its bytes. The handles in it are bound at once if their objects are held.
pub(crate) fn unpack<T: Shared>(bytes: &[u8]) -> Result<T> {
    Ok(to_owned::<T>(access::<T>(bytes)?, None))
}
