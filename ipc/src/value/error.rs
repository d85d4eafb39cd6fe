//! Our own error as a shared value: a function that runs in another process returns it like any other result.
//!
//! It lies there as a tuple: the code of its kind (as on the wire), its message, the texts of its causes, the nearest first.
use std::fmt::{self, Debug, Formatter};

use rkyv::rancor::{Fallible, Source};
use rkyv::string::ArchivedString;
use rkyv::tuple::ArchivedTuple3;
use rkyv::vec::ArchivedVec;
use rkyv::{Archive, Deserialize, Place, Serialize};

use super::reader::Deserializer;
use super::schema::Schema;
use super::serialise::Serializer;
use super::shared::Shared;
use crate::error::Error;
use crate::wire::reply::{code_of, kind_of};

type Parts = (u8, String, Vec<String>);
type ArchivedParts = ArchivedTuple3<u8, ArchivedString, ArchivedVec<ArchivedString>>;

fn parts(error: &Error) -> Parts {
    (code_of(error.kind()), error.to_string(), error.causes())
}

fn of_parts(archived: &ArchivedParts) -> Error {
    let causes: Vec<&str> = archived.2.iter().map(|text| text.as_str()).collect();
    Error::new(kind_of(archived.0), archived.1.as_str()).with_causes(&causes)
}

impl Archive for Error {
    type Archived = ArchivedParts;
    type Resolver = <Parts as Archive>::Resolver;

    fn resolve(&self, resolver: Self::Resolver, out: Place<Self::Archived>) {
        parts(self).resolve(resolver, out);
    }
}

impl<S: Serializer + Fallible<Error: Source> + ?Sized> Serialize<S> for Error {
    fn serialize(&self, serializer: &mut S) -> Result<Self::Resolver, S::Error> {
        parts(self).serialize(serializer)
    }
}

impl<D: Deserializer + ?Sized> Deserialize<Error, D> for ArchivedParts {
    fn deserialize(&self, _: &mut D) -> Result<Error, D::Error> {
        Ok(of_parts(self))
    }
}

impl Shared for Error {
    type View = ArchivedParts;
    const FLAT: bool = false;

    fn view(archived: &Self::Archived) -> &Self::View {
        archived
    }

    fn schema(schema: &mut Schema) {
        schema.open("struct", "Error");
        schema.word("(");
        schema.element::<Parts>();
        schema.word(")");
    }

    fn debug(archived: &Self::Archived, f: &mut Formatter<'_>) -> fmt::Result {
        Debug::fmt(&of_parts(archived), f)
    }

    fn eq_archived(archived: &Self::Archived, value: &Self) -> bool {
        Parts::eq_archived(archived, &parts(value))
    }

    fn intact(archived: &Self::Archived) -> bool {
        Parts::intact(archived)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::value::{Ser, access, text, to_owned};

    #[test]
    fn an_error_keeps_its_kind_its_words_and_its_causes() {
        let cause = Error::caused(ErrorKind::Other, "the disk is full", std::io::Error::other("errno 28"));
        for kind in [ErrorKind::Died, ErrorKind::Other, ErrorKind::Conflict, ErrorKind::UsedAfterFork] {
            let error = Error::caused(kind, "cannot save", cause.clone());
            let mut ser = Ser::buffer();
            let at = ser.put::<Error>(&error).unwrap();
            let archived = access::<Error>(&ser.bytes()[at]).unwrap();
            assert!(Error::eq_archived(archived, &error));
            let read: Error = to_owned(archived, None);
            assert_eq!((read.kind(), format!("{read:?}")), (kind, format!("{error:?}")));
            assert!(format!("{read:?}").ends_with("caused by: the disk is full; caused by: errno 28"), "{read:?}");
        }
        assert_eq!(text::<Result<u64, Error>>(), "Result<u64, struct Error((u8, String, Vec<String>,))>");
    }
}
