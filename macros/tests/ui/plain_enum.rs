use commonhold::{Plain, Shared};

#[derive(Shared, Plain, Clone, Copy)]
enum Color {
    Red,
    Green,
}

fn main() {}
