//! Luggage: objects that a process was given when it was started, until it holds them itself.
//!
//! Whoever starts a process asks for a socket's end that keeps objects (`Call::Entrust`), passes it to the process on the way that the
//! arguments take, and has it no more. The objects are held until that end is shut down, as the process does when its own session
//! holds them, or closed, as the kernel does when the process is gone, or when nobody is there to receive it. So what was given counts
//! as the receiver's from the beginning: whoever gave it need not be told of the receiver's death, nor live, nor look.

use super::calls::Done;
use super::{Connection, Server, token, token_of};
use crate::objects::gone;
use crate::store::Store;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::LUGGAGE_MAX;
use commonhold_ipc::poller::Interest;
use commonhold_ipc::socket::{Channel, Received};
use commonhold_ipc::wire::Words;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Objects on their way to a process.
pub(super) struct Luggage {
    /// Nothing is said on it.
    channel: Channel,
    ids: Vec<u64>,
}

impl Luggage {
    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Whether it is still on its way. Who says something has no business here.
    pub(super) fn is_kept(&self) -> bool {
        matches!(self.channel.receive(&mut [0]), Ok(Received::Nothing))
    }

    /// The process holds what it needs, or is gone.
    pub(super) fn end(self, store: &mut Store) {
        self.ids.into_iter().for_each(|id| store.release(id));
    }
}

impl Server {
    /// Keeps objects that a session holds for a process that it is about to start.
    pub(super) fn entrust(&mut self, index: usize, ids: Words<'_>) -> Done {
        let Some(Some(Connection::Session(session))) = self.connections.get(index) else { return Done::Nonsense };
        if let Some(strange) = ids.iter().find(|id| !session.holds(*id)) {
            return Done::Failed(gone(strange));
        }
        match self.keep(ids.iter().collect()) {
            Ok(end) => Done::Attached(Arc::new(end), 0),
            Err(error) => Done::Failed(error),
        }
    }

    fn keep(&mut self, mut ids: Vec<u64>) -> Result<OwnedFd> {
        if self.connections.iter().flatten().filter(|connection| matches!(connection, Connection::Luggage(_))).count() >= LUGGAGE_MAX {
            let text = format!("{LUGGAGE_MAX} processes were given handles and have not begun, the most there can be: are they stopped?");
            return Err(Error::new(ErrorKind::Full, text));
        }
        let (channel, theirs) = Channel::pair()?;
        let index = self.free_place();
        self.poller.add(&channel, token_of(token::CHANNEL, index), Interest::READ)?;
        ids.retain(|id| self.store.retain(*id).is_ok());
        self.connections[index] = Some(Connection::Luggage(Luggage { channel, ids }));
        Ok(theirs.into())
    }
}
