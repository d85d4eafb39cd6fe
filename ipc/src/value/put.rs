//! Writing values: what [`Ser`] does with a type that is [`Shared`].
//!
//! Nesting. A value that is nested deeper than the checker follows must be refused here, or it could be written and never be
//! read. For a type that is not recursive the greatest depth follows from the type alone, so this costs nothing. Values of
//! recursive types are run through the checker after they were written; where they are counted or streamed, they are put
//! together in a buffer for that.
use std::ops::Range;

use rkyv::ser::Writer;

use super::codec::is_readable;
use super::describe::described;
use super::reader::Fault;
use super::serialise::{Output, Ser};
use super::shared::{AsShared, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{HANDLES_PER_VALUE_MAX, VALUE_BYTES_MAX};

impl Ser {
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
    /// [`ARCHIVE_DEPTH_MAX`](crate::limits::ARCHIVE_DEPTH_MAX) or hold more than [`HANDLES_PER_VALUE_MAX`] handles; the sink's own
    /// error. What was written of the value up to then stays: [`reset`](Ser::reset) before the next use.
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

    #[cold]
    fn failed<T: Shared>(&mut self) -> Error {
        self.failed_as(&format!("a `{}`", described::<T>().text))
    }
}
