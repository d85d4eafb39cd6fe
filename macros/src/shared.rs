//! `#[derive(Shared)]`.
//!
//! A derive cannot add derives to the item that it sees. So the expansion holds a copy of the item, the *shadow*, with rkyv's
//! `remote` derive on it, which implements archiving for the original. rkyv's own bounds, one for each field, do not survive
//! recursive types and many nested ones: they are switched off field by field, and bounds on the type's parameters take their
//! place. Everything is in one `const _`, so that no name of ours meets a name of the user's, but for the alias of the archived
//! type.
use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Fields, GenericParam, Generics, Result, WherePredicate, parse_quote, parse_quote_spanned};

use crate::checked::Checked;
use crate::shape::{Shape, Style, Variant};

/// The names and generics that the parts of the expansion have in common.
struct Expansion<'a> {
    input: &'a DeriveInput,
    shape: Shape,
    /// The fields' types.
    checked: Checked,
    /// The type's generics, with `Shared` on every type parameter and no defaults.
    generics: Generics,
    parameters: Vec<Ident>,
    archived: Ident,
    resolver: Ident,
    shadow: Ident,
}

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let shape = Shape::of(input, "be shared")?;
    let name = &input.ident;
    let mut generics = input.generics.clone();
    for parameter in &mut generics.params {
        match parameter {
            GenericParam::Type(parameter) => {
                parameter.bounds.push(parse_quote!(::commonhold::Shared));
                parameter.eq_token = None;
                parameter.default = None;
            }
            GenericParam::Const(parameter) => {
                parameter.eq_token = None;
                parameter.default = None;
            }
            GenericParam::Lifetime(_) => {}
        }
    }
    let expansion = Expansion {
        checked: Checked::of(shape.field_types(), &generics, &parse_quote!(::commonhold::__rt::need_shared), ""),
        shape,
        parameters: input.generics.type_params().map(|parameter| parameter.ident.clone()).collect(),
        generics,
        archived: format_ident!("Archived{}", name),
        resolver: format_ident!("__{}Resolver", name),
        shadow: format_ident!("__{}Shadow", name),
        input,
    };
    Ok(expansion.all())
}

impl Expansion<'_> {
    fn all(&self) -> TokenStream {
        let (impl_generics, type_generics, _) = self.generics.split_for_impl();
        let (name, archived, vis) = (&self.input.ident, &self.archived, &self.input.vis);
        let checks = &self.checked.items;
        let alias_doc = format!("`{}` as it lies in shared memory.", name.unraw());
        let (shadow, archive, compare, shared) = (self.shadow(), self.archive(), self.compare(), self.shared());
        quote! {
            #[doc = #alias_doc]
            #[allow(type_alias_bounds, dead_code)]
            #vis type #archived #impl_generics = <#name #type_generics as ::commonhold::__rt::rkyv::Archive>::Archived;
            #[doc(hidden)]
            #[allow(
                missing_docs, missing_debug_implementations, missing_copy_implementations, unreachable_pub, dead_code, deprecated,
                non_camel_case_types, non_snake_case, clippy::all, clippy::pedantic, clippy::nursery, clippy::restriction
            )]
            const _: () = {
                use ::commonhold::__rt::rkyv;
                #(#checks)*
                #shadow
                #archive
                #compare
                #shared
            };
        }
    }

    /// The copy of the item that rkyv's derives see.
    fn shadow(&self) -> TokenStream {
        let mut item = self.input.clone();
        item.ident = self.shadow.clone();
        item.generics = self.generics.clone();
        item.attrs.clear();
        match &mut item.data {
            Data::Struct(data) => self.prepare(&mut data.fields),
            Data::Enum(data) => {
                for variant in &mut data.variants {
                    variant.attrs.clear();
                    // The archived form counts its variants from 0, whatever the original does.
                    variant.discriminant = None;
                    self.prepare(&mut variant.fields);
                }
            }
            Data::Union(_) => {}
        }
        let (_, type_generics, _) = self.generics.split_for_impl();
        let (name, archived, resolver, parameters) = (&self.input.ident, &self.archived, &self.resolver, &self.parameters);
        quote! {
            #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
            #[rkyv(
                crate = ::commonhold::__rt::rkyv,
                remote = #name #type_generics,
                archived = #archived,
                resolver = #resolver,
                serialize_bounds(__S: ::commonhold::__rt::Serializer #(, #parameters: rkyv::Serialize<__S>)*),
                deserialize_bounds(
                    __D: ::commonhold::__rt::Deserializer
                    #(, <#parameters as rkyv::Archive>::Archived: rkyv::Deserialize<#parameters, __D>)*
                ),
                bytecheck(bounds(
                    __C: ::commonhold::__rt::Checker
                    #(, <#parameters as rkyv::Archive>::Archived: rkyv::bytecheck::CheckBytes<__C>)*
                ))
            )]
            #item
        }
    }

    /// Takes the user's attributes from fields, gives them the one that switches rkyv's bounds off, and their types the names by which they
    /// are checked.
    fn prepare(&self, fields: &mut Fields) {
        for field in fields.iter_mut() {
            // In the field's place in the source, so that the compiler points there when it is not a shared type.
            field.attrs = vec![parse_quote_spanned!(field.ty.span()=> #[rkyv(omit_bounds, with = ::commonhold::__rt::Field)])];
            field.ty = self.checked.name(&field.ty);
        }
    }

    /// rkyv's traits for the original, by way of the shadow.
    fn archive(&self) -> TokenStream {
        let (impl_generics, type_generics, where_clause) = self.generics.split_for_impl();
        let (name, shadow, archived, resolver) = (&self.input.ident, &self.shadow, &self.archived, &self.resolver);
        let parameters = &self.parameters;
        let serializing = with_parameter(
            &self.generics,
            parse_quote!(__S: ::commonhold::__rt::Serializer + ?Sized),
            parameters.iter().map(|parameter| parse_quote!(#parameter: rkyv::Serialize<__S>)),
        );
        let (ser_generics, _, ser_where) = serializing.split_for_impl();
        let deserializing = with_parameter(
            &self.generics,
            parse_quote!(__D: ::commonhold::__rt::Deserializer + ?Sized),
            parameters.iter().map(|parameter| parse_quote!(<#parameter as rkyv::Archive>::Archived: rkyv::Deserialize<#parameter, __D>)),
        );
        let (de_generics, _, de_where) = deserializing.split_for_impl();
        let into_original = self.shape.variants.iter().map(|variant| {
            let (from, to) = (variant.pattern(shadow, "__field"), variant.pattern(name, "__field"));
            quote!(#from => #to)
        });
        quote! {
            #[automatically_derived]
            impl #impl_generics ::core::convert::From<#shadow #type_generics> for #name #type_generics #where_clause {
                fn from(shadow: #shadow #type_generics) -> Self {
                    match shadow { #(#into_original,)* }
                }
            }
            #[automatically_derived]
            impl #impl_generics rkyv::Archive for #name #type_generics #where_clause {
                type Archived = #archived #type_generics;
                type Resolver = #resolver #type_generics;
                #[inline]
                fn resolve(&self, resolver: Self::Resolver, out: rkyv::Place<Self::Archived>) {
                    <#shadow #type_generics as rkyv::with::ArchiveWith<#name #type_generics>>::resolve_with(self, resolver, out)
                }
            }
            #[automatically_derived]
            impl #ser_generics rkyv::Serialize<__S> for #name #type_generics #ser_where {
                #[inline]
                fn serialize(&self, serializer: &mut __S) -> ::core::result::Result<Self::Resolver, __S::Error> {
                    <#shadow #type_generics as rkyv::with::SerializeWith<#name #type_generics, __S>>::serialize_with(self, serializer)
                }
            }
            #[automatically_derived]
            impl #de_generics rkyv::Deserialize<#name #type_generics, __D> for #archived #type_generics #de_where {
                #[inline]
                fn deserialize(&self, deserializer: &mut __D) -> ::core::result::Result<#name #type_generics, __D::Error> {
                    <#shadow #type_generics as rkyv::with::DeserializeWith<
                        #archived #type_generics,
                        #name #type_generics,
                        __D,
                    >>::deserialize_with(self, deserializer)
                }
            }
        }
    }

    /// What can be done with the archived form: print, copy out, compare with the value; and, where the type itself can, with
    /// its own kind. That last condition is written with `for<'a>`, because the compiler refuses a plain one that is never met.
    fn compare(&self) -> TokenStream {
        let (impl_generics, type_generics, where_clause) = self.generics.split_for_impl();
        let (name, archived) = (&self.input.ident, &self.archived);
        let original = quote!(#name #type_generics);
        let where_original = |bound: TokenStream| {
            let mut generics = self.generics.clone();
            generics.make_where_clause().predicates.push(parse_quote!(for<'__never> #original: #bound));
            generics.where_clause
        };
        let where_eq = where_original(quote!(::core::cmp::Eq));
        let where_ord = where_original(quote!(::core::cmp::Ord));
        let where_hash = where_original(quote!(::core::hash::Hash));
        quote! {
            #[automatically_derived]
            impl #impl_generics ::core::fmt::Debug for #archived #type_generics #where_clause {
                fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                    <#original as ::commonhold::Shared>::debug(self, f)
                }
            }
            #[automatically_derived]
            impl #impl_generics #archived #type_generics #where_clause {
                /// A copy in private memory. The handles in it find their manager at their first use.
                #[must_use]
                pub fn to_owned(&self) -> #original {
                    ::commonhold::__rt::to_owned::<#original>(self, ::core::option::Option::None)
                }
            }
            #[automatically_derived]
            impl #impl_generics ::core::cmp::PartialEq<#original> for #archived #type_generics #where_clause {
                fn eq(&self, other: &#original) -> bool {
                    <#original as ::commonhold::Shared>::eq_archived(self, other)
                }
            }
            #[automatically_derived]
            impl #impl_generics ::core::cmp::PartialEq<#archived #type_generics> for #original #where_clause {
                fn eq(&self, other: &#archived #type_generics) -> bool {
                    <#original as ::commonhold::Shared>::eq_archived(other, self)
                }
            }
            #[automatically_derived]
            impl #impl_generics ::core::cmp::PartialEq for #archived #type_generics #where_clause {
                fn eq(&self, other: &Self) -> bool {
                    <#original as ::commonhold::Shared>::eq_archived(self, &other.to_owned())
                }
            }
            #[automatically_derived]
            impl #impl_generics ::core::cmp::Eq for #archived #type_generics #where_eq {}
            #[automatically_derived]
            impl #impl_generics ::core::cmp::PartialOrd for #archived #type_generics #where_ord {
                fn partial_cmp(&self, other: &Self) -> ::core::option::Option<::core::cmp::Ordering> {
                    ::core::option::Option::Some(::core::cmp::Ord::cmp(self, other))
                }
            }
            #[automatically_derived]
            impl #impl_generics ::core::cmp::Ord for #archived #type_generics #where_ord {
                fn cmp(&self, other: &Self) -> ::core::cmp::Ordering {
                    ::core::cmp::Ord::cmp(&self.to_owned(), &other.to_owned())
                }
            }
            #[automatically_derived]
            impl #impl_generics ::core::hash::Hash for #archived #type_generics #where_hash {
                fn hash<__H: ::core::hash::Hasher>(&self, state: &mut __H) {
                    ::core::hash::Hash::hash(&self.to_owned(), state)
                }
            }
        }
    }

    /// `Shared` itself.
    fn shared(&self) -> TokenStream {
        let (impl_generics, type_generics, where_clause) = self.generics.split_for_impl();
        let (name, archived) = (&self.input.ident, &self.archived);
        let types = self.checked.names();
        let schema = self.schema();
        let arms = |arm: fn(&Self, &Variant) -> TokenStream| self.shape.variants.iter().map(move |variant| arm(self, variant));
        let (debug, eq, intact) = (arms(Self::debug_arm), arms(Self::eq_arm), arms(Self::intact_arm));
        let otherwise = (self.shape.variants.len() > 1).then(|| quote!(_ => false,));
        quote! {
            #[automatically_derived]
            impl #impl_generics ::commonhold::Shared for #name #type_generics #where_clause {
                type View = #archived #type_generics;
                const FLAT: bool = true #(&& <#types as ::commonhold::Shared>::FLAT)*;
                #[inline]
                fn view(archived: &Self::Archived) -> &Self::View {
                    archived
                }
                fn schema(schema: &mut ::commonhold::__rt::Schema) {
                    #schema
                }
                fn debug(archived: &Self::Archived, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                    match archived { #(#debug,)* }
                }
                fn eq_archived(archived: &Self::Archived, value: &Self) -> bool {
                    match (archived, value) { #(#eq,)* #otherwise }
                }
                #[inline]
                fn intact(archived: &Self::Archived) -> bool {
                    match archived { #(#intact,)* }
                }
            }
        }
    }

    fn debug_arm(&self, variant: &Variant) -> TokenStream {
        let pattern = variant.pattern(&self.archived, "__field");
        let (bindings, label) = (variant.bindings("__field"), &variant.label);
        let types = variant.fields.iter().map(|field| self.checked.name(&field.ty));
        let fields = types.zip(&bindings).map(|(ty, binding)| quote!(&::commonhold::__rt::AsDebug::<#ty>(#binding)));
        match variant.style {
            Style::Named => {
                let labels = variant.fields.iter().map(|field| &field.label);
                quote!(#pattern => f.debug_struct(#label)#(.field(#labels, #fields))*.finish())
            }
            Style::Tuple => quote!(#pattern => f.debug_tuple(#label)#(.field(#fields))*.finish()),
            Style::Unit => quote!(#pattern => f.write_str(#label)),
        }
    }

    fn eq_arm(&self, variant: &Variant) -> TokenStream {
        let (archived, value) = (variant.pattern(&self.archived, "__field"), variant.pattern(&self.input.ident, "__other"));
        let (fields, others) = (variant.bindings("__field"), variant.bindings("__other"));
        let types = variant.fields.iter().map(|field| self.checked.name(&field.ty));
        quote!((#archived, #value) => true #(&& <#types as ::commonhold::Shared>::eq_archived(#fields, #others))*)
    }

    fn intact_arm(&self, variant: &Variant) -> TokenStream {
        let pattern = variant.pattern(&self.archived, "__field");
        let fields = variant.bindings("__field");
        let types = variant.fields.iter().map(|field| self.checked.name(&field.ty));
        quote!(#pattern => true #(&& <#types as ::commonhold::Shared>::intact(#fields))*)
    }

    /// The calls that describe the type: `struct Name<u8> {a: u8}`, `enum Name {A, B(u8)}`.
    fn schema(&self) -> TokenStream {
        let kind = if self.shape.is_enum { "enum" } else { "struct" };
        let name = self.input.ident.unraw().to_string();
        let parameters = self.generics.params.iter().filter_map(|parameter| match parameter {
            GenericParam::Type(parameter) => {
                let name = &parameter.ident;
                Some(quote!(schema.parameter::<#name>();))
            }
            GenericParam::Const(parameter) => {
                let name = &parameter.ident;
                Some(quote!(schema.constant(#name);))
            }
            GenericParam::Lifetime(_) => None,
        });
        let variants = self.shape.variants.iter().map(|variant| {
            let label = self.shape.is_enum.then(|| {
                let label = &variant.label;
                quote!(schema.variant(#label);)
            });
            let types = variant.fields.iter().map(|field| self.checked.name(&field.ty));
            let fields = match variant.style {
                Style::Named => {
                    let labels = variant.fields.iter().map(|field| &field.label);
                    quote!(schema.word(" {"); #(schema.field::<#types>(#labels);)* schema.word("}");)
                }
                Style::Tuple => quote!(schema.word("("); #(schema.element::<#types>();)* schema.word(")");),
                Style::Unit => TokenStream::new(),
            };
            quote!(#label #fields)
        });
        let (open, close) = if self.shape.is_enum {
            (quote!(schema.word(" {");), quote!(schema.word("}");))
        } else {
            (TokenStream::new(), TokenStream::new())
        };
        quote! {
            schema.open(#kind, #name);
            #(#parameters)*
            #open
            #(#variants)*
            #close
        }
    }
}

/// The generics with one more parameter and more bounds.
fn with_parameter(generics: &Generics, parameter: GenericParam, bounds: impl Iterator<Item = WherePredicate>) -> Generics {
    let mut generics = generics.clone();
    generics.params.insert(0, parameter);
    generics.make_where_clause().predicates.extend(bounds);
    generics
}
