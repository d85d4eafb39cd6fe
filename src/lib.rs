//! commonhold.
#![deny(missing_docs)]
extern crate self as commonhold;

pub use commonhold_ipc::error::{Error, ErrorKind, Result};
pub use commonhold_ipc::value::{Any, Archived, AsShared, Key, Number, Shared};
pub use commonhold_macros::{Key, Shared};

#[doc(hidden)]
pub mod __rt {
    pub use commonhold_ipc::value::{
        ArchivedHandle, AsDebug, Check, Checker, De, Deserializer, Fault, Field, HandleSink, HandleSource, NumberKind, Schema, Ser,
        Serializer, access, add_number, fingerprint, need_key, need_shared, text, to_owned, with_scratch,
    };
    pub use rkyv;
}
