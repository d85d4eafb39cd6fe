//! What the derives make is clean under the strictest lints.
#![forbid(unsafe_code)]
#![deny(
    warnings,
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    rust_2018_idioms,
    missing_debug_implementations,
    unused_qualifications,
    let_underscore_drop,
    single_use_lifetimes
)]

/// Things.
pub mod things {
    /// A thing.
    #[derive(commonhold::Shared, Debug, Clone, PartialEq)]
    pub struct Thing<T: Clone> {
        /// Its name.
        pub name: String,
        inner: Vec<Inner>,
        /// What it is about.
        pub about: T,
    }

    #[derive(commonhold::Shared, Debug, Clone, PartialEq)]
    struct Inner(u8);

    /// Kinds.
    #[derive(commonhold::Shared, commonhold::Key, Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum Kind {
        /// The one.
        One,
        /// The other.
        Other {
            /// With a number.
            number: u8,
        },
    }

    impl Thing<u8> {
        /// A new one.
        #[must_use]
        pub fn new() -> Self {
            Thing { name: String::new(), inner: vec![Inner(1)], about: 1 }
        }
    }

    impl Default for Thing<u8> {
        fn default() -> Self {
            Self::new()
        }
    }
}

/// Objects.
pub mod objects {
    /// An object.
    #[derive(Debug, Default)]
    pub struct Object {
        hits: u64,
    }

    /// What objects do.
    #[commonhold::remote]
    pub trait Hit {
        /// Hits.
        fn hit(&mut self, with: &str);
    }

    impl Hit for Object {
        fn hit(&mut self, with: &str) {
            self.hits += with.len() as u64;
        }
    }

    #[commonhold::remote(sync, traits(Hit))]
    impl Object {
        /// How often it was hit.
        #[must_use]
        pub fn hits(&self, of: &[u8]) -> u64 {
            self.hits + of.len() as u64
        }
    }
}

#[test]
fn it_runs() {
    println!("{:?} {:?}", things::Thing::new(), things::Kind::One);
}
