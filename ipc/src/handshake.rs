//! How a client and a manager begin: they compare versions, each proves that it knows the authkey, and the client gets a session.
//!
//! | step | manager (a state machine in its event loop) | client (blocks, with a deadline) |
//! |---|---|---|
//! | 1 | accepts; asks the kernel who the peer is | connects; asks the kernel who listens: without an authkey only our user or root |
//! | 2 | sends its hello: versions, whether a key is demanded, a nonce | |
//! | 3 | | compares versions; refuses a manager that cannot prove a key that we were given |
//! | 4 | | sends its hello: versions, purpose, pid, program, a nonce, its proof |
//! | 5 | compares versions, checks the proof, admits or refuses (see `auth`) | |
//! | 6 | sends a welcome with its own proof and the descriptors, or a refusal with its reason | |
//! | 7 | | checks the proof and the number of descriptors |
//!
//! Each side sends nothing before its turn, so the client's next bytes after its hello are its first request. The manager copies and
//! bounds all it reads (160 bytes per handshake), and drops those that take longer than `limits::HANDSHAKE_TIMEOUT_MS`. Nothing here
//! protects against a peer that passes everything on to a third one: on one machine the kernel says who the peer is.
mod wire;

use std::os::fd::OwnedFd;
use std::time::Instant;

pub use crate::auth::{Purpose, Versions};
pub use wire::{
    CLIENT_HELLO_BYTES, ClientHello, MAGIC, REPLY_HEAD_BYTES, Reply, SERVER_HELLO_BYTES, ServerHello, WELCOME_BYTES, Welcome,
    parse_client_hello, parse_preamble, parse_reply, parse_reply_len, parse_server_hello, write_client_hello, write_refusal,
    write_server_hello, write_welcome,
};

use crate::auth::{self, AuthKey, Challenge, NO_PROOF, Proof, Refusal, Role};
use crate::error::{Error, ErrorKind, Result};
use crate::socket::{Address, Channel, Received};
use crate::sys::{self, PeerCredentials};

/// Option bit of a welcome: a third descriptor comes with it, the session's lanes.
pub const OPTION_LANES: u64 = 8;

/// Descriptors that come with a welcome at the most.
const WELCOME_DESCRIPTORS_MAX: usize = 3;
/// Option bit of a welcome: check every value at every read.
pub const OPTION_CHECK_ALWAYS: u64 = 1;
/// Option bit of a welcome: the manager can put barriers into its readers, who then need no fences. See `pin`.
pub const OPTION_BARRIERS: u64 = 2;

/// Option bit of a welcome: shared memory may come in large pages.
pub const OPTION_LARGE_PAGES: u64 = 16;

/// What a manager demands of all clients.
#[derive(Clone, Debug)]
pub struct ServerOffer {
    /// What it was built with.
    pub versions: Versions,
    /// The key that everybody must know, if any.
    pub authkey: Option<AuthKey>,
    /// The user it runs as.
    pub own_uid: u32,
}

/// The manager's side of one handshake. Free of I/O: bytes in, bytes out.
#[derive(Debug)]
pub struct ServerHandshake {
    peer: PeerCredentials,
    nonce: auth::Nonce,
    received: Vec<u8>,
}

/// What the manager's event loop does next.
#[derive(Debug)]
pub enum Step {
    /// Wait for more bytes.
    More,
    /// Make a session and send [`Admission::welcome`]; or, without room for one, [`write_refusal`] of [`Refusal::ManagerFull`] or [`Refusal::NoRoom`].
    Admitted(Admission),
    /// Send these bytes as far as the socket takes them, and close.
    Refused {
        /// Why, for the manager's own records.
        refusal: Refusal,
        /// The bytes of the refusal.
        reply: Vec<u8>,
    },
}

/// A client that may enter.
#[derive(Debug)]
pub struct Admission {
    /// What the client said.
    pub hello: ClientHello,
    /// What the kernel says about it.
    pub peer: PeerCredentials,
    proof: Proof,
}

impl Admission {
    /// The bytes that tell the client about its session. The descriptors travel with the first of them.
    pub fn welcome(&self, welcome: &Welcome) -> Vec<u8> {
        write_welcome(welcome, &self.proof)
    }
}

impl ServerHandshake {
    /// Begins, and gives the bytes to send first.
    pub fn begin(offer: &ServerOffer, peer: PeerCredentials) -> Result<(ServerHandshake, Vec<u8>)> {
        let nonce = auth::fresh_nonce()?;
        let hello = ServerHello { versions: offer.versions, key_demanded: offer.authkey.is_some(), nonce };
        Ok((ServerHandshake { peer, nonce, received: Vec::new() }, write_server_hello(&hello)))
    }

    /// Takes what has arrived. After anything but [`Step::More`] the handshake is over.
    pub fn receive(&mut self, offer: &ServerOffer, bytes: &[u8]) -> Step {
        // One byte more than a hello is already too many, so no more are kept.
        let room = CLIENT_HELLO_BYTES + 1 - self.received.len().min(CLIENT_HELLO_BYTES + 1);
        self.received.extend_from_slice(&bytes[..bytes.len().min(room)]);
        match self.judge(offer) {
            Ok(None) => Step::More,
            Ok(Some(admission)) => Step::Admitted(admission),
            Err(refusal) => Step::Refused { refusal, reply: write_refusal(refusal) },
        }
    }

    fn judge(&self, offer: &ServerOffer) -> Result<Option<Admission>, Refusal> {
        let ours = offer.versions;
        let Some(((protocol, layout), _)) = parse_preamble(&self.received).map_err(|_| Refusal::BadHello)? else { return Ok(None) };
        if (protocol, layout) != (ours.protocol, ours.layout) {
            return Err(Refusal::VersionMismatch { server: ours, client: Versions { protocol, layout, archive_format: 0 } });
        }
        let Some((hello, len)) = parse_client_hello(&self.received).map_err(|_| Refusal::BadHello)? else { return Ok(None) };
        if len != self.received.len() {
            return Err(Refusal::BadHello);
        }
        if hello.versions != ours {
            return Err(Refusal::VersionMismatch { server: ours, client: hello.versions });
        }
        let challenge = Challenge { server_nonce: self.nonce, client_nonce: hello.nonce, versions: ours, purpose: hello.purpose };
        let key = offer.authkey.as_ref();
        let proved = key.is_some_and(|key| key.verify(Role::Client, &challenge, &hello.proof));
        auth::admit(self.peer.uid, offer.own_uid, key.is_some(), proved).map_err(|refusal| match refusal {
            Refusal::WrongKey if hello.proof == NO_PROOF => Refusal::KeyMissing,
            refusal => refusal,
        })?;
        let proof = key.map_or(NO_PROOF, |key| key.prove(Role::Server, &challenge));
        Ok(Some(Admission { hello, peer: self.peer, proof }))
    }
}

/// What a client brings.
#[derive(Clone, Debug)]
pub struct ClientOffer<'a> {
    /// What it was built with.
    pub versions: Versions,
    /// What it wants.
    pub purpose: Purpose,
    /// The key that the manager must know too, if any.
    pub authkey: Option<&'a AuthKey>,
}

/// Connects to the manager at `address` and goes through the handshake, until the deadline. For a session two descriptors come back,
/// the arena, read-only, and the session page; and with [`OPTION_LANES`] a third, the session's lanes.
///
/// # Errors
/// `NotFound` if no manager is there, `Refused` if it does not let us in or is not what it should be, `TimedOut`, `Disconnected`,
/// `Corrupt` if something else listens there.
pub fn connect(address: &Address, offer: &ClientOffer<'_>, deadline: Instant) -> Result<(Channel, Welcome, Vec<OwnedFd>)> {
    let channel = Channel::connect(address, deadline)?;
    let (welcome, fds) = greet(&channel, address, offer, deadline)?;
    Ok((channel, welcome, fds))
}

/// The client's side on a channel that is already connected, such as an inherited one. `address` is for messages.
pub fn greet(channel: &Channel, address: &Address, offer: &ClientOffer<'_>, deadline: Instant) -> Result<(Welcome, Vec<OwnedFd>)> {
    let refused = |why: String| Error::new(ErrorKind::Refused, format!("not connected to the manager at {address}: {why}"));
    check_server(sys::peer_credentials(channel)?.uid, sys::own_uid(), offer.authkey.is_some()).map_err(&refused)?;

    let mut conversation = Conversation { channel, address, received: Vec::new(), fds: Vec::new(), deadline };
    let ours = offer.versions;
    conversation.fill(12)?;
    if let Some(((protocol, layout), _)) = parse_preamble(&conversation.received).map_err(|error| conversation.explain(error))?
        && (protocol, layout) != (ours.protocol, ours.layout)
    {
        let server = Versions { protocol, layout, archive_format: 0 };
        return Err(refused(Refusal::VersionMismatch { server, client: ours }.to_string()));
    }
    conversation.fill(SERVER_HELLO_BYTES)?;
    let (server, _) =
        parse_server_hello(&conversation.received).map_err(|error| conversation.explain(error))?.expect("all its bytes are here");
    if server.versions != ours {
        return Err(refused(Refusal::VersionMismatch { server: server.versions, client: ours }.to_string()));
    }
    match (server.key_demanded, offer.authkey) {
        (true, None) => return Err(refused(Refusal::KeyMissing.to_string())),
        (false, Some(_)) => {
            let why = "it has no authkey, so it cannot prove that it is the one meant: start it with this program's authkey, or give none";
            return Err(refused(why.to_owned()));
        }
        _ => {}
    }

    let nonce = auth::fresh_nonce()?;
    let challenge = Challenge { server_nonce: server.nonce, client_nonce: nonce, versions: ours, purpose: offer.purpose };
    let hello = ClientHello {
        versions: ours,
        purpose: offer.purpose,
        pid: std::process::id(),
        nonce,
        proof: offer.authkey.map_or(NO_PROOF, |key| key.prove(Role::Client, &challenge)),
        program: sys::process_name(),
    };
    conversation.send(&write_client_hello(&hello))?;
    let (welcome, proof) = match conversation.reply()? {
        Reply::Welcome { welcome, proof } => (welcome, proof),
        Reply::Refused { text, .. } => return Err(refused(text)),
    };
    if offer.authkey.is_some_and(|key| !key.verify(Role::Server, &challenge, &proof)) {
        return Err(refused("it does not know this program's authkey; something else listens there, so find out what".to_owned()));
    }
    let wanted = match offer.purpose {
        Purpose::Session => 2 + usize::from(welcome.options & OPTION_LANES != 0),
        Purpose::Control => 0,
    };
    if conversation.fds.len() < wanted {
        let what = format!("{} of {wanted} descriptors arrived from the manager at {address}", conversation.fds.len());
        return Err(Error::new(ErrorKind::System, format!("{what}: close descriptors or raise `ulimit -n` in this program")));
    }
    conversation.fds.truncate(wanted);
    Ok((welcome, conversation.fds))
}

/// Whether to trust whoever listens: the same rule as the manager's, but that root, who came here of its own will, may talk to any
/// user's manager. A key's proof comes later, so here it counts as right.
fn check_server(server_uid: u32, own_uid: u32, has_key: bool) -> Result<(), String> {
    match auth::admit(server_uid, own_uid, has_key, true) {
        Err(Refusal::OtherUser { .. }) if own_uid == 0 => Ok(()),
        Err(Refusal::OtherUser { .. }) => {
            Err(format!("it runs as user {server_uid} and this program as user {own_uid}: run as the same user, or give both an authkey"))
        }
        Err(refusal) => Err(refusal.to_string()),
        Ok(()) => Ok(()),
    }
}

/// The client's end of the talk. Reads not a byte more than belongs to the message at hand: the next ones are the session's.
struct Conversation<'a> {
    channel: &'a Channel,
    address: &'a Address,
    received: Vec<u8>,
    fds: Vec<OwnedFd>,
    deadline: Instant,
}

impl Conversation<'_> {
    /// Reads until `len` bytes of the message are there.
    fn fill(&mut self, len: usize) -> Result<()> {
        while self.received.len() < len {
            let start = self.received.len();
            self.received.resize(len, 0);
            let received = self.channel.receive_before(&mut self.received[start..], &mut self.fds, WELCOME_DESCRIPTORS_MAX, self.deadline);
            let count = match received.map_err(|error| self.explain(error))? {
                Received::Bytes(count) => count,
                Received::Nothing | Received::Ended => {
                    let what = format!("the manager at {} closed the connection in the middle of the handshake", self.address);
                    return Err(Error::new(ErrorKind::Disconnected, format!("{what}: it has ended, or has no room")));
                }
            };
            self.received.truncate(start + count);
        }
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.received.clear();
        match self.channel.send_all(bytes, &[], self.deadline) {
            // It may have refused and closed already: its words then say more than the broken pipe.
            Err(error) if !error.is_disconnected() => Err(self.explain(error)),
            _ => Ok(()),
        }
    }

    fn reply(&mut self) -> Result<Reply> {
        self.fill(REPLY_HEAD_BYTES)?;
        let len = parse_reply_len(&self.received).map_err(|error| self.explain(error))?.expect("its head is here");
        self.fill(len)?;
        let (reply, _) = parse_reply(&self.received).map_err(|error| self.explain(error))?.expect("all its bytes are here");
        Ok(reply)
    }

    #[cold]
    fn explain(&self, error: Error) -> Error {
        Error::caused(error.kind(), format!("the handshake with the manager at {} failed: {error}", self.address), error)
    }
}

#[cfg(test)]
mod tests;
