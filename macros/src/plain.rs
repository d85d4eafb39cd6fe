//! `#[derive(Plain)]`.
use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Result, parse_quote};

use crate::checked::Checked;
use crate::shape::Shape;

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    if let Data::Enum(data) = &input.data {
        let why = "an enum cannot be plain: not every pattern of bits is one of its variants; keep a number, and make the enum of it";
        return Err(Error::new_spanned(data.enum_token, why));
    }
    let shape = Shape::of(input, "be plain")?;
    let mut generics = input.generics.clone();
    for parameter in generics.type_params_mut() {
        parameter.bounds.push(parse_quote!(::commonhold::Plain));
    }
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    let name = &input.ident;
    let checked = Checked::of(shape.field_types(), &generics, &parse_quote!(::commonhold::__rt::need_plain), "");
    let checks = &checked.items;
    // In the order of their declaration, each as often as it stands there.
    let fields: Vec<_> = shape.variants.iter().flat_map(|variant| &variant.fields).collect();
    let types: Vec<_> = fields.iter().map(|field| checked.name(&field.ty)).collect();
    let members: Vec<_> = fields.iter().map(|field| &field.member).collect();
    Ok(quote! {
        #[allow(dead_code, deprecated, clippy::all, clippy::pedantic, clippy::nursery, clippy::restriction)]
        const _: () = {
            #(#checks)*
            #[automatically_derived]
            impl #impl_generics ::commonhold::Plain for #name #type_generics #where_clause {
                const ALIGN: usize = {
                    let align = 1usize;
                    #(let align = ::commonhold::__rt::plain_align::<#types>(align);)*
                    align
                };
                const BYTES: usize = {
                    let end = 0usize;
                    #(let end = ::commonhold::__rt::plain_end::<#types>(end);)*
                    end.next_multiple_of(<Self as ::commonhold::Plain>::ALIGN)
                };
                #[inline(always)]
                fn put(self, bytes: &mut [u8]) {
                    let mut fields = ::commonhold::__rt::PlainWriter::new(bytes);
                    #(fields.put::<#types>(self.#members);)*
                }
                #[inline(always)]
                fn take(bytes: &[u8]) -> ::core::option::Option<Self> {
                    let mut fields = ::commonhold::__rt::PlainReader::new(bytes);
                    ::core::option::Option::Some(#name { #(#members: fields.take::<#types>()?,)* })
                }
            }
        };
    })
}
