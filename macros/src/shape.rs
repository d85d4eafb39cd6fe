//! What the derives see of a type: its variants (a struct is one) and their fields.
use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote};
use syn::ext::IdentExt;
use syn::{Data, DeriveInput, Error, Fields, GenericParam, Member, Result, Type};

/// Variants are told apart by one byte.
const VARIANTS_MAX: usize = 256;

pub(crate) struct Shape {
    pub(crate) is_enum: bool,
    pub(crate) variants: Vec<Variant>,
}

pub(crate) struct Variant {
    /// `::Name` for a variant, nothing for a struct: what follows the type's name in patterns.
    pub(crate) suffix: TokenStream,
    /// The name as `Debug` prints it.
    pub(crate) label: String,
    pub(crate) style: Style,
    pub(crate) fields: Vec<Field>,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Style {
    Named,
    Tuple,
    Unit,
}

pub(crate) struct Field {
    pub(crate) member: Member,
    pub(crate) label: String,
    pub(crate) ty: Type,
}

impl Shape {
    /// The shape of a type that wants to `purpose`, or an error at the place that stands against it.
    pub(crate) fn of(input: &DeriveInput, purpose: &str) -> Result<Self> {
        for parameter in &input.generics.params {
            if let GenericParam::Lifetime(lifetime) = parameter {
                let why = "a shared type owns what it holds: no lifetimes (use `String` for `&str`, `Vec<T>` for `&[T]`)";
                return Err(Error::new_spanned(lifetime, why));
            }
        }
        match &input.data {
            Data::Struct(data) => {
                let variant = Variant::of(TokenStream::new(), &input.ident, &data.fields);
                Ok(Shape { is_enum: false, variants: vec![variant] })
            }
            Data::Enum(data) if data.variants.is_empty() => {
                Err(Error::new_spanned(&input.ident, format!("an enum without variants cannot {purpose}: it has no values")))
            }
            Data::Enum(data) if data.variants.len() > VARIANTS_MAX => {
                let why = format!("an enum of more than {VARIANTS_MAX} variants cannot {purpose}: one byte tells them apart");
                Err(Error::new_spanned(&input.ident, why))
            }
            Data::Enum(data) => {
                let variants = data.variants.iter().map(|variant| {
                    let name = &variant.ident;
                    Variant::of(quote!(::#name), name, &variant.fields)
                });
                Ok(Shape { is_enum: true, variants: variants.collect() })
            }
            Data::Union(data) => {
                let why = format!("a union cannot {purpose}: which of its fields is valid does not show in its bytes; use an enum");
                Err(Error::new_spanned(data.union_token, why))
            }
        }
    }

    /// The fields' types.
    pub(crate) fn field_types(&self) -> impl Iterator<Item = &Type> {
        self.variants.iter().flat_map(|variant| &variant.fields).map(|field| &field.ty)
    }
}

impl Variant {
    fn of(suffix: TokenStream, name: &Ident, fields: &Fields) -> Self {
        let style = match fields {
            Fields::Named(_) => Style::Named,
            Fields::Unnamed(_) => Style::Tuple,
            Fields::Unit => Style::Unit,
        };
        let fields = fields.members().zip(fields).map(|(member, field)| Field {
            label: match &member {
                Member::Named(name) => name.unraw().to_string(),
                Member::Unnamed(index) => index.index.to_string(),
            },
            member,
            ty: field.ty.clone(),
        });
        Variant { suffix, label: name.unraw().to_string(), style, fields: fields.collect() }
    }

    /// A pattern of this variant of `name` that binds each field to `prefix` and its number; also an expression, if those are values.
    pub(crate) fn pattern(&self, name: &Ident, prefix: &str) -> TokenStream {
        let suffix = &self.suffix;
        let members = self.fields.iter().map(|field| &field.member);
        let bindings = self.bindings(prefix);
        quote!(#name #suffix { #(#members: #bindings),* })
    }

    pub(crate) fn bindings(&self, prefix: &str) -> Vec<Ident> {
        (0..self.fields.len()).map(|index| format_ident!("{prefix}{index}")).collect()
    }
}
