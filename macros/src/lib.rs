//! Derive and attribute macros of commonhold. A program reaches them through the `commonhold` crate, whose hidden `__rt` module has all that
//! their expansions name.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod checked;
mod key;
mod method;
mod plain;
mod remote;
mod shape;
mod shared;

use proc_macro::TokenStream;
use syn::{DeriveInput, Error, Item, parse_macro_input};

/// Lets values of a type live in shared memory, where other processes read them in place.
///
/// The type may be a struct or an enum, generic, recursive, private or local; all its fields must be shared types. The derive
/// also makes the archived form, `Archived` before the type's name: what a guard on such a value derefs to. It has the same
/// fields and variants, prints and compares like the value, and has `to_owned()`. Where the type itself is `Eq`, `Hash` or
/// `Ord`, so is the archived form: such types can be keys of maps inside other shared types.
#[proc_macro_derive(Shared)]
pub fn derive_shared(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    shared::expand(&input).unwrap_or_else(Error::into_compile_error).into()
}

/// Lets a shared type be a dict's key. All its fields must be keys: dicts compare keys by their bytes, so there are no floats,
/// hash maps or handles in them.
#[proc_macro_derive(Key)]
pub fn derive_key(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    key::expand(&input).unwrap_or_else(Error::into_compile_error).into()
}

/// Lets a shared struct be an element of an `Array`. It must be `Copy`, and all its fields must be plain: numbers, `bool`, `char`, arrays,
/// tuples and structs of such. Enums are refused: not every pattern of bits is one of their variants.
#[proc_macro_derive(Plain)]
pub fn derive_plain(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    plain::expand(&input).unwrap_or_else(Error::into_compile_error).into()
}

/// Lets objects of a type live beside a manager, and their methods be called from any process.
///
/// On an `impl Type { … }` it makes `TypeProxy`, a handle like all others, with all public methods that take `&self` or `&mut self`:
/// the same parameters, and the result in a `commonhold::Result`. Arguments and results are shared types, handles included;
/// arguments may also be references to such, `&str` and slices. Functions without `self` stay as they are: those that return the type
/// are constructors, for `Session::create`. A public method that is not for others is marked `#[local]`.
///
/// An object lets one caller in at a time. With `#[remote(sync)]`, on a type that is `Sync`, several `&self` methods may run at once.
///
/// A generic type is remote for the types that it is needed with: `#[remote(name = Words)]` on `impl Best<String>` makes `WordsProxy`, so
/// that there can be another one for `impl Best<u64>`.
///
/// On a trait it makes `TraitProxy`, with which a program that knows only the trait calls objects of any type that names it:
/// `#[remote(traits(Trait))]` on the type's own `impl`. `TraitProxy::from` takes a `TypeProxy`.
#[proc_macro_attribute]
pub fn remote(options: TokenStream, item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as Item);
    remote::expand(syn::parse(options), item).into()
}
