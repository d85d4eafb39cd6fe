//! What an array can be made of.

use commonhold_ipc::value::Plain;

/// What a new [`Array`](crate::Array) holds: so many zeros (a `usize`), or these values (an array, a slice, a `Vec`).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not what an `Array<{T}>` can be made of",
    note = "pass a number of elements (a `usize`: they are zeros), or an array, slice or `Vec` of `{T}`"
)]
pub trait ArrayContent<T: Plain> {
    /// How many elements.
    #[doc(hidden)]
    fn count(&self) -> usize;

    /// Them, if they are not all zeros.
    #[doc(hidden)]
    fn values(&self) -> &[T];
}

impl<T: Plain> ArrayContent<T> for usize {
    fn count(&self) -> usize {
        *self
    }

    fn values(&self) -> &[T] {
        &[]
    }
}

macro_rules! values {
    ($([$($parameter:tt)*] $content:ty;)*) => {$(
        impl<T: Plain $($parameter)*> ArrayContent<T> for $content {
            fn count(&self) -> usize {
                self.len()
            }

            fn values(&self) -> &[T] {
                self.as_ref()
            }
        }
    )*};
}

values! {
    [, const N: usize] [T; N];
    [, const N: usize] &[T; N];
    [] &[T];
    [] Vec<T>;
    [] &Vec<T>;
}
