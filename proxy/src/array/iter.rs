//! Going through an array.

use commonhold_ipc::array::Elements;
use commonhold_ipc::error::Result;
use commonhold_ipc::value::Plain;
use std::fmt;
use std::iter::FusedIterator;
use std::ops::Range;

/// The elements of an [`Array`](crate::Array), one after the other. Made by [`Array::iter`](crate::Array::iter).
pub struct ArrayIter<'a, T> {
    elements: Elements<'a, T>,
    rest: Range<usize>,
}

impl<T> fmt::Debug for ArrayIter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<ArrayIter over {:?}>", self.rest)
    }
}

impl<'a, T: Plain> ArrayIter<'a, T> {
    pub(super) fn new(elements: Elements<'a, T>) -> Self {
        let rest = 0..elements.len();
        ArrayIter { elements, rest }
    }
}

impl<T: Plain> Iterator for ArrayIter<'_, T> {
    type Item = Result<T>;

    #[inline]
    fn next(&mut self) -> Option<Result<T>> {
        self.rest.next().map(|index| self.elements.get(index))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.rest.size_hint()
    }

    #[inline]
    fn nth(&mut self, n: usize) -> Option<Result<T>> {
        self.rest.nth(n).map(|index| self.elements.get(index))
    }
}

impl<T: Plain> DoubleEndedIterator for ArrayIter<'_, T> {
    fn next_back(&mut self) -> Option<Result<T>> {
        self.rest.next_back().map(|index| self.elements.get(index))
    }
}

impl<T: Plain> ExactSizeIterator for ArrayIter<'_, T> {}

impl<T: Plain> FusedIterator for ArrayIter<'_, T> {}
