//! `#[remote]`: a proxy for the methods of an `impl` or a trait, and the dispatch to them.

use crate::method::Method;
use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{
    Attribute, Error, ImplItem, Item, ItemImpl, ItemTrait, Path, Result, Signature, Token, TraitItem, Type, Visibility, parenthesized,
    parse_quote,
};

/// What stands behind the attribute's name.
#[derive(Default)]
pub struct Options {
    /// `sync`: `&self` methods may run several at once.
    sync: Option<Ident>,
    /// `traits(…)`: remote traits that the type has.
    traits: Vec<Path>,
    /// `name = …`: what it is called, if not as its type.
    name: Option<Ident>,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut options = Options::default();
        while !input.is_empty() {
            let word: Ident = input.parse()?;
            match word.to_string().as_str() {
                "sync" => options.sync = Some(word),
                "traits" => {
                    let inside;
                    parenthesized!(inside in input);
                    options.traits.extend(Punctuated::<Path, Token![,]>::parse_terminated_with(&inside, Path::parse_mod_style)?);
                }
                "name" => {
                    input.parse::<Token![=]>()?;
                    options.name = Some(input.parse()?);
                }
                _ => {
                    let text = "`#[remote]` knows `sync` (several `&self` methods at once), `traits(Trait, …)` (remote traits of the type) \
                                and `name = Name` (its proxy is `NameProxy`)";
                    return Err(Error::new_spanned(word, text));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }
}

/// The attribute's expansion. All that is refused is told at once, and the item stays, as do the calls of what is not refused: what uses
/// them is no error of its own.
pub fn expand(options: Result<Options>, mut item: Item) -> TokenStream {
    let (methods, mut refused) = methods_of(&mut item);
    let made = options.and_then(|options| match &item {
        Item::Impl(item) => of_impl(&options, item, &methods),
        Item::Trait(item) => of_trait(&options, item, &methods),
        other => Err(Error::new_spanned(other, "`#[remote]` goes on an `impl Type { … }`, or on a trait")),
    });
    let made = made.unwrap_or_else(|error| {
        refused.push(error);
        TokenStream::new()
    });
    let refused = refused.iter().map(Error::to_compile_error);
    quote! {
        #item
        #made
        #(#refused)*
    }
}

/// The methods that can be called from other processes, and why others that should be cannot. Takes the marks of the local ones out.
fn methods_of(item: &mut Item) -> (Vec<Method>, Vec<Error>) {
    let (mut methods, mut refused) = (Vec::new(), Vec::new());
    let mut look = |is_public: bool, signature: &Signature, attributes: &mut Vec<Attribute>| {
        if !take_local(attributes) && is_public {
            match Method::parse(signature, attributes, methods.len() as u32) {
                Ok(method) => methods.extend(method),
                Err(error) => refused.push(error),
            }
        }
    };
    match item {
        Item::Impl(item) => {
            for inner in &mut item.items {
                if let ImplItem::Fn(function) = inner {
                    look(matches!(function.vis, Visibility::Public(_)), &function.sig, &mut function.attrs);
                }
            }
        }
        Item::Trait(item) => {
            for inner in &mut item.items {
                if let TraitItem::Fn(function) = inner {
                    look(true, &function.sig, &mut function.attrs);
                }
            }
        }
        _ => {}
    }
    (methods, refused)
}

fn take_local(attributes: &mut Vec<Attribute>) -> bool {
    let before = attributes.len();
    attributes.retain(|attribute| !attribute.path().is_ident("local"));
    attributes.len() < before
}

fn proxy_name(name: &Ident) -> Ident {
    format_ident!("{}Proxy", name.unraw(), span = name.span())
}

/// The proxy of a trait at a path.
fn proxy_path(path: &Path) -> Path {
    let mut path = path.clone();
    if let Some(last) = path.segments.last_mut() {
        last.ident = proxy_name(&last.ident);
    }
    path
}

fn of_impl(options: &Options, item: &ItemImpl, methods: &[Method]) -> Result<TokenStream> {
    if let Some((_, path, _)) = &item.trait_ {
        let text =
            "`#[remote]` goes on the trait itself, and on the type's own `impl` with `#[remote(traits(…))]`, not on a trait's `impl`";
        return Err(Error::new_spanned(path, text));
    }
    if !item.generics.params.is_empty() {
        let text = "a remote type has no type parameters: a host must know it by name. Write `impl Type<u64>` for the one you need, and \
                    `#[remote(name = …)]` on each if there are several";
        return Err(Error::new_spanned(&item.generics, text));
    }
    let Type::Path(path) = &*item.self_ty else { return Err(Error::new_spanned(&item.self_ty, "`#[remote]` needs a type with a name")) };
    let Some(name) = options.name.clone().or_else(|| path.path.segments.last().map(|segment| segment.ident.clone())) else {
        return Err(Error::new_spanned(path, "`#[remote]` needs a type with a name"));
    };
    let proxy = Proxy { name: &name, visibility: &parse_quote!(pub), methods, what: "type" };
    Ok(proxy.tokens(&of_type(options, &item.self_ty, &name, methods)))
}

/// The type's side: which interfaces it has, and how its methods are reached.
fn of_type(options: &Options, own: &Type, name: &Ident, methods: &[Method]) -> TokenStream {
    let (proxy, text) = (proxy_name(name), name.unraw().to_string());
    let descriptions = methods.iter().map(Method::description);
    let dispatches = methods.iter().map(|method| method.dispatch(&quote!(<#own>)));
    let traits: Vec<Path> = options.traits.iter().map(proxy_path).collect();
    let served = match &options.sync {
        // In the word's place in the source, so that the compiler points there when the type is not `Sync`.
        Some(word) => quote_spanned!(word.span()=> ::commonhold::__rt::several_at_once(self)),
        None => quote!(::commonhold::__rt::one_at_a_time(self)),
    };
    quote! {
        #[allow(clippy::all, clippy::pedantic)]
        const _: () = {
            #[automatically_derived]
            impl ::commonhold::Remote for #own {
                type Proxy = #proxy;
                const NAME: &'static str = #text;

                fn interfaces() -> ::std::vec::Vec<(u64, &'static str)> {
                    ::std::vec![
                        (::commonhold::__rt::fingerprint::<#proxy>(), ::commonhold::__rt::text::<#proxy>()),
                        #((::commonhold::__rt::fingerprint::<#traits>(), ::commonhold::__rt::text::<#traits>()),)*
                    ]
                }
                fn method(interface: u64, method: u32) -> ::core::option::Option<(&'static str, bool)> {
                    #(
                        if interface == ::commonhold::__rt::fingerprint::<#traits>() {
                            return <#traits>::__method(method);
                        }
                    )*
                    if interface != ::commonhold::__rt::fingerprint::<#proxy>() {
                        return ::core::option::Option::None;
                    }
                    match method {
                        #(#descriptions,)*
                        _ => ::core::option::Option::None,
                    }
                }
                #[allow(unused_mut, unused_variables, clippy::let_unit_value)]
                fn dispatch(
                    mut __object: ::commonhold::__rt::Access<'_, Self>,
                    __interface: u64,
                    __method: u32,
                    __call: &mut ::commonhold::__rt::Incoming<'_>,
                ) -> ::commonhold::Result<()> {
                    #(
                        if __interface == ::commonhold::__rt::fingerprint::<#traits>() {
                            return <#traits>::__dispatch(__object, __method, __call);
                        }
                    )*
                    match __method {
                        #(#dispatches)*
                        _ => ::core::result::Result::Err(::commonhold::Error::other("there is no such method")),
                    }
                }
                fn serve(self) -> ::std::boxed::Box<dyn ::commonhold::__rt::Served> {
                    #served
                }
            }
            #(
                #[automatically_derived]
                impl ::core::convert::From<#proxy> for #traits {
                    fn from(proxy: #proxy) -> Self {
                        ::commonhold::Handle::from_object(::std::clone::Clone::clone(::commonhold::Handle::object(&proxy)))
                    }
                }
            )*
        };
    }
}

fn of_trait(options: &Options, item: &ItemTrait, methods: &[Method]) -> Result<TokenStream> {
    if options.sync.is_some() || !options.traits.is_empty() || options.name.is_some() {
        return Err(Error::new_spanned(&item.ident, "a remote trait has no options: they belong to the `impl` of the type"));
    }
    if !item.generics.params.is_empty() {
        let text = "a remote trait has no type parameters: its proxy's users must know what travels. Name the types";
        return Err(Error::new_spanned(&item.generics, text));
    }
    let (name, visibility) = (&item.ident, &item.vis);
    let proxy = proxy_name(name);
    let descriptions = methods.iter().map(Method::description);
    let dispatches = methods.iter().map(|method| method.dispatch(&quote!(<__T as #name>)));
    let served = quote! {
        #[allow(clippy::all, clippy::pedantic, private_bounds)]
        const _: () = {
            impl #proxy {
                #[doc(hidden)]
                pub fn __method(method: u32) -> ::core::option::Option<(&'static str, bool)> {
                    match method {
                        #(#descriptions,)*
                        _ => ::core::option::Option::None,
                    }
                }
                #[doc(hidden)]
                #[allow(unused_mut, unused_variables, clippy::let_unit_value)]
                pub fn __dispatch<__T: #name>(
                    mut __object: ::commonhold::__rt::Access<'_, __T>,
                    __method: u32,
                    __call: &mut ::commonhold::__rt::Incoming<'_>,
                ) -> ::commonhold::Result<()> {
                    match __method {
                        #(#dispatches)*
                        _ => ::core::result::Result::Err(::commonhold::Error::other("there is no such method")),
                    }
                }
            }
        };
    };
    Ok(Proxy { name, visibility, methods, what: "trait" }.tokens(&served))
}

/// The proxy type.
struct Proxy<'a> {
    name: &'a Ident,
    visibility: &'a Visibility,
    methods: &'a [Method],
    what: &'a str,
}

impl Proxy<'_> {
    /// The type, its methods, and `served`, which calls what travels by the same names.
    fn tokens(&self, served: &TokenStream) -> TokenStream {
        let Proxy { name, visibility, methods, what } = self;
        let (proxy, text) = (proxy_name(name), name.unraw().to_string());
        let description = format!("A handle on an object with the methods of the {what} `{text}`, which run in a host beside a manager.");
        let kind = if *what == "trait" { "remote trait" } else { "remote" };
        let calls = methods.iter().map(Method::call);
        let asyncs = methods.iter().map(|method| method.call_async(&proxy));
        let one_ways = methods.iter().map(|method| method.call_one_way(&proxy));
        let schemas = methods.iter().map(Method::schema);
        let checks = methods.iter().map(Method::checks);
        let own = own_methods(&proxy);
        quote! {
            #[doc = #description]
            #[derive(Clone)]
            #[allow(unreachable_pub)]
            #visibility struct #proxy {
                caller: ::commonhold::__rt::Caller,
            }
            #[allow(dead_code, deprecated, clippy::all, clippy::pedantic)]
            const _: () = {
                #(#checks)*
                #[allow(missing_docs, unreachable_pub, dead_code, private_interfaces, clippy::all, clippy::pedantic)]
                const _: () = {
                    impl #proxy {
                        #(#calls)*

                        #own
                    }
                    /// Calls that return at once.
                    pub struct Async<'a>(&'a #proxy);
                    impl Async<'_> {
                        #(#asyncs)*
                    }
                    /// Calls without a result.
                    pub struct OneWay<'a>(&'a #proxy);
                    impl OneWay<'_> {
                        #(#one_ways)*
                    }
                    #[automatically_derived]
                    impl ::core::fmt::Debug for #proxy {
                        fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                            ::commonhold::__rt::debug_handle(f, #text, ::commonhold::Handle::object(self), ::core::option::Option::None)
                        }
                    }
                    ::commonhold::__rt::handle_value! {
                        #proxy[],
                        ::commonhold::__rt::Kind::Remote,
                        #text,
                        |object| #proxy { caller: ::commonhold::__rt::Caller::new(object) },
                        |this| this.caller.object(),
                        |schema| {
                            schema.open(#kind, #text);
                            schema.word(" {");
                            #(#schemas)*
                            schema.word("}");
                        }
                    }
                };
                #served
            };
        }
    }
}

/// The methods that every proxy has.
fn own_methods(proxy: &Ident) -> TokenStream {
    quote! {
        /// The same object, whose calls fail with `TimedOut` if they are not answered in time. A method that has begun is run to
        /// its end all the same. One that has not is not run: its host looks right before it whether the caller still waits.
        #[must_use]
        pub fn with_timeout(&self, timeout: ::core::time::Duration) -> Self {
            #proxy { caller: self.caller.with_timeout(timeout) }
        }

        /// The same methods, which return at once with a `Pending` result. Such calls are done in the order in which they are
        /// made, as far as they are made on clones of one handle.
        pub fn call_async(&self) -> Async<'_> {
            Async(self)
        }

        /// The same methods, which return at once, and whose result nobody wants. In order like those of `call_async`.
        pub fn call_one_way(&self) -> OneWay<'_> {
            OneWay(self)
        }

        /// A line of text that stands for the object. See `Handle::token`.
        ///
        /// # Errors
        /// If the handle is not connected.
        pub fn token(&self) -> ::commonhold::Result<::commonhold::Token> {
            ::commonhold::Handle::token(self)
        }

        /// This process's session with the object's manager.
        ///
        /// # Errors
        /// If the handle is not connected.
        pub fn session(&self) -> ::commonhold::Result<::commonhold::Session> {
            ::commonhold::Handle::session(self)
        }
    }
}
