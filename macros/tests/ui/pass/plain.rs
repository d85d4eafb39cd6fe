//! What is plain, under the strictest lints.
#![forbid(unsafe_code)]
#![deny(missing_docs, warnings)]

use commonhold::{Plain, Shared};

/// A generic one.
#[derive(Shared, Plain, Clone, Copy)]
pub struct Point<T, const N: usize> {
    /// Coordinates.
    pub at: [T; N],
    r#type: u8,
}

#[derive(Shared, Plain, Clone, Copy)]
struct Pair(bool, Point<f32, 3>);

#[derive(Shared, Plain, Clone, Copy)]
struct Nothing;

fn main() {
    const _: () = assert!(<Pair as Plain>::BYTES == 20 && <Nothing as Plain>::BYTES == 0);
    let point = Point { at: [1.0, 2.0, 3.0], r#type: 4 };
    let _ = (Pair(true, point).1.r#type, Nothing);
}
