//! What there is at a manager: its objects and its sessions.

use crate::request::Request;
use crate::session::Session;
use commonhold_ipc::catalog::slot_of;
use commonhold_ipc::error::Result;
use commonhold_ipc::wire::reply::Outcome;
use commonhold_ipc::wire::{Call, malformed};

/// An object, as [`Session::objects`] lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectInfo {
    /// Its id.
    pub id: u64,
    /// What it is: `Dict`, `List`, `Remote` and so on.
    pub kind: String,
    /// The type that it was made with, in words; of a `SharedMemory` also the block's own name: `SharedMemory "frames"`.
    pub type_text: String,
    /// Its names.
    pub names: Vec<String>,
    /// Entries or elements; bytes of a value or of a block; 0 of others.
    pub len: u64,
    /// Bytes of memory that a queue, a lock and its kin, or a named block that was made here, has to itself; 0 of what lies in the arena or in
    /// a host, and of blocks of other programs that were only opened.
    pub bytes: u64,
    /// References from sessions and names.
    pub references: u64,
    /// References from values in containers.
    pub inside: u64,
    /// Of an object of a user's type: the session of its host, if that lives.
    pub host: Option<u64>,
    /// Sessions that hold it, and how often.
    pub holders: Vec<(u64, u64)>,
}

/// A session, as [`Session::sessions`] lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Its number.
    pub number: u64,
    /// Its process.
    pub pid: u32,
    /// The program that runs there.
    pub program: String,
    /// Objects that it holds.
    pub objects: u64,
    /// References that it has on them.
    pub references: u64,
    /// Whether it is a host of users' objects.
    pub is_host: bool,
}

/// Words and counted texts from the front of a line.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn word(&mut self) -> Option<&'a str> {
        let (word, rest) = self.0.split_once(' ')?;
        self.0 = rest;
        Some(word)
    }

    fn number(&mut self) -> Option<u64> {
        self.word()?.parse().ok()
    }

    /// A text with its length before it, and the character behind it.
    fn counted(&mut self) -> Option<String> {
        let len = self.number()? as usize;
        let (text, rest) = self.0.split_at_checked(len)?;
        let mut rest = rest.chars();
        rest.next()?;
        self.0 = rest.as_str();
        Some(text.to_owned())
    }

    fn object(&mut self) -> Option<ObjectInfo> {
        let (id, kind) = (self.number()?, self.word()?.to_owned());
        let (len, bytes) = (self.number()?, self.number()?);
        let (references, inside, host) = (self.number()?, self.number()?, self.number()?);
        let holders = self.word()?;
        let pair = |pair: &str| pair.split_once(':').and_then(|(session, count)| Some((session.parse().ok()?, count.parse().ok()?)));
        let holders = if holders == "-" { Vec::new() } else { holders.split(',').map(pair).collect::<Option<_>>()? };
        let count = self.number()?;
        let names = (0..count).map(|_| self.counted()).collect::<Option<_>>()?;
        let host = (host != 0).then_some(host);
        Some(ObjectInfo { id, kind, type_text: self.counted()?, names, len, bytes, references, inside, host, holders })
    }
}

fn session(line: &str) -> Option<SessionInfo> {
    let mut words = Words(line);
    let (number, pid, objects, references, host) = (words.number()?, words.number()?, words.number()?, words.number()?, words.number()?);
    Some(SessionInfo { number, pid: pid as u32, program: words.0.to_owned(), objects, references, is_host: host != 0 })
}

impl Session {
    /// The manager's objects: dicts and lists, locks, users' own. Read in pages of some hundred, between which there may be changes.
    ///
    /// ```
    /// # commonhold::init_in_tests!();
    /// # fn main() -> commonhold::Result<()> {
    /// let manager = commonhold::Manager::start()?;
    /// let list = manager.list([1u64, 2])?;
    /// manager.publish("numbers", &list)?;
    /// let objects = manager.objects()?;
    /// assert_eq!((objects[0].kind.as_str(), objects[0].len, &objects[0].names[..]), ("List", 2, &["numbers".to_string()][..]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn objects(&self) -> Result<Vec<ObjectInfo>> {
        let (mut objects, mut from) = (Vec::<ObjectInfo>::new(), 0u64);
        loop {
            let mut request = Request::new(Call::Objects);
            request.payload().extend_from_slice(&from.to_le_bytes());
            let Outcome::Text(text) = self.core().call(&mut request, false)?.outcome()? else { return Err(malformed("reply")) };
            if text.is_empty() {
                return Ok(objects);
            }
            let mut words = Words(&text);
            while !words.0.is_empty() {
                objects.push(words.object().ok_or_else(|| malformed("list of objects"))?);
            }
            from = objects.last().map_or(0, |last| slot_of(last.id)) + 1;
        }
    }

    /// The manager's sessions: which processes are connected, and what they hold.
    pub fn sessions(&self) -> Result<Vec<SessionInfo>> {
        let Outcome::Text(text) = self.core().call(&mut Request::new(Call::Sessions), false)?.outcome()? else {
            return Err(malformed("reply"));
        };
        text.lines().map(|line| session(line).ok_or_else(|| malformed("list of sessions"))).collect()
    }
}
