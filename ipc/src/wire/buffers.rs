//! What requests are put together in: short ones in place, others in buffers that a thread uses again for its next request, since
//! memory that is new costs a page fault every 4 KiB.

use super::HEAD_BYTES;
use std::cell::RefCell;

/// Buffers that are kept.
const KEPT: usize = 4;
/// Bytes of the largest buffer that is kept: twice what containers are filled by.
const KEPT_BYTES_MAX: usize = 4 << 20;

/// What bytes are appended to.
pub trait Out {
    /// Appends bytes.
    fn put(&mut self, bytes: &[u8]);
}

impl Out for Vec<u8> {
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Bytes of a frame that is put together in place, on the caller's stack.
pub const SHORT_BYTES: usize = HEAD_BYTES + 256;
/// Its payload is copied by so many bytes at a time.
const RUN_BYTES: usize = 32;
const _: () = assert!((SHORT_BYTES - HEAD_BYTES).is_multiple_of(RUN_BYTES));

/// A frame that is put together in place. What is more than fits is counted and dropped.
pub struct Short {
    bytes: [u8; SHORT_BYTES],
    len: usize,
}

impl Default for Short {
    #[inline(always)]
    fn default() -> Short {
        Short { bytes: [0; SHORT_BYTES], len: 0 }
    }
}

impl Short {
    /// How many bytes were appended, those that did not fit included.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether all of them are here.
    #[inline(always)]
    pub fn is_whole(&self) -> bool {
        self.len <= SHORT_BYTES
    }

    /// The bytes behind the head, with zeros behind the last one up to a multiple of 32 bytes: for who copies several words at a time.
    #[inline(always)]
    pub fn payload_runs(&self) -> &[u8] {
        let payload = &self.bytes[HEAD_BYTES..];
        &payload[..self.len.saturating_sub(HEAD_BYTES).next_multiple_of(RUN_BYTES).min(payload.len())]
    }

    /// The bytes, as far as they are here.
    #[inline(always)]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len.min(SHORT_BYTES)]
    }
}

impl Out for Short {
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if let Some(room) = self.bytes.get_mut(self.len..end) {
            room.copy_from_slice(bytes);
        }
        self.len = end;
    }
}

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer, warm if there is one.
pub fn take() -> Vec<u8> {
    BUFFERS.try_with(|buffers| buffers.try_borrow_mut().ok()?.pop()).ok().flatten().unwrap_or_default()
}

/// A buffer that is not needed any more.
pub fn give(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 || buffer.capacity() > KEPT_BYTES_MAX {
        return;
    }
    buffer.clear();
    // While the thread ends, it is simply freed.
    let _ = BUFFERS.try_with(|buffers| {
        if let Ok(mut buffers) = buffers.try_borrow_mut()
            && buffers.len() < KEPT
        {
            buffers.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Payload;
    use crate::wire::commit::{Op, write_short, write_single};

    #[test]
    fn a_short_frame_says_what_a_long_one_says_or_that_it_does_not_fit() {
        for len in 0..2 * SHORT_BYTES {
            let bytes: Vec<u8> = (0..len).map(|byte| byte as u8 | 1).collect();
            let value = Payload::inline(&bytes);
            let op = Op::Insert { object: 5, key: b"key", value, only_if_absent: false, lend: true };
            let mut long = vec![0; HEAD_BYTES];
            write_single(&mut long, &op);
            let mut short = Short::default();
            let fits = write_short(&mut short, &op);
            assert_eq!((fits, short.len()), (long.len() <= SHORT_BYTES, long.len()));
            if fits {
                assert_eq!(short.bytes_mut(), long);
                long.drain(..HEAD_BYTES);
                long.resize(long.len().next_multiple_of(RUN_BYTES), 0);
                assert_eq!(short.payload_runs(), long);
            }
        }
    }
}
