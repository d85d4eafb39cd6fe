// What `#[remote]` itself refuses, case by case; in other files stand the cases that the compiler refuses for what it has made.
mod asynchronous {
    struct Tally;
    #[commonhold::remote]
    impl Tally {
        pub async fn hit(&self) {}
    }
}

mod by_value {
    struct Tally;
    #[commonhold::remote]
    impl Tally {
        pub fn finish(self) -> u64 {
            0
        }
    }
}

mod changed_argument {
    struct Tally;
    #[commonhold::remote]
    impl Tally {
        pub fn fill(&self, into: &mut Vec<u8>) {}
    }
}

mod generic {
    struct Tally;
    #[commonhold::remote]
    impl Tally {
        pub fn hit<T>(&self, what: T) {}
    }
}

mod generic_trait {
    #[commonhold::remote]
    trait Count<T> {
        fn hit(&self, what: T);
    }
}

mod generic_type {
    struct Tally<T>(T);
    #[commonhold::remote]
    impl<T> Tally<T> {
        pub fn hit(&self) {}
    }
}

mod impl_trait {
    struct Tally;
    #[commonhold::remote]
    impl Tally {
        pub fn hit(&self, what: impl Iterator<Item = u64>) {}
    }
}

mod inner_lifetime {
    struct Tally;
    #[commonhold::remote]
    impl Tally {
        pub fn hit(&self, what: std::borrow::Cow<'static, str>) {}
    }
}

mod inner_reference {
    struct Tally;
    #[commonhold::remote]
    impl Tally {
        pub fn label(&self, prefix: Option<&str>) {}
    }
}

mod lifetime {
    struct Tally;
    #[commonhold::remote]
    impl Tally {
        pub fn hit<'a>(&self, what: &'a str) {}
    }
}

mod option {
    struct Tally;
    #[commonhold::remote(threads = 4)]
    impl Tally {
        pub fn hit(&self) {}
    }
}

mod own_type_result {
    struct Tally;
    #[commonhold::remote]
    impl Tally {
        pub fn split(&self) -> Option<Self> {
            None
        }
    }
}

mod reference_result {
    struct Tally(String);
    #[commonhold::remote]
    impl Tally {
        pub fn name(&self) -> &str {
            &self.0
        }
    }
}

mod structure {
    #[commonhold::remote]
    struct Tally;
}

mod taken_name {
    struct Tally;
    #[commonhold::remote]
    impl Tally {
        pub fn token(&self) -> u64 {
            0
        }
    }
}

mod trait_impl {
    struct Tally;
    trait Hit {
        fn hit(&self);
    }
    #[commonhold::remote]
    impl Hit for Tally {
        fn hit(&self) {}
    }
}

mod trait_option {
    #[commonhold::remote(sync)]
    trait Count {
        fn hit(&self);
    }
}

mod is_unsafe {
    struct Tally;
    #[commonhold::remote]
    impl Tally {
        pub unsafe fn hit(&self) {}
    }
}

fn main() {}
