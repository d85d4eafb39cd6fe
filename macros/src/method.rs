//! A method that can be called from other processes: what it takes, how that travels, what it gives.

use crate::checked::Checked;
use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote};
use syn::ext::IdentExt;
use syn::{
    Attribute, Error, FnArg, GenericArgument, Generics, Pat, PathArguments, Receiver, Result, ReturnType, Signature, Type, parse_quote,
};

/// Methods that every proxy has.
const TAKEN: [&str; 5] = ["call_async", "call_one_way", "session", "token", "with_timeout"];

/// One parameter.
struct Parameter {
    name: Ident,
    declared: Type,
    /// As what it travels.
    shared: Type,
    how: How,
}

/// How a parameter gets to its method.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Value,
    /// By reference to a copy.
    Reference,
    /// `&str`, where it lies.
    Text,
    /// `&[u8]`, where it lies.
    Bytes,
}

/// One method.
pub struct Method {
    pub name: Ident,
    number: u32,
    changes: bool,
    parameters: Vec<Parameter>,
    output: Type,
    /// What travels: the parameters' types and the output's.
    checked: Checked,
    docs: Vec<Attribute>,
    conditions: Vec<Attribute>,
}

impl Method {
    /// Of this signature; none if it has no receiver, and so is not called on an object.
    pub fn parse(signature: &Signature, attributes: &[Attribute], number: u32) -> Result<Option<Method>> {
        let Some(FnArg::Receiver(receiver)) = signature.inputs.first() else { return Ok(None) };
        let changes = receiver_changes(receiver)?;
        refuse_unfit(signature)?;
        let name = signature.ident.clone();
        if TAKEN.contains(&name.unraw().to_string().as_str()) {
            return Err(Error::new_spanned(&name, format!("every proxy has a method `{name}` of its own: call this one otherwise")));
        }
        let parameters = parameters(signature)?;
        let output: Type = match &signature.output {
            ReturnType::Default => parse_quote!(()),
            ReturnType::Type(_, output) => (**output).clone(),
        };
        if let Type::Reference(reference) = &output {
            let text = "a remote method returns an owned value (`String` for `&str`): the object's memory is another process's";
            return Err(Error::new_spanned(reference, text));
        }
        check_type(&output)?;
        let travel = parameters.iter().map(|parameter| &parameter.shared).chain([&output]);
        let need = parse_quote!(::commonhold::__rt::need_shared);
        let checked = Checked::of(travel, &Generics::default(), &need, &format!("{number}_"));
        let of_kind = |kind: &str| attributes.iter().filter(|attribute| attribute.path().is_ident(kind)).cloned().collect();
        Ok(Some(Method { name, number, changes, parameters, output, checked, docs: of_kind("doc"), conditions: of_kind("cfg") }))
    }

    fn declarations(&self) -> impl Iterator<Item = TokenStream> {
        self.parameters.iter().map(|Parameter { name, declared, .. }| quote!(#name: #declared))
    }

    /// Writes the arguments.
    fn pushes(&self) -> TokenStream {
        let pushes = self.parameters.iter().map(|Parameter { name, shared, how, .. }| {
            let shared = self.checked.name(shared);
            match how {
                How::Value => quote!(__arguments.push::<#shared>(&#name)?;),
                How::Reference | How::Text | How::Bytes => quote!(__arguments.push::<#shared>(#name)?;),
            }
        });
        quote!(|__arguments: &mut ::commonhold::__rt::Arguments<'_>| { #(#pushes)* ::core::result::Result::Ok(()) })
    }

    /// The method of the proxy that waits.
    pub fn call(&self) -> TokenStream {
        let Method { name, number, output, docs, conditions, .. } = self;
        let checked = self.checked.name(output);
        let (declarations, pushes) = (self.declarations(), self.pushes());
        let undocumented = docs.is_empty().then(|| {
            let text = format!("Calls `{name}`.");
            quote!(#[doc = #text])
        });
        quote! {
            #(#conditions)*
            #(#docs)*
            #undocumented
            ///
            /// # Errors
            /// Those of the call itself; see `commonhold::Remote`.
            pub fn #name(&self, #(#declarations),*) -> ::commonhold::Result<#output> {
                self.caller.call::<Self, #checked>(#number, #pushes)
            }
        }
    }

    /// The method that returns at once.
    pub fn call_async(&self, proxy: &Ident) -> TokenStream {
        let Method { name, number, output, conditions, .. } = self;
        let checked = self.checked.name(output);
        let (declarations, pushes) = (self.declarations(), self.pushes());
        quote! {
            #(#conditions)*
            pub fn #name(&self, #(#declarations),*) -> ::commonhold::Result<::commonhold::Pending<#output>> {
                self.0.caller.call_async::<#proxy, #checked>(#number, #pushes)
            }
        }
    }

    /// The method without a result.
    pub fn call_one_way(&self, proxy: &Ident) -> TokenStream {
        let Method { name, number, conditions, .. } = self;
        let (declarations, pushes) = (self.declarations(), self.pushes());
        quote! {
            #(#conditions)*
            pub fn #name(&self, #(#declarations),*) -> ::commonhold::Result<()> {
                self.0.caller.call_one_way::<#proxy>(#number, #pushes)
            }
        }
    }

    /// The arm that says what it is called and whether it changes the object.
    pub fn description(&self) -> TokenStream {
        let Method { number, changes, conditions, .. } = self;
        let name = self.name.unraw().to_string();
        quote!(#(#conditions)* #number => ::core::option::Option::Some((#name, #changes)))
    }

    /// The arm that runs it, as a method of `owner`.
    pub fn dispatch(&self, owner: &TokenStream) -> TokenStream {
        let Method { name, number, changes, output, conditions, .. } = self;
        let output = self.checked.name(output);
        let object = if *changes { quote!(__object.get_mut()?) } else { quote!(__object.get()) };
        let names: Vec<Ident> = (0..self.parameters.len()).map(|at| format_ident!("__argument{at}")).collect();
        let takes = self.parameters.iter().zip(&names).map(|(Parameter { shared, how, .. }, name)| match how {
            How::Value | How::Reference => {
                let shared = self.checked.name(shared);
                quote!(let #name = __call.take::<#shared>()?;)
            }
            How::Text => quote!(let #name = __call.text()?;),
            How::Bytes => quote!(let #name = __call.bytes()?;),
        });
        let passed = self.parameters.iter().zip(&names).map(|(Parameter { how, .. }, name)| match how {
            How::Reference => quote!(&#name),
            How::Value | How::Text | How::Bytes => quote!(#name),
        });
        quote! {
            #(#conditions)*
            #number => {
                #(#takes)*
                let __result: #output = #owner::#name(#object, #(#passed),*);
                __call.finish::<#output>(&__result)
            }
        }
    }

    /// The calls that describe it: `hit(&mut self, u64) -> u64`.
    pub fn schema(&self) -> TokenStream {
        let Method { output, conditions, .. } = self;
        let (name, receiver) = (self.name.unraw().to_string(), if self.changes { "(&mut self" } else { "(&self" });
        let types = self.parameters.iter().map(|parameter| self.checked.name(&parameter.shared));
        let output = self.checked.name(output);
        quote! {
            #(#conditions)*
            {
                schema.variant(#name);
                schema.word(#receiver);
                #(schema.element::<#types>();)*
                schema.word(") -> ");
                schema.ty::<#output>();
            }
        }
    }

    /// Checks what travels, and names it, for a block of which the rest is.
    pub fn checks(&self) -> TokenStream {
        let conditions = &self.conditions;
        self.checked.items.iter().map(|item| quote!(#(#conditions)* #item)).collect()
    }
}

fn receiver_changes(receiver: &Receiver) -> Result<bool> {
    match (&receiver.reference, receiver.colon_token) {
        (Some(_), None) => Ok(receiver.mutability.is_some()),
        _ => {
            let text = "a remote method takes `&self` or `&mut self`: the object stays where it lives. Make this one private, or mark it \
                        `#[local]`";
            Err(Error::new_spanned(receiver, text))
        }
    }
}

fn refuse_unfit(signature: &Signature) -> Result<()> {
    if let Some(word) = &signature.asyncness {
        let text = "a remote method is not async: it has a thread of its own in the host, and may block there. Callers that do not want \
                    to wait use `call_async()`. Remove `async`, or mark the method `#[local]`";
        return Err(Error::new_spanned(word, text));
    }
    if let Some(word) = &signature.unsafety {
        return Err(Error::new_spanned(word, "a remote method is not unsafe: its callers are other programs. Mark it `#[local]`"));
    }
    if !signature.generics.params.is_empty() {
        let text = "a remote method has no type or lifetime parameters: the host must know what comes. Name the types, or mark the \
                    method `#[local]`";
        return Err(Error::new_spanned(&signature.generics, text));
    }
    Ok(())
}

/// All parameters, or what is wrong with each.
fn parameters(signature: &Signature) -> Result<Vec<Parameter>> {
    let (mut parameters, mut wrong) = (Vec::new(), None);
    for (at, argument) in (0..).zip(signature.inputs.iter().skip(1)) {
        match (parameter(at, argument), &mut wrong) {
            (Ok(parameter), _) => parameters.push(parameter),
            (Err(error), None) => wrong = Some(error),
            (Err(error), Some(wrong)) => wrong.combine(error),
        }
    }
    wrong.map_or(Ok(parameters), Err)
}

fn parameter(at: usize, argument: &FnArg) -> Result<Parameter> {
    let FnArg::Typed(typed) = argument else {
        return Err(Error::new_spanned(argument, "a method has one receiver"));
    };
    let name = match &*typed.pat {
        Pat::Ident(pattern) if pattern.by_ref.is_none() && pattern.subpat.is_none() => pattern.ident.clone(),
        _ => format_ident!("argument{at}"),
    };
    let declared = (*typed.ty).clone();
    let (shared, how): (Type, How) = match &declared {
        Type::Reference(reference) if reference.mutability.is_some() => {
            let text = "an argument from another process cannot be changed in place: take it by value and return it";
            return Err(Error::new_spanned(reference, text));
        }
        Type::Reference(reference) => {
            if let Some(lifetime) = &reference.lifetime {
                let text = "an argument lives as long as the call: leave the lifetime away, or take an owned value";
                return Err(Error::new_spanned(lifetime, text));
            }
            match &*reference.elem {
                Type::Path(path) if path.path.is_ident("str") => (parse_quote!(::std::string::String), How::Text),
                Type::Slice(slice) => {
                    let element = &slice.elem;
                    let how = if matches!(&**element, Type::Path(path) if path.path.is_ident("u8")) { How::Bytes } else { How::Reference };
                    (parse_quote!(::std::vec::Vec<#element>), how)
                }
                other => (other.clone(), How::Reference),
            }
        }
        other => (other.clone(), How::Value),
    };
    check_type(&shared)?;
    Ok(Parameter { name, declared, shared, how })
}

/// Refuses what cannot travel, whatever it is called.
fn check_type(ty: &Type) -> Result<()> {
    match ty {
        Type::Reference(reference) => {
            let text = "a reference inside of another type cannot travel: take an owned value (`Option<String>` for `Option<&str>`)";
            Err(Error::new_spanned(reference, text))
        }
        Type::ImplTrait(ty) => Err(Error::new_spanned(ty, "the host must know what comes: name the type")),
        Type::Path(path) => {
            if path.path.is_ident("Self") {
                let text = "`Self` stays where it lives: return a handle on a new object (`current_manager()?.create(…)`), or values";
                return Err(Error::new_spanned(path, text));
            }
            let arguments = path.path.segments.iter().filter_map(|segment| match &segment.arguments {
                PathArguments::AngleBracketed(arguments) => Some(&arguments.args),
                _ => None,
            });
            arguments.flatten().try_for_each(|argument| match argument {
                GenericArgument::Type(ty) => check_type(ty),
                GenericArgument::Lifetime(lifetime) => {
                    Err(Error::new_spanned(lifetime, "what travels between processes owns all it holds: no lifetimes"))
                }
                _ => Ok(()),
            })
        }
        Type::Tuple(tuple) => tuple.elems.iter().try_for_each(check_type),
        Type::Array(array) => check_type(&array.elem),
        Type::Paren(paren) => check_type(&paren.elem),
        _ => Ok(()),
    }
}
