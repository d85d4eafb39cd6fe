//! The serialiser: lays a value's archive down in a buffer, counts its bytes, or streams them, and collects the handles in it.
//!
//! Three ways to run, because a value may be larger than what anybody wants to copy: a small one is put together in a buffer
//! (a thread's own, see [`with_scratch`]); a large one is first *counted*, so that its block can be asked for, and then
//! *streamed* into the block in a second pass. All three lay down the same bytes. A value that changes between the two passes
//! (through a lock or cell of its own) shows as a difference of [`Ser::written`], which the caller must look at.
//!
//! Nesting. A value that is nested deeper than the checker follows must be refused here, or it could be written and never be
//! read. For a type that is not recursive the greatest depth follows from the type alone, so this costs nothing. Values of
//! recursive types are run through the checker after they were written; where they are counted or streamed, they are put
//! together in a buffer for that.
use std::cell::RefCell;
use std::io;
use std::ops::Range;

use rkyv::rancor::{Fallible, Source};
use rkyv::ser::{Allocator, Positional, Writer};
use rkyv::util::AlignedVec;

use super::codec::{Fault, fault, is_readable};
use super::schema::described;
use super::shared::{AsShared, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{
    ARCHIVE_DEPTH_MAX, HANDLES_PER_VALUE_MAX, SCRATCH_BYTES_KEPT_MAX, STREAM_CHUNK_BYTES, TEXT_BYTES_MAX, VALUE_BYTES_MAX,
};

/// Archives start at multiples of this: the largest alignment of an archived type.
const ARCHIVE_ALIGN: usize = 16;

/// Where handles inside a value are reported, so that the manager can count references to them.
pub trait HandleSink {
    /// The value holds a handle on object `id` of manager `manager`.
    fn handle(&mut self, manager: u64, id: u64);
}

/// What `#[derive(Shared)]` asks of a serialiser.
pub trait Serializer: Fallible<Error: Source> + Writer + Allocator + HandleSink {}
impl<S: Fallible<Error: Source> + Writer + Allocator + HandleSink + ?Sized> Serializer for S {}

/// What a streaming serialiser hands its bytes to, in order. Its error ends the serialising.
pub type Sink = Box<dyn FnMut(&[u8]) -> io::Result<()>>;

enum Output {
    Buffer,
    Count,
    Stream(Sink),
}

/// The serialiser.
///
/// ```
/// use commonhold_ipc::value::{Ser, access};
/// let mut ser = Ser::buffer();
/// let at = ser.put::<String>(&"ada").unwrap();
/// assert_eq!(access::<String>(&ser.bytes()[at]).unwrap().as_str(), "ada");
/// ```
pub struct Ser {
    /// The archive so far, or the part of it that the sink has not got yet.
    pending: AlignedVec<ARCHIVE_ALIGN>,
    /// Bytes that are no longer in `pending`, or never were.
    passed: usize,
    /// Where the value that is being written starts. rkyv sees positions from there on: it keeps them in 32 bits.
    start: usize,
    /// Bytes that the value that is being written may have at the most.
    bytes_max: u64,
    output: Output,
    handles: Vec<(u64, u64)>,
    /// Why serialising failed: rkyv's own errors carry nothing.
    failure: Option<Error>,
}

impl Ser {
    /// A serialiser into a buffer: see [`bytes`](Ser::bytes).
    pub fn buffer() -> Self {
        Ser::new(Output::Buffer)
    }

    /// A serialiser that only counts: see [`written`](Ser::written).
    pub fn count() -> Self {
        Ser::new(Output::Count)
    }

    /// A serialiser that hands its bytes to `sink` in chunks; [`finish`](Ser::finish) hands over the last one.
    pub fn stream(sink: Sink) -> Self {
        Ser::new(Output::Stream(sink))
    }

    fn new(output: Output) -> Self {
        Ser { pending: AlignedVec::new(), passed: 0, start: 0, bytes_max: VALUE_BYTES_MAX, output, handles: Vec::new(), failure: None }
    }

    /// The same as [`put`](Self::put) if the archive has at most `bytes_max` bytes; else nothing is written, and `None` is
    /// returned: for callers who send larger values on another road.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    #[inline]
    pub fn put_up_to<T: Shared>(&mut self, value: &impl AsShared<T>, bytes_max: u64) -> Result<Option<Range<usize>>> {
        let (written, handles) = (self.pending.len(), self.handles.len());
        self.bytes_max = bytes_max.min(VALUE_BYTES_MAX);
        let put = self.put::<T>(value);
        self.bytes_max = VALUE_BYTES_MAX;
        match put {
            Ok(range) => Ok(Some(range)),
            Err(error) if error.kind() == ErrorKind::TooLarge && bytes_max < VALUE_BYTES_MAX => {
                self.pending.resize(written, 0);
                self.handles.truncate(handles);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes a value's archive at the next multiple of 16 and returns where it lies. The range is the whole archive, with its
    /// root at the end, as [`access`](super::access) expects it.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] if the archive would be larger than [`VALUE_BYTES_MAX`], be nested deeper than
    /// [`ARCHIVE_DEPTH_MAX`] or hold more than [`HANDLES_PER_VALUE_MAX`] handles; the sink's own error. What was written of the
    /// value up to then stays: [`reset`](Ser::reset) before the next use.
    #[inline]
    pub fn put<T: Shared>(&mut self, value: &impl AsShared<T>) -> Result<Range<usize>> {
        match self.try_put::<T>(value) {
            Ok(range) => Ok(range),
            Err(Fault { .. }) => Err(self.failed::<T>()),
        }
    }

    #[inline]
    fn try_put<T: Shared>(&mut self, value: &impl AsShared<T>) -> std::result::Result<Range<usize>, Fault> {
        let start = self.start_archive()?;
        if T::FLAT {
            value.write(self)?;
            return Ok(start..self.end());
        }
        let handles_before = self.handles.len();
        if described::<T>().may_be_too_deep {
            self.write_and_check::<T>(value, start)?;
        } else {
            value.write(self)?;
        }
        if self.handles.len() - handles_before > HANDLES_PER_VALUE_MAX {
            return Err(self.too_many_handles());
        }
        Ok(start..self.end())
    }

    /// Writes a value and looks whether it can be read again.
    fn write_and_check<T: Shared>(&mut self, value: &impl AsShared<T>, start: usize) -> std::result::Result<(), Fault> {
        if let Output::Buffer = self.output {
            value.write(self)?;
            return if is_readable::<T>(&self.pending[start..]) { Ok(()) } else { Err(self.too_deep()) };
        }
        let mut whole = Ser::buffer();
        let written = whole.try_put::<T>(value);
        self.failure = whole.failure.take();
        self.handles.append(&mut whole.handles);
        written.and_then(|range| self.write(&whole.pending[range]))
    }

    /// Writes an archive that somebody has already laid down, with the handles in it as they were collected then. Its bytes are
    /// taken as they are: it must be the whole archive of the type it will be read as.
    ///
    /// # Errors
    /// As [`put`](Ser::put).
    pub fn put_archive(&mut self, archive: &[u8], handles: &[(u64, u64)]) -> Result<Range<usize>> {
        let start = self.start_archive().and_then(|start| self.write(archive).map(|()| start));
        match start {
            Ok(start) => {
                self.handles.extend_from_slice(handles);
                Ok(start..self.end())
            }
            Err(Fault { .. }) => Err(self.failed_as("an archive")),
        }
    }

    #[inline]
    fn start_archive(&mut self) -> std::result::Result<usize, Fault> {
        let padding = self.end().next_multiple_of(ARCHIVE_ALIGN) - self.end();
        if padding > 0 {
            self.start = self.end();
            self.write(&[0; ARCHIVE_ALIGN][..padding])?;
        }
        self.start = self.end();
        Ok(self.start)
    }

    /// How many bytes there are, whether or not they are still here.
    #[inline]
    fn end(&self) -> usize {
        self.passed + self.pending.len()
    }

    /// Hands what is left to the sink and returns how many bytes were written in all.
    ///
    /// # Errors
    /// The sink's own.
    pub fn finish(&mut self) -> Result<u64> {
        match self.flush() {
            Ok(()) => Ok(self.written()),
            Err(Fault { .. }) => Err(self.failed_as("a value")),
        }
    }

    /// How many bytes were written, counted or streamed since the beginning or the last [`reset`](Ser::reset).
    #[inline]
    pub fn written(&self) -> u64 {
        self.end() as u64
    }

    /// What was written into the buffer. Starts at a multiple of 16. Empty for a serialiser that counts or streams.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match self.output {
            Output::Buffer => &self.pending,
            Output::Count | Output::Stream(_) => &[],
        }
    }

    /// The handles that were met, as (manager, id), in the order of the values' fields; one that was met twice is here twice.
    #[inline]
    pub fn handles(&self) -> &[(u64, u64)] {
        &self.handles
    }

    /// Forgets what was written and which handles were met; keeps the memory.
    #[inline]
    pub fn reset(&mut self) {
        self.pending.clear();
        self.passed = 0;
        self.start = 0;
        self.handles.clear();
        self.failure = None;
    }

    /// A write that does not end in the buffer.
    #[cold]
    fn write_away(&mut self, bytes: &[u8]) -> std::result::Result<(), Fault> {
        if let Output::Stream(_) = self.output {
            if self.pending.len() + bytes.len() <= STREAM_CHUNK_BYTES {
                self.pending.extend_from_slice(bytes);
                return Ok(());
            }
            self.flush()?;
            self.hand_over(bytes)?;
        }
        self.passed += bytes.len();
        Ok(())
    }

    fn flush(&mut self) -> std::result::Result<(), Fault> {
        if let Output::Stream(_) = self.output {
            let pending = std::mem::take(&mut self.pending);
            self.hand_over(&pending)?;
            self.passed += pending.len();
            self.pending = pending;
            self.pending.clear();
        }
        Ok(())
    }

    fn hand_over(&mut self, bytes: &[u8]) -> std::result::Result<(), Fault> {
        let Output::Stream(sink) = &mut self.output else { return Ok(()) };
        if bytes.is_empty() {
            return Ok(());
        }
        sink(bytes).map_err(|error| {
            // An error of our own says more than that there was one: that the manager is gone, above all.
            self.failure =
                Some(error.downcast::<Error>().unwrap_or_else(|error| {
                    Error::system(format!("writing a value: the next {} bytes were not taken", bytes.len()), error)
                }));
            fault()
        })
    }

    #[cold]
    fn too_large(&mut self) -> Fault {
        self.fail(format!("it is larger than {VALUE_BYTES_MAX} bytes, the most that a value may have; split it into several entries"))
    }

    /// A text of so many bytes.
    #[cold]
    pub(super) fn text_too_long(&mut self, bytes: usize) -> Fault {
        self.fail(format!(
            "a text in it has {bytes} bytes, the most is {TEXT_BYTES_MAX}; split it, or hand it over as bytes (`Vec<u8>`), of which a value \
             may have {VALUE_BYTES_MAX}"
        ))
    }

    #[cold]
    fn too_deep(&mut self) -> Fault {
        self.fail(format!(
            "it is nested deeper than {ARCHIVE_DEPTH_MAX} levels, the most that readers follow; keep such a structure flat, as a list \
             whose elements name each other by index"
        ))
    }

    #[cold]
    fn too_many_handles(&mut self) -> Fault {
        self.fail(format!("it holds more than {HANDLES_PER_VALUE_MAX} handles; put them into a list or dict of their own"))
    }

    fn fail(&mut self, why: String) -> Fault {
        self.failure = Some(Error::new(ErrorKind::TooLarge, why));
        fault()
    }

    #[cold]
    fn failed<T: Shared>(&mut self) -> Error {
        self.failed_as(&format!("a `{}`", described::<T>().text))
    }

    fn failed_as(&mut self, what: &str) -> Error {
        match self.failure.take() {
            Some(error) if error.kind() == ErrorKind::TooLarge => {
                Error::new(ErrorKind::TooLarge, format!("writing {what} to shared memory: {error}"))
            }
            Some(error) => error,
            // Of what the fields' own code objects to, only that it does so is known.
            None => Error::new(
                ErrorKind::TooLarge,
                format!(
                    "writing {what} to shared memory: a text in it has more than {TEXT_BYTES_MAX} bytes, the most that one may have (split it, \
                     or hand it over as bytes, `Vec<u8>`), or a collection in it did not have as many elements as it claims"
                ),
            ),
        }
    }
}

impl std::fmt::Debug for Ser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ser").field("written", &self.written()).field("handles", &self.handles.len()).finish_non_exhaustive()
    }
}

impl Fallible for Ser {
    type Error = Fault;
}

impl Positional for Ser {
    #[inline]
    fn pos(&self) -> usize {
        self.end() - self.start
    }
}

impl Writer for Ser {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> std::result::Result<(), Fault> {
        if (self.pos() + bytes.len()) as u64 > self.bytes_max {
            return Err(self.too_large());
        }
        match self.output {
            Output::Buffer => {
                self.pending.extend_from_slice(bytes);
                Ok(())
            }
            Output::Count | Output::Stream(_) => self.write_away(bytes),
        }
    }
}

impl HandleSink for Ser {
    fn handle(&mut self, manager: u64, id: u64) {
        self.handles.push((manager, id));
    }
}

thread_local! {
    static SCRATCH: RefCell<Ser> = RefCell::new(Ser::buffer());
}

/// Runs `f` with the thread's own serialiser, emptied: once it is warm, serialising allocates nothing.
///
/// Where `f` comes here again, and while the thread ends, it gets a new one.
#[inline]
pub fn with_scratch<R>(f: impl FnOnce(&mut Ser) -> R) -> R {
    let mut f = Some(f);
    let done = SCRATCH.try_with(|scratch| {
        let mut ser = scratch.try_borrow_mut().ok()?;
        ser.reset();
        let result = f.take().map(|f| f(&mut ser));
        if ser.pending.capacity() > SCRATCH_BYTES_KEPT_MAX {
            ser.pending = AlignedVec::new();
        }
        result
    });
    match (done, f) {
        (Ok(Some(result)), _) => result,
        (_, Some(f)) => f(&mut Ser::buffer()),
        (_, None) => unreachable!("what took `f` has returned its result"),
    }
}
