// What the derives themselves refuse.
mod empty_enum {
    #[derive(commonhold::Shared)]
    enum Never {}
}

mod lifetime {
    #[derive(commonhold::Shared)]
    struct Borrowed<'a> {
        name: &'a str,
    }
}

mod plain_enum {
    use commonhold::{Plain, Shared};

    #[derive(Shared, Plain, Clone, Copy)]
    enum Color {
        Red,
        Green,
    }
}

mod is_union {
    #[derive(commonhold::Shared)]
    union Bits {
        int: u32,
        float: f32,
    }
}

fn main() {}
