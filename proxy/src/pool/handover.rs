//! Large results on their way from a worker to its owner, without a copy: each in a memory file of its own, whose descriptor goes ahead.
//!
//! What lies in the pool's one memory file can still be written by its worker, so its owner has to copy it before it looks. That is what is done
//! while that memory is warm: making, mapping and clearing away a file costs more than the copy. A larger result, or one for which the
//! warm memory is taken (`Space::is_cold`), is written into a fresh file instead, and that is sealed: nobody changes it any more, so the owner maps it,
//! checks it and takes it apart where it is (INV-35). The descriptor goes through a socket that all workers of a pool send into
//! (`ipc::socket::Descriptors`):
//!
//! | bytes of a message | what |
//! |---|---|
//! | 0..8 | number: bits 32–63 say whose it is, which worker of all that the pool has ever started; bits 0–31 count what that one has sent |
//! | 8..16 | length of the file |
//!
//! **First the descriptor, then the count (INV-37).** A worker sends, and only then counts the result on the board, whose frame names the number. So
//! whoever sees the count finds the message: in the socket, whatever has become of the worker by then, or *aside*, if somebody has met it on the way to another.
//!
//! **What nobody will ask for goes.** A worker that dies between the two leaves one message. Its place on the board goes to another worker only when nobody
//! reads any more what it has left; then the socket is looked through, and what is its own is dropped. A result that is passed over is
//! taken and dropped, too.
//!
//! **Nobody waits, and nothing grows.** A worker that finds no room on the socket, or has no descriptor, or has sent
//! [`POOL_PASSED_MAX`] files that its owner has not taken, puts its result into its part of the pool's file, as if it were smaller. Aside there are never more of a
//! worker's than that; and of messages that make no sense, or are nobody's, only [`POOL_STRAY_MAX`] are passed over in one search. What is not found then is an error of
//! its call: no worker of ours leaves it out.
//!
//! An owner that has no descriptor left looks at messages without taking them (they stay), and keeps one descriptor in *reserve*, which it closes
//! for as long as it needs to map one file. Only if another of its threads snatches that does a result get lost, and its call fails.

use crate::process::Archive;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::{POOL_PASSED_MAX, POOL_STRAY_MAX, POOL_WORKERS_MAX, VALUE_BYTES_MAX};
use commonhold_ipc::points;
use commonhold_ipc::socket::{Descriptors, Next};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const MESSAGE_BYTES: usize = 16;
const WHOSE_SHIFT: u32 = 32;

fn whose(number: u64) -> u64 {
    number >> WHOSE_SHIFT
}

/// A worker's side.
pub(super) struct Sender {
    queue: Descriptors,
    worker: u64,
    sent: u32,
}

impl Sender {
    /// For the worker that is the so-many-th of its pool.
    pub(super) fn new(queue: OwnedFd, worker: u64) -> Sender {
        Sender { queue: Descriptors::from_fd(queue), worker, sent: 0 }
    }

    /// Sends a file of so many bytes: its number. `None`: there is no room for it now.
    pub(super) fn send(&mut self, file: BorrowedFd<'_>, len: u64) -> Option<u64> {
        let number = self.worker << WHOSE_SHIFT | u64::from(self.sent);
        points::client("pool: result's file is there, not sent");
        if !self.queue.send(&message(number, len), file) {
            return None;
        }
        points::client("pool: result's file sent, its frame not written");
        self.sent = self.sent.wrapping_add(1);
        Some(number)
    }
}

fn message(number: u64, len: u64) -> [u8; MESSAGE_BYTES] {
    (u128::from(len) << 64 | u128::from(number)).to_le_bytes()
}

/// A worker that there is not.
const NOBODY: u64 = u64::MAX;

/// What a message is.
enum Met {
    /// A file, by its number, or why it cannot be had.
    File(u64, Result<Archive>),
    /// It makes no sense.
    Stray,
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
    workers: Vec<u64>,
}

impl Receiver {
    pub(super) fn new() -> Result<Receiver> {
        let (queue, sender) = Descriptors::pair()?;
        let mut receiver = Receiver { queue, sender, reserve: None, aside: BTreeMap::new(), workers: vec![NOBODY; POOL_WORKERS_MAX] };
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

    /// A place has another worker from now on. What the one before it has left is let go of.
    pub(super) fn begin(&mut self, place: usize, worker: u64) {
        let gone = std::mem::replace(&mut self.workers[place], worker);
        self.aside.retain(|number, _| whose(*number) != gone);
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
        let mut stray = 0;
        while stray < POOL_STRAY_MAX {
            match self.next()? {
                None => break,
                Some(Met::File(number, file)) if wanted == Some(number) => return file.map(Some),
                Some(Met::File(number, file)) if self.is_awaited(number) => _ = self.aside.insert(number, file),
                Some(_) => stray += 1,
            }
        }
        Ok(None)
    }

    /// Whether somebody may come to ask for this.
    fn is_awaited(&self, number: u64) -> bool {
        let first = whose(number) << WHOSE_SHIFT;
        let has_room = || self.aside.range(first..=first | u64::from(u32::MAX)).count() < POOL_PASSED_MAX;
        self.workers.contains(&whose(number)) && has_room() && !self.aside.contains_key(&number)
    }

    /// Takes the next message, if there is one.
    fn next(&mut self) -> Result<Option<Met>> {
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
        let words = bytes.first_chunk::<MESSAGE_BYTES>().map_or(0, |bytes| u128::from_le_bytes(*bytes));
        let (number, len) = (words as u64, (words >> 64) as u64);
        let met = match file {
            Some(file) if count == MESSAGE_BYTES && len <= VALUE_BYTES_MAX => {
                Met::File(number, file.and_then(|file| Archive::of_file(file, len).ok_or_else(missing)))
            }
            _ => Met::Stray,
        };
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
            receiver.begin(place as usize, place + 1);
            Sender::new(receiver.for_worker().try_clone_to_owned().unwrap(), place + 1)
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
    fn what_can_still_be_written_is_copied_and_what_is_not_there_is_an_error() {
        let (mut receiver, mut senders) = both(1);
        let sender = &mut senders[0];
        let open = file(7, false);
        let number = sender.send(open.as_fd(), LEN).unwrap();
        let archive = receiver.take(number, LEN).unwrap();
        open.write_all_at(&[9; LEN as usize], 0).unwrap();
        open.set_len(0).unwrap();
        assert!(matches!(archive, Archive::Own(_)) && archive[..] == [7; LEN as usize]);
        // Shortened before anybody has looked.
        let short = file(7, false);
        let number = sender.send(short.as_fd(), LEN).unwrap();
        short.set_len(LEN - 1).unwrap();
        assert!(is_missing(receiver.take(number, LEN)));
        // Of another length than the frame says, or said to be.
        for (said, wanted) in [(LEN, LEN - 1), (LEN, LEN + 1), (LEN + 1, LEN + 1), (u64::MAX, u64::MAX), (0, LEN)] {
            let number = sender.send(file(7, true).as_fd(), said).unwrap();
            assert!(is_missing(receiver.take(number, wanted)), "{said} {wanted}");
        }
        assert!(
            is_missing(receiver.take(number + 1, LEN)) && is_missing(receiver.take(u64::MAX, LEN)) && is_missing(receiver.take(0, LEN))
        );
        // No file that can be mapped or read.
        let number = sender.send(File::open("/").unwrap().as_fd(), LEN).unwrap();
        assert!(is_missing(receiver.take(number, LEN)));
        let number = sender.send(file(5, true).as_fd(), LEN).unwrap();
        assert!(receiver.take(number, LEN).unwrap()[..] == [5; LEN as usize], "and what comes behind all that is found");
    }

    #[test]
    fn what_makes_no_sense_is_passed_over_and_a_full_socket_is_no_hang() {
        let (mut receiver, mut senders) = both(1);
        let junk = file(0, true);
        let send = |receiver: &Receiver, bytes: &[u8]| receiver.sender.send(bytes, junk.as_fd());
        for round in 0..5u8 {
            // Of other lengths; a worker's that there is not, the last that there can be among them; one without a descriptor.
            for bytes in [&[1; 1][..], &[1; 15], &[1; 17], &[1; 500], &message(77 << 32, LEN), &message(u64::MAX, LEN), &message(0, LEN)] {
                assert!(send(&receiver, bytes));
            }
            let mut bare = File::from(receiver.for_worker().try_clone_to_owned().unwrap());
            bare.write_all(&message(1 << 32, LEN)).unwrap();
            let number = senders[0].send(file(round, true).as_fd(), LEN).unwrap();
            assert!(receiver.take(number, LEN).unwrap()[..] == [round; LEN as usize]);
            assert!(receiver.aside.is_empty());
        }
        while send(&receiver, &message(77 << 32, LEN)) {}
        assert!(senders[0].send(file(7, true).as_fd(), LEN).is_none(), "there is no room, and it says so");
        assert!(is_missing(receiver.take(1 << 32 | 5, LEN)));
        assert!(senders[0].send(file(7, true).as_fd(), LEN).is_some());
    }

    #[test]
    fn a_flood_of_files_that_could_be_asked_for_is_kept_within_bounds() {
        let (mut receiver, mut senders) = both(2);
        for _ in 0..5 {
            while senders[0].send(file(1, true).as_fd(), LEN).is_some() {}
            assert!(is_missing(receiver.take(2 << 32, LEN)));
            assert!(receiver.aside.len() <= POOL_PASSED_MAX, "{}", receiver.aside.len());
        }
        assert_eq!(receiver.aside.len(), POOL_PASSED_MAX);
        // The same number again is not kept.
        let number = *receiver.aside.keys().next().unwrap();
        assert!(receiver.sender.send(&message(number, LEN), file(9, true).as_fd()));
        let other = senders[1].send(file(2, true).as_fd(), LEN).unwrap();
        assert!(receiver.take(other, LEN).unwrap()[..] == [2; LEN as usize]);
        assert!(receiver.take(number, LEN).unwrap()[..] == [1; LEN as usize]);
    }

    #[test]
    fn a_dead_workers_files_go_with_its_place() {
        let (mut receiver, mut senders) = both(2);
        let of_dead: Vec<_> = (0..3).map(|_| senders[0].send(file(1, true).as_fd(), LEN).unwrap()).collect();
        let of_living = senders[1].send(file(2, true).as_fd(), LEN).unwrap();
        // One is aside, the others in the socket.
        assert!(receiver.take(of_dead[1], LEN).is_ok() && receiver.aside.len() == 1);
        receiver.begin(0, 3);
        assert_eq!(receiver.aside.keys().collect::<Vec<_>>(), [&of_living]);
        assert!(is_missing(receiver.take(of_dead[0], LEN)) && is_missing(receiver.take(of_dead[2], LEN)));
        let mut sender = Sender::new(receiver.for_worker().try_clone_to_owned().unwrap(), 3);
        let number = sender.send(file(3, true).as_fd(), LEN).unwrap();
        assert!(receiver.take(number, LEN).unwrap()[0] == 3 && receiver.take(of_living, LEN).unwrap()[0] == 2);
    }
}
