//! A value that says itself what it is: for containers whose elements are not all of one type.
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter, Write};

use rkyv::collections::btree_map::ArchivedBTreeMap;
use rkyv::string::ArchivedString;

use super::codec::tree_is_intact;
use super::reader::{Checker, Deserializer};
use super::schema::Schema;
use super::serialise::Serializer;
use super::shared::Shared;

/// A value of no fixed type: null, a truth value, a number, text, bytes, a list or a map of such.
///
/// Printed like JSON, with bytes as in Rust (`b"..."`).
///
/// ```
/// use commonhold_ipc::value::Any;
/// let ada = Any::from([("name", Any::from("ada")), ("tags", Any::from(vec![1, 2]))]);
/// assert_eq!(ada.to_string(), r#"{"name": "ada", "tags": [1, 2]}"#);
/// assert_eq!(ada.get("name").and_then(Any::as_str), Some("ada"));
/// assert_eq!(ada.get("tags").and_then(|tags| tags.at(1)).and_then(Any::as_i64), Some(2));
/// assert!(ada.get("age").is_none());
/// ```
#[derive(Clone, Default, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(serialize_bounds(__S: Serializer), deserialize_bounds(__D: Deserializer), bytecheck(bounds(__C: Checker)))]
pub enum Any {
    /// Nothing.
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An integer that may be above `i64::MAX`; equal to [`Any::Int`] of the same number.
    UInt(u64),
    /// A floating-point number. Not equal to any integer.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Values in order.
    List(#[rkyv(omit_bounds)] Vec<Any>),
    /// Values by name.
    Map(#[rkyv(omit_bounds)] BTreeMap<String, Any>),
}

/// One level of an [`Any`], borrowed from the value or from its archive: what both are read through.
enum Seen<'a, A> {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    List(&'a [A]),
    Map(Box<dyn Iterator<Item = (&'a str, &'a A)> + 'a>, usize),
}

trait See: Sized {
    fn see(&self) -> Seen<'_, Self>;
}

impl See for Any {
    fn see(&self) -> Seen<'_, Self> {
        match self {
            Any::Null => Seen::Null,
            Any::Bool(value) => Seen::Bool(*value),
            Any::Int(number) => Seen::Int(*number),
            Any::UInt(number) => Seen::UInt(*number),
            Any::Float(number) => Seen::Float(*number),
            Any::Text(text) => Seen::Text(text),
            Any::Bytes(bytes) => Seen::Bytes(bytes),
            Any::List(list) => Seen::List(list),
            Any::Map(map) => Seen::Map(Box::new(map.iter().map(|(name, value)| (name.as_str(), value))), map.len()),
        }
    }
}

impl See for ArchivedAny {
    fn see(&self) -> Seen<'_, Self> {
        match self {
            ArchivedAny::Null => Seen::Null,
            ArchivedAny::Bool(value) => Seen::Bool(*value),
            ArchivedAny::Int(number) => Seen::Int(number.to_native()),
            ArchivedAny::UInt(number) => Seen::UInt(number.to_native()),
            ArchivedAny::Float(number) => Seen::Float(number.to_native()),
            ArchivedAny::Text(text) => Seen::Text(text),
            ArchivedAny::Bytes(bytes) => Seen::Bytes(bytes),
            ArchivedAny::List(list) => Seen::List(list),
            ArchivedAny::Map(map) => Seen::Map(Box::new(map.iter().map(|(name, value)| (name.as_str(), value))), map.len()),
        }
    }
}

macro_rules! accessors {
    ($any:ident, $list:ty, $map:ty) => {
        impl $any {
            /// Whether it is null.
            pub fn is_null(&self) -> bool {
                matches!(self, $any::Null)
            }

            /// The truth value, if it is one.
            pub fn as_bool(&self) -> Option<bool> {
                if let Seen::Bool(value) = self.see() { Some(value) } else { None }
            }

            /// The integer, if it is one and fits.
            pub fn as_i64(&self) -> Option<i64> {
                match self.see() {
                    Seen::Int(number) => Some(number),
                    Seen::UInt(number) => i64::try_from(number).ok(),
                    _ => None,
                }
            }

            /// The integer, if it is one and fits.
            pub fn as_u64(&self) -> Option<u64> {
                match self.see() {
                    Seen::Int(number) => u64::try_from(number).ok(),
                    Seen::UInt(number) => Some(number),
                    _ => None,
                }
            }

            /// The number, if it is one: an integer is rounded to the nearest floating-point number.
            pub fn as_f64(&self) -> Option<f64> {
                match self.see() {
                    Seen::Int(number) => Some(number as f64),
                    Seen::UInt(number) => Some(number as f64),
                    Seen::Float(number) => Some(number),
                    _ => None,
                }
            }

            /// The text, if it is one.
            pub fn as_str(&self) -> Option<&str> {
                if let $any::Text(text) = self { Some(text.as_str()) } else { None }
            }

            /// The bytes, if it is bytes.
            pub fn as_bytes(&self) -> Option<&[u8]> {
                if let $any::Bytes(bytes) = self { Some(bytes.as_slice()) } else { None }
            }

            /// The list, if it is one.
            pub fn as_list(&self) -> Option<&$list> {
                if let $any::List(list) = self { Some(list) } else { None }
            }

            /// The map, if it is one.
            pub fn as_map(&self) -> Option<&$map> {
                if let $any::Map(map) = self { Some(map) } else { None }
            }

            /// What a map has under this name.
            pub fn get(&self, name: &str) -> Option<&Self> {
                self.as_map()?.get(name)
            }

            /// What a list has at this place.
            pub fn at(&self, index: usize) -> Option<&Self> {
                self.as_list()?.get(index)
            }
        }

        impl Display for $any {
            fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
                print(self, f)
            }
        }

        impl fmt::Debug for $any {
            fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
                match self.see() {
                    Seen::Null => f.write_str("Null"),
                    Seen::Bool(value) => f.debug_tuple("Bool").field(&value).finish(),
                    Seen::Int(number) => f.debug_tuple("Int").field(&number).finish(),
                    Seen::UInt(number) => f.debug_tuple("UInt").field(&number).finish(),
                    Seen::Float(number) => f.debug_tuple("Float").field(&number).finish(),
                    Seen::Text(text) => f.debug_tuple("Text").field(&text).finish(),
                    Seen::Bytes(bytes) => f.debug_tuple("Bytes").field(&bytes).finish(),
                    Seen::List(list) => f.debug_tuple("List").field(&list).finish(),
                    Seen::Map(entries, _) => f.debug_tuple("Map").field(&Entries(entries.collect())).finish(),
                }
            }
        }
    };
}

accessors!(Any, [Any], BTreeMap<String, Any>);
accessors!(ArchivedAny, [ArchivedAny], ArchivedBTreeMap<ArchivedString, ArchivedAny>);

/// A map's entries, printed as a map.
struct Entries<'a, A>(Vec<(&'a str, &'a A)>);

impl<A: fmt::Debug> fmt::Debug for Entries<'_, A> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().copied()).finish()
    }
}

fn print(any: &impl See, f: &mut Formatter<'_>) -> fmt::Result {
    match any.see() {
        Seen::Null => f.write_str("null"),
        Seen::Bool(value) => Display::fmt(&value, f),
        Seen::Int(number) => Display::fmt(&number, f),
        Seen::UInt(number) => Display::fmt(&number, f),
        Seen::Float(number) => fmt::Debug::fmt(&number, f),
        Seen::Text(text) => print_text(text, f),
        Seen::Bytes(bytes) => write!(f, "b\"{}\"", bytes.escape_ascii()),
        Seen::List(list) => {
            f.write_char('[')?;
            for (index, element) in list.iter().enumerate() {
                f.write_str(if index > 0 { ", " } else { "" })?;
                print(element, f)?;
            }
            f.write_char(']')
        }
        Seen::Map(entries, _) => {
            f.write_char('{')?;
            for (index, (name, value)) in entries.enumerate() {
                f.write_str(if index > 0 { ", " } else { "" })?;
                print_text(name, f)?;
                f.write_str(": ")?;
                print(value, f)?;
            }
            f.write_char('}')
        }
    }
}

/// Text in JSON's quotes.
fn print_text(text: &str, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_char('"')?;
    for char in text.chars() {
        match char {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            control if control < ' ' => write!(f, "\\u{:04x}", u32::from(control))?,
            other => f.write_char(other)?,
        }
    }
    f.write_char('"')
}

/// Equality of an [`Any`] with another, or with its archive.
fn equal<A: See, B: See>(one: &A, other: &B) -> bool {
    match (one.see(), other.see()) {
        (Seen::Null, Seen::Null) => true,
        (Seen::Bool(a), Seen::Bool(b)) => a == b,
        (Seen::Int(a), Seen::Int(b)) => a == b,
        (Seen::UInt(a), Seen::UInt(b)) => a == b,
        (Seen::Int(a), Seen::UInt(b)) | (Seen::UInt(b), Seen::Int(a)) => u64::try_from(a) == Ok(b),
        (Seen::Float(a), Seen::Float(b)) => a == b,
        (Seen::Text(a), Seen::Text(b)) => a == b,
        (Seen::Bytes(a), Seen::Bytes(b)) => a == b,
        (Seen::List(a), Seen::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Seen::Map(a, a_len), Seen::Map(mut b, b_len)) => {
            let mut same = |(name, value): (&str, &A)| b.next().is_some_and(|(n, v)| name.cmp(n) == Ordering::Equal && equal(value, v));
            a_len == b_len && a.into_iter().all(&mut same)
        }
        _ => false,
    }
}

impl PartialEq for Any {
    fn eq(&self, other: &Any) -> bool {
        equal(self, other)
    }
}

impl PartialEq for ArchivedAny {
    fn eq(&self, other: &ArchivedAny) -> bool {
        equal(self, other)
    }
}

impl PartialEq<Any> for ArchivedAny {
    fn eq(&self, other: &Any) -> bool {
        equal(self, other)
    }
}

impl PartialEq<ArchivedAny> for Any {
    fn eq(&self, other: &ArchivedAny) -> bool {
        equal(self, other)
    }
}

impl Shared for Any {
    type View = ArchivedAny;
    const FLAT: bool = false;

    #[inline]
    fn view(archived: &ArchivedAny) -> &ArchivedAny {
        archived
    }

    fn schema(schema: &mut Schema) {
        schema.word("Any");
        schema.contains_itself();
    }

    fn debug(archived: &ArchivedAny, f: &mut Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(archived, f)
    }

    fn eq_archived(archived: &ArchivedAny, value: &Self) -> bool {
        archived == value
    }

    fn intact(archived: &ArchivedAny) -> bool {
        match archived {
            ArchivedAny::List(list) => list.iter().all(Any::intact),
            ArchivedAny::Map(map) => tree_is_intact(map) && map.values().all(Any::intact),
            _ => true,
        }
    }
}

impl ArchivedAny {
    /// A copy in private memory.
    pub fn to_owned(&self) -> Any {
        super::codec::to_owned::<Any>(self, None)
    }
}

macro_rules! from {
    ($($native:ty => |$value:ident| $any:expr;)*) => {$(
        impl From<$native> for Any {
            fn from($value: $native) -> Any {
                $any
            }
        }
    )*};
}

from! {
    bool => |value| Any::Bool(value);
    i8 => |value| Any::Int(value.into());
    i16 => |value| Any::Int(value.into());
    i32 => |value| Any::Int(value.into());
    i64 => |value| Any::Int(value);
    u8 => |value| Any::Int(value.into());
    u16 => |value| Any::Int(value.into());
    u32 => |value| Any::Int(value.into());
    u64 => |value| i64::try_from(value).map_or(Any::UInt(value), Any::Int);
    f32 => |value| Any::Float(value.into());
    f64 => |value| Any::Float(value);
    &str => |value| Any::Text(value.to_string());
    String => |value| Any::Text(value);
    () => |_value| Any::Null;
    &[u8] => |value| Any::Bytes(value.to_vec());
}

impl<T: Into<Any>> From<Vec<T>> for Any {
    fn from(list: Vec<T>) -> Any {
        list.into_iter().collect()
    }
}

impl<T: Into<Any>> From<Option<T>> for Any {
    fn from(value: Option<T>) -> Any {
        value.map_or(Any::Null, T::into)
    }
}

impl<T: Into<Any>> From<BTreeMap<String, T>> for Any {
    fn from(map: BTreeMap<String, T>) -> Any {
        map.into_iter().collect()
    }
}

impl<N: Into<String>, T: Into<Any>, const LEN: usize> From<[(N, T); LEN]> for Any {
    fn from(entries: [(N, T); LEN]) -> Any {
        entries.into_iter().collect()
    }
}

impl<T: Into<Any>> FromIterator<T> for Any {
    fn from_iter<I: IntoIterator<Item = T>>(list: I) -> Any {
        Any::List(list.into_iter().map(T::into).collect())
    }
}

impl<N: Into<String>, T: Into<Any>> FromIterator<(N, T)> for Any {
    fn from_iter<I: IntoIterator<Item = (N, T)>>(entries: I) -> Any {
        Any::Map(entries.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}
