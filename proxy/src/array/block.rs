//! A block of bytes in shared memory, wherever it comes from: what [`SharedBytes`](crate::SharedBytes) and named memory have in common.

use commonhold_ipc::bytes;
use commonhold_ipc::error::{Error, ErrorKind, Result};
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::sync::atomic::AtomicU64;

/// Bytes that are copied from block to block at a time.
const COPY_BYTES: usize = 8 << 10;

/// The words of a block, and how many bytes it has.
#[derive(Clone, Copy)]
pub struct Block<'b> {
    words: &'b [AtomicU64],
    len: usize,
}

impl<'b> Block<'b> {
    /// So many bytes of these words.
    pub fn new(words: &'b [AtomicU64], len: usize) -> Self {
        Block { words, len: len.min(8 * words.len()) }
    }

    /// Its bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    fn check(&self, at: usize, len: usize) -> Result<()> {
        if at <= self.len && len <= self.len - at {
            return Ok(());
        }
        let text = format!("a block of {} bytes has no {len} bytes from {at} on: read and write within it", self.len);
        Err(Error::new(ErrorKind::OutOfRange, text))
    }

    /// Copies bytes out.
    pub fn read_at(&self, at: usize, out: &mut [u8]) -> Result<()> {
        self.check(at, out.len())?;
        bytes::read(self.words, at, out);
        Ok(())
    }

    /// Copies bytes in.
    pub fn write_at(&self, at: usize, bytes: &[u8]) -> Result<()> {
        self.check(at, bytes.len())?;
        bytes::write(self.words, at, bytes);
        Ok(())
    }

    /// Sets bytes.
    pub fn fill(&self, range: Range<usize>, byte: u8) -> Result<()> {
        self.check_range(&range)?;
        bytes::fill(self.words, range, byte);
        Ok(())
    }

    /// A copy of bytes.
    pub fn read(&self, range: Range<usize>) -> Result<Vec<u8>> {
        self.check_range(&range)?;
        let mut out = vec![0; range.len()];
        bytes::read(self.words, range.start, &mut out);
        Ok(out)
    }

    /// Copies bytes to another block.
    pub fn copy_to(&self, range: Range<usize>, target: Block<'_>, at: usize) -> Result<()> {
        self.check_range(&range)?;
        target.check(at, range.len())?;
        let mut buffer = [0; COPY_BYTES];
        // Of the same block the target may lie behind the source and overlap it: then from the end, so that nothing is written over before
        // it was read.
        let backwards = std::ptr::eq(self.words, target.words) && at > range.start;
        let pieces = range.len().div_ceil(COPY_BYTES);
        for piece in 0..pieces {
            let from = COPY_BYTES * if backwards { pieces - 1 - piece } else { piece };
            let part = &mut buffer[..(range.len() - from).min(COPY_BYTES)];
            bytes::read(self.words, range.start + from, part);
            bytes::write(target.words, at + from, part);
        }
        Ok(())
    }

    fn check_range(&self, range: &Range<usize>) -> Result<()> {
        if range.start <= range.end {
            return self.check(range.start, range.len());
        }
        let text = format!("the range {}..{} of a block begins behind its end: give its start first", range.start, range.end);
        Err(Error::new(ErrorKind::OutOfRange, text))
    }

    /// Reading and writing from the beginning on.
    pub fn cursor(self) -> BytesCursor<'b> {
        BytesCursor { block: self, at: 0 }
    }
}

mod sealed {
    /// What has a block.
    pub trait HasBlock {
        fn as_block(&self) -> commonhold_ipc::error::Result<super::Block<'_>>;
    }
}

pub(crate) use sealed::HasBlock;

/// A block of raw memory that bytes can be copied to and from.
pub trait ByteBlock: HasBlock {}

impl<B: HasBlock> ByteBlock for B {}

/// The methods of a type that has a block.
macro_rules! block_methods {
    () => {
        /// How many bytes there are.
        ///
        /// # Errors
        /// Disconnected, when the manager has ended; `Full` if the system has no memory for it when this process first uses it. The
        /// same holds for every other method.
        pub fn len(&self) -> Result<usize> {
            Ok(self.as_block()?.len())
        }

        /// Whether there are none.
        ///
        /// # Errors
        /// As [`len`](Self::len).
        pub fn is_empty(&self) -> Result<bool> {
            Ok(self.len()? == 0)
        }

        /// Copies bytes out, from an offset on, as many as `out` holds.
        ///
        /// # Errors
        /// `OutOfRange` if there are not as many, and then `out` is as it was.
        #[inline]
        pub fn read_at(&self, offset: usize, out: &mut [u8]) -> Result<()> {
            self.as_block()?.read_at(offset, out)
        }

        /// Copies bytes in, from an offset on.
        ///
        /// # Errors
        /// `OutOfRange` if they do not all fit, and then nothing was written.
        #[inline]
        pub fn write_at(&self, offset: usize, bytes: &[u8]) -> Result<()> {
            self.as_block()?.write_at(offset, bytes)
        }

        /// A copy of these bytes.
        ///
        /// # Errors
        /// `OutOfRange` if there are not as many.
        pub fn read(&self, range: Range<usize>) -> Result<Vec<u8>> {
            self.as_block()?.read(range)
        }

        /// A copy of all bytes.
        ///
        /// # Errors
        /// As [`len`](Self::len).
        pub fn to_vec(&self) -> Result<Vec<u8>> {
            let block = self.as_block()?;
            block.read(0..block.len())
        }

        /// Sets these bytes to one value.
        ///
        /// # Errors
        /// `OutOfRange` if there are not as many.
        pub fn fill(&self, range: Range<usize>, byte: u8) -> Result<()> {
            self.as_block()?.fill(range, byte)
        }

        /// Copies these bytes to another block, or within this one, to an offset there. The two places may overlap.
        ///
        /// # Errors
        /// `OutOfRange` if they are not all here, or do not all fit there; then nothing was copied.
        pub fn copy_to(&self, range: Range<usize>, target: &impl ByteBlock, offset: usize) -> Result<()> {
            self.as_block()?.copy_to(range, target.as_block()?, offset)
        }

        /// Copies those bytes of another block here, to an offset.
        ///
        /// # Errors
        /// As [`copy_to`](Self::copy_to).
        pub fn copy_from(&self, offset: usize, source: &impl ByteBlock, range: Range<usize>) -> Result<()> {
            source.as_block()?.copy_to(range, self.as_block()?, offset)
        }

        /// Reads and writes from the beginning on, as of a file that cannot grow: at the end reading gives nothing more, and writing
        /// takes nothing more.
        ///
        /// # Errors
        /// As [`len`](Self::len).
        pub fn cursor(&self) -> Result<BytesCursor<'_>> {
            Ok(self.as_block()?.cursor())
        }
    };
}
pub(crate) use block_methods;

/// A place in a block of shared memory, for [`Read`], [`Write`] and [`Seek`]. Made by [`SharedBytes::cursor`](crate::SharedBytes::cursor).
pub struct BytesCursor<'b> {
    block: Block<'b>,
    at: u64,
}

impl fmt::Debug for BytesCursor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<BytesCursor at {} of {} bytes>", self.at, self.block.len)
    }
}

impl BytesCursor<'_> {
    /// Where it is, and how many of so many bytes there are from there on.
    fn here(&self, wanted: usize) -> (usize, usize) {
        let at = usize::try_from(self.at).map_or(self.block.len, |at| at.min(self.block.len));
        (at, wanted.min(self.block.len - at))
    }
}

impl Read for BytesCursor<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let (at, count) = self.here(out.len());
        bytes::read(self.block.words, at, &mut out[..count]);
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for BytesCursor<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (at, count) = self.here(bytes.len());
        bytes::write(self.block.words, at, &bytes[..count]);
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for BytesCursor<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => (self.block.len as u64).checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        let before = || io::Error::new(io::ErrorKind::InvalidInput, "a place before the beginning of a block: seek within it");
        self.at = target.ok_or_else(before)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(count: usize) -> Vec<AtomicU64> {
        (0..count).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn a_cursor_is_a_file_that_cannot_grow() {
        let words = words(3);
        let block = Block::new(&words, 20);
        let mut cursor = block.cursor();
        assert_eq!(cursor.write(&[1; 15]).unwrap(), 15);
        assert_eq!(cursor.write(&[2; 15]).unwrap(), 5, "as many as there is room for");
        assert_eq!(cursor.write(&[3]).unwrap(), 0);
        assert_eq!(cursor.seek(SeekFrom::End(-6)).unwrap(), 14);
        let mut rest = Vec::new();
        assert_eq!(cursor.read_to_end(&mut rest).unwrap(), 6);
        assert_eq!(rest, [1, 2, 2, 2, 2, 2]);
        assert_eq!(cursor.seek(SeekFrom::Start(u64::MAX)).unwrap(), u64::MAX);
        assert_eq!(cursor.read(&mut [0]).unwrap(), 0);
        assert!(cursor.seek(SeekFrom::Current(1)).is_err() && cursor.seek(SeekFrom::End(-21)).is_err());
    }

    #[test]
    fn copies_within_a_block_may_overlap() {
        let words = words(8 << 10);
        let block = Block::new(&words, 60_000);
        let plain: Vec<u8> = (0..60_000u32).map(|at| (at % 251) as u8).collect();
        for (from, to) in [(0, 1), (1, 0), (100, 20_000), (20_000, 100), (7, 7), (0, 10_000)] {
            let mut expected = plain.clone();
            block.write_at(0, &plain).unwrap();
            block.copy_to(from..from + 40_000, block, to).unwrap();
            expected.copy_within(from..from + 40_000, to);
            assert!(block.read(0..60_000).unwrap() == expected, "{from} to {to}");
        }
        assert_eq!(block.copy_to(0..10, block, 59_991).unwrap_err().kind(), ErrorKind::OutOfRange);
        #[allow(clippy::reversed_empty_ranges)]
        let backwards = block.read(5..2);
        assert!(backwards.unwrap_err().to_string().contains("start"));
        assert!(block.fill(0..60_001, 1).is_err() && block.read_at(usize::MAX, &mut [0; 2]).is_err());
    }
}
