//! What parent and child say to each other: a head, a value, descriptors.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | kind |
//! | 1 | 1: the head is in a memory file, 2: the value is |
//! | 2 | number of descriptors that are not such files; these come first |
//! | 3 | 0 |
//! | 4..8 | length of the head, little-endian |
//! | 8..16 | length of the value, little-endian |
//! | 16.. | head and value, unless in files |
//!
//! Whatever is larger than [`PROCESS_INLINE_BYTES_MAX`] goes into a file, so that a message fits into an empty socket: then its
//! sender need not wait for anybody to read it, and may even end before. A file is made for the one message, written, and sealed; who
//! gets it looks at it where it is, and copies it only if a seal is missing (see [`Archive`]).

use super::archive::{Archive, Fresh, seal, write_sealed};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::{DESCRIPTORS_PER_MESSAGE_MAX, PROCESS_HEAD_BYTES_MAX, PROCESS_INLINE_BYTES_MAX, VALUE_BYTES_MAX};
use commonhold_ipc::socket::{Channel, Received};
use commonhold_ipc::sys::{memfd, wait_readable};
use commonhold_ipc::value::{Ser, Shared, with_scratch};
use rkyv::util::AlignedVec;
use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// How the files of messages are named in `/proc/<pid>/maps`.
const FILE_NAME: &str = "commonhold-process";
const HEADER_BYTES: usize = 16;
const HEAD_IN_FILE: u8 = 1;
const VALUE_IN_FILE: u8 = 2;

/// Descriptors that a parent may hand its child beside its pidfd.
pub(super) const HANDED_MAX: usize = 3;
/// Descriptors of one message: a pidfd, those that are handed over, and two files.
const DESCRIPTORS_MAX: usize = 3 + HANDED_MAX;
const _: () = assert!(DESCRIPTORS_MAX <= DESCRIPTORS_PER_MESSAGE_MAX);

/// How long a sender waits for room. Messages fit into an empty socket, so there is room unless the system has next to none.
const ROOM_TIMEOUT: Duration = Duration::from_secs(3600);

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Parent to child: what to do. With the arguments, and the parent's pidfd.
    Orders = 1,
    /// Child to parent: it has its arguments, and calls the function.
    Begun = 2,
    /// Child to parent: the result.
    Returned = 3,
    /// Child to parent: the message of a panic, its place, its backtrace.
    Panicked = 4,
    /// Child to parent: the error because of which it did not begin, or has no result.
    Failed = 5,
    /// Parent to child: it holds what the handles in the result name.
    Taken = 6,
    /// Parent to child, before the orders and for each manager whose handles are among the arguments: what keeps their objects.
    Luggage = 7,
    /// Child to parent, before the result: that is an error, which prints so. With the right to tell (see `failure`), as `Failed`.
    Unhappy = 8,
    /// Parent to child, before the orders and if it is to end with the parent: an end of the parent's leash.
    Leash = 9,
}

impl Kind {
    fn of(code: u8) -> Option<Kind> {
        use Kind::*;
        [Orders, Begun, Returned, Panicked, Failed, Taken, Luggage, Unhappy, Leash].into_iter().find(|kind| *kind as u8 == code)
    }
}

/// A value's archive, here or in a memory file.
pub(super) enum Packed {
    Inline(Vec<u8>),
    File(OwnedFd, u64),
}

impl Packed {
    /// Packs a value; also the handles that are in it, as (manager, id).
    pub(super) fn pack<T: Shared>(value: &T) -> Result<(Packed, Vec<(u64, u64)>)> {
        let small = with_scratch(|ser| -> Result<_> {
            let put = ser.put_up_to::<T>(value, PROCESS_INLINE_BYTES_MAX as u64)?;
            Ok(put.map(|range| (Packed::Inline(ser.bytes()[range].to_vec()), ser.handles().to_vec())))
        })?;
        match small {
            Some(small) => Ok(small),
            None => Self::pack_large(value),
        }
    }

    #[cold]
    fn pack_large<T: Shared>(value: &T) -> Result<(Packed, Vec<(u64, u64)>)> {
        let mut count = Ser::count();
        count.put::<T>(value)?;
        let len = count.written();
        let (file, handles) = write_sealed(Fresh::make(FILE_NAME, len)?, value)?;
        Ok((Packed::File(file.into(), len), handles))
    }

    fn of_bytes(bytes: &[u8]) -> Result<Packed> {
        if bytes.len() <= PROCESS_INLINE_BYTES_MAX {
            return Ok(Packed::Inline(bytes.to_vec()));
        }
        let file = new_file(bytes.len() as u64)?;
        file.write_all_at(bytes, 0)?;
        seal(&file);
        Ok(Packed::File(file.into(), bytes.len() as u64))
    }

    fn len(&self) -> u64 {
        match self {
            Packed::Inline(bytes) => bytes.len() as u64,
            Packed::File(_, len) => *len,
        }
    }
}

fn new_file(len: u64) -> Result<File> {
    memfd(FILE_NAME, len).map(File::from)
}

/// Sends a message: `head` is its head's archive.
pub(super) fn send<H: Shared>(channel: &Channel, kind: Kind, head: &H, value: &Packed, fds: &[BorrowedFd<'_>]) -> Result<()> {
    let head = with_scratch(|ser| ser.put::<H>(head).and_then(|range| Packed::of_bytes(&ser.bytes()[range])))?;
    let (mut flags, mut sent, mut bytes) = (0, fds.to_vec(), vec![0; HEADER_BYTES]);
    for (part, flag) in [(&head, HEAD_IN_FILE), (value, VALUE_IN_FILE)] {
        match part {
            Packed::Inline(inline) => bytes.extend_from_slice(inline),
            Packed::File(file, _) => {
                flags |= flag;
                sent.push(file.as_fd());
            }
        }
    }
    bytes[..4].copy_from_slice(&[kind as u8, flags, fds.len() as u8, 0]);
    bytes[4..8].copy_from_slice(&(head.len() as u32).to_le_bytes());
    bytes[8..16].copy_from_slice(&value.len().to_le_bytes());
    channel.send_all(&bytes, &sent, Instant::now() + ROOM_TIMEOUT)
}

/// Sends a message without a value.
pub(super) fn say<H: Shared>(channel: &Channel, kind: Kind, head: &H) -> Result<()> {
    send(channel, kind, head, &Packed::Inline(Vec::new()), &[])
}

/// A message, whole.
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) head: Archive,
    pub(super) value: Archive,
    /// Those that are not files of its own.
    pub(super) fds: Vec<OwnedFd>,
}

/// What has come and is not a whole message yet.
#[derive(Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
    /// The other side will say no more, or has said what cannot be read, and where its next message begins is not known.
    pub(super) ended: bool,
}

impl Inbox {
    /// The next message, if it has come whole. One that cannot be read is an error once, and the last.
    pub(super) fn next(&mut self, channel: &Channel) -> Result<Option<Message>> {
        let mut buffer = [0; 4096];
        loop {
            match self.take() {
                Ok(None) => {}
                Err(error) => {
                    *self = Inbox { ended: true, ..Inbox::default() };
                    return Err(error);
                }
                taken => return taken,
            }
            if self.ended {
                return Ok(None);
            }
            match channel.receive_with_fds(&mut buffer, &mut self.fds, 2 * DESCRIPTORS_MAX)? {
                Received::Bytes(count) => self.bytes.extend_from_slice(&buffer[..count]),
                Received::Nothing => return Ok(None),
                Received::Ended => self.ended = true,
            }
        }
    }

    /// Waits for the next message; `None` when the other side will say no more: its socket is at its end, or its process, if that is
    /// watched.
    pub(super) fn wait_beside(&mut self, channel: &Channel, process: Option<BorrowedFd<'_>>) -> Result<Option<Message>> {
        let watched: Vec<_> = [channel.as_fd()].into_iter().chain(process).collect();
        let mut last = false;
        loop {
            match self.next(channel)? {
                // What it has said before its end must not be missed.
                None if !self.ended && !last => last = wait_readable(&watched, None)? & 2 != 0,
                message => return Ok(message),
            }
        }
    }

    /// The same without the process.
    #[cfg(test)]
    fn wait(&mut self, channel: &Channel) -> Result<Option<Message>> {
        self.wait_beside(channel, None)
    }

    fn take(&mut self) -> Result<Option<Message>> {
        let Some(header) = self.bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [kind, flags, fds, _, h0, h1, h2, h3, value @ ..] = *header;
        let (head_len, value_len) = (u32::from_le_bytes([h0, h1, h2, h3]) as usize, u64::from_le_bytes(value));
        let kind = Kind::of(kind).filter(|_| head_len <= PROCESS_HEAD_BYTES_MAX && value_len <= VALUE_BYTES_MAX).ok_or_else(malformed)?;
        let inline = |flag: u8, len: usize| if flags & flag == 0 { len } else { 0 };
        let head_end = HEADER_BYTES + inline(HEAD_IN_FILE, head_len);
        let end = head_end + inline(VALUE_IN_FILE, value_len as usize);
        if self.bytes.len() < end {
            return Ok(None);
        }
        let files = usize::from(flags & HEAD_IN_FILE) + usize::from(flags & VALUE_IN_FILE) / 2;
        // They come with the first byte, unless this process had no room for them. A right to tell is no loss that matters.
        let may_lack = files == 0 && matches!(kind, Kind::Failed | Kind::Unhappy);
        if self.fds.len() < usize::from(fds) + files && !may_lack {
            let text = "descriptors that came with a message from another process were lost: close some or raise `ulimit -n`";
            return Err(Error::new(ErrorKind::System, text));
        }
        let own: Vec<OwnedFd> = self.fds.drain(..usize::from(fds).min(self.fds.len())).collect();
        let mut part = |flag: u8, range: Range<usize>, len: u64| {
            if flags & flag != 0 {
                return Archive::of_file(self.fds.remove(0), len).ok_or_else(malformed);
            }
            let mut bytes = AlignedVec::with_capacity(range.len());
            bytes.extend_from_slice(&self.bytes[range]);
            Ok(Archive::Own(bytes))
        };
        let head = part(HEAD_IN_FILE, HEADER_BYTES..head_end, head_len as u64)?;
        let value = part(VALUE_IN_FILE, head_end..end, value_len)?;
        self.bytes.drain(..end);
        Ok(Some(Message { kind, head, value, fds: own }))
    }
}

/// The error for a message that makes no sense.
pub(super) fn malformed() -> Error {
    Error::new(ErrorKind::Corrupt, "a message between parent and child that cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonhold_ipc::sys::seal_content;
    use commonhold_ipc::value::access;

    type Head = (String, Vec<u64>);

    fn head(numbers: usize) -> Head {
        ("head".to_owned(), vec![7; numbers])
    }

    #[test]
    fn messages_of_every_size_arrive_without_a_reader() {
        let edge = PROCESS_INLINE_BYTES_MAX;
        for (numbers, len) in [(0, 0), (3, 10), (3, edge - 8), (3, edge - 7), (edge, 1), (edge, 5 * edge)] {
            let (ours, theirs) = Channel::pair().unwrap();
            let (value, handles) = Packed::pack::<Vec<u8>>(&vec![5; len]).unwrap();
            assert!(handles.is_empty());
            send(&ours, Kind::Orders, &head(numbers), &value, &[ours.as_fd()]).unwrap();
            say(&ours, Kind::Begun, &()).unwrap();
            drop(ours);
            let mut inbox = Inbox::default();
            let message = inbox.wait(&theirs).unwrap().unwrap();
            assert!(message.kind == Kind::Orders && message.fds.len() == 1);
            assert!(Head::eq_archived(access::<Head>(&message.head).unwrap(), &head(numbers)));
            assert!(access::<Vec<u8>>(&message.value).unwrap().as_slice() == vec![5; len]);
            // What goes by a file is not copied.
            let is_mapped = |part: &Archive| matches!(part, Archive::Mapped(_));
            assert_eq!((is_mapped(&message.head), is_mapped(&message.value)), (numbers == edge, len > edge - 8), "{numbers}, {len}");
            drop(message);
            assert_eq!(inbox.wait(&theirs).unwrap().unwrap().kind, Kind::Begun);
            assert!(inbox.wait(&theirs).unwrap().is_none() && inbox.ended);
        }
    }

    /// What comes of a message whose value is said to be so many bytes of a file.
    fn taken(file: impl Into<OwnedFd>, len: u64) -> Result<Archive> {
        let (ours, theirs) = Channel::pair().unwrap();
        send(&ours, Kind::Returned, &head(2), &Packed::File(file.into(), len), &[]).unwrap();
        let mut inbox = Inbox::default();
        let message = inbox.wait(&theirs);
        if message.is_err() {
            assert!(inbox.ended && inbox.wait(&theirs).unwrap().is_none(), "it is the last");
        }
        message.map(|message| message.expect("it is whole").value)
    }

    fn archive_of(value: &[u8]) -> Vec<u8> {
        with_scratch(|ser| ser.put::<Vec<u8>>(&value.to_vec()).map(|range| ser.bytes()[range].to_vec())).unwrap()
    }

    #[test]
    fn what_could_still_be_written_is_copied() {
        let archive = archive_of(&[5; 1 << 16]);
        let len = archive.len() as u64;
        // Without a seal, and sealed against shrinking and growing alone.
        for file in [memfd("test", len).unwrap(), commonhold_ipc::sys::memfd_sealed("test", len).unwrap()] {
            let file = File::from(file);
            file.write_all_at(&archive, 0).unwrap();
            let value = taken(file.try_clone().unwrap(), len).unwrap();
            file.write_all_at(&vec![0xff; archive.len()], 0).unwrap();
            assert!(matches!(value, Archive::Own(_)) && value[..] == archive[..]);
        }
        // One that can shrink under who reads it.
        let file = new_file(len).unwrap();
        file.write_all_at(&archive, 0).unwrap();
        let value = taken(file.try_clone().unwrap(), len).unwrap();
        file.set_len(0).unwrap();
        assert!(value[..] == archive[..]);
    }

    #[test]
    fn what_is_mapped_cannot_be_written_by_its_sender() {
        let numbers = vec![5; 1 << 16];
        let (Packed::File(file, len), _) = Packed::pack::<Vec<u8>>(&numbers).unwrap() else { panic!("it is large") };
        let file = File::from(file);
        let value = taken(file.try_clone().unwrap(), len).unwrap();
        assert!(matches!(value, Archive::Mapped(_)));
        assert!(file.write_all_at(&[0xff], 0).is_err() && file.set_len(0).is_err() && file.set_len(2 * len).is_err());
        assert!(access::<Vec<u8>>(&value).unwrap().as_slice() == numbers);
    }

    #[test]
    fn a_file_of_another_length_or_of_another_kind_is_no_harm() {
        let archive = archive_of(&[5; 1 << 16]);
        let len = archive.len() as u64;
        for sealed in [false, true] {
            for (there, is_whole) in [(0, false), (1, false), (len - 1, false), (len, true), (len + 1, true), (2 * len, true)] {
                let file = new_file(there).unwrap();
                file.write_all_at(&archive[..archive.len().min(there as usize)], 0).unwrap();
                assert!(!sealed || seal_content(&file));
                match taken(file, len) {
                    Ok(value) => {
                        assert!(is_whole && value[..] == archive[..], "{sealed}, {there}");
                        assert_eq!(matches!(value, Archive::Mapped(_)), sealed && there == len, "{there}");
                    }
                    Err(error) => assert!(!is_whole && error.kind() == ErrorKind::Corrupt, "{sealed}, {there}: {error}"),
                }
            }
            let nonsense = new_file(len).unwrap();
            nonsense.write_all_at(&vec![0xff; archive.len()], 0).unwrap();
            assert!(!sealed || seal_content(&nonsense));
            assert!(access::<Vec<u8>>(&taken(nonsense, len).unwrap()).is_err());
        }
        // Said to be as much as there can be, and is not.
        assert!(taken(new_file(1).unwrap(), VALUE_BYTES_MAX).is_err());
        let unreadable = std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
        assert!(taken(unreadable, len).is_err() && taken(File::open("/").unwrap(), len).is_err());
        assert!(taken(std::os::unix::net::UnixStream::pair().unwrap().0, len).is_err());
    }

    #[test]
    fn a_sender_that_is_dead_says_no_more_though_its_socket_is_open() {
        let (ours, theirs) = Channel::pair().unwrap();
        say(&ours, Kind::Taken, &()).unwrap();
        let mut sender = std::process::Command::new("true").spawn().unwrap();
        let process = commonhold_ipc::sys::pidfd_open(sender.id()).unwrap();
        sender.wait().unwrap();
        let mut inbox = Inbox::default();
        assert!(inbox.wait_beside(&theirs, Some(process.as_fd())).unwrap().is_some());
        assert!(inbox.wait_beside(&theirs, Some(process.as_fd())).unwrap().is_none() && !inbox.ended);
    }

    #[test]
    fn a_message_that_is_cut_or_scribbled_on_is_none_or_an_error() {
        let (ours, theirs) = Channel::pair().unwrap();
        send(&ours, Kind::Returned, &head(2), &Packed::Inline(vec![1; 20]), &[]).unwrap();
        let mut bytes = [0; 512];
        let Received::Bytes(len) = theirs.receive(&mut bytes).unwrap() else { panic!("it has come") };
        let parse = |bytes: &[u8]| Inbox { bytes: bytes.to_vec(), ..Inbox::default() }.take();
        assert!(parse(&bytes[..len]).unwrap().is_some());
        for cut in 0..len {
            assert!(parse(&bytes[..cut]).unwrap().is_none(), "{cut}");
        }
        for at in 0..HEADER_BYTES {
            for byte in 0..=u8::MAX {
                let mut bytes = bytes[..len].to_vec();
                bytes[at] = byte;
                // Whatever comes of it, it comes.
                let _ = parse(&bytes);
            }
        }
        assert!(parse(&[0xff; 64]).is_err());
    }
}
