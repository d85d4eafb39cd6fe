//! Types that must have a trait, as it can be said that one has it not: once, in its place in the source.
//!
//! Each is checked in the body of a constant, and gets a name that is resolved by way of that constant. If the type has not the trait the
//! constant has no value, the name names nothing, and of what is made with such a name the compiler says no more. Without that each place of
//! an expansion that needs the trait would be an error of its own, and there are dozens.
//!
//! A constant cannot depend on the parameters of the item that is derived for: a type that mentions one is checked in the body of a
//! function, and keeps its own name.
use proc_macro2::{TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{GenericParam, Generics, Path, Type, parse_quote};

pub(crate) struct Checked {
    /// What checks the types, and names them: for the block in which the names are used.
    pub(crate) items: Vec<TokenStream>,
    /// Each type as text, and its name. Compared as text: `syn` compares types only with its feature `extra-traits`.
    names: Vec<(String, Type)>,
}

impl Checked {
    /// Types that `need` must accept, in an item with these generics. `prefix` keeps the names apart from those of others in the same block.
    pub(crate) fn of<'t>(types: impl IntoIterator<Item = &'t Type>, generics: &Generics, need: &Path, prefix: &str) -> Self {
        let (mut items, mut in_function, mut names) = (Vec::new(), TokenStream::new(), Vec::<(String, Type)>::new());
        for ty in types {
            let text = text(ty);
            if names.iter().any(|(known, _)| *known == text) {
                continue;
            }
            if mentions(ty.to_token_stream(), generics) {
                in_function.extend(quote_spanned!(ty.span()=> #need::<#ty>();));
                names.push((text, ty.clone()));
                continue;
            }
            let number = names.len();
            let (constant, name) = (format_ident!("__HAS_{prefix}{number}"), format_ident!("__Type{prefix}{number}"));
            let check = quote_spanned!(ty.span()=> #need::<#ty>);
            items.push(quote! {
                const #constant: bool = {
                    let _: fn() = #check;
                    true
                };
            });
            items.push(quote! {
                type #name = <::commonhold::__rt::If<{ #constant }> as ::commonhold::__rt::Then<#ty>>::Type;
            });
            names.push((text, parse_quote!(#name)));
        }
        if !in_function.is_empty() {
            let (impl_generics, _, where_clause) = generics.split_for_impl();
            items.push(quote!(fn __types #impl_generics () #where_clause { #in_function }));
        }
        Checked { items, names }
    }

    /// What to call a type that was among the checked ones.
    pub(crate) fn name(&self, ty: &Type) -> Type {
        let text = text(ty);
        self.names.iter().find(|(known, _)| *known == text).map_or_else(|| ty.clone(), |(_, name)| name.clone())
    }

    /// All types' names, each once.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Type> {
        self.names.iter().map(|(_, name)| name)
    }
}

fn text(ty: &Type) -> String {
    ty.to_token_stream().to_string()
}

/// Whether a type has a parameter of the item in it.
fn mentions(ty: TokenStream, generics: &Generics) -> bool {
    ty.into_iter().any(|token| match token {
        TokenTree::Group(group) => mentions(group.stream(), generics),
        TokenTree::Ident(word) => generics.params.iter().any(|parameter| match parameter {
            GenericParam::Type(parameter) => parameter.ident == word,
            GenericParam::Const(parameter) => parameter.ident == word,
            GenericParam::Lifetime(_) => false,
        }),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}
