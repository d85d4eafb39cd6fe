//! Bytes in memory that others may write at the same time: copied in and out through words of 8.
//!
//! Every access is to a whole, aligned word, atomically: so all users of a block agree on one width, and a copy races with nothing in
//! the sense of the memory model. A part of a word at either end of a copy is put into its word by an exchange, which leaves the rest
//! of that word to whoever writes it.
//!
//! SYNC: relaxed accesses, and one fence for each copy: Release before what is stored, Acquire behind what is loaded. Who sees bytes of a
//! copy sees what its writer did before it.

use crate::points;
use std::ops::Range;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

/// Some bytes of one word: its number, and which of its bytes.
type Part = (usize, Range<usize>);

/// A range of bytes: what lies in a first word that is not all of it, the whole words, and what lies in a last one.
#[inline]
fn parts(range: Range<usize>) -> (Option<Part>, Range<usize>, Option<Part>) {
    let (start, end) = (range.start, range.end.max(range.start));
    let (first, last) = (start / 8, end / 8);
    if first == last {
        let part = (start != end).then_some((first, start % 8..end % 8));
        return (part, last..last, None);
    }
    let front = (!start.is_multiple_of(8)).then_some((first, start % 8..8));
    let back = (!end.is_multiple_of(8)).then_some((last, 0..end % 8));
    (front, start.div_ceil(8)..last, back)
}

/// Copies bytes out, from an offset on.
///
/// # Panics
/// If they are not all within the words.
pub fn read(words: &[AtomicU64], at: usize, out: &mut [u8]) {
    let (front, whole, back) = parts(at..at + out.len());
    let load = |word: usize| words[word].load(Relaxed).to_le_bytes();
    let (first, rest) = out.split_at_mut(front.as_ref().map_or(0, |(_, bytes)| bytes.len()));
    if let Some((word, bytes)) = front {
        first.copy_from_slice(&load(word)[bytes]);
    }
    let (middle, last) = rest.split_at_mut(8 * whole.len());
    for (bytes, word) in middle.as_chunks_mut::<8>().0.iter_mut().zip(&words[whole]) {
        *bytes = word.load(Relaxed).to_le_bytes();
    }
    if let Some((word, bytes)) = back {
        last.copy_from_slice(&load(word)[bytes]);
    }
    // SYNC: pairs with the fences of those who wrote what was just loaded.
    fence(Acquire);
}

/// Copies bytes in, from an offset on.
///
/// # Panics
/// If they do not all lie within the words.
pub fn write(words: &[AtomicU64], at: usize, bytes: &[u8]) {
    let (front, whole, back) = parts(at..at + bytes.len());
    // SYNC: pairs with the fences of those who read what is stored now.
    fence(Release);
    let (first, rest) = bytes.split_at(front.as_ref().map_or(0, |(_, bytes)| bytes.len()));
    if let Some((word, place)) = front {
        put(&words[word], place, first);
        points::client("bytes: the first are written");
    }
    let (middle, last) = rest.split_at(8 * whole.len());
    for (bytes, word) in middle.as_chunks::<8>().0.iter().zip(&words[whole]) {
        word.store(u64::from_le_bytes(*bytes), Relaxed);
    }
    if let Some((word, place)) = back {
        points::client("bytes: all but the last are written");
        put(&words[word], place, last);
    }
}

/// Sets a range of bytes.
///
/// # Panics
/// If they are not all within the words.
pub fn fill(words: &[AtomicU64], range: Range<usize>, byte: u8) {
    let (front, whole, back) = parts(range);
    // SYNC: as in `write`.
    fence(Release);
    let same = [byte; 8];
    for (word, place) in front.into_iter().chain(back) {
        put(&words[word], place.clone(), &same[place]);
    }
    words[whole].iter().for_each(|word| word.store(u64::from_le_bytes(same), Relaxed));
}

/// Puts bytes into a part of a word, and leaves the rest of it as others have it.
fn put(word: &AtomicU64, place: Range<usize>, bytes: &[u8]) {
    let mut old = word.load(Relaxed);
    loop {
        let mut new = old.to_le_bytes();
        new[place.clone()].copy_from_slice(bytes);
        match word.compare_exchange_weak(old, u64::from_le_bytes(new), Relaxed, Relaxed) {
            Ok(_) => return,
            Err(found) => old = found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All ranges of three words, against a plain array.
    #[test]
    fn every_range_is_copied_and_nothing_else() {
        for start in 0..24 {
            for end in start..=24 {
                let words: Vec<AtomicU64> = (0..3).map(|_| AtomicU64::new(u64::from_le_bytes([9; 8]))).collect();
                let mut plain = [9u8; 24];
                let bytes: Vec<u8> = (start..end).map(|at| at as u8 + 100).collect();
                write(&words, start, &bytes);
                plain[start..end].copy_from_slice(&bytes);
                let mut all = [0; 24];
                read(&words, 0, &mut all);
                assert_eq!(all, plain, "{start}..{end}");
                let mut part = vec![0; end - start];
                read(&words, start, &mut part);
                assert_eq!(part, bytes);
                fill(&words, start..end, 1);
                plain[start..end].fill(1);
                read(&words, 0, &mut all);
                assert_eq!(all, plain, "{start}..{end}");
            }
        }
    }

    #[test]
    fn neighbours_in_a_word_keep_what_they_write() {
        let words = [const { AtomicU64::new(0) }; 2];
        std::thread::scope(|scope| {
            for part in 0..4 {
                let words = &words;
                scope.spawn(move || (0..20_000u32).for_each(|n| write(words, part * 3, &n.to_le_bytes()[..3])));
            }
        });
        let mut all = [0; 12];
        read(&words, 0, &mut all);
        assert_eq!(all, [0x1f, 0x4e, 0, 0x1f, 0x4e, 0, 0x1f, 0x4e, 0, 0x1f, 0x4e, 0]);
    }

    #[test]
    #[should_panic(expected = "out of bounds")]
    fn what_is_outside_is_a_bug() {
        read(&[AtomicU64::new(0)], 4, &mut [0; 8]);
    }
}
