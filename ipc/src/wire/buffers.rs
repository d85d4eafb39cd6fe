//! Buffers that a thread uses again for its next request: memory that is new costs a page fault every 4 KiB.

use std::cell::RefCell;

/// Buffers that are kept.
const KEPT: usize = 4;
/// Bytes of the largest buffer that is kept: twice what containers are filled by.
const KEPT_BYTES_MAX: usize = 4 << 20;

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
