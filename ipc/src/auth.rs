//! Who may enter: by the kernel's word on the user, or by a shared secret that both sides prove and neither sends.
//!
//! A proof is HMAC-SHA256 under the authkey of: the role of the side that proves, the nonces of both sides, and what they agreed on.
//! The role keeps a proof from being sent back as the other side's; the two nonces keep it from being used again. Proofs are compared
//! in constant time.
//!
//! | peer's user | no authkey set | authkey set |
//! |---|---|---|
//! | ours, or root | enters | enters with the right proof |
//! | another | refused | enters with the right proof |
//! | the overflow uid | refused | refused |
use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::arena::LAYOUT_VERSION;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{AUTHKEY_BYTES_MAX, AUTHKEY_BYTES_MIN, HANDSHAKE_TIMEOUT_MS, HANDSHAKES_MAX};
use crate::sys;

/// Bytes that were never used before and cannot be guessed.
pub type Nonce = [u8; 32];
/// An HMAC-SHA256. All zeros stand for "no proof".
pub type Proof = [u8; 32];

/// The proof of a side that has no key.
pub const NO_PROOF: Proof = [0; 32];

/// A nonce from the system's random numbers.
pub fn fresh_nonce() -> Result<Nonce> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|error| Error::caused(ErrorKind::System, "the system has no random numbers", error))?;
    Ok(nonce)
}

/// A shared secret. Its bytes are never printed.
///
/// ```
/// # use commonhold_ipc as commonhold;
/// let key = commonhold::auth::AuthKey::new(b"correct horse battery staple").unwrap();
/// assert_eq!(format!("{key:?}"), "AuthKey(28 bytes)");
/// assert!(commonhold::auth::AuthKey::new(b"short").is_err());
/// ```
#[derive(Clone)]
pub struct AuthKey(Vec<u8>);

impl AuthKey {
    /// The key itself: to hand it to a process of ours over a private socket.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A key of 8 to 1024 bytes: as many as `limits` allows.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<AuthKey> {
        let bytes = bytes.into();
        let range = AUTHKEY_BYTES_MIN..=AUTHKEY_BYTES_MAX;
        if !range.contains(&bytes.len()) {
            let what = format!("an authkey has {AUTHKEY_BYTES_MIN} to {AUTHKEY_BYTES_MAX} bytes, and this one has {}", bytes.len());
            return Err(Error::new(ErrorKind::OutOfRange, what));
        }
        Ok(AuthKey(bytes))
    }

    /// What the side in this role must send to show that it knows the key.
    pub fn prove(&self, role: Role, challenge: &Challenge) -> Proof {
        self.mac(role, challenge).finalize().into_bytes().into()
    }

    /// Whether the side in this role has shown that it knows the key.
    pub fn verify(&self, role: Role, challenge: &Challenge, proof: &Proof) -> bool {
        self.prove(role, challenge).ct_eq(proof).into()
    }

    fn mac(&self, role: Role, challenge: &Challenge) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of every length");
        // Fixed lengths throughout, so no two inputs run together.
        let role: &[u8; 24] = match role {
            Role::Client => b"commonhold client proves",
            Role::Server => b"commonhold server proves",
        };
        mac.update(role);
        mac.update(&challenge.server_nonce);
        mac.update(&challenge.client_nonce);
        mac.update(&challenge.versions.protocol.to_le_bytes());
        mac.update(&challenge.versions.layout.to_le_bytes());
        mac.update(&challenge.versions.archive_format.to_le_bytes());
        mac.update(&[challenge.purpose as u8]);
        mac
    }
}

/// In constant time, as for proofs.
impl PartialEq for AuthKey {
    fn eq(&self, other: &AuthKey) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for AuthKey {}

impl fmt::Debug for AuthKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthKey({} bytes)", self.0.len())
    }
}

/// Who proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The side that connected.
    Client,
    /// The side that listens: the manager.
    Server,
}

/// Number of the messages in `docs/LAYOUT.md`; compared in the handshake.
pub const PROTOCOL_VERSION: u16 = 5;

/// What both sides must have alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// Of the messages.
    pub protocol: u16,
    /// Of what lies in shared memory.
    pub layout: u16,
    /// What the archives of values look like; computed where the values are defined.
    pub archive_format: u64,
}

impl Versions {
    /// The versions that this build has, with the archive format that it was told.
    pub const fn ours(archive_format: u64) -> Versions {
        Versions { protocol: PROTOCOL_VERSION, layout: LAYOUT_VERSION, archive_format }
    }
}

/// What a client wants of the manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// A session: two descriptors come with the welcome, the arena (read-only) and the session page.
    Session = 1,
    /// Questions and orders about the manager itself, such as to end: no descriptor comes.
    Control = 2,
}

/// What a proof is about: all that the two sides have told each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The manager's nonce.
    pub server_nonce: Nonce,
    /// The client's nonce.
    pub client_nonce: Nonce,
    /// The versions that both have.
    pub versions: Versions,
    /// What the client wants.
    pub purpose: Purpose,
}

/// Why a peer was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The two sides were built with versions that do not understand each other.
    VersionMismatch {
        /// The manager's.
        server: Versions,
        /// The client's. Its archive format is not known if the protocol already differs, and then 0.
        client: Versions,
    },
    /// The manager has an authkey, and the client sent no proof.
    KeyMissing,
    /// The client's proof was made with another key.
    WrongKey,
    /// Another user, and there is no authkey that could let it in.
    OtherUser {
        /// The peer's.
        peer_uid: u32,
        /// The one of the side that refuses.
        own_uid: u32,
    },
    /// The kernel cannot say which user it is.
    UnknownUser,
    /// The manager has as many sessions as it may.
    ManagerFull {
        /// How many those are.
        sessions_max: u32,
    },
    /// The client's bytes are no hello.
    BadHello,
    /// The manager has no descriptor or no memory left for another session.
    NoRoom,
    /// The handshake was not over in time.
    TooLate,
}

impl Refusal {
    /// The number that stands for it on the wire.
    pub fn code(self) -> u8 {
        match self {
            Refusal::VersionMismatch { .. } => 1,
            Refusal::KeyMissing => 2,
            Refusal::WrongKey => 3,
            Refusal::OtherUser { .. } => 4,
            Refusal::UnknownUser => 5,
            Refusal::ManagerFull { .. } => 6,
            Refusal::BadHello => 7,
            Refusal::NoRoom => 8,
            Refusal::TooLate => 9,
        }
    }
}

/// For the one who was refused: why, and what to do.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::VersionMismatch { server, client } if server.protocol == client.protocol && server.layout == client.layout => write!(
                f,
                "the manager's values have archive format {:#x} and this program's {:#x}: \
                 build both with the same version of commonhold and the same features of rkyv",
                server.archive_format, client.archive_format
            ),
            Refusal::VersionMismatch { server, client } => write!(
                f,
                "the manager speaks protocol {} with layout {}, this program protocol {} with layout {}: \
                 use the same version of commonhold in both, and start the manager anew",
                server.protocol, server.layout, client.protocol, client.layout
            ),
            Refusal::KeyMissing => {
                f.write_str("it has an authkey, and this program gave none: give the one that the manager was started with")
            }
            Refusal::WrongKey => f.write_str("this program's authkey is not the manager's: give the one that the manager was started with"),
            Refusal::OtherUser { peer_uid, own_uid } => write!(
                f,
                "it belongs to user {own_uid} and this program runs as user {peer_uid}: \
                 run as the same user, or give both an authkey"
            ),
            Refusal::UnknownUser => f.write_str(
                "the kernel cannot tell it which user this program runs as (the overflow uid, seen between user namespaces): \
                 run both in the same user namespace",
            ),
            Refusal::ManagerFull { sessions_max } => {
                write!(f, "all of its {sessions_max} sessions are taken: close some, or start another manager")
            }
            Refusal::BadHello => f.write_str("it could not read this program's hello: use the same version of commonhold in both"),
            Refusal::NoRoom => f.write_str(
                "it has no descriptors or no memory left for another session: raise `ulimit -n` for its program, or close sessions",
            ),
            Refusal::TooLate => write!(
                f,
                "this program's hello did not come within {} s, or {HANDSHAKES_MAX} others were waited for: try again, it or the machine was busy",
                HANDSHAKE_TIMEOUT_MS / 1000
            ),
        }
    }
}

/// Who may enter: see the table in the module's head. `mac_ok` counts only where there is a key.
pub fn admit(peer_uid: u32, own_uid: u32, has_key: bool, mac_ok: bool) -> Result<(), Refusal> {
    if sys::is_overflow_uid(peer_uid) {
        return Err(Refusal::UnknownUser);
    }
    match (has_key, mac_ok) {
        (true, true) => Ok(()),
        (true, false) => Err(Refusal::WrongKey),
        (false, _) if peer_uid == own_uid || peer_uid == 0 => Ok(()),
        (false, _) => Err(Refusal::OtherUser { peer_uid, own_uid }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_enter_is_exactly_the_table() {
        const OVERFLOW: u32 = 65_534;
        assert!(sys::is_overflow_uid(OVERFLOW), "these tests run where the overflow uid is the default");
        for peer_uid in [0, 1000, 1001, OVERFLOW] {
            for own_uid in [0, 1000, 1001, OVERFLOW] {
                for (has_key, mac_ok) in [(false, false), (false, true), (true, false), (true, true)] {
                    let admitted = admit(peer_uid, own_uid, has_key, mac_ok);
                    let expected = if peer_uid == OVERFLOW {
                        Err(Refusal::UnknownUser)
                    } else if has_key {
                        if mac_ok { Ok(()) } else { Err(Refusal::WrongKey) }
                    } else if peer_uid == 0 || peer_uid == own_uid {
                        Ok(())
                    } else {
                        Err(Refusal::OtherUser { peer_uid, own_uid })
                    };
                    assert_eq!(admitted, expected, "peer {peer_uid}, own {own_uid}, key {has_key}, mac {mac_ok}");
                }
            }
        }
    }

    fn challenge() -> Challenge {
        Challenge { server_nonce: [1; 32], client_nonce: [2; 32], versions: Versions::ours(3), purpose: Purpose::Session }
    }

    #[test]
    fn a_proof_holds_for_its_key_role_and_challenge_only() {
        let key = AuthKey::new(*b"a key of ours").unwrap();
        let proof = key.prove(Role::Client, &challenge());
        assert!(key.verify(Role::Client, &challenge(), &proof));
        assert!(!key.verify(Role::Server, &challenge(), &proof), "no reflection");
        assert!(!AuthKey::new(*b"a key of others").unwrap().verify(Role::Client, &challenge(), &proof));
        assert!(!key.verify(Role::Client, &challenge(), &NO_PROOF));
        let others = [
            Challenge { server_nonce: [9; 32], ..challenge() },
            Challenge { client_nonce: [9; 32], ..challenge() },
            Challenge { versions: Versions::ours(9), ..challenge() },
            Challenge { purpose: Purpose::Control, ..challenge() },
        ];
        for other in others {
            assert!(!key.verify(Role::Client, &other, &proof), "{other:?}");
        }
        for bit in 0..256 {
            let mut flipped = proof;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.verify(Role::Client, &challenge(), &flipped));
        }
    }

    #[test]
    fn keys_have_a_shortest_and_a_longest() {
        for (len, right) in [(0, false), (7, false), (8, true), (1024, true), (1025, false)] {
            assert_eq!(AuthKey::new(vec![1; len]).is_ok(), right, "{len}");
        }
    }

    #[test]
    fn nonces_differ() {
        assert_ne!(fresh_nonce().unwrap(), fresh_nonce().unwrap());
    }

    #[test]
    fn every_refusal_fits_its_message() {
        let versions = Versions { protocol: u16::MAX, layout: u16::MAX, archive_format: u64::MAX };
        let other = Versions { archive_format: 0, ..versions };
        let refusals = [
            Refusal::VersionMismatch { server: versions, client: versions },
            Refusal::VersionMismatch { server: versions, client: other },
            Refusal::VersionMismatch { server: versions, client: Versions::ours(0) },
            Refusal::KeyMissing,
            Refusal::WrongKey,
            Refusal::OtherUser { peer_uid: u32::MAX, own_uid: u32::MAX },
            Refusal::UnknownUser,
            Refusal::ManagerFull { sessions_max: u32::MAX },
            Refusal::BadHello,
            Refusal::NoRoom,
            Refusal::TooLate,
        ];
        for refusal in refusals {
            assert!(refusal.to_string().len() <= crate::limits::REFUSAL_TEXT_BYTES_MAX);
        }
    }
}
