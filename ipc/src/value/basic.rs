//! Text, time, and what wraps one value: `String`, `()`, `Duration`, `Option`, `Result`, `Box`, arrays.
use std::fmt::{self, Debug, Formatter};
use std::time::Duration;

use rkyv::boxed::ArchivedBox;
use rkyv::option::ArchivedOption;
use rkyv::result::ArchivedResult;
use rkyv::string::ArchivedString;
use rkyv::time::ArchivedDuration;

use super::codec::access;
use super::schema::Schema;
use super::serialise::Ser;
use super::shared::{Archived, AsDebug, Shared, ShortArchive};

impl Shared for String {
    type View = ArchivedString;
    const FLAT: bool = false;

    #[inline]
    fn short(&self) -> Option<ShortArchive> {
        ShortArchive::of_text(self)
    }

    #[inline]
    fn view(archived: &ArchivedString) -> &ArchivedString {
        archived
    }

    fn schema(schema: &mut Schema) {
        schema.out_of_line(1, |schema| schema.word("String"));
    }

    fn debug(archived: &ArchivedString, f: &mut Formatter<'_>) -> fmt::Result {
        Debug::fmt(archived.as_str(), f)
    }

    #[inline]
    fn eq_archived(archived: &ArchivedString, value: &Self) -> bool {
        archived.as_str() == value
    }

    #[inline]
    fn intact(_: &ArchivedString) -> bool {
        true
    }
}

impl Shared for () {
    type View = ();
    const FLAT: bool = true;

    #[inline]
    fn view(archived: &()) -> &() {
        archived
    }

    fn schema(schema: &mut Schema) {
        schema.word("()");
    }

    fn debug((): &(), f: &mut Formatter<'_>) -> fmt::Result {
        Debug::fmt(&(), f)
    }

    #[inline]
    fn eq_archived((): &(), (): &()) -> bool {
        true
    }

    #[inline]
    fn intact((): &()) -> bool {
        true
    }
}

impl Shared for Duration {
    type View = ArchivedDuration;
    const FLAT: bool = true;

    #[inline]
    fn view(archived: &ArchivedDuration) -> &ArchivedDuration {
        archived
    }

    fn schema(schema: &mut Schema) {
        schema.word("Duration");
    }

    fn debug(archived: &ArchivedDuration, f: &mut Formatter<'_>) -> fmt::Result {
        Debug::fmt(&Duration::new(archived.as_secs(), archived.subsec_nanos()), f)
    }

    #[inline]
    fn eq_archived(archived: &ArchivedDuration, value: &Self) -> bool {
        archived.as_secs() == value.as_secs() && archived.subsec_nanos() == value.subsec_nanos()
    }

    #[inline]
    fn intact(_: &ArchivedDuration) -> bool {
        true
    }
}

impl<T: Shared> Shared for Option<T> {
    type View = ArchivedOption<T::Archived>;
    const FLAT: bool = T::FLAT;

    #[inline]
    fn view(archived: &Archived<Self>) -> &Self::View {
        archived
    }

    fn schema(schema: &mut Schema) {
        schema.word("Option<");
        schema.element::<T>();
        schema.word(">");
    }

    fn debug(archived: &Archived<Self>, f: &mut Formatter<'_>) -> fmt::Result {
        Debug::fmt(&archived.as_ref().map(AsDebug::<T>), f)
    }

    fn eq_archived(archived: &Archived<Self>, value: &Self) -> bool {
        match (archived.as_ref(), value) {
            (Some(archived), Some(value)) => T::eq_archived(archived, value),
            (None, None) => true,
            _ => false,
        }
    }

    #[inline]
    fn intact(archived: &Archived<Self>) -> bool {
        archived.as_ref().is_none_or(T::intact)
    }
}

impl<T: Shared, E: Shared> Shared for Result<T, E> {
    type View = ArchivedResult<T::Archived, E::Archived>;
    const FLAT: bool = T::FLAT && E::FLAT;

    #[inline]
    fn view(archived: &Archived<Self>) -> &Self::View {
        archived
    }

    fn schema(schema: &mut Schema) {
        schema.word("Result<");
        schema.element::<T>();
        schema.element::<E>();
        schema.word(">");
    }

    fn debug(archived: &Archived<Self>, f: &mut Formatter<'_>) -> fmt::Result {
        Debug::fmt(&archived.as_ref().map(AsDebug::<T>).map_err(AsDebug::<E>), f)
    }

    fn eq_archived(archived: &Archived<Self>, value: &Self) -> bool {
        match (archived.as_ref(), value) {
            (Ok(archived), Ok(value)) => T::eq_archived(archived, value),
            (Err(archived), Err(value)) => E::eq_archived(archived, value),
            _ => false,
        }
    }

    fn error_text(&self) -> Option<String> {
        let error = self.as_ref().err()?;
        // Only its archive can be printed, whatever its type is.
        let mut ser = Ser::buffer();
        let text = ser.put::<E>(error).and_then(|range| Ok(format!("{:?}", AsDebug::<E>(access::<E>(&ser.bytes()[range])?))));
        Some(text.unwrap_or_else(|failed| format!("it cannot be printed: {failed}")))
    }

    #[inline]
    fn intact(archived: &Archived<Self>) -> bool {
        match archived.as_ref() {
            Ok(archived) => T::intact(archived),
            Err(archived) => E::intact(archived),
        }
    }
}

impl<T: Shared> Shared for Box<T> {
    type View = ArchivedBox<T::Archived>;
    const FLAT: bool = false;

    #[inline]
    fn view(archived: &Archived<Self>) -> &Self::View {
        archived
    }

    fn schema(schema: &mut Schema) {
        schema.word("Box<");
        schema.out_of_line(1, Schema::element::<T>);
        schema.word(">");
    }

    fn debug(archived: &Archived<Self>, f: &mut Formatter<'_>) -> fmt::Result {
        T::debug(archived.get(), f)
    }

    fn eq_archived(archived: &Archived<Self>, value: &Self) -> bool {
        T::eq_archived(archived.get(), value)
    }

    #[inline]
    fn intact(archived: &Archived<Self>) -> bool {
        T::intact(archived.get())
    }
}

impl<T: Shared, const N: usize> Shared for [T; N] {
    type View = [T::Archived; N];
    const FLAT: bool = T::FLAT;

    #[inline]
    fn view(archived: &Archived<Self>) -> &Self::View {
        archived
    }

    fn schema(schema: &mut Schema) {
        schema.word("[");
        schema.ty::<T>();
        schema.word(&format!("; {N}]"));
    }

    fn debug(archived: &Archived<Self>, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(archived.iter().map(AsDebug::<T>)).finish()
    }

    fn eq_archived(archived: &Archived<Self>, value: &Self) -> bool {
        archived.iter().zip(value).all(|(archived, value)| T::eq_archived(archived, value))
    }

    #[inline]
    fn intact(archived: &Archived<Self>) -> bool {
        archived.iter().all(T::intact)
    }
}
