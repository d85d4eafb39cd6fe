//! `#[derive(Key)]`.
use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Result, parse_quote};

use crate::checked::Checked;
use crate::shape::Shape;

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let shape = Shape::of(input, "be a key")?;
    let mut generics = input.generics.clone();
    for parameter in generics.type_params_mut() {
        parameter.bounds.push(parse_quote!(::commonhold::Key));
    }
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    let name = &input.ident;
    let checks = Checked::of(shape.field_types(), &generics, &parse_quote!(::commonhold::__rt::need_key), "").items;
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics ::commonhold::Key for #name #type_generics #where_clause {}
        #[allow(dead_code, deprecated, clippy::all, clippy::pedantic, clippy::nursery, clippy::restriction)]
        const _: () = { #(#checks)* };
    })
}
