//! The bytes of the handshake: three messages, each written by one function and read by one parser.
//!
//! All integers are little-endian. The first 12 bytes of both hellos keep their meaning in every version to come; all else
//! belongs to the protocol version that they name. Parsers are pure: they take what has arrived so far and return the message with its
//! length, `None` for "more bytes are needed", or an error as soon as the bytes cannot become a message.
//!
//! | server hello | | client hello | | reply | |
//! |---|---|---|---|---|---|
//! | 0..8 | magic | 0..8 | magic | 0..8 | magic |
//! | 8..10 | protocol | 8..10 | protocol | 8 | 1: welcome, 2: refusal |
//! | 10..12 | layout | 10..12 | layout | 9 | 0, or the refusal's code |
//! | 12 | authkey demanded (0, 1) | 12 | purpose | 10..12 | 0, or the length of its text |
//! | 13..16 | zeros | 13 | length of the program's name | 12..16 | zeros |
//! | 16..24 | archive format | 14..16 | zeros | 16..88 | welcome: nine u64, in the order of [`Welcome`] |
//! | 24..56 | nonce | 16..24 | archive format | 88..120 | welcome: the manager's proof |
//! | | | 24..28 | pid | 16.. | refusal: its text |
//! | | | 28..32 | zeros | | |
//! | | | 32..64 | nonce | | |
//! | | | 64..96 | proof, or zeros | | |
//! | | | 96..160 | the program's name, then zeros | | |
use crate::auth::{Nonce, Proof, Purpose, Refusal, Versions};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{PROGRAM_NAME_BYTES_MAX, REFUSAL_TEXT_BYTES_MAX};
use crate::sys::cut_short;

/// How every message of the handshake begins.
pub const MAGIC: [u8; 8] = *b"cmnhold\n";
/// Length of a server hello, in bytes.
pub const SERVER_HELLO_BYTES: usize = 56;
/// Length of a client hello, in bytes.
pub const CLIENT_HELLO_BYTES: usize = 160;
/// Length of what all replies begin with, in bytes; it tells how many follow.
pub const REPLY_HEAD_BYTES: usize = 16;
/// Length of a welcome, in bytes.
pub const WELCOME_BYTES: usize = 120;

const _: () = assert!(CLIENT_HELLO_BYTES == 96 + PROGRAM_NAME_BYTES_MAX);
const _: () = assert!(REFUSAL_TEXT_BYTES_MAX <= u16::MAX as usize);

/// The first message, from the manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerHello {
    /// The manager's versions.
    pub versions: Versions,
    /// Whether nobody enters without an authkey.
    pub key_demanded: bool,
    /// The manager's nonce.
    pub nonce: Nonce,
}

/// The second message, from the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The client's versions.
    pub versions: Versions,
    /// What it wants.
    pub purpose: Purpose,
    /// Its process id, as it sees it itself: for messages only. The kernel's word is in the peer's credentials.
    pub pid: u32,
    /// The client's nonce.
    pub nonce: Nonce,
    /// Its proof that it knows the authkey, or zeros.
    pub proof: Proof,
    /// Its program's file name, for messages: at most 64 bytes, without control characters.
    pub program: String,
}

/// The third message, from the manager: a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Number of the session; never used again by this manager.
    pub session: u64,
    /// Random number of the manager: tells it from another one at the same address.
    pub manager: u64,
    /// Length of the arena, in bytes.
    pub arena_len: u64,
    /// Length of the session page, in bytes.
    pub session_page_len: u64,
    /// Seed of the arena's hashes.
    pub hash_seed: u64,
    /// Bits that the manager was built with, such as to check all values always. Their meaning is the session's affair.
    pub options: u64,
    /// The manager's largest archive of a value.
    pub value_bytes_max: u64,
    /// The manager's largest frame.
    pub frame_bytes_max: u64,
    /// Values up to this size travel inside their request.
    pub inline_value_bytes_max: u64,
}

/// What the third message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Come in.
    Welcome {
        /// The session.
        welcome: Welcome,
        /// The manager's proof that it knows the authkey, or zeros.
        proof: Proof,
    },
    /// Stay out.
    Refused {
        /// See [`Refusal::code`].
        code: u8,
        /// Why, and what to do. Without control characters.
        text: String,
    },
}

/// The bytes of a server hello.
pub fn write_server_hello(hello: &ServerHello) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SERVER_HELLO_BYTES);
    bytes.extend(MAGIC);
    bytes.extend(hello.versions.protocol.to_le_bytes());
    bytes.extend(hello.versions.layout.to_le_bytes());
    bytes.extend([u8::from(hello.key_demanded), 0, 0, 0]);
    bytes.extend(hello.versions.archive_format.to_le_bytes());
    bytes.extend(hello.nonce);
    bytes
}

/// The bytes of a client hello. A longer program name is cut.
pub fn write_client_hello(hello: &ClientHello) -> Vec<u8> {
    let program = cut_short(&hello.program, PROGRAM_NAME_BYTES_MAX);
    let mut bytes = Vec::with_capacity(CLIENT_HELLO_BYTES);
    bytes.extend(MAGIC);
    bytes.extend(hello.versions.protocol.to_le_bytes());
    bytes.extend(hello.versions.layout.to_le_bytes());
    bytes.extend([hello.purpose as u8, program.len() as u8, 0, 0]);
    bytes.extend(hello.versions.archive_format.to_le_bytes());
    bytes.extend(hello.pid.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(hello.nonce);
    bytes.extend(hello.proof);
    bytes.extend(program.as_bytes());
    bytes.resize(CLIENT_HELLO_BYTES, 0);
    bytes
}

/// The bytes of a welcome.
pub fn write_welcome(welcome: &Welcome, proof: &Proof) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(WELCOME_BYTES);
    bytes.extend(MAGIC);
    bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    let Welcome { session, manager, arena_len, session_page_len, hash_seed, options, .. } = *welcome;
    let Welcome { value_bytes_max, frame_bytes_max, inline_value_bytes_max, .. } = *welcome;
    let words = [session, manager, arena_len, session_page_len, hash_seed, options];
    for word in words.into_iter().chain([value_bytes_max, frame_bytes_max, inline_value_bytes_max]) {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(proof);
    bytes
}

/// The bytes of a refusal.
pub fn write_refusal(refusal: Refusal) -> Vec<u8> {
    let text = refusal.to_string();
    let text = cut_short(&text, REFUSAL_TEXT_BYTES_MAX);
    let mut bytes = Vec::with_capacity(REPLY_HEAD_BYTES + text.len());
    bytes.extend(MAGIC);
    bytes.extend([2, refusal.code()]);
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(text.as_bytes());
    bytes
}

/// The versions at the start of a hello, readable in every version to come: (protocol, layout).
pub fn parse_preamble(bytes: &[u8]) -> Result<Option<((u16, u16), usize)>> {
    check_magic(bytes)?;
    Ok((bytes.len() >= 12).then(|| ((u16_at(bytes, 8), u16_at(bytes, 10)), 12)))
}

/// Reads a server hello of our protocol version.
pub fn parse_server_hello(bytes: &[u8]) -> Result<Option<(ServerHello, usize)>> {
    check_magic(bytes)?;
    if bytes.len() < SERVER_HELLO_BYTES {
        return Ok(None);
    }
    let key_demanded = match bytes[12] {
        0 => false,
        1 => true,
        _ => return Err(corrupt("whether a key is demanded is neither 0 nor 1")),
    };
    check_zeros(&bytes[13..16])?;
    let hello = ServerHello { versions: versions(bytes), key_demanded, nonce: array_at(bytes, 24) };
    Ok(Some((hello, SERVER_HELLO_BYTES)))
}

/// Reads a client hello of our protocol version.
pub fn parse_client_hello(bytes: &[u8]) -> Result<Option<(ClientHello, usize)>> {
    check_magic(bytes)?;
    if bytes.len() < CLIENT_HELLO_BYTES {
        return Ok(None);
    }
    let purpose = match bytes[12] {
        1 => Purpose::Session,
        2 => Purpose::Control,
        _ => return Err(corrupt("its purpose is unknown")),
    };
    let name_len = usize::from(bytes[13]);
    if name_len > PROGRAM_NAME_BYTES_MAX {
        return Err(corrupt("the program's name is too long"));
    }
    check_zeros(&bytes[14..16])?;
    check_zeros(&bytes[28..32])?;
    check_zeros(&bytes[96 + name_len..CLIENT_HELLO_BYTES])?;
    let hello = ClientHello {
        versions: versions(bytes),
        purpose,
        pid: u32::from_le_bytes(array_at(bytes, 24)),
        nonce: array_at(bytes, 32),
        proof: array_at(bytes, 64),
        program: printable(&bytes[96..96 + name_len], PROGRAM_NAME_BYTES_MAX),
    };
    Ok(Some((hello, CLIENT_HELLO_BYTES)))
}

/// Length of the reply that begins with these bytes.
pub fn parse_reply_len(bytes: &[u8]) -> Result<Option<usize>> {
    check_magic(bytes)?;
    if bytes.len() < REPLY_HEAD_BYTES {
        return Ok(None);
    }
    let text_len = usize::from(u16_at(bytes, 10));
    check_zeros(&bytes[12..16])?;
    match (bytes[8], bytes[9]) {
        (1, 0) if text_len == 0 => Ok(Some(WELCOME_BYTES)),
        (2, _) if text_len <= REFUSAL_TEXT_BYTES_MAX => Ok(Some(REPLY_HEAD_BYTES + text_len)),
        _ => Err(corrupt("it is neither a welcome nor a refusal")),
    }
}

/// Reads the manager's reply.
pub fn parse_reply(bytes: &[u8]) -> Result<Option<(Reply, usize)>> {
    let Some(len) = parse_reply_len(bytes)? else { return Ok(None) };
    if bytes.len() < len {
        return Ok(None);
    }
    if bytes[8] == 2 {
        let text = printable(&bytes[REPLY_HEAD_BYTES..len], REFUSAL_TEXT_BYTES_MAX);
        return Ok(Some((Reply::Refused { code: bytes[9], text }, len)));
    }
    let word = |n: usize| u64::from_le_bytes(array_at(bytes, REPLY_HEAD_BYTES + 8 * n));
    let welcome = Welcome {
        session: word(0),
        manager: word(1),
        arena_len: word(2),
        session_page_len: word(3),
        hash_seed: word(4),
        options: word(5),
        value_bytes_max: word(6),
        frame_bytes_max: word(7),
        inline_value_bytes_max: word(8),
    };
    Ok(Some((Reply::Welcome { welcome, proof: array_at(bytes, 88) }, len)))
}

fn versions(hello: &[u8]) -> Versions {
    Versions { protocol: u16_at(hello, 8), layout: u16_at(hello, 10), archive_format: u64::from_le_bytes(array_at(hello, 16)) }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

/// The `N` bytes at `at`, which the caller knows to be there.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes")
}

fn check_magic(bytes: &[u8]) -> Result<()> {
    let begun = bytes.len().min(MAGIC.len());
    if bytes[..begun] == MAGIC[..begun] { Ok(()) } else { Err(corrupt("it does not begin as commonhold's do")) }
}

fn check_zeros(bytes: &[u8]) -> Result<()> {
    if bytes.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(corrupt("bytes that must be zero are not")) }
}

/// Foreign bytes as text that may stand in a message: no control characters, at most `bytes_max` bytes.
fn printable(bytes: &[u8], bytes_max: usize) -> String {
    let text: String = String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    cut_short(&text, bytes_max).to_owned()
}

#[cold]
fn corrupt(why: &str) -> Error {
    let text =
        format!("a message of the handshake cannot be read: {why}; does something else listen there, or another version of commonhold?");
    Error::new(ErrorKind::Corrupt, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn server_hello() -> ServerHello {
        ServerHello { versions: Versions::ours(0x0123_4567_89ab_cdef), key_demanded: true, nonce: [7; 32] }
    }

    fn client_hello() -> ClientHello {
        ClientHello {
            versions: Versions::ours(42),
            purpose: Purpose::Control,
            pid: 4711,
            nonce: [8; 32],
            proof: [9; 32],
            program: "weather-station".into(),
        }
    }

    fn welcome() -> Welcome {
        Welcome {
            session: 1,
            manager: 2,
            arena_len: 3,
            session_page_len: 4,
            hash_seed: 5,
            options: 6,
            value_bytes_max: 7,
            frame_bytes_max: 8,
            inline_value_bytes_max: 9,
        }
    }

    type Parsed<T> = Result<Option<(T, usize)>>;

    /// Every beginning of a message asks for more, the whole is read, and what follows is left alone.
    fn round_trips<T: PartialEq + std::fmt::Debug>(bytes: Vec<u8>, parse: fn(&[u8]) -> Parsed<T>, expected: T) {
        for len in 0..bytes.len() {
            assert!(parse(&bytes[..len]).unwrap().is_none(), "after {len} bytes");
        }
        let mut longer = bytes.clone();
        longer.extend(b"more");
        assert_eq!(parse(&longer).unwrap(), Some((expected, bytes.len())));
    }

    #[test]
    fn messages_round_trip_and_wait_for_their_end() {
        round_trips(write_server_hello(&server_hello()), parse_server_hello, server_hello());
        round_trips(write_client_hello(&client_hello()), parse_client_hello, client_hello());
        round_trips(write_welcome(&welcome(), &[3; 32]), parse_reply, Reply::Welcome { welcome: welcome(), proof: [3; 32] });
        let text = Refusal::WrongKey.to_string();
        round_trips(write_refusal(Refusal::WrongKey), parse_reply, Reply::Refused { code: 3, text });
        assert_eq!(
            parse_preamble(&write_server_hello(&server_hello())).unwrap(),
            Some(((crate::auth::PROTOCOL_VERSION, crate::arena::LAYOUT_VERSION), 12))
        );
        assert_eq!(write_welcome(&welcome(), &[3; 32]).len(), WELCOME_BYTES);
    }

    #[test]
    fn foreign_names_are_cut_and_made_printable() {
        let hello = ClientHello { program: "ü".repeat(100), ..client_hello() };
        let (read, _) = parse_client_hello(&write_client_hello(&hello)).unwrap().unwrap();
        assert_eq!(read.program, "ü".repeat(32));
        let mut bytes = write_client_hello(&client_hello());
        bytes[96..100].copy_from_slice(b"\x1b[2J");
        assert_eq!(parse_client_hello(&bytes).unwrap().unwrap().0.program, "?[2Jher-station");
        bytes[96..160].fill(0xff);
        bytes[13] = 64;
        assert!(parse_client_hello(&bytes).unwrap().unwrap().0.program.len() <= PROGRAM_NAME_BYTES_MAX);
    }

    #[test]
    fn contradictions_are_errors() {
        let change = |bytes: Vec<u8>, at: usize, value: u8| {
            let mut bytes = bytes;
            bytes[at] = value;
            bytes
        };
        for at in [0, 7, 12, 13, 15] {
            assert!(parse_server_hello(&change(write_server_hello(&server_hello()), at, 2)).is_err(), "{at}");
        }
        for (at, value) in [(0, 0), (12, 0), (12, 3), (13, 65), (13, 1), (14, 1), (28, 1), (159, 1)] {
            assert!(parse_client_hello(&change(write_client_hello(&client_hello()), at, value)).is_err(), "{at}");
        }
        for (at, value) in [(1, 0), (8, 0), (8, 3), (9, 1), (10, 1), (15, 1)] {
            assert!(parse_reply(&change(write_welcome(&welcome(), &[3; 32]), at, value)).is_err(), "{at}");
        }
        assert!(parse_reply(&change(write_refusal(Refusal::WrongKey), 11, 3)).is_err(), "a text longer than the maximum");
        assert!(parse_reply(b"HTTP/1.1").is_err());
        assert!(parse_server_hello(b"S").is_err(), "at the first wrong byte, not at the end");
    }

    fn none_reads_past_the_end(bytes: &[u8]) {
        let fits = |len: Option<usize>| len.is_none_or(|len| len <= bytes.len());
        assert!(parse_preamble(bytes).map_or(true, |read| fits(read.map(|(_, len)| len))));
        assert!(parse_server_hello(bytes).map_or(true, |read| fits(read.map(|(_, len)| len))));
        assert!(parse_client_hello(bytes).map_or(true, |read| fits(read.map(|(_, len)| len))));
        assert!(parse_reply(bytes).map_or(true, |read| fits(read.map(|(_, len)| len))));
    }

    proptest! {
        #[test]
        fn random_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            none_reads_past_the_end(&bytes);
        }

        #[test]
        fn random_bytes_behind_the_magic_are_read_or_refused(rest in proptest::collection::vec(any::<u8>(), 0..600)) {
            none_reads_past_the_end(&[&MAGIC[..], &rest[..]].concat());
        }

        #[test]
        fn damaged_messages_are_read_or_refused(which in 0..4, at in any::<prop::sample::Index>(), value in any::<u8>(), len in any::<prop::sample::Index>()) {
            let mut bytes = match which {
                0 => write_server_hello(&server_hello()),
                1 => write_client_hello(&client_hello()),
                2 => write_welcome(&welcome(), &[3; 32]),
                _ => write_refusal(Refusal::KeyMissing),
            };
            let at = at.index(bytes.len());
            bytes[at] = value;
            none_reads_past_the_end(&bytes);
            none_reads_past_the_end(&bytes[..len.index(bytes.len())]);
        }
    }
}
