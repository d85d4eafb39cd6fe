//! The widths in which the memory of arrays is touched.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

mod sealed {
    /// Implemented here, and nowhere else: `Segment::cells` makes such of any bytes.
    pub trait Sealed {}
}

/// A change of bits by one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// These instead.
    Swap,
    /// Adds, within the width.
    Add,
    /// Subtracts, within the width.
    Sub,
    /// Bits that are set in both.
    And,
    /// Bits that are set in one.
    Or,
    /// Bits that are set in one only.
    Xor,
}

/// An atomic of one width, whose bits are the lowest of a `u64`. All orderings are the caller's.
pub trait Cell: sealed::Sealed + Sync + 'static {
    /// What it holds.
    fn load_bits(&self, ordering: Ordering) -> u64;
    /// Replaces what it holds.
    fn store_bits(&self, bits: u64, ordering: Ordering);
    /// Replaces `old`; otherwise says what it holds.
    fn exchange_bits(&self, old: u64, new: u64, success: Ordering, failure: Ordering) -> Result<u64, u64>;
    /// Changes what it holds, and returns what that was.
    fn change_bits(&self, change: Change, bits: u64, ordering: Ordering) -> u64;
}

macro_rules! cells {
    ($($atomic:ident of $bits:ident),*) => {$(
        impl sealed::Sealed for $atomic {}

        impl Cell for $atomic {
            #[inline(always)]
            fn load_bits(&self, ordering: Ordering) -> u64 {
                self.load(ordering).into()
            }

            #[inline(always)]
            fn store_bits(&self, bits: u64, ordering: Ordering) {
                self.store(bits as $bits, ordering);
            }

            #[inline(always)]
            fn exchange_bits(&self, old: u64, new: u64, success: Ordering, failure: Ordering) -> Result<u64, u64> {
                self.compare_exchange(old as $bits, new as $bits, success, failure).map(u64::from).map_err(u64::from)
            }

            #[inline(always)]
            fn change_bits(&self, change: Change, bits: u64, ordering: Ordering) -> u64 {
                let bits = bits as $bits;
                let old = match change {
                    Change::Swap => self.swap(bits, ordering),
                    Change::Add => self.fetch_add(bits, ordering),
                    Change::Sub => self.fetch_sub(bits, ordering),
                    Change::And => self.fetch_and(bits, ordering),
                    Change::Or => self.fetch_or(bits, ordering),
                    Change::Xor => self.fetch_xor(bits, ordering),
                };
                old.into()
            }
        }
    )*};
}

cells!(AtomicU8 of u8, AtomicU16 of u16, AtomicU32 of u32, AtomicU64 of u64);
