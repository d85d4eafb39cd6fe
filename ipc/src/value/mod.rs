//! What may live in shared memory, and how its bytes are written, checked and read.
//!
//! A value of a type that is [`Shared`] lies in shared memory as an rkyv archive: position-independent bytes whose root is the
//! last thing in them, read in place. One process writes the bytes through [`Ser`], once; afterwards they never change, and any
//! number of processes read them through [`access`]. What both sides must agree on beyond the bytes is the type: [`Schema`] turns
//! its structure into text, and the text's hash, the [`fingerprint`], is compared when a container is opened.
//!
//! Invariants
//! 1. [`access`] accepts bytes only if every later use of the archived value through safe code stays inside of them, whoever
//!    wrote them. rkyv's own check leaves two things open, which [`Shared::intact`] closes: the shape of hash tables and B-trees.
//! 2. Reading never recurses deeper than [`limits::ARCHIVE_DEPTH_MAX`](crate::limits::ARCHIVE_DEPTH_MAX); what would, is refused
//!    when it is written ([`Ser::put`]).
//! 3. Equal values of a type that is a [`Key`] have equal bytes.
//! 4. All `unsafe` of this module is in `codec.rs`, `native.rs` and `reader.rs`.
mod any;
mod basic;
mod borrowed;
mod codec;
mod collections;
mod describe;
mod error;
mod handle;
mod key;
mod native;
mod numbers;
mod plain;
mod put;
mod reader;
mod schema;
mod serialise;
mod shared;
mod tuples;

pub use any::{Any, ArchivedAny};
pub use codec::{Identity, access, access_remembered, access_unchecked, to_owned};
pub use describe::{fingerprint, text};
pub use handle::ArchivedHandle;
pub use key::{Key, need_key};
pub use numbers::{Number, NumberBytes, NumberKind, add_number};
pub use plain::{Plain, PlainReader, PlainWriter, need_plain, plain_align, plain_end};
pub use reader::{Check, Checker, De, Deserializer, Fault, HandleSource};
pub use schema::Schema;
pub use serialise::{HandleSink, Ser, Serializer, Sink, with_scratch};
pub use shared::{Archived, AsDebug, AsShared, Field, If, Shared, ShortArchive, Then, need_shared};

/// Names the archive format in the handshake: rkyv 0.8's default format, little-endian, aligned, 32-bit relative pointers.
pub const ARCHIVE_FORMAT: u64 = 0x0008_0001;

/// The archive format as this program was built. Any crate of the build may change it by turning on a feature of rkyv: this
/// stops such a build, instead of letting two programs misread each other.
const _: () = {
    use rkyv::boxed::ArchivedBox;
    use rkyv::collections::{btree_map::ArchivedBTreeMap, swiss_table::ArchivedHashMap};
    use rkyv::option::ArchivedOption;
    use rkyv::primitive::{ArchivedI64, ArchivedU128};
    use rkyv::string::ArchivedString;
    use rkyv::vec::ArchivedVec;
    assert!(
        cfg!(target_endian = "little") && size_of::<usize>() == 8,
        "commonhold runs on little-endian 64-bit machines: numbers in shared memory are read in place"
    );
    assert!(
        size_of::<ArchivedString>() == 8
            && size_of::<ArchivedVec<u8>>() == 8
            && size_of::<ArchivedBox<u8>>() == 4
            && size_of::<ArchivedHashMap<u8, u8>>() == 12
            && size_of::<ArchivedBTreeMap<u8, u8>>() == 8
            && size_of::<ArchivedOption<u8>>() == 2
            && align_of::<ArchivedI64>() == 8
            && align_of::<ArchivedU128>() == 16
            && ArchivedI64::from_native(1).to_native().to_ne_bytes()[0] == 1,
        "commonhold needs rkyv without its format features (`unaligned`, `big_endian`, `pointer_width_16`, `pointer_width_64`): \
         some crate of this build turns one of them on; `cargo tree -e features -i rkyv` shows which"
    );
};
