//! Plain values: of fixed width, without anything out of line, and each field's bits known.

use super::shared::Shared;

/// A value that can lie in an [`Array`](../commonhold/struct.Array.html): a number, a `bool`, a `char`, or a struct, tuple or array of
/// such. Derive it, beside [`Shared`] and `Copy`.
///
/// It lies there field by field, aligned as in C, little-endian, with zeros in all gaps: so no bytes of this process's memory get there by
/// accident, and no field is torn that has 8 bytes or fewer. Enums and everything with a pointer are refused by the compiler: of those,
/// not every pattern of bits is a value. All zeros are a value of every plain type.
///
/// ```
/// # use commonhold_ipc::value as commonhold;
/// use commonhold::Plain;
/// assert_eq!((<(u8, u32) as Plain>::BYTES, <[[f32; 3]; 2] as Plain>::BYTES), (8, 24));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a plain value",
    label = "not plain",
    note = "plain are the integers from `u8` to `i128`, `f32`, `f64`, `bool`, `char`, arrays and tuples of up to four of such, and structs with `#[derive(commonhold::Shared, commonhold::Plain, Clone, Copy)]`",
    note = "`usize` and `isize` have no fixed size in shared memory: use `u64` and `i64` (`len() as u64`); for text, enums and what has no fixed size take a `List`"
)]
pub trait Plain: Shared + Copy {
    /// Its bytes there.
    const BYTES: usize;

    /// What its place must be a multiple of: 1, 2, 4 or 8.
    #[doc(hidden)]
    const ALIGN: usize;

    /// Writes its bytes, at the beginning of `bytes`, where there are zeros.
    #[doc(hidden)]
    fn put(self, bytes: &mut [u8]);

    /// The value of these bytes; none if they are none's.
    #[doc(hidden)]
    fn take(bytes: &[u8]) -> Option<Self>;
}

/// Compiles for plain types only: what the derive calls for every field, so that the compiler points at the field.
#[doc(hidden)]
pub fn need_plain<T: Plain>() {}

/// Where a field ends that stands behind what ends at `end`.
#[doc(hidden)]
pub const fn plain_end<T: Plain>(end: usize) -> usize {
    end.next_multiple_of(T::ALIGN) + T::BYTES
}

/// The stricter alignment.
#[doc(hidden)]
pub const fn plain_align<T: Plain>(align: usize) -> usize {
    if T::ALIGN > align { T::ALIGN } else { align }
}

/// Writes fields, one behind the other.
#[doc(hidden)]
pub struct PlainWriter<'b> {
    bytes: &'b mut [u8],
    end: usize,
}

impl<'b> PlainWriter<'b> {
    #[inline(always)]
    pub fn new(bytes: &'b mut [u8]) -> Self {
        PlainWriter { bytes, end: 0 }
    }

    #[inline(always)]
    pub fn put<T: Plain>(&mut self, field: T) {
        let end = plain_end::<T>(self.end);
        field.put(&mut self.bytes[end - T::BYTES..end]);
        self.end = end;
    }
}

/// Reads fields, one behind the other.
#[doc(hidden)]
pub struct PlainReader<'b> {
    bytes: &'b [u8],
    end: usize,
}

impl<'b> PlainReader<'b> {
    #[inline(always)]
    pub fn new(bytes: &'b [u8]) -> Self {
        PlainReader { bytes, end: 0 }
    }

    #[inline(always)]
    pub fn take<T: Plain>(&mut self) -> Option<T> {
        self.end = plain_end::<T>(self.end);
        T::take(&self.bytes[self.end - T::BYTES..self.end])
    }
}

macro_rules! numbers {
    ($($number:ident)*) => {$(
        impl Plain for $number {
            const BYTES: usize = size_of::<$number>();
            const ALIGN: usize = if size_of::<$number>() < 8 { size_of::<$number>() } else { 8 };

            #[inline(always)]
            fn put(self, bytes: &mut [u8]) {
                bytes[..Self::BYTES].copy_from_slice(&self.to_le_bytes());
            }

            #[inline(always)]
            fn take(bytes: &[u8]) -> Option<Self> {
                bytes.first_chunk().map(|bytes| $number::from_le_bytes(*bytes))
            }
        }
    )*};
}

numbers!(u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64);

impl Plain for bool {
    const BYTES: usize = 1;
    const ALIGN: usize = 1;

    #[inline(always)]
    fn put(self, bytes: &mut [u8]) {
        bytes[0] = self.into();
    }

    #[inline(always)]
    fn take(bytes: &[u8]) -> Option<Self> {
        (bytes[0] <= 1).then_some(bytes[0] == 1)
    }
}

impl Plain for char {
    const BYTES: usize = 4;
    const ALIGN: usize = 4;

    #[inline(always)]
    fn put(self, bytes: &mut [u8]) {
        u32::from(self).put(bytes);
    }

    #[inline(always)]
    fn take(bytes: &[u8]) -> Option<Self> {
        char::from_u32(u32::take(bytes)?)
    }
}

impl<T: Plain, const N: usize> Plain for [T; N]
where
    [T; N]: Shared,
{
    const BYTES: usize = N * T::BYTES;
    const ALIGN: usize = T::ALIGN;

    #[inline]
    fn put(self, bytes: &mut [u8]) {
        let mut fields = PlainWriter::new(bytes);
        self.into_iter().for_each(|field| fields.put(field));
    }

    #[inline]
    fn take(bytes: &[u8]) -> Option<Self> {
        let (mut fields, mut values) = (PlainReader::new(bytes), [None::<T>; N]);
        for value in &mut values {
            *value = Some(fields.take()?);
        }
        Some(values.map(|value| value.unwrap_or_else(|| unreachable!("none is missing"))))
    }
}

macro_rules! tuples {
    ($(($($field:ident)*))*) => {$(
        impl<$($field: Plain),*> Plain for ($($field,)*)
        where
            ($($field,)*): Shared,
        {
            const ALIGN: usize = {
                let align = 1;
                $(let align = plain_align::<$field>(align);)*
                align
            };
            const BYTES: usize = {
                let end = 0usize;
                $(let end = plain_end::<$field>(end);)*
                end.next_multiple_of(Self::ALIGN)
            };

            #[inline(always)]
            #[allow(non_snake_case)] // the fields' names are their types'
            fn put(self, bytes: &mut [u8]) {
                let ($($field,)*) = self;
                let mut fields = PlainWriter::new(bytes);
                $(fields.put($field);)*
            }

            #[inline(always)]
            fn take(bytes: &[u8]) -> Option<Self> {
                let mut fields = PlainReader::new(bytes);
                Some(($(fields.take::<$field>()?,)*))
            }
        }
    )*};
}

tuples!((A) (A B) (A B C) (A B C D));

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back<T: Plain + PartialEq + std::fmt::Debug>(value: T, bytes: &[u8]) {
        assert_eq!(T::BYTES, bytes.len());
        let mut written = vec![0; T::BYTES];
        value.put(&mut written);
        assert_eq!(written, bytes, "{value:?}");
        assert_eq!(T::take(bytes), Some(value));
        // All zeros are a value of every plain type.
        assert!(T::take(&vec![0; T::BYTES]).is_some());
    }

    #[test]
    fn fields_lie_as_in_c_with_zeros_between() {
        there_and_back(0x0102_0304_u32, &[4, 3, 2, 1]);
        there_and_back(-2i16, &[254, 255]);
        there_and_back(1.5f64, &1.5f64.to_le_bytes());
        there_and_back(true, &[1]);
        there_and_back('ß', &[0xdf, 0, 0, 0]);
        there_and_back((7u8, 9u32), &[7, 0, 0, 0, 9, 0, 0, 0]);
        there_and_back((9u32, 7u8), &[9, 0, 0, 0, 7, 0, 0, 0]);
        there_and_back((true, [1u8, 2, 3], 5u16), &[1, 1, 2, 3, 5, 0]);
        there_and_back((1u8, 2u128), &[&[1u8, 0, 0, 0, 0, 0, 0, 0][..], &2u128.to_le_bytes()].concat());
        there_and_back([(1u16, true), (2, false)], &[1, 0, 1, 0, 2, 0, 0, 0]);
        there_and_back((1u8, 2u8, 3u8, 4u8), &[1, 2, 3, 4]);
    }

    #[test]
    fn bits_of_no_value_are_refused() {
        assert_eq!(bool::take(&[2]), None);
        assert_eq!(char::take(&[0, 0xd8, 0, 0]), None);
        assert_eq!(<(u8, bool)>::take(&[1, 7]), None);
        assert_eq!(<[bool; 3]>::take(&[1, 0, 2]), None);
    }
}
