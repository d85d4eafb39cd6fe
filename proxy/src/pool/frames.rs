//! Arguments and results on their way between a pool's owner and its workers.
//!
//! | bytes of a frame | what |
//! |---|---|
//! | 0..8 | kind; + 256: the body is in the memory file; + 512: it is a file of its own |
//! | 8..16 | length of the body |
//! | 16.. | the body, filled up to a multiple of 16; or where in the memory file it is; or the number with which its file was handed over |
//!
//! A value with handles in it has the label of these in a frame before its own. Bodies up to
//! [`POOL_LARGE_BYTES`](commonhold_ipc::limits::POOL_LARGE_BYTES) go with their frames, larger ones are written straight into the memory
//! file, and read out of it: by system calls, so that nobody has a reference to what another process may still write. Results of
//! 1 MiB and more have sealed files of their own, which are looked at where they are (`handover`). Arguments have not: who puts them up does not know which
//! worker will take them, and there is no socket from which each takes its own.

use super::handover::Receiver;
use crate::process::{Archive, Fresh, Label, hold, label_of, unpack, write_sealed};
use crate::session::Stored;
use crate::unpoisoned::lock;
use crate::upload::written;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::{POOL_FILE_BYTES, POOL_FILE_KEPT_BYTES, POOL_LARGE_BYTES, VALUE_BYTES_MAX};
use commonhold_ipc::pool::FILE_BASE;
use commonhold_ipc::sys::{is_content_sealed, punch, read_aligned_at};
use commonhold_ipc::value::{Ser, Shared, with_scratch};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

const HEADER_BYTES: usize = 16;
const IN_FILE: u64 = 256;
const HANDED_OVER: u64 = 512;
/// Memory of large bodies is given out in pages.
const PAGE: u64 = 4096;

/// Most bytes that the frames of one value take beside what is in the file.
pub(super) const FRAMES_BYTES_MAX: usize = 2 * (HEADER_BYTES + POOL_LARGE_BYTES);

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An argument or a result.
    Value = 1,
    /// The handles in the value that follows.
    Label = 2,
    /// The report of a panic.
    Panic = 3,
    /// An error in place of a result.
    Failed = 4,
}

/// Who has which bytes of one part of the memory file.
pub(super) struct Space {
    file: Arc<File>,
    base: u64,
    /// Start and length of what is in use.
    used: BTreeMap<u64, u64>,
    /// Bytes up to here may have memory behind them.
    touched: u64,
    in_use: u64,
}

impl Space {
    /// The part for the owner's arguments (0), or for the results of worker n (n + 1).
    pub(super) fn new(file: Arc<File>, part: u64) -> Space {
        Space { file, base: FILE_BASE + part * POOL_FILE_BYTES, used: BTreeMap::new(), touched: 0, in_use: 0 }
    }

    /// Bytes that are in use.
    pub(super) fn in_use(&self) -> u64 {
        self.in_use
    }

    /// The first place where there is room for so many bytes of whole pages.
    fn place(&self, bytes: u64) -> u64 {
        let mut at = 0;
        for (start, len) in &self.used {
            if start - at >= bytes {
                break;
            }
            at = start + len;
        }
        at
    }

    /// Whether at least half of so many bytes would come to lie beyond the memory that is kept: in memory that has to be found for them, and
    /// is given back soon.
    pub(super) fn is_cold(&self, bytes: u64) -> bool {
        self.place(bytes.next_multiple_of(PAGE)) + bytes / 2 >= POOL_FILE_KEPT_BYTES
    }

    /// Room for so many bytes.
    pub(super) fn take(&mut self, bytes: u64) -> Result<u64> {
        let bytes = bytes.next_multiple_of(PAGE).max(PAGE);
        let at = self.place(bytes);
        if at + bytes > POOL_FILE_BYTES {
            let text = format!(
                "{} bytes of large values are on their way in this pool, and {bytes} more have no room: take results first",
                self.in_use
            );
            return Err(Error::new(ErrorKind::Full, text));
        }
        self.used.insert(at, bytes);
        self.in_use += bytes;
        self.touched = self.touched.max(at + bytes);
        Ok(self.base + at)
    }

    /// What was taken is free again.
    pub(super) fn give_back(&mut self, at: u64) {
        let Some(bytes) = at.checked_sub(self.base).and_then(|at| self.used.remove(&at)) else { return };
        self.in_use -= bytes;
        if self.used.is_empty() && self.touched > POOL_FILE_KEPT_BYTES {
            // Memory that stays is only memory.
            let _ = punch(&*self.file, self.base + POOL_FILE_KEPT_BYTES..self.base + self.touched);
            self.touched = POOL_FILE_KEPT_BYTES;
        }
    }

    /// All of it is free, and its memory given back: who used it is dead.
    pub(super) fn clear(file: &File, part: u64) {
        let base = FILE_BASE + part * POOL_FILE_BYTES;
        let _ = punch(file, base..base + POOL_FILE_BYTES);
    }
}

/// Values that are being packed.
#[derive(Default)]
pub(super) struct Packing {
    /// Their frames.
    pub(super) bytes: Vec<u8>,
    /// Where their large bodies are.
    pub(super) regions: Vec<u64>,
    /// How many of them were handed over in files of their own.
    pub(super) handed_over: usize,
    /// Keeps the objects of handles among them.
    pub(super) held: Vec<Stored>,
}

impl Packing {
    /// Adds a value. What was added before stays if this fails.
    #[inline]
    pub(super) fn add<T: Shared>(&mut self, value: &T, space: &mut dyn Room) -> Result<()> {
        match value.short() {
            Some(short) => {
                self.put(Kind::Value, short.bytes());
                Ok(())
            }
            None => self.add_any(value, space),
        }
    }

    fn add_any<T: Shared>(&mut self, value: &T, space: &mut dyn Room) -> Result<()> {
        let (small, handles) = with_scratch(|ser| -> Result<_> {
            let Some(range) = ser.put_up_to::<T>(value, POOL_LARGE_BYTES as u64)? else { return Ok((None, Vec::new())) };
            if ser.handles().is_empty() {
                self.put(Kind::Value, &ser.bytes()[range]);
                return Ok((Some(Vec::new()), Vec::new()));
            }
            Ok((Some(ser.bytes()[range].to_vec()), ser.handles().to_vec()))
        })?;
        match small {
            Some(_) if handles.is_empty() => Ok(()),
            Some(bytes) => {
                self.add_label(handles, space)?;
                self.put(Kind::Value, &bytes);
                Ok(())
            }
            None => self.add_large(value, space),
        }
    }

    #[cold]
    fn add_large<T: Shared>(&mut self, value: &T, space: &mut dyn Room) -> Result<()> {
        let mut count = Ser::count();
        count.put::<T>(value)?;
        let len = count.written();
        let handing = space.hands_over(len);
        if handing != Handing::Not && self.add_sealed(value, len, handing, space)? {
            return Ok(());
        }
        let (at, handles) = write_large(value, len, space)?;
        if !handles.is_empty()
            && let Err(error) = self.add_label(handles, space)
        {
            space.give_back(at);
            return Err(error);
        }
        self.regions.push(at);
        self.put_place(Kind::Value, IN_FILE, at, len);
        Ok(())
    }

    /// Adds a value that is handed over in a file of its own. `false`: that cannot be done now.
    fn add_sealed<T: Shared>(&mut self, value: &T, len: u64, handing: Handing, space: &mut dyn Room) -> Result<bool> {
        let Ok(fresh) = Fresh::make("commonhold-pool-result", len) else { return Ok(false) };
        if handing == Handing::InLargePages && !fresh.is_large() {
            space.has_no_large_pages();
            return Ok(false);
        }
        // What is wrong with the value itself, the other road says as well.
        let Ok((file, handles)) = write_sealed(fresh, value) else { return Ok(false) };
        // The owner takes no other: it may map it long before anybody asks for it.
        if !is_content_sealed(&file, len) {
            return Ok(false);
        }
        let (bytes, regions, held) = (self.bytes.len(), self.regions.len(), self.held.len());
        if !handles.is_empty() {
            self.add_label(handles, space)?;
        }
        // Last: what has been sent is not taken back.
        let Some(number) = space.hand_over(file.as_fd(), len) else {
            self.bytes.truncate(bytes);
            self.regions.drain(regions..).for_each(|at| space.give_back(at));
            self.held.truncate(held);
            return Ok(false);
        };
        self.handed_over += 1;
        self.put_place(Kind::Value, HANDED_OVER, number, len);
        Ok(true)
    }

    /// Adds a value to frames that are not on a board, and so may be long.
    pub(super) fn add_whole<T: Shared>(&mut self, value: &T) -> Result<()> {
        let (bytes, handles) = with_scratch(|ser| -> Result<_> {
            let range = ser.put::<T>(value)?;
            Ok((ser.bytes()[range].to_vec(), ser.handles().to_vec()))
        })?;
        if !handles.is_empty() {
            let (label, mut held) = label_of(handles)?;
            with_scratch(|ser| ser.put::<Label>(&label).map(|range| self.put(Kind::Label, &ser.bytes()[range])))?;
            self.held.append(&mut held);
        }
        self.put(Kind::Value, &bytes);
        Ok(())
    }

    fn add_label(&mut self, handles: Vec<(u64, u64)>, space: &mut dyn Room) -> Result<()> {
        let (label, mut held) = label_of(handles)?;
        self.add_other::<Label>(Kind::Label, &label, space)?;
        self.held.append(&mut held);
        Ok(())
    }

    /// Adds what is not an argument or result, and has no handles.
    pub(super) fn add_other<T: Shared>(&mut self, kind: Kind, value: &T, space: &mut dyn Room) -> Result<()> {
        with_scratch(|ser| {
            let range = ser.put::<T>(value)?;
            let bytes = &ser.bytes()[range];
            if bytes.len() <= POOL_LARGE_BYTES {
                self.put(kind, bytes);
                return Ok(());
            }
            let at = space.write(bytes)?;
            self.regions.push(at);
            self.put_place(kind, IN_FILE, at, bytes.len() as u64);
            Ok(())
        })
    }

    #[inline]
    fn header(&mut self, kind: u64, len: u64) {
        self.bytes.extend_from_slice(&(u128::from(len) << 64 | u128::from(kind)).to_le_bytes());
    }

    #[inline]
    fn put(&mut self, kind: Kind, body: &[u8]) {
        self.header(kind as u64, body.len() as u64);
        self.bytes.extend_from_slice(body);
        let filling = body.len().next_multiple_of(HEADER_BYTES) - body.len();
        self.bytes.extend_from_slice(&[0; HEADER_BYTES][..filling]);
    }

    fn put_place(&mut self, kind: Kind, flag: u64, at: u64, len: u64) {
        self.header(kind as u64 | flag, len);
        self.header(at, 0);
    }
}

/// Whether a value goes in a file of its own, if that can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handing {
    /// It does not.
    Not,
    /// If the file has large pages.
    InLargePages,
    /// It does.
    Anyway,
}

/// Where large bodies are put.
pub(super) trait Room {
    /// Room for so many bytes.
    fn take(&mut self, bytes: u64) -> Result<u64>;
    /// It was not needed.
    fn give_back(&mut self, at: u64);
    /// The file that it is in.
    fn file(&self) -> Arc<File>;
    /// Whether a value of so many bytes is better handed over in a file of its own.
    fn hands_over(&mut self, _len: u64) -> Handing {
        Handing::Not
    }
    /// A file has got none.
    fn has_no_large_pages(&mut self) {}
    /// Hands over such a file: its number. `None`: not now.
    fn hand_over(&mut self, _file: BorrowedFd<'_>, _len: u64) -> Option<u64> {
        None
    }
    /// Writes bytes there.
    fn write(&mut self, bytes: &[u8]) -> Result<u64> {
        let at = self.take(bytes.len() as u64)?;
        self.file().write_all_at(bytes, at).inspect_err(|_| self.give_back(at))?;
        Ok(at)
    }
}

impl Room for Space {
    fn take(&mut self, bytes: u64) -> Result<u64> {
        Space::take(self, bytes)
    }

    fn give_back(&mut self, at: u64) {
        Space::give_back(self, at);
    }

    fn file(&self) -> Arc<File> {
        self.file.clone()
    }
}

/// The handles in a value, by manager and object.
type Handles = Vec<(u64, u64)>;

/// Writes a value of so many bytes straight into the memory file: where, and what handles are in it.
fn write_large<T: Shared>(value: &T, len: u64, space: &mut dyn Room) -> Result<(u64, Handles)> {
    let start = space.take(len)?;
    let (file, mut at) = (space.file(), start);
    let mut stream = Ser::stream(Box::new(move |bytes| {
        file.write_all_at(bytes, at)?;
        at += bytes.len() as u64;
        Ok(())
    }));
    match written(len, stream.put::<T>(value).and_then(|_| stream.finish())) {
        Ok(()) => Ok((start, stream.handles().to_vec())),
        Err(error) => {
            space.give_back(start);
            Err(error)
        }
    }
}

/// A frame's body.
///
/// Small: there is one for each of ten thousand results. No frame that is not in the file begins behind 4 GiB, or is as long.
pub(super) enum Body {
    /// In these bytes of the frames.
    Here { at: u32, len: u32 },
    /// It was in the file, or is one.
    Apart(Box<Archive>),
}

const _: () = assert!(size_of::<Body>() <= 16 && VALUE_BYTES_MAX <= u32::MAX as u64);

impl Body {
    /// Its bytes.
    pub(super) fn bytes<'a>(&'a self, frames: &'a [u8]) -> &'a [u8] {
        match self {
            Body::Here { at, len } => &frames[*at as usize..][..*len as usize],
            Body::Apart(bytes) => bytes,
        }
    }
}

/// Where bodies are that are not with their frames.
#[derive(Clone, Copy)]
pub(super) struct Elsewhere<'a> {
    /// The memory file.
    pub(super) file: &'a File,
    /// Gets what was handed over.
    pub(super) receiver: Option<&'a Mutex<Receiver>>,
}

impl Elsewhere<'_> {
    /// What was handed over.
    fn take(&self, number: u64, len: u64) -> Result<Archive> {
        lock(self.receiver.ok_or_else(malformed)?).take(number, len)
    }
}

/// Where a frame's body is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Here,
    InFile,
    HandedOver,
}

/// Goes through frames, which are foreign.
pub(super) struct Frames<'a> {
    bytes: &'a [u8],
    elsewhere: Elsewhere<'a>,
    at: usize,
}

impl<'a> Frames<'a> {
    /// From the first on.
    pub(super) fn new(bytes: &'a [u8], elsewhere: Elsewhere<'a>) -> Self {
        Frames { bytes, elsewhere, at: 0 }
    }

    /// All of them.
    pub(super) fn all(&self) -> &'a [u8] {
        self.bytes
    }

    #[inline]
    fn word(&self, at: usize) -> Result<u64> {
        let bytes = self.bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or_else(malformed)?;
        Ok(u64::from_le_bytes(*bytes))
    }

    #[inline]
    fn header(&mut self) -> Result<(Kind, Place, u64)> {
        let (word, len) = (self.word(self.at)?, self.word(self.at + 8)?);
        self.at += HEADER_BYTES;
        let kinds = [Kind::Value, Kind::Label, Kind::Panic, Kind::Failed];
        let kind = kinds.into_iter().find(|kind| *kind as u64 == word & !(IN_FILE | HANDED_OVER)).ok_or_else(malformed)?;
        let place = match word & (IN_FILE | HANDED_OVER) {
            0 => Place::Here,
            IN_FILE => Place::InFile,
            HANDED_OVER => Place::HandedOver,
            _ => return Err(malformed()),
        };
        if len > VALUE_BYTES_MAX {
            return Err(malformed());
        }
        Ok((kind, place, len))
    }

    fn next(&mut self) -> Result<(Kind, Body)> {
        let (kind, place, len) = self.header()?;
        if place == Place::Here {
            let end = self.at.checked_add(len as usize).filter(|end| *end <= self.bytes.len()).ok_or_else(malformed)?;
            let at = u32::try_from(self.at).map_err(|_| malformed())?;
            self.at = end.next_multiple_of(HEADER_BYTES);
            return Ok((kind, Body::Here { at, len: len as u32 }));
        }
        let at = self.word(self.at)?;
        self.at += HEADER_BYTES;
        let body = match place {
            Place::HandedOver => self.elsewhere.take(at, len)?,
            _ => read_aligned_at(self.elsewhere.file, at, len as usize).map(Archive::Own).ok_or_else(malformed)?,
        };
        Ok((kind, Body::Apart(Box::new(body))))
    }

    /// Passes over a value, whatever is in it.
    pub(super) fn skip(&mut self) -> Result<()> {
        loop {
            let (kind, place, len) = self.header()?;
            if place == Place::HandedOver {
                // So that nobody keeps it.
                drop(self.elsewhere.take(self.word(self.at)?, len));
            }
            let body = if place == Place::Here { (len as usize).next_multiple_of(HEADER_BYTES) } else { HEADER_BYTES };
            self.at = self.at.checked_add(body).ok_or_else(malformed)?;
            if kind != Kind::Label {
                return Ok(());
            }
        }
    }

    /// The next value, or what stands for it. Its handles' objects are held by what is added to `held`.
    /// Whether that can be done or not, the next one is that behind it, or there is none.
    pub(super) fn value(&mut self, held: &mut Vec<Stored>) -> Result<(Kind, Body)> {
        let start = self.at;
        let value = self.try_value(held);
        if value.is_err() {
            self.at = start;
            if self.skip().is_err() {
                self.at = usize::MAX;
            }
        }
        value
    }

    /// Whether what has been read so far was there.
    pub(super) fn is_whole(&self) -> bool {
        self.at <= self.bytes.len()
    }

    fn try_value(&mut self, held: &mut Vec<Stored>) -> Result<(Kind, Body)> {
        let (mut kind, mut body) = self.next()?;
        if kind == Kind::Label {
            held.append(&mut hold(&unpack::<Label>(body.bytes(self.bytes))?)?);
            (kind, body) = self.next()?;
        }
        if kind == Kind::Label { Err(malformed()) } else { Ok((kind, body)) }
    }
}

#[cold]
fn malformed() -> Error {
    Error::new(
        ErrorKind::Corrupt,
        "a task of a pool, or its result, cannot be read: a process that uses the pool has written over it; make a new pool",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_that_is_used_up_is_an_error() {
        let mut space = Space::new(Arc::new(File::open("/dev/null").unwrap()), 0);
        let (first, _second) = (space.take(POOL_FILE_BYTES / 2).unwrap(), space.take(PAGE).unwrap());
        let error = space.take(POOL_FILE_BYTES / 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
        let told = format!(
            "{} bytes of large values are on their way in this pool, and {} more have no room: take results first",
            POOL_FILE_BYTES / 2 + PAGE,
            POOL_FILE_BYTES / 2
        );
        assert_eq!(error.to_string(), told);
        space.give_back(first);
        assert_eq!(space.take(POOL_FILE_BYTES / 2).unwrap(), first);
    }

    #[test]
    fn memory_is_cold_where_most_of_it_is_not_kept() {
        let mut space = Space::new(Arc::new(File::open("/dev/null").unwrap()), 0);
        assert!(!space.is_cold(POOL_FILE_KEPT_BYTES) && space.is_cold(2 * POOL_FILE_KEPT_BYTES));
        let first = space.take(POOL_FILE_KEPT_BYTES - PAGE).unwrap();
        let second = space.take(PAGE).unwrap();
        assert!(space.is_cold(1) && space.is_cold(PAGE));
        space.give_back(second);
        assert!(!space.is_cold(PAGE) && !space.is_cold(1) && space.is_cold(2 * PAGE));
        space.give_back(first);
        assert!(!space.is_cold(POOL_FILE_KEPT_BYTES));
    }

    /// Nothing is handed over to a worker; and nobody has handed over what a frame names.
    #[test]
    fn frames_that_name_a_file_that_is_not_there_are_an_error() {
        let file = File::open("/dev/null").unwrap();
        let receiver = Mutex::new(Receiver::new().unwrap());
        for receiver in [None, Some(&receiver)] {
            for flags in [HANDED_OVER, HANDED_OVER | IN_FILE] {
                let mut packing = Packing::default();
                packing.put_place(Kind::Value, flags, 1 << 32, 1 << 20);
                packing.put(Kind::Value, &[7; 16]);
                let mut frames = Frames::new(&packing.bytes, Elsewhere { file: &file, receiver });
                assert_eq!(frames.value(&mut Vec::new()).err().unwrap().kind(), ErrorKind::Corrupt);
                if flags == HANDED_OVER {
                    let (_, body) = frames.value(&mut Vec::new()).unwrap();
                    assert_eq!(body.bytes(frames.all()), [7; 16], "what is behind it is read");
                }
            }
        }
    }
}
