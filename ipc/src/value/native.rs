//! Numbers, `bool` and `char`: read as the native type.
#![allow(unsafe_code)] // a little-endian number in shared memory is seen as the machine's own

use std::fmt::{self, Formatter};

use super::schema::Schema;
use super::shared::{Archived, Shared, ShortArchive};

macro_rules! native {
    ($($native:ident |$value:ident| $word:expr;)*) => {$(
        impl Shared for $native {
            type View = $native;
            const FLAT: bool = true;

            #[inline(always)]
            fn short(&self) -> Option<ShortArchive> {
                let $value = *self;
                $word
            }

            #[inline]
            fn view(archived: &Archived<Self>) -> &$native {
                const {
                    assert!(size_of::<Archived<$native>>() == size_of::<$native>());
                    assert!(align_of::<Archived<$native>>() == align_of::<$native>());
                    assert!(cfg!(target_endian = "little"));
                }
                // SAFETY: the archived number is the native one's bytes in little-endian order, in a struct of the same size and
                // alignment; this machine is little-endian. A valid archived `bool` or `char` has the bytes of a native one (INV-32).
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

native! {
    u8 |n| Some(ShortArchive::new(n.into(), 1));
    u16 |n| Some(ShortArchive::new(n.into(), 2));
    u32 |n| Some(ShortArchive::new(n.into(), 4));
    u64 |n| Some(ShortArchive::new(n, 8));
    u128 |_n| None;
    i8 |n| Some(ShortArchive::new((n as u8).into(), 1));
    i16 |n| Some(ShortArchive::new((n as u16).into(), 2));
    i32 |n| Some(ShortArchive::new((n as u32).into(), 4));
    i64 |n| Some(ShortArchive::new(n as u64, 8));
    i128 |_n| None;
    f32 |n| Some(ShortArchive::new(n.to_bits().into(), 4));
    f64 |n| Some(ShortArchive::new(n.to_bits(), 8));
    bool |n| Some(ShortArchive::new(n.into(), 1));
    char |n| Some(ShortArchive::new(u32::from(n).into(), 4));
}
