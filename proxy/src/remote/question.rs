//! What a call asks: the frame with its arguments, and the chain that it is part of.

use super::line::{AHEAD, seal, seal_on};
use crate::payload::ids;
use crate::session::{SessionCore, Stored};
use commonhold_ipc::error::{Error, ErrorKind, Result};
use commonhold_ipc::limits::REMOTE_DEPTH_MAX;
use commonhold_ipc::value::{AsShared, Ser, Shared, with_scratch};
use commonhold_ipc::wire::remote::{Ask, Asked, range_word};
use commonhold_ipc::wire::{HEAD_BYTES, Words, buffers, malformed};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the calling thread is part of.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    pub(super) number: u64,
    /// Objects that it is in, 8 bytes each.
    pub(super) within: Vec<u8>,
}

thread_local! {
    static CHAIN: RefCell<Chain> = const { RefCell::new(Chain { number: 0, within: Vec::new() }) };
}

/// Runs `body` as part of a chain.
pub(super) fn in_chain<R>(chain: Chain, body: impl FnOnce() -> R) -> R {
    struct Back(Chain);
    impl Drop for Back {
        fn drop(&mut self) {
            if let Ok(ours) = CHAIN.try_with(|own| own.replace(std::mem::take(&mut self.0))) {
                buffers::give(ours.within);
            }
        }
    }
    let _back = Back(CHAIN.with(|own| own.replace(chain)));
    body()
}

/// Calls of this process that are no part of another one.
static CHAINS: AtomicU64 = AtomicU64::new(0);

/// The chain that a call of this thread is part of: that of the method that it runs, or a new one.
fn with_chain<R>(session: &SessionCore, body: impl FnOnce(u64, Words<'_>) -> Result<R>) -> Result<R> {
    CHAIN.with(|chain| {
        let chain = chain.borrow();
        let number = match chain.number {
            0 => session.number() << 32 | (CHAINS.fetch_add(1, Ordering::Relaxed) + 1) & 0xffff_ffff,
            number => number,
        };
        if chain.within.len() / 8 >= REMOTE_DEPTH_MAX {
            let text =
                format!("a call within {REMOTE_DEPTH_MAX} calls of methods, the most there may be: do they call each other without end?");
            return Err(Error::new(ErrorKind::Deadlock, text));
        }
        body(number, Words::new(&chain.within).ok_or_else(|| malformed("chain"))?)
    })
}

/// The arguments of a call, on their way.
pub struct Arguments<'a> {
    ser: &'a mut Ser,
    ranges: Vec<u8>,
}

impl Arguments<'_> {
    /// The next one.
    pub fn push<T: Shared>(&mut self, value: impl AsShared<T>) -> Result<()> {
        let range = self.ser.put::<T>(&value)?;
        self.ranges.extend_from_slice(&range_word(&range).to_le_bytes());
        Ok(())
    }
}

/// What is asked, before its arguments.
pub(super) struct Question<'a> {
    pub(super) ask: Ask,
    pub(super) object: u64,
    pub(super) interface: u64,
    pub(super) method: u32,
    pub(super) name: &'a str,
}

/// A frame that asks, and what must be held until it is answered.
pub(super) struct Prepared {
    pub(super) bytes: Vec<u8>,
    pub(super) held: Vec<Stored>,
    ask: Ask,
}

impl Prepared {
    /// Puts a frame together.
    pub(super) fn new(
        session: &Arc<SessionCore>,
        question: &Question<'_>,
        write: impl FnOnce(&mut Arguments<'_>) -> Result<()>,
    ) -> Result<Self> {
        with_scratch(|ser| {
            let mut arguments = Arguments { ser, ranges: buffers::take() };
            write(&mut arguments)?;
            let Arguments { ser, ranges: range_words } = arguments;
            let handles = ids(session, ser.handles())?;
            let (Some(ranges), Some(handles)) = (Words::new(&range_words), Words::new(&handles)) else { return Err(malformed("call")) };
            let held = handles.iter().map(|id| Stored::new(session, id)).collect::<Result<_>>()?;
            let mut bytes = buffers::take();
            bytes.resize(HEAD_BYTES, 0);
            with_chain(session, |chain, within| {
                let Question { object, interface, method, name, .. } = *question;
                Asked { object, interface, method, chain, within, name, handles, ranges, archives: ser.bytes() }.write(&mut bytes);
                Ok(())
            })?;
            buffers::give(range_words);
            Ok(Prepared { bytes, held, ask: question.ask })
        })
    }

    /// Gives it its number.
    pub(super) fn number(&mut self, number: u64) -> Result<&[u8]> {
        seal(&mut self.bytes, self.ask as u8, false, number)?;
        Ok(&self.bytes)
    }

    /// The same for a call ahead. `quiet`: it is not to be answered.
    pub(super) fn number_ahead(&mut self, number: u64, quiet: bool) -> Result<&[u8]> {
        seal_on(&mut self.bytes, self.ask as u8, quiet, AHEAD, number)?;
        Ok(&self.bytes)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        buffers::give(std::mem::take(&mut self.bytes));
    }
}
