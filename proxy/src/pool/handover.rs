//! Large results on their way from a worker to its owner, without a copy: each in a memory file of its own, whose descriptor goes ahead.
//!
//! What lies in the pool's one memory file can still be written by its worker, so its owner has to copy it before it looks. A result of 1 MiB or more
//! (`POOL_LARGE_PAGES_BYTES`) is written into a fresh file instead, in large pages, and that is sealed: nobody changes it any more, so the owner maps it,
//! checks it and takes it apart where it is (INV-35). Where there are no large pages the copy is quicker while the pool's memory is
//! warm; only a result for which that is taken (`Space::is_cold`) has such a file then. The descriptor goes through a socket that all workers of a pool send into
//! (`ipc::socket::Descriptors`):
//!
//! | bytes of a message | what |
//! |---|---|
//! | 0..8 | number: bits 32–63 say whose it is, which worker of all that the pool has ever started; bits 0–31 count what that one has sent |
//! | 8..16 | length of the file |
//! | 16..24 | key: a number that this worker alone was given, with its orders |
//!
//! **First the descriptor, then the count (INV-37).** A worker sends, and only then counts the result on the board, whose frame names the number. So
//! whoever sees the count finds the message: in the socket, whatever has become of the worker by then, or *aside*, if somebody has met it on the way to another.
//! Whoever searches goes through all that is there: what was counted may lie behind anything that somebody has sent before.
//!
//! **Who sends in another's name is not heard.** All workers see the numbers of all, on the board; the key none but its own. A worker's messages come
//! in their order, so one whose number is behind what has come, or far ahead of it, is none of those that a frame may name, either.
//!
//! **What nobody will ask for goes.** A worker that dies between the two leaves one message. When it is dead, and nobody reads any more what it has left,
//! it is *forgotten*: what is aside of its own is dropped, and what is met of it later, too. A result that is passed over is taken and dropped. The keeper
//! looks through the socket at each of its turns, and a worker that finds no room there wakes it: so it does not stay full of what nobody looks for.
//!
//! **Nobody waits for room, and nothing grows.** A worker that finds none on the socket, or has no descriptor, or has sent [`POOL_PASSED_MAX`] files that its owner has not
//! taken, puts its result into its part of the pool's file, as if it were smaller. The socket holds few: what is under way counts for all that the user does
//! (`ipc::socket::Descriptors`). Aside there are never more of a worker's than [`POOL_PASSED_MAX`], and all of them sealed, without holes,
//! so that their sender has paid for their memory before their owner maps them. What is not found, or is not such a file, is an error of its call: no worker of
//! ours leaves it out.
//!
//! **What a worker that is not ours can still do**: send what takes long to close, as a connection does that lingers, or a file of a file system that never answers.
//! Nobody can tell by the descriptor, and whoever closes it last waits: the thread of the owner that has met it, and whoever else wants a large result of this pool
//! meanwhile. Nothing else is asked of it: what is no memory file is closed without a look at its length or bytes.
//!
//! An owner that has no descriptor left looks at messages without taking them (they stay), and keeps one descriptor in *reserve*, which it closes
//! for as long as it needs to map one file. Only if another of its threads snatches that does a result get lost, and its call fails.

use crate::process::Archive;
use commonhold_ipc::auth::fresh_nonce;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::{POOL_MESSAGES_MAX, POOL_PASSED_MAX, POOL_WORKERS_MAX, VALUE_BYTES_MAX};
use commonhold_ipc::points;
use commonhold_ipc::socket::{Descriptors, Next, Sent};
use commonhold_ipc::sys::{has_no_holes, is_backed, is_content_sealed};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const MESSAGE_BYTES: usize = 24;
const WHOSE_SHIFT: u32 = 32;

fn whose(number: u64) -> u64 {
    number >> WHOSE_SHIFT
}

/// A worker's side.
pub(super) struct Sender {
    queue: Descriptors,
    worker: u64,
    key: u64,
    sent: u32,
}

impl Sender {
    /// For the worker that is the so-many-th of its pool, and has this key.
    pub(super) fn new(queue: OwnedFd, worker: u64, key: u64) -> Sender {
        Sender { queue: Descriptors::from_fd(queue), worker, key, sent: 0 }
    }

    /// Sends a sealed file of so many bytes: its number, or why it was not sent.
    pub(super) fn send(&mut self, file: BorrowedFd<'_>, len: u64) -> Result<u64, Sent> {
        let number = self.worker << WHOSE_SHIFT | u64::from(self.sent);
        points::client("pool: result's file is there, not sent");
        match self.queue.send(&message(number, len, self.key), file) {
            Sent::Yes => {}
            not => return Err(not),
        }
        points::client("pool: result's file sent, its frame not written");
        self.sent = self.sent.wrapping_add(1);
        Ok(number)
    }
}

fn message(number: u64, len: u64, key: u64) -> [u8; MESSAGE_BYTES] {
    let mut bytes = [0; MESSAGE_BYTES];
    for (to, word) in bytes.chunks_exact_mut(8).zip([number, len, key]) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Who sends, as its owner sees it.
#[derive(Clone, Copy)]
struct Known {
    /// Which worker of all, or [`NOBODY`].
    worker: u64,
    key: u64,
    /// The lower half of the number that comes next.
    next: u32,
}

/// A worker that there is not.
const NOBODY: u64 = u64::MAX;

/// A message with a file, or with why that cannot be had.
struct Met {
    number: u64,
    len: u64,
    key: u64,
    file: Result<OwnedFd>,
}

impl Met {
    fn archive(self) -> Result<Archive> {
        let file = self.file?;
        // First of all whether it is sealed: then it is a memory file.
        let is_ours = is_content_sealed(&file, self.len) && is_backed(&file, self.len) && has_no_holes(&file, self.len);
        if is_ours { Archive::of_file(file, self.len).ok_or_else(missing) } else { Err(missing()) }
    }
}

/// The owner's side.
pub(super) struct Receiver {
    queue: Descriptors,
    /// What workers get copies of.
    sender: Descriptors,
    /// Keeps room for one descriptor.
    reserve: Option<OwnedFd>,
    /// What has come before somebody has asked for it.
    aside: BTreeMap<u64, Result<Archive>>,
    /// Who has each of the places.
    known: Vec<Known>,
}

impl Receiver {
    pub(super) fn new() -> Result<Receiver> {
        let (queue, sender) = Descriptors::pair()?;
        let mut receiver = Receiver {
            queue,
            sender,
            reserve: None,
            aside: BTreeMap::new(),
            known: vec![Known { worker: NOBODY, key: 0, next: 0 }; POOL_WORKERS_MAX],
        };
        receiver.keep_room();
        Ok(receiver)
    }

    /// Where workers send.
    pub(super) fn for_worker(&self) -> BorrowedFd<'_> {
        self.sender.as_fd()
    }

    fn keep_room(&mut self) {
        if self.reserve.is_none() {
            self.reserve = self.queue.as_fd().try_clone_to_owned().ok();
        }
    }

    /// A place has another worker from now on: the key that this is to have.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn begin(&mut self, place: usize, worker: u64) -> Result<u64> {
        self.forget([place]);
        let nonce = fresh_nonce()?;
        let key = u64::from_le_bytes(*nonce.first_chunk().expect("it is longer"));
        self.known[place] = Known { worker, key, next: 0 };
        Ok(key)
    }

    /// The workers of these places are dead, and nobody reads any more what they have left: it is let go of.
    pub(super) fn forget(&mut self, places: impl IntoIterator<Item = usize>) {
        for place in places {
            let gone = std::mem::replace(&mut self.known[place].worker, NOBODY);
            if gone != NOBODY {
                self.aside.retain(|number, _| whose(*number) != gone);
            }
        }
    }

    /// Takes all that has come off the socket, so that there is room.
    pub(super) fn make_room(&mut self) {
        // (What cannot be looked at now is met later.)
        let _ = self.search(None);
    }

    /// The file of this number, which has so many bytes. Nobody else gets it.
    ///
    /// # Errors
    /// `Corrupt`: it has not come, or cannot be read. `System`: there was no descriptor for it.
    pub(super) fn take(&mut self, number: u64, len: u64) -> Result<Archive> {
        let archive = match self.aside.remove(&number) {
            Some(file) => file?,
            None => self.search(Some(number))?.ok_or_else(missing)?,
        };
        if archive.len() as u64 == len { Ok(archive) } else { Err(missing()) }
    }

    /// Goes through what has come, to the file that is wanted, or to the end. What is met on the way is kept aside.
    fn search(&mut self, wanted: Option<u64>) -> Result<Option<Archive>> {
        for _ in 0..POOL_MESSAGES_MAX {
            let Some(met) = self.next()? else { break };
            let Some(met) = met.filter(|met| self.is_expected(met)) else { continue };
            let number = met.number;
            if wanted == Some(number) {
                return met.archive().map(Some);
            }
            if self.has_room(whose(number)) {
                self.aside.insert(number, met.archive());
            }
        }
        Ok(None)
    }

    /// Whether somebody may come to ask for this, from whom the next one is expected then.
    fn is_expected(&mut self, met: &Met) -> bool {
        let sender = self.known.iter_mut().find(|known| known.worker == whose(met.number) && known.key == met.key);
        let Some(known) = sender else { return false };
        // (One may be missing: the kernel had no memory to say that it has a descriptor.)
        let is_expected = (met.number as u32).wrapping_sub(known.next) < POOL_PASSED_MAX as u32;
        if is_expected {
            known.next = (met.number as u32).wrapping_add(1);
        }
        is_expected
    }

    /// Whether another one of this worker's is kept aside.
    fn has_room(&self, worker: u64) -> bool {
        let first = worker << WHOSE_SHIFT;
        self.aside.range(first..=first | u64::from(u32::MAX)).count() < POOL_PASSED_MAX
    }

    /// Takes the next message, if there is one. `Some(None)`: it makes no sense.
    fn next(&mut self) -> Result<Option<Option<Met>>> {
        // One byte more: what is longer than a message is none.
        let mut bytes = [0; MESSAGE_BYTES + 1];
        let mut next = self.queue.look(&mut bytes)?;
        if let Next::NoRoom(_) = next {
            self.reserve = None;
            next = self.queue.look(&mut bytes)?;
        }
        let (count, file) = match next {
            Next::Nothing => return Ok(None),
            Next::Message(count, file) => (count, file.map(Ok)),
            Next::NoRoom(count) => (count, Some(Err(lost()))),
        };
        self.queue.pass_over();
        let word = |at: usize| u64::from_le_bytes(*bytes[8 * at..].first_chunk().expect("there are three"));
        let (number, len, key) = (word(0), word(1), word(2));
        let met = file.filter(|_| count == MESSAGE_BYTES && len <= VALUE_BYTES_MAX).map(|file| Met { number, len, key, file });
        self.keep_room();
        Ok(Some(met))
    }
}

#[cold]
fn missing() -> Error {
    Error::new(
        ErrorKind::Corrupt,
        "the file with a result of a pool's worker is not there, or is not what was said of it: a process that uses the pool has written over it; make a new pool",
    )
}

#[cold]
fn lost() -> Error {
    let text = "the descriptor that a result of a pool's worker came with was lost: this process has no room for another; close some or raise `ulimit -n`";
    Error::new(ErrorKind::System, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonhold_ipc::sys::{memfd, seal_content};
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::fs::FileExt;
    use std::os::unix::net::UnixStream;

    const LEN: u64 = 5000;

    /// A file with this byte in it, sealed or not.
    fn file(byte: u8, sealed: bool) -> File {
        let file = File::from(memfd("test-handover", LEN).unwrap());
        file.write_all_at(&[byte; LEN as usize], 0).unwrap();
        assert!(!sealed || seal_content(&file));
        file
    }

    fn both(workers: u64) -> (Receiver, Vec<Sender>) {
        let mut receiver = Receiver::new().unwrap();
        let senders = (0..workers).map(|place| {
            let key = receiver.begin(place as usize, place + 1).unwrap();
            Sender::new(receiver.for_worker().try_clone_to_owned().unwrap(), place + 1, key)
        });
        let senders = senders.collect();
        (receiver, senders)
    }

    fn is_missing(taken: Result<Archive>) -> bool {
        let text = "the file with a result of a pool's worker is not there, or is not what was said of it: a process that uses the pool has written over it; make a new pool";
        taken.is_err_and(|error| error.kind() == ErrorKind::Corrupt && error.to_string() == text)
    }

    #[test]
    fn each_file_is_found_in_whatever_order_they_are_asked_for() {
        let (mut receiver, mut senders) = both(3);
        let mut sent = Vec::new();
        for byte in 0..30u8 {
            let number = senders[usize::from(byte) % 3].send(file(byte, true).as_fd(), LEN).unwrap();
            sent.push((number, byte));
        }
        for at in [29, 0, 14, 15, 1] {
            let (number, byte) = sent.remove(at % sent.len());
            let archive = receiver.take(number, LEN).unwrap();
            assert!(matches!(archive, Archive::Mapped(_)) && archive[..] == [byte; LEN as usize]);
            assert!(is_missing(receiver.take(number, LEN)), "nobody gets it twice");
        }
        sent.reverse();
        for (number, byte) in sent {
            assert!(receiver.take(number, LEN).unwrap()[..] == [byte; LEN as usize]);
        }
        assert!(receiver.aside.is_empty());
    }

    #[test]
    fn what_is_not_sealed_or_was_never_written_is_an_error_and_so_is_what_is_not_there() {
        let (mut receiver, mut senders) = both(1);
        let sender = &mut senders[0];
        let unwritten = File::from(memfd("test-handover", LEN).unwrap());
        unwritten.write_all_at(&[7], 0).unwrap();
        assert!(seal_content(&unwritten));
        // In one large page, of two: not written to its end, or not from its beginning.
        for long in [4 << 20, (3 << 20) + 8] {
            let holes = File::from(memfd("test-handover", long).unwrap());
            drop(commonhold_ipc::sys::Front::of(&holes, 2 << 20));
            assert!(seal_content(&holes));
            let number = sender.send(holes.as_fd(), long).unwrap();
            assert!(is_missing(receiver.take(number, long)), "{long}");
        }
        // As much memory as it is long, but some of that behind its end.
        let behind = File::from(memfd("test-handover", 3 << 20).unwrap());
        if commonhold_ipc::sys::Front::of(&behind, 3 << 20).is_some() {
            commonhold_ipc::sys::punch(&behind, 0..4096).unwrap();
            assert!(seal_content(&behind) && is_backed(&behind, 3 << 20));
            let number = sender.send(behind.as_fd(), 3 << 20).unwrap();
            assert!(is_missing(receiver.take(number, 3 << 20)));
        }
        // No memory file: it can be neither mapped nor read; or both, but it is not to be asked for anything.
        let others = [File::open("/").unwrap(), File::open("/proc/self/exe").unwrap()];
        for file in [file(7, false), unwritten].into_iter().chain(others) {
            let number = sender.send(file.as_fd(), LEN).unwrap();
            assert!(is_missing(receiver.take(number, LEN)), "{file:?}");
        }
        // Nor when it is met on the way to another.
        let number = sender.send(file(7, false).as_fd(), LEN).unwrap();
        let other = sender.send(file(8, true).as_fd(), LEN).unwrap();
        assert!(receiver.take(other, LEN).unwrap()[0] == 8 && receiver.aside.values().all(Result::is_err));
        assert!(is_missing(receiver.take(number, LEN)));
        // Of another length than the frame says, or said to be.
        for (said, wanted) in [(LEN, LEN - 1), (LEN, LEN + 1), (LEN + 1, LEN + 1), (u64::MAX, u64::MAX), (0, LEN)] {
            let number = sender.send(file(7, true).as_fd(), said).unwrap();
            assert!(is_missing(receiver.take(number, wanted)), "{said} {wanted}");
        }
        assert!(
            is_missing(receiver.take(number + 1, LEN)) && is_missing(receiver.take(u64::MAX, LEN)) && is_missing(receiver.take(0, LEN))
        );
        let number = sender.send(file(5, true).as_fd(), LEN).unwrap();
        assert!(receiver.take(number, LEN).unwrap()[..] == [5; LEN as usize], "and what comes behind all that is found");
    }

    #[test]
    fn what_makes_no_sense_is_passed_over_and_a_full_socket_is_no_hang() {
        let (mut receiver, mut senders) = both(1);
        let junk = file(0, true);
        let send = |receiver: &Receiver, bytes: &[u8]| receiver.sender.send(bytes, junk.as_fd()) == Sent::Yes;
        let key = senders[0].key;
        for round in 0..5u8 {
            // Of other lengths; a worker's that there is not, the last that there can be among them; with another key; one without a descriptor.
            let foreign = [message(77 << 32, LEN, key), message(u64::MAX, LEN, 0), message(0, LEN, key), message(1 << 32, LEN, key ^ 1)];
            for bytes in [&[][..], &[1; 1], &[1; 23], &[1; 25], &[1; 500]].into_iter().chain(foreign.iter().map(|bytes| &bytes[..])) {
                assert!(send(&receiver, bytes));
            }
            let mut bare = File::from(receiver.for_worker().try_clone_to_owned().unwrap());
            bare.write_all(&message(1 << 32, LEN, key)).unwrap();
            let number = senders[0].send(file(round, true).as_fd(), LEN).unwrap();
            assert!(receiver.take(number, LEN).unwrap()[..] == [round; LEN as usize]);
            assert!(receiver.aside.is_empty());
        }
        while send(&receiver, &message(77 << 32, LEN, key)) {}
        assert_eq!(senders[0].send(file(7, true).as_fd(), LEN), Err(Sent::NotNow), "there is no room, and it says so");
        assert!(is_missing(receiver.take(1 << 32 | 5, LEN)));
        let number = senders[0].send(file(7, true).as_fd(), LEN).unwrap();
        let sender = UnixStream::from(receiver.for_worker().try_clone_to_owned().unwrap());
        sender.shutdown(std::net::Shutdown::Both).unwrap();
        assert_eq!(senders[0].send(file(7, true).as_fd(), LEN), Err(Sent::Never));
        assert!(receiver.take(number, LEN).is_ok(), "what was sent before the end is there");
        assert!(is_missing(receiver.take(number + 1, LEN)));
    }

    #[test]
    fn a_flood_of_files_that_could_be_asked_for_is_kept_within_bounds() {
        let (mut receiver, mut senders) = both(2);
        for _ in 0..5 {
            while senders[0].send(file(1, true).as_fd(), LEN).is_ok() {}
            assert!(is_missing(receiver.take(2 << 32, LEN)));
            assert!(receiver.aside.len() <= POOL_PASSED_MAX, "{}", receiver.aside.len());
        }
        assert_eq!(receiver.aside.len(), POOL_PASSED_MAX);
        let number = *receiver.aside.keys().next().unwrap();
        assert!(receiver.take(number, LEN).unwrap()[..] == [1; LEN as usize]);
        // There is room for one more. The same number again is not kept, and none that is far ahead.
        let ahead = (1 << 32) | (u64::from(receiver.known[0].next) + POOL_PASSED_MAX as u64);
        for number in [number, ahead] {
            assert_eq!(receiver.sender.send(&message(number, LEN, senders[0].key), file(9, true).as_fd()), Sent::Yes);
        }
        let other = senders[1].send(file(2, true).as_fd(), LEN).unwrap();
        assert!(receiver.take(other, LEN).unwrap()[..] == [2; LEN as usize]);
        assert!(is_missing(receiver.take(number, LEN)) && is_missing(receiver.take(ahead, LEN)));
        assert_eq!(receiver.aside.len(), POOL_PASSED_MAX - 1);
    }

    /// Whatever numbers it names: those that come next, all that there are, those far ahead.
    #[test]
    fn what_is_sent_in_anothers_name_hurts_nobody() {
        let (mut receiver, mut senders) = both(2);
        let forger = senders.remove(1);
        for round in 0..3u8 {
            for number in [u64::from(round), 7, 31, 1 << 31, u64::from(u32::MAX)] {
                assert_eq!(receiver.sender.send(&message(1 << 32 | number, LEN, forger.key), file(9, true).as_fd()), Sent::Yes);
            }
            let number = senders[0].send(file(round, true).as_fd(), LEN).unwrap();
            assert!(receiver.take(number, LEN).unwrap()[..] == [round; LEN as usize]);
            assert!(receiver.aside.is_empty());
        }
    }

    #[test]
    fn numbers_go_on_behind_their_last() {
        let (mut receiver, mut senders) = both(1);
        (senders[0].sent, receiver.known[0].next) = (u32::MAX - 1, u32::MAX - 1);
        for round in 0..4 {
            let number = senders[0].send(file(round, true).as_fd(), LEN).unwrap();
            assert!(receiver.take(number, LEN).unwrap()[0] == round);
        }
    }

    #[test]
    fn a_dead_workers_files_go_with_its_place() {
        let (mut receiver, mut senders) = both(2);
        let of_dead: Vec<_> = (0..3).map(|_| senders[0].send(file(1, true).as_fd(), LEN).unwrap()).collect();
        let of_living = senders[1].send(file(2, true).as_fd(), LEN).unwrap();
        // One is aside, the others in the socket.
        assert!(receiver.take(of_dead[1], LEN).is_ok() && receiver.aside.len() == 1);
        let key = receiver.begin(0, 3).unwrap();
        receiver.make_room();
        assert_eq!(receiver.aside.keys().collect::<Vec<_>>(), [&of_living]);
        assert!(is_missing(receiver.take(of_dead[0], LEN)) && is_missing(receiver.take(of_dead[2], LEN)));
        let mut sender = Sender::new(receiver.for_worker().try_clone_to_owned().unwrap(), 3, key);
        let number = sender.send(file(3, true).as_fd(), LEN).unwrap();
        assert!(receiver.take(number, LEN).unwrap()[0] == 3 && receiver.take(of_living, LEN).unwrap()[0] == 2);
        // Nobody has its place from now on.
        let number = sender.send(file(3, true).as_fd(), LEN).unwrap();
        receiver.make_room();
        assert!(receiver.aside.contains_key(&number));
        let late = sender.send(file(3, true).as_fd(), LEN).unwrap();
        receiver.forget(0..2);
        receiver.make_room();
        assert!(receiver.aside.is_empty() && is_missing(receiver.take(late, LEN)));
    }
}
