//! Tuples of one to twelve shared types.
use std::fmt::{self, Formatter};

use rkyv::tuple::{
    ArchivedTuple1, ArchivedTuple2, ArchivedTuple3, ArchivedTuple4, ArchivedTuple5, ArchivedTuple6, ArchivedTuple7, ArchivedTuple8,
    ArchivedTuple9, ArchivedTuple10, ArchivedTuple11, ArchivedTuple12,
};

use super::key::Key;
use super::schema::Schema;
use super::shared::{Archived, AsDebug, Shared};

macro_rules! tuple {
    ($archived:ident $($element:ident $index:tt)*) => {
        impl<$($element: Shared),*> Shared for ($($element,)*) {
            type View = $archived<$($element::Archived),*>;
            const FLAT: bool = true $(&& $element::FLAT)*;

            #[inline]
            fn view(archived: &Archived<Self>) -> &Self::View {
                archived
            }

            fn schema(schema: &mut Schema) {
                schema.word("(");
                $(schema.element::<$element>();)*
                schema.word(",)");
            }

            fn debug(archived: &Archived<Self>, f: &mut Formatter<'_>) -> fmt::Result {
                f.debug_tuple("")$(.field(&AsDebug::<$element>(&archived.$index)))*.finish()
            }

            fn eq_archived(archived: &Archived<Self>, value: &Self) -> bool {
                $($element::eq_archived(&archived.$index, &value.$index))&&*
            }

            #[inline]
            fn intact(archived: &Archived<Self>) -> bool {
                $($element::intact(&archived.$index))&&*
            }
        }

        impl<$($element: Key),*> Key for ($($element,)*) {}
    };
}

tuple!(ArchivedTuple1 A 0);
tuple!(ArchivedTuple2 A 0 B 1);
tuple!(ArchivedTuple3 A 0 B 1 C 2);
tuple!(ArchivedTuple4 A 0 B 1 C 2 D 3);
tuple!(ArchivedTuple5 A 0 B 1 C 2 D 3 E 4);
tuple!(ArchivedTuple6 A 0 B 1 C 2 D 3 E 4 F 5);
tuple!(ArchivedTuple7 A 0 B 1 C 2 D 3 E 4 F 5 G 6);
tuple!(ArchivedTuple8 A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7);
tuple!(ArchivedTuple9 A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8);
tuple!(ArchivedTuple10 A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9);
tuple!(ArchivedTuple11 A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9 K 10);
tuple!(ArchivedTuple12 A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9 K 10 L 11);
