//! Numbers, `bool` and `char`: read as the native type.
#![allow(unsafe_code)] // a little-endian number in shared memory is seen as the machine's own

use std::fmt::{self, Formatter};

use super::schema::Schema;
use super::shared::{Archived, Shared};

macro_rules! native {
    ($($native:ident)*) => {$(
        impl Shared for $native {
            type View = $native;
            const FLAT: bool = true;

            #[inline]
            fn view(archived: &Archived<Self>) -> &$native {
                const {
                    assert!(size_of::<Archived<$native>>() == size_of::<$native>());
                    assert!(align_of::<Archived<$native>>() == align_of::<$native>());
                    assert!(cfg!(target_endian = "little"));
                }
                // SAFETY: the archived number is the native one's bytes in little-endian order, in a struct of the same size and
                // alignment; this machine is little-endian. A valid archived `bool` or `char` has the bytes of a native one.
                unsafe { &*std::ptr::from_ref(archived).cast::<$native>() }
            }

            fn schema(schema: &mut Schema) {
                schema.word(stringify!($native));
            }

            fn debug(archived: &Archived<Self>, f: &mut Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(Self::view(archived), f)
            }

            #[inline]
            fn eq_archived(archived: &Archived<Self>, value: &Self) -> bool {
                Self::view(archived) == value
            }

            #[inline]
            fn intact(_: &Archived<Self>) -> bool {
                true
            }
        }
    )*};
}

native!(u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64 bool char);
