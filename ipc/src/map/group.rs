//! Cells side by side, eight bytes of them at a time.
//!
//! Elements of an array are touched in one width (INV-28), and in the language that is one by one. The machine can do more: a load of eight
//! bytes at a multiple of eight gives each of the cells in them whole, as their own loads would, in no order; and so does a store. That is
//! all that relaxed accesses to different cells promise. But said in the language it would be an access of another width, which it
//! does not allow beside theirs. So it is said in assembly, of which the compiler believes just what it is told: that the cells are loaded, or
//! stored. On machines that are not known here they are, one by one.

use super::Cell;
use std::cell::UnsafeCell;
use std::marker::PhantomData;
#[cfg(any(test, miri, not(target_arch = "x86_64")))]
use std::sync::atomic::Ordering::Relaxed;

/// Bytes of a group.
const BYTES: usize = 8;

/// So many cells that they fill eight bytes, at a multiple of eight.
#[repr(C, align(8))]
pub struct Group<C> {
    bytes: UnsafeCell<[u8; BYTES]>,
    _of: PhantomData<C>,
}

const _: () = assert!(size_of::<Group<u8>>() == BYTES && align_of::<Group<u8>>() == BYTES);

impl<C: Cell> Group<C> {
    /// Cells of a group.
    pub const CELLS: usize = BYTES / size_of::<C>();
    /// Bits of a cell.
    const BITS: usize = 8 * size_of::<C>();

    /// A cell's bits among a group's.
    #[inline(always)]
    pub fn cell(bits: u64, cell: usize) -> u64 {
        (bits >> (Self::BITS * cell)) & (u64::MAX >> (64 - Self::BITS))
    }

    /// A group's bits, made of each cell's, which has no others.
    #[inline(always)]
    pub fn bits(of_cell: impl Fn(usize) -> u64) -> u64 {
        (0..Self::CELLS).fold(0, |bits, cell| bits | of_cell(cell) << (Self::BITS * cell))
    }

    /// Cells, as those before a group, whole groups, and those behind.
    #[inline]
    pub fn split(cells: &[C]) -> (&[C], &[Group<C>], &[C]) {
        // SAFETY: a group is bytes that may change under a shared reference, as cells are; it is as large as its cells and no less aligned, and
        // reaches them as atomics, or by instructions that do what atomics do (INV-28).
        unsafe { cells.align_to() }
    }

    /// Loads each cell, relaxed: the first is in the lowest bits.
    #[inline(always)]
    pub fn load(&self) -> u64 {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            let bits: u64;
            // SAFETY: eight bytes at a multiple of eight, which are there. The processor loads such at once (so its manuals promise), and with them
            // each cell as a relaxed load of it would (INV-28).
            unsafe { std::arch::asm!("mov {}, [{}]", out(reg) bits, in(reg) self.bytes.get(), options(nostack, preserves_flags, readonly)) }
            bits
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        self.load_each()
    }

    /// Stores each cell, relaxed: the first from the lowest bits.
    #[inline(always)]
    pub fn store(&self, bits: u64) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: as in `load` (INV-28).
        unsafe {
            std::arch::asm!("mov [{}], {}", in(reg) self.bytes.get(), in(reg) bits, options(nostack, preserves_flags))
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        self.store_each(bits)
    }
}

/// One by one.
#[cfg(any(test, miri, not(target_arch = "x86_64")))]
impl<C: Cell> Group<C> {
    fn cells(&self) -> &[C] {
        // SAFETY: what `split` has made of such cells is so many of them (INV-28).
        unsafe { std::slice::from_raw_parts(self.bytes.get().cast(), Self::CELLS) }
    }

    fn load_each(&self) -> u64 {
        let cells = self.cells();
        Self::bits(|cell| cells[cell].load_bits(Relaxed))
    }

    fn store_each(&self, bits: u64) {
        for (number, cell) in self.cells().iter().enumerate() {
            cell.store_bits(Self::cell(bits, number), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

    /// Twice what is stored and loaded at once is stored and loaded one by one, and no cell beside it is touched.
    fn is_the_same<C: Cell>(new: impl Fn() -> C) {
        let cells: Vec<C> = (0..64).map(|_| new()).collect();
        for start in 0..20 {
            let (front, groups, back) = Group::split(&cells[start..]);
            assert_eq!(front.len() + groups.len() * Group::<C>::CELLS + back.len(), 64 - start);
            assert!(front.len() < Group::<C>::CELLS && back.len() < Group::<C>::CELLS && !groups.is_empty());
            let bits = 0x8877_6655_4433_2211u64.rotate_left(start as u32);
            groups[0].store(bits);
            assert_eq!((groups[0].load(), groups[0].load_each()), (bits, bits));
            let first = &cells[start + front.len()];
            assert_eq!(first.load_bits(Relaxed), Group::<C>::cell(bits, 0), "the first is the lowest");
            groups[0].store_each(!bits);
            assert_eq!((groups[0].load(), groups[0].load_each()), (!bits, !bits));
            groups[0].store(0);
            assert!(cells.iter().all(|cell| cell.load_bits(Relaxed) == 0));
        }
    }

    #[test]
    fn at_once_is_the_same_as_one_by_one() {
        is_the_same(|| AtomicU8::new(0));
        is_the_same(|| AtomicU16::new(0));
        is_the_same(|| AtomicU32::new(0));
        is_the_same(|| AtomicU64::new(0));
    }
}
