//! Numbers that can be added to in place, by somebody who knows their type only as a code.
use std::ops::Deref;

use super::shared::Shared;

/// Which number the bytes are: the manager adds without knowing the Rust type. The codes are part of the wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum NumberKind {
    /// `u8`
    U8 = 1,
    /// `u16`
    U16 = 2,
    /// `u32`
    U32 = 3,
    /// `u64`
    U64 = 4,
    /// `u128`
    U128 = 5,
    /// `i8`
    I8 = 6,
    /// `i16`
    I16 = 7,
    /// `i32`
    I32 = 8,
    /// `i64`
    I64 = 9,
    /// `i128`
    I128 = 10,
    /// `f32`
    F32 = 11,
    /// `f64`
    F64 = 12,
}

/// A number that `add` works on.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a number that can be added to",
    note = "the integers from `u8` to `i128`, `f32` and `f64` are; `usize` and `isize` have no fixed size in shared memory: use `u64` and `i64` (`len() as u64`)"
)]
pub trait Number: Shared + Copy + Default {
    /// The number's code.
    const KIND: NumberKind;

    /// The sum, or none if it does not fit. Floating-point sums always fit: they end at infinity.
    fn add_checked(self, other: Self) -> Option<Self>;
}

/// The little-endian bytes of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumberBytes {
    bytes: [u8; 16],
    len: u8,
}

impl Deref for NumberBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A sum of two numbers of this kind, given and returned as little-endian bytes. None if the sum does not fit, or if one of the
/// two does not have the [size](NumberKind::size) of such a number.
pub fn add_number(kind: NumberKind, number: &[u8], delta: &[u8]) -> Option<NumberBytes> {
    match kind {
        NumberKind::U8 => u8::add_bytes(number, delta),
        NumberKind::U16 => u16::add_bytes(number, delta),
        NumberKind::U32 => u32::add_bytes(number, delta),
        NumberKind::U64 => u64::add_bytes(number, delta),
        NumberKind::U128 => u128::add_bytes(number, delta),
        NumberKind::I8 => i8::add_bytes(number, delta),
        NumberKind::I16 => i16::add_bytes(number, delta),
        NumberKind::I32 => i32::add_bytes(number, delta),
        NumberKind::I64 => i64::add_bytes(number, delta),
        NumberKind::I128 => i128::add_bytes(number, delta),
        NumberKind::F32 => f32::add_bytes(number, delta),
        NumberKind::F64 => f64::add_bytes(number, delta),
    }
}

trait AddBytes: Sized {
    fn add_bytes(number: &[u8], delta: &[u8]) -> Option<NumberBytes>;
}

macro_rules! numbers {
    ($($native:ident $kind:ident |$a:ident, $b:ident| $sum:expr;)*) => {
        impl NumberKind {
            /// The kind with this code.
            pub fn from_code(code: u8) -> Option<Self> {
                $(if code == NumberKind::$kind as u8 {
                    return Some(NumberKind::$kind);
                })*
                None
            }

            /// The code that stands for this kind on the wire.
            pub fn code(self) -> u8 {
                self as u8
            }

            /// Bytes of such a number.
            pub fn size(self) -> usize {
                match self {
                    $(NumberKind::$kind => size_of::<$native>(),)*
                }
            }
        }

        $(
            impl Number for $native {
                const KIND: NumberKind = NumberKind::$kind;

                #[inline]
                fn add_checked(self, other: Self) -> Option<Self> {
                    let ($a, $b) = (self, other);
                    $sum
                }
            }

            impl AddBytes for $native {
                fn add_bytes(number: &[u8], delta: &[u8]) -> Option<NumberBytes> {
                    let read = |bytes: &[u8]| bytes.try_into().ok().map($native::from_le_bytes);
                    let sum = read(number)?.add_checked(read(delta)?)?.to_le_bytes();
                    let mut bytes = [0; 16];
                    bytes[..sum.len()].copy_from_slice(&sum);
                    Some(NumberBytes { bytes, len: sum.len() as u8 })
                }
            }
        )*
    };
}

numbers! {
    u8 U8 |a, b| a.checked_add(b);
    u16 U16 |a, b| a.checked_add(b);
    u32 U32 |a, b| a.checked_add(b);
    u64 U64 |a, b| a.checked_add(b);
    u128 U128 |a, b| a.checked_add(b);
    i8 I8 |a, b| a.checked_add(b);
    i16 I16 |a, b| a.checked_add(b);
    i32 I32 |a, b| a.checked_add(b);
    i64 I64 |a, b| a.checked_add(b);
    i128 I128 |a, b| a.checked_add(b);
    f32 F32 |a, b| Some(a + b);
    f64 F64 |a, b| Some(a + b);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum<N: Number + PartialEq + std::fmt::Debug>(a: N, b: N, bytes: impl Fn(N) -> Vec<u8>) {
        assert_eq!(NumberKind::from_code(N::KIND.code()), Some(N::KIND));
        assert_eq!(bytes(a).len(), N::KIND.size());
        let expected = a.add_checked(b).map(&bytes);
        assert_eq!(add_number(N::KIND, &bytes(a), &bytes(b)).map(|sum| sum.to_vec()), expected);
    }

    macro_rules! check {
        ($($native:ident)*) => {$(
            for (a, b) in [(1 as $native, 2 as $native), ($native::MAX, 1 as $native), ($native::MIN, $native::MIN)] {
                sum(a, b, |n| n.to_le_bytes().to_vec());
            }
        )*};
    }

    #[test]
    fn bytes_are_added_as_the_numbers_would_be() {
        check!(u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64);
        assert_eq!(u8::MAX.add_checked(1), None);
        assert_eq!(f64::MAX.add_checked(f64::MAX), Some(f64::INFINITY));
    }

    #[test]
    fn other_codes_and_sizes_are_refused() {
        assert_eq!(NumberKind::from_code(0), None);
        assert_eq!(NumberKind::from_code(13), None);
        assert_eq!(add_number(NumberKind::U32, &[1, 0, 0], &[1, 0, 0, 0]), None);
        assert_eq!(add_number(NumberKind::U32, &[1, 0, 0, 0], &[1; 8]), None);
    }
}
