//! Arrays: plain values side by side in a segment, which all who hold the array read and write themselves.
//!
//! | offset | bytes | what | written |
//! |---|---|---|---|
//! | 64 | 288 | a [lock](crate::sync::Lock), for those who change several words together | by all, atomically |
//! | 384 | *n* × stride | the elements | by all, atomically |
//!
//! How many there are follows from the segment's length, which the manager says and nobody can change: no word in the segment is
//! believed. What an element's bytes are, [`Plain`] says; its *stride* is those bytes, rounded up: to 1, 2, 4 or 8, which is then the
//! *width* of its word as well, or to a multiple of words of 8. Every access to the elements is to whole words of that width, and
//! all who have opened the array have opened it as the same type (its text names the fields), so that no word is ever touched in two
//! widths, as the memory model demands.
//!
//! **What may be seen.** An element of one word (8 bytes or fewer) is always one that somebody has stored. Of a larger one each word is,
//! and so each field of 8 bytes or fewer, but two words may be of two stores: who wants them together takes the lock, and everybody
//! else must. A word that is no value of its type (a `bool` of 7, a gap that is not zero) was written by somebody who went around this
//! module: an error for who reads that element, and for nobody else. Copies of many small elements go by [groups](Group) of eight bytes, each
//! of whose elements is loaded or stored as it would be alone.
//!
//! **Death.** A store of one word happens or does not. A process killed between two words of an element leaves one new and one old; if
//! it had the lock, the next who takes that is told. The manager takes back nothing but the lock: there are no claims on elements.
//!
//! SYNC: a load is an acquire, a store a release, an exchange both: who sees a value sees what its writer did before. There is no
//! one order of accesses to different elements beyond that. Copies of many elements have one fence for all of them.

use crate::error::{Error, ErrorKind, Result};
use crate::limits::ARRAY_ELEMENT_BYTES_MAX;
use crate::map::{Cell, Change, Group, Segment};
use crate::points;
use crate::segment::{HEADER_BYTES, Shape};
use crate::sync::LOCK_BYTES;
use crate::value::{Plain, text};
use std::marker::PhantomData;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

/// Where the elements begin: on a cache line of their own, behind the lock.
pub const ELEMENTS: usize = 384;
const _: () = assert!(HEADER_BYTES + LOCK_BYTES <= ELEMENTS && ELEMENTS.is_multiple_of(64));

/// Bytes of the word in which elements of so many bytes are touched.
const fn width_of(bytes: usize) -> usize {
    match bytes {
        1 => 1,
        2 => 2,
        3 | 4 => 4,
        _ => 8,
    }
}

/// Bytes from one element of a type to the next.
pub const fn stride<T: Plain>() -> usize {
    const {
        assert!(T::BYTES > 0, "an array's elements have at least one byte: this type has none");
        assert!(T::BYTES <= ARRAY_ELEMENT_BYTES_MAX, "an array's elements have at most 4096 bytes: this type has more, use a `List`");
    }
    T::BYTES.next_multiple_of(width_of(T::BYTES))
}

/// What the segment of so many elements is like; none if no segment is so large.
pub fn shape(elements: u64, stride: u64) -> Option<Shape> {
    let bytes = elements.checked_mul(stride)?.checked_add(ELEMENTS as u64)?;
    Some(Shape::backed_later(bytes, elements))
}

/// Runs `$body` with `$cell` as the atomic of an element's words. Which one, the compiler knows.
macro_rules! with_cells {
    ($element:ty, |$cell:ident| $body:expr) => {
        match width_of(<$element>::BYTES) {
            1 => {
                type $cell = AtomicU8;
                $body
            }
            2 => {
                type $cell = AtomicU16;
                $body
            }
            4 => {
                type $cell = AtomicU32;
                $body
            }
            _ => {
                type $cell = AtomicU64;
                $body
            }
        }
    };
}

/// The elements of an array.
pub struct Elements<'s, T> {
    segment: &'s Segment,
    _of: PhantomData<T>,
}

impl<'s, T: Plain> Elements<'s, T> {
    /// Words of one element.
    const WORDS: usize = stride::<T>() / width_of(T::BYTES);

    /// Whether an element is one word, which changes as a whole.
    pub const IS_WORD: bool = Self::WORDS == 1;

    /// The elements in a segment.
    #[inline(always)]
    pub fn new(segment: &'s Segment) -> Self {
        Elements { segment, _of: PhantomData }
    }

    /// How many there are.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty)] // asked for by one that has it
    pub fn len(&self) -> usize {
        self.segment.bytes().saturating_sub(ELEMENTS) / stride::<T>()
    }

    #[inline(always)]
    fn words<C: Cell>(&self, index: usize) -> Result<&'s [C]> {
        self.run::<C>(index, 1)
    }

    /// The words of elements side by side.
    #[inline(always)]
    fn run<C: Cell>(&self, start: usize, count: usize) -> Result<&'s [C]> {
        let len = self.len();
        if start > len || count > len - start {
            return Err(outside(start, count, len));
        }
        Ok(&self.segment.cells::<C>(ELEMENTS)[start * Self::WORDS..(start + count) * Self::WORDS])
    }

    /// The value of a word.
    #[inline(always)]
    fn decode(bits: u64, index: usize) -> Result<T> {
        // Bits that the value does not have are an error as well: a comparison would never find it again.
        T::take(&bits.to_le_bytes()).filter(|value| Self::encode(*value) == bits).ok_or_else(|| no_value::<T>(index))
    }

    /// The word of a value: no more of it than its bytes, since others may stand beside them.
    #[inline(always)]
    fn encode(value: T) -> u64 {
        let mut bytes = [0; 8];
        value.put(&mut bytes[..T::BYTES.min(8)]);
        u64::from_le_bytes(bytes)
    }

    #[inline(always)]
    fn load<C: Cell>(words: &[C], index: usize, ordering: Ordering) -> Result<T> {
        if let [word] = words {
            return Self::decode(word.load_bits(ordering), index);
        }
        with_room(T::BYTES, |room| {
            for (bytes, word) in room.chunks_exact_mut(8).zip(words) {
                bytes.copy_from_slice(&word.load_bits(ordering).to_le_bytes());
            }
            T::take(room).ok_or_else(|| no_value::<T>(index))
        })
    }

    #[inline(always)]
    fn store<C: Cell>(words: &[C], value: T, ordering: Ordering) {
        if let [word] = words {
            return word.store_bits(Self::encode(value), ordering);
        }
        with_room(T::BYTES, |room| {
            value.put(room);
            for (bytes, word) in room.as_chunks::<8>().0.iter().zip(words) {
                word.store_bits(u64::from_le_bytes(*bytes), ordering);
                points::client("array: a word of an element is stored");
            }
        });
    }

    /// An element.
    #[inline(always)]
    pub fn get(&self, index: usize) -> Result<T> {
        // SYNC: pairs with the release of whoever stored it.
        with_cells!(T, |C| Self::load(self.words::<C>(index)?, index, Acquire))
    }

    /// Replaces an element.
    #[inline(always)]
    pub fn set(&self, index: usize, value: T) -> Result<()> {
        // SYNC: pairs with the acquire of whoever loads it.
        with_cells!(T, |C| Self::store(self.words::<C>(index)?, value, Release));
        Ok(())
    }

    /// Changes an element of one word, and returns what it was.
    #[inline(always)]
    pub fn change(&self, index: usize, change: Change, by: T) -> Result<T> {
        const { assert!(Self::IS_WORD, "an element of more than 8 bytes cannot be changed in one step: change it within `with_lock`") };
        let bits = Self::encode(by);
        points::client("array: before a change");
        // SYNC: acquires what its last writer released, and releases to whoever loads it.
        let old = with_cells!(T, |C| self.words::<C>(index)?[0].change_bits(change, bits, AcqRel));
        points::client("array: changed");
        Self::decode(old, index)
    }

    /// Replaces an element of one word if it is `expected`, bit for bit. Otherwise says what it is.
    #[inline(always)]
    pub fn compare_exchange(&self, index: usize, expected: T, new: T) -> Result<std::result::Result<T, T>> {
        const { assert!(Self::IS_WORD, "an element of more than 8 bytes cannot be changed in one step: change it within `with_lock`") };
        let (old, new) = (Self::encode(expected), Self::encode(new));
        // SYNC: as in `change`; a failure only acquires.
        let done = with_cells!(T, |C| self.words::<C>(index)?[0].exchange_bits(old, new, AcqRel, Acquire));
        match done {
            Ok(_) => Ok(Ok(expected)),
            Err(found) => Self::decode(found, index).map(Err),
        }
    }

    /// Copies elements out.
    pub fn read(&self, start: usize, out: &mut [T]) -> Result<()> {
        with_cells!(T, |C| Self::read_run(self.run::<C>(start, out.len())?, start, out)?);
        // SYNC: pairs with the releases of those who stored what was just loaded.
        fence(Acquire);
        Ok(())
    }

    fn read_run<C: Cell>(words: &[C], start: usize, out: &mut [T]) -> Result<()> {
        let each = |words: &[C], start: usize, out: &mut [T]| {
            words.chunks_exact(Self::WORDS).zip(out).enumerate().try_for_each(|(at, (words, out))| {
                *out = Self::load(words, start + at, Relaxed)?;
                Ok(())
            })
        };
        if !Self::IS_WORD {
            return each(words, start, out);
        }
        let (front, groups, back) = Group::split(words);
        let (first, rest) = out.split_at_mut(front.len());
        let (middle, last) = rest.split_at_mut(groups.len() * Group::<C>::CELLS);
        each(front, start, first)?;
        let mut index = start + front.len();
        for (group, out) in groups.iter().zip(middle.chunks_exact_mut(Group::<C>::CELLS)) {
            let bits = group.load();
            for (cell, out) in out.iter_mut().enumerate() {
                *out = Self::decode(Group::<C>::cell(bits, cell), index + cell)?;
            }
            index += Group::<C>::CELLS;
        }
        each(back, index, last)
    }

    /// Copies elements in.
    pub fn write(&self, start: usize, values: &[T]) -> Result<()> {
        // SYNC: pairs with the acquires of those who load what is stored now.
        fence(Release);
        with_cells!(T, |C| Self::write_run(self.run::<C>(start, values.len())?, values));
        Ok(())
    }

    fn write_run<C: Cell>(words: &[C], values: &[T]) {
        let each = |words: &[C], values: &[T]| {
            words.chunks_exact(Self::WORDS).zip(values).for_each(|(words, value)| Self::store(words, *value, Relaxed));
        };
        if !Self::IS_WORD {
            return each(words, values);
        }
        let (front, groups, back) = Group::split(words);
        let (first, rest) = values.split_at(front.len());
        let (middle, last) = rest.split_at(groups.len() * Group::<C>::CELLS);
        each(front, first);
        for (group, values) in groups.iter().zip(middle.chunks_exact(Group::<C>::CELLS)) {
            group.store(Group::<C>::bits(|cell| Self::encode(values[cell])));
            points::client("array: elements of a group are stored");
        }
        each(back, last);
    }

    /// Replaces all elements.
    pub fn fill(&self, value: T) -> Result<()> {
        // SYNC: as in `write`.
        fence(Release);
        with_cells!(T, |C| Self::fill_run(self.run::<C>(0, self.len())?, value));
        Ok(())
    }

    fn fill_run<C: Cell>(words: &[C], value: T) {
        let each = |words: &[C]| words.chunks_exact(Self::WORDS).for_each(|words| Self::store(words, value, Relaxed));
        if !Self::IS_WORD {
            return each(words);
        }
        let (front, groups, back) = Group::split(words);
        let same = Group::<C>::bits(|_| Self::encode(value));
        each(front);
        groups.iter().for_each(|group| group.store(same));
        each(back);
    }
}

/// Runs `body` with so many bytes of room, zeros, in whole words.
#[inline(always)]
fn with_room<R>(bytes: usize, body: impl FnOnce(&mut [u8]) -> R) -> R {
    let words = bytes.next_multiple_of(8);
    // Of several sizes, so that small elements do not pay for the largest: which one, the compiler knows.
    match words {
        0..=64 => body(&mut [0; 64][..words]),
        65..=512 => body(&mut [0; 512][..words]),
        _ => body(&mut [0; ARRAY_ELEMENT_BYTES_MAX][..words]),
    }
}

#[cold]
fn outside(start: usize, count: usize, len: usize) -> Error {
    let what = if count == 1 { format!("element {start}") } else { format!("{count} elements from {start} on") };
    Error::new(ErrorKind::OutOfRange, format!("an array of {len} elements has no {what}: its positions are from 0 to below {len}"))
}

#[cold]
fn no_value<T: Plain>(index: usize) -> Error {
    let text = format!(
        "element {index} of an array holds bits that are no value of {}: a process that uses the array has written over it; set it again",
        text::<T>()
    );
    Error::new(ErrorKind::Corrupt, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Kind;
    use crate::segment;

    fn segment_of(elements: u64, stride: usize) -> Segment {
        segment::make(1, Kind::Array, &shape(elements, stride as u64).unwrap()).unwrap().1
    }

    #[test]
    fn words_are_as_wide_as_their_elements() {
        assert_eq!([stride::<u8>(), stride::<u16>(), stride::<[u8; 3]>(), stride::<f32>()], [1, 2, 4, 4]);
        assert_eq!([stride::<u64>(), stride::<(u32, u8)>(), stride::<[u8; 9]>(), stride::<u128>()], [8, 8, 16, 16]);
        const { assert!(Elements::<(u32, bool)>::IS_WORD && !Elements::<[u8; 9]>::IS_WORD) };
        for (elements, stride) in [(0, 1), (5, 1), (5, 2), (3, 4), (7, 8), (3, 16)] {
            let segment = segment_of(elements, stride);
            let lens = [
                (1, Elements::<u8>::new(&segment).len()),
                (2, Elements::<u16>::new(&segment).len()),
                (4, Elements::<char>::new(&segment).len()),
                (8, Elements::<i64>::new(&segment).len()),
                (16, Elements::<(u64, u8)>::new(&segment).len()),
            ];
            let len = lens.into_iter().find(|(other, _)| *other == stride).unwrap().1;
            assert_eq!(len as u64, elements, "{stride}");
        }
    }

    #[test]
    fn neighbours_are_left_alone() {
        let segment = segment_of(20, 1);
        let bytes = Elements::<u8>::new(&segment);
        bytes.fill(7).unwrap();
        bytes.set(3, 255).unwrap();
        assert_eq!(bytes.change(3, Change::Add, 2).unwrap(), 255);
        let mut all = [0; 20];
        bytes.read(0, &mut all).unwrap();
        assert_eq!((all[2], all[3], all[4]), (7, 1, 7), "a sum wraps within its element");
    }

    #[test]
    fn what_is_outside_is_an_error() {
        let segment = segment_of(4, 8);
        let numbers = Elements::<u64>::new(&segment);
        for (start, count) in [(5, 0), (4, 1), (0, 5), (usize::MAX, 2), (2, 3)] {
            assert_eq!(numbers.read(start, &mut vec![0; count]).unwrap_err().kind(), ErrorKind::OutOfRange);
        }
        numbers.read(4, &mut []).unwrap();
        assert!(shape(u64::MAX / 8, 8).is_none() && shape(u64::MAX, 1).is_none());
    }

    #[test]
    fn bits_of_no_value_are_an_error_of_that_element() {
        let segment = segment_of(3, 8);
        let pairs = Elements::<(u32, bool)>::new(&segment);
        pairs.set(1, (9, true)).unwrap();
        for bits in [9 | 2 << 32, 9 | 1 << 40] {
            segment.word(ELEMENTS + 8).store(bits, Relaxed);
            let error = pairs.get(1).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            let written_over = "element 1 of an array holds bits that are no value of (u32, bool,): a process that uses the array has written over it; set it again";
            assert_eq!(error.to_string(), written_over);
            assert_eq!(pairs.compare_exchange(1, (9, true), (1, true)).unwrap_err().kind(), ErrorKind::Corrupt);
            assert_eq!(pairs.get(2).unwrap(), (0, false));
        }
        pairs.set(1, (1, false)).unwrap();
        assert_eq!(pairs.get(1).unwrap(), (1, false));
    }

    #[test]
    fn large_elements_go_in_and_out_by_words() {
        let segment = segment_of(3, stride::<[u64; 70]>());
        let large = Elements::<[u64; 70]>::new(&segment);
        let value: [u64; 70] = std::array::from_fn(|at| at as u64 * 3);
        large.set(2, value).unwrap();
        assert!(large.get(2).unwrap() == value && large.get(1).unwrap() == [0; 70]);
    }

    /// All ranges of a few groups against a plain array: what is read, what is written, and that nothing beside it is.
    fn ranges_are_as_of_a_slice<T: Plain + PartialEq + std::fmt::Debug>(value: impl Fn(usize) -> T) {
        let len = 3 * 8 / stride::<T>() + 5;
        let segment = segment_of(len as u64, stride::<T>());
        let array = Elements::<T>::new(&segment);
        let old = |at: usize| value(100 + at);
        for start in 0..=len {
            for end in start..=len {
                (0..len).for_each(|at| array.set(at, old(at)).unwrap());
                let mut model: Vec<T> = (0..len).map(old).collect();
                let mut out = vec![value(7); end - start];
                array.read(start, &mut out).unwrap();
                assert_eq!(out, model[start..end], "{start}..{end}");
                let new: Vec<T> = (start..end).map(&value).collect();
                array.write(start, &new).unwrap();
                model[start..end].copy_from_slice(&new);
                let now: Vec<T> = (0..len).map(|at| array.get(at).unwrap()).collect();
                assert_eq!(now, model, "{start}..{end}");
            }
        }
        array.fill(value(3)).unwrap();
        assert!((0..len).all(|at| array.get(at).unwrap() == value(3)));
    }

    #[test]
    fn every_range_of_every_width_is_copied_and_nothing_else() {
        ranges_are_as_of_a_slice(|at| at as u8);
        ranges_are_as_of_a_slice(|at| at as i8);
        ranges_are_as_of_a_slice(|at| at % 3 == 0);
        ranges_are_as_of_a_slice(|at| at as u16 * 257);
        ranges_are_as_of_a_slice(|at| [at as u8, 255, at as u8 ^ 85]);
        ranges_are_as_of_a_slice(|at| at as f32 / 3.0);
        ranges_are_as_of_a_slice(|at| at as i64 * -3);
        ranges_are_as_of_a_slice(|at| (at as u32, at % 2 == 0));
        ranges_are_as_of_a_slice(|at| u128::MAX - at as u128);
    }

    #[test]
    fn of_many_that_are_copied_the_one_of_no_value_is_named() {
        let segment = segment_of(40, 1);
        let (flags, bytes) = (Elements::<bool>::new(&segment), Elements::<u8>::new(&segment));
        for wrong in 0..40 {
            bytes.set(wrong, 2).unwrap();
            for start in 0..=wrong {
                let error = flags.read(start, &mut vec![false; 40 - start]).unwrap_err();
                assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains(&format!("element {wrong} of")), "{error}");
            }
            flags.read(wrong + 1, &mut vec![false; 39 - wrong]).unwrap();
            flags.fill(true).unwrap();
        }
    }
}
